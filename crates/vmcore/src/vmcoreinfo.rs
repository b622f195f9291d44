//! What a Linux kernel tells about itself for dumps: lines of names and values, in a note.
//!
//! Source: the kernel's admin guide, "VMCOREINFO". All of it is the guest's and may be anything.

use crate::{Memory, PAGE, Processor, translate};

/// Text longer than this is not taken: kernels write one page.
const MOST_TEXT: usize = 64 * 1024;
/// Notes in memory that are looked at closer, at most.
const MOST_CANDIDATES: usize = 64;
const NAME: &[u8; 11] = b"VMCOREINFO\0";
/// Bytes of a note before its content: three words and the padded name.
const NOTE_HEADER: usize = 24;
/// Where the kernel's image is linked to begin (`__START_KERNEL_map`).
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// Bytes of a field of `struct new_utsname`.
const UTS_FIELD: usize = 65;
const UTS_FIELDS: usize = 6;

/// The text of VMCOREINFO, found plausible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmcoreinfo {
    text: Vec<u8>,
}

/// Name and version of the guest's system, as `uname` gives them, in fields of 65 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtsName {
    fields: [[u8; UTS_FIELD]; UTS_FIELDS],
}

impl Vmcoreinfo {
    /// Takes text that names a release and a page size; anything else is not VMCOREINFO.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let printable = |byte: &u8| matches!(byte, b'\n' | b'\t' | b' '..=b'~');
        if text.len() > MOST_TEXT || !text.iter().all(printable) {
            return None;
        }
        let this = Self { text: text.to_vec() };
        (this.get("OSRELEASE").is_some() && this.get("PAGESIZE").is_some()).then_some(this)
    }

    /// Reads the note at `address`, which takes `size` bytes at most.
    #[must_use]
    pub fn at(memory: &dyn Memory, address: u64, size: u64) -> Option<Self> {
        let mut header = [0; NOTE_HEADER];
        memory.read(address, &mut header).ok()?;
        let length = content_length(&header)?;
        if u64::try_from(length).ok()?.checked_add(NOTE_HEADER as u64)? > size {
            return None;
        }
        let mut text = vec![0; length];
        memory.read(address.checked_add(NOTE_HEADER as u64)?, &mut text).ok()?;
        Self::from_text(&text)
    }

    /// Looks for the note in all of memory, where the guest has told nobody of it. The kernel keeps it at the start of a
    /// page. Earlier kernels may have left theirs: the one that agrees with the system's name is preferred.
    #[must_use]
    pub fn find(memory: &dyn Memory, processors: &[Processor]) -> Option<Self> {
        let pages = memory.ranges().iter().flat_map(|range| {
            let first = range.start.next_multiple_of(PAGE);
            (first..range.end).step_by(PAGE as usize)
        });
        let mut header = [0; NOTE_HEADER];
        let candidates = pages
            .filter(|&page| memory.read(page, &mut header).is_ok() && content_length(&header).is_some())
            .take(MOST_CANDIDATES)
            .filter_map(|page| Self::at(memory, page, u64::MAX));
        let mut first = None;
        for candidate in candidates {
            if candidate.running_uts(memory, processors).is_some() {
                return Some(candidate);
            }
            first.get_or_insert(candidate);
        }
        first
    }

    /// The text, as the kernel wrote it.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The value of the line `key=value`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let value = |line: &'_ [u8]| -> Option<usize> {
            line.strip_prefix(key.as_bytes())?.strip_prefix(b"=").map(<[u8]>::len)
        };
        let line = self.text.split(|&byte| byte == b'\n').find_map(|line| {
            let length = value(line)?;
            line.get(line.len().checked_sub(length)?..)
        })?;
        std::str::from_utf8(line).ok()
    }

    /// The release of the kernel.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.get("OSRELEASE")
    }

    /// The virtual address of a symbol.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.get(&format!("SYMBOL({name})"))?, 16).ok()
    }

    /// A number of the kernel's.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(&format!("NUMBER({name})"))?.parse().ok()
    }

    /// Where a member stands in its structure.
    #[must_use]
    pub fn offset(&self, member: &str) -> Option<u64> {
        self.get(&format!("OFFSET({member})"))?.parse().ok()
    }

    /// How far the kernel's image is shifted in physical memory from where its virtual addresses would have it.
    #[must_use]
    pub fn phys_base(&self, memory: &dyn Memory, processors: &[Processor]) -> Option<u64> {
        if let Some(number) = self.number("phys_base") {
            return Some(number.cast_unsigned());
        }
        // Older kernels do not say: their page tables do.
        let symbol = self.symbol("_stext")?;
        let physical = processors.iter().find_map(|processor| translate(memory, processor, symbol))?;
        Some(physical.wrapping_sub(symbol.wrapping_sub(KERNEL_MAP)))
    }

    /// The name of the system: from memory where it is found there, from what is known otherwise.
    #[must_use]
    pub fn uts(&self, memory: &dyn Memory, processors: &[Processor]) -> UtsName {
        self.running_uts(memory, processors).unwrap_or_else(|| UtsName::linux(self.release().unwrap_or_default()))
    }

    /// The kernel's own `utsname`, if it is where this says and of this release.
    fn running_uts(&self, memory: &dyn Memory, processors: &[Processor]) -> Option<UtsName> {
        let offset = self.offset("uts_namespace.name").unwrap_or_default();
        let address = self.symbol("init_uts_ns")?.checked_add(offset)?;
        let linear = self.phys_base(memory, processors).map(|base| address.wrapping_sub(KERNEL_MAP).wrapping_add(base));
        let walked = processors.iter().filter_map(|processor| translate(memory, processor, address));
        linear.into_iter().chain(walked).find_map(|physical| {
            let uts = UtsName::read(memory, physical)?;
            (uts.system() == b"Linux" && Some(uts.release()) == self.release().map(str::as_bytes)).then_some(uts)
        })
    }
}

/// The size of the content, if this begins a note of VMCOREINFO that is not too long.
fn content_length(header: &[u8; NOTE_HEADER]) -> Option<usize> {
    let (words, name) = header.split_first_chunk::<12>()?;
    let [name_size, size, kind] =
        [0, 4, 8].map(|at| words.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes));
    let size = usize::try_from(size).ok()?;
    (name_size as usize == NAME.len() && kind == 0 && name.starts_with(NAME) && (1..=MOST_TEXT).contains(&size))
        .then_some(size)
}

impl UtsName {
    /// A Linux of which no more than the release is known.
    fn linux(release: &str) -> Self {
        let mut this = Self::unknown();
        let mut set = |field: usize, text: &str| {
            if let Some(field) = this.fields.get_mut(field) {
                // The last byte stays zero.
                field.iter_mut().take(UTS_FIELD - 1).zip(text.bytes()).for_each(|(to, from)| *to = from);
            }
        };
        set(0, "Linux");
        set(2, release);
        this
    }

    /// A system of which nothing is known but its machine.
    #[must_use]
    pub fn unknown() -> Self {
        let mut fields = [[0; UTS_FIELD]; UTS_FIELDS];
        fields[4].iter_mut().zip(b"x86_64").for_each(|(to, from)| *to = *from);
        Self { fields }
    }

    fn read(memory: &dyn Memory, address: u64) -> Option<Self> {
        let mut fields = [[0; UTS_FIELD]; UTS_FIELDS];
        memory.read(address, fields.as_flattened_mut()).ok()?;
        fields.iter().all(|field| field.ends_with(&[0])).then_some(Self { fields })
    }

    /// The name of the system: "Linux".
    #[must_use]
    pub fn system(&self) -> &[u8] {
        text(&self.fields[0])
    }

    /// Its release.
    #[must_use]
    pub fn release(&self) -> &[u8] {
        text(&self.fields[2])
    }

    /// All fields: system, node, release, version, machine, domain.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.fields.as_flattened()
    }
}

/// A field up to its first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unreadable;
    use proptest::prelude::*;
    use std::ops::Range;

    const TEXT: &[u8] = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff81002000\n\
        OFFSET(uts_namespace.name)=4\nNUMBER(phys_base)=-4096\nKERNELOFFSET=1000000\n";

    struct Ram(Vec<u8>, [Range<u64>; 1]);

    impl Memory for Ram {
        fn ranges(&self) -> &[Range<u64>] {
            &self.1
        }

        fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Unreadable> {
            let start = address.checked_sub(self.1[0].start).ok_or(Unreadable(address))? as usize;
            let end = start.checked_add(into.len()).ok_or(Unreadable(address))?;
            into.copy_from_slice(self.0.get(start..end).ok_or(Unreadable(address))?);
            Ok(())
        }
    }

    fn note(text: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [11, text.len() as u32, 0] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(b"VMCOREINFO\0\0");
        note.extend_from_slice(text);
        note
    }

    fn ram() -> Ram {
        Ram(vec![0; 0x10_0000], [0x100_0000..0x110_0000])
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let information = Vmcoreinfo::from_text(TEXT).unwrap();
        assert_eq!(information.release(), Some("6.1.0-test"));
        assert_eq!(information.symbol("init_uts_ns"), Some(0xffff_ffff_8100_2000));
        assert_eq!(information.number("phys_base"), Some(-4096));
        assert_eq!(information.offset("uts_namespace.name"), Some(4));
        assert_eq!(information.get("OSREL"), None);
        assert_eq!(information.get("KERNELOFFSET"), Some("1000000"));
    }

    #[test]
    fn the_note_that_agrees_with_the_systems_name_is_found() {
        let mut ram = ram();
        let stale = note(b"OSRELEASE=5.0\nPAGESIZE=4096\n");
        ram.0[0x3000..0x3000 + stale.len()].copy_from_slice(&stale);
        assert_eq!(Vmcoreinfo::find(&ram, &[]).unwrap().release(), Some("5.0"));
        let true_one = note(TEXT);
        ram.0[0x8000..0x8000 + true_one.len()].copy_from_slice(&true_one);
        for (field, text) in [(0, "Linux"), (2, "6.1.0-test")] {
            // The symbol at 0x1002000 of the image, with the base below by a page.
            let at = 0x1004 + field * UTS_FIELD;
            ram.0[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        let found = Vmcoreinfo::find(&ram, &[]).unwrap();
        assert_eq!(found.text(), TEXT);
        assert_eq!(found.uts(&ram, &[]).release(), b"6.1.0-test");
        assert_eq!(found.phys_base(&ram, &[]), Some(0u64.wrapping_sub(4096)));
    }

    #[test]
    fn a_name_that_is_not_there_is_made_of_what_is_known() {
        let uts = Vmcoreinfo::from_text(TEXT).unwrap().uts(&ram(), &[]);
        assert_eq!((uts.system(), uts.release()), (&b"Linux"[..], &b"6.1.0-test"[..]));
        assert_eq!(uts.as_bytes().len(), 390);
    }

    #[test]
    fn notes_that_lie_about_their_size_are_not_taken() {
        let mut ram = ram();
        let mut lie = note(TEXT);
        lie[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        ram.0[..lie.len()].copy_from_slice(&lie);
        assert_eq!(Vmcoreinfo::find(&ram, &[]), None);
        let honest = note(TEXT);
        let last = ram.0.len() - 30;
        ram.0[last..].copy_from_slice(&honest[..30]);
        assert_eq!(Vmcoreinfo::at(&ram, 0x100_0000 + last as u64, u64::MAX), None);
        ram.0[..honest.len()].copy_from_slice(&honest);
        assert_eq!(Vmcoreinfo::at(&ram, 0x100_0000, 40), None);
        assert!(Vmcoreinfo::at(&ram, 0x100_0000, 4096).is_some());
        assert_eq!(Vmcoreinfo::at(&ram, u64::MAX, 4096), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..500), tail in "[ -~\n]{0,300}") {
            let mut text = text;
            text.retain(u8::is_ascii_graphic);
            text.extend_from_slice(b"\nOSRELEASE=x\nPAGESIZE=1\n");
            text.extend_from_slice(tail.as_bytes());
            let information = Vmcoreinfo::from_text(&text).unwrap();
            let ram = ram();
            assert_eq!(information.uts(&ram, &[Processor::default()]).system(), b"Linux");
            let _ = information.phys_base(&ram, &[Processor::default()]);
        }
    }
}
