//! ELF cores, read back by an ELF reader that is not ours.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ops::ControlFlow;

use object::{
    Endianness,
    elf::{self, FileHeader64, ProgramHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use proptest::prelude::*;
use rhea_vmcore::{Error, PAGE, Processor, Source, Sparse, Stream, Vmcoreinfo, elf::Layout};
use std::io::{Read as _, Seek as _};
use support::{Ram, VMCOREINFO};

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn dump(ram: &Ram, processors: &[Processor], layout: &Layout) -> Result<Vec<u8>, Error> {
    let information = Vmcoreinfo::from_text(VMCOREINFO);
    let source = Source { memory: ram, processors, vmcoreinfo: information.as_ref() };
    let mut sink = Stream(Vec::new());
    rhea_vmcore::elf::write(&source, layout, &mut sink, &mut go_on)?;
    Ok(sink.0)
}

fn headers(core: &[u8]) -> &[ProgramHeader64<Endianness>] {
    let header = FileHeader64::<Endianness>::parse(core).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(header.e_type(endian), elf::ET_CORE);
    assert_eq!(header.e_phoff(endian), 64);
    header.program_headers(endian, core).unwrap()
}

const LE: Endianness = Endianness::Little;

/// Each segment of memory: virtual and physical address, and its bytes.
fn loads(core: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let loads = headers(core).iter().filter(|header| header.p_type(LE) == elf::PT_LOAD);
    loads.map(|header| (header.p_vaddr(LE), header.p_paddr(LE), header.data(LE, core).unwrap())).collect()
}

fn long(cr3: u64) -> Processor {
    Processor { cr0: 1 << 31, cr3, cr4: 1 << 5, efer: 1 << 10, ..Processor::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_range_is_a_segment_with_its_bytes(ram in support::ram()) {
        let core = dump(&ram, &[], &Layout::default()).unwrap();
        let expected: Vec<_> = ram.pieces().map(|(range, bytes)| (0, range.start, bytes)).collect();
        assert_eq!(loads(&core), expected);
    }

    #[test]
    fn a_window_cuts_at_any_byte(ram in support::ram(), from in 0_u64..1 << 31, length in 1_u64..1 << 30) {
        let layout = Layout { window: Some(from..from + length), paging: false };
        let expected: Vec<_> = ram.pieces().filter_map(|(range, bytes)| {
            let (start, end) = (range.start.max(from), range.end.min(from + length));
            (start < end).then(|| (0, start, &bytes[(start - range.start) as usize..(end - range.start) as usize]))
        }).collect();
        match dump(&ram, &[], &layout) {
            Ok(core) => assert_eq!(loads(&core), expected),
            Err(error) => assert!(matches!(error, Error::NoMemory) && expected.is_empty()),
        }
    }

    #[test]
    fn a_file_with_holes_holds_the_same(ram in support::ram()) {
        let source = Source { memory: &ram, processors: &[], vmcoreinfo: None };
        let mut stream = Stream(Vec::new());
        rhea_vmcore::elf::write(&source, &Layout::default(), &mut stream, &mut go_on).unwrap();
        let mut sparse = Sparse(tempfile::tempfile().unwrap());
        rhea_vmcore::elf::write(&source, &Layout::default(), &mut sparse, &mut go_on).unwrap();
        let mut read = Vec::new();
        sparse.0.rewind().unwrap();
        sparse.0.read_to_end(&mut read).unwrap();
        assert!(read == stream.0);
    }

}

proptest! {
    // Tables that point at each other are walked to the bound: some seconds for a handful.
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Page tables of noise: whatever they say, the dump comes to an end and holds all memory.
    #[test]
    fn any_page_tables_give_a_core(seed: u64, cr3 in 0_u64..0x2_0000, cr4 in prop_oneof![Just(0), Just(0x10), Just(0x20), Just(0x1020)], efer in prop_oneof![Just(0), Just(1 << 10)]) {
        let mut bytes: Vec<u8> = support::noise(seed).take(0x4_0000).collect();
        bytes[..0x1000].fill(0);
        // Entries that point into memory more often than noise would.
        for entry in bytes.chunks_exact_mut(8) {
            entry[2..].fill(0);
            entry[0] &= 0xf9;
        }
        let ram = Ram::new(vec![(0, bytes)]);
        let processor = Processor { cr0: 1 << 31, cr3, cr4, efer, ..Processor::default() };
        let core = dump(&ram, &[processor], &Layout { window: None, paging: true }).unwrap();
        let (_, memory) = ram.pieces().next().unwrap();
        let mut reached = vec![false; memory.len() / PAGE as usize];
        for (_, physical, bytes) in loads(&core) {
            assert!(bytes == &memory[physical as usize..][..bytes.len()]);
            reached[(physical / PAGE) as usize..][..bytes.len() / PAGE as usize].fill(true);
        }
        assert!(reached.into_iter().all(|page| page));
    }
}

#[test]
fn notes_tell_of_each_processor_and_of_the_kernel() {
    let ram = Ram::new(vec![(0, vec![1; PAGE as usize])]);
    let processors = [1_u64, 2].map(|rip| Processor { rip, ..Processor::default() });
    let core = dump(&ram, &processors, &Layout::default()).unwrap();
    let note = headers(&core).iter().find(|header| header.p_type(LE) == elf::PT_NOTE).unwrap();
    let mut notes = note.notes(LE, &*core).unwrap().unwrap();
    let mut got = Vec::new();
    while let Some(note) = notes.next().unwrap() {
        got.push((note.name().to_vec(), note.n_type(LE), note.desc().to_vec()));
    }
    let kinds: Vec<_> = got.iter().map(|(name, kind, content)| (&name[..], *kind, content.len())).collect();
    let state = (&b"QEMU"[..], 0, 440);
    let status = (&b"CORE"[..], 1, 336);
    assert_eq!(kinds, [status, status, state, state, (b"VMCOREINFO", 0, VMCOREINFO.len())]);
    assert_eq!(got[1].2[112 + 16 * 8..][..8], 2_u64.to_le_bytes());
    assert_eq!(got[4].2, VMCOREINFO);
}

#[test]
fn paging_shows_memory_where_the_guest_sees_it() {
    let mut bytes: Vec<u8> = support::noise(7).take(0x10_0000).collect();
    let mut entry = |table: usize, number: usize, value: u64| {
        bytes[table + number * 8..][..8].copy_from_slice(&value.to_le_bytes());
    };
    for table in [0x1000, 0x2000, 0x3000, 0x4000] {
        (0..512).for_each(|number| entry(table, number, 0));
    }
    entry(0x1000, 256, 0x2003);
    entry(0x2000, 0, 0x3003);
    entry(0x3000, 0, 0x4003);
    (0..16).for_each(|number| entry(0x4000, number, 0x1_0003 + 0x1000 * number as u64));
    let ram = Ram::new(vec![(0, bytes)]);
    let core = dump(&ram, &[long(0x1000), long(0x1000)], &Layout { window: None, paging: true }).unwrap();
    let loads = loads(&core);
    let seen: Vec<_> = loads.iter().map(|(address, physical, bytes)| (*address, *physical, bytes.len())).collect();
    assert_eq!(seen, [(0xffff_8000_0000_0000, 0x1_0000, 0x1_0000), (0, 0, 0x1_0000), (0, 0x2_0000, 0xe_0000)]);
    let (_, memory) = ram.pieces().next().unwrap();
    assert!(loads[0].2 == &memory[0x1_0000..0x2_0000]);
}

#[test]
fn more_segments_than_the_header_can_count() {
    const SIZE: u64 = 16;
    let ranges: Vec<_> = (0..1_u64 << 16).map(|number| number * PAGE..number * PAGE + SIZE).collect();
    let source = Source { memory: &Strided(ranges), processors: &[], vmcoreinfo: None };
    let mut sink = Stream(Vec::new());
    rhea_vmcore::elf::write(&source, &Layout::default(), &mut sink, &mut go_on).unwrap();
    assert_eq!(sink.0[56..58], [0xff, 0xff]);
    assert_eq!(headers(&sink.0).len(), (1 << 16) + 1);
    let loads = loads(&sink.0);
    assert_eq!(loads.last().unwrap().1, ((1 << 16) - 1) * PAGE);
    assert!(loads.iter().all(|(_, _, bytes)| **bytes == [3; SIZE as usize]));
}

/// Many ranges, all of threes.
struct Strided(Vec<std::ops::Range<u64>>);

impl rhea_vmcore::Memory for Strided {
    fn ranges(&self) -> &[std::ops::Range<u64>] {
        &self.0
    }

    fn read(&self, _: u64, into: &mut [u8]) -> Result<(), rhea_vmcore::Unreadable> {
        into.fill(3);
        Ok(())
    }
}

#[test]
fn progress_counts_all_bytes_and_may_call_it_off() {
    let ram = Ram::new(vec![(0, vec![1; 0x10_0000]), (0x20_0000, vec![0; 0x8_0000])]);
    let source = Source { memory: &ram, processors: &[], vmcoreinfo: None };
    let mut counts = Vec::new();
    let mut count = |done| {
        counts.push(done);
        ControlFlow::Continue(())
    };
    rhea_vmcore::elf::write(&source, &Layout::default(), &mut Stream(std::io::sink()), &mut count).unwrap();
    assert!(counts.is_sorted());
    assert_eq!((counts.first(), counts.last()), (Some(&0), Some(&0x18_0000)));
    let mut stop = |done| if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let result = rhea_vmcore::elf::write(&source, &Layout::default(), &mut Stream(std::io::sink()), &mut stop);
    assert!(matches!(result, Err(Error::Cancelled)));
}
