//! Executables in ELF, as far as who loads a kernel cares: what goes where, and where it starts.
//!
//! Source: System V Application Binary Interface, "Object Files" and "Program Loading" (cited as §).

use super::LoadError;

/// A part of the file that goes into memory; what of its `size` the file has not is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its physical address.
    pub address: u64,
    /// Its bytes in the file: first one, and how many.
    pub file: (usize, usize),
    /// Bytes in memory.
    pub size: u64,
}

/// An executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Executable {
    /// Physical address of the first instruction.
    pub entry: u64,
    /// What goes into memory, in the order of the file.
    pub pieces: Vec<Piece>,
}

/// §: a segment that is loaded.
const PT_LOAD: u64 = 1;
const EM_386: u64 = 3;
const EM_X86_64: u64 = 62;

/// Where the two classes of file have what: offset and bytes.
struct Layout {
    entry: (usize, usize),
    table: (usize, usize),
    entry_size: (usize, usize),
    count: (usize, usize),
    offset: (usize, usize),
    linked: (usize, usize),
    physical: (usize, usize),
    in_file: (usize, usize),
    in_memory: (usize, usize),
    /// The least that an entry of the table is.
    least: u64,
}

const LAYOUT_32: Layout = Layout {
    entry: (24, 4),
    table: (28, 4),
    entry_size: (42, 2),
    count: (44, 2),
    offset: (4, 4),
    linked: (8, 4),
    physical: (12, 4),
    in_file: (16, 4),
    in_memory: (20, 4),
    least: 32,
};

const LAYOUT_64: Layout = Layout {
    entry: (24, 8),
    table: (32, 8),
    entry_size: (54, 2),
    count: (56, 2),
    offset: (8, 8),
    linked: (16, 8),
    physical: (24, 8),
    in_file: (32, 8),
    in_memory: (40, 8),
    least: 56,
};

fn number(bytes: &[u8], (at, size): (usize, usize)) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Whether `image` is an ELF file.
pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(b"\x7fELF")
}

/// Reads the header and the program headers of `image`.
///
/// # Errors
/// It is of another kind of machine, or says what cannot be.
pub(super) fn parse(image: &[u8]) -> Result<Executable, LoadError> {
    let bad = |reason: &str| LoadError::Kernel(reason.to_owned());
    let cut = || LoadError::Kernel("it is cut off".to_owned());
    let layout = match (is_elf(image), image.get(4), image.get(5)) {
        (true, Some(1), Some(1)) => LAYOUT_32,
        (true, Some(2), Some(1)) => LAYOUT_64,
        _ => return Err(bad("it is no little-endian ELF file")),
    };
    let machine = number(image, (18, 2)).ok_or_else(cut)?;
    if machine != EM_386 && machine != EM_X86_64 {
        return Err(bad("it is an ELF file for another kind of processor"));
    }
    let header = |field| number(image, field).ok_or_else(cut);
    let mut entry = header(layout.entry)?;
    let (table, entry_size, count) = (header(layout.table)?, header(layout.entry_size)?, header(layout.count)?);
    if entry_size < layout.least {
        return Err(bad("its program headers are too small"));
    }
    let mut pieces = Vec::new();
    let mut moved = None;
    for index in 0..count {
        let at = index.checked_mul(entry_size).and_then(|offset| offset.checked_add(table)).ok_or_else(cut)?;
        let row = usize::try_from(at).ok().and_then(|at| image.get(at..)).ok_or_else(cut)?;
        let field = |field| number(row, field).ok_or_else(cut);
        let (size, in_file) = (field(layout.in_memory)?, field(layout.in_file)?);
        if field((0, 4))? != PT_LOAD || size == 0 {
            continue;
        }
        if in_file > size {
            return Err(bad("a segment is larger in the file than in memory"));
        }
        let (offset, address, linked) = (field(layout.offset)?, field(layout.physical)?, field(layout.linked)?);
        let end = offset.checked_add(in_file).filter(|end| *end <= image.len() as u64);
        end.filter(|_| address.checked_add(size).is_some()).ok_or_else(cut)?;
        if entry.checked_sub(linked).is_some_and(|distance| distance < size) {
            // Kernels are linked for where they will be once they have turned paging on.
            moved = moved.or(Some(entry.wrapping_sub(linked).wrapping_add(address)));
        }
        pieces.push(Piece { address, file: (offset as usize, in_file as usize), size });
    }
    entry = moved.unwrap_or(entry);
    Ok(Executable { entry, pieces })
}
