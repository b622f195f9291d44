//! Dumps of guest memory: `dump.json`.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use rhea_api::dump::{DumpGuestMemoryCapability, DumpGuestMemoryFormat, DumpQueryResult, DumpStatus, Handler};
use rhea_machine::{
    MachineError,
    dump::{Compression, Destination, Dump, DumpFormat, DumpRequest, Layout},
    held::Job,
};
use rhea_qmp::{Error, reply::Later};

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn dump_guest_memory(
        &mut self,
        paging: bool,
        protocol: String,
        detach: Option<bool>,
        begin: Option<i64>,
        length: Option<i64>,
        format: Option<DumpGuestMemoryFormat>,
    ) -> Result<Later<()>, Error> {
        if self.machine().dump_progress().query().status == DumpStatus::Active {
            return Err(failed(MachineError::Busy(Job::Dump)));
        }
        let format = form(format.unwrap_or(DumpGuestMemoryFormat::Elf), paging, begin, length)?;
        let request = DumpRequest { format, destination: self.destination(&protocol)? };
        let machine = Arc::clone(self.machine());
        if !detach.unwrap_or(false) {
            return Ok(Box::new(move || Dump::begin(&machine, request).and_then(Dump::run).map_err(failed)));
        }
        // The result goes out before the end of the dump is told, however short it is.
        let (answered, wait_for_answer) = mpsc::channel::<()>();
        self.after_answer(move || drop(answered));
        Ok(Box::new(move || {
            let dump = Dump::begin(&machine, request).map_err(failed)?;
            let run = move || {
                // The other end says nothing: it goes away.
                let _ = wait_for_answer.recv();
                if let Err(error) = dump.run() {
                    tracing::warn!("{error}");
                }
            };
            let started = thread::Builder::new().name("dump".to_owned()).spawn(run);
            started.map(drop).map_err(|error| Error::generic(format_args!("Could not start a thread: {error}")))
        }))
    }

    fn query_dump(&mut self) -> Result<DumpQueryResult, Error> {
        Ok(self.machine().dump_progress().query())
    }

    fn query_dump_guest_memory_capability(&mut self) -> Result<DumpGuestMemoryCapability, Error> {
        Ok(DumpGuestMemoryCapability { formats: DumpGuestMemoryFormat::ALL.to_vec() })
    }

    fn dump_skeys(&mut self, _: String) -> Result<(), Error> {
        Err(Error::generic("This machine has no storage keys"))
    }
}

/// Format, window and paging, if they go together.
fn form(
    format: DumpGuestMemoryFormat,
    paging: bool,
    begin: Option<i64>,
    length: Option<i64>,
) -> Result<DumpFormat, Error> {
    let (compression, flattened) = match format {
        DumpGuestMemoryFormat::Elf => {
            let window = match (begin, length) {
                (None, None) => None,
                (Some(_), None) => return Err(Error::generic("Parameter 'length' is missing")),
                (None, Some(_)) => return Err(Error::generic("Parameter 'begin' is missing")),
                (Some(begin), Some(length)) => {
                    let negative = |name: &str| {
                        Error::generic(format_args!("Parameter '{name}' expects a size: it cannot be negative"))
                    };
                    let begin = u64::try_from(begin).map_err(|_| negative("begin"))?;
                    let length = u64::try_from(length).map_err(|_| negative("length"))?;
                    if length == 0 {
                        return Err(Error::generic("parameter 'length' expects a non-zero size"));
                    }
                    Some(begin..begin.saturating_add(length))
                }
            };
            return Ok(DumpFormat::Elf(Layout { window, paging }));
        }
        DumpGuestMemoryFormat::KdumpZlib => (Compression::Zlib, true),
        DumpGuestMemoryFormat::KdumpLzo => (Compression::Lzo, true),
        DumpGuestMemoryFormat::KdumpSnappy => (Compression::Snappy, true),
        DumpGuestMemoryFormat::KdumpRawZlib => (Compression::Zlib, false),
        DumpGuestMemoryFormat::KdumpRawLzo => (Compression::Lzo, false),
        DumpGuestMemoryFormat::KdumpRawSnappy => (Compression::Snappy, false),
    };
    if paging || begin.is_some() || length.is_some() {
        return Err(Error::generic("kdump-compressed format doesn't support paging or filter"));
    }
    Ok(DumpFormat::Kdump { compression, flattened })
}

impl Commands<'_> {
    fn destination(&self, protocol: &str) -> Result<Destination, Error> {
        if let Some(path) = protocol.strip_prefix("file:") {
            return Ok(Destination::File(PathBuf::from(path)));
        }
        let name = protocol
            .strip_prefix("fd:")
            .ok_or_else(|| Error::generic("parameter 'protocol' must start with 'file:' or 'fd:'"))?;
        Ok(Destination::Descriptor(self.named(name)?))
    }
}
