//! Dumps of guest memory, for people.

use rhea_api::dump::{DumpGuestMemoryFormat, DumpStatus, Handler};

use super::table::{Call, Failure, Printed, Work};

/// `dump-guest-memory [-p] [-d] [-z|-l|-s] [-R] FILE [BEGIN LENGTH]`
pub(super) fn write(call: &Call<'_>) -> Result<Work, Failure> {
    let mut line = call.line();
    let options = line.options("pdzlsR")?;
    let mut compressions = ['z', 'l', 's'].into_iter().filter(|&letter| options.has(letter));
    let compression = compressions.next();
    if compressions.next().is_some() {
        return Err(Failure::new("only one of -z, -l and -s can be used"));
    }
    let format = match (compression, options.has('R')) {
        (None, false) => DumpGuestMemoryFormat::Elf,
        (None, true) => return Err(Failure::new("-R goes with -z, -l or -s")),
        (Some('z'), false) => DumpGuestMemoryFormat::KdumpZlib,
        (Some('z'), true) => DumpGuestMemoryFormat::KdumpRawZlib,
        (Some('l'), false) => DumpGuestMemoryFormat::KdumpLzo,
        (Some('l'), true) => DumpGuestMemoryFormat::KdumpRawLzo,
        (Some(_), false) => DumpGuestMemoryFormat::KdumpSnappy,
        (Some(_), true) => DumpGuestMemoryFormat::KdumpRawSnappy,
    };
    let file = line.need("string")?;
    let begin = call.number_if_any(&mut line)?.map(|begin| begin as i64);
    let length = call.number_if_any(&mut line)?.map(|length| length as i64);
    line.end()?;
    let mut commands = call.commands();
    let protocol = format!("file:{file}");
    let (paging, detach) = (options.has('p'), Some(options.has('d')));
    let job = commands.dump_guest_memory(paging, protocol, detach, begin, length, Some(format))?;
    Ok(Work::new(commands, job, |()| String::new()))
}

/// `info dump`
pub(super) fn info(call: &Call<'_>) -> Printed {
    let dump = call.commands().query_dump()?;
    let mut text = format!("Status: {}\r\n", dump.status.as_str());
    if dump.status == DumpStatus::Active {
        let percent = dump.completed as f64 * 100.0 / dump.total.max(1) as f64;
        text += &format!("Finished: {percent:.2} %\r\n");
    }
    Ok(text)
}
