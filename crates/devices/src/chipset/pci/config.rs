//! The configuration space of a PCI function: a standard header of type 0, base address registers and capabilities.
//!
//! Source: PCI Local Bus Specification 3.0, ch. 6 (cited as §).

use bitfield_struct::bitfield;
use rhea_core::{LoadError, Width};

/// Bytes of a configuration space.
pub const SIZE: usize = 256;
/// Base address registers of a header of type 0.
pub const BARS: usize = 6;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
/// Status register: the function wants its interrupt pin asserted (§6.2.3).
const INTERRUPT: u8 = 1 << 3;
const BAR_0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// First byte that the header does not use.
const DEVICE_SPECIFIC: u8 = 0x40;

/// Command register (§6.2.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// I/O space.
    pub io: bool,
    /// Memory space.
    pub memory: bool,
    /// Bus master.
    pub bus_master: bool,
    #[bits(3)]
    __: u8,
    /// Parity error response.
    pub parity: bool,
    __: bool,
    /// SERR# enable.
    pub serr: bool,
    __: bool,
    /// INTx disable.
    pub interrupt_disable: bool,
    #[bits(5)]
    __: u8,
}

/// What a function is, as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, subclass and programming interface from the high byte down.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor and subsystem ID.
    pub subsystem: (u16, u16),
}

/// What a base address register asks for (§6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory,
    /// Memory anywhere; takes the next register too.
    Memory64,
    /// As `Memory64`, without side effects of reads.
    Prefetchable64,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it asks for.
    pub kind: BarKind,
    /// Bytes: a power of two, at least 4 ports or 16 bytes.
    pub size: u64,
}

impl Bar {
    const fn type_bits(self) -> u32 {
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory => 0,
            BarKind::Memory64 => 4,
            BarKind::Prefetchable64 => 0xc,
        }
    }

    const fn is_64(self) -> bool {
        matches!(self.kind, BarKind::Memory64 | BarKind::Prefetchable64)
    }
}

/// A configuration space.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// Bits that the guest writes.
    writable: [u8; SIZE],
    /// Bits that the guest clears by writing ones.
    clearable: [u8; SIZE],
    bars: [Option<Bar>; BARS],
    /// Where the next capability goes.
    free: u8,
    /// Where the pointer to the next capability is.
    link: u8,
}

impl ConfigSpace {
    /// The header of a function without windows, interrupts and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            clearable: [0; SIZE],
            bars: [None; BARS],
            free: DEVICE_SPECIFIC,
            link: CAPABILITIES as u8,
        };
        let Identity { vendor, device, class, revision, subsystem } = identity;
        space.set(0x00, &vendor.to_le_bytes());
        space.set(0x02, &device.to_le_bytes());
        space.set(0x08, &(class << 8 | u32::from(revision)).to_le_bytes());
        space.set(0x2c, &subsystem.0.to_le_bytes());
        space.set(0x2e, &subsystem.1.to_le_bytes());
        let command = Command::new().with_bus_master(true).with_parity(true).with_serr(true);
        space.make_writable(COMMAND, &command.with_interrupt_disable(true).into_bits().to_le_bytes());
        // §6.2.3: the error bits of the status register.
        space.clearable[STATUS + 1] = 0xf9;
        // Cache line size and latency timer.
        space.make_writable(0x0c, &[0xff, 0xf8]);
        space
    }

    /// Sets bytes as the device itself does, whatever the guest may write. What lies past the end is dropped.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    }

    /// Lets the guest write the bits set in `mask`.
    pub fn make_writable(&mut self, offset: usize, mask: &[u8]) {
        for (to, from) in self.writable.iter_mut().skip(offset).zip(mask) {
            *to |= *from;
        }
    }

    /// Gives the function a window by base address register `index`. A size that is no power of two is rounded up; an
    /// index that there is not room for is dropped.
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64) {
        let smallest = if kind == BarKind::Io { 4 } else { 16 };
        let bar = Bar { kind, size: size.clamp(smallest, 1 << 62).next_power_of_two() };
        if index + usize::from(bar.is_64()) >= BARS {
            return;
        }
        let at = BAR_0 + 4 * index;
        let mask = !(bar.size - 1) & if kind == BarKind::Io { !3 } else { !0xf };
        self.set(at, &bar.type_bits().to_le_bytes());
        self.make_writable(at, &(mask as u32).to_le_bytes());
        if bar.is_64() {
            self.make_writable(at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        let enable = if kind == BarKind::Io { Command::new().with_io(true) } else { Command::new().with_memory(true) };
        self.make_writable(COMMAND, &enable.into_bits().to_le_bytes());
        self.bars[index] = Some(bar);
    }

    /// Gives the function interrupt pin `pin`: 1 for INTA# to 4.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.bytes[INTERRUPT_PIN] = pin;
        self.writable[INTERRUPT_LINE] = 0xff;
    }

    /// Appends a capability with `body` behind its ID and link (§6.7), of which the guest writes the bits in `writable`:
    /// where it is, or nothing if there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Option<u8> {
        let at = self.free;
        let end = (usize::from(at) + 2 + body.len()).next_multiple_of(4);
        if end > SIZE {
            return None;
        }
        self.bytes[usize::from(self.link)] = at;
        self.set(at.into(), &[id, 0]);
        self.set(usize::from(at) + 2, body);
        self.make_writable(usize::from(at) + 2, writable);
        self.bytes[STATUS] |= 0x10;
        self.link = at + 1;
        // At the very end, later capabilities find no room: their body would pass it.
        self.free = u8::try_from(end).unwrap_or(u8::MAX);
        Some(at)
    }

    /// The byte at `offset`.
    pub const fn byte(&self, offset: u8) -> u8 {
        self.bytes[offset as usize]
    }

    fn dword(&self, offset: usize) -> u32 {
        (0..4).fold(0, |value, i| value | self.bytes.get(offset + i).map_or(0, |&byte| u32::from(byte)) << (8 * i))
    }

    /// A read; past the end, zeros.
    pub fn read(&self, offset: u8, width: Width) -> u32 {
        self.dword(offset.into()) & width.ones() as u32
    }

    /// A write; past the end it is dropped.
    pub fn write(&mut self, offset: u8, width: Width, value: u32) {
        let bytes = value.to_le_bytes();
        let at = usize::from(offset);
        for (index, value) in (at..SIZE).zip(bytes).take(width.bytes()) {
            let writable = self.writable[index];
            let byte = &mut self.bytes[index];
            *byte = *byte & !writable | value & writable;
            *byte &= !(value & self.clearable[index]);
        }
    }

    /// Whether the header is that of a bridge (type 1).
    pub const fn is_bridge(&self) -> bool {
        self.bytes[0x0e] & 0x7f == 1
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        let word = |offset| self.dword(offset) as u16;
        Identity {
            vendor: word(0x00),
            device: word(0x02),
            class: self.dword(0x08) >> 8,
            revision: self.byte(0x08),
            // A bridge has no such registers.
            subsystem: if self.is_bridge() { (0, 0) } else { (word(0x2c), word(0x2e)) },
        }
    }

    /// Its interrupt pin, 1 for INTA#, and the interrupt that software noted for it; nothing if it uses no pin.
    pub fn interrupt_pin(&self) -> Option<(u8, u8)> {
        let pin = self.bytes[INTERRUPT_PIN];
        (pin != 0).then_some((pin, self.bytes[INTERRUPT_LINE]))
    }

    /// The command register.
    pub fn command(&self) -> Command {
        Command::from(self.dword(COMMAND) as u16)
    }

    /// A base address register, if the function has it.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// Says in the status register whether the function wants its pin asserted: the level that the pin has then, which
    /// is released while the command register disables it (§6.2.2).
    pub fn set_interrupt(&mut self, wanted: bool) -> bool {
        let status = &mut self.bytes[STATUS];
        *status = if wanted { *status | INTERRUPT } else { *status & !INTERRUPT };
        self.interrupt()
    }

    /// The level of the interrupt pin; to be driven after each configuration write.
    pub fn interrupt(&self) -> bool {
        self.bytes[STATUS] & INTERRUPT != 0 && !self.command().interrupt_disable()
    }

    /// Where a window is decoded: nowhere while its space is off, or while the register holds all ones to be sized.
    pub fn window(&self, index: usize) -> Option<u64> {
        let bar = self.bar(index)?;
        let low = u64::from(self.dword(BAR_0 + 4 * index));
        let (enabled, address) = match bar.kind {
            BarKind::Io => (self.command().io(), low & !3),
            BarKind::Memory => (self.command().memory(), low & !0xf),
            BarKind::Memory64 | BarKind::Prefetchable64 => {
                let high = u64::from(self.dword(BAR_0 + 4 * index + 4));
                (self.command().memory(), high << 32 | low & !0xf)
            }
        };
        let limit = match bar.kind {
            BarKind::Io => 0x1_0000,
            BarKind::Memory => 1 << 32,
            BarKind::Memory64 | BarKind::Prefetchable64 => u64::MAX,
        };
        // A window that ends at its space's last byte is what sizing leaves behind, and none that a guest places.
        let last = address.checked_add(bar.size)?;
        (enabled && address != 0 && last < limit).then_some(address)
    }

    /// All bytes, to be saved.
    pub fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Takes saved bytes: those of a function with the same header.
    ///
    /// # Errors
    /// Bytes that differ where nothing changes them.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let invalid = || LoadError::invalid("ConfigSpace", "not of this function");
        let bytes: [u8; SIZE] = bytes.try_into().map_err(|_| invalid())?;
        // What the device itself changes stands in bits that the guest can at least clear.
        let own = |i: usize| if i == STATUS { INTERRUPT } else { 0 };
        let fixed = |i: usize| !(self.writable[i] | self.clearable[i] | own(i));
        if (0..SIZE).any(|i| (bytes[i] ^ self.bytes[i]) & fixed(i) != 0) {
            return Err(invalid());
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1000, class: 0x02_0000, revision: 1, subsystem: (0x1af4, 1) };
        let mut space = ConfigSpace::new(identity);
        space.add_bar(0, BarKind::Io, 0x20);
        space.add_bar(1, BarKind::Memory, 0x1000);
        space.add_bar(4, BarKind::Prefetchable64, 1 << 33);
        space.set_interrupt_pin(1);
        space
    }

    #[test]
    fn the_header_says_who_it_is_and_keeps_that() {
        let mut space = space();
        space.write(0, Width::Dword, u32::MAX);
        space.write(8, Width::Dword, u32::MAX);
        assert_eq!(space.read(0, Width::Dword), 0x1000_1af4);
        assert_eq!(space.read(8, Width::Dword), 0x0200_0001);
        assert_eq!(space.read(0x2c, Width::Dword), 0x0001_1af4);
        space.write(0x3c, Width::Word, 0x0a0b);
        assert_eq!(space.read(0x3c, Width::Word), 0x010b);
    }

    #[test]
    fn ones_written_to_a_base_address_register_read_back_as_its_size() {
        let mut space = space();
        for offset in (0x10..0x28).step_by(4) {
            space.write(offset, Width::Dword, u32::MAX);
        }
        let sizes: Vec<_> = (0x10..0x28).step_by(4).map(|offset| space.read(offset, Width::Dword)).collect();
        assert_eq!(sizes, [0xffff_ffe1, 0xffff_f000, 0, 0, 0x0000_000c, 0xffff_fffe]);
    }

    #[test]
    fn a_window_is_decoded_while_its_space_is_on() {
        let mut space = space();
        space.write(0x10, Width::Dword, 0xc000);
        space.write(0x14, Width::Dword, 0xfebf_1000);
        space.write(0x24, Width::Dword, 0x12);
        assert_eq!((space.window(0), space.window(1)), (None, None));
        space.write(4, Width::Word, 1);
        assert_eq!((space.window(0), space.window(1)), (Some(0xc000), None));
        space.write(4, Width::Word, 2);
        assert_eq!(
            (space.window(0), space.window(1), space.window(4)),
            (None, Some(0xfebf_1000), Some(0x12_0000_0000))
        );
        space.write(0x14, Width::Dword, u32::MAX);
        assert_eq!(space.window(1), None);
    }

    #[test]
    fn the_pin_follows_the_wish_unless_it_is_disabled() {
        let mut space = space();
        assert!(space.set_interrupt(true));
        space.write(4, Width::Word, 0x400);
        assert!(!space.interrupt());
        assert_eq!(space.read(6, Width::Byte), 8);
        let saved = space.save();
        assert!(!space.set_interrupt(false));
        space.restore(&saved).unwrap();
        space.write(4, Width::Word, 0);
        assert!(space.interrupt());
    }

    #[test]
    fn errors_are_cleared_by_ones_alone() {
        let mut space = space();
        space.set(7, &[0xa2]);
        space.write(6, Width::Word, 0x8fff);
        assert_eq!(space.read(6, Width::Word), 0x2200);
    }

    #[test]
    fn capabilities_are_a_list_from_the_header_on() {
        let mut space = space();
        assert_eq!(space.add_capability(0x05, &[0; 12], &[0x71]), Some(0x40));
        assert_eq!(space.add_capability(0x11, &[0; 10], &[]), Some(0x50));
        assert_eq!(space.add_capability(0x09, &[0; 200], &[]), None);
        assert_eq!(space.read(6, Width::Word) & 0x10, 0x10);
        assert_eq!((space.byte(0x34), space.byte(0x41), space.byte(0x51)), (0x40, 0x50, 0));
        space.write(0x42, Width::Byte, 0xff);
        assert_eq!(space.byte(0x42), 0x71);
    }

    #[test]
    fn saved_bytes_of_another_function_are_refused() {
        let mut space = space();
        space.write(4, Width::Word, 3);
        let saved = space.save();
        let mut other = space.clone();
        other.write(4, Width::Word, 0);
        other.restore(&saved).unwrap();
        assert_eq!(other, space);
        let mut bytes = saved;
        bytes[0] ^= 1;
        assert!(other.restore(&bytes).is_err());
        assert!(other.restore(&bytes[1..]).is_err());
    }

    proptest! {
        #[test]
        fn any_write_is_harmless(ops in prop::collection::vec((any::<u8>(), 0u32..3, any::<u32>()), 0..100)) {
            let mut space = space();
            for (offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                space.write(offset, width, value);
                space.read(offset, width);
                (0..8).for_each(|index| { space.window(index); });
            }
            let saved = space.save();
            space.restore(&saved).unwrap();
        }
    }
}
