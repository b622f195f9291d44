//! Guest memory: `memory.json`.

use std::{path::PathBuf, sync::Arc};

use rhea_api::memory::Handler;
use rhea_qmp::{Error, reply::Later};

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn memsave(&mut self, val: i64, size: i64, filename: String, cpu_index: Option<i64>) -> Result<Later<()>, Error> {
        let processor = self.processor(cpu_index.unwrap_or(0))?;
        let size = self.size(size)?;
        let machine = Arc::clone(self.machine());
        // An address is 64 bits; JSON's integers have a sign.
        let from = val as u64;
        Ok(Box::new(move || machine.save_virtual(processor, from, size, &PathBuf::from(filename)).map_err(failed)))
    }

    fn pmemsave(&mut self, val: i64, size: i64, filename: String) -> Result<Later<()>, Error> {
        let size = self.size(size)?;
        let machine = Arc::clone(self.machine());
        let from = val as u64;
        Ok(Box::new(move || machine.save_physical(from, size, &PathBuf::from(filename)).map_err(failed)))
    }
}

impl Commands<'_> {
    fn size(&self, size: i64) -> Result<u64, Error> {
        u64::try_from(size).map_err(|_| Error::generic("Parameter 'size' expects a size: it cannot be negative"))
    }
}
