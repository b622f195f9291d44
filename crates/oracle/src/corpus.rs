//! Cases as text, with what a processor made of them: written on a host that has one, run on any.
//!
//! A line is a case: the size of code, the bytes, what differs from the standard state, `->`, and what came out: the
//! exception, and what differs from the state before. All numbers are hexadecimal.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use iced_x86::{CpuidFeature, FlowControl, Instruction, InstructionInfoFactory};

use crate::{
    case::{Case, Outcome, Patch, Registers},
    compare::{Difference, Judge, differences},
    interpreter::{Interpreter, Way},
    layout::{self, CODE_END, DATA, STACK, WINDOW},
    segments::{CODE_16, CODE_32, CODE_64, DATA_16, DATA_32, DOWN, SMALL},
    templates::decode,
    text::{GENERAL, hexadecimal},
};

/// Numbers that are tried at least, when a few instructions are written.
const LEAST_ROUNDS: u64 = 2000;

/// Where the files are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// Segment registers of code of a size.
pub const fn selectors(bits: u8) -> [u16; 6] {
    match bits {
        64 => [0, CODE_64, DATA_32, 0, 0, 0],
        32 => [DATA_32, CODE_32, DATA_32, DATA_32, SMALL, DOWN],
        _ => [DATA_16, CODE_16, DATA_16, DATA_16, SMALL, DOWN],
    }
}

/// The state that lines tell the differences from.
pub fn standard(bits: u8, length: usize) -> Registers {
    let mut registers = Registers::ZERO;
    let base = if bits == 16 { WINDOW } else { 0 };
    for (number, register) in registers.gpr.iter_mut().enumerate() {
        *register = 0x1122_3344_5566_7700 + 0x11 * number as u64;
        if bits != 64 {
            *register = if number < 8 { *register & 0xffff_ffff } else { 0 };
        }
    }
    registers.gpr[4] = STACK + 0x800 - base;
    registers.rip = CODE_END - length as u64 - base;
    registers.rflags = 0x202;
    registers.mxcsr = 0x1f80;
    registers.control = 0x37f;
    registers.valid = 0xff;
    for (number, register) in registers.x87.iter_mut().enumerate() {
        *register = 0x3fff_8000_0000_0000_0000 + number as u128;
    }
    for (number, register) in registers.vector.iter_mut().enumerate().take(if bits == 64 { 16 } else { 8 }) {
        *register = [0x3ff0_0000_4000_0000_3f80_0000_0000_0001 + number as u128, number as u128];
    }
    registers.selectors = selectors(bits);
    if bits != 64 {
        (registers.fs_base, registers.gs_base) = (DATA, WINDOW);
    }
    registers
}

/// Makes standard what an instruction does not look at.
pub fn simplify(case: &mut Case, instruction: &Instruction) {
    let plain = standard(case.bits, case.bytes.len());
    let mut factory = InstructionInfoFactory::new();
    let information = factory.info(instruction);
    let mut used = [false; 16];
    let mut vectors = [false; 16];
    for register in information.used_registers() {
        let register = register.register();
        if register.is_gpr() {
            used[register.full_register().number() & 15] = true;
        } else if register.is_vector_register() {
            vectors[register.number() & 15] = true;
        }
    }
    let x87 = instruction.cpuid_features().iter().any(|feature| {
        matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX)
    }) || (0..instruction.op_count()).any(|i| instruction.op_register(i).is_mm());
    for number in 0..16 {
        // The stack pointer stays where it is, since what is at the stack goes with it.
        if !used[number] && number != 4 {
            case.registers.gpr[number] = plain.gpr[number];
        }
        if !vectors[number] {
            case.registers.vector[number] = plain.vector[number];
        }
    }
    if !vectors.contains(&true) {
        case.registers.mxcsr = plain.mxcsr;
    }
    if !x87 {
        (case.registers.x87, case.registers.valid) = (plain.x87, plain.valid);
        (case.registers.control, case.registers.status) = (plain.control, plain.status);
    }
}

/// The values of registers by name.
fn values(registers: &Registers) -> impl Iterator<Item = (String, u128)> {
    let general = GENERAL.iter().zip(registers.gpr).map(|(name, value)| ((*name).to_owned(), u128::from(value)));
    let others = [
        ("rip", registers.rip),
        ("flags", registers.rflags),
        ("fs", registers.fs_base),
        ("gs", registers.gs_base),
        ("cs", u64::from(registers.selectors[1])),
        ("es.sel", u64::from(registers.selectors[0])),
        ("ss.sel", u64::from(registers.selectors[2])),
        ("ds.sel", u64::from(registers.selectors[3])),
        ("fs.sel", u64::from(registers.selectors[4])),
        ("gs.sel", u64::from(registers.selectors[5])),
        ("mxcsr", u64::from(registers.mxcsr)),
        ("control", u64::from(registers.control)),
        ("status", u64::from(registers.status)),
        ("valid", u64::from(registers.valid)),
    ];
    let others = others.into_iter().map(|(name, value)| (name.to_owned(), u128::from(value)));
    let x87 = (0..8).zip(registers.x87).map(|(number, value)| (format!("R{number}"), value));
    let low = (0..16).zip(registers.vector).map(|(number, value)| (format!("xmm{number}"), value[0]));
    let high = (0..16).zip(registers.vector).map(|(number, value)| (format!("high{number}"), value[1]));
    general.chain(others).chain(x87).chain(low).chain(high).collect::<Vec<_>>().into_iter()
}

/// Sets a register by name; whether there is one.
fn set(registers: &mut Registers, name: &str, value: u128) -> bool {
    let numbered = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
    if let Some(number) = GENERAL.iter().position(|known| *known == name) {
        registers.gpr[number] = value as u64;
    } else if let Some(register) = numbered("R").and_then(|number| registers.x87.get_mut(number)) {
        *register = value;
    } else if let Some(register) = numbered("xmm").and_then(|number| registers.vector.get_mut(number)) {
        register[0] = value;
    } else if let Some(register) = numbered("high").and_then(|number| registers.vector.get_mut(number)) {
        register[1] = value;
    } else {
        match name {
            "rip" => registers.rip = value as u64,
            "flags" => registers.rflags = value as u64,
            "fs" => registers.fs_base = value as u64,
            "gs" => registers.gs_base = value as u64,
            "cs" => registers.selectors[1] = value as u16,
            "es.sel" => registers.selectors[0] = value as u16,
            "ss.sel" => registers.selectors[2] = value as u16,
            "ds.sel" => registers.selectors[3] = value as u16,
            "fs.sel" => registers.selectors[4] = value as u16,
            "gs.sel" => registers.selectors[5] = value as u16,
            "mxcsr" => registers.mxcsr = value as u32,
            "control" => registers.control = value as u16,
            "status" => registers.status = value as u16,
            "valid" => registers.valid = value as u16,
            _ => return false,
        }
    }
    true
}

fn write_differences(line: &mut String, from: &Registers, to: &Registers) {
    for ((name, before), (_, after)) in values(from).zip(values(to)) {
        if before != after {
            let _ = write!(line, " {name}={after:x}");
        }
    }
}

/// A case and what came of it, as a line.
pub fn line(case: &Case, outcome: &Outcome) -> String {
    let mut line = format!("{} {}", case.bits, hexadecimal(&case.bytes));
    write_differences(&mut line, &standard(case.bits, case.bytes.len()), &case.registers);
    for patch in &case.patches {
        let _ = write!(line, " @{:x}={}", patch.address, hexadecimal(&patch.bytes));
    }
    let _ = write!(line, " -> {:x}:{:x}:{:x}", outcome.vector, outcome.error, outcome.cr2);
    write_differences(&mut line, &case.registers, &outcome.registers);
    for word in 0..layout::WORDS as u32 {
        let value = outcome.word(word);
        if value != case.word_before(word as usize) {
            let _ = write!(line, " @{:x}={value:x}", layout::address_of(word as usize));
        }
    }
    line
}

/// Bytes from hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

/// Reads a line; none if it is none of ours.
pub fn parse(line: &str) -> Option<(Case, Outcome)> {
    let (before, after) = line.split_once(" -> ")?;
    let mut words = before.split(' ');
    let bits = words.next()?.parse().ok()?;
    let code = bytes(words.next()?)?;
    let mut case = Case { bits, registers: standard(bits, code.len()), bytes: code, patches: Vec::new() };
    for word in words {
        let (name, value) = word.split_once('=')?;
        if let Some(address) = name.strip_prefix('@') {
            let address = u64::from_str_radix(address, 16).ok()?;
            case.patches.push(Patch { address, bytes: bytes(value)? });
        } else if !set(&mut case.registers, name, u128::from_str_radix(value, 16).ok()?) {
            return None;
        }
    }
    let mut words = after.split(' ');
    let mut exception = words.next()?.split(':').map(|number| u64::from_str_radix(number, 16).ok());
    let (vector, error, cr2) = (exception.next()??, exception.next()??, exception.next()??);
    let mut registers = case.registers;
    let mut memory: Vec<_> = (0..layout::WORDS).map(|word| (word as u32, case.word_before(word))).collect();
    for word in words {
        let (name, value) = word.split_once('=')?;
        if let Some(address) = name.strip_prefix('@') {
            let word = layout::word_at(u64::from_str_radix(address, 16).ok()?)?;
            memory.get_mut(word)?.1 = u64::from_str_radix(value, 16).ok()?;
        } else if !set(&mut registers, name, u128::from_str_radix(value, 16).ok()?) {
            return None;
        }
    }
    memory.retain(|(word, value)| *value != layout::background(layout::address_of(*word as usize)));
    Some((case, Outcome { registers, vector: vector as u8, error: error as u32, cr2, memory }))
}

/// In how many ways a case was executed, and where the interpreter disagreed with what is expected.
pub fn check(interpreter: &mut Interpreter, case: &Case, expected: &Outcome) -> (usize, Vec<(String, Difference)>) {
    let instruction = decode(case.bits, &case.bytes, case.registers.rip);
    let mut found = Vec::new();
    let mut ways = 0;
    for way in [Way::Blocks, Way::Strict, Way::Single] {
        ways += 1;
        let outcome = interpreter.run(case, way);
        found.extend(
            differences(Judge::Intel, case, &instruction, expected, &outcome)
                .into_iter()
                .map(|it| (format!("{way:?}"), it)),
        );
    }
    if let Some(longer) = followed(case, &instruction, expected) {
        ways += 1;
        let mut outcome = interpreter.run(&longer, Way::Blocks);
        // The comparison made new flags.
        const ARITHMETIC: u64 = 0x8d5;
        let flags = &mut outcome.registers.rflags;
        *flags = *flags & !ARITHMETIC | expected.registers.rflags & ARITHMETIC;
        let differences = differences(Judge::Intel, case, &instruction, expected, &outcome);
        found.extend(differences.into_iter().map(|it| ("flags dead".to_owned(), it)));
    }
    (ways, found)
}

/// The case with a comparison behind it, so that nothing reads the instruction's flags; none where that cannot be.
fn followed(case: &Case, instruction: &Instruction, expected: &Outcome) -> Option<Case> {
    let end = case.registers.rip + case.bytes.len() as u64;
    const TRAP: u64 = 1 << 8;
    let plain = instruction.flow_control() == FlowControl::Next
        && !instruction.is_ip_rel_memory_operand()
        && expected.registers.rip == end
        && expected.vector == 14
        && expected.registers.rflags & TRAP == 0;
    if !plain {
        return None;
    }
    let mut longer = case.clone();
    // cmp al, al
    longer.bytes.extend([0x38, 0xc0]);
    longer.registers.rip -= 2;
    Some(longer)
}

/// Writes the files from what a host makes of generated cases: for each instruction and size of code the first that went
/// well and the first that faulted, one more in 64-bit code. Gives the number of cases and of bytes.
///
/// # Errors
/// What the kernel says; a case on which the interpreter disagrees.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn write(run: &mut crate::run::Run) -> io::Result<(usize, usize)> {
    use std::collections::BTreeMap;

    use crate::native::Native;

    let mut files: BTreeMap<String, BTreeMap<(String, u8), Vec<String>>> = BTreeMap::new();
    let rounds = (24 * run.generator().len() as u64).max(LEAST_ROUNDS);
    let mut good: BTreeMap<(String, u8), (usize, usize)> = BTreeMap::new();
    let mut number = 0;
    while number < rounds {
        let mut batch = Vec::new();
        for _ in 0..256 {
            number += 1;
            let Some(generated) = run.generator().case(number) else { continue };
            let (mut case, instruction) = (generated.case, generated.instruction);
            let whole = case.start() + case.bytes.len() as u64 == CODE_END && case.bytes.len() == instruction.len();
            if instruction.is_invalid() || !whole {
                continue;
            }
            simplify(&mut case, &instruction);
            batch.push((case, instruction));
        }
        let cases: Vec<_> = batch.iter().map(|(case, _)| case.clone()).collect();
        for ((case, instruction), native) in batch.into_iter().zip(run.native(&cases)?) {
            let Native::Ended(outcome) = native else { continue };
            let key = (format!("{:?}", instruction.code()), case.bits);
            let count = good.entry(key.clone()).or_default();
            let faulted = outcome.registers.rip == case.registers.rip;
            let (slot, most) =
                if faulted { (&mut count.1, 1) } else { (&mut count.0, if case.bits == 64 { 2 } else { 1 }) };
            if *slot == most || outcome.memory.len() > 90 {
                continue;
            }
            let interpreted = run.interpret(&case, Way::Blocks);
            if let Some(difference) = differences(Judge::host(), &case, &instruction, &outcome, &interpreted).first() {
                return Err(io::Error::other(format!("{key:?}: {}: {difference:?}", hexadecimal(&case.bytes))));
            }
            *slot += 1;
            let family = instruction.cpuid_features().first().map(|feature| format!("{feature:?}").to_lowercase());
            let file = files.entry(family.unwrap_or_default()).or_default();
            file.entry(key).or_default().push(line(&case, &outcome));
        }
    }
    let (mut cases, mut bytes) = (0, 0);
    fs::create_dir_all(directory())?;
    for (family, instructions) in files {
        let mut text = String::new();
        for lines in instructions.values() {
            cases += lines.len();
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
        }
        bytes += text.len();
        fs::write(directory().join(format!("{family}.txt")), text)?;
    }
    Ok((cases, bytes))
}

/// The lines of all files, each with the file's name.
///
/// # Errors
/// What the file system says.
pub fn read() -> io::Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    let mut paths = fs::read_dir(directory())?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        lines.extend(fs::read_to_string(&path)?.lines().map(|line| (name.clone(), line.to_owned())));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut case = Case { bits: 64, bytes: vec![0x90], registers: standard(64, 1), patches: Vec::new() };
        case.registers.gpr[3] = 5;
        case.registers.vector[9][1] = 7;
        case.registers.x87[2] = 1 << 79;
        case.patches.push(Patch { address: DATA + 3, bytes: vec![1, 2, 3] });
        let mut registers = case.registers;
        registers.rip += 1;
        registers.status = 0x3800;
        let memory = vec![(0, case.word_before(0)), (9, 1)];
        let outcome = Outcome { registers, vector: 14, error: 0x14, cr2: CODE_END, memory };
        let text = line(&case, &outcome);
        assert_eq!(parse(&text), Some((case, outcome)), "{text}");
        assert_eq!(parse("64 90 nonsense=1 -> e:0:0"), None);
    }
}
