//! Virtual interrupts: VIF and VIP in virtual-8086 mode (CR4.VME) and for programs in protected mode (CR4.PVI), and interrupts
//! of virtual-8086 programs that lead to handlers of their own. SDM vol. 3 §§ 20.3, 20.4.

use crate::{
    op::Op,
    protection::stack::Stack,
    state::{CpuState, Cr0, Cr4, Rflags, seg},
    trap::{Exception, Trap},
};

/// Where a task state segment of 32 bits has the offset of the map of ports. The map of interrupts is in front of that.
const MAP_BASE: u64 = 0x66;
/// Bytes of the map of interrupts.
const MAP_BYTES: u64 = 32;

/// Which interrupt flag the running code changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterruptFlag {
    /// IF.
    Real,
    /// VIF: the program is to believe that it was IF.
    Virtual,
}

impl CpuState {
    /// What CLI and STI change.
    ///
    /// # Errors
    /// #GP(0) without the privilege to change either.
    #[inline(always)]
    pub(crate) fn interrupt_flag(&mut self) -> Result<InterruptFlag, Trap> {
        if !self.cr0_has(Cr0::PE) || self.cpl <= self.io_privilege() {
            return Ok(InterruptFlag::Real);
        }
        let enabled = if self.virtual_8086() { Cr4::VME } else { Cr4::PVI };
        if self.cpl == 3 && self.cr4_has(enabled) {
            return Ok(InterruptFlag::Virtual);
        }
        Err(self.raise(Exception::general_protection(0)))
    }

    /// What PUSHF, POPF and IRET of `size` bytes take for the interrupt flag; only those of 16 bits in virtual-8086 mode
    /// can mean the virtual one.
    ///
    /// # Errors
    /// #GP(0) in virtual-8086 mode without I/O privilege where that does not help.
    #[inline(always)]
    pub(crate) fn interrupt_flag_in_image(&mut self, size: usize) -> Result<InterruptFlag, Trap> {
        if !self.virtual_8086() || self.io_privilege() == 3 {
            return Ok(InterruptFlag::Real);
        }
        if self.cr4_has(Cr4::VME) && size == 2 {
            return Ok(InterruptFlag::Virtual);
        }
        Err(self.raise(Exception::general_protection(0)))
    }

    /// The low half of RFLAGS as a virtual-8086 program without I/O privilege believes it to be.
    pub(crate) fn virtual_flags(&self) -> u16 {
        let mut flags = self.flags() | Rflags::IOPL;
        flags.set(Rflags::IF, self.flags().contains(Rflags::VIF));
        flags.bits() as u16
    }

    /// Loads the low half of RFLAGS for such a program: IF goes to VIF, IOPL stays.
    ///
    /// # Errors
    /// #GP(0) if the program is to be interrupted or single-stepped now: its monitor sees to that.
    pub(crate) fn check_virtual_flags(&mut self, image: u64) -> Result<(), Trap> {
        let image = Rflags::from_bits_retain(image);
        let interrupted = image.contains(Rflags::IF) && self.flags().contains(Rflags::VIP);
        if interrupted || image.contains(Rflags::TF) {
            return Err(self.raise(Exception::general_protection(0)));
        }
        Ok(())
    }

    /// Sets VIF to what the image of flags has for IF.
    pub(crate) fn set_virtual_interrupt_flag(&mut self, set: bool) {
        let mut flags = self.flags();
        flags.set(Rflags::VIF, set);
        self.rflags = flags.bits();
    }

    /// Whether INT `vector` of a virtual-8086 program leads to a handler of its own.
    fn is_redirected(&mut self, vector: u8) -> Result<bool, Trap> {
        if !self.cr4_has(Cr4::VME) {
            return Ok(false);
        }
        let (base, limit) = (self.tr.base, u64::from(self.tr.limit));
        if matches!(self.tr.attributes & 0x9f, 0x89 | 0x8b) && limit > MAP_BASE {
            let ports: u16 = self.read_system(self.table_address(base.wrapping_add(MAP_BASE)))?;
            let start = u64::from(ports).checked_sub(MAP_BYTES);
            if let Some(offset) = start.map(|start| start + u64::from(vector / 8)).filter(|offset| *offset <= limit) {
                let bits: u8 = self.read_system(self.table_address(base.wrapping_add(offset)))?;
                return Ok(bits >> (vector % 8) & 1 == 0);
            }
        }
        Err(self.raise(Exception::general_protection(0)))
    }

    /// INT `vector` in virtual-8086 mode, if that is an affair of the program: through the table at its address zero. RIP
    /// is set then.
    ///
    /// # Errors
    /// #GP(0) if it is the monitor's and the program lacks I/O privilege; what goes wrong on the way.
    pub(crate) fn interrupt_in_virtual_8086(&mut self, vector: u8, op: &Op) -> Result<bool, Trap> {
        let real = self.io_privilege() == 3;
        if !self.is_redirected(vector)? {
            return if real { Ok(false) } else { Err(self.raise(Exception::general_protection(0))) };
        }
        let flags = if real { self.rflags as u16 } else { self.virtual_flags() };
        let pointer: u32 = self.read(u64::from(vector) * 4)?;
        let mut stack = Stack::current(self);
        stack.push(self, flags)?;
        stack.push(self, self.segments[usize::from(seg::CS)].selector)?;
        stack.push(self, op.next_rip(self) as u16)?;
        stack.commit(self);
        self.segments[usize::from(seg::CS)] = self.paragraph_segment(seg::CS, (pointer >> 16) as u16);
        self.rip = u64::from(pointer & 0xffff);
        let interrupts = if real { Rflags::IF } else { Rflags::VIF };
        self.rflags &= !(interrupts | Rflags::TF | Rflags::RF).bits();
        self.update_mode();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, TSS};
    use crate::{
        protection::address::attribute,
        state::{Cr4, Rflags, reg, seg},
        trap::Exception,
    };

    const GP: Result<(), Exception> = Err(Exception::general_protection(0));
    const CLI: &[u8] = &[0xfa];
    const STI: &[u8] = &[0xfb];
    const VIF: u64 = Rflags::VIF.bits();
    const VIP: u64 = Rflags::VIP.bits();

    /// Virtual-8086 code with paragraph segments at zero and a stack at 0x7000, without I/O privilege.
    fn program() -> Fixture {
        let mut fixture = Fixture::new(&[], 32);
        let cpu = fixture.cpu();
        cpu.rflags = 2 | (Rflags::VM | Rflags::IF).bits();
        cpu.cpl = 3;
        cpu.cr4 |= Cr4::VME.bits();
        for number in seg::ES..=seg::GS {
            cpu.segments[usize::from(number)] = cpu.paragraph_segment(number, 0);
        }
        cpu.gpr[usize::from(reg::RSP)] = 0x7000;
        // The map of ports is at the end of a larger segment; the map of interrupts has every bit set.
        cpu.tr.limit = 0x3ff;
        cpu.tr.attributes |= attribute::PRESENT;
        fixture.write(TSS + 0x66, &[0x00, 0x02]);
        fixture.write(TSS + 0x200 - 32, &[0xff; 32]);
        fixture
    }

    #[test]
    fn programs_switch_their_own_flag() {
        let mut fixture = program();
        assert_eq!(fixture.execute(STI), Ok(()));
        assert_eq!(fixture.cpu().rflags & (VIF | Rflags::IF.bits()), VIF | Rflags::IF.bits());
        assert_eq!(fixture.execute(CLI), Ok(()));
        assert_eq!(fixture.cpu().rflags & (VIF | Rflags::IF.bits()), Rflags::IF.bits());
        fixture.cpu().rflags |= VIP;
        assert_eq!(fixture.execute(CLI), Ok(()));
        assert_eq!(fixture.execute(STI), GP);
        fixture.cpu().cr4 &= !Cr4::VME.bits();
        assert_eq!(fixture.execute(CLI), GP);
        // The same in protected mode, by another bit of CR4.
        let mut fixture = Fixture::new(&[], 32);
        fixture.enter_user();
        assert_eq!(fixture.execute(STI), GP);
        fixture.cpu().cr4 |= Cr4::PVI.bits();
        assert_eq!(fixture.execute(STI), Ok(()));
        assert_eq!(fixture.cpu().rflags & (VIF | Rflags::IF.bits()), VIF);
    }

    #[test]
    fn programs_see_and_set_their_own_flag_in_images_of_16_bits() {
        let mut fixture = program();
        fixture.cpu().rflags |= VIF;
        assert_eq!(fixture.execute(&[0x9c]), Ok(()));
        assert_eq!(fixture.stack::<1>(2), [0x3202]);
        assert_eq!(fixture.execute(&[0x66, 0x9c]), GP);
        fixture.set_stack(0x7000, 2, &[0x0002]);
        assert_eq!(fixture.execute(&[0x9d]), Ok(()));
        assert_eq!(fixture.cpu().rflags & (VIF | 0x3200), 0x200, "IF and IOPL stay");
        fixture.cpu().rflags |= VIP;
        fixture.set_stack(0x7000, 2, &[0x0202]);
        assert_eq!(fixture.execute(&[0x9d]), GP);
        assert_eq!(fixture.rsp(), 0x7000);
        fixture.cpu().rflags &= !VIP;
        fixture.set_stack(0x7000, 2, &[0x1234, 0x0500, 0x0202]);
        assert_eq!(fixture.execute(&[0xcf]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS)), (0x1234, 0x500));
        assert_eq!(fixture.cpu().rflags & (VIF | 0x3200), VIF | 0x200);
    }

    #[test]
    fn interrupts_of_programs_go_where_the_map_says() {
        let mut fixture = program();
        assert_eq!(fixture.execute(&[0xcd, 0x21]), GP);
        fixture.write(TSS + 0x200 - 32 + 4, &[0xfd]);
        fixture.write(0x21 * 4, &[0x10, 0x00, 0x00, 0x09]);
        fixture.cpu().rflags |= VIF;
        assert_eq!(fixture.execute(&[0xcd, 0x21]), Ok(()));
        assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS)), (0x10, 0x900));
        assert_eq!(fixture.stack::<3>(2), [0x8002, 0, 0x3202]);
        assert_eq!(fixture.cpu().rflags & (VIF | Rflags::IF.bits()), Rflags::IF.bits());
        // With I/O privilege it is IF that is pushed and cleared.
        let mut fixture = program();
        fixture.cpu().rflags |= Rflags::IOPL.bits();
        fixture.write(TSS + 0x200 - 32 + 4, &[0xfd]);
        assert_eq!(fixture.execute(&[0xcd, 0x21]), Ok(()));
        assert_eq!(fixture.cpu().rflags & Rflags::IF.bits(), 0);
        // A segment that ends before the map.
        let mut fixture = program();
        fixture.cpu().tr.limit = 0x1e0;
        assert_eq!(fixture.execute(&[0xcd, 0x21]), GP);
    }
}
