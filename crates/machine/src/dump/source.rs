//! What a dump is made of: the machine's RAM as it is mapped now, and its processors' registers.

use std::{ops::Range, sync::Arc};

use rhea_core::{
    AddressSpace,
    memory::{FlatView, Target},
};
use rhea_vmcore::{Memory, PAGE, Processor, Segment, Unreadable};
use rhea_x86::state::{CpuState, TableRegister, seg};

/// RAM by guest address. What is unplugged meanwhile stays readable to the end of the dump.
pub struct GuestMemory {
    view: Arc<FlatView>,
    ranges: Vec<Range<u64>>,
}

impl GuestMemory {
    /// The RAM of `space`; neighbours are one range.
    pub fn new(space: &AddressSpace) -> Self {
        let view = Arc::clone(&space.view());
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for range in view.ranges() {
            let is_ram = matches!(range.target, Target::Ram { .. });
            // Memory comes in whole pages; what a page shares with a device is left out.
            let end = range.last.saturating_add(1) / PAGE * PAGE;
            let Some(start) = range.base.checked_next_multiple_of(PAGE).filter(|&start| is_ram && start < end) else {
                continue;
            };
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        Self { view, ranges }
    }
}

impl Memory for GuestMemory {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let range = self.view.find(at).ok_or(Unreadable(at))?;
            let Target::Ram { ram, .. } = &range.target else { return Err(Unreadable(at)) };
            let left = range.last.saturating_sub(at).saturating_add(1);
            let run = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(run);
            if !ram.read(range.offset.saturating_add(at.saturating_sub(range.base)), now) {
                return Err(Unreadable(at));
            }
            rest = later;
            at = at.wrapping_add(run as u64);
        }
        Ok(())
    }
}

/// A processor's registers as dumps hold them.
pub fn registers(state: &CpuState) -> Processor {
    let segment = |segment: rhea_x86::state::Segment| {
        let rhea_x86::state::Segment { base, limit, attributes, selector } = segment;
        // The second double word of a descriptor has them eight bits up.
        Segment { selector, limit, attributes: u32::from(attributes) << 8, base }
    };
    let numbered = |number: u8| segment(state.segments[usize::from(number)]);
    let table = |TableRegister { base, limit }| Segment { base, limit: u32::from(limit), ..Segment::default() };
    let mut general = [0; 16];
    general.iter_mut().zip(0..).for_each(|(register, number)| *register = state.register(number));
    Processor {
        general,
        rip: state.rip,
        rflags: state.flags().bits(),
        cs: numbered(seg::CS),
        ds: numbered(seg::DS),
        es: numbered(seg::ES),
        fs: numbered(seg::FS),
        gs: numbered(seg::GS),
        ss: numbered(seg::SS),
        ldt: segment(state.ldtr),
        tr: segment(state.tr),
        gdt: table(state.gdtr),
        idt: table(state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        efer: state.efer,
        kernel_gs_base: state.msr.kernel_gs_base,
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::memory::Ram;

    use super::*;

    #[test]
    fn neighbouring_ram_is_one_range_and_reads_cross_from_piece_to_piece() {
        let space = AddressSpace::new();
        for (number, base) in [(1, 0_u64), (2, 0x2000), (3, 0x10_0000)] {
            let ram = Ram::new("piece", 0x2000).unwrap();
            assert!(ram.write(0, &[number; 0x2000]));
            space.map(base, 0x2000, 0, Target::Ram { ram, offset: 0, writable: number != 2 });
        }
        let memory = GuestMemory::new(&space);
        assert_eq!(memory.ranges(), [0..0x4000, 0x10_0000..0x10_2000]);
        let mut bytes = [0; 4];
        memory.read(0x1ffe, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert_eq!(memory.read(0x3ffe, &mut bytes), Err(Unreadable(0x4000)));
        assert_eq!(memory.read(u64::MAX, &mut bytes), Err(Unreadable(u64::MAX)));
    }
}
