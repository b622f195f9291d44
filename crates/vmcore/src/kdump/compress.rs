//! Compression of single pages.
//!
//! Sources: RFC 1950 (zlib), the LZO1X stream format, the Snappy block format.

use flate2::{Compress, FlushCompress, Status};

use crate::PAGE;

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Smallest of the three.
    Zlib,
    /// LZO1X.
    Lzo,
    /// Snappy: fastest of the three.
    Snappy,
}

impl Compression {
    /// What the header and a compressed page's descriptor say of it.
    pub(super) const fn flag(self) -> u32 {
        match self {
            Self::Zlib => 1,
            Self::Lzo => 2,
            Self::Snappy => 4,
        }
    }

    pub(super) fn compressor(self) -> Compressor {
        match self {
            Self::Zlib => Compressor::Zlib(Compress::new(flate2::Compression::fast(), true)),
            Self::Lzo => Compressor::Lzo(lzokay::compress::Dict::new()),
            Self::Snappy => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
        }
    }
}

/// What a thread compresses with, one page after another.
pub(super) enum Compressor {
    Zlib(Compress),
    Lzo(Box<lzokay::compress::Dict>),
    Snappy(Box<snap::raw::Encoder>),
}

/// Room for a page that does not shrink, with whatever its format adds.
pub(super) const WORST: usize = PAGE as usize + PAGE as usize / 4 + 256;

impl Compressor {
    /// Compresses `page` into `room`. None if it does not get smaller.
    pub(super) fn page(&mut self, page: &[u8], room: &mut [u8]) -> Option<usize> {
        let size = match self {
            Self::Zlib(zlib) => {
                zlib.reset();
                match zlib.compress(page, room, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(zlib.total_out()).ok(),
                    _ => None,
                }
            }
            Self::Lzo(dictionary) => lzokay::compress::compress_no_alloc(page, room, dictionary).ok(),
            Self::Snappy(snappy) => snappy.compress(page, room).ok(),
        };
        size.filter(|&size| size < page.len())
    }
}
