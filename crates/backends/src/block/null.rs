//! Zeros for a disk.

use std::io;

use serde_json::{Map, Value};

use super::layer::Layer;

/// Zeros, and nothing that is kept.
#[derive(Debug)]
pub struct Null {
    /// Bytes.
    pub size: u64,
}

impl Layer for Null {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, _: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocated(&self) -> u64 {
        0
    }

    fn description(&self) -> Option<Map<String, Value>> {
        Some(Map::from_iter([("size".to_owned(), self.size.into())]))
    }
}
