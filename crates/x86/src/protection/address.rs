//! Linear addresses of memory operands: segment base, limit, type and alignment. SDM vol. 3 §§ 5.3 to 5.5, § 6.15 (#AC).

use crate::{
    access::{Access, Value},
    op::Op,
    state::{CpuState, Cr0, Cr4, Rflags, Segment, seg},
    system::cpuid::Feature,
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

/// Whether a linear address lies in the lower or the upper half, of `half` bytes each, of the address space.
#[inline(always)]
pub const fn is_canonical(linear: u64, half: u64) -> bool {
    linear.wrapping_add(half) < half << 1
}

/// Half of the linear addresses of 48 bits.
pub const HALF_OF_48_BITS: u64 = 1 << 47;
/// Half of the linear addresses of 57 bits.
pub const HALF_OF_57_BITS: u64 = 1 << 56;

impl CpuState {
    /// Whether a linear address is one that paging can translate.
    #[inline(always)]
    pub fn is_canonical(&self, linear: u64) -> bool {
        is_canonical(linear, self.half_space)
    }

    /// Whether a register that holds a linear address can hold this one: it can if some paging mode of this processor has
    /// it (SDM vol. 1 § 3.3.7.1).
    pub fn fits_linear_address(&self, linear: u64) -> bool {
        is_canonical(linear, if self.cpuid.has(Feature::LA57) { HALF_OF_57_BITS } else { HALF_OF_48_BITS })
    }

    /// Takes over how wide linear addresses are.
    pub(crate) fn update_address_width(&mut self) {
        let wide = self.long_mode() && self.cr4_has(Cr4::LA57);
        self.half_space = if wide { HALF_OF_57_BITS } else { HALF_OF_48_BITS };
    }

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

    /// The linear address of the memory operand of `op`, where its segment is nothing but a base.
    ///
    /// Handlers that most programs are made of look here first and go on in a function of their own where there is more to
    /// do: so they need no stack frame.
    #[inline(always)]
    pub(crate) fn linear_at_once(&self, op: &Op) -> Option<u64> {
        let offset = op.effective_address(self);
        if op.segment == seg::FLAT {
            Some(offset)
        } else if op.address_size == 8 {
            Some(self.segments[usize::from(op.segment & 7)].base.wrapping_add(offset))
        } else {
            None
        }
    }

    /// The linear address of `size` bytes at `offset` of a segment register.
    ///
    /// # Errors
    /// As [`linear`](Self::linear).
    #[inline(always)]
    pub fn linear_at(&mut self, segment: u8, offset: u64, size: u64, access: Access) -> Result<u64, Trap> {
        let linear = self.linear_of_any_alignment(segment, offset, size, access)?;
        self.check_alignment(linear, size)?;
        Ok(linear)
    }

    /// As [`linear_at`](Self::linear_at), for operands that may lie anywhere even if others may not: never #AC.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment.
    #[inline(always)]
    pub(crate) fn linear_of_any_alignment(
        &mut self,
        segment: u8,
        offset: u64,
        size: u64,
        access: Access,
    ) -> Result<u64, Trap> {
        if segment == seg::FLAT || segment < seg::FS && self.in_64_bit_code() {
            Ok(offset)
        } else {
            self.linear_segmented(segment, offset, size, access)
        }
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
    pub(super) fn check_alignment(&mut self, linear: u64, size: u64) -> Result<(), Trap> {
        if matches!(size, 2 | 4 | 8) && linear & (size - 1) != 0 { self.misaligned(linear) } else { Ok(()) }
    }

    /// As [`check_alignment`](Self::check_alignment), for an operand made of parts that are to lie on
    /// multiples of `alignment` (SDM vol. 3 table 6-7).
    #[inline(always)]
    pub(crate) fn check_parts(&mut self, linear: u64, alignment: u64) -> Result<(), Trap> {
        if linear & (alignment - 1) != 0 { self.misaligned(linear) } else { Ok(()) }
    }

    #[cold]
    fn misaligned(&mut self, linear: u64) -> Result<(), Trap> {
        // An address that is not canonical comes first: it has no alignment to speak of. Where the operand ends does
        // not matter: one that leaves the canonical addresses half-way is misaligned.
        if self.cpl == 3 && self.is_canonical(linear) && self.cr0_has(Cr0::AM) && self.flags().contains(Rflags::AC) {
            return Err(self.raise(Exception::ALIGNMENT_CHECK));
        }
        Ok(())
    }
}

/// Reads the memory operand if nothing can go wrong with that.
#[inline(always)]
pub(crate) fn load_at_once<T: Value>(cpu: &CpuState, op: &Op) -> Option<T> {
    cpu.read_at_once(cpu.linear_at_once(op)?)
}

/// Writes the memory operand if nothing can go wrong with that; whether it did.
#[inline(always)]
pub(crate) fn store_at_once<T: Value>(cpu: &mut CpuState, op: &Op, value: T) -> bool {
    cpu.linear_at_once(op).is_some_and(|linear| cpu.write_at_once(linear, value))
}

/// Reads the memory operand.
#[inline(always)]
pub(crate) fn load<T: Value>(cpu: &mut CpuState, op: &Op) -> Result<T, Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Read)?;
    cpu.read(linear)
}

/// Writes the memory operand.
#[inline(always)]
pub(crate) fn store<T: Value>(cpu: &mut CpuState, op: &Op, value: T) -> Result<(), Trap> {
    let linear = cpu.linear(op, T::SIZE as u64, Access::Write)?;
    cpu.write(linear, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HALF_OF_48_BITS, HALF_OF_57_BITS, is_canonical};
    use crate::{
        access::Access,
        engine::testing::{DATA, Stop, run_to_exception},
        protection::fixture::Fixture,
        state::{Cr0, Rflags, Segment, seg},
        trap::Exception,
    };

    fn linear(segment: Segment, number: u8, offset: u64, size: u64, access: Access) -> Result<u64, Exception> {
        let mut fixture = Fixture::new(&[], 32);
        fixture.cpu().segments[usize::from(number)] = segment;
        let mut address = 0;
        let result = fixture.cpu().linear_at(number, offset, size, access).map(|linear| address = linear);
        fixture.outcome(result).map(|()| address)
    }

    const GP: Result<u64, Exception> = Err(Exception::general_protection(0));

    #[test]
    fn limits_are_inclusive() {
        let segment = Segment { base: 0x1_0000, limit: 0xfff, attributes: 0x4093, selector: 8 };
        assert_eq!(linear(segment, seg::DS, 0xffc, 4, Access::Write), Ok(0x1_0ffc));
        assert_eq!(linear(segment, seg::DS, 0xffd, 4, Access::Read), GP);
        assert_eq!(linear(segment, seg::SS, 0xffd, 4, Access::Read), Err(Exception::stack(0)));
        assert_eq!(linear(segment, seg::DS, 0xffff_ffff, 2, Access::Read), GP);
    }

    /// SDM vol. 3 § 5.3.
    #[test]
    fn expand_down_segments_begin_above_their_limit() {
        let segment = Segment { base: 0, limit: 0xfff, attributes: 0x4097, selector: 8 };
        assert_eq!(linear(segment, seg::DS, 0xfff, 1, Access::Read), GP);
        assert_eq!(linear(segment, seg::DS, 0x1000, 4, Access::Read), Ok(0x1000));
        assert_eq!(linear(segment, seg::DS, 0xffff_fffc, 4, Access::Read), Ok(0xffff_fffc));
        assert_eq!(linear(segment, seg::DS, 0xffff_fffd, 4, Access::Read), GP);
        let small = Segment { attributes: 0x0097, ..segment };
        assert_eq!(linear(small, seg::DS, 0xfffe, 2, Access::Read), Ok(0xfffe));
        assert_eq!(linear(small, seg::DS, 0x1_0000, 2, Access::Read), GP);
    }

    #[test]
    fn types_decide_what_may_be_done() {
        for (attributes, read, write) in [
            (0xc093, true, true),
            (0xc091, true, false),
            (0xc09b, true, false),
            (0xc099, false, false),
            (0xc013, false, false),
            (0, false, false),
        ] {
            let segment = Segment { base: 0, limit: u32::MAX, attributes, selector: 8 };
            assert_eq!(linear(segment, seg::DS, 0, 4, Access::Read).is_ok(), read, "{attributes:#x}");
            assert_eq!(linear(segment, seg::DS, 0, 4, Access::Write).is_ok(), write, "{attributes:#x}");
        }
    }

    #[test]
    fn addresses_wrap_at_4_gib_outside_64_bit_code() {
        let segment = Segment { base: 0xffff_f000, limit: u32::MAX, attributes: 0xc093, selector: 8 };
        assert_eq!(linear(segment, seg::DS, 0x2000, 4, Access::Read), Ok(0x1000));
    }

    #[test]
    fn only_fs_and_gs_have_a_base_in_64_bit_code() {
        let mut fixture = Fixture::new(&[], 64);
        for number in [seg::ES, seg::CS, seg::SS, seg::DS, seg::FS, seg::GS] {
            fixture.cpu().segments[usize::from(number)].base = 0xffff_8000_0000_0000;
            fixture.cpu().segments[usize::from(number)].limit = 0;
            let expected = if number < seg::FS { 0x10 } else { 0xffff_8000_0000_0010 };
            assert_eq!(fixture.cpu().linear_at(number, 0x10, 8, Access::Write), Ok(expected));
        }
    }

    #[test]
    fn alignment_is_checked_in_user_code_that_asks_for_it() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.cpu().cr0 |= Cr0::AM.bits();
        fixture.cpu().rflags |= Rflags::AC.bits();
        assert_eq!(fixture.cpu().linear_at(seg::DS, DATA + 1, 4, Access::Read), Ok(DATA + 1));
        fixture.enter_user();
        let result = fixture.cpu().linear_at(seg::DS, DATA + 2, 4, Access::Read).map(drop);
        assert_eq!(fixture.outcome(result), Err(Exception::ALIGNMENT_CHECK));
        assert_eq!(fixture.cpu().linear_at(seg::DS, DATA + 2, 2, Access::Read), Ok(DATA + 2));
        fixture.cpu().rflags &= !Rflags::AC.bits();
        assert_eq!(fixture.cpu().linear_at(seg::DS, DATA + 1, 4, Access::Read), Ok(DATA + 1));
    }

    #[test]
    fn stacks_and_parts_of_operands_are_checked_for_alignment_too() {
        // push rax; pop rax; fld tbyte [rsi]; fnstenv [rsi]; lfs eax, [rsi]
        for code in [&[0x50][..], &[0x58], &[0xdb, 0x2e], &[0xd9, 0x36], &[0x0f, 0xb4, 0x06]] {
            let mut fixture = Fixture::new(code, 64);
            fixture.cpu().cr0 |= Cr0::AM.bits();
            fixture.cpu().rflags |= Rflags::AC.bits();
            fixture.cpu().gpr[4] -= 2;
            fixture.cpu().gpr[6] = DATA + 2;
            fixture.enter_user();
            assert_eq!(fixture.run(), Stop::Exception(Exception::ALIGNMENT_CHECK), "{code:x?}");
        }
    }

    #[test]
    fn an_address_that_is_not_canonical_is_not_misaligned() {
        // mov rax, [rsi]
        let mut fixture = Fixture::new(&[0x48, 0x8b, 0x06], 64);
        fixture.cpu().cr0 |= Cr0::AM.bits();
        fixture.cpu().rflags |= Rflags::AC.bits();
        fixture.cpu().gpr[6] = (1 << 47) + 1;
        fixture.enter_user();
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0)));
    }

    #[test]
    fn an_operand_that_leaves_the_canonical_addresses_is_misaligned_first() {
        // mov rax, [rsi]
        let mut fixture = Fixture::new(&[0x48, 0x8b, 0x06], 64);
        fixture.cpu().cr0 |= Cr0::AM.bits();
        fixture.cpu().rflags |= Rflags::AC.bits();
        fixture.cpu().gpr[6] = (1 << 47) - 5;
        fixture.enter_user();
        assert_eq!(fixture.run(), Stop::Exception(Exception::ALIGNMENT_CHECK));
    }

    #[test]
    fn code_is_not_written_through_cs() {
        // mov cs:[0x4000], al
        let (_, exception) = run_to_exception(&[0x2e, 0xa2, 0, 0x40, 0, 0], 32, |_| {});
        assert_eq!(exception, Exception::general_protection(0));
    }

    #[test]
    fn real_mode_operands_do_not_wrap_inside_their_segment() {
        // mov ax, [0xffff]
        let mut fixture = Fixture::new(&[0xa1, 0xff, 0xff], 16);
        assert_eq!(fixture.run(), Stop::Exception(Exception::general_protection(0)));
    }

    #[test]
    fn canonical_addresses_are_sign_extended() {
        for (linear, canonical) in [
            (0x7fff_ffff_ffff, true),
            (0x8000_0000_0000, false),
            (0xffff_8000_0000_0000, true),
            (0xffff_7fff_ffff_ffff, false),
        ] {
            assert_eq!(is_canonical(linear, HALF_OF_48_BITS), canonical, "{linear:#x}");
            let shifted = linear << 9 | if linear & 1 != 0 { 0x1ff } else { 0 };
            assert_eq!(is_canonical(shifted, HALF_OF_57_BITS), canonical, "{shifted:#x}");
        }
    }

    proptest! {
        /// A limit check of several bytes is one of each byte.
        #[test]
        fn limits_hold_for_every_byte(
            limit in prop_oneof![Just(0), Just(0xfff), Just(0xffff), Just(u32::MAX), any::<u32>()],
            distance in -20_i64..20,
            far in any::<u32>(),
            near in any::<bool>(),
            size in 1_u64..17,
            expand_down in any::<bool>(),
            big in any::<bool>(),
        ) {
            let attributes = 0x93 | u16::from(expand_down) << 2 | u16::from(big) << 14;
            let segment = Segment { base: 0, limit, attributes, selector: 8 };
            let offset = if near { (i64::from(limit) + distance).clamp(0, 0xffff_ffff) as u64 } else { u64::from(far) };
            let top = if big { 0xffff_ffff } else { 0xffff };
            let valid = (offset..offset + size).all(|byte| {
                if expand_down { byte > u64::from(limit) && byte <= top } else { byte <= u64::from(limit) }
            });
            prop_assert_eq!(segment.contains(offset, size), valid);
        }
    }
}
