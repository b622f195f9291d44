//! A decoded instruction as the engine keeps it: a handler and its operands.

use crate::{state::CpuState, trap::Trap};

/// Executes one decoded instruction. It commits in order: on an exception nothing of the instruction is visible,
/// except what the architecture says.
///
/// A handler that is no branch leaves RIP alone (it is stale inside a block; [`Op::offset`] tells where the instruction
/// is); one that branches sets RIP in every case and ends its block with `Ok`.
pub type Handler = extern "C" fn(&mut CpuState, &Op) -> Result<(), Trap>;

/// Number of the register that always reads zero, for absent base and index registers.
pub const ZERO: u8 = 16;

/// First number of the high byte registers: AH, CH, DH, BH are 20 to 23.
pub const HIGH_BYTE: u8 = 20;

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// What executes it.
    pub handler: Handler,
    /// The immediate, sign-extended to 64 bits; the target of a near branch; the second immediate of ENTER and far
    /// pointers is in `disp`.
    pub imm: u64,
    /// Displacement of the memory operand; for RIP-relative ones the address itself.
    pub disp: u64,
    /// Base register, or [`ZERO`].
    pub base: u8,
    /// Index register, or [`ZERO`].
    pub index: u8,
    /// Shift of the index: 0 to 3.
    pub scale: u8,
    /// Segment of the memory operand: an index into [`CpuState::segments`].
    pub segment: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub address_size: u8,
    /// Register number of operand 0, where that is a register.
    pub dst: u8,
    /// Register number of operand 1, where that is a register.
    pub src: u8,
    /// Register number of operand 2, where that is a register; handlers' own use otherwise.
    pub aux: u8,
    /// Operand size in bytes, for handlers that serve several.
    pub size: u8,
    /// Length of the instruction in bytes.
    pub length: u8,
    /// Distance of the instruction from the start of its block, in bytes.
    pub offset: u16,
    /// Prefixes that matter to the handler.
    pub prefix: Prefix,
}

/// Prefixes of an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Prefix {
    /// None that matters.
    #[default]
    None = 0,
    /// F3: REP or REPE.
    Rep = 1,
    /// F2: REPNE.
    Repne = 2,
    /// F0: LOCK.
    Lock = 3,
}

impl Op {
    /// The offset of the memory operand inside its segment, cut to the address size.
    #[inline(always)]
    pub fn effective_address(&self, cpu: &CpuState) -> u64 {
        let sum =
            cpu.register(self.base).wrapping_add(cpu.register(self.index) << (self.scale & 3)).wrapping_add(self.disp);
        match self.address_size {
            8 => sum,
            4 => sum & 0xffff_ffff,
            _ => sum & 0xffff,
        }
    }
}
