//! Numbers and addresses: `print`, `gva2gpa`, `gpa2hva` and `sum`.

use std::sync::Arc;

use rhea_core::memory::Target;
use rhea_hmp::Letter;

use super::table::{Call, Failure, Printed, Work};

/// `print /FORMAT EXPRESSION`.
pub(super) fn print(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let format = line.format()?;
    let value = call.number(&mut line)?;
    line.end()?;
    Ok(match format.letter {
        Letter::Hexadecimal | Letter::Instruction => format!("{value:#x}\r\n"),
        _ => format.show(value, 8).trim_start().to_owned() + "\r\n",
    })
}

/// The only argument: an address.
fn address(call: &Call<'_>) -> Result<u64, Failure> {
    let mut line = call.line();
    let address = call.number(&mut line)?;
    line.end()?;
    Ok(address)
}

/// `gva2gpa ADDRESS`.
pub(super) fn virtual_to_physical(call: &Call<'_>) -> Printed {
    let found = call.context.machine.physical_address(call.processor, address(call)?);
    Ok(found.map_or_else(|| "Unmapped\r\n".to_owned(), |physical| format!("gpa: {physical:#x}\r\n")))
}

/// `gpa2hva ADDRESS`.
pub(super) fn physical_to_host(call: &Call<'_>) -> Printed {
    let address = address(call)?;
    let view = call.context.machine.memory().view();
    let range = view.find(address);
    let range = range.ok_or_else(|| Failure::new(format_args!("No memory is mapped at address 0x{address:x}")))?;
    let host = match &range.target {
        Target::Ram { ram, .. } => ram.host(address - range.base + range.offset),
        Target::Mmio(_) => None,
    };
    let host = host.ok_or_else(|| Failure::new(format_args!("Memory at address 0x{address:x} is not RAM")))?;
    Ok(format!("Host virtual address for 0x{address:x} ({}) is {host:p}\r\n", range.target.name()))
}

/// `sum ADDRESS SIZE`: the checksum of BSD's sum, 16 bits wide.
pub(super) fn checksum(call: &Call<'_>) -> Result<Work, Failure> {
    let mut line = call.line();
    let (address, size) = (call.number(&mut line)?, call.number(&mut line)?);
    line.end()?;
    let memory = Arc::clone(call.context.machine.memory());
    if size > 0 && !memory.is_ram(address, size) {
        return Err(Failure::new(format_args!("not all of 0x{size:x} bytes at 0x{address:x} is RAM")));
    }
    let job = move || {
        let mut sum = 0_u16;
        let mut bytes = vec![0; 1 << 16];
        let mut at = 0;
        while at < size {
            let run = (size - at).min(bytes.len() as u64);
            let part = &mut bytes[..run as usize];
            memory.read(address.wrapping_add(at), part);
            sum = part.iter().fold(sum, |sum, &byte| sum.rotate_right(1).wrapping_add(byte.into()));
            at += run;
        }
        Ok(format!("{sum:05}\r\n"))
    };
    Ok(Work::new(call.commands(), Box::new(job), |text| text))
}
