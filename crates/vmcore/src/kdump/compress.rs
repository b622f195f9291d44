//! Compression of single pages.
//!
//! Sources: RFC 1950 (zlib), the LZO1X stream format, the Snappy block format.

use flate2::{Compress, FlushCompress, Status};

use super::{lzo::Lzo, noise};
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
            Self::Zlib => Compressor::Zlib(Compress::new(flate2::Compression::fast(), true), Lzo::new()),
            Self::Lzo => Compressor::Lzo(Lzo::new()),
            Self::Snappy => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
        }
    }
}

/// What a thread compresses with, one page after another.
pub(super) enum Compressor {
    /// The second finds out whether anything is repeated.
    Zlib(Compress, Lzo),
    Lzo(Lzo),
    Snappy(Box<snap::raw::Encoder>),
}

/// Room for a page that does not shrink, with whatever its format adds.
const WORST: usize = PAGE as usize + PAGE as usize / 4 + 256;

impl Compressor {
    /// Compresses `page` into `out`, whose contents go. `false` if it does not get smaller.
    pub(super) fn page(&mut self, page: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let done = match self {
            Self::Lzo(lzo) => lzo.compress(page, out),
            Self::Zlib(zlib, lzo) => {
                // Zlib takes ten times as long to see that there is nothing to be saved.
                if noise::is_even(page) && !lzo.compress(page, out) {
                    return false;
                }
                out.clear();
                zlib.reset();
                out.reserve(WORST);
                matches!(zlib.compress_vec(page, out, FlushCompress::Finish), Ok(Status::StreamEnd))
            }
            Self::Snappy(snappy) => {
                out.resize(WORST, 0);
                let size = snappy.compress(page, out);
                out.truncate(size.as_ref().copied().unwrap_or_default());
                size.is_ok()
            }
        };
        done && out.len() < page.len()
    }
}
