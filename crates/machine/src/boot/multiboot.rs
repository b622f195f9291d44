//! Direct boot of kernels and bare programs that carry a multiboot header.
//!
//! Source: Multiboot Specification, version 0.6.96 (cited as §).

use rhea_core::AddressSpace;

use super::{
    Entry, LoadError, MemoryMap,
    elf::{self, Executable, Piece},
    start,
};

/// What a header starts with (§ 3.1.2).
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX has at the start (§ 3.2).
pub const LOADER_MAGIC: u32 = 0x2bad_b002;
/// A header is all within these bytes of the file (§ 3.1).
const SEARCHED: usize = 8192;

/// Flags of the header (§ 3.1.2). Those in the lower half must be understood.
mod wanted {
    /// Modules on page boundaries, memory sizes, a video mode.
    pub(super) const UNDERSTOOD: u32 = 0b111;
    pub(super) const VIDEO: u32 = 1 << 2;
    pub(super) const ADDRESSES: u32 = 1 << 16;
}

/// Flags of the information structure (§ 3.3).
mod given {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const BOOT_DEVICE: u32 = 1 << 1;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
}

/// Bytes of the information structure (§ 3.3), those of a frame buffer included.
const INFORMATION: usize = 116;
/// The first disk of a BIOS, with no word about a partition (§ 3.3).
const BOOT_DEVICE: u32 = 0x8000_ffff;
const LOADER_NAME: &str = "rhea";
/// Where the information structure says where the map of memory is.
const MAP_ADDRESS: usize = 48;
/// What the information is part of.
const INFORMATION_NEEDS: &str = "the kernel's command line and modules";
const PAGE: u64 = 4096;

/// A file that the kernel finds in memory.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its name, and what else stood behind that.
    pub text: String,
}

/// A kernel with what it is to be started with, read from files and checked.
#[derive(Clone, Debug)]
pub struct Program {
    image: Vec<u8>,
    pieces: Vec<Piece>,
    entry: u32,
    modules: Vec<Module>,
    command_line: String,
}

/// What a loader that starts a program after firmware is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where its workspace goes.
    pub address: u32,
    /// The workspace: room for a transfer, descriptors, what to start, room for the firmware's map of memory, the information
    /// structure, and what of the contents goes where.
    pub workspace: Vec<u8>,
    /// The bytes of the program's pieces and of its modules, one after another.
    pub contents: Vec<u8>,
}

/// The workspace as the loader knows it, by offsets from its start.
impl Offer {
    const DESCRIPTORS: usize = 0x10;
    const TABLE_REGISTER: usize = 0x28;
    const ENTRY: usize = 0x30;
    const INFORMATION_ADDRESS: usize = 0x34;
    const PARTS_ADDRESS: usize = 0x38;
    const MAP: usize = 0x40;
    /// Behind 128 ranges of the map.
    const INFORMATION: usize = Self::MAP + 24 * 128;
    /// Bytes below it, which are the loader's stack.
    const STACK: usize = 0x400;
    /// Between these two the firmware leaves memory alone while it boots.
    const LOWEST: u64 = 0x8000;
    const END: u64 = 0x9_0000;
    /// What firmware may keep for itself at the end of memory below 4 GiB.
    const KEPT: u64 = 1 << 20;
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// Where the header starts, and its flags.
fn header(image: &[u8]) -> Option<(usize, u32)> {
    let searched = image.get(..SEARCHED.min(image.len()))?;
    let mut places = (0..searched.len()).step_by(4);
    places.find_map(|at| {
        let (magic, flags, checksum) = (word(searched, at)?, word(searched, at + 4)?, word(searched, at + 8)?);
        let sound = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        sound.then_some((at, flags))
    })
}

/// What the address fields of the header say (§ 3.1.3).
fn by_addresses(image: &[u8], at: usize) -> Result<Executable, LoadError> {
    let bad = |reason: &str| LoadError::Kernel(format!("{reason} of its multiboot header cannot be"));
    let field = |index: usize| word(image, at + 4 * index).map(u64::from).ok_or_else(|| bad("the address fields"));
    let (header, load, load_end, bss_end, entry) = (field(3)?, field(4)?, field(5)?, field(6)?, field(7)?);
    let start = header.checked_sub(load).and_then(|before| (at as u64).checked_sub(before));
    let start = start.ok_or_else(|| bad("the address"))? as usize;
    let there = (image.len() - start) as u64;
    let in_file = match load_end {
        0 => there,
        end => end.checked_sub(load).filter(|size| *size <= there).ok_or_else(|| bad("the end"))?,
    };
    let size = match bss_end {
        0 => in_file,
        end => end.checked_sub(load).filter(|size| *size >= in_file).ok_or_else(|| bad("the end of the variables"))?,
    };
    Ok(Executable { entry, pieces: vec![Piece { address: load, file: (start, in_file as usize), size }] })
}

impl Program {
    /// Whether `image` has a multiboot header.
    pub fn is_multiboot(image: &[u8]) -> bool {
        header(image).is_some()
    }

    /// Takes a kernel: an ELF file, or any file whose header says with its address fields what goes where.
    ///
    /// # Errors
    /// The header asks for what there is not, or the file says what cannot be.
    pub fn new(image: Vec<u8>, modules: Vec<Module>, command_line: &str) -> Result<Self, LoadError> {
        let bad = |reason: String| LoadError::Kernel(reason);
        let (at, flags) = header(&image).ok_or_else(|| bad("it has no multiboot header".to_owned()))?;
        let strange = flags & 0xffff & !wanted::UNDERSTOOD;
        if strange != 0 {
            return Err(bad(format!("its multiboot header needs what is not there: flags {strange:#x}")));
        }
        if flags & wanted::VIDEO != 0 {
            tracing::warn!("the kernel would like a video mode, which this machine has not");
        }
        let Executable { entry, mut pieces } =
            if flags & wanted::ADDRESSES != 0 { by_addresses(&image, at)? } else { elf::parse(&image)? };
        pieces.sort_by_key(|piece| piece.address);
        let end = |piece: &Piece| piece.address.saturating_add(piece.size);
        if pieces.iter().any(|piece| end(piece) > 1 << 32) {
            return Err(bad("it has segments beyond 4 GiB".to_owned()));
        }
        if pieces.windows(2).any(|pair| matches!(pair, [low, high] if end(low) > high.address)) {
            return Err(bad("its segments overlap".to_owned()));
        }
        if !pieces.iter().any(|piece| (piece.address..end(piece)).contains(&entry)) {
            return Err(bad(format!("its first instruction, at {entry:#x}, is in none of its segments")));
        }
        Ok(Self { image, pieces, entry: entry as u32, modules, command_line: command_line.to_owned() })
    }

    /// Copies everything into guest memory; gives where and how to start.
    ///
    /// # Errors
    /// The guest has too little memory, or none where the kernel is to be.
    pub fn load(&self, memory: &AddressSpace, map: &MemoryMap) -> Result<Entry, LoadError> {
        let (places, free) = self.place(map, map.facs())?;
        for Piece { address, file: (start, length), size } in &self.pieces {
            let bytes = self.image.get(*start..start.saturating_add(*length)).unwrap_or_default();
            memory.write(*address, bytes);
            clear(memory, address + bytes.len() as u64, address.saturating_add(*size));
        }
        for (module, (start, _)) in self.modules.iter().zip(&places) {
            memory.write((*start).into(), &module.bytes);
        }
        let length = self.information(0, Some(map), &places).len() as u64;
        let candidates = [map.highest_below(0xa_0000, length), Some(free.next_multiple_of(PAGE))];
        let is_free = |start: &u64| map.usable_below_4g(*start, start + length) && self.leaves(*start, length);
        let at = candidates.into_iter().flatten().find(is_free);
        let at = at.ok_or(LoadError::Memory { what: INFORMATION_NEEDS, needs: length })?;
        memory.write(at, &self.information(at as u32, Some(map), &places));
        Ok(Entry::Multiboot { eip: self.entry, information: at as u32 })
    }

    /// The parts for a loader that starts the kernel after firmware.
    ///
    /// # Errors
    /// The guest has too little memory, or none where the kernel is to be.
    pub fn offer(&self, map: &MemoryMap) -> Result<Offer, LoadError> {
        let (places, _) = self.place(map, map.below_4g().saturating_sub(Offer::KEPT))?;
        let mut contents = Vec::new();
        let mut parts: Vec<u32> = Vec::new();
        for Piece { address, file: (start, length), size } in &self.pieces {
            let bytes = self.image.get(*start..start.saturating_add(*length)).unwrap_or_default();
            contents.extend_from_slice(bytes);
            if *size > 0 {
                parts.extend([*address as u32, bytes.len() as u32, *size as u32]);
            }
        }
        for (module, (start, _)) in self.modules.iter().zip(&places) {
            let length = module.bytes.len() as u32;
            contents.extend_from_slice(&module.bytes);
            if length > 0 {
                parts.extend([*start, length, length]);
            }
        }
        parts.extend([0; 3]);
        let parts: Vec<u8> = parts.iter().flat_map(|word| word.to_le_bytes()).collect();
        let information = self.information(0, None, &places).len().next_multiple_of(4);
        let length = (Offer::STACK + Offer::INFORMATION + information + parts.len()) as u64;
        let highest = map.highest_below(Offer::END, length);
        let at = highest.and_then(|highest| {
            let mut places = (Offer::LOWEST..=highest).rev().step_by(PAGE as usize);
            places.find(|start| self.leaves(*start, length))
        });
        let at = at.ok_or(LoadError::Memory { what: INFORMATION_NEEDS, needs: length })?;
        let address = at as u32 + Offer::STACK as u32;
        let mut workspace = vec![0; Offer::INFORMATION];
        let tables = address.wrapping_add(Offer::DESCRIPTORS as u32);
        let [_, _, code, data] = start::PROTECTED_DESCRIPTORS;
        for (index, descriptor) in [0, code, data].iter().enumerate() {
            super::parameters::put(&mut workspace, Offer::DESCRIPTORS + 8 * index, &descriptor.to_le_bytes());
        }
        let at = address.wrapping_add(Offer::INFORMATION as u32);
        super::parameters::put(&mut workspace, Offer::TABLE_REGISTER, &23_u16.to_le_bytes());
        let fields = [
            (Offer::TABLE_REGISTER + 2, tables),
            (Offer::ENTRY, self.entry),
            (Offer::INFORMATION_ADDRESS, at),
            (Offer::PARTS_ADDRESS, at.wrapping_add(information as u32)),
        ];
        for (offset, value) in fields {
            super::parameters::put(&mut workspace, offset, &value.to_le_bytes());
        }
        let mut block = self.information(at, None, &places);
        super::parameters::put(&mut block, MAP_ADDRESS, &address.wrapping_add(Offer::MAP as u32).to_le_bytes());
        block.resize(information, 0);
        workspace.extend(block);
        workspace.extend(parts);
        Ok(Offer { address, workspace, contents })
    }

    /// Where the modules go, first byte and end, behind the kernel; and where memory is free behind them. All of it is usable
    /// and below `limit`.
    fn place(&self, map: &MemoryMap, limit: u64) -> Result<(Vec<(u32, u32)>, u64), LoadError> {
        let mut free = 0x10_0000;
        for Piece { address, size, .. } in &self.pieces {
            let end = address.saturating_add(*size);
            if !map.usable_below_4g(*address, end) || end > limit {
                return Err(if end > limit {
                    LoadError::Memory { what: "the kernel", needs: end }
                } else {
                    LoadError::Kernel(format!("it wants to be at {address:#x}, where there is no memory for it"))
                });
            }
            free = free.max(end);
        }
        let mut places = Vec::new();
        for module in &self.modules {
            let start = free.next_multiple_of(PAGE);
            free = start.saturating_add(module.bytes.len() as u64);
            if !map.usable_below_4g(start, free) || free > limit {
                return Err(LoadError::Memory { what: "a module", needs: module.bytes.len() as u64 });
            }
            places.push((start as u32, free as u32));
        }
        Ok((places, free))
    }

    /// Whether the kernel leaves `length` bytes from `start` free.
    fn leaves(&self, start: u64, length: u64) -> bool {
        let taken = |piece: &Piece| piece.address < start + length && start < piece.address.saturating_add(piece.size);
        !self.pieces.iter().any(taken)
    }

    /// The information structure for address `at`, with all that it points to (§ 3.3); what it says of memory only if there is
    /// a `map`.
    fn information(&self, at: u32, map: Option<&MemoryMap>, places: &[(u32, u32)]) -> Vec<u8> {
        let mut block = vec![0; INFORMATION];
        let text = |block: &mut Vec<u8>, text: &str| {
            let address = at.wrapping_add(block.len() as u32);
            block.extend_from_slice(text.as_bytes());
            block.push(0);
            address
        };
        let command_line = text(&mut block, &self.command_line);
        let loader = text(&mut block, LOADER_NAME);
        let texts: Vec<u32> = self.modules.iter().map(|module| text(&mut block, &module.text)).collect();
        block.resize(block.len().next_multiple_of(8), 0);
        let modules = at.wrapping_add(block.len() as u32);
        for ((start, end), text) in places.iter().zip(&texts) {
            block.extend([*start, *end, *text, 0].iter().flat_map(|word| word.to_le_bytes()));
        }
        let ranges = block.len();
        let entries = map.map_or(&[][..], MemoryMap::entries);
        for range in entries {
            // Its own length does not count the field that says it.
            block.extend(20_u32.to_le_bytes());
            block.extend(range.base.to_le_bytes());
            block.extend(range.length.to_le_bytes());
            block.extend((range.kind as u32).to_le_bytes());
        }
        let ranges_length = (block.len() - ranges) as u32;
        let usable_from = |base: u64| {
            let range = entries.iter().find(|range| range.base == base && range.kind == super::Kind::Usable);
            range.map_or(0, |range| (range.length.min(u32::MAX.into()) >> 10) as u32)
        };
        let flags = given::MEMORY
            | given::BOOT_DEVICE
            | given::COMMAND_LINE
            | given::MODULES
            | given::MEMORY_MAP
            | given::LOADER_NAME;
        let fields = [
            (0, flags),
            (4, usable_from(0)),
            (8, usable_from(0x10_0000)),
            (12, BOOT_DEVICE),
            (16, command_line),
            (20, places.len() as u32),
            (24, modules),
            (44, ranges_length),
            (MAP_ADDRESS, at.wrapping_add(ranges as u32)),
            (64, loader),
        ];
        for (offset, value) in fields {
            super::parameters::put(&mut block, offset, &value.to_le_bytes());
        }
        block
    }
}

/// Makes memory zero from `start` up to `end`.
fn clear(memory: &AddressSpace, start: u64, end: u64) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = start;
    while at < end {
        let count = (end - at).min(ZEROS.len() as u64);
        memory.write(at, &ZEROS[..count as usize]);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rhea_core::{Ram, memory::Target};

    use super::*;

    const SIZE: u64 = 16 << 20;

    fn memory() -> (AddressSpace, MemoryMap) {
        let space = AddressSpace::new();
        let ram = Ram::new("test", SIZE).unwrap();
        space.map(0, SIZE, 0, Target::Ram { ram, offset: 0, writable: true });
        (space, MemoryMap::new(SIZE, 0, 0))
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn header_with(flags: u32, addresses: &[u32]) -> Vec<u8> {
        let mut all = vec![HEADER_MAGIC, flags, 0_u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags)];
        all.extend(addresses);
        words(&all)
    }

    /// A flat file: 16 bytes, the header, code.
    fn flat(load_end: u32, bss_end: u32) -> Vec<u8> {
        let mut image = vec![0xcc; 16];
        image.extend(header_with(1 << 16, &[0x10_0010, 0x10_0000, load_end, bss_end, 0x10_0030]));
        image.extend([0xf4; 16]);
        image
    }

    /// An ELF file with one segment at 2 MiB, linked for 2 MiB more than `moved` higher.
    fn elf(class: u8, moved: u64) -> Vec<u8> {
        let (physical, linked) = (0x20_0000_u64, 0x20_0000 + moved);
        let mut image = b"\x7fELF\x00\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
        image[4] = class;
        if class == 1 {
            image.extend(words(&[linked as u32 + 4, 52, 0, 0]));
            image.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            image.extend(words(&[1, 0x100, linked as u32, physical as u32, 0x20, 0x40, 7, 4096]));
        } else {
            image.extend((linked + 4).to_le_bytes());
            image.extend(64_u64.to_le_bytes());
            image.extend([0; 12]);
            image.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
            image.extend(words(&[1, 7]));
            image.extend([0x100, linked, physical, 0x20, 0x40, 4096].iter().flat_map(|word| word.to_le_bytes()));
        }
        image.resize(0x100, 0);
        image.extend(header_with(0, &[]));
        image.resize(0x120, 0xf4);
        image
    }

    fn text(memory: &AddressSpace, at: u32) -> String {
        let bytes = (u64::from(at)..).map(|at| memory.read_value(at, rhea_core::Width::Byte) as u8);
        String::from_utf8(bytes.take_while(|byte| *byte != 0).collect()).unwrap()
    }

    fn number(memory: &AddressSpace, at: u32) -> u32 {
        memory.read_value(at.into(), rhea_core::Width::Dword) as u32
    }

    #[test]
    fn a_program_finds_its_command_line_modules_and_map_of_memory() {
        let (memory, map) = memory();
        let module = |byte: u8, text: &str| Module { bytes: vec![byte; 5000], text: text.to_owned() };
        let modules = vec![module(1, "one with words"), module(2, "two")];
        let program = Program::new(flat(0, 0x10_1000), modules, "kernel -v").unwrap();
        memory.write(0x10_0800, &[9]);
        let Entry::Multiboot { eip, information } = program.load(&memory, &map).unwrap() else { panic!("multiboot") };
        assert_eq!(eip, 0x10_0030);
        assert_eq!((number(&memory, 0x10_0030), number(&memory, 0x10_0800)), (0xf4f4_f4f4, 0));
        assert_eq!(number(&memory, information), 0x24f);
        assert_eq!(number(&memory, information + 4), 639);
        assert_eq!(number(&memory, information + 8), (map.facs() as u32 - 0x10_0000) >> 10);
        assert_eq!(text(&memory, number(&memory, information + 16)), "kernel -v");
        assert_eq!(text(&memory, number(&memory, information + 64)), LOADER_NAME);
        assert_eq!(number(&memory, information + 20), 2);
        let list = number(&memory, information + 24);
        for (index, (byte, name)) in [(1, "one with words"), (2, "two")].into_iter().enumerate() {
            let row = list + 16 * index as u32;
            let (start, end) = (number(&memory, row), number(&memory, row + 4));
            assert_eq!((start % 4096, end - start), (0, 5000));
            assert_eq!(number(&memory, end - 4), byte * 0x101_0101);
            assert_eq!(text(&memory, number(&memory, row + 8)), name);
        }
        let (length, ranges) = (number(&memory, information + 44), number(&memory, information + 48));
        assert_eq!(length as usize, 24 * map.entries().len());
        assert_eq!((number(&memory, ranges), number(&memory, ranges + 20)), (20, 1));
    }

    #[test]
    fn what_a_loader_is_offered_says_where_everything_goes() {
        let (_, map) = memory();
        let modules = vec![
            Module { bytes: vec![1; 5000], text: "one".to_owned() },
            Module { bytes: Vec::new(), text: "empty".to_owned() },
        ];
        let program = Program::new(flat(0, 0x10_1000), modules, "kernel -v").unwrap();
        let Offer { address, workspace, contents } = program.offer(&map).unwrap();
        let at = |address: u32, of: u32| word(&workspace, (of - address) as usize).unwrap();
        let field = |offset: usize| word(&workspace, offset).unwrap();
        assert_eq!((address % 4096, contents.len()), (0x400, 64 + 5000));
        assert!(u64::from(address) + workspace.len() as u64 <= Offer::END);
        assert_eq!(field(Offer::ENTRY), 0x10_0030);
        assert_eq!(u64::from_le_bytes(workspace[0x18..0x20].try_into().unwrap()), 0x00cf_9b00_0000_ffff);
        assert_eq!((field(Offer::TABLE_REGISTER) & 0xffff, at(address, address + 0x2a)), (23, address + 0x10));
        let information = field(Offer::INFORMATION_ADDRESS);
        assert_eq!((at(address, information), at(address, information + 20)), (0x24f, 2));
        assert_eq!((at(address, information + 44), at(address, information + 48)), (0, address + 0x40));
        let parts = field(Offer::PARTS_ADDRESS);
        let parts: Vec<u32> = (0..9).map(|index| at(address, parts + 4 * index)).collect();
        // The module without bytes is in the list of modules alone.
        assert_eq!(parts, [0x10_0000, 64, 0x1000, 0x10_1000, 5000, 5000, 0, 0, 0]);
        let low = |start: u32, end: u32| {
            let mut image = header_with(1 << 16, &[start, start, 0, end, start + 0x20]);
            image.resize(0x100, 0x90);
            Program::new(image, Vec::new(), "").unwrap().offer(&map).map(|offer| u64::from(offer.address))
        };
        assert!(low(0x2_0000, 0x9_fc00).unwrap() < 0x2_0000);
        assert!(matches!(low(0x1000, 0x9_fc00), Err(LoadError::Memory { what: INFORMATION_NEEDS, .. })));
        // Firmware keeps the end of memory.
        assert!(matches!(low(0x10_0000, (SIZE - 0x8_0000) as u32), Err(LoadError::Memory { what: "the kernel", .. })));
    }

    #[test]
    fn elf_files_of_both_classes_go_where_they_are_loaded_not_where_they_are_linked() {
        for (class, moved) in [(1, 0), (1, 0xc000_0000), (2, 0), (2, 0xffff_ffff_8000_0000)] {
            let (memory, map) = memory();
            let program = Program::new(elf(class, moved), Vec::new(), "").unwrap();
            memory.write(0x20_0030, &[9]);
            let entry = program.load(&memory, &map).unwrap();
            assert!(matches!(entry, Entry::Multiboot { eip: 0x20_0004, .. }), "{entry:x?}");
            assert_eq!((number(&memory, 0x20_0000), number(&memory, 0x20_0030)), (HEADER_MAGIC, 0));
        }
    }

    #[test]
    fn the_information_is_not_put_over_the_program() {
        let (memory, map) = memory();
        let mut image = header_with(1 << 16, &[0x9_0000, 0x9_0000, 0, 0x9_fc00, 0x9_0020]);
        image.resize(0x100, 0x90);
        let Entry::Multiboot { information, .. } =
            Program::new(image, Vec::new(), "").unwrap().load(&memory, &map).unwrap()
        else {
            panic!("multiboot")
        };
        assert_eq!(information, 0x10_0000);
    }

    #[test]
    fn what_cannot_be_is_an_error_that_says_so() {
        let refused = |image: Vec<u8>| match Program::new(image, Vec::new(), "") {
            Err(LoadError::Kernel(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(vec![0; 100]), "it has no multiboot header");
        assert!(refused(header_with(8, &[])).contains("flags 0x8"));
        assert!(refused(header_with(0, &[])).contains("ELF"));
        assert!(refused(header_with(1 << 16, &[])).contains("address fields"));
        assert!(refused(flat(0x10_1000, 0)).contains("the end of"));
        assert!(refused(flat(0, 0x10_0001)).contains("variables"));
        let mut cut = elf(1, 0);
        cut.truncate(0x110);
        assert_eq!(refused(cut), "it is cut off");
        let mut elsewhere = elf(2, 0);
        elsewhere[24] = 0x80;
        assert!(refused(elsewhere).contains("first instruction"));
        let (memory, map) = memory();
        let load = |address: u32, bss: u32| {
            let mut image = header_with(1 << 16, &[address, address, 0, bss, address]);
            image.resize(0x100, 0);
            Program::new(image, Vec::new(), "").unwrap().load(&memory, &map).unwrap_err()
        };
        assert!(matches!(load(0xa_0000, 0), LoadError::Kernel(_)));
        assert!(matches!(load(0x10_0000, 0x1000_0000), LoadError::Memory { what: "the kernel", .. }));
        let large = Module { bytes: vec![0; SIZE as usize], text: String::new() };
        let program = Program::new(flat(0, 0), vec![large], "").unwrap();
        assert!(matches!(program.load(&memory, &map), Err(LoadError::Memory { what: "a module", .. })));
    }

    proptest! {
        #[test]
        fn any_image_is_loaded_or_refused(
            class in 0_u8..4,
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut image = match class { 0 => flat(0, 0x10_1000), 1 => elf(1, 0), 2 => elf(2, 0), _ => flat(0x10_0040, 0) };
            for (at, byte) in changes {
                let at = at.index(image.len());
                image[at] = byte;
            }
            if !whole {
                image.truncate(cut.index(image.len()));
            }
            let (memory, map) = memory();
            if let Ok(program) = Program::new(image, Vec::new(), "") && let Ok(entry) = program.load(&memory, &map) {
                let multiboot = matches!(entry, Entry::Multiboot { eip, .. } if map.usable_below_4g(eip.into(), u64::from(eip) + 1));
                prop_assert!(multiboot);
            }
        }
    }
}
