//! A case: the bytes of an instruction, what registers and memory hold before, and what came out.

use crate::layout;

/// The registers that an instruction of user code can see or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Registers {
    /// YMM registers; the low halves are the XMM registers.
    pub vector: [[u128; 2]; 16],
    /// R0 to R7 of the x87, not ST(0) to ST(7); 80 bits each.
    pub x87: [u128; 8],
    /// General registers in the order of their numbers.
    pub gpr: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// RFLAGS, without RF.
    pub rflags: u64,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word.
    pub control: u16,
    /// x87 status word with TOP.
    pub status: u16,
    /// One bit a physical x87 register that is not empty.
    pub valid: u16,
    /// ES, CS, SS, DS, FS, GS.
    pub selectors: [u16; 6],
}

impl Registers {
    /// Everything zero.
    pub const ZERO: Self = Self {
        vector: [[0; 2]; 16],
        x87: [0; 8],
        gpr: [0; 16],
        rip: 0,
        rflags: 0,
        fs_base: 0,
        gs_base: 0,
        mxcsr: 0,
        control: 0,
        status: 0,
        valid: 0,
        selectors: [0; 6],
    };
}

/// Most patches of a case.
pub const PATCHES: usize = 4;

/// Bytes that memory holds instead of the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub address: u64,
    /// What; all of it in pages that a case can change.
    pub bytes: Vec<u8>,
}

/// One instruction and the state that it starts in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The size of code: 16, 32 or 64.
    pub bits: u8,
    /// The instruction's bytes.
    pub bytes: Vec<u8>,
    /// Registers before; RIP is where the instruction is, relative to the code segment.
    pub registers: Registers,
    /// Memory before, where it differs from the background.
    pub patches: Vec<Patch>,
}

impl Case {
    /// The linear address of the instruction.
    pub const fn start(&self) -> u64 {
        if self.bits == 16 { layout::WINDOW + self.registers.rip } else { self.registers.rip }
    }

    /// The page of code.
    pub fn code_page(&self) -> [u8; layout::PAGE as usize] {
        let mut page = [layout::FILLER; layout::PAGE as usize];
        let offset = (self.start() - layout::CODE) as usize;
        for (to, from) in page[offset..].iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        page
    }

    /// The word of memory with a number, before the case.
    pub fn word_before(&self, word: usize) -> u64 {
        let address = layout::address_of(word);
        let mut bytes = layout::background(address).to_le_bytes();
        for patch in &self.patches {
            for (i, byte) in bytes.iter_mut().enumerate() {
                let offset = (address + i as u64).wrapping_sub(patch.address);
                if let Some(patched) = usize::try_from(offset).ok().and_then(|offset| patch.bytes.get(offset)) {
                    *byte = *patched;
                }
            }
        }
        u64::from_le_bytes(bytes)
    }
}

/// What a case came to: the state at the fault that ended it. A case that went well ends in the page fault of the next
/// instruction's fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Registers after.
    pub registers: Registers,
    /// The exception.
    pub vector: u8,
    /// Its error code; 0 where it has none.
    pub error: u32,
    /// The address of a page fault; 0 for other exceptions.
    pub cr2: u64,
    /// Words of memory that are not the background's: number and value, in order.
    pub memory: Vec<(u32, u64)>,
}

impl Outcome {
    /// The word with a number.
    pub fn word(&self, word: u32) -> u64 {
        self.memory
            .binary_search_by_key(&word, |entry| entry.0)
            .ok()
            .and_then(|at| self.memory.get(at))
            .map_or_else(|| layout::background(layout::address_of(word as usize)), |entry| entry.1)
    }
}
