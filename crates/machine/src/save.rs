//! Guest memory to files, and as a debugger sees it.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
};

use rhea_core::files::{self, Access};

use crate::{error::MachineError, machine::Machine};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 16;

impl Machine {
    /// Writes `size` bytes of physical memory from `from` on to a file; holes are zeros.
    ///
    /// # Errors
    /// A range that ends past the machine's memory, or what the host says of the file.
    pub fn save_physical(&self, from: u64, size: u64, path: &Path) -> Result<(), MachineError> {
        let end = self.memory().view().ranges().last().map_or(0, |range| range.last.saturating_add(1));
        if from.checked_add(size).is_none_or(|stop| stop > end) {
            return Err(MachineError::Range { address: from, size });
        }
        write_file(path, from, size, |address, bytes| {
            self.memory().read(address, bytes);
            Ok(())
        })
    }

    /// Writes `size` bytes of virtual memory, as processor `index` has it mapped now, to a file.
    ///
    /// # Errors
    /// An address that is not mapped, or what the host says of the file.
    pub fn save_virtual(&self, index: usize, from: u64, size: u64, path: &Path) -> Result<(), MachineError> {
        write_file(path, from, size, |address, bytes| {
            if self.read_virtual(index, address, bytes) {
                return Ok(());
            }
            Err(MachineError::Range { address, size: bytes.len() as u64 })
        })
    }

    /// Reads memory at a virtual address as processor `index` has it mapped; `false` if not all of it is.
    pub fn read_virtual(&self, index: usize, address: u64, bytes: &mut [u8]) -> bool {
        let Some(processor) = self.processors().get(index) else { return false };
        // All pages are looked up in one go, so that they belong together.
        let length = bytes.len() as u64;
        let pages = processor.with(move |vcpu| {
            let mut pages = Vec::new();
            let mut at = 0;
            while at < length {
                let linear = address.wrapping_add(at);
                let run = (4096 - (linear & 0xfff)).min(length - at);
                pages.push((vcpu.state().debug_translate(linear)?, run as usize));
                at += run;
            }
            Some(pages)
        });
        let Some(Some(pages)) = pages else { return false };
        let mut rest = bytes;
        for (physical, run) in pages {
            let (now, later) = rest.split_at_mut(run);
            self.memory().read(physical, now);
            rest = later;
        }
        true
    }
}

fn write_file(
    path: &Path,
    from: u64,
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), MachineError>,
) -> Result<(), MachineError> {
    let failed =
        |reason: io::Error| MachineError::Host { what: format!("could not write '{}'", path.display()), reason };
    let file = files::open(path, Access::Replace)
        .map_err(|source| MachineError::Open { path: path.to_owned(), reason: files::reason(&source) })?;
    let mut file = BufWriter::new(file);
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let run = (size - done).min(CHUNK as u64) as usize;
        read(from.wrapping_add(done), &mut chunk[..run])?;
        file.write_all(&chunk[..run]).map_err(failed)?;
        done += run as u64;
    }
    file.flush().map_err(failed)
}
