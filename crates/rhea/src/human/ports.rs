//! `i` and `o`: I/O ports.

use rhea_core::Width;

use super::table::{Call, Failure, Printed};

fn port(value: u64) -> Result<u16, Failure> {
    u16::try_from(value).map_err(|_| Failure::new(format_args!("there is no I/O port 0x{value:x}")))
}

/// The width of a format, a byte unless said, and its letter.
fn width(call_size: Option<u8>) -> Result<(Width, char), Failure> {
    match call_size {
        None | Some(1) => Ok((Width::Byte, 'b')),
        Some(2) => Ok((Width::Word, 'w')),
        Some(4) => Ok((Width::Dword, 'l')),
        Some(_) => Err(Failure::new("I/O ports are read and written by b, h or w: 1, 2 or 4 bytes")),
    }
}

/// `i /FORMAT PORT`.
pub(super) fn read(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (width, letter) = width(line.format()?.size)?;
    let port = port(call.number(&mut line)?)?;
    line.end()?;
    let value = call.context.machine.read_port(port, width);
    Ok(format!("port{letter}[0x{port:04x}] = 0x{value:0digits$x}\r\n", digits = 2 * width.bytes()))
}

/// `o /FORMAT PORT VALUE`.
pub(super) fn write(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (width, _) = width(line.format()?.size)?;
    let port = port(call.number(&mut line)?)?;
    let value = call.number(&mut line)?;
    line.end()?;
    call.context.machine.write_port(port, width, (value & width.ones()) as u32);
    Ok(String::new())
}
