//! Dumps of guest memory, for people.

use rhea_api::dump::{DumpGuestMemoryFormat, DumpStatus, Handler};
use rhea_qmp::Error;

use super::Call;

/// `dump-guest-memory [-p] [-d] [-z|-l|-s] [-R] FILE [BEGIN LENGTH]`
pub fn write(call: &Call<'_>) -> Result<String, Error> {
    let mut words = call.arguments.split_whitespace().peekable();
    let (mut paging, mut detach, mut raw, mut compression) = (false, false, false, None);
    while let Some(word) = words.next_if(|word| word.starts_with('-')) {
        for flag in word.chars().skip(1) {
            match flag {
                'p' => paging = true,
                'd' => detach = true,
                'R' => raw = true,
                'z' | 'l' | 's' if compression.is_none() => compression = Some(flag),
                'z' | 'l' | 's' => return Err(Error::generic("only one of -z, -l and -s can be used")),
                other => return Err(Error::generic(format_args!("dump-guest-memory has no flag -{other}"))),
            }
        }
    }
    let format = match (compression, raw) {
        (None, false) => DumpGuestMemoryFormat::Elf,
        (None, true) => return Err(Error::generic("-R goes with -z, -l or -s")),
        (Some('z'), false) => DumpGuestMemoryFormat::KdumpZlib,
        (Some('z'), true) => DumpGuestMemoryFormat::KdumpRawZlib,
        (Some('l'), false) => DumpGuestMemoryFormat::KdumpLzo,
        (Some('l'), true) => DumpGuestMemoryFormat::KdumpRawLzo,
        (Some(_), false) => DumpGuestMemoryFormat::KdumpSnappy,
        (Some(_), true) => DumpGuestMemoryFormat::KdumpRawSnappy,
    };
    let file = words.next().ok_or_else(|| Error::generic("dump-guest-memory needs the name of a file"))?;
    let mut number = || words.next().map(number).transpose();
    let (begin, length) = (number()?, number()?);
    if let Some(left) = words.next() {
        return Err(Error::generic(format_args!("dump-guest-memory: '{left}' is too much")));
    }
    let mut commands = call.commands();
    let protocol = format!("file:{file}");
    let job = commands.dump_guest_memory(paging, protocol, Some(detach), begin, length, Some(format))?;
    drop(commands);
    job().map(|()| String::new())
}

/// A number, hexadecimal with 0x.
fn number(word: &str) -> Result<i64, Error> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| Error::generic(format_args!("'{word}' is no number")))
}

/// `info dump`
pub fn info(call: &Call<'_>) -> Result<String, Error> {
    let dump = call.commands().query_dump()?;
    let mut text = format!("Status: {}\r\n", dump.status.as_str());
    if dump.status == DumpStatus::Active {
        let percent = dump.completed as f64 * 100.0 / dump.total.max(1) as f64;
        text += &format!("Finished: {percent:.2} %\r\n");
    }
    Ok(text)
}
