//! Where an ELF core goes: bytes one after another, with stretches of zeros that a file need not store.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
};

/// Takes a dump from its first byte to its last.
pub trait Sink {
    /// Takes bytes.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes zeros.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    fn zeros(&mut self, mut length: u64) -> io::Result<()> {
        static ZEROS: [u8; 65536] = [0; 65536];
        while length > 0 {
            let part = length.min(ZEROS.len() as u64);
            self.put(&ZEROS[..part as usize])?;
            length -= part;
        }
        Ok(())
    }

    /// Everything was written.
    ///
    /// # Errors
    ///
    /// As the destination has it.
    fn finish(&mut self) -> io::Result<()>;
}

/// A pipe, a socket, a device: each byte is sent.
pub struct Stream<W>(pub W);

impl<W: Write> Sink for Stream<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A fresh regular file: zeros become holes.
pub struct Sparse(pub File);

impl Sink for Sparse {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn zeros(&mut self, length: u64) -> io::Result<()> {
        let length = i64::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.0.seek(SeekFrom::Current(length)).map(drop)
    }

    fn finish(&mut self) -> io::Result<()> {
        let length = self.0.stream_position()?;
        self.0.set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_sparse_file_reads_like_the_stream() {
        let mut stream = Stream(Vec::new());
        let mut sparse = Sparse(tempfile::tempfile().unwrap());
        for sink in [&mut stream as &mut dyn Sink, &mut sparse] {
            sink.put(b"head").unwrap();
            sink.zeros(100_000).unwrap();
            sink.put(b"middle").unwrap();
            sink.zeros(5000).unwrap();
            sink.finish().unwrap();
        }
        let mut read = Vec::new();
        sparse.0.rewind().unwrap();
        sparse.0.read_to_end(&mut read).unwrap();
        assert_eq!(read, stream.0);
    }
}
