//! The header of an image: what it is, and whether its counts are sound.
//!
//! Source: "The qcow2 image format", docs/interop/qcow2.txt of QEMU, for the fields of the header.

use serde_json::{Value, json};

use crate::block::{error::BlockError, node::Node};

/// The first bytes of an image.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The header of an image, as far as others ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    version: u32,
    cluster_bits: u32,
    size: u64,
    backing: Option<String>,
    backing_format: Option<String>,
    incompatible: u64,
    compatible: u64,
    refcount_order: u32,
    refcount_table: u64,
    refcount_table_clusters: u32,
    compression: u8,
}

/// Bits of the features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTENDED_L2: u64 = 1 << 4;
const LAZY_REFCOUNTS: u64 = 1 << 0;

/// The extension of the header that names the format of the backing image.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// The longest name of a backing image.
const LONGEST_NAME: u32 = 1023;

impl Header {
    /// Reads it from the image's file.
    ///
    /// # Errors
    /// No such image.
    pub fn read(file: &Node) -> Result<Self, BlockError> {
        let refused = || BlockError::Format("qcow2");
        let get = |offset: u64, data: &mut [u8]| file.read(offset, data).map_err(|_| refused());
        let mut fixed = [0; 112];
        get(0, &mut fixed)?;
        let word = |at: usize| {
            let bytes = fixed.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_be_bytes)
        };
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let version = word(4);
        if !fixed.starts_with(&MAGIC) || !(2..=3).contains(&version) {
            return Err(refused());
        }
        let modern = version >= 3;
        let length = if modern { word(100) } else { 72 };
        let cluster_bits = word(20);
        if !(9..=21).contains(&cluster_bits) || u64::from(length) > 1 << cluster_bits {
            return Err(refused());
        }
        let (name_at, name_length) = (long(8), word(16));
        let backing = if name_at == 0 || name_length == 0 {
            None
        } else if name_length > LONGEST_NAME {
            return Err(refused());
        } else {
            let mut name = vec![0; name_length as usize];
            get(name_at, &mut name)?;
            Some(String::from_utf8(name).map_err(|_| refused())?)
        };
        // Extensions: type, length, data in multiples of 8, up to type 0, within the first cluster.
        let (mut at, mut backing_format) = (u64::from(length), None);
        while at + 8 <= 1 << cluster_bits {
            let mut start = [0; 8];
            get(at, &mut start)?;
            let [t0, t1, t2, t3, size @ ..] = start;
            let (kind, size) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes(size));
            match kind {
                0 => break,
                BACKING_FORMAT if size <= 15 => {
                    let mut name = vec![0; size as usize];
                    get(at + 8, &mut name)?;
                    backing_format = String::from_utf8(name).ok();
                }
                _ => {}
            }
            at += 8 + u64::from(size).next_multiple_of(8);
        }
        Ok(Self {
            version,
            cluster_bits,
            size: long(24),
            backing,
            backing_format,
            incompatible: if modern { long(72) } else { 0 },
            compatible: if modern { long(80) } else { 0 },
            refcount_order: if modern { word(96) } else { 4 },
            refcount_table: long(48),
            refcount_table_clusters: word(56),
            compression: fixed.get(104).copied().filter(|_| modern && length > 104).unwrap_or(0),
        })
    }

    /// Whether the reference counts know the clusters of the header and of the counts themselves. Otherwise something to be
    /// written would be put in their place.
    ///
    /// # Errors
    /// They do not.
    pub fn check_counts(&self, file: &Node) -> Result<(), BlockError> {
        let damaged =
            || BlockError::Options(format!("'{}': the image's reference counts are damaged", file.filename()));
        let cluster = 1_u64 << self.cluster_bits;
        let placed = |at: u64| at != 0 && at.is_multiple_of(cluster) && at < file.size();
        let get = |at: u64, data: &mut [u8]| file.read(at, data).map_err(|_| damaged());
        if !placed(self.refcount_table) || self.refcount_table_clusters == 0 || self.refcount_order > 6 {
            return Err(damaged());
        }
        let mut entry = [0; 8];
        get(self.refcount_table, &mut entry)?;
        let block = u64::from_be_bytes(entry);
        if !placed(block) {
            return Err(damaged());
        }
        let bits = 1_u64 << self.refcount_order;
        let counted = cluster * 8 / bits;
        for at in [0, self.refcount_table, block] {
            let index = at / cluster;
            if index >= counted {
                // Another block's matter; the image was written to a good deal before.
                continue;
            }
            let mut count = [0; 8];
            let first = index * bits / 8;
            get(block + first, &mut count)?;
            let is_counted = if bits < 8 {
                u64::from(count[0]) >> (index * bits % 8) & ((1 << bits) - 1) != 0
            } else {
                count.iter().take((bits / 8) as usize).any(|byte| *byte != 0)
            };
            if !is_counted {
                return Err(damaged());
            }
        }
        Ok(())
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The disk has another size.
    pub fn set_size(&mut self, size: u64) {
        self.size = size;
    }

    /// Bytes of a cluster.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Whether it says that it was not closed.
    pub fn is_dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }

    /// Details of the format.
    pub fn details(&self) -> Value {
        let Self {
            refcount_table: _,
            refcount_table_clusters: _,
            size: _,
            version,
            cluster_bits: _,
            backing: _,
            backing_format: _,
            incompatible,
            compatible,
            refcount_order,
            compression,
        } = self;
        let data = if *version == 2 {
            json!({ "compat": "0.10", "compression-type": "zlib", "refcount-bits": 16 })
        } else {
            json!({
                "compat": "1.1",
                "compression-type": if *compression == 1 { "zstd" } else { "zlib" },
                "lazy-refcounts": compatible & LAZY_REFCOUNTS != 0,
                "refcount-bits": 1_u64 << refcount_order.min(&6),
                "corrupt": incompatible & CORRUPT != 0,
                "extended-l2": incompatible & EXTENDED_L2 != 0,
            })
        };
        json!({ "type": "qcow2", "data": data })
    }

    /// The name of the image that it stands on.
    pub fn backing(&self) -> Option<&str> {
        self.backing.as_deref()
    }

    /// And its format, if it says so.
    pub fn backing_format(&self) -> Option<&str> {
        self.backing_format.as_deref()
    }
}
