//! Snapshots within an image: states of the disk, and of the machine, that it can go back to.
//!
//! A snapshot is a table of references to tables of its own. The state of the machine is behind the end of the disk in it,
//! as other programs have it, too.
//!
//! Source: "The qcow2 image format", docs/interop/qcow2 of QEMU, § "Snapshots".

use std::io::{self, Read, Write};

use super::{
    editor::{ALONE, Editor, Fields, ImageFile, MOST_L1_ENTRIES, OFFSET, read_l1, read_table},
    error::SnapshotError,
};

/// The most snapshots of an image, and the most bytes that their table takes.
const MOST_SNAPSHOTS: u32 = 65536;
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// The longest of what other programs note about a snapshot.
const MOST_EXTRA: u32 = 1024;
/// Bytes of an entry before what is noted of it.
const FIXED: u64 = 40;
/// Where no instructions are counted.
const NOT_COUNTED: u64 = u64::MAX;
/// Bytes of the machine's state that are written at once, at most.
const PIECE: u64 = 1 << 20;

/// A state that an image can go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, in words.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made: seconds of the Unix epoch.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// The machine's clock then, in nanoseconds.
    pub clock: u64,
    /// Bytes of the machine's state; 0 if it is of the disk only.
    pub state_size: u64,
    /// The disk's size then, where it is noted.
    pub disk_size: Option<u64>,
    /// Instructions that the machine had executed, where they were counted.
    pub instructions: Option<u64>,
    l1_offset: u64,
    l1_entries: u32,
    /// What is noted besides, as it stands.
    extra: Vec<u8>,
}

/// What a snapshot is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// When it is made: seconds of the Unix epoch.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// The machine's clock, in nanoseconds.
    pub clock: u64,
}

/// The snapshots of an image, and the bytes that their table takes.
///
/// # Errors
/// The table is damaged.
pub fn read_snapshots(file: &impl ImageFile, fields: &Fields) -> Result<(Vec<Snapshot>, u64), SnapshotError> {
    let damaged = || SnapshotError::Damaged("its table of snapshots cannot be");
    if fields.snapshots == 0 {
        return Ok((Vec::new(), 0));
    }
    let start = fields.snapshots_offset;
    let room = file.size().checked_sub(start).ok_or_else(damaged)?.min(MOST_TABLE_BYTES);
    if fields.snapshots > MOST_SNAPSHOTS
        || start == 0
        || !start.is_multiple_of(fields.cluster())
        || u64::from(fields.snapshots) * FIXED > room
    {
        return Err(damaged());
    }
    let mut snapshots = Vec::new();
    let mut at = 0_u64;
    for _ in 0..fields.snapshots {
        at = at.next_multiple_of(8);
        let mut fixed = [0; FIXED as usize];
        if at + FIXED > room {
            return Err(damaged());
        }
        file.read(start + at, &mut fixed)?;
        let word =
            |at: usize| fixed.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let (id, name, extra) = (u64::from(word(12) >> 16), u64::from(word(12) & 0xffff), word(36));
        let length = u64::from(extra) + id + name;
        if extra > MOST_EXTRA || at + FIXED + length > room {
            return Err(damaged());
        }
        let mut rest = vec![0; length as usize];
        file.read(start + at + FIXED, &mut rest)?;
        let name = rest.split_off((u64::from(extra) + id) as usize);
        let id = rest.split_off(extra as usize);
        let noted = |at: usize| rest.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        snapshots.push(Snapshot {
            id: String::from_utf8_lossy(&id).into_owned(),
            name: String::from_utf8_lossy(&name).into_owned(),
            seconds: word(16),
            nanoseconds: word(20),
            clock: long(24),
            state_size: noted(0).unwrap_or_else(|| word(32).into()),
            disk_size: noted(8),
            instructions: noted(16).filter(|count| *count != NOT_COUNTED),
            l1_offset: long(0),
            l1_entries: word(8),
            extra: rest,
        });
        at += FIXED + length;
    }
    Ok((snapshots, at))
}

fn table_bytes(snapshots: &[Snapshot]) -> Vec<u8> {
    let mut table = Vec::new();
    for snapshot in snapshots {
        table.resize(table.len().next_multiple_of(8), 0);
        table.extend(snapshot.l1_offset.to_be_bytes());
        table.extend(snapshot.l1_entries.to_be_bytes());
        // Both were read from, or made to fit, fields of 16 bits.
        table.extend((snapshot.id.len() as u16).to_be_bytes());
        table.extend((snapshot.name.len() as u16).to_be_bytes());
        table.extend(snapshot.seconds.to_be_bytes());
        table.extend(snapshot.nanoseconds.to_be_bytes());
        table.extend(snapshot.clock.to_be_bytes());
        // The old field; what is noted besides has 64 bits.
        table.extend(u32::try_from(snapshot.state_size).unwrap_or(u32::MAX).to_be_bytes());
        table.extend((snapshot.extra.len() as u32).to_be_bytes());
        table.extend(&snapshot.extra);
        table.extend(snapshot.id.as_bytes());
        table.extend(snapshot.name.as_bytes());
    }
    table
}

/// Puts the table of `snapshots` in place of the one that takes `old` bytes.
fn replace_table<F: ImageFile>(editor: &mut Editor<F>, snapshots: &[Snapshot], old: u64) -> Result<(), SnapshotError> {
    if old > 0 {
        editor.add_all(editor.fields().snapshots_offset, old, false)?;
    }
    let bytes = table_bytes(snapshots);
    let number = u32::try_from(snapshots.len()).map_err(|_| SnapshotError::Full)?;
    if number > MOST_SNAPSHOTS || bytes.len() as u64 > MOST_TABLE_BYTES {
        return Err(SnapshotError::Unsupported("the image has too many snapshots"));
    }
    let offset = if bytes.is_empty() { 0 } else { editor.store(&bytes)? };
    let fields = editor.fields_mut();
    fields.snapshots = number;
    fields.snapshots_offset = offset;
    Ok(())
}

/// Reads the disk through the table of tables `l1` from now on, in place of the one that it is read through.
fn replace_active<F: ImageFile>(editor: &mut Editor<F>, mut l1: Vec<u64>) -> Result<(), SnapshotError> {
    let (offset, entries) = (editor.fields().l1_offset, editor.fields().l1_entries);
    if entries > 0 {
        editor.add_all(offset, entries * 8, false)?;
    }
    editor.settle(&mut l1)?;
    let offset = editor.store_table(&l1)?;
    let fields = editor.fields_mut();
    fields.l1_offset = offset;
    fields.l1_entries = l1.len() as u64;
    Ok(())
}

/// The part of a table of tables that is the disk's, of `size` bytes, in full; and what is behind it.
fn split(fields: &Fields, mut l1: Vec<u64>, size: u64) -> Result<(Vec<u64>, Vec<u64>), SnapshotError> {
    // At least one, as a table is somewhere.
    let entries = fields.entries_for(size).max(1);
    if entries > MOST_L1_ENTRIES {
        return Err(SnapshotError::Damaged("its size cannot be"));
    }
    let entries = entries as usize;
    let behind = if l1.len() > entries { l1.split_off(entries) } else { Vec::new() };
    l1.resize(entries, 0);
    Ok((l1, behind))
}

fn active<F: ImageFile>(editor: &Editor<F>) -> Result<Vec<u64>, SnapshotError> {
    editor.read_l1(editor.fields().l1_offset, editor.fields().l1_entries)
}

/// A snapshot that is being made. The machine's state is written to it, until [`finish`](Self::finish) makes it one; if
/// that is not called the image stays as it was.
pub struct Writer<F> {
    editor: Editor<F>,
    /// The clusters of the machine's state, in order.
    clusters: Vec<u64>,
    /// What is not a whole piece yet.
    piece: Vec<u8>,
    size: u64,
}

impl<F: ImageFile> Writer<F> {
    /// Begins a snapshot of the image in `file`, which nobody changes meanwhile.
    ///
    /// # Errors
    /// The image is damaged, or has features that do not go with snapshots.
    pub fn new(file: F) -> Result<Self, SnapshotError> {
        Ok(Self { editor: Editor::new(file)?, clusters: Vec::new(), piece: Vec::new(), size: 0 })
    }

    fn write_piece(&mut self) -> Result<(), SnapshotError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        let (cluster, length) = (self.editor.fields().cluster(), piece.len() as u64);
        let offset = self.editor.store(&piece)?;
        self.clusters.extend((0..length.div_ceil(cluster)).map(|at| offset + at * cluster));
        self.size += length;
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }

    /// Makes the snapshot.
    ///
    /// # Errors
    /// It does not fit, or what the host says. Then the image is as it was.
    pub fn finish(mut self, new: NewSnapshot) -> Result<(), SnapshotError> {
        self.write_piece()?;
        let Self { mut editor, clusters, size: state_size, .. } = self;
        let (mut snapshots, old) = read_snapshots(editor.file(), editor.fields())?;
        let size = editor.fields().size;
        let (disk, behind) = split(editor.fields(), active(&editor)?, size)?;
        // A state of the machine that somebody left behind the disk is nobody's.
        editor.add_tree(&behind, false)?;
        editor.add_tree(&disk, true)?;
        let mut own = disk.clone();
        for clusters in clusters.chunks((editor.fields().cluster() / 8) as usize) {
            let entries: Vec<u64> = clusters.iter().map(|offset| offset | ALONE).collect();
            own.push(editor.store_table(&entries)? | ALONE);
        }
        let l1_entries = u32::try_from(own.len()).map_err(|_| SnapshotError::Full)?;
        let l1_offset = editor.store_table(&own)?;
        let id = snapshots.iter().filter_map(|other| other.id.parse::<u64>().ok()).max().unwrap_or(0);
        let NewSnapshot { name, seconds, nanoseconds, clock } = new;
        if name.len() > usize::from(u16::MAX) {
            return Err(SnapshotError::Unsupported("the name of the snapshot is too long"));
        }
        let noted = [state_size, size, NOT_COUNTED];
        snapshots.push(Snapshot {
            id: id.saturating_add(1).to_string(),
            name,
            seconds,
            nanoseconds,
            clock,
            state_size,
            disk_size: Some(size),
            instructions: None,
            l1_offset,
            l1_entries,
            extra: noted.iter().flat_map(|value| value.to_be_bytes()).collect(),
        });
        replace_table(&mut editor, &snapshots, old)?;
        replace_active(&mut editor, disk)?;
        editor.commit()
    }
}

impl<F: ImageFile> Write for Writer<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let whole = PIECE.max(self.editor.fields().cluster()) as usize;
        let taken = data.len().min(whole - self.piece.len());
        self.piece.extend(data.iter().take(taken));
        if self.piece.len() == whole {
            self.write_piece().map_err(|error| match error {
                SnapshotError::Io(error) => error,
                other => io::Error::other(other),
            })?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn position(snapshots: &[Snapshot], id: &str) -> Result<usize, SnapshotError> {
    snapshots.iter().position(|snapshot| snapshot.id == id).ok_or(SnapshotError::NoSnapshot)
}

/// Goes back to the snapshot with number `id`, of the image in `file`, which nobody changes meanwhile.
///
/// # Errors
/// There is none, or the image is damaged. Then the image is as it was.
pub fn go_back(file: impl ImageFile, id: &str) -> Result<(), SnapshotError> {
    let mut editor = Editor::new(file)?;
    let (snapshots, _) = read_snapshots(editor.file(), editor.fields())?;
    let at = position(&snapshots, id)?;
    let snapshot = snapshots.get(at).ok_or(SnapshotError::NoSnapshot)?;
    let l1 = editor.read_l1(snapshot.l1_offset, snapshot.l1_entries.into())?;
    let size = snapshot.disk_size.unwrap_or(editor.fields().size);
    let (disk, _) = split(editor.fields(), l1, size)?;
    let before = active(&editor)?;
    editor.add_tree(&disk, true)?;
    editor.add_tree(&before, false)?;
    editor.fields_mut().size = size;
    replace_active(&mut editor, disk)?;
    editor.commit()
}

/// Deletes the snapshot with number `id` of the image in `file`, which nobody changes meanwhile.
///
/// # Errors
/// There is none, or the image is damaged. Then the image is as it was.
pub fn delete(file: impl ImageFile, id: &str) -> Result<(), SnapshotError> {
    let mut editor = Editor::new(file)?;
    let (mut snapshots, old) = read_snapshots(editor.file(), editor.fields())?;
    let snapshot = snapshots.remove(position(&snapshots, id)?);
    let (offset, entries) = (snapshot.l1_offset, u64::from(snapshot.l1_entries));
    let l1 = editor.read_l1(offset, entries)?;
    editor.add_tree(&l1, false)?;
    editor.add_all(offset, entries * 8, false)?;
    replace_table(&mut editor, &snapshots, old)?;
    let disk = active(&editor)?;
    replace_active(&mut editor, disk)?;
    editor.commit()
}

/// The state of the machine in a snapshot, read from its beginning to its end.
pub struct Reader<F> {
    file: F,
    fields: Fields,
    /// The tables with its clusters.
    l1: Vec<u64>,
    /// The one that was read last, and its number.
    l2: Option<(u64, Vec<u64>)>,
    at: u64,
    size: u64,
}

impl<F: ImageFile> Reader<F> {
    /// The state in the snapshot with number `id` of the image in `file`.
    ///
    /// # Errors
    /// There is none, or the image is damaged.
    pub fn new(file: F, id: &str) -> Result<Self, SnapshotError> {
        let fields = Fields::read(&file)?;
        let (snapshots, _) = read_snapshots(&file, &fields)?;
        let snapshot = snapshots.get(position(&snapshots, id)?).ok_or(SnapshotError::NoSnapshot)?;
        let l1 = read_l1(&file, &fields, snapshot.l1_offset, snapshot.l1_entries.into())?;
        let disk = fields.entries_for(snapshot.disk_size.unwrap_or(fields.size));
        let l1 = usize::try_from(disk).ok().and_then(|disk| l1.get(disk..)).unwrap_or_default().to_vec();
        let room = (l1.len() as u64).saturating_mul(fields.cluster() * (fields.cluster() / 8));
        if snapshot.state_size > room {
            return Err(SnapshotError::Damaged("the machine's state is not all there"));
        }
        Ok(Self { file, fields, l1, l2: None, at: 0, size: snapshot.state_size })
    }

    /// Where cluster `number` of the state is; nowhere if it is zeros.
    fn cluster(&mut self, number: u64) -> Result<Option<u64>, SnapshotError> {
        let each = self.fields.cluster() / 8;
        let (index, at) = (number / each, (number % each) as usize);
        if self.l2.as_ref().is_none_or(|(known, _)| *known != index) {
            let entry = self.l1.get(index as usize).copied().unwrap_or(0);
            if entry & OFFSET == 0 {
                return Ok(None);
            }
            self.l2 = Some((index, read_table(&self.file, &self.fields, entry & OFFSET, each)?));
        }
        let entry = self.l2.as_ref().and_then(|(_, l2)| l2.get(at)).copied().unwrap_or(0);
        if entry & 1 << 62 != 0 {
            return Err(SnapshotError::Unsupported("the machine's state is compressed"));
        }
        // Bit 0 says that a cluster is zeros, whatever is in it.
        Ok(Some(entry & OFFSET).filter(|offset| *offset != 0 && entry & 1 == 0))
    }
}

impl<F: ImageFile> Read for Reader<F> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let cluster = self.fields.cluster();
        let inside = self.at % cluster;
        let length = (data.len() as u64).min(cluster - inside).min(self.size - self.at);
        let Some(data) = data.get_mut(..length as usize) else { return Ok(0) };
        match self.cluster(self.at / cluster).map_err(io::Error::other)? {
            Some(offset) => self.file.read(offset + inside, data)?,
            None => data.fill(0),
        }
        self.at += length;
        Ok(length as usize)
    }
}
