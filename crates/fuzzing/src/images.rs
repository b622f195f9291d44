//! Snapshots within images that somebody has damaged.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read as _, Write as _},
};

use rhea_backends::block::{
    NewSnapshot, SnapshotError,
    snapshot_format::{Fields, ImageFile, Reader, Writer, delete, go_back, read_snapshots},
};

use crate::bytes::Bytes;

/// More than this an image of a few snapshots does not become.
const LARGEST: usize = 1 << 20;
/// Bytes of a machine's state.
const STATE: usize = 1500;

/// An image in memory.
struct Image {
    bytes: RefCell<Vec<u8>>,
    accesses: Cell<u64>,
}

impl Image {
    fn accessed(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }
}

impl ImageFile for &Image {
    fn size(&self) -> u64 {
        self.bytes.borrow().len() as u64
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.accessed();
        let bytes = self.bytes.borrow();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let there = &bytes[from..(from + data.len()).min(bytes.len())];
        data.fill(0);
        data[..there.len()].copy_from_slice(there);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.accessed();
        let mut bytes = self.bytes.borrow_mut();
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(data.len()));
        let end = end.filter(|end| *end <= LARGEST).ok_or(io::ErrorKind::StorageFull)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[end - data.len()..end].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// An image of 64 KiB in clusters of 512 bytes, of which two hold data.
fn image() -> Image {
    let mut bytes = vec![0; 7 * 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &9_u32.to_be_bytes());
    put(24, &65536_u64.to_be_bytes());
    put(36, &2_u32.to_be_bytes());
    put(40, &(3_u64 * 512).to_be_bytes());
    put(48, &512_u64.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(512, &(2_u64 * 512).to_be_bytes());
    for cluster in 0..7 {
        put(2 * 512 + cluster * 2, &1_u16.to_be_bytes());
    }
    let alone = 1_u64 << 63;
    put(3 * 512, &(alone + 4 * 512).to_be_bytes());
    put(4 * 512, &(alone + 5 * 512).to_be_bytes());
    put(4 * 512 + 8, &(alone + 6 * 512).to_be_bytes());
    Image { bytes: RefCell::new(bytes), accesses: Cell::new(0) }
}

fn save(image: &Image, name: &str) -> Result<(), SnapshotError> {
    let mut writer = Writer::new(image)?;
    writer.write_all(&[name.len() as u8; STATE])?;
    writer.finish(NewSnapshot { name: name.to_owned(), seconds: 1, nanoseconds: 2, clock: 3 })
}

fn ids(image: &Image) -> Result<Vec<String>, SnapshotError> {
    let (snapshots, _) = read_snapshots(&image, &Fields::read(&image)?)?;
    Ok(snapshots.into_iter().map(|snapshot| snapshot.id).collect())
}

fn state(image: &Image, id: &str) -> Result<Vec<u8>, SnapshotError> {
    let mut state = Vec::new();
    // No more than an image can hold, whatever it says.
    Reader::new(image, id)?.take(LARGEST as u64).read_to_end(&mut state)?;
    Ok(state)
}

/// An image with two snapshots and some bytes of it changed, of which snapshots are made, loaded and deleted: errors or
/// successes. Where nothing was changed, successes.
pub(crate) fn qcow2_snapshots(data: &[u8]) -> u64 {
    let mut bytes = Bytes::new(data);
    let mut accesses = 0;
    while !bytes.is_empty() {
        let image = image();
        save(&image, "a").unwrap();
        save(&image, "bb").unwrap();
        let damages = bytes.byte() % 8;
        for _ in 0..damages {
            let mut all = image.bytes.borrow_mut();
            // Half of them in the header and the tables, where most is said.
            let within = if bytes.byte() & 1 == 0 { 128 } else { all.len() };
            let at = bytes.below(within as u64) as usize;
            all[at] = bytes.byte();
        }
        for _ in 0..bytes.byte() % 8 {
            let known = ids(&image);
            assert!(known.is_ok() || damages > 0);
            let known = known.unwrap_or_default();
            let id = known.get(usize::from(bytes.byte()) % 4).map_or("1", String::as_str);
            let is_known = known.iter().any(|other| other == id);
            let result = match bytes.byte() % 4 {
                0 => save(&image, "ccc"),
                1 => go_back(&image, id),
                2 => delete(&image, id),
                _ => state(&image, id).map(|state| assert!(damages > 0 || state.len() == STATE)),
            };
            let missing = matches!(result, Err(SnapshotError::NoSnapshot)) && !is_known;
            assert!(result.is_ok() || missing || damages > 0, "{result:?}");
        }
        accesses += image.accesses.get();
    }
    accesses
}
