//! Descriptors: what the global, local and interrupt descriptor tables hold. SDM vol. 3 §§ 3.4.5, 3.5, 6.11, 6.14.

use crate::{
    protection::address::attribute,
    state::{CpuState, Efer, Segment},
    trap::{Exception, Trap},
};

/// Types of system descriptors (SDM vol. 3 table 3-2).
pub(crate) mod kind {
    pub(crate) const TSS_16_AVAILABLE: u8 = 1;
    pub(crate) const LDT: u8 = 2;
    pub(crate) const TSS_16_BUSY: u8 = 3;
    pub(crate) const CALL_GATE_16: u8 = 4;
    pub(crate) const TASK_GATE: u8 = 5;
    pub(crate) const INTERRUPT_GATE_16: u8 = 6;
    pub(crate) const TRAP_GATE_16: u8 = 7;
    pub(crate) const TSS_AVAILABLE: u8 = 9;
    pub(crate) const TSS_BUSY: u8 = 11;
    /// 32-bit, or 64-bit in long mode.
    pub(crate) const CALL_GATE: u8 = 12;
    pub(crate) const INTERRUPT_GATE: u8 = 14;
    pub(crate) const TRAP_GATE: u8 = 15;
    /// Distinguishes 32-bit (and 64-bit) kinds of task state segments and gates from 16-bit ones.
    pub(crate) const WIDE: u8 = 8;
    /// Distinguishes busy task state segments from available ones.
    pub(crate) const BUSY: u8 = 2;
}

/// Makes the exception that a failed check raises, from its error code.
pub(crate) type Fault = fn(u32) -> Exception;

/// The error code that names a selector. `ext` is 1 if an event external to the program is being delivered.
pub(crate) const fn selector_code(selector: u16, ext: u32) -> u32 {
    selector as u32 & 0xfffc | ext
}

/// Whether a selector names no descriptor.
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// The requested privilege level of a selector.
pub(crate) const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Eight bytes of a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor(pub(crate) u64);

impl Descriptor {
    pub(crate) fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }

    /// The limit in bytes, inclusive.
    pub(crate) fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.has(attribute::GRANULARITY) { limit << 12 | 0xfff } else { limit }
    }

    /// As in [`Segment::attributes`].
    pub(crate) fn attributes(self) -> u16 {
        (self.0 >> 40) as u16 & 0xf0ff
    }

    pub(crate) fn has(self, bits: u16) -> bool {
        self.attributes() & bits == bits
    }

    pub(crate) fn dpl(self) -> u8 {
        (self.attributes() >> 5 & 3) as u8
    }

    pub(crate) fn is_present(self) -> bool {
        self.has(attribute::PRESENT)
    }

    /// Type of a system descriptor, see [`kind`]; `None` for code and data.
    pub(crate) fn system_kind(self) -> Option<u8> {
        (!self.has(attribute::SEGMENT)).then_some((self.attributes() & 15) as u8)
    }

    pub(crate) fn is_code(self) -> bool {
        self.has(attribute::SEGMENT | attribute::CODE)
    }

    pub(crate) fn is_conforming_code(self) -> bool {
        self.has(attribute::SEGMENT | attribute::CODE | attribute::CONFORMING)
    }

    pub(crate) fn is_data(self) -> bool {
        self.has(attribute::SEGMENT) && !self.has(attribute::CODE)
    }

    pub(crate) fn is_writable_data(self) -> bool {
        self.is_data() && self.has(attribute::WRITABLE)
    }

    pub(crate) fn is_readable(self) -> bool {
        self.is_data() || self.has(attribute::SEGMENT | attribute::CODE | attribute::READABLE)
    }

    /// A segment register loaded with this descriptor.
    pub(crate) fn segment(self, selector: u16) -> Segment {
        Segment { base: self.base(), limit: self.limit(), attributes: self.attributes(), selector }
    }
}

/// A descriptor and where it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Linear address of the descriptor.
    pub(crate) address: u64,
    pub(crate) descriptor: Descriptor,
}

/// A gate: an entry point with the privilege needed to use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate {
    pub(crate) selector: u16,
    pub(crate) offset: u64,
    pub(crate) kind: u8,
    pub(crate) dpl: u8,
    pub(crate) present: bool,
    /// The byte with a call gate's parameter count or an interrupt gate's IST number.
    pub(crate) extra: u8,
}

impl Gate {
    /// A gate of legacy mode, or the first half of a long mode one. A descriptor that is no gate has a kind that is no
    /// gate's.
    pub(crate) fn parse(raw: u64) -> Self {
        let descriptor = Descriptor(raw);
        let kind = descriptor.system_kind().unwrap_or(0);
        let high = if kind & kind::WIDE != 0 { raw >> 32 & 0xffff_0000 } else { 0 };
        Self {
            selector: (raw >> 16) as u16,
            offset: raw & 0xffff | high,
            kind,
            dpl: descriptor.dpl(),
            present: descriptor.is_present(),
            extra: (raw >> 32) as u8,
        }
    }

    /// A long mode gate, of 16 bytes.
    pub(crate) fn parse_long(low: u64, high: u64) -> Self {
        let gate = Self::parse(low);
        Self { offset: gate.offset | high << 32, ..gate }
    }
}

impl CpuState {
    /// Raises `fault` with an error code that names `selector`.
    #[cold]
    pub(crate) fn fail(&mut self, fault: Fault, selector: u16, ext: u32) -> Trap {
        self.raise(fault(selector_code(selector, ext)))
    }

    /// Finds the descriptor that a selector names. `length` is 8, or 16 for the system descriptors of long mode.
    fn find_descriptor(&mut self, selector: u16, length: u64, fault: Fault, ext: u32) -> Result<u64, Trap> {
        let last = u64::from(selector & !7) + length - 1;
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        } else if self.ldtr.has(attribute::PRESENT) {
            (self.ldtr.base, u64::from(self.ldtr.limit))
        } else {
            return Err(self.fail(fault, selector, ext));
        };
        if last > limit {
            return Err(self.fail(fault, selector, ext));
        }
        Ok(self.table_address(base.wrapping_add(u64::from(selector & !7))))
    }

    /// A linear address in a descriptor table or task state segment.
    pub(crate) fn table_address(&self, linear: u64) -> u64 {
        if self.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    /// Reads the descriptor that a selector names.
    ///
    /// # Errors
    /// `fault` with the selector, if it is outside of its table; a page fault.
    pub(crate) fn descriptor(&mut self, selector: u16, fault: Fault, ext: u32) -> Result<Entry, Trap> {
        let address = self.find_descriptor(selector, 8, fault, ext)?;
        Ok(Entry { address, descriptor: Descriptor(self.read_system(address)?) })
    }

    /// The upper half of a long mode system descriptor, whose lower half was read already.
    ///
    /// # Errors
    /// As [`descriptor`](Self::descriptor).
    pub(crate) fn descriptor_high(&mut self, selector: u16, fault: Fault, ext: u32) -> Result<u64, Trap> {
        let address = self.find_descriptor(selector, 16, fault, ext)?;
        self.read_system(address.wrapping_add(8))
    }

    /// The register form of a system descriptor (LDT or TSS), read whole where it has 16 bytes.
    ///
    /// # Errors
    /// `fault` with the selector, if its base is not canonical; as [`descriptor`](Self::descriptor).
    pub(crate) fn system_segment(
        &mut self,
        entry: &Entry,
        selector: u16,
        fault: Fault,
        ext: u32,
    ) -> Result<Segment, Trap> {
        let mut segment = entry.descriptor.segment(selector);
        if self.long_mode() {
            segment.base |= self.descriptor_high(selector, fault, ext)? << 32;
            if !self.is_canonical(segment.base) {
                return Err(self.fail(fault, selector, ext));
            }
        }
        Ok(segment)
    }

    /// Sets the accessed bit of a code or data descriptor, in its table and in `entry`.
    ///
    /// # Errors
    /// A page fault.
    pub(crate) fn mark_accessed(&mut self, entry: &mut Entry) -> Result<(), Trap> {
        if !entry.descriptor.has(attribute::ACCESSED) {
            entry.descriptor.0 |= u64::from(attribute::ACCESSED) << 40;
            self.write_system(entry.address.wrapping_add(5), entry.descriptor.attributes() as u8)?;
        }
        Ok(())
    }

    /// Sets or clears the busy bit of a task state segment's descriptor at linear address `address`.
    ///
    /// # Errors
    /// A page fault.
    pub(crate) fn mark_busy(&mut self, address: u64, busy: bool) -> Result<(), Trap> {
        let address = address.wrapping_add(5);
        let old = self.read_system::<u8>(address)?;
        self.write_system(address, if busy { old | kind::BUSY } else { old & !kind::BUSY })
    }

    /// Whether code of this descriptor runs as 64-bit code.
    pub(crate) fn is_long_code(&self, descriptor: Descriptor) -> bool {
        self.efer & Efer::LMA.bits() != 0 && descriptor.has(attribute::LONG)
    }

    /// Checks that execution may go on at `offset` of a code segment.
    ///
    /// # Errors
    /// #GP(`ext`).
    pub(crate) fn check_target(&mut self, code: Descriptor, offset: u64, ext: u32) -> Result<(), Trap> {
        let allowed =
            if self.is_long_code(code) { self.is_canonical(offset) } else { offset <= u64::from(code.limit()) };
        if allowed { Ok(()) } else { Err(self.raise(Exception::general_protection(ext))) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Descriptor, Gate, kind};

    #[test]
    fn flat_code_descriptor_has_its_fields_taken_apart() {
        let descriptor = Descriptor(0x12cf_9b34_5678_ffff);
        assert_eq!(descriptor.base(), 0x1234_5678);
        assert_eq!(descriptor.limit(), 0xffff_ffff);
        assert_eq!(descriptor.attributes(), 0xc09b);
        assert!(descriptor.is_code() && descriptor.is_readable() && descriptor.is_present());
        assert!(!descriptor.is_conforming_code() && !descriptor.is_data());
        assert_eq!(descriptor.system_kind(), None);
    }

    #[test]
    fn limit_without_granularity_counts_bytes() {
        assert_eq!(Descriptor(0x0003_9200_0000_1234).limit(), 0x3_1234);
    }

    #[test]
    fn gates_of_16_bits_ignore_the_upper_offset() {
        let gate = Gate::parse(0xdead_e601_0008_1234);
        assert_eq!((gate.offset, gate.selector, gate.kind), (0x1234, 8, kind::INTERRUPT_GATE_16));
        assert_eq!((gate.dpl, gate.present, gate.extra), (3, true, 1));
    }

    #[test]
    fn long_gates_have_offsets_of_64_bits() {
        let gate = Gate::parse_long(0x8765_8e02_0010_4321, 0xffff_ffff);
        assert_eq!((gate.offset, gate.kind, gate.extra), (0xffff_ffff_8765_4321, kind::INTERRUPT_GATE, 2));
    }
}
