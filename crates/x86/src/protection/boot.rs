//! The state in which boot protocols hand over to a kernel that is started without firmware: PVH's 32-bit entry, and
//! 64-bit Linux. Sources: Linux, Documentation/arch/x86/boot.rst; Xen, docs/misc/pvh.

use crate::{
    protection::{address::attribute, reset::DATA},
    state::{CpuState, Cr0, Cr4, Efer, Rflags, Segment, TableRegister, reg, seg},
};

impl CpuState {
    /// Sets up protected mode with flat 32-bit segments and no paging, as the PVH protocol hands over: code at `entry`
    /// with EBX = `start_info`. The caller's descriptor table at `gdt` (of `gdt_limit`) must fit: code at selector
    /// `0x10`, data at `0x18`.
    pub fn start_protected(&mut self, entry: u32, start_info: u32, gdt: u64, gdt_limit: u16) {
        self.flatten_segments(attribute::BIG);
        self.gdtr = TableRegister { base: gdt, limit: gdt_limit };
        self.cr0 = (Cr0::PE | Cr0::ET | Cr0::NE).bits();
        // The protocol wants a task register with a limit of 0x67 and no interrupts.
        self.tr.limit = 0x67;
        self.idtr.limit = 0;
        self.rflags = Rflags::FIXED.bits();
        self.gpr[usize::from(reg::RBX)] = u64::from(start_info);
        self.rip = u64::from(entry);
        self.flush_all();
        self.update_mode();
    }

    /// Sets up 64-bit mode with the page tables at `cr3`, as Linux's 64-bit boot protocol hands over: code at `entry`
    /// with RSI = `boot_parameters`. The caller's descriptor table at `gdt` (of `gdt_limit`) must fit: 64-bit code at
    /// selector `0x10`, data at `0x18`.
    pub fn start_long(&mut self, entry: u64, boot_parameters: u64, cr3: u64, gdt: u64, gdt_limit: u16) {
        self.flatten_segments(attribute::LONG);
        self.gdtr = TableRegister { base: gdt, limit: gdt_limit };
        self.cr0 = (Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG).bits();
        self.cr3 = cr3;
        self.cr4 = Cr4::PAE.bits();
        self.efer = (Efer::LME | Efer::LMA).bits();
        self.idtr.limit = 0;
        self.rflags = Rflags::FIXED.bits();
        self.gpr[usize::from(reg::RSI)] = boot_parameters;
        self.rip = entry;
        self.flush_all();
        self.update_mode();
    }

    /// Lets a processor that was reset go on in real mode at `address`, below 1 MiB, as firmware enters a waking vector
    /// (ACPI 5.0 § 16.3.3.4): the segment is the address's paragraph.
    pub fn start_real(&mut self, address: u32) {
        let code = &mut self.segments[usize::from(seg::CS)];
        code.selector = (address >> 4) as u16;
        code.base = u64::from(address & 0xf_fff0);
        self.rip = u64::from(address & 0xf);
        self.flush_all();
        self.update_mode();
    }

    /// Gives every segment register base 0 and no limit; code has `size` set in its attributes.
    fn flatten_segments(&mut self, size: u16) {
        let data = Segment {
            base: 0,
            limit: u32::MAX,
            attributes: DATA | attribute::BIG | attribute::GRANULARITY,
            selector: 0x18,
        };
        self.segments[..=usize::from(seg::GS)].fill(data);
        let code = DATA | attribute::CODE | attribute::GRANULARITY | size;
        self.segments[usize::from(seg::CS)] = Segment { attributes: code, selector: 0x10, ..data };
        self.cpl = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use crate::{
        engine::testing::{CODE, GDT},
        state::{reg, seg},
    };

    #[test]
    fn kernels_start_in_flat_32_bit_code_without_paging() {
        let mut fixture = Fixture::new(&[], 16);
        fixture.cpu().reset();
        fixture.cpu().start_protected(CODE as u32, 0x1234, GDT, 0x1f);
        let cpu = fixture.cpu();
        assert_eq!((cpu.rip, cpu.register(reg::RBX), cpu.mode().code_bits()), (CODE, 0x1234, 32));
        assert_eq!((cpu.segments[usize::from(seg::CS)].limit, cpu.cr0 & 0x8000_0001), (u32::MAX, 1));
        assert_eq!(
            cpu.translate(0x1234, crate::access::Access::Write, crate::access::Privilege::Supervisor),
            Ok(0x1234)
        );
    }

    #[test]
    fn kernels_start_in_64_bit_code_with_paging() {
        let mut fixture = Fixture::new(&[], 64);
        let cr3 = fixture.cpu().cr3;
        fixture.cpu().reset();
        fixture.cpu().start_long(CODE, 0x1234, cr3, GDT, 0x1f);
        let cpu = fixture.cpu();
        assert_eq!((cpu.rip, cpu.register(reg::RSI), cpu.mode().code_bits()), (CODE, 0x1234, 64));
        assert_eq!(cpu.read::<u8>(CODE), Ok(0xf4));
        assert_eq!(
            (cpu.segments[usize::from(seg::CS)].selector, cpu.segments[usize::from(seg::DS)].selector),
            (0x10, 0x18)
        );
    }
}
