//! Parsers of what users and managers give.

use rhea_core::object::{PropertyKind, Size};
use rhea_devices::lost_ticks::LostTickPolicy;
use rhea_hmp::{Line, editor::Editor};
use rhea_machine::boot::linux::Kernel;

use crate::bytes::Bytes;

/// A kernel image, with a header that is right but for some bytes of it.
pub(crate) fn kernel_image(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut texts = 0;
    while !bytes.is_empty() {
        let mut image = vec![0; 0x800 + usize::from(bytes.byte()) * 16];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        // Protocol 2.15, with a 64-bit entry.
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x236] = 1;
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
