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

/// Data that is not there.
pub const ABSENT: u16 = 0x27;
/// Data that may only be read.
pub const CONSTANT: u16 = 0x2f;
/// 32-bit code that may not be read.
pub const EXECUTE_ONLY: u16 = 0x37;
/// Conforming code: Linux makes only such as is not there.
pub const CONFORMING: u16 = 0x47;

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
pub const DESCRIPTORS: [Descriptor; 11] = [
    Descriptor { selector: CODE_32, base: 0, limit: 0xf_ffff, attributes: 0xc0fb },
    Descriptor { selector: DATA_32, base: 0, limit: 0xf_ffff, attributes: 0xc0f3 },
    Descriptor { selector: CODE_64, base: 0, limit: 0xf_ffff, attributes: 0xa0fb },
    Descriptor { selector: CODE_16, base: WINDOW as u32, limit: 0xffff, attributes: 0x00fb },
    Descriptor { selector: DATA_16, base: WINDOW as u32, limit: 0xffff, attributes: 0x00f3 },
    Descriptor { selector: SMALL, base: DATA as u32, limit: 2 * PAGE as u32 - 1, attributes: 0x40f3 },
    Descriptor { selector: DOWN, base: WINDOW as u32, limit: 0x4fff, attributes: 0x40f7 },
    Descriptor { selector: ABSENT, base: WINDOW as u32, limit: 0xffff, attributes: 0x4073 },
    Descriptor { selector: CONSTANT, base: WINDOW as u32, limit: 0xffff, attributes: 0x40f1 },
    Descriptor { selector: EXECUTE_ONLY, base: 0, limit: 0xf_ffff, attributes: 0xc0f9 },
    Descriptor { selector: CONFORMING, base: 0, limit: 0xf_ffff, attributes: 0xc07f },
];

/// What cases load: every selector that names something here, null ones, some of the kernel's, and some that lie beyond
/// the tables.
pub const SELECTORS: [u16; 24] = [
    0,
    3,
    CODE_32,
    DATA_32,
    CODE_64,
    CODE_16,
    DATA_16,
    SMALL,
    DOWN,
    ABSENT,
    CONSTANT,
    EXECUTE_ONLY,
    CONFORMING,
    // Code and data of the kernel's, and its task state segment.
    0x10,
    0x1b,
    0x40,
    // Privilege levels other than 3.
    DATA_32 & !3,
    CODE_64 & !3,
    DATA_16 & !1,
    0xfff8,
    // Nothing, within the table and beyond.
    0x3f,
    CONFORMING + 8,
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
