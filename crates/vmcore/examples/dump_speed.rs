//! Measures the writers: `cargo run --release -p rhea-vmcore --example dump_speed [FILE] [MIB]` prints MB/s of guest memory.
//!
//! FILE is what the guest's memory holds (any large file of mixed content); without it half of memory is text-like.

use std::{env, error::Error, fs, io, ops::ControlFlow, ops::Range, slice, time::Instant};

use rhea_vmcore::{
    Flattened, Memory, Source, Sparse, Stream, Unreadable, elf,
    kdump::{self, Compression},
};

struct Ram(Vec<u8>, Range<u64>);

impl Memory for Ram {
    fn ranges(&self) -> &[Range<u64>] {
        slice::from_ref(&self.1)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(address).map_err(|_| Unreadable(address))?;
        let bytes = start.checked_add(into.len()).and_then(|end| self.0.get(start..end)).ok_or(Unreadable(address))?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let content = arguments.next().map(fs::read).transpose()?;
    let mebibytes: usize = arguments.next().map_or(Ok(512), |size| size.parse())?;
    let mut bytes = content.unwrap_or_else(|| {
        (0_u64..1 << 25).flat_map(|at| (at.wrapping_mul(0x9e37_79b9) >> 9 & 0x3f3f_3f3f_0000).to_le_bytes()).collect()
    });
    bytes.resize(mebibytes << 20, 0);
    let ram = Ram(bytes, 0..(mebibytes as u64) << 20);
    let source = Source { memory: &ram, processors: &[], vmcoreinfo: None };
    let mut go_on = |_| ControlFlow::Continue(());
    let time = |name: &str, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        println!("{name:16} {seconds:6.2} s {:8.0} MB/s", (mebibytes << 20) as f64 / 1e6 / seconds);
    };
    let start = Instant::now();
    elf::write(&source, &elf::Layout::default(), &mut Stream(io::sink()), &mut go_on)?;
    time("elf to nowhere", start);
    let start = Instant::now();
    elf::write(&source, &elf::Layout::default(), &mut Sparse(tempfile::tempfile()?), &mut go_on)?;
    time("elf to a file", start);
    for compression in [Compression::Zlib, Compression::Lzo, Compression::Snappy] {
        let start = Instant::now();
        kdump::write(&source, compression, &mut Flattened::new(io::sink())?, &mut go_on)?;
        time(&format!("{compression:?}"), start);
    }
    Ok(())
}
