//! The segments that cases run with: those that Linux gives every process, and some of an LDT of our own.
//!
//! Source: SDM vol. 3 § 3.4.5 (descriptors).

use crate::layout::{DATA, PAGE, WINDOW};

/// 32-bit code of Linux.
pub const CODE_32: u16 = 0x23;
/// Data of Linux.
pub const DATA_32: u16 = 0x2b;
/// 64-bit code of Linux.
pub const CODE_64: u16 = 0x33;
/// 16-bit code at the window.
pub const CODE_16: u16 = 0x07;
/// 16-bit data, and a 16-bit stack, at the window.
pub const DATA_16: u16 = 0x0f;
/// The two pages of data, and nothing beyond.
pub const SMALL: u16 = 0x17;
/// What lies above the first page of data, to the end of 4 GiB: it expands down.
pub const DOWN: u16 = 0x1f;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Its selector.
    pub selector: u16,
    /// Base address.
    pub base: u32,
    /// The limit as it is written: pages if the segment is granular.
    pub limit: u32,
    /// Type, S, DPL, P in the low byte; AVL, L, D/B and G in bits 12 to 15.
    pub attributes: u16,
}

/// All of them.
pub const DESCRIPTORS: [Descriptor; 7] = [
    Descriptor { selector: CODE_32, base: 0, limit: 0xf_ffff, attributes: 0xc0fb },
    Descriptor { selector: DATA_32, base: 0, limit: 0xf_ffff, attributes: 0xc0f3 },
    Descriptor { selector: CODE_64, base: 0, limit: 0xf_ffff, attributes: 0xa0fb },
    Descriptor { selector: CODE_16, base: WINDOW as u32, limit: 0xffff, attributes: 0x00fb },
    Descriptor { selector: DATA_16, base: WINDOW as u32, limit: 0xffff, attributes: 0x00f3 },
    Descriptor { selector: SMALL, base: DATA as u32, limit: 2 * PAGE as u32 - 1, attributes: 0x40f3 },
    Descriptor { selector: DOWN, base: WINDOW as u32, limit: 0x4fff, attributes: 0x40f7 },
];

/// What cases load: every selector that names something here, null ones, and some that lie beyond the tables.
pub const SELECTORS: [u16; 16] = [
    0,
    3,
    CODE_32,
    DATA_32,
    CODE_64,
    CODE_16,
    DATA_16,
    SMALL,
    DOWN,
    // Privilege levels other than 3.
    DATA_32 & !3,
    CODE_64 & !3,
    DATA_16 & !1,
    0xfff8,
    0x27 + 0x18,
    0xfffc,
    0x8b,
];

impl Descriptor {
    /// The descriptor that a selector names; none for null selectors and those that cases do not use.
    pub fn of(selector: u16) -> Option<Self> {
        DESCRIPTORS.into_iter().find(|descriptor| descriptor.selector == selector)
    }

    /// Whether it is in the LDT.
    pub const fn local(&self) -> bool {
        self.selector & 4 != 0
    }

    /// The last offset, or with `expand_down` the last one below the segment.
    pub const fn byte_limit(&self) -> u32 {
        if self.attributes & 0x8000 != 0 { self.limit << 12 | 0xfff } else { self.limit }
    }

    /// The 8 bytes in the table.
    pub const fn bits(&self) -> u64 {
        let (base, limit, attributes) = (self.base as u64, self.limit as u64, self.attributes as u64);
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | (attributes & 0xff) << 40
            | (limit >> 16 & 0xf) << 48
            | (attributes >> 12 & 0xf) << 52
            | (base >> 24) << 56
    }
}
