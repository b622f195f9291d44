//! The code cache: decoded blocks, found by where the host has their bytes, by RIP and by mode.

use super::{
    block::{CodePage, Decoded, Place},
    mode::Mode,
};
use crate::{access::PageWatch, op::Op};

/// Most operations kept before everything is forgotten.
const MOST_OPS: usize = 512 << 10;

/// Most blocks kept before everything is forgotten.
const MOST_BLOCKS: usize = 96 << 10;

/// Entries of the jump cache.
const JUMPS: usize = 4096;

/// No block.
const NONE: u32 = u32::MAX;

/// Number of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(u32);

/// A block that was reached from another one before.
#[derive(Clone, Copy, Debug)]
struct Link {
    rip: u64,
    /// The context in which the link holds; [`ANYWHERE`] if it leads inside a page.
    context: u64,
    block: BlockId,
}

/// The context of a link inside one page: whoever could enter the one block can enter the other.
const ANYWHERE: u64 = 0;
/// A context that never is.
const NOWHERE: u64 = 1;

impl Link {
    const UNSET: Self = Self { rip: 0, context: NOWHERE, block: BlockId(NONE) };
}

/// A decoded block.
#[derive(Debug)]
pub(super) struct Block {
    /// Where the host has its first byte.
    host: usize,
    rip: u64,
    mode: Mode,
    /// First operation.
    first: u32,
    /// Number of operations: the instructions, and what ends the block if no branch does.
    count: u16,
    /// Number of instructions.
    pub(super) instructions: u16,
    /// Bytes.
    pub(super) length: u16,
    /// Whether its successors are worth linking.
    direct: bool,
    watch: PageWatch,
    /// The second page of an instruction that crosses into it, and where the host has that.
    second: Option<Box<(PageWatch, usize)>>,
    links: [Link; 2],
}

impl Block {
    /// Whether its code was written to since it was decoded.
    #[inline(always)]
    pub(super) fn stale(&self) -> bool {
        self.watch.stale() || self.second.as_ref().is_some_and(|second| second.0.stale())
    }

    /// Where the host has its second page, if it has one.
    pub(super) fn second_page(&self) -> Option<usize> {
        self.second.as_ref().map(|second| second.1)
    }
}

/// A block that was found by its RIP before.
#[derive(Clone, Copy, Debug)]
struct Jump {
    rip: u64,
    context: u64,
    block: BlockId,
}

/// Decoded blocks of one processor.
pub(super) struct Cache {
    /// Operations of all blocks; those of one block are together.
    pub(super) ops: Vec<Op>,
    blocks: Vec<Block>,
    /// Block numbers by hash, open addressing, a power of two of them.
    table: Vec<u32>,
    jumps: Box<[Jump; JUMPS]>,
    times_forgotten: u64,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            ops: Vec::new(),
            blocks: Vec::new(),
            table: vec![NONE; 1024],
            jumps: Box::new([Jump { rip: 0, context: NOWHERE, block: BlockId(NONE) }; JUMPS]),
            times_forgotten: 0,
        }
    }

    /// How often everything was forgotten: block numbers from before mean nothing.
    pub(super) const fn times_forgotten(&self) -> u64 {
        self.times_forgotten
    }

    /// A block.
    #[inline(always)]
    pub(super) fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.0 as usize]
    }

    /// The operations of a block.
    #[inline(always)]
    pub(super) fn ops_of(&self, block: &Block) -> &[Op] {
        &self.ops[block.first as usize..][..usize::from(block.count)]
    }

    #[inline(always)]
    fn jump_index(rip: u64) -> usize {
        (rip ^ (rip >> 12)) as usize % JUMPS
    }

    /// The block at `rip` that was found there before in one of the contexts that `holds`.
    #[inline(always)]
    pub(super) fn jump(&self, rip: u64, holds: impl Fn(u64) -> bool) -> Option<(BlockId, u64)> {
        let jump = &self.jumps[Self::jump_index(rip)];
        (jump.rip == rip && holds(jump.context)).then_some((jump.block, jump.context))
    }

    /// Remembers that `rip` leads to `block` in `context`.
    pub(super) fn remember_jump(&mut self, rip: u64, context: u64, block: BlockId) {
        self.jumps[Self::jump_index(rip)] = Jump { rip, context, block };
    }

    /// The block that follows `block` at `rip`, if it did so before.
    #[inline(always)]
    pub(super) fn linked(block: &Block, rip: u64, holds: impl Fn(u64) -> bool) -> Option<BlockId> {
        for link in &block.links {
            if link.rip == rip && (link.context == ANYWHERE || holds(link.context)) {
                return Some(link.block);
            }
        }
        None
    }

    /// Remembers that `to`, at `rip`, follows `from` in `context`, if that is worth it.
    #[inline(always)]
    pub(super) fn link(&mut self, from: BlockId, rip: u64, context: u64, to: BlockId) {
        if self.block(from).direct {
            self.set_link(from, rip, context, to);
        }
    }

    #[inline(never)]
    fn set_link(&mut self, from: BlockId, rip: u64, context: u64, to: BlockId) {
        let same_page = {
            let (a, b) = (self.block(from), self.block(to));
            // Both on the page of `from`'s start as the guest and as the host see it.
            (a.rip ^ b.rip) >> 12 == 0
                && (a.host ^ b.host) >> 12 == 0
                && a.mode == b.mode
                && a.mode.contains(Mode::FLAT_CS)
                && a.second.is_none()
                && b.second.is_none()
        };
        let block = &mut self.blocks[from.0 as usize];
        let slot = usize::from(block.links[0].rip != rip && block.links[0].context != NOWHERE);
        block.links[slot] = Link { rip, context: if same_page { ANYWHERE } else { context }, block: to };
    }

    fn hash(host: usize, rip: u64, mode: Mode) -> u64 {
        (host as u64 ^ (rip >> 12).rotate_left(40) ^ u64::from(mode.bits()) << 44).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The slot of the table for a key: the one that has it, or an empty one.
    fn slot(&self, host: usize, rip: u64, mode: Mode) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = (Self::hash(host, rip, mode) >> 32) as usize & mask;
        loop {
            let id = self.table[slot];
            if id == NONE {
                return slot;
            }
            let block = &self.blocks[id as usize];
            if block.host == host && block.rip == rip && block.mode == mode {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The block for a key, if it is here and its code was not written to.
    pub(super) fn find(&self, host: usize, rip: u64, mode: Mode) -> Option<BlockId> {
        let id = self.table[self.slot(host, rip, mode)];
        (id != NONE && !self.blocks[id as usize].stale()).then_some(BlockId(id))
    }

    /// Makes room for one more block, if need be by forgetting all others.
    pub(super) fn make_room(&mut self) {
        if self.ops.len() + super::block::LONGEST >= MOST_OPS || self.blocks.len() >= MOST_BLOCKS {
            self.clear();
        }
    }

    /// Keeps a block whose operations are the last of [`ops`](Self::ops), from `first` on.
    pub(super) fn keep(&mut self, place: Place, page: CodePage, decoded: Decoded, first: usize) -> BlockId {
        let host = page.host + (place.physical & 0xfff) as usize;
        let id = BlockId(self.blocks.len() as u32);
        let slot = self.slot(host, place.rip, place.mode);
        self.blocks.push(Block {
            host,
            rip: place.rip,
            mode: place.mode,
            first: first as u32,
            count: (self.ops.len() - first) as u16,
            instructions: decoded.instructions as u16,
            length: decoded.length as u16,
            direct: decoded.direct,
            watch: page.watch,
            second: decoded.second.map(|page| Box::new((page.watch, page.host))),
            links: [Link::UNSET; 2],
        });
        // In place of a stale block with the same key, if there was one.
        self.table[slot] = id.0;
        if 2 * self.blocks.len() > self.table.len() {
            self.grow();
        }
        id
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.table);
        self.table = vec![NONE; 2 * old.len()];
        for id in old.into_iter().filter(|&id| id != NONE) {
            let block = &self.blocks[id as usize];
            let slot = self.slot(block.host, block.rip, block.mode);
            self.table[slot] = id;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.times_forgotten += 1;
        self.ops.clear();
        self.blocks.clear();
        self.table.fill(NONE);
        self.jumps.fill(Jump { rip: 0, context: NOWHERE, block: BlockId(NONE) });
    }
}
