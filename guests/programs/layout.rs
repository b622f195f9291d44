//! Where a test program has what.

/// Where the image is loaded: its header and the code that leaves the state that loaders hand over.
pub const LOAD: u32 = 0x10_0000;
pub const GDT: u32 = 0x10_1000;
pub const IDT: u32 = 0x10_2000;
/// The task state segment, with room for a whole map of I/O permissions.
pub const TSS: u32 = 0x10_3000;
/// Page tables that map the first 4 GiB to themselves: root, pointers, four directories.
pub const TABLES: u32 = 0x10_6000;
/// What the handler wrote down of the last exception, and variables of the harness.
pub const RECORD: u32 = 0x10_c000;
/// Interrupts and traps that were taken and returned from.
pub const LOG: u32 = 0x10_d000;
pub const CODE: u32 = 0x11_0000;
pub const DATA: u32 = 0x16_0000;
/// Code and data that privilege level 3 may use: a page of 2 MiB. What is there in the image is copied at the start.
pub const USER: u32 = 0x40_0000;
pub const USER_STACK: u32 = 0x5f_f000;
/// Ends of stacks: of the program, of interrupts from outer levels, and the first two of the interrupt stack table.
pub const STACK: u32 = 0x7_0000;
pub const INNER_STACK: u32 = 0x6_0000;
pub const INTERRUPT_STACKS: [u32; 2] = [0x5_0000, 0x5_8000];
/// Memory for whatever a program likes.
pub const SCRATCH: u32 = 0x100_0000;

/// Fields of the record, 8 bytes each, from [`RECORD`]. The first seven are in the order in which they are on the stack.
pub mod record {
    use super::RECORD;

    pub const VECTOR: u32 = RECORD;
    pub const ERROR: u32 = RECORD + 8;
    pub const IP: u32 = RECORD + 16;
    pub const CS: u32 = RECORD + 24;
    pub const FLAGS: u32 = RECORD + 32;
    pub const SP: u32 = RECORD + 40;
    pub const SS: u32 = RECORD + 48;
    /// Segment registers of virtual-8086 mode.
    pub const V86: u32 = RECORD + 56;
    pub const CR2: u32 = RECORD + 88;
    pub const DR6: u32 = RECORD + 96;
    /// The handler's stack pointer when it was entered, at the error code.
    pub const HANDLER_SP: u32 = RECORD + 104;
    /// What cases leave: 32 numbers.
    pub const RESULT: u32 = RECORD + 0x100;
    pub const END: u32 = RECORD + 0x200;

    /// The address of a result.
    pub const fn result(index: u32) -> u32 {
        RESULT + 8 * index
    }
}

/// Variables of the harness.
pub mod variable {
    use super::RECORD;

    /// The table of the case that runs.
    pub const CASE: u32 = RECORD + 0x400;
    pub const RECOVER_SP: u32 = RECORD + 0x408;
    /// A bit for each vector: its handler writes to the log and returns.
    pub const RETURNS: u32 = RECORD + 0x410;
    /// Whether such handlers of interrupts end them at the local APIC, and at the 8259A pair.
    pub const END_AT_APIC: u32 = RECORD + 0x430;
    pub const END_AT_PIC: u32 = RECORD + 0x434;
    pub const CASES: u32 = RECORD + 0x440;
    pub const FAILURES: u32 = RECORD + 0x444;
    pub const NUMBER: u32 = RECORD + 0x448;
    pub const DIGITS_LEFT: u32 = RECORD + 0x44c;
    pub const DECIMAL_END: u32 = RECORD + 0x470;
    /// How many entries the log has, and how many there are with those being written.
    pub const LOGGED: u32 = RECORD + 0x480;
    pub const RESERVED: u32 = RECORD + 0x484;
    /// What the loader handed over: the number in EAX, and the address in EBX.
    pub const LOADER_NUMBER: u32 = RECORD + 0x490;
    pub const INFORMATION: u32 = RECORD + 0x494;
    /// Free for programs.
    pub const OWN: u32 = RECORD + 0x800;
}

/// An entry of the log: bytes, and offsets in it.
pub mod log {
    pub const SIZE: u32 = 32;
    pub const MOST: u32 = 256;
    pub const VECTOR: u32 = 0;
    /// The number of the processor's local APIC.
    pub const APIC: u32 = 4;
    pub const IP: u32 = 8;
    pub const DR6: u32 = 16;
    pub const FLAGS: u32 = 24;

    /// The address of a field of an entry.
    pub const fn field(index: u32, field: u32) -> u32 {
        super::LOG + SIZE * index + field
    }
}

/// Selectors.
pub mod selector {
    pub const CODE_32: u16 = 0x08;
    pub const CODE_64: u16 = 0x10;
    pub const DATA: u16 = 0x18;
    pub const USER_CODE_32: u16 = 0x23;
    pub const USER_DATA: u16 = 0x2b;
    pub const USER_CODE_64: u16 = 0x33;
    pub const TSS: u16 = 0x38;
    /// Behind 16-bit code, at 0x48.
    pub const DATA_16: u16 = 0x50;
    /// The first that a program may define, and where they end.
    pub const OWN: u16 = 0x58;
    pub const END: u16 = 0x400;
}

/// The vector whose gate every level may use: it ends a case.
pub const RETURN_VECTOR: u32 = 0x20;
