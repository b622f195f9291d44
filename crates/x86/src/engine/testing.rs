//! A small machine to try instructions on: flat RAM, a port log, and code that runs until HLT.
//!
//! Memory: a descriptor table at [`GDT`], data at [`DATA`], the stack below [`STACK`], code at [`CODE`]; all of it in the
//! first 64 KiB, so that it is the same for 16-, 32- and 64-bit code. 64-bit code runs under identity-mapped 2 MiB pages,
//! supervisor's and user's alike, whose tables are in the last pages of RAM.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rhea_core::{
    Width,
    memory::{AddressSpace, Ram, Target},
};

use super::{
    CodeEpoch,
    run::{Exit, Vcpu, VcpuConfig},
};
use crate::{
    bus::SystemBus,
    state::{CpuState, Cr0, Cr4, Efer, Requests, Segment, TableRegister, reg, seg},
    system::cpuid::{CpuidTable, Feature},
    trap::Exception,
};

/// Where the descriptor table is.
pub const GDT: u64 = 0x1000;
/// Where the interrupt descriptor table is, once it has gates.
pub const IDT: u64 = 0x2000;
/// A page for the test's data; RSI and RDI point there.
pub const DATA: u64 = 0x4000;
/// A processor that has nothing but what code of every mode needs of CR4.
fn model() -> CpuidTable {
    let mut table = CpuidTable::default();
    for name in ["tsc", "msr", "de", "pse", "pae", "mce", "pge", "sep", "fxsr", "sse"] {
        if let Some(feature) = Feature::named(name) {
            table.set_feature(feature, true);
        }
    }
    table
}

/// The first stack pointer.
pub const STACK: u64 = 0x7000;
/// Where code is put.
pub const CODE: u64 = 0x8000;
/// Bytes of RAM.
pub const RAM: u64 = 16 << 20;

/// Selectors of the descriptor table's entries.
pub mod selector {
    #![allow(missing_docs, reason = "names say it")]
    pub const CODE_32: u16 = 0x08;
    pub const DATA_32: u16 = 0x10;
    pub const CODE_64: u16 = 0x18;
    pub const CODE_16: u16 = 0x20;
    pub const DATA_16: u16 = 0x28;
    pub const USER_CODE_32: u16 = 0x33;
    pub const USER_DATA_32: u16 = 0x3b;
    pub const USER_CODE_64: u16 = 0x43;
}

/// The descriptors behind [`selector`]'s names, all with base 0.
const DESCRIPTORS: [u64; 9] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

/// The rest of the machine: ports that remember, and interrupts that wait.
#[derive(Debug, Default)]
pub struct TestBus {
    written: Mutex<Vec<(u16, Width, u32)>>,
    inputs: Mutex<BTreeMap<u16, u32>>,
    memory: Mutex<BTreeMap<u64, u8>>,
    interrupts: Mutex<VecDeque<u8>>,
    random: Mutex<VecDeque<u64>>,
    priority: AtomicU64,
    time: AtomicU64,
    deadline: Mutex<(u64, u64)>,
    x87_error: AtomicBool,
    ignores_x87_errors: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestBus {
    /// What was written to ports, in order.
    pub fn written(&self) -> Vec<(u16, Width, u32)> {
        lock(&self.written).clone()
    }

    /// Lets reads of `port` give `value`; other ports give ones.
    pub fn set_input(&self, port: u16, value: u32) {
        lock(&self.inputs).insert(port, value);
    }

    /// What was last written to IA32_TSC_DEADLINE, and when it is reached.
    pub fn deadline(&self) -> (u64, u64) {
        *lock(&self.deadline)
    }

    /// Queues a random number; without any there is none.
    pub fn queue_random(&self, number: u64) {
        lock(&self.random).push_back(number);
    }

    /// Whether FERR# is asserted.
    pub fn x87_error(&self) -> bool {
        self.x87_error.load(Ordering::SeqCst)
    }

    /// Drives IGNNE#.
    pub fn set_ignored(&self, ignored: bool) {
        self.ignores_x87_errors.store(ignored, Ordering::SeqCst);
    }

    /// Queues an interrupt for the next acknowledge cycle.
    pub fn queue_interrupt(&self, vector: u8) {
        lock(&self.interrupts).push_back(vector);
    }
}

impl SystemBus for TestBus {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        lock(&self.inputs).get(&port).copied().unwrap_or(u32::MAX) & width.ones() as u32
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        lock(&self.written).push((port, width, value));
    }

    fn memory_read(&self, address: u64, width: Width) -> u64 {
        let memory = lock(&self.memory);
        (0..width.bytes() as u64)
            .map(|i| u64::from(memory.get(&address.wrapping_add(i)).copied().unwrap_or(0)) << (8 * i))
            .sum()
    }

    fn memory_write(&self, address: u64, width: Width, value: u64) {
        let mut memory = lock(&self.memory);
        for (i, &byte) in value.to_le_bytes()[..width.bytes()].iter().enumerate() {
            memory.insert(address.wrapping_add(i as u64), byte);
        }
    }

    fn acknowledge_interrupt(&self) -> Option<u8> {
        lock(&self.interrupts).pop_front()
    }

    fn tsc(&self) -> u64 {
        self.time.fetch_add(100, Ordering::Relaxed)
    }

    fn random(&self) -> Option<u64> {
        lock(&self.random).pop_front()
    }

    fn task_priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed) as u8
    }

    fn set_task_priority(&self, priority: u8) {
        self.priority.store(u64::from(priority), Ordering::Relaxed);
    }

    fn set_tsc_deadline(&self, deadline: u64, at: u64) {
        *lock(&self.deadline) = (deadline, at);
    }

    fn apic_msr_read(&self, msr: u32) -> Option<u64> {
        match msr {
            0x1b => Some(0xfee0_0900),
            0x6e0 => Some(self.deadline().0),
            _ => None,
        }
    }

    fn apic_msr_write(&self, msr: u32, _: u64) -> Option<()> {
        (msr == 0x1b).then_some(())
    }

    fn set_x87_error(&self, asserted: bool) {
        self.x87_error.store(asserted, Ordering::SeqCst);
    }

    fn ignores_x87_errors(&self) -> bool {
        self.ignores_x87_errors.load(Ordering::SeqCst)
    }
}

/// A test machine.
pub struct Machine {
    /// Its processor.
    pub vcpu: Box<Vcpu>,
    /// Its RAM, from address 0.
    pub ram: Arc<Ram>,
    /// The rest of it.
    pub bus: Arc<TestBus>,
    /// Its memory map.
    pub memory: Arc<AddressSpace>,
    /// What its processors agree to be code.
    pub code_epoch: Arc<CodeEpoch>,
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// HLT.
    Halted,
    /// It waits, and may go on when anything is asked of it.
    Waiting,
    /// An exception; it was not delivered, and RIP is the instruction's.
    Exception(Exception),
    /// A triple fault.
    Shutdown,
}

impl Machine {
    /// A machine in flat `bits`-bit mode (16: real mode) at CPL 0 with `code` at [`CODE`], a HLT after it. It executes
    /// whatever there is a handler for, although its CPUID tells of little.
    ///
    /// # Panics
    /// If the machine cannot be made: this is for tests.
    #[allow(clippy::unwrap_used, reason = "for tests")]
    pub fn new(code: &[u8], bits: u8) -> Self {
        let ram = Ram::new("test.ram", RAM).unwrap();
        let memory = Arc::new(AddressSpace::new());
        memory.map(0, RAM, 0, Target::Ram { ram: Arc::clone(&ram), offset: 0, writable: true });
        let bus = Arc::new(TestBus::default());
        assert!(ram.write(CODE, code) && ram.write(CODE + code.len() as u64, &[0xf4]));
        for (i, descriptor) in DESCRIPTORS.iter().enumerate() {
            assert!(ram.write(GDT + 8 * i as u64, &descriptor.to_le_bytes()));
        }
        let code_epoch = Arc::new(CodeEpoch::default());
        let mut vcpu = Vcpu::new(VcpuConfig {
            index: 0,
            bus: Arc::clone(&bus) as Arc<dyn SystemBus>,
            memory: Arc::clone(&memory),
            cpuid: model(),
            requests: Arc::new(Requests::default()),
            code_epoch: Arc::clone(&code_epoch),
            bootstrap: true,
        });
        vcpu.stop_at_exceptions(true);
        let cpu = vcpu.state_mut();
        cpu.execute_every_instruction();
        flat_mode(cpu, bits);
        if bits == 64 {
            let tables = RAM - 3 * 4096;
            assert!(ram.write(tables, &(tables + 0x1007).to_le_bytes()));
            assert!(ram.write(tables + 0x1000, &(tables + 0x2007).to_le_bytes()));
            for i in 0..512 {
                assert!(ram.write(tables + 0x2000 + 8 * i, &((i << 21) | 0x87).to_le_bytes()));
            }
            cpu.cr3 = tables;
            cpu.cr4 |= (Cr4::PAE | Cr4::PGE).bits();
            cpu.cr0 |= Cr0::PG.bits();
            cpu.efer |= (Efer::LME | Efer::LMA | Efer::NXE).bits();
        }
        cpu.rip = CODE;
        cpu.gpr[usize::from(reg::RSP)] = STACK;
        cpu.gpr[usize::from(reg::RSI)] = DATA;
        cpu.gpr[usize::from(reg::RDI)] = DATA;
        cpu.update_mode();
        Self { vcpu, ram, bus, memory, code_epoch }
    }

    /// A second processor of the same machine, in the state that the first one is in.
    pub fn second_processor(&self) -> Box<Vcpu> {
        let mut vcpu = Vcpu::new(VcpuConfig {
            index: 1,
            bus: Arc::clone(&self.bus) as Arc<dyn SystemBus>,
            memory: Arc::clone(&self.memory),
            cpuid: self.vcpu.state().cpuid.clone(),
            requests: Arc::default(),
            code_epoch: Arc::clone(&self.code_epoch),
            bootstrap: true,
        });
        vcpu.stop_at_exceptions(true);
        let (from, to) = (self.vcpu.state(), vcpu.state_mut());
        (to.gpr, to.rip, to.rflags, to.cpl, to.segments) = (from.gpr, from.rip, from.rflags, from.cpl, from.segments);
        (to.cr0, to.cr3, to.cr4, to.efer) = (from.cr0, from.cr3, from.cr4, from.efer);
        (to.gdtr, to.idtr) = (from.gdtr, from.idtr);
        to.execute_every_instruction();
        to.update_mode();
        vcpu
    }

    /// Points `vector` at `handler` in an interrupt gate of 64-bit code; the table is at [`IDT`].
    pub fn set_gate(&mut self, vector: u8, handler: u64) {
        let low =
            (handler & 0xffff) | u64::from(selector::CODE_64) << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        let at = IDT + 16 * u64::from(vector);
        self.memory.write(at, &low.to_le_bytes());
        self.memory.write(at + 8, &(handler >> 32).to_le_bytes());
        self.cpu().idtr = TableRegister { base: IDT, limit: 0xfff };
    }

    /// The processor's state.
    pub fn cpu(&mut self) -> &mut CpuState {
        self.vcpu.state_mut()
    }

    /// Runs until HLT, an exception or shutdown.
    pub fn run(&mut self) -> Stop {
        self.vcpu.state_mut().update_mode();
        loop {
            match self.vcpu.run() {
                Exit::Halted => return Stop::Halted,
                Exit::Exception => return Stop::Exception(self.vcpu.state().exception),
                Exit::Shutdown => return Stop::Shutdown,
                Exit::Waiting => return Stop::Waiting,
                Exit::Asked | Exit::Contended | Exit::WaitingForStartup => {}
            }
        }
    }

    /// Reads `N` bytes of memory.
    pub fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory.read(address, &mut data);
        data
    }
}

/// Segment registers and control bits for `bits`-bit code, nothing in paging's way.
fn flat_mode(cpu: &mut CpuState, bits: u8) {
    let (code, data, limit) = match bits {
        64 => ((selector::CODE_64, 0xa09b), (selector::DATA_32, 0xc093), u32::MAX),
        32 => ((selector::CODE_32, 0xc09b), (selector::DATA_32, 0xc093), u32::MAX),
        _ => ((0, 0x009b), (0, 0x0093), 0xffff),
    };
    for number in [seg::ES, seg::SS, seg::DS, seg::FS, seg::GS] {
        cpu.segments[usize::from(number)] = Segment { base: 0, limit, attributes: data.1, selector: data.0 };
    }
    cpu.segments[usize::from(seg::CS)] = Segment { base: 0, limit, attributes: code.1, selector: code.0 };
    cpu.cpl = 0;
    cpu.rflags = 2;
    cpu.gdtr = TableRegister { base: GDT, limit: (8 * DESCRIPTORS.len() - 1) as u16 };
    // No task, and so no port that user code may use.
    cpu.tr = Segment::default();
    cpu.idtr = TableRegister { base: 0, limit: if bits == 16 { 0x3ff } else { 0 } };
    cpu.cr0 = Cr0::ET.bits() | Cr0::NE.bits() | if bits == 16 { 0 } else { Cr0::PE.bits() };
    cpu.cr4 = (Cr4::OSFXSR | Cr4::OSXMMEXCPT).bits();
}

/// Runs `code` in flat `bits`-bit mode until HLT, after `setup` has prepared registers; gives the state then.
///
/// # Panics
/// If it ends in another way.
pub fn run(code: &[u8], bits: u8, setup: impl FnOnce(&mut CpuState)) -> Box<CpuState> {
    let (cpu, stop) = run_to_stop(code, bits, setup);
    assert_eq!(stop, Stop::Halted, "at {:#x}, cr2 {:#x}", cpu.rip, cpu.cr2);
    cpu
}

/// As [`run`], whatever ends it.
pub fn run_to_stop(code: &[u8], bits: u8, setup: impl FnOnce(&mut CpuState)) -> (Box<CpuState>, Stop) {
    let mut machine = Machine::new(code, bits);
    setup(machine.cpu());
    let stop = machine.run();
    (machine.vcpu.into_state(), stop)
}

/// As [`run`], for code that must end in an exception; gives that with the state.
///
/// # Panics
/// If it ends in another way.
pub fn run_to_exception(code: &[u8], bits: u8, setup: impl FnOnce(&mut CpuState)) -> (Box<CpuState>, Exception) {
    match run_to_stop(code, bits, setup) {
        (cpu, Stop::Exception(exception)) => (cpu, exception),
        (cpu, stop) => panic!("{stop:?} at {:#x} instead of an exception", cpu.rip),
    }
}
