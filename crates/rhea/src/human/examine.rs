//! `x` and `xp`: memory in numbers, letters or instructions.

use std::fmt::Write as _;

use rhea_hmp::{Format, Letter};

use super::table::{Call, Failure, Printed};

/// Whose addresses are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Virtual,
    Physical,
}

/// The most bytes that one command shows.
const LIMIT: u64 = 1 << 20;
/// Bytes that are read at once: full lines of any size of value.
const BLOCK: u64 = 4096;
/// The longest instruction.
const LONGEST: u64 = 15;

fn no_memory(address: u64) -> Failure {
    Failure::new(format_args!("Cannot access memory at 0x{address:x}"))
}

/// Shows memory: `/FORMAT ADDRESS`.
pub(super) fn run(call: &Call<'_>, memory: Memory) -> Printed {
    let mut line = call.line();
    let format = line.format()?;
    let address = call.number(&mut line)?;
    line.end()?;
    let size = match (format.letter, format.size) {
        (Letter::Instruction, _) => LONGEST as u8,
        (_, Some(size)) => size,
        (Letter::Character, None) => 1,
        (_, None) => 4,
    };
    if format.count.saturating_mul(size.into()) > LIMIT {
        let count = format.count;
        return Err(Failure::new(format_args!("{count} items are too many: {LIMIT} bytes are shown at the most")));
    }
    match format.letter {
        Letter::Instruction => instructions(call, address, format.count, memory),
        _ => values(call, address, format, size, memory),
    }
}

fn values(call: &Call<'_>, mut address: u64, format: Format, size: u8, memory: Memory) -> Printed {
    let per_line = match (format.letter, size) {
        (Letter::Character, _) => 16,
        (_, 1) => 8,
        _ => 16 / u64::from(size),
    };
    let mut text = String::new();
    let mut left = format.count;
    while left > 0 {
        // Many lines at once; near the end of what is mapped, one value after the other.
        let count = left.min(BLOCK / u64::from(size));
        let mut bytes = vec![0; (count * u64::from(size)) as usize];
        if !read(call, address, &mut bytes, memory) {
            let there =
                |(at, value): (u64, &mut [u8])| read(call, address.wrapping_add(at * u64::from(size)), value, memory);
            let values = (0..).zip(bytes.chunks_mut(usize::from(size)));
            let good = values.map(there).take_while(|good| *good).count();
            return Err(no_memory(address.wrapping_add(good as u64 * u64::from(size))));
        }
        for line in bytes.chunks(per_line as usize * usize::from(size)) {
            // Writing to a string does not fail.
            let _ = write!(text, "{address:016x}:");
            for value in line.chunks(usize::from(size)) {
                let value = value.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                text.push(' ');
                text.push_str(&format.show(value, size));
            }
            text.push_str("\r\n");
            address = address.wrapping_add(line.len() as u64);
        }
        left -= count;
    }
    Ok(text)
}

/// `false` where nothing is mapped.
fn read(call: &Call<'_>, address: u64, bytes: &mut [u8], memory: Memory) -> bool {
    let machine = &call.context.machine;
    match memory {
        Memory::Physical => {
            machine.memory().read(address, bytes);
            true
        }
        Memory::Virtual => machine.read_virtual(call.processor, address, bytes),
    }
}

fn instructions(call: &Call<'_>, mut address: u64, count: u64, memory: Memory) -> Printed {
    let processors = call.context.machine.processors();
    let bits = processors.get(call.processor).and_then(|processor| processor.with(|vcpu| vcpu.state().code_bits()));
    let bits = bits.unwrap_or(32);
    let mut text = String::new();
    for _ in 0..count {
        let mut bytes = [0; LONGEST as usize];
        // All of it if it is there; at the end of what is mapped, as much as there is.
        let mut length = bytes.len();
        if !read(call, address, &mut bytes, memory) {
            let there = |&at: &usize| {
                let mut byte = [0];
                let found = read(call, address.wrapping_add(at as u64), &mut byte, memory);
                bytes[at] = byte[0];
                found
            };
            length = (0..LONGEST as usize).take_while(there).count();
        }
        if length == 0 {
            return Err(no_memory(address));
        }
        let (shown, used) = rhea_x86::inspect::disassemble(&bytes[..length], bits, address);
        let used = used.min(length);
        let code: String = bytes[..used].iter().map(|byte| format!("{byte:02x} ")).collect();
        let _ = write!(text, "0x{address:08x}:  {code:<24} {shown}\r\n");
        address = address.wrapping_add(used as u64);
    }
    Ok(text)
}
