//! Parsers of what users and managers give.

use rhea_core::{
    AddressSpace, Ram,
    memory::Target as MemoryTarget,
    object::{PropertyKind, Size},
};
use rhea_devices::lost_ticks::LostTickPolicy;
use rhea_hmp::{Line, editor::Editor};
use rhea_machine::boot::{
    MemoryMap,
    linux::Kernel,
    multiboot::{Module, Program},
};

use crate::bytes::Bytes;

/// A kernel image, with a header that is right but for some bytes of it.
pub(crate) fn kernel_image(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut texts = 0;
    while !bytes.is_empty() {
        let mut image = vec![0; 0x800 + usize::from(bytes.byte()) * 16];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        // Protocol 2.15 or an older one, loaded high, with a 64-bit entry or none.
        image[0x206..0x208].copy_from_slice(&[bytes.byte() % 16, 0x02]);
        image[0x211] = 1;
        image[0x236] = bytes.byte() & 1;
        for _ in 0..bytes.byte() % 32 {
            let at = 0x1f0 + usize::from(bytes.byte());
            image[at] = bytes.byte();
        }
        let initrd = (bytes.byte() & 1 != 0).then(|| bytes.take(64).to_vec());
        let command_line = String::from_utf8_lossy(bytes.take(255)).into_owned();
        // Most images are none, with a reason.
        drop(Kernel::new(image, initrd, &command_line).map_err(|reason| reason.to_string()));
        texts += 1;
    }
    texts
}

/// Words of a command line, as values of all kinds of property: what is read shows as itself.
pub(crate) fn property_text(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut texts = 0;
    while !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes.take(24)).into_owned();
        same::<bool>(&text);
        same::<u8>(&text);
        same::<u32>(&text);
        same::<u64>(&text);
        same::<i32>(&text);
        same::<i64>(&text);
        same::<Size>(&text);
        same::<String>(&text);
        same::<LostTickPolicy>(&text);
        texts += 1;
    }
    texts
}

/// Lines for the monitor for people: read as words, as options and numbers, and typed into its editor.
pub(crate) fn human_line(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut texts = 0;
    while !bytes.is_empty() {
        let typed = bytes.take(16).to_vec();
        let text = String::from_utf8_lossy(&typed).into_owned();
        let mut line = Line::new(&text);
        // What cannot be read says why.
        drop(line.options("adfz"));
        if let Ok(format) = line.format() {
            assert!(format.show(u64::MAX, format.size.unwrap_or(4)).len() <= 24);
        }
        let before = line;
        while line.number(&mut |name| name.len().try_into().ok()).is_ok() {}
        line = before;
        while let Ok(Some(word)) = line.word() {
            assert!(word.len() <= text.len());
        }
        let mut editor = Editor::default();
        let (mut printed, none) = (String::new(), |_: &str| Vec::new());
        for byte in typed {
            editor.take(byte, "> ", &none, &mut printed);
        }
        texts += 1;
    }
    texts
}

fn same<T: PropertyKind>(text: &str) {
    if let Some(value) = T::from_text(text) {
        let shown = value.to_value();
        let read = T::from_value(&shown).unwrap_or_else(|reason| panic!("{text:?} shows as {shown}: {reason:?}"));
        assert_eq!(read.to_value(), shown);
    }
}

/// A multiboot image, flat or in ELF of either class, right but for some bytes of it: what is taken is loaded, or refused.
pub(crate) fn multiboot_image(data: &[u8]) -> u64 {
    const SIZE: u64 = 4 << 20;
    let mut bytes = Bytes::new(data);
    let memory = AddressSpace::new();
    let Ok(ram) = Ram::new("fuzzing", SIZE) else { return 0 };
    memory.map(0, SIZE, 0, MemoryTarget::Ram { ram, offset: 0, writable: true });
    let map = MemoryMap::new(SIZE, 0, 0);
    let mut texts = 0;
    while !bytes.is_empty() {
        let mut image = vec![0; 0x200 + usize::from(bytes.byte()) * 16];
        let flags: u32 = if bytes.byte() & 3 == 0 { 1 << 16 } else { 0 };
        let header = [0x1bad_b002, flags, 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags)];
        let addresses = [0x10_0100, 0x10_0000, 0, 0, 0x10_0180];
        put(&mut image, 0x100, header.into_iter().chain(addresses));
        put(&mut image, 0, [u32::from_le_bytes(*b"\x7fELF"), 0x0101_0001, 0, 0, 0x0003_0002, 1]);
        if bytes.byte() & 1 == 0 {
            image[4] = 1;
            put(&mut image, 24, [0x10_0180, 0x40, 0, 0, 0x20_0034, 2]);
            put(&mut image, 0x40, [1, 0, 0x10_0000, 0x10_0000, 0x200, 0x1000, 7, 4096]);
            put(&mut image, 0x60, [1, 0x100, 0x10_2000, 0x10_2000, 0x100, 0x100, 7, 4096]);
        } else {
            image[4] = 2;
            put(&mut image, 24, [0x10_0180, 0, 0x40, 0, 0, 0, 0, 0x38_0040, 2]);
            put(&mut image, 0x40, [1, 7, 0, 0, 0x10_0000, 0, 0x10_0000, 0, 0x200, 0, 0x1000, 0, 4096, 0]);
        }
        for _ in 0..bytes.byte() % 16 {
            let at = usize::from(bytes.word()) % 0x200;
            image[at] = bytes.byte();
        }
        let module = |bytes: &mut Bytes<'_>| Module { bytes: bytes.take(64).to_vec(), text: "module".to_owned() };
        let modules = (0..bytes.byte() % 3).map(|_| module(&mut bytes)).collect();
        let command_line = String::from_utf8_lossy(bytes.take(255)).into_owned();
        if let Ok(program) = Program::new(image, modules, &command_line) {
            // Most images are none, or have no room, with a reason.
            drop(program.load(&memory, &map).map_err(|reason| reason.to_string()));
        }
        texts += 1;
    }
    texts
}

fn put(image: &mut [u8], at: usize, words: impl IntoIterator<Item = u32>) {
    for (place, word) in image[at..].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}
