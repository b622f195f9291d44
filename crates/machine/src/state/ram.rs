//! Memory in a saved machine: which pages hold zeros, and what is in the others.
//!
//! A frame of pages is about one block of RAM. It holds the bytes of pages, one page after another; then runs of pages, 16
//! bytes each: the first page's number in the block (64 bits), how many they are and whether they hold zeros (0) or have
//! their bytes in the frame (1), 32 bits each; then the number of the block, as the machine lists them, and the number of
//! runs, 32 bits each. What is known last stands last, so that a page is copied once, to where it is written from. A page
//! may come again; what came last is what it holds. Every page has to come.

use std::{
    io::{Read, Write},
    ops::ControlFlow,
    sync::Arc,
};

use rhea_core::{
    Ram,
    memory::{Bitmap, PAGE, Target},
};

use super::{
    GoesOn, StateError,
    stream::{Kind, StateWriter},
};
use crate::{board::bios::AREA, hold::Hold, machine::Machine};

/// Bytes of a page.
const PAGE_BYTES: usize = PAGE as usize;
/// The most pages in a frame.
const MOST_PAGES: usize = 256;
/// The most runs in a frame.
const MOST_RUNS: usize = 1024;
/// Bytes of a run.
const RUN: usize = 16;
/// Bytes behind the runs.
const TAIL: usize = 8;

/// The blocks of RAM that `machine` has, by address: each that has a name of its own.
pub(crate) fn blocks(machine: &Machine) -> Vec<Arc<Ram>> {
    placed_blocks(machine).into_iter().map(|(_, ram)| ram).collect()
}

/// The same with the address of each, whatever of it the guest sees in the BIOS area.
pub(crate) fn placed_blocks(machine: &Machine) -> Vec<(u64, Arc<Ram>)> {
    let mut blocks: Vec<(u64, Arc<Ram>)> = Vec::new();
    for range in machine.memory().view().ranges() {
        // What shows in the BIOS area changes while the guest runs; all of it is somewhere else too.
        if let Target::Ram { ram, .. } = &range.target
            && !(AREA.0..AREA.0 + AREA.1).contains(&range.base)
            && blocks.iter().all(|(_, known)| known.name() != ram.name())
        {
            blocks.push((range.base, Arc::clone(ram)));
        }
    }
    blocks
}

/// Bytes of memory that a saved state of `blocks` holds.
pub(crate) fn total(blocks: &[Arc<Ram>]) -> u64 {
    blocks.iter().filter(|ram| ram.writable()).map(|ram| ram.len()).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Zeros,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    count: u32,
    holds: Holds,
}

/// Makes frames of pages.
pub(crate) struct PageWriter {
    payload: Vec<u8>,
    /// Pages in the payload so far.
    pages: usize,
    runs: Vec<Run>,
    /// Pages of zeros, over all frames.
    pub zeros: u64,
    /// Other pages, over all frames.
    pub others: u64,
    /// Whether to look for zeros.
    pub detect_zeros: bool,
}

impl PageWriter {
    pub(crate) fn new() -> Self {
        let payload = vec![0; MOST_PAGES * PAGE_BYTES + MOST_RUNS * RUN + TAIL];
        Self { payload, pages: 0, runs: Vec::new(), zeros: 0, others: 0, detect_zeros: true }
    }

    /// Takes pages of `ram`, which is block `block`, out of `pending` and writes them: a frame of them at the most. How many
    /// they were; none if none is left from `from` on, which moves behind them.
    ///
    /// # Errors
    /// What the host says.
    pub(crate) fn write_some<W: Write>(
        &mut self,
        writer: &mut StateWriter<W>,
        (block, ram): (usize, &Ram),
        pending: &mut Bitmap,
        from: &mut u64,
    ) -> Result<u64, StateError> {
        let mut taken = 0;
        while self.pages < MOST_PAGES {
            let start = self.pages * PAGE_BYTES;
            let Some(bytes) = self.payload.get_mut(start..start + PAGE_BYTES) else { break };
            let Some(page) = pending.take_next(*from) else { break };
            *from = page + 1;
            taken += 1;
            if !ram.read(page * PAGE, bytes) {
                continue;
            }
            let holds = if self.detect_zeros && is_zero(bytes) { Holds::Zeros } else { Holds::Bytes };
            match holds {
                Holds::Zeros => self.zeros += 1,
                Holds::Bytes => {
                    self.others += 1;
                    self.pages += 1;
                }
            }
            match self.runs.last_mut() {
                Some(run) if run.holds == holds && run.first + u64::from(run.count) == page && run.count < u32::MAX => {
                    run.count += 1;
                }
                _ => self.runs.push(Run { first: page, count: 1, holds }),
            }
            if self.runs.len() == MOST_RUNS {
                break;
            }
        }
        if !self.runs.is_empty() {
            self.flush(writer, block)?;
        }
        Ok(taken)
    }

    fn flush<W: Write>(&mut self, writer: &mut StateWriter<W>, block: usize) -> Result<(), StateError> {
        let mut at = self.pages * PAGE_BYTES;
        let mut put = |bytes: &[u8]| {
            if let Some(place) = self.payload.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
                at += bytes.len();
            }
        };
        for Run { first, count, holds } in &self.runs {
            put(&first.to_le_bytes());
            put(&count.to_le_bytes());
            put(&u32::from(*holds == Holds::Bytes).to_le_bytes());
        }
        put(&(block as u32).to_le_bytes());
        put(&(self.runs.len() as u32).to_le_bytes());
        writer.frame(Kind::Pages, self.payload.get(..at).unwrap_or(&[]))?;
        self.pages = 0;
        self.runs.clear();
        Ok(())
    }
}

/// Whether all bytes are zero; looks at many at once.
fn is_zero(bytes: &[u8]) -> bool {
    let (pieces, rest) = bytes.as_chunks::<64>();
    pieces.iter().all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Puts pages from frames into RAM.
pub(crate) struct PageReader {
    blocks: Vec<(Arc<Ram>, Bitmap)>,
}

fn wrong<T>(what: impl Into<String>) -> Result<T, StateError> {
    Err(StateError::Form(what.into()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

impl PageReader {
    pub(crate) fn new(blocks: Vec<Arc<Ram>>) -> Self {
        let blocks = blocks.into_iter().map(|ram| {
            let seen = Bitmap::none(ram.len() / PAGE);
            (ram, seen)
        });
        Self { blocks: blocks.collect() }
    }

    /// Takes what a frame holds.
    ///
    /// # Errors
    /// It is of another form, or speaks of pages that are not there.
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<(), StateError> {
        let (Some(end), Some(number), Some(runs)) = (
            payload.len().checked_sub(TAIL),
            payload.len().checked_sub(TAIL).and_then(|at| word(payload, at)),
            payload.len().checked_sub(TAIL / 2).and_then(|at| word(payload, at)),
        ) else {
            return wrong("too short for pages");
        };
        let Some(start) = (runs as usize).checked_mul(RUN).and_then(|length| end.checked_sub(length)) else {
            return wrong("more runs of pages than it holds");
        };
        let (mut bytes, table) = payload.split_at(start);
        let Some((ram, seen)) = self.blocks.get_mut(number as usize).filter(|(ram, _)| ram.writable()) else {
            return wrong(format!("pages of memory block {number}, which there is not"));
        };
        for run in table.get(..end - start).unwrap_or(&[]).chunks_exact(RUN) {
            let (Some(first), Some(count), Some(holds)) = (run.first_chunk(), word(run, 8), word(run, 12)) else {
                return wrong("a run of pages that is cut");
            };
            let (first, count) = (u64::from_le_bytes(*first), u64::from(count));
            if first.checked_add(count).is_none_or(|end| end > seen.pages()) {
                return wrong(format!("{count} pages from {first} on of memory '{}', which ends before", ram.name()));
            }
            let done = match holds {
                0 => ram.discard(first * PAGE, count * PAGE),
                1 => match bytes.split_at_checked((count * PAGE) as usize) {
                    Some((now, later)) => {
                        bytes = later;
                        ram.write(first * PAGE, now)
                    }
                    None => return wrong("fewer pages than it says"),
                },
                _ => return wrong("pages that hold neither zeros nor bytes"),
            };
            if !done {
                return wrong(format!("memory '{}' does not take its pages", ram.name()));
            }
            (first..first + count).for_each(|page| seen.insert(page));
        }
        if bytes.is_empty() { Ok(()) } else { wrong("more pages than it says") }
    }

    /// Whether all pages came.
    ///
    /// # Errors
    /// Some are missing.
    pub(crate) fn finish(&self) -> Result<(), StateError> {
        let missing = |(ram, seen): &&(Arc<Ram>, Bitmap)| ram.writable() && seen.count() < seen.pages();
        match self.blocks.iter().find(missing) {
            Some((ram, seen)) => {
                wrong(format!("{} pages of memory '{}' are missing", seen.pages() - seen.count(), ram.name()))
            }
            None => Ok(()),
        }
    }
}

impl Hold {
    /// Saves the machine, which stands, with all of its memory. `progress` is told the bytes of memory that are done, and
    /// all that there are, and may call it off.
    ///
    /// # Errors
    /// A part that cannot be saved, what the host says, or that it was called off.
    pub fn save_whole<W: Write>(
        &self,
        out: W,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<W, StateError> {
        let mut writer = StateWriter::new(out)?;
        self.write_description(&mut writer)?;
        let blocks = blocks(self.machine());
        let (mut done, total) = (0, total(&blocks));
        let mut pages = PageWriter::new();
        for (number, ram) in blocks.iter().enumerate().filter(|(_, ram)| ram.writable()) {
            let (mut pending, mut from) = (Bitmap::all(ram.len() / PAGE), 0);
            loop {
                if progress(done, total).is_break() || self.called_off() {
                    return Err(StateError::CalledOff);
                }
                match pages.write_some(&mut writer, (number, ram), &mut pending, &mut from)? {
                    0 => break,
                    count => done += count * PAGE,
                }
            }
        }
        self.write_parts(&mut writer)?;
        Ok(writer.finish()?)
    }

    /// Loads a whole saved machine into this one, which stands; how it goes on is for the caller to decide.
    ///
    /// # Errors
    /// A state that is damaged or not of this machine. The machine then keeps the state that it had, but not the memory.
    pub fn load_whole(&self, input: impl Read) -> Result<GoesOn, StateError> {
        let mut pages = PageReader::new(blocks(self.machine()));
        self.load(input, |payload| match payload {
            Some(payload) => pages.take(payload),
            None => pages.finish(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::stream::StateReader;

    fn ram(pages: u64) -> Arc<Ram> {
        Ram::new("test", pages * PAGE).unwrap()
    }

    fn written(ram: &Ram, pending: &mut Bitmap, detect_zeros: bool) -> (Vec<u8>, PageWriter) {
        let mut writer = StateWriter::new(Vec::new()).unwrap();
        let (mut pages, mut from) = (PageWriter::new(), 0);
        pages.detect_zeros = detect_zeros;
        while pages.write_some(&mut writer, (0, ram), pending, &mut from).unwrap() > 0 {}
        (writer.finish().unwrap(), pages)
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = StateReader::new(bytes).unwrap();
        let mut all = Vec::new();
        while let Some((kind, payload)) = reader.next().unwrap() {
            assert_eq!(kind, Kind::Pages);
            all.push(payload.to_vec());
        }
        all
    }

    fn contents(ram: &Ram) -> Vec<u8> {
        let mut bytes = vec![0; ram.len() as usize];
        assert!(ram.read(0, &mut bytes));
        bytes
    }

    #[test]
    fn frames_that_say_what_cannot_be_are_refused() {
        let source = ram(4);
        assert!(source.write(0, &[1; 4096]));
        let (bytes, _) = written(&source, &mut Bitmap::all(4), true);
        let payload = payloads(&bytes).remove(0);
        let fresh = || PageReader::new(vec![ram(4)]);
        fresh().take(&payload).unwrap();
        let length = payload.len();
        // The second word of a run is the upper half of a page's number.
        for (at, value) in
            [(length - 4, 3_u32), (length - 4, u32::MAX), (length - 8, 1), (4096, 4), (4100, 1), (4104, 9)]
        {
            let mut changed = payload.clone();
            changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(matches!(fresh().take(&changed), Err(StateError::Form(_))), "{at} {value}");
        }
        for cut in [0, 7, 8, 100] {
            assert!(fresh().take(&payload[..cut]).is_err());
        }
        assert!(fresh().finish().unwrap_err().to_string().contains("4 pages of memory 'test' are missing"));
    }

    proptest! {
        #[test]
        fn memory_comes_back_also_over_other_memory(
            full in prop::collection::btree_map(0_u64..700, 1_u8..=255, 0..400),
            before in prop::collection::btree_set(0_u64..700, 0..50),
            again in prop::collection::btree_set(0_u64..700, 0..50),
            detect_zeros: bool,
        ) {
            let (source, target) = (ram(700), ram(700));
            for (page, byte) in &full {
                assert!(source.write(page * PAGE + u64::from(*byte), &[*byte]));
            }
            for page in &before {
                assert!(target.write(page * PAGE, &[0xee; 4096]));
            }
            let (first, pages) = written(&source, &mut Bitmap::all(700), detect_zeros);
            prop_assert_eq!(pages.others, if detect_zeros { full.len() as u64 } else { 700 });
            prop_assert_eq!(pages.zeros + pages.others, 700);
            let mut reader = PageReader::new(vec![Arc::clone(&target)]);
            for payload in payloads(&first) {
                reader.take(&payload).unwrap();
            }
            reader.finish().unwrap();
            prop_assert!(contents(&source) == contents(&target));
            let mut changed = Bitmap::none(700);
            for page in &again {
                let value = u8::from(!full.contains_key(page));
                assert!(source.write(page * PAGE, &[value; 4096]));
                changed.insert(*page);
            }
            for payload in payloads(&written(&source, &mut changed, detect_zeros).0) {
                reader.take(&payload).unwrap();
            }
            prop_assert!(contents(&source) == contents(&target));
        }
    }
}
