//! Linear addresses of memory operands: segment base, limit, type and alignment. SDM vol. 3 §§ 5.3 to 5.5, § 6.15 (#AC).

use crate::{
    access::Access,
    op::Op,
    state::{CpuState, Cr0, Rflags, Segment, seg},
    trap::{Exception, Trap},
};

/// Bits of [`Segment::attributes`].
pub mod attribute {
    /// Set by the processor when the segment is loaded.
    pub const ACCESSED: u16 = 1 << 0;
    /// Data: may be written. Code: may be read.
    pub const WRITABLE: u16 = 1 << 1;
    /// Code: may be read.
    pub const READABLE: u16 = 1 << 1;
    /// Data: the valid offsets are those above the limit.
    pub const EXPAND_DOWN: u16 = 1 << 2;
    /// Code: may be entered from less privileged code, which keeps its privilege.
    pub const CONFORMING: u16 = 1 << 2;
    /// Code, not data.
    pub const CODE: u16 = 1 << 3;
    /// Code or data, not a system descriptor.
    pub const SEGMENT: u16 = 1 << 4;
    /// Descriptor privilege level.
    pub const DPL: u16 = 3 << 5;
    /// Present; clear in a segment register that holds a null selector.
    pub const PRESENT: u16 = 1 << 7;
    /// 64-bit code. Never set in CS outside long mode.
    pub const LONG: u16 = 1 << 13;
    /// Default operand size, or stack pointer size, is 32 bits.
    pub const BIG: u16 = 1 << 14;
    /// The limit counts pages.
    pub const GRANULARITY: u16 = 1 << 15;
}

impl Segment {
    /// Whether all of `bits` are set.
    #[inline(always)]
    pub fn has(&self, bits: u16) -> bool {
        self.attributes & bits == bits
    }

    /// The privilege level in the descriptor.
    #[inline(always)]
    pub fn dpl(&self) -> u8 {
        (self.attributes >> 5 & 3) as u8
    }

    /// Whether this segment's type allows `access`, in protected mode.
    #[inline(always)]
    fn allows(&self, access: Access) -> bool {
        let needed = match access {
            Access::Read if !self.has(attribute::CODE) => attribute::PRESENT,
            Access::Read => attribute::PRESENT | attribute::READABLE,
            Access::Write if self.has(attribute::CODE) => return false,
            Access::Write => attribute::PRESENT | attribute::WRITABLE,
            Access::Execute => attribute::PRESENT | attribute::CODE,
        };
        self.has(needed)
    }

    /// Whether `size` bytes at `offset` lie inside the limit.
    #[inline(always)]
    pub fn contains(&self, offset: u64, size: u64) -> bool {
        let last = offset.wrapping_add(size.wrapping_sub(1));
        if self.attributes & (attribute::CODE | attribute::EXPAND_DOWN) == attribute::EXPAND_DOWN {
            let top = if self.has(attribute::BIG) { 0xffff_ffff } else { 0xffff };
            offset > u64::from(self.limit) && last <= top
        } else {
            last <= u64::from(self.limit)
        }
    }
}

/// Whether a linear address of 48 bits is sign-extended.
#[inline(always)]
pub fn is_canonical(linear: u64) -> bool {
    (linear as i64) << 16 >> 16 == linear as i64
}

impl CpuState {
    /// Whether the processor runs 64-bit code.
    #[inline(always)]
    pub fn in_64_bit_code(&self) -> bool {
        self.segments[usize::from(seg::CS)].has(attribute::LONG)
    }

    /// The linear address of the memory operand of `op`, of `size` bytes.
    ///
    /// In 64-bit code it may be non-canonical; translation faults then.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment, if the segment does not allow the access; #AC(0).
    #[inline(always)]
    pub fn linear(&mut self, op: &Op, size: u64, access: Access) -> Result<u64, Trap> {
        let offset = op.effective_address(self);
        let linear = if op.segment == seg::FLAT {
            offset
        } else if op.address_size == 8 {
            self.segments[usize::from(op.segment & 7)].base.wrapping_add(offset)
        } else {
            self.linear_segmented(op.segment, offset, size, access)?
        };
        self.check_alignment(linear, size)?;
        Ok(linear)
    }

    /// The linear address of `size` bytes at `offset` of a segment register.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    #[inline(always)]
    pub fn linear_at(&mut self, segment: u8, offset: u64, size: u64, access: Access) -> Result<u64, Trap> {
        let linear = if segment == seg::FLAT || segment < seg::FS && self.in_64_bit_code() {
            offset
        } else {
            self.linear_segmented(segment, offset, size, access)?
        };
        self.check_alignment(linear, size)?;
        Ok(linear)
    }

    /// The linear address in a segment whose base, limit and type matter.
    pub(crate) fn linear_segmented(
        &mut self,
        segment: u8,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<u64, Trap> {
        let register = &self.segments[usize::from(segment & 7)];
        if self.in_64_bit_code() {
            return Ok(match segment {
                seg::FS | seg::GS => register.base.wrapping_add(offset),
                _ => offset,
            });
        }
        if register.contains(offset, size) && self.allows_segment(register, access) {
            return Ok(register.base.wrapping_add(offset) & 0xffff_ffff);
        }
        Err(self.segment_fault(segment))
    }

    /// Whether the type of a segment allows `access`; real mode does not ask.
    #[inline(always)]
    pub(crate) fn allows_segment(&self, segment: &Segment, access: Access) -> bool {
        !self.cr0_has(Cr0::PE) || segment.allows(access)
    }

    #[cold]
    fn segment_fault(&mut self, segment: u8) -> Trap {
        self.raise(if segment == seg::SS { Exception::stack(0) } else { Exception::general_protection(0) })
    }

    /// Raises #AC for a misaligned operand where that is asked for. Operands of other than 2, 4 and 8 bytes have rules
    /// of their own.
    #[inline(always)]
    fn check_alignment(&mut self, linear: u64, size: u64) -> Result<(), Trap> {
        if matches!(size, 2 | 4 | 8) && linear & (size - 1) != 0 { self.misaligned() } else { Ok(()) }
    }

    #[cold]
    fn misaligned(&mut self) -> Result<(), Trap> {
        if self.cpl == 3 && self.cr0_has(Cr0::AM) && self.flags().contains(Rflags::AC) {
            return Err(self.raise(Exception::ALIGNMENT_CHECK));
        }
        Ok(())
    }
}
