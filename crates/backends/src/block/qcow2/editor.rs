//! Changes to the tables of an image, of which a reader of the file sees all or nothing.
//!
//! What is changed is written to clusters that nobody uses: tables of references, the blocks with the counts themselves and
//! what they count. One write of a few bytes to the header then makes all of it the image. Whoever ends before that leaves
//! the image as it was, with nothing lost but the length of its file.
//!
//! Source: "The qcow2 image format", docs/interop/qcow2 of QEMU (cited as §).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    ops::Range,
    sync::Arc,
};

use super::{super::node::Node, error::SnapshotError, header::MAGIC};

/// The largest table of references to tables (as QEMU limits it), in entries.
pub const MOST_L1_ENTRIES: u64 = (32 << 20) / 8;
/// The largest table of blocks of counts, in entries.
const MOST_BLOCKS: u64 = (8 << 20) / 8;
/// The most memory for counts: enough for 8 TiB in clusters of the usual size.
const MOST_COUNT_BYTES: u64 = 256 << 20;
/// How many clusters behind the end of the file may be counted before that is taken for damage.
const MOST_BEHIND_END: u64 = 1 << 20;
/// The offset of a table or a cluster in an entry (§ "L1 table entry", "Standard Cluster Descriptor").
pub const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The bit that says that nobody else uses what an entry refers to.
pub const ALONE: u64 = 1 << 63;
/// The bit of a compressed cluster.
const COMPRESSED: u64 = 1 << 62;

/// The file that an image is in. Reads behind its end give zeros.
pub trait ImageFile {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// What the host says.
    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// What the host says.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes what was written survive the end of the host.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&self) -> io::Result<()>;
    /// A range is not needed any more.
    ///
    /// # Errors
    /// What the host says.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;
}

impl ImageFile for Arc<Node> {
    fn size(&self) -> u64 {
        Node::size(self)
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        Node::read(self, offset, data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Node::write(self, offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        Node::flush(self)
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        Node::discard(self, offset, length)
    }
}

/// The fields of the header that changes are about (§ "Header").
#[derive(Clone, Debug)]
pub struct Fields {
    raw: [u8; 104],
    /// Bits of an offset within a cluster.
    pub cluster_bits: u32,
    /// The size of the disk.
    pub size: u64,
    /// Entries of the table of tables.
    pub l1_entries: u64,
    /// Where it is.
    pub l1_offset: u64,
    counts_offset: u64,
    counts_clusters: u64,
    count_order: u32,
    /// How many snapshots there are.
    pub snapshots: u32,
    /// Where their table is.
    pub snapshots_offset: u64,
    modern: bool,
}

impl Fields {
    /// Reads them.
    ///
    /// # Errors
    /// No such image, or one that must not be changed.
    pub fn read(file: &impl ImageFile) -> Result<Self, SnapshotError> {
        let mut raw = [0; 104];
        file.read(0, &mut raw)?;
        let word =
            |at: usize| raw.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let modern = word(4) == 3;
        let fields = Self {
            cluster_bits: word(20),
            size: long(24),
            l1_entries: word(36).into(),
            l1_offset: long(40),
            counts_offset: long(48),
            counts_clusters: word(56).into(),
            count_order: if modern { word(96) } else { 4 },
            snapshots: word(60),
            snapshots_offset: long(64),
            modern,
            raw,
        };
        if !raw.starts_with(&MAGIC)
            || !(2..=3).contains(&word(4))
            || !(9..=21).contains(&fields.cluster_bits)
            || fields.count_order > 6
        {
            return Err(SnapshotError::Damaged("it has no header"));
        }
        if word(32) != 0 {
            return Err(SnapshotError::Unsupported("snapshots of encrypted images are not supported"));
        }
        match if modern { long(72) } else { 0 } {
            0 => {}
            bits if bits & 3 != 0 => {
                return Err(SnapshotError::Unsupported(
                    "the image was not closed in order; 'qemu-img check -r all' repairs it",
                ));
            }
            _ => return Err(SnapshotError::Unsupported("snapshots of images with these features are not supported")),
        }
        if fields.size > 1 << 56 {
            return Err(SnapshotError::Damaged("its size cannot be"));
        }
        Ok(fields)
    }

    /// Bytes of a cluster.
    pub const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries that a table has to have for a disk of `size` bytes.
    pub fn entries_for(&self, size: u64) -> u64 {
        size.div_ceil(self.cluster() * (self.cluster() / 8))
    }

    /// Counts in a block of them.
    const fn counts_in_block(&self) -> u64 {
        (self.cluster() * 8) >> self.count_order
    }

    const fn count_bits(&self) -> u32 {
        1 << self.count_order
    }

    /// The clusters of `length` bytes at `offset`.
    pub const fn clusters(&self, offset: u64, length: u64) -> Range<u64> {
        offset >> self.cluster_bits..offset.saturating_add(length).div_ceil(self.cluster())
    }

    /// The bytes of the header from the size of the disk on, as they are to be, and where they begin.
    fn written(&self) -> (u64, Vec<u8>) {
        let mut raw = self.raw;
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = raw.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(24, &self.size.to_be_bytes());
        put(36, &(self.l1_entries as u32).to_be_bytes());
        put(40, &self.l1_offset.to_be_bytes());
        put(48, &self.counts_offset.to_be_bytes());
        put(56, &(self.counts_clusters as u32).to_be_bytes());
        put(60, &self.snapshots.to_be_bytes());
        put(64, &self.snapshots_offset.to_be_bytes());
        // Whoever changes an image clears the features that others must keep in step with it (§ "autoclear_features").
        put(88, &[0; 8]);
        (24, raw.get(24..if self.modern { 96 } else { 72 }).unwrap_or_default().to_vec())
    }
}

/// Counts of a range of clusters.
struct Block {
    now: Box<[u8]>,
    /// As they are in the image, if they are to change: what was in use must not be written before the change is made.
    before: Option<Box<[u8]>>,
}

/// The tables of an image, and what is to become of them.
pub struct Editor<F> {
    file: F,
    fields: Fields,
    /// Where the blocks of counts are.
    table: Vec<u64>,
    /// Those that were looked at.
    blocks: BTreeMap<u64, Block>,
    /// Those that are to change and have no new place yet.
    unplaced: BTreeSet<u64>,
    /// All before this are in use.
    cursor: u64,
}

impl<F: ImageFile> Editor<F> {
    /// Reads what all changes need.
    ///
    /// # Errors
    /// No such image, or a damaged one.
    pub fn new(file: F) -> Result<Self, SnapshotError> {
        let fields = Fields::read(&file)?;
        let entries = fields.counts_clusters.saturating_mul(fields.cluster() / 8);
        if entries == 0 || entries > MOST_BLOCKS {
            return Err(SnapshotError::Damaged("its reference counts are nowhere"));
        }
        let table = read_table(&file, &fields, fields.counts_offset, entries)?;
        let mut known = HashSet::new();
        for place in table.iter().filter(|place| **place != 0) {
            if !place.is_multiple_of(fields.cluster()) || *place >= file.size() || !known.insert(*place) {
                return Err(SnapshotError::Damaged("its reference counts are misplaced"));
            }
        }
        let mut editor = Self { file, fields, table, blocks: BTreeMap::new(), unplaced: BTreeSet::new(), cursor: 0 };
        if editor.count(0)? == 0 {
            return Err(SnapshotError::Damaged("its header is not counted"));
        }
        Ok(editor)
    }

    /// What the header says, and will say once this is made the image.
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The same, to be changed.
    pub const fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }

    /// The file.
    pub const fn file(&self) -> &F {
        &self.file
    }

    /// A table of references to tables.
    ///
    /// # Errors
    /// It is nowhere in the file.
    pub fn read_l1(&self, offset: u64, entries: u64) -> Result<Vec<u64>, SnapshotError> {
        read_l1(&self.file, &self.fields, offset, entries)
    }

    fn place_of(&self, cluster: u64) -> (u64, u64) {
        let each = self.fields.counts_in_block();
        (cluster / each, cluster % each)
    }

    /// The block of counts of this number, if there is one.
    fn block(&mut self, index: u64) -> Result<Option<&mut Block>, SnapshotError> {
        if !self.blocks.contains_key(&index) {
            let place = usize::try_from(index).ok().and_then(|index| self.table.get(index)).copied().unwrap_or(0);
            if place == 0 {
                return Ok(None);
            }
            let mut now = self.new_block()?;
            self.file.read(place, &mut now)?;
            self.blocks.insert(index, Block { now, before: None });
        }
        Ok(self.blocks.get_mut(&index))
    }

    fn new_block(&self) -> Result<Box<[u8]>, SnapshotError> {
        if (self.blocks.len() as u64 + 1) << self.fields.cluster_bits > MOST_COUNT_BYTES {
            return Err(SnapshotError::Unsupported("the image is too large for snapshots"));
        }
        Ok(vec![0; self.fields.cluster() as usize].into())
    }

    /// How often a cluster is used.
    ///
    /// # Errors
    /// What the host says.
    pub fn count(&mut self, cluster: u64) -> Result<u64, SnapshotError> {
        let (order, (index, at)) = (self.fields.count_order, self.place_of(cluster));
        Ok(self.block(index)?.map_or(0, |block| get(&block.now, at, order)))
    }

    /// Whether a cluster may be written: it is not in use in the image, nor will it be.
    fn is_free(&mut self, cluster: u64) -> Result<bool, SnapshotError> {
        let (order, (index, at)) = (self.fields.count_order, self.place_of(cluster));
        let block = self.block(index)?;
        Ok(block.is_none_or(|block| {
            get(&block.now, at, order) == 0 && block.before.as_ref().is_none_or(|before| get(before, at, order) == 0)
        }))
    }

    /// Uses a cluster once more, or once less.
    ///
    /// # Errors
    /// The count does not fit, or there is none.
    pub fn add(&mut self, cluster: u64, more: bool) -> Result<(), SnapshotError> {
        let (order, (index, at)) = (self.fields.count_order, self.place_of(cluster));
        if self.block(index)?.is_none() {
            if !more {
                return Err(SnapshotError::Damaged("a cluster is used and not counted"));
            }
            if index >= MOST_BLOCKS {
                return Err(SnapshotError::Full);
            }
            let length = usize::try_from(index).map_err(|_| SnapshotError::Full)? + 1;
            if self.table.len() < length {
                self.table.resize(length, 0);
            }
            let now = self.new_block()?;
            self.blocks.insert(index, Block { now, before: None });
        }
        let bits = self.fields.count_bits();
        let Some(block) = self.blocks.get_mut(&index) else { return Err(SnapshotError::Full) };
        let count = get(&block.now, at, order);
        let largest = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let changed = if more {
            count.checked_add(1).filter(|count| *count <= largest).ok_or(SnapshotError::TooOften(bits))?
        } else {
            count.checked_sub(1).ok_or(SnapshotError::Damaged("a cluster is used and not counted"))?
        };
        if block.before.is_none() {
            block.before = Some(block.now.clone());
            self.unplaced.insert(index);
        }
        set(&mut block.now, at, order, changed);
        Ok(())
    }

    /// The same for all clusters of `length` bytes at `offset`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_all(&mut self, offset: u64, length: u64, more: bool) -> Result<(), SnapshotError> {
        self.fields.clusters(offset, length).try_for_each(|cluster| self.add(cluster, more))
    }

    /// Finds `number` clusters in a row that nobody uses, and uses them; gives the offset of the first.
    ///
    /// # Errors
    /// There is no room.
    pub fn allocate(&mut self, number: u64) -> Result<u64, SnapshotError> {
        let limit = (self.file.size() >> self.fields.cluster_bits) + number + MOST_BEHIND_END;
        let (mut first, mut at) = (self.cursor, self.cursor);
        while at - first < number {
            if at > limit {
                return Err(SnapshotError::Full);
            }
            if !self.is_free(at)? {
                if self.cursor == first && at == first {
                    self.cursor = at + 1;
                }
                first = at + 1;
            }
            at += 1;
        }
        if first == self.cursor {
            self.cursor = at;
        }
        (first..at).try_for_each(|cluster| self.add(cluster, true))?;
        Ok(first << self.fields.cluster_bits)
    }

    /// Writes `data` to clusters that nobody uses, and says where.
    ///
    /// # Errors
    /// There is no room, or the host says so.
    pub fn store(&mut self, data: &[u8]) -> Result<u64, SnapshotError> {
        let length = data.len() as u64;
        let clusters = length.div_ceil(self.fields.cluster()).max(1);
        let offset = self.allocate(clusters)?;
        self.file.write(offset, data)?;
        // Whole clusters, so that nothing of what was there before shows.
        let rest = (clusters << self.fields.cluster_bits) - length;
        if rest > 0 {
            self.file.write(offset + length, &vec![0; rest as usize])?;
        }
        Ok(offset)
    }

    /// Writes a table to clusters that nobody uses, and says where.
    ///
    /// # Errors
    /// There is no room, or the host says so.
    pub fn store_table(&mut self, entries: &[u64]) -> Result<u64, SnapshotError> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.store(&bytes)
    }

    /// The table that an entry of a table of tables refers to.
    ///
    /// # Errors
    /// It is nowhere in the file.
    pub fn read_l2(&self, entry: u64) -> Result<Vec<u64>, SnapshotError> {
        read_table(&self.file, &self.fields, entry & OFFSET, self.fields.cluster() / 8)
    }

    /// The clusters that an entry of a table refers to.
    pub fn clusters_of(&self, entry: u64) -> Range<u64> {
        let offset = entry & OFFSET;
        if entry & COMPRESSED != 0 {
            // § "Compressed Clusters Descriptor": sectors of 512 bytes, the first of which the data begin in.
            let split = 62 - (self.fields.cluster_bits - 8);
            let offset = entry & ((1 << split) - 1) & !511;
            let sectors = (entry >> split & ((1 << (62 - split)) - 1)) + 1;
            return self.fields.clusters(offset, sectors * 512);
        }
        if offset == 0 { 0..0 } else { self.fields.clusters(offset, 1) }
    }

    /// Uses all that a table of tables refers to once more, or once less.
    ///
    /// # Errors
    /// The image is damaged, or a count does not fit.
    pub fn add_tree(&mut self, l1: &[u64], more: bool) -> Result<(), SnapshotError> {
        for entry in l1.iter().filter(|entry| **entry & OFFSET != 0) {
            let l2 = self.read_l2(*entry)?;
            self.add((entry & OFFSET) >> self.fields.cluster_bits, more)?;
            for entry in l2 {
                self.clusters_of(entry).try_for_each(|cluster| self.add(cluster, more))?;
            }
        }
        Ok(())
    }

    /// Has the entries of the table of tables that the disk is read through say what nobody else uses. Tables that change
    /// are written anew, for the disk alone.
    ///
    /// # Errors
    /// The image is damaged, or there is no room.
    pub fn settle(&mut self, l1: &mut [u64]) -> Result<(), SnapshotError> {
        for top in l1.iter_mut().filter(|entry| **entry & OFFSET != 0) {
            let cluster = (*top & OFFSET) >> self.fields.cluster_bits;
            let mut l2 = self.read_l2(*top)?;
            let mut changed = false;
            for entry in &mut l2 {
                let alone = *entry & COMPRESSED == 0
                    && *entry & OFFSET != 0
                    && self.count((*entry & OFFSET) >> self.fields.cluster_bits)? == 1;
                let settled = if alone { *entry | ALONE } else { *entry & !ALONE };
                changed |= settled != *entry;
                *entry = settled;
            }
            if changed {
                self.add(cluster, false)?;
                *top = self.store_table(&l2)? | ALONE;
            } else {
                *top = *top & OFFSET | if self.count(cluster)? == 1 { ALONE } else { 0 };
            }
        }
        Ok(())
    }

    /// Makes all of this the image.
    ///
    /// # Errors
    /// The image is as it was, unless it was the write of the header that failed.
    pub fn commit(mut self) -> Result<(), SnapshotError> {
        let cluster = self.fields.cluster();
        self.add_all(self.fields.counts_offset, self.fields.counts_clusters * cluster, false)?;
        // Each block that moves changes counts, by which others may have to move.
        let mut place: Option<(u64, u64)> = None;
        loop {
            while let Some(index) = self.unplaced.pop_first() {
                let at = usize::try_from(index).map_err(|_| SnapshotError::Full)?;
                let old = self.table.get(at).copied().unwrap_or(0);
                let new = self.allocate(1)?;
                if let Some(entry) = self.table.get_mut(at) {
                    *entry = new;
                }
                if old != 0 {
                    self.add(old >> self.fields.cluster_bits, false)?;
                }
            }
            let needed = (self.table.len() as u64 * 8).div_ceil(cluster);
            match place {
                Some((_, clusters)) if clusters == needed => break,
                Some((offset, clusters)) => self.add_all(offset, clusters * cluster, false)?,
                None => {}
            }
            place = Some((self.allocate(needed)?, needed));
        }
        let Some((offset, clusters)) = place else { return Err(SnapshotError::Full) };
        let changed = || self.blocks.iter().filter(|(_, block)| block.before.is_some());
        for (index, block) in changed() {
            let place = usize::try_from(*index).ok().and_then(|index| self.table.get(index)).copied();
            self.file.write(place.ok_or(SnapshotError::Full)?, &block.now)?;
        }
        let mut bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize((clusters * cluster) as usize, 0);
        self.file.write(offset, &bytes)?;
        self.file.flush()?;
        self.fields.counts_offset = offset;
        self.fields.counts_clusters = clusters;
        let (at, header) = self.fields.written();
        self.file.write(at, &header)?;
        self.file.flush()?;
        self.give_up_room();
        Ok(())
    }

    /// Gives back the room of clusters that are not used any more. The host may not; then the file stays as it is.
    fn give_up_room(&self) {
        let (order, each, bits) = (self.fields.count_order, self.fields.counts_in_block(), self.fields.cluster_bits);
        let mut freed: Option<Range<u64>> = None;
        let give_up = |range: Option<Range<u64>>| {
            let Some(range) = range else { return };
            if let Err(error) = self.file.discard(range.start << bits, (range.end - range.start) << bits) {
                tracing::debug!("room of an image is not given back: {error}");
            }
        };
        for (index, block) in &self.blocks {
            let Some(before) = &block.before else { continue };
            for at in 0..each {
                if get(before, at, order) == 0 || get(&block.now, at, order) != 0 {
                    continue;
                }
                let cluster = index * each + at;
                match &mut freed {
                    Some(range) if range.end == cluster => range.end += 1,
                    _ => give_up(freed.replace(cluster..cluster + 1)),
                }
            }
        }
        give_up(freed);
    }
}

/// A table of references to tables.
///
/// # Errors
/// It is nowhere in the file.
pub fn read_l1(file: &impl ImageFile, fields: &Fields, offset: u64, entries: u64) -> Result<Vec<u64>, SnapshotError> {
    if entries > MOST_L1_ENTRIES {
        return Err(SnapshotError::Damaged("a table is too large"));
    }
    if entries == 0 {
        return Ok(Vec::new());
    }
    let l1 = read_table(file, fields, offset, entries)?;
    // Each refers to a cluster of its own.
    if l1.iter().filter(|entry| **entry & OFFSET != 0).count() as u64 > file.size() >> fields.cluster_bits {
        return Err(SnapshotError::Damaged("a table refers to more than there is"));
    }
    Ok(l1)
}

/// A table at `offset`, of which the number of entries was checked.
pub fn read_table(
    file: &impl ImageFile,
    fields: &Fields,
    offset: u64,
    entries: u64,
) -> Result<Vec<u64>, SnapshotError> {
    let end = offset.checked_add(entries * 8);
    if offset == 0
        || !offset.is_multiple_of(fields.cluster())
        || end.is_none_or(|end| end > file.size().next_multiple_of(fields.cluster()))
    {
        return Err(SnapshotError::Damaged("a table is misplaced"));
    }
    let mut bytes = vec![0; (entries * 8) as usize];
    file.read(offset, &mut bytes)?;
    let (entries, _) = bytes.as_chunks::<8>();
    Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

/// Count `at` of a block with counts of 2 to the power of `order` bits (§ "Host cluster management").
fn get(block: &[u8], at: u64, order: u32) -> u64 {
    if order < 3 {
        let bit = at << order;
        let byte = usize::try_from(bit / 8).ok().and_then(|at| block.get(at)).copied().unwrap_or(0);
        return u64::from(byte) >> (bit % 8) & ((1 << (1 << order)) - 1);
    }
    let (first, bytes) = ((at << (order - 3)) as usize, 1 << (order - 3));
    block.get(first..first + bytes).unwrap_or_default().iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn set(block: &mut [u8], at: u64, order: u32, value: u64) {
    if order < 3 {
        let bit = at << order;
        let mask = ((1_u16 << (1 << order)) - 1) as u8;
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| block.get_mut(at)) {
            *byte = *byte & !(mask << (bit % 8)) | (value as u8 & mask) << (bit % 8);
        }
        return;
    }
    let (first, bytes) = ((at << (order - 3)) as usize, 1_usize << (order - 3));
    if let Some(place) = block.get_mut(first..first + bytes) {
        place.copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
    }
}
