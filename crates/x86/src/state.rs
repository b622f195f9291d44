//! The state of one processor: what handlers work on.
//!
//! The layout is fixed, with the hot fields first, so that translated code can address it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use rhea_core::memory::{AddressSpace, FlatView};

use crate::{
    bus::SystemBus,
    tlb::TlbSet,
    trap::{Exception, Trap},
};

/// Register numbers of the general registers.
pub mod reg {
    #![allow(missing_docs, reason = "the registers' own names")]
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
}

/// Numbers of the segment registers, and of the pseudo segment that 64-bit and flat code uses.
pub mod seg {
    #![allow(missing_docs, reason = "the registers' own names")]
    pub const ES: u8 = 0;
    pub const CS: u8 = 1;
    pub const SS: u8 = 2;
    pub const DS: u8 = 3;
    pub const FS: u8 = 4;
    pub const GS: u8 = 5;
    /// Base zero, no limit: chosen by the decoder where a segment cannot matter.
    pub const FLAT: u8 = 6;
}

bitflags::bitflags! {
    /// RFLAGS (SDM vol. 1 § 3.4.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rflags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Always set.
        const FIXED = 1 << 1;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap.
        const TF = 1 << 8;
        /// Interrupt enable.
        const IF = 1 << 9;
        /// Direction.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// I/O privilege level.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check.
        const AC = 1 << 18;
        /// Virtual interrupt.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// Identification.
        const ID = 1 << 21;
        /// The six arithmetic flags.
        const ARITHMETIC = 0x8d5;
    }

    /// CR0 (SDM vol. 3 § 2.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr0: u64 {
        /// Protection enable.
        const PE = 1 << 0;
        /// Monitor coprocessor.
        const MP = 1 << 1;
        /// Emulation.
        const EM = 1 << 2;
        /// Task switched.
        const TS = 1 << 3;
        /// Extension type, always set.
        const ET = 1 << 4;
        /// Numeric error.
        const NE = 1 << 5;
        /// Write protect.
        const WP = 1 << 16;
        /// Alignment mask.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR4 (SDM vol. 3 § 2.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr4: u64 {
        /// Virtual-8086 extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// Time stamp disable.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// Page size extensions.
        const PSE = 1 << 4;
        /// Physical address extension.
        const PAE = 1 << 5;
        /// Machine check enable.
        const MCE = 1 << 6;
        /// Page global enable.
        const PGE = 1 << 7;
        /// Performance counter enable.
        const PCE = 1 << 8;
        /// FXSAVE and SSE enable.
        const OSFXSR = 1 << 9;
        /// Unmasked SIMD exceptions.
        const OSXMMEXCPT = 1 << 10;
        /// User-mode instruction prevention.
        const UMIP = 1 << 11;
        /// 57-bit linear addresses.
        const LA57 = 1 << 12;
        /// FSGSBASE instructions.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE enable.
        const OSXSAVE = 1 << 18;
        /// Supervisor-mode execution prevention.
        const SMEP = 1 << 20;
        /// Supervisor-mode access prevention.
        const SMAP = 1 << 21;
        /// Protection keys.
        const PKE = 1 << 22;
        /// Protection keys of supervisor pages.
        const PKS = 1 << 24;
    }

    /// IA32_EFER (SDM vol. 3 § 2.2.1, APM vol. 2 § 3.1.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Efer: u64 {
        /// SYSCALL enable.
        const SCE = 1 << 0;
        /// Long mode enable.
        const LME = 1 << 8;
        /// Long mode active.
        const LMA = 1 << 10;
        /// No-execute enable.
        const NXE = 1 << 11;
    }
}

bitflags::bitflags! {
    /// XCR0, and the other masks that have a bit for each component of the extended state (SDM vol. 1 § 13.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Xcr0: u64 {
        /// x87 and MMX; always set.
        const X87 = 1 << 0;
        /// XMM registers and MXCSR.
        const SSE = 1 << 1;
        /// Upper halves of the YMM registers.
        const AVX = 1 << 2;
        /// The rights that protection keys leave.
        const PKRU = 1 << 9;
    }
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, inclusive, granularity applied.
    pub limit: u32,
    /// Bits 8 to 23 of the descriptor's second dword (type, S, DPL, P, AVL, L, D/B, G), shifted right by 8, with bits
    /// 8 to 11 (the limit's high part) clear.
    pub attributes: u16,
    /// The selector.
    pub selector: u16,
}

/// Descriptor table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}

/// x87 and MMX state (SDM vol. 1 § 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct X87 {
    /// Physical registers R0 to R7, 80 bits each; MMX registers are their low 64 bits.
    pub registers: [u128; 8],
    /// Control word.
    pub control: u16,
    /// Status word without TOP, which is in `top`.
    pub status: u16,
    /// Number of the physical register that is ST(0).
    pub top: u8,
    /// One bit a physical register: set when it is not empty (the form of FXSAVE's abridged tag word).
    pub valid: u8,
    /// Opcode of the last instruction that was no control instruction, 11 bits.
    pub last_opcode: u16,
    /// Address of that instruction.
    pub last_instruction: u64,
    /// Address of its memory operand.
    pub last_data: u64,
    /// CS at that instruction.
    pub last_cs: u16,
    /// Segment of its memory operand.
    pub last_ds: u16,
}

/// Everything that handlers see of one processor.
#[repr(C, align(64))]
pub struct CpuState {
    /// General registers 0 to 15; 16 always holds zero; the rest is unused and makes any 5-bit number a valid index.
    pub gpr: [u64; 32],
    /// Instruction pointer: the start of the block while its instructions run.
    pub rip: u64,
    /// RFLAGS, as a plain image.
    pub rflags: u64,
    /// Current privilege level.
    pub cpl: u8,
    /// Which of the translations in [`tlb`](Self::tlb) the running code uses, as a number of
    /// [`Privilege`](crate::access::Privilege); kept by [`update_mode`](crate::engine::mode).
    pub(crate) privilege: u8,
    /// Set by STI, MOV SS and POP SS: interrupts are held off until the next instruction has ended.
    pub interrupt_shadow: bool,
    /// A non-maskable interrupt was delivered and no IRET has ended it yet.
    pub nmi_blocked: bool,
    /// FERR# is asserted.
    pub x87_error_shown: bool,
    /// What the decoder must know of the processor's mode; kept by [`update_mode`](crate::engine::mode).
    pub mode: u32,
    /// ES, CS, SS, DS, FS, GS, the flat pseudo segment, and one unused.
    pub segments: [Segment; 8],
    /// CR0.
    pub cr0: u64,
    /// CR2: the address of the last page fault.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Debug registers; 4 and 5 are unused.
    pub dr: [u64; 8],
    /// XMM registers: the lower halves of the YMM registers.
    pub xmm: [u128; 16],
    /// The upper halves of the YMM registers.
    pub ymm_high: [u128; 16],
    /// XCR0: which parts of the extended state software has switched on.
    pub xcr0: u64,
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 and MMX.
    pub x87: X87,
    /// Model-specific registers that are plain values.
    pub msr: Msrs,
    /// The exception that goes with [`Trap::EXCEPTION`].
    pub exception: Exception,
    /// The rights that user pages' protection keys leave (SDM vol. 3 § 4.6.2).
    pub pkru: u32,
    /// Half of the linear address space: addresses within this of zero are canonical. Kept by
    /// [`update_mode`](crate::engine::mode).
    pub(crate) half_space: u64,
    /// Translations, by the numbers of [`Privilege`](crate::access::Privilege); the last set is unused and makes any 2-bit
    /// number a valid index.
    pub tlb: [TlbSet; 4],
    /// CPUID as the guest sees it.
    pub cpuid: crate::system::cpuid::CpuidTable,
    /// Engine's bookkeeping of code and translations.
    pub engine: crate::engine::EngineState,
    /// The memory map that the TLB was filled from; kept so that what an entry points to stays alive.
    pub view: Arc<FlatView>,
    /// The machine's memory.
    pub memory: Arc<AddressSpace>,
    /// The rest of the machine.
    pub bus: Arc<dyn SystemBus>,
    /// What others ask of this processor.
    pub requests: Arc<Requests>,
}

/// Model-specific registers that are plain values to the processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs, reason = "the registers' own names, SDM vol. 4")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_offset: u64,
    pub tsc_aux: u64,
    pub misc_enable: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_base: [u64; 8],
    pub mtrr_mask: [u64; 8],
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// CTL, STATUS, ADDR and MISC of five banks.
    pub machine_check: [u64; 20],
    pub syscfg: u64,
    pub hwcr: u64,
    pub interrupt_pending: u64,
    #[serde(default)]
    pub debugctl: u64,
    #[serde(default)]
    pub pkrs: u64,
}

/// What other threads ask of a processor; any thread may.
#[derive(Debug, Default)]
pub struct Requests {
    bits: AtomicU32,
    /// The INTR pin's level: an interrupt controller has something to deliver.
    pub interrupt: AtomicBool,
    /// The vector of the last start-up IPI.
    startup_vector: AtomicU32,
    /// Address bit 20 is held at zero.
    a20_masked: AtomicBool,
}

bitflags::bitflags! {
    /// One request each.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Request: u32 {
        /// INTR may have changed.
        const INTERRUPT = 1 << 0;
        /// A non-maskable interrupt.
        const NMI = 1 << 1;
        /// INIT: reset to wait for a start-up IPI (or to run, on the bootstrap processor).
        const INIT = 1 << 2;
        /// A start-up IPI.
        const STARTUP = 1 << 3;
        /// Return to the caller of `run`.
        const EXIT = 1 << 4;
        /// The memory map changed: drop every translation.
        const FLUSH = 1 << 5;
        /// Another processor decoded code: drop write translations and acknowledge.
        const CODE_PAGES = 1 << 6;
        /// What a processor waits for that is no interrupt may have happened.
        const WAKE = 1 << 7;
    }
}

impl Requests {
    /// Asks for `request`.
    pub fn ask(&self, request: Request) {
        self.bits.fetch_or(request.bits(), Ordering::SeqCst);
    }

    /// Asks for a start at page `vector`.
    pub fn ask_startup(&self, vector: u8) {
        self.startup_vector.store(u32::from(vector), Ordering::SeqCst);
        self.ask(Request::STARTUP);
    }

    /// Lets address bit 20 through, or holds it at zero.
    pub fn set_a20(&self, enabled: bool) {
        self.a20_masked.store(!enabled, Ordering::SeqCst);
        self.ask(Request::FLUSH);
    }

    /// Those bits of a physical address that leave the processor.
    pub(crate) fn address_mask(&self) -> u64 {
        if self.a20_masked.load(Ordering::SeqCst) { !(1 << 20) } else { u64::MAX }
    }

    /// Page number of the last start-up IPI.
    pub fn startup_vector(&self) -> u8 {
        self.startup_vector.load(Ordering::SeqCst) as u8
    }

    /// Whether anything is asked for.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.bits.load(Ordering::Relaxed) != 0
    }

    /// What is asked for, without taking it.
    pub fn peek(&self) -> Request {
        Request::from_bits_truncate(self.bits.load(Ordering::SeqCst))
    }

    /// Whether address bit 20 is held at zero.
    pub(crate) fn a20_masked(&self) -> bool {
        self.a20_masked.load(Ordering::SeqCst)
    }

    /// Takes those of `requests` that are asked for.
    pub fn take(&self, requests: Request) -> Request {
        Request::from_bits_truncate(self.bits.fetch_and(!requests.bits(), Ordering::SeqCst)) & requests
    }
}

impl CpuState {
    /// A processor with everything zero; [`reset`](Self::reset) gives it its state after power-on.
    pub(crate) fn new(
        cpuid: crate::system::cpuid::CpuidTable,
        memory: Arc<AddressSpace>,
        bus: Arc<dyn SystemBus>,
        requests: Arc<Requests>,
    ) -> Self {
        let view = Arc::clone(&memory.view());
        Self {
            gpr: [0; 32],
            rip: 0,
            rflags: Rflags::FIXED.bits(),
            cpl: 0,
            privilege: 0,
            interrupt_shadow: false,
            nmi_blocked: false,
            x87_error_shown: false,
            mode: 0,
            segments: [Segment::default(); 8],
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            dr: [0; 8],
            xmm: [0; 16],
            ymm_high: [0; 16],
            xcr0: Xcr0::X87.bits(),
            mxcsr: 0x1f80,
            x87: X87::INITIAL,
            msr: Msrs::default(),
            exception: Exception::INVALID_OPCODE,
            pkru: 0,
            half_space: 1 << 47,
            tlb: [TlbSet::new(), TlbSet::new(), TlbSet::new(), TlbSet::new()],
            cpuid,
            engine: crate::engine::EngineState::default(),
            view,
            memory,
            bus,
            requests,
        }
    }

    /// The 64-bit value of register `number`.
    #[inline(always)]
    pub fn register(&self, number: u8) -> u64 {
        self.gpr[usize::from(number & 31)]
    }

    /// Stores an exception for the engine to deliver: `return Err(cpu.raise(...))`.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Trap {
        self.exception = exception;
        Trap::EXCEPTION
    }

    /// RFLAGS as a set.
    #[inline(always)]
    pub fn flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.rflags)
    }

    /// Whether `bits` of CR0 are all set.
    #[inline(always)]
    pub fn cr0_has(&self, bits: Cr0) -> bool {
        self.cr0 & bits.bits() == bits.bits()
    }

    /// Whether `bits` of CR4 are all set.
    #[inline(always)]
    pub fn cr4_has(&self, bits: Cr4) -> bool {
        self.cr4 & bits.bits() == bits.bits()
    }

    /// Whether the processor is in long mode (64-bit or compatibility).
    #[inline(always)]
    pub fn long_mode(&self) -> bool {
        self.efer & Efer::LMA.bits() != 0
    }
}
