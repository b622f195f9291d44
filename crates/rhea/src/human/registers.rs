//! `info registers`: a processor's state as people and tools expect it.

use std::fmt::Write as _;

use rhea_x86::state::{CpuState, Rflags, Segment, Xcr0};

use super::table::{Call, Failure, Printed};

/// Prints the registers of the call's processor, or of all with `-a`.
pub(super) fn info(call: &Call<'_>) -> Printed {
    let list = call.context.machine.processors().list();
    if list.is_empty() {
        return Err(Failure::new("this machine has no processor"));
    }
    let mut line = call.line();
    let options = line.options("a")?;
    let wanted = match call.number_if_any(&mut line)? {
        Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
        None => call.processor,
    };
    line.end()?;
    if !options.has('a') && !list.iter().any(|processor| processor.index() == wanted) {
        return Err(Failure::new(format_args!("CPU#{wanted} not available")));
    }
    let mut text = String::new();
    for processor in list.iter().filter(|processor| options.has('a') || processor.index() == wanted) {
        // One that leaves at this moment is not shown.
        let Some(registers) = processor.with(|vcpu| render(vcpu.state(), vcpu.idle())) else { continue };
        // Writing to a string does not fail.
        let _ = write!(text, "\r\nCPU#{}\r\n{registers}", processor.index());
    }
    Ok(text)
}

/// Names of the general registers, four a line.
const NAMES: [[&str; 4]; 4] = [
    ["RAX", "RBX", "RCX", "RDX"],
    ["RSI", "RDI", "RBP", "RSP"],
    ["R8 ", "R9 ", "R10", "R11"],
    ["R12", "R13", "R14", "R15"],
];
const NUMBERS: [[usize; 4]; 4] = [[0, 3, 1, 2], [6, 7, 5, 4], [8, 9, 10, 11], [12, 13, 14, 15]];

fn render(cpu: &CpuState, halted: bool) -> String {
    let mut text = String::new();
    let long = cpu.long_mode();
    let wide = |value: u64| if long { format!("{value:016x}") } else { format!("{:08x}", value as u32) };
    let name = |name: &str| if long { name.to_owned() } else { name.replacen('R', "E", 1) };
    for (names, numbers) in NAMES.iter().zip(NUMBERS).take(if long { 4 } else { 2 }) {
        for (register, number) in names.iter().zip(numbers) {
            let _ = write!(text, "{}={} ", name(register), wide(cpu.gpr[number]));
        }
        text.truncate(text.trim_end().len());
        text.push_str("\r\n");
    }
    let flags = cpu.flags();
    let mut letters = String::new();
    for (flag, letter) in [
        (Rflags::DF, 'D'),
        (Rflags::OF, 'O'),
        (Rflags::SF, 'S'),
        (Rflags::ZF, 'Z'),
        (Rflags::AF, 'A'),
        (Rflags::PF, 'P'),
        (Rflags::CF, 'C'),
    ] {
        letters.push(if flags.contains(flag) { letter } else { '-' });
    }
    let _ = write!(
        text,
        "{}={} {}={:08x} [{letters}] CPL={} II={} A20=1 SMM=0 HLT={}\r\n",
        name("RIP"),
        wide(cpu.rip),
        name("RFL"),
        cpu.rflags,
        cpu.cpl,
        u8::from(cpu.interrupt_shadow),
        u8::from(halted),
    );
    for (name, number) in [("ES", 0), ("CS", 1), ("SS", 2), ("DS", 3), ("FS", 4), ("GS", 5)] {
        segment(&mut text, name, &cpu.segments[number], &wide);
    }
    segment(&mut text, "LDT", &cpu.ldtr, &wide);
    segment(&mut text, "TR", &cpu.tr, &wide);
    let _ = write!(text, "GDT=     {} {:08x}\r\n", wide(cpu.gdtr.base), cpu.gdtr.limit);
    let _ = write!(text, "IDT=     {} {:08x}\r\n", wide(cpu.idtr.base), cpu.idtr.limit);
    let _ = write!(text, "CR0={:08x} CR2={} CR3={} CR4={:08x}\r\n", cpu.cr0, wide(cpu.cr2), wide(cpu.cr3), cpu.cr4);
    let _ = write!(
        text,
        "DR0={:016x} DR1={:016x} DR2={:016x} DR3={:016x}\r\nDR6={:016x} DR7={:016x}\r\nEFER={:016x}\r\n",
        cpu.dr[0], cpu.dr[1], cpu.dr[2], cpu.dr[3], cpu.dr[6], cpu.dr[7], cpu.efer
    );
    let x87 = &cpu.x87;
    let status = x87.status & !0x3800 | u16::from(x87.top & 7) << 11;
    let _ = write!(
        text,
        "FCW={:04x} FSW={status:04x} [ST={}] FTW={:02x} MXCSR={:08x}\r\n",
        x87.control, x87.top, x87.valid, cpu.mxcsr
    );
    for (i, pair) in x87.registers.chunks(2).enumerate() {
        for (j, value) in pair.iter().enumerate() {
            let gap = if j == 0 { " " } else { "\r\n" };
            let _ = write!(text, "FPR{}={:016x} {:04x}{gap}", 2 * i + j, *value as u64, (*value >> 64) as u16);
        }
    }
    if Xcr0::from_bits_truncate(cpu.xcr0).contains(Xcr0::AVX) {
        let halves = |value: &u128| format!("{:016x} {:016x}", (*value >> 64) as u64, *value as u64);
        for (i, (high, low)) in cpu.ymm_high.iter().zip(&cpu.xmm).enumerate().take(if long { 16 } else { 8 }) {
            let _ = write!(text, "YMM{i:02}={} {}\r\n", halves(high), halves(low));
        }
        return text;
    }
    for (i, pair) in cpu.xmm.chunks(2).enumerate().take(if long { 8 } else { 4 }) {
        for (j, value) in pair.iter().enumerate() {
            let gap = if j == 0 { " " } else { "\r\n" };
            let _ = write!(text, "XMM{:02}={:016x} {:016x}{gap}", 2 * i + j, (*value >> 64) as u64, *value as u64);
        }
    }
    text
}

fn segment(text: &mut String, name: &str, segment: &Segment, wide: &dyn Fn(u64) -> String) {
    let _ = write!(
        text,
        "{name:<3}={:04x} {} {:08x} {:08x}\r\n",
        segment.selector,
        wide(segment.base),
        segment.limit,
        u32::from(segment.attributes) << 8
    );
}

/// The value of the register `name` of the call's processor.
pub(super) fn value(call: &Call<'_>, name: &str) -> Option<u64> {
    let processor = call.context.machine.processors().get(call.processor)?;
    let name = name.to_owned();
    processor.with(move |vcpu| vcpu.state().register_named(&name))?
}
