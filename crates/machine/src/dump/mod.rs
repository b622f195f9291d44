//! Dumps of the guest's memory: the machine stands, a thread writes, the machine goes on.

pub(crate) mod progress;
mod source;

use std::{
    fs::File,
    io::{self, BufWriter, Seek, Write},
    ops::Range,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::PathBuf,
    sync::Arc,
};

use rhea_api::{Event, dump::DumpStatus};
use rhea_core::files::{self, Access, Replacement};
use rhea_vmcore::{Flattened, Memory as _, Raw, Sink, Source, Sparse, Stream, Vmcoreinfo, clip, elf, kdump, total};

pub use rhea_vmcore::{elf::Layout, kdump::Compression};

use self::source::{GuestMemory, registers};
use crate::{
    error::MachineError,
    held::Job,
    hold::{After, Hold},
    machine::Machine,
};

/// Bytes that are collected for one write.
const BUFFER: usize = 1 << 20;

/// What is to be written.
#[derive(Debug)]
pub struct DumpRequest {
    /// How.
    pub format: DumpFormat,
    /// Where to.
    pub destination: Destination,
}

/// The form of a dump.
#[derive(Debug, Clone)]
pub enum DumpFormat {
    /// An ELF core.
    Elf(Layout),
    /// A kdump-compressed file.
    Kdump {
        /// How its pages are compressed.
        compression: Compression,
        /// As a stream, for `makedumpfile -R`, rather than the file itself.
        flattened: bool,
    },
}

/// Where a dump goes.
#[derive(Debug)]
pub enum Destination {
    /// A file by name.
    File(PathBuf),
    /// A descriptor that a client passed.
    Descriptor(OwnedFd),
}

/// What is written to.
enum Output {
    /// A new file, named once it is complete.
    Fresh(Replacement),
    /// A device, a pipe, a client's descriptor.
    Direct(File),
}

impl Output {
    fn open(destination: Destination) -> Result<Self, MachineError> {
        let path = match destination {
            Destination::Descriptor(descriptor) => return Ok(Self::Direct(descriptor.into())),
            Destination::File(path) => path,
        };
        let special = |kind: std::fs::FileType| kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
        let in_place = files::is_passed(&path) || path.metadata().is_ok_and(|data| special(data.file_type()));
        let opened = if in_place {
            files::open(&path, Access::Replace).map(Self::Direct)
        } else if path.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else {
            Replacement::begin(&path).map(Self::Fresh)
        };
        opened.map_err(|error| MachineError::Create { path, reason: files::reason(&error) })
    }

    const fn file(&self) -> &File {
        match self {
            Self::Fresh(replacement) => replacement.file(),
            Self::Direct(file) => file,
        }
    }

    fn complete(self) -> io::Result<()> {
        match self {
            Self::Fresh(replacement) => replacement.complete(),
            Self::Direct(_) => Ok(()),
        }
    }
}

/// A dump that was begun: the machine stands until it has run, or is dropped.
pub struct Dump {
    machine: Arc<Machine>,
    format: DumpFormat,
    output: Option<Output>,
    memory: GuestMemory,
    /// Until it has ended.
    hold: Option<Hold>,
}

impl Dump {
    /// Opens the destination and makes the machine stand.
    ///
    /// # Errors
    /// Another dump is being written, there is nothing to write, or the destination cannot be opened.
    pub fn begin(machine: &Arc<Machine>, request: DumpRequest) -> Result<Self, MachineError> {
        let DumpRequest { format, destination } = request;
        if machine.dump_progress().query().status == DumpStatus::Active {
            return Err(MachineError::Busy(Job::Dump));
        }
        let memory = GuestMemory::new(machine.memory());
        let total = total(&clip(memory.ranges(), window(&format)));
        if total == 0 {
            return Err(MachineError::Dump("no guest memory to dump".to_owned()));
        }
        let output = Output::open(destination)?;
        if matches!(format, DumpFormat::Kdump { flattened: false, .. }) && output.file().stream_position().is_err() {
            return Err(MachineError::Dump("kdump-raw formats require a seekable file".to_owned()));
        }
        let hold = Some(machine.hold_for(Job::Dump)?);
        machine.dump_progress().begin(total);
        Ok(Self { machine: Arc::clone(machine), format, output: Some(output), memory, hold })
    }

    /// Writes it, and lets the machine go on.
    ///
    /// # Errors
    /// Why it was not written. Then nothing of it is left under its name.
    pub fn run(mut self) -> Result<(), MachineError> {
        let result = self.write();
        self.end(result.as_ref().err());
        result
    }

    fn write(&mut self) -> Result<(), MachineError> {
        let processors: Option<Vec<_>> = self
            .machine
            .processors()
            .list()
            .iter()
            .map(|processor| processor.with(|vcpu| registers(vcpu.state())))
            .collect();
        let processors = processors.ok_or_else(|| MachineError::Dump("the machine is ending".to_owned()))?;
        // What the guest says of itself, else what can be found.
        let told = self.machine.board().vmcoreinfo();
        let vmcoreinfo = told
            .and_then(|(address, size)| Vmcoreinfo::at(&self.memory, address, size))
            .or_else(|| Vmcoreinfo::find(&self.memory, &processors));
        let source = Source { memory: &self.memory, processors: &processors, vmcoreinfo: vmcoreinfo.as_ref() };
        let latest = self.machine.dump_progress();
        let mut progress = |done| latest.reached(done);
        let Some(output) = self.output.take() else { return Ok(()) };
        write_to(&source, &self.format, &output, &mut progress).map_err(|error| failed(&error))?;
        output.complete().map_err(|error| failed(&error.into()))
    }

    fn end(&mut self, error: Option<&MachineError>) {
        let Some(hold) = self.hold.take() else { return };
        // An unfinished file goes before anybody hears of the end.
        self.output = None;
        let status = if error.is_some() { DumpStatus::Failed } else { DumpStatus::Completed };
        let result = self.machine.dump_progress().end(status);
        let completed = Event::DumpCompleted { result, error: error.map(ToString::to_string) };
        hold.release(Some(completed), After::AsBefore);
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.end(Some(&MachineError::Dump("it was given up".to_owned())));
    }
}

/// The window of addresses that is written, if it is not all.
const fn window(format: &DumpFormat) -> Option<&Range<u64>> {
    match format {
        DumpFormat::Elf(layout) => layout.window.as_ref(),
        DumpFormat::Kdump { .. } => None,
    }
}

fn write_to(
    source: &Source<'_>,
    format: &DumpFormat,
    output: &Output,
    progress: &mut rhea_vmcore::Progress<'_>,
) -> Result<(), rhea_vmcore::Error> {
    match (format, output) {
        (DumpFormat::Elf(layout), Output::Fresh(replacement)) => {
            let mut sink = Sparse(replacement.file().try_clone()?);
            elf::write(source, layout, &mut sink as &mut dyn Sink, progress)
        }
        (DumpFormat::Elf(layout), Output::Direct(file)) => {
            elf::write(source, layout, &mut Stream(BufWriter::with_capacity(BUFFER, file)), progress)
        }
        (&DumpFormat::Kdump { compression, flattened: true }, output) => {
            let mut stream = Flattened::new(BufWriter::with_capacity(BUFFER, output.file()))?;
            kdump::write(source, compression, &mut stream, progress)?;
            Ok(stream.into_inner().flush()?)
        }
        (&DumpFormat::Kdump { compression, flattened: false }, output) => {
            kdump::write(source, compression, &mut Raw::new(output.file()), progress)
        }
    }
}

fn failed(error: &rhea_vmcore::Error) -> MachineError {
    MachineError::Dump(match error {
        rhea_vmcore::Error::Write(reason) => format!("failed to write: {}", files::reason(reason)),
        other => other.to_string(),
    })
}
