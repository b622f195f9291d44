//! Notes of a dump: registers for debuggers, the full state of each processor, and VMCOREINFO.
//!
//! Sources: System V ABI, "Note Section"; `struct elf_prstatus` of the AMD64 kernel interface; the processor state of
//! version 1 under the name "QEMU" as crash reads it.

use crate::{Processor, Segment, Source};

const NT_PRSTATUS: u32 = 1;
/// Size of `struct elf_prstatus` for AMD64.
const PRSTATUS: usize = 336;
/// Where the process's number stands in it.
const PRSTATUS_PID: usize = 32;
/// Where the registers begin in it.
const PRSTATUS_REGISTERS: usize = 112;
/// Version and size of the full state.
const STATE_VERSION: u32 = 1;
const STATE: u32 = 440;

/// All notes of a dump.
pub(crate) fn encode(source: &Source<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(source.processors.len().saturating_mul(1024).min(1 << 24));
    for (number, processor) in (1..).zip(source.processors) {
        push(&mut out, b"CORE\0", NT_PRSTATUS, &prstatus(number, processor));
    }
    for processor in source.processors {
        push(&mut out, b"QEMU\0", 0, &state(processor));
    }
    if let Some(information) = source.vmcoreinfo {
        push(&mut out, b"VMCOREINFO\0", 0, information.text());
    }
    out
}

/// Where VMCOREINFO's text stands in the notes that [`encode`] made: it is the last one.
pub(crate) fn vmcoreinfo_offset(notes: &[u8], text: &[u8]) -> usize {
    notes.len().saturating_sub(text.len().next_multiple_of(4))
}

/// One note: sizes, type, name and content, each padded to four bytes.
fn push(out: &mut Vec<u8>, name: &[u8], kind: u32, content: &[u8]) {
    // Names are ours, and VMCOREINFO is bounded when it is taken in.
    for word in [name.len() as u32, content.len() as u32, kind] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for part in [name, content] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

fn prstatus(number: u32, processor: &Processor) -> Vec<u8> {
    let Processor { general, rip, rflags, cs, ds, es, fs, gs, ss, .. } = processor;
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = *general;
    let selector = |segment: &Segment| u64::from(segment.selector);
    // The order of `struct user_regs_struct`; the second RAX is the one a system call came with.
    let registers = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        rax,
        *rip,
        selector(cs),
        *rflags,
        rsp,
        selector(ss),
        fs.base,
        gs.base,
        selector(ds),
        selector(es),
        selector(fs),
        selector(gs),
    ];
    let mut out = vec![0; PRSTATUS_PID];
    out.extend_from_slice(&number.to_le_bytes());
    out.resize(PRSTATUS_REGISTERS, 0);
    registers.iter().for_each(|register| out.extend_from_slice(&register.to_le_bytes()));
    out.resize(PRSTATUS, 0);
    out
}

fn state(processor: &Processor) -> Vec<u8> {
    let Processor {
        general,
        rip,
        rflags,
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        ldt,
        tr,
        gdt,
        idt,
        cr0,
        cr2,
        cr3,
        cr4,
        efer: _,
        kernel_gs_base,
    } = processor;
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = *general;
    let mut out = Vec::with_capacity(STATE as usize);
    for word in [STATE_VERSION, STATE] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let registers = [rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, *rip, *rflags];
    registers.iter().for_each(|register| out.extend_from_slice(&register.to_le_bytes()));
    for segment in [cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt] {
        let Segment { selector, limit, attributes, base } = *segment;
        for word in [u32::from(selector), limit, attributes, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&base.to_le_bytes());
    }
    for register in [*cr0, 0, *cr2, *cr3, *cr4, *kernel_gs_base] {
        out.extend_from_slice(&register.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_registers_have_their_sizes() {
        let processor = Processor { rip: 0x1234_5678, ..Processor::default() };
        let status = prstatus(1, &processor);
        assert_eq!(status.len(), PRSTATUS);
        assert_eq!(status[PRSTATUS_REGISTERS + 16 * 8..][..8], 0x1234_5678_u64.to_le_bytes());
        let state = state(&processor);
        assert_eq!(state.len(), STATE as usize);
        assert_eq!(state[8 + 16 * 8..][..8], 0x1234_5678_u64.to_le_bytes());
    }

    #[test]
    fn names_and_contents_are_padded_to_four_bytes() {
        let mut out = Vec::new();
        push(&mut out, b"CORE\0", 1, &[7; 5]);
        assert_eq!(out.len(), 12 + 8 + 8);
        assert_eq!(out[..12], [5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(out[20..], [7, 7, 7, 7, 7, 0, 0, 0]);
    }
}
