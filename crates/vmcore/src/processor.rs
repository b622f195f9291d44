//! Registers of a processor as a dump holds them.

/// A segment register with what the processor loaded for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Last offset.
    pub limit: u32,
    /// Attributes as in the descriptor's second double word (bits 8 to 15 and 20 to 23).
    pub attributes: u32,
    /// First address.
    pub base: u64,
}

/// Registers of one x86 processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processor {
    /// General registers in the order of their numbers: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// Segment FS.
    pub fs: Segment,
    /// Segment GS.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Local descriptor table.
    pub ldt: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table: base and limit.
    pub gdt: Segment,
    /// Interrupt descriptor table: base and limit.
    pub idt: Segment,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2: the address of the last page fault.
    pub cr2: u64,
    /// Control register 3: the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended features: long mode.
    pub efer: u64,
    /// What SWAPGS puts into the base of GS.
    pub kernel_gs_base: u64,
}
