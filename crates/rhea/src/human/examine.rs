//! `x` and `xp`: memory in numbers, letters or instructions.

use std::fmt::Write as _;

use rhea_qmp::Error;

use crate::commands::Context;

/// Whose addresses are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Virtual,
    Physical,
}

/// The most bytes that one command shows.
const LIMIT: u64 = 1 << 20;

/// How memory is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    count: u64,
    letter: char,
    size: u64,
}

impl Format {
    /// Reads `4xw` and the like.
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::generic(format!("invalid format '/{text}': a count, one of x d u o c i, one of b h w g"));
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let count = if digits == 0 { 1 } else { text[..digits].parse().map_err(|_| bad())? };
        let mut format = Self { count, letter: 'x', size: 4 };
        let mut sized = false;
        for letter in text[digits..].chars() {
            match letter {
                'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.letter = letter,
                'b' => (format.size, sized) = (1, true),
                'h' => (format.size, sized) = (2, true),
                'w' => (format.size, sized) = (4, true),
                'g' => (format.size, sized) = (8, true),
                _ => return Err(bad()),
            }
        }
        if format.letter == 'c' && !sized {
            format.size = 1;
        }
        Ok(format)
    }
}

/// Shows memory as `arguments` say: `/FORMAT ADDRESS`.
pub(super) fn run(context: &Context, processor: usize, arguments: &str, memory: Memory) -> Result<String, Error> {
    let (format, address) = match arguments.strip_prefix('/') {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("", arguments),
    };
    let format = Format::parse(format)?;
    let mut address = address_of(context, processor, address.trim())?;
    let per_item = if format.letter == 'i' { 16 } else { format.size };
    if format.count.saturating_mul(per_item) > LIMIT {
        return Err(Error::generic(format!(
            "{} items are too many: {LIMIT} bytes are shown at the most",
            format.count
        )));
    }
    if format.letter == 'i' {
        return instructions(context, processor, address, format.count, memory);
    }
    let mut text = String::new();
    let per_line = (16 / format.size).min(if format.letter == 'c' { 8 } else { 16 }).max(1);
    let mut left = format.count;
    while left > 0 {
        let _ = write!(text, "{address:016x}:");
        for _ in 0..per_line.min(left) {
            let mut bytes = [0; 8];
            read(context, processor, address, &mut bytes[..format.size as usize], memory)?;
            let value = u64::from_le_bytes(bytes);
            let _ = match format.letter {
                'd' => {
                    let shift = 64 - 8 * format.size;
                    write!(text, " {}", (value << shift) as i64 >> shift)
                }
                'u' => write!(text, " {value}"),
                'o' => write!(text, " {value:#o}"),
                'c' => write!(text, " {:?}", char::from(value as u8)),
                _ => write!(text, " 0x{value:0width$x}", width = 2 * format.size as usize),
            };
            address = address.wrapping_add(format.size);
        }
        text.push_str("\r\n");
        left -= per_line.min(left);
    }
    Ok(text)
}

/// A number, or the value of a register: `$rip`, `$pc`, `$rsp` and the like.
fn address_of(context: &Context, processor: usize, text: &str) -> Result<u64, Error> {
    let bad = || {
        Error::generic(format!("invalid address '{text}': a number, 0x for hexadecimal, or a register such as $rip"))
    };
    if let Some(register) = text.strip_prefix('$') {
        let names = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        let number = names
            .iter()
            .position(|name| *name == register || (name[1..] == register[1..] && register.starts_with('e')));
        let processor = context.machine.processors().get(processor).ok_or_else(bad)?;
        let value = match (register, number) {
            ("pc" | "rip" | "eip", _) => processor.with(|vcpu| vcpu.state().linear_instruction_pointer()),
            (_, Some(number)) => processor.with(move |vcpu| vcpu.state().gpr[number]),
            _ => return Err(bad()),
        };
        return value.ok_or_else(bad);
    }
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).map_err(|_| bad()),
        None => text.parse().map_err(|_| bad()),
    }
}

fn read(context: &Context, processor: usize, address: u64, bytes: &mut [u8], memory: Memory) -> Result<(), Error> {
    let machine = &context.machine;
    match memory {
        Memory::Physical => machine.memory().read(address, bytes),
        Memory::Virtual => {
            if !machine.read_virtual(processor, address, bytes) {
                return Err(Error::generic(format!("Cannot access memory at 0x{address:x}")));
            }
        }
    }
    Ok(())
}

fn instructions(
    context: &Context,
    processor: usize,
    mut address: u64,
    count: u64,
    memory: Memory,
) -> Result<String, Error> {
    let processors = context.machine.processors();
    let bits = processors.get(processor).and_then(|processor| processor.with(|vcpu| vcpu.state().code_bits()));
    let bits = bits.unwrap_or(32);
    let mut text = String::new();
    for _ in 0..count {
        let mut bytes = [0; 16];
        let mut length = 0;
        // The bytes behind the last instruction of a page may not be there.
        while length < 15
            && read(context, processor, address.wrapping_add(length as u64), &mut bytes[length..=length], memory)
                .is_ok()
        {
            length += 1;
        }
        if length == 0 {
            return Err(Error::generic(format!("Cannot access memory at 0x{address:x}")));
        }
        let (shown, used) = rhea_x86::inspect::disassemble(&bytes[..length], bits, address);
        let _ = write!(text, "0x{address:08x}:  {shown}\r\n");
        address = address.wrapping_add(used as u64);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_count_letter_and_size_in_any_measure() {
        assert_eq!(Format::parse("4xb").unwrap(), Format { count: 4, letter: 'x', size: 1 });
        assert_eq!(Format::parse("").unwrap(), Format { count: 1, letter: 'x', size: 4 });
        assert_eq!(Format::parse("2gd").unwrap(), Format { count: 2, letter: 'd', size: 8 });
        assert_eq!(Format::parse("8c").unwrap().size, 1);
        for bad in ["z", "99999999999999999999x", "4xq"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }
}
