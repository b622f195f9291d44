//! The interpreter's side: a machine with the same memory at the same addresses, user code and the same state before.

use std::sync::Arc;

use rhea_core::{
    Width,
    memory::{AddressSpace, Ram, Target},
};
use rhea_x86::{
    bus::SystemBus,
    engine::{CodeEpoch, Exit, Mode, Vcpu, VcpuConfig},
    state::{CpuState, Cr0, Cr4, Efer, Requests, Segment, TableRegister, Xcr0, seg},
    system::cpuid::{CpuidTable, Leaf},
    trap::Exception,
};

use crate::{
    case::{Case, Outcome, Registers},
    features::{INTEL, engine},
    layout::{self, CODE, DATA, PAGE, READ_ONLY, STACK, WINDOW, WORDS},
    segments::{DESCRIPTORS, Descriptor},
};

/// Bytes of RAM.
const RAM: u64 = 1 << 20;
/// Where RAM has the window.
const FRAME: u64 = 0x2_0000;
/// Where RAM has the paging structures.
const TABLES: u64 = 0x1000;
/// Where RAM has the descriptor tables.
const DESCRIPTOR_TABLES: u64 = 0x8000;
/// Where the processor sees them: as Linux does it, out of reach of user code.
const SYSTEM: u64 = 0xffff_ffff_8000_0000;
/// Bytes of Linux's global descriptor table.
const GLOBAL_LIMIT: u16 = 127;
/// Where the local descriptor table is in the page.
const LOCAL: u64 = 0x800;
/// Where the task state segment is in the page, and its last byte: there is no permission map.
const TASK: u64 = 0xc00;
const TASK_LIMIT: u32 = 0x67;
/// The interrupt descriptor table has the page behind, and the stack of its handlers the one after that.
const GATES: u64 = SYSTEM + PAGE;
const HANDLER_STACK: u64 = SYSTEM + 2 * PAGE;
/// Where handlers are, so many bytes each: in no page, so that the fetch of the first instruction ends a case.
const HANDLERS: u64 = SYSTEM + 0x1_0000;
const HANDLER: u64 = 16;
/// Linux's own code segment.
const KERNEL_CODE: u16 = 0x10;
/// Exceptions that user code may ask for by name: breakpoint and overflow. The gate to system calls is not used.
const ALLOWED: [u64; 2] = [3, 4];
/// Family 6.
const SIGNATURE: u32 = 0x806f8;
/// RFLAGS bits that the processor saves at a fault but does not have: RF.
const RESUME: u64 = 1 << 16;

/// A bus without anything on it.
struct Nothing;

impl SystemBus for Nothing {
    fn port_read(&self, _: u16, width: Width) -> u32 {
        width.ones() as u32
    }

    fn port_write(&self, _: u16, _: Width, _: u32) {}

    fn memory_read(&self, _: u64, _: Width) -> u64 {
        0
    }

    fn memory_write(&self, _: u64, _: Width, _: u64) {}

    fn acknowledge_interrupt(&self) -> Option<u8> {
        None
    }

    fn tsc(&self) -> u64 {
        0
    }

    fn random(&self) -> Option<u64> {
        None
    }

    fn task_priority(&self) -> u8 {
        0
    }

    fn set_task_priority(&self, _: u8) {}

    fn set_tsc_deadline(&self, _: u64, _: u64) {}

    fn apic_msr_read(&self, _: u32) -> Option<u64> {
        None
    }

    fn apic_msr_write(&self, _: u32, _: u64) -> Option<()> {
        None
    }
}

/// How the engine is to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Blocks, as always.
    Blocks,
    /// Every flag is computed, also where nothing reads it.
    Strict,
    /// One instruction at a time.
    Single,
}

/// The machine.
pub struct Interpreter {
    vcpu: Box<Vcpu>,
    ram: Arc<Ram>,
    background: Vec<u8>,
}

/// Where RAM has an address of the window.
const fn frame_of(address: u64) -> u64 {
    address - WINDOW + FRAME
}

impl Interpreter {
    /// A machine that has every feature of the engine.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> std::io::Result<Self> {
        let ram = Ram::new("oracle.ram", RAM)?;
        let memory = Arc::new(AddressSpace::new());
        memory.map(0, RAM, 0, Target::Ram { ram: Arc::clone(&ram), offset: 0, writable: true });
        let mut cpuid = CpuidTable::default();
        cpuid.set(0, 0, Leaf { eax: 0x1f, ebx: INTEL[0], edx: INTEL[1], ecx: INTEL[2] });
        cpuid.set(1, 0, Leaf { eax: SIGNATURE, ..Leaf::default() });
        for feature in engine().iter() {
            // With 57-bit linear addresses registers hold more than hosts with 48 bits let them.
            cpuid.set_feature(feature, feature.name() != "la57");
        }
        let mut vcpu = Vcpu::new(VcpuConfig {
            index: 0,
            bus: Arc::new(Nothing),
            memory,
            cpuid,
            requests: Arc::new(Requests::default()),
            code_epoch: Arc::new(CodeEpoch::default()),
            bootstrap: true,
        });
        vcpu.stop_at_exceptions(true);
        write_tables(&ram);
        let mut background = vec![0; layout::WINDOW_SIZE as usize];
        for (i, bytes) in background.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&layout::background(WINDOW + 8 * i as u64).to_le_bytes());
        }
        prepare(vcpu.state_mut());
        let interpreter = Self { vcpu, ram, background };
        interpreter.put(WINDOW, &interpreter.background);
        Ok(interpreter)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        assert!(self.ram.write(frame_of(address), bytes), "RAM holds the window");
    }

    /// Executes a case.
    pub fn run(&mut self, case: &Case, way: Way) -> Outcome {
        self.put(CODE, &case.code_page());
        for patch in &case.patches {
            self.put(patch.address, &patch.bytes);
        }
        load(self.vcpu.state_mut(), &case.registers);
        let state = self.vcpu.state_mut();
        state.interrupt_shadow = way == Way::Single;
        let mut mode = state.mode() & !Mode::STRICT;
        mode.set(Mode::STRICT, way == Way::Strict);
        state.mode = mode.bits();
        state.update_mode();
        self.vcpu.start();
        while !matches!(self.vcpu.run(), Exit::Exception | Exit::Shutdown | Exit::Halted | Exit::Waiting) {}
        self.outcome()
    }

    /// The state at a software interrupt that came through its gate: what the handler finds on its stack.
    fn interrupted(&self, registers: &mut Registers) {
        let mut frame = [0; 5];
        let from = HANDLER_STACK + PAGE - 8 * frame.len() as u64 - SYSTEM + DESCRIPTOR_TABLES;
        for (word, at) in frame.iter_mut().zip((from..).step_by(8)) {
            let mut bytes = [0; 8];
            assert!(self.ram.read(at, &mut bytes), "RAM holds the stack");
            *word = u64::from_le_bytes(bytes);
        }
        let [rip, cs, rflags, rsp, ss] = frame;
        (registers.rip, registers.rflags, registers.gpr[4]) = (rip, rflags, rsp);
        (registers.selectors[1], registers.selectors[2]) = (cs as u16, ss as u16);
    }

    fn outcome(&mut self) -> Outcome {
        let state = self.vcpu.state();
        let mut exception = state.exception;
        let mut registers = taken(state);
        if state.cpl == 0 {
            exception = Exception { vector: ((state.cr2 - HANDLERS) / HANDLER) as u8, error_code: None };
            self.interrupted(&mut registers);
        }
        let state = self.vcpu.state();
        let cr2 = if exception.vector == 14 { state.cr2 } else { 0 };
        let mut memory = Vec::new();
        for (first, pages) in [(DATA, 2), (STACK, 1)] {
            let mut bytes = [0; 2 * PAGE as usize];
            let bytes = &mut bytes[..pages * PAGE as usize];
            assert!(self.ram.read(frame_of(first), bytes), "RAM holds the window");
            let at = (first - WINDOW) as usize;
            let background = &self.background[at..at + bytes.len()];
            if bytes == background {
                continue;
            }
            let first = layout::word_at(first).unwrap_or(WORDS);
            for (i, (now, before)) in bytes.chunks_exact(8).zip(background.chunks_exact(8)).enumerate() {
                if now != before {
                    let mut word = [0; 8];
                    word.copy_from_slice(now);
                    memory.push(((first + i) as u32, u64::from_le_bytes(word)));
                }
            }
            for (word, _) in memory.iter().filter(|entry| entry.0 as usize >= first) {
                let address = layout::address_of(*word as usize);
                self.put(address, &layout::background(address).to_le_bytes());
            }
        }
        Outcome { registers, vector: exception.vector, error: exception.error_code.unwrap_or(0), cr2, memory }
    }
}

fn write_tables(ram: &Ram) {
    let put = |address: u64, value: u64| assert!(ram.write(address, &value.to_le_bytes()), "RAM holds the tables");
    let [top, user_directories, user_directory, user_pages, directories, directory, pages] =
        std::array::from_fn(|i| TABLES + PAGE * i as u64);
    put(top + 8 * (WINDOW >> 39), user_directories | 7);
    put(user_directories + 8 * (WINDOW >> 30 & 511), user_directory | 7);
    put(user_directory + 8 * (WINDOW >> 21 & 511), user_pages | 7);
    const NO_EXECUTE: u64 = 1 << 63;
    for (address, count, bits) in [
        (CODE, 1, 0x65),
        (DATA, 2, NO_EXECUTE | 0x67),
        (READ_ONLY, 1, NO_EXECUTE | 0x65),
        (STACK, 1, NO_EXECUTE | 0x67),
    ] {
        for page in (address..).step_by(PAGE as usize).take(count) {
            put(user_pages + 8 * (page >> 12 & 511), frame_of(page) | bits);
        }
    }
    put(top + 8 * (SYSTEM >> 39 & 511), directories | 3);
    put(directories + 8 * (SYSTEM >> 30 & 511), directory | 3);
    put(directory + 8 * (SYSTEM >> 21 & 511), pages | 3);
    for (entry, page) in (pages..).step_by(8).zip((DESCRIPTOR_TABLES..).step_by(PAGE as usize)).take(3) {
        put(entry, page | 0x63);
    }
    put(DESCRIPTOR_TABLES + u64::from(KERNEL_CODE), 0x00af_9b00_0000_ffff);
    // RSP0, and the base of the map of ports: beyond the segment (SDM vol. 3 § 8.7).
    put(DESCRIPTOR_TABLES + TASK + 4, HANDLER_STACK + PAGE);
    put(DESCRIPTOR_TABLES + TASK + 0x60, 0xffff << 48);
    for vector in 0..256 {
        let handler = HANDLERS + HANDLER * vector;
        let privilege = if ALLOWED.contains(&vector) { 3 } else { 0 };
        let gate = GATES - SYSTEM + DESCRIPTOR_TABLES + 16 * vector;
        let low = handler & 0xffff | u64::from(KERNEL_CODE) << 16 | (0x8e00 | privilege << 13) << 32;
        put(gate, low | (handler >> 16 & 0xffff) << 48);
        put(gate + 8, handler >> 32);
    }
    for descriptor in DESCRIPTORS {
        let table = DESCRIPTOR_TABLES + if descriptor.local() { LOCAL } else { 0 };
        put(table + u64::from(descriptor.selector & !7), descriptor.bits());
    }
}

/// What of the processor's state stays the same for all cases.
fn prepare(cpu: &mut CpuState) {
    cpu.gdtr = TableRegister { base: SYSTEM, limit: GLOBAL_LIMIT };
    let last =
        DESCRIPTORS.iter().filter(|descriptor| descriptor.local()).map(|descriptor| descriptor.selector | 7).max();
    let limit = u32::from(last.unwrap_or(0));
    cpu.ldtr = Segment { base: SYSTEM + LOCAL, limit, attributes: 0x82, selector: 0x50 };
    cpu.tr = Segment { base: SYSTEM + TASK, limit: TASK_LIMIT, attributes: 0x8b, selector: 0x40 };
    cpu.idtr = TableRegister { base: GATES, limit: 0xfff };
    cpu.cr0 = (Cr0::PE | Cr0::MP | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::PG).bits();
    cpu.cr3 = TABLES;
    let mut cr4 = Cr4::PAE | Cr4::PGE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::FSGSBASE | Cr4::UMIP;
    cr4.set(Cr4::OSXSAVE, engine().names().iter().any(|name| name == "xsave"));
    cpu.cr4 = cr4.bits();
    if cr4.contains(Cr4::OSXSAVE) {
        cpu.xcr0 = (Xcr0::X87 | Xcr0::SSE | Xcr0::AVX).bits();
    }
    cpu.efer = (Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE).bits();
    cpu.cpl = 3;
    // It reads nothing from memory in long mode, so that it cannot fail.
    let _ = cpu.paging_changed();
}

/// The hidden part of a segment register that holds `selector`.
fn segment(selector: u16, base: u64) -> Segment {
    match Descriptor::of(selector) {
        Some(descriptor) => Segment {
            base: u64::from(descriptor.base),
            limit: descriptor.byte_limit(),
            attributes: descriptor.attributes,
            selector,
        },
        None => Segment { base, selector, ..Segment::default() },
    }
}

fn load(cpu: &mut CpuState, registers: &Registers) {
    cpu.gpr[..16].copy_from_slice(&registers.gpr);
    cpu.rip = registers.rip;
    cpu.rflags = registers.rflags;
    let bases = [0, 0, 0, 0, registers.fs_base, registers.gs_base];
    for (number, (selector, base)) in registers.selectors.into_iter().zip(bases).enumerate() {
        cpu.segments[number] = segment(selector, base);
    }
    cpu.mxcsr = registers.mxcsr;
    for ((low, high), from) in cpu.xmm.iter_mut().zip(&mut cpu.ymm_high).zip(registers.vector) {
        [*low, *high] = from;
    }
    cpu.x87.registers = registers.x87;
    cpu.x87.load_control(registers.control);
    cpu.x87.load_status(registers.status);
    cpu.x87.valid = registers.valid as u8;
    cpu.cpl = 3;
    cpu.update_mode();
}

fn taken(cpu: &CpuState) -> Registers {
    let mut registers = Registers::ZERO;
    registers.gpr.copy_from_slice(&cpu.gpr[..16]);
    registers.rip = cpu.rip;
    registers.rflags = cpu.rflags & !RESUME;
    registers.fs_base = cpu.segments[usize::from(seg::FS)].base;
    registers.gs_base = cpu.segments[usize::from(seg::GS)].base;
    for (to, from) in registers.selectors.iter_mut().zip(&cpu.segments) {
        *to = from.selector;
    }
    registers.mxcsr = cpu.mxcsr;
    for ((to, low), high) in registers.vector.iter_mut().zip(cpu.xmm).zip(cpu.ymm_high) {
        *to = [low, high];
    }
    registers.x87 = cpu.x87.registers;
    registers.control = cpu.x87.control;
    registers.status = cpu.x87.status_word();
    registers.valid = u16::from(cpu.x87.valid);
    registers
}
