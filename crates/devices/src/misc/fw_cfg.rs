//! The channel through which firmware and kernels read the configuration of their machine: numbered and named items.
//!
//! Source: the published interface of the "fw_cfg" device: a 16-bit selector at port 0x510, data at 0x511, and a DMA
//! address register at 0x514. Guests read; a few items are for them to write, by DMA, and are what they were after a reset.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use rhea_core::{AddressSpace, Device, LoadError, PortIo, PortSpace, SaveState, Width, trace};

pub use state::ChannelV1;

use crate::Saveable;

/// Numbers of well-known items.
pub mod key {
    /// "QEMU", by which guests know the device.
    pub const SIGNATURE: u16 = 0x00;
    /// A 32-bit word: bit 0 for the data port, bit 1 for DMA.
    pub const ID: u16 = 0x01;
    /// 16 bytes: the machine's UUID.
    pub const UUID: u16 = 0x02;
    /// 64-bit: bytes of RAM.
    pub const RAM_SIZE: u16 = 0x03;
    /// 16-bit: processors at start.
    pub const PROCESSORS: u16 = 0x05;
    /// 16-bit: one more than the highest APIC number that a processor may get.
    pub const MAX_PROCESSORS: u16 = 0x0f;
    /// The directory of named items.
    pub const FILE_DIRECTORY: u16 = 0x19;
    /// The first named item.
    pub const FILE_FIRST: u16 = 0x20;
}

/// The last key that a named item can have.
const FILE_LAST: u16 = 0x3fff;
/// Bytes of a name in the directory, its final zero included.
const NAME: usize = 56;
const SIGNATURE: &[u8] = b"QEMU";
/// What a read of the DMA address register returns: "QEMU CFG".
const DMA_SIGNATURE: [u32; 2] = [0x5145_4d55, 0x2043_4647];
/// How far past the end of an item one transfer may read zeros: what a guest asks for is work for the host.
const SLACK: u32 = 1 << 20;
/// Zeros that are written at once.
const ZEROS: [u8; 4096] = [0; 4096];

/// Bits of a DMA descriptor's control word.
mod control {
    /// Answer: the transfer failed.
    pub const ERROR: u32 = 1 << 0;
    /// Copy from the item.
    pub const READ: u32 = 1 << 1;
    /// Move on in the item.
    pub const SKIP: u32 = 1 << 2;
    /// First select the item whose key is in the upper half.
    pub const SELECT: u32 = 1 << 3;
    /// Copy to the item.
    pub const WRITE: u32 = 1 << 4;
}

/// Why an item was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// A name that the directory cannot hold.
    #[error("'{0}' is no name for a configuration item: it must have 1 to 55 bytes, none of them zero")]
    Name(String),
    /// Too much for the 32-bit sizes of the directory.
    #[error("configuration item '{0}' is too large")]
    TooLarge(String),
    /// No key is left.
    #[error("too many configuration items")]
    Full,
}

/// Where the guest is: the chip alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    selected: u16,
    offset: u32,
    /// Upper half of the DMA address, until the lower half starts the transfer.
    dma_high: u32,
    /// What the guest made of the items that it may write, by key.
    written: BTreeMap<u16, Vec<u8>>,
}

mod state {
    use std::collections::BTreeMap;

    use super::Channel;

    // Which items may be written, and how long they are, is looked at when the state is put back.
    saved_state!(Channel => ChannelV1 { selected: u16, offset: u32, dma_high: u32, written: BTreeMap<u16, Vec<u8>> } if |_s| true);
}

/// The items, as the board filled them in.
struct Items {
    by_key: BTreeMap<u16, Arc<[u8]>>,
    /// Names in order of their keys, from [`key::FILE_FIRST`] on.
    names: Vec<String>,
    /// Those that the guest may write.
    writable: BTreeSet<u16>,
}

impl Items {
    /// The directory: how many items, then size, key and name of each, all big-endian.
    fn directory(&self) -> Arc<[u8]> {
        let mut bytes = Vec::with_capacity(4 + self.names.len() * (8 + NAME));
        bytes.extend((self.names.len() as u32).to_be_bytes());
        for (key, name) in (key::FILE_FIRST..).zip(&self.names) {
            let size = self.by_key.get(&key).map_or(0, |item| item.len());
            bytes.extend((size as u32).to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let mut padded = [0; NAME];
            for (to, from) in padded.iter_mut().zip(name.bytes()) {
                *to = from;
            }
            bytes.extend(padded);
        }
        bytes.into()
    }
}

/// The device at its ports.
#[derive(rhea_core::object::Object)]
#[object(type = "fw_cfg_io", parent = "sys-bus-device")]
pub struct FwCfg {
    channel: Mutex<Channel>,
    items: RwLock<Items>,
    memory: Arc<AddressSpace>,
}

impl FwCfg {
    /// A device without items but its own; it copies into `memory`.
    pub fn new(memory: Arc<AddressSpace>) -> Arc<Self> {
        let items = Items { by_key: BTreeMap::new(), names: Vec::new(), writable: BTreeSet::new() };
        let device = Self { channel: Mutex::default(), items: RwLock::new(items), memory };
        device.set(key::SIGNATURE, SIGNATURE);
        device.set(key::ID, 3_u32.to_le_bytes());
        let directory = device.items.read().directory();
        device.set(key::FILE_DIRECTORY, directory);
        Arc::new(device)
    }

    /// The files that firmware finds by name, with their sizes.
    pub fn files(&self) -> Vec<(String, usize)> {
        let items = self.items.read();
        let size = |key| items.by_key.get(&key).map_or(0, |item| item.len());
        (key::FILE_FIRST..).zip(&items.names).map(|(key, name)| (name.clone(), size(key))).collect()
    }

    /// Puts the ports 0x510, 0x511 and 0x514 to 0x51b into `ports`.
    pub fn map(self: &Arc<Self>, ports: &PortSpace) {
        ports.map(0x510, 2, Arc::new(ChannelPorts(Arc::clone(self))));
        ports.map(0x514, 8, Arc::new(DmaPorts(Arc::clone(self))));
    }

    /// Sets the item with number `key`, in place of any that it had.
    pub fn set(&self, key: u16, bytes: impl Into<Arc<[u8]>>) {
        self.items.write().by_key.insert(key, bytes.into());
    }

    /// Sets the item called `name` and says its key. An item of that name is replaced.
    ///
    /// # Errors
    /// A name that the directory cannot hold, too large an item, or too many.
    pub fn add_file(&self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<u16, ItemError> {
        let bytes = bytes.into();
        if name.is_empty() || name.len() >= NAME || name.bytes().any(|byte| byte == 0) {
            return Err(ItemError::Name(name.to_owned()));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(ItemError::TooLarge(name.to_owned()));
        }
        let mut items = self.items.write();
        let known = items.names.iter().position(|known| known == name);
        let index = known.unwrap_or(items.names.len());
        let key = (u16::try_from(index).ok())
            .and_then(|index| key::FILE_FIRST.checked_add(index))
            .filter(|key| *key <= FILE_LAST)
            .ok_or(ItemError::Full)?;
        if known.is_none() {
            items.names.push(name.to_owned());
        }
        items.by_key.insert(key, bytes);
        let directory = items.directory();
        items.by_key.insert(key::FILE_DIRECTORY, directory);
        Ok(key)
    }

    /// Sets the item called `name` as [`add_file`](Self::add_file) does, for the guest to write. It does not grow.
    ///
    /// # Errors
    /// As there.
    pub fn add_writable_file(&self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<u16, ItemError> {
        let key = self.add_file(name, bytes)?;
        self.items.write().writable.insert(key);
        Ok(key)
    }

    /// What the guest has written to the item with number `key`, with what it has left of it; nothing before it wrote.
    pub fn written(&self, key: u16) -> Option<Vec<u8>> {
        self.channel.lock().written.get(&key).cloned()
    }

    fn select(&self, key: u16) {
        trace!(FW_CFG_SELECT, "key 0x{key:04x}");
        let mut channel = self.channel.lock();
        (channel.selected, channel.offset) = (key, 0);
    }

    /// The selected item and how far the guest is in it, which moves on by `length`. Items that do not exist are empty.
    fn advance(&self, length: u32) -> (Arc<[u8]>, usize) {
        let mut channel = self.channel.lock();
        let offset = channel.offset;
        channel.offset = offset.saturating_add(length);
        let item = match channel.written.get(&channel.selected) {
            Some(written) => Arc::from(written.as_slice()),
            None => self.items.read().by_key.get(&channel.selected).map_or_else(|| Arc::from([]), Arc::clone),
        };
        (item, offset as usize)
    }

    /// Carries out the descriptor at `address`: control, length and address, big-endian.
    fn transfer(&self, address: u64) {
        let mut descriptor = [0; 16];
        self.memory.read(address, &mut descriptor);
        let descriptor = u128::from_be_bytes(descriptor);
        let (control, length, target) = ((descriptor >> 96) as u32, (descriptor >> 64) as u32, descriptor as u64);
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & control::READ != 0 {
            self.copy(target, length)
        } else if control & control::WRITE != 0 {
            self.take(target, length)
        } else {
            if control & control::SKIP != 0 {
                self.advance(length);
            }
            true
        };
        // The answer is what the guest polls, so it comes last.
        self.memory.write(address, &(if done { 0 } else { control::ERROR }).to_be_bytes());
    }

    /// Writes to the item from guest memory, all of it inside or nothing.
    fn take(&self, source: u64, length: u32) -> bool {
        let mut channel = self.channel.lock();
        let (selected, offset) = (channel.selected, channel.offset as usize);
        let items = self.items.read();
        let original = items.by_key.get(&selected).filter(|_| items.writable.contains(&selected));
        let (Some(original), Some(end)) = (original, offset.checked_add(length as usize)) else { return false };
        if end > original.len() {
            return false;
        }
        let item = channel.written.entry(selected).or_insert_with(|| original.to_vec());
        if let Some(part) = item.get_mut(offset..end) {
            self.memory.read(source, part);
        }
        channel.offset = end as u32;
        true
    }

    fn copy(&self, target: u64, length: u32) -> bool {
        let (item, offset) = self.advance(length);
        let rest = item.get(offset..).unwrap_or_default();
        let (inside, zeros) = match rest.get(..length as usize) {
            Some(inside) => (inside, 0),
            None => (rest, length - rest.len() as u32),
        };
        if zeros > SLACK || target.checked_add(length.into()).is_none() {
            return false;
        }
        self.memory.write(target, inside);
        let (mut at, end) = (target + inside.len() as u64, target + u64::from(length));
        while at < end {
            let run = (end - at).min(ZEROS.len() as u64);
            self.memory.write(at, &ZEROS[..run as usize]);
            at += run;
        }
        true
    }
}

impl Device for FwCfg {
    /// Items stay, but for what the guest made of them.
    fn reset(&self) {
        *self.channel.lock() = Channel::default();
    }
}

impl Saveable for FwCfg {
    type Chip = Channel;
    const KIND: &'static str = "fw_cfg";

    fn save(&self) -> ChannelV1 {
        self.channel.lock().save()
    }

    fn restore(&self, state: ChannelV1) -> Result<(), LoadError> {
        let channel = Channel::load(state)?;
        let items = self.items.read();
        let fits = |(key, bytes): (&u16, &Vec<u8>)| {
            items.writable.contains(key) && items.by_key.get(key).is_some_and(|item| item.len() == bytes.len())
        };
        if !channel.written.iter().all(fits) {
            return Err(LoadError::invalid("Channel", "an item that guests of this machine do not write"));
        }
        *self.channel.lock() = channel;
        Ok(())
    }
}

/// Selector and data.
struct ChannelPorts(Arc<FwCfg>);

impl PortIo for ChannelPorts {
    fn name(&self) -> &str {
        "fwcfg"
    }

    fn read(&self, _: u16, width: Width) -> u32 {
        if width != Width::Byte {
            return 0;
        }
        let (item, offset) = self.0.advance(1);
        let value = item.get(offset).copied().unwrap_or(0);
        trace!(FW_CFG_READ, "= 0x{value:x}");
        value.into()
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        if width == Width::Word && offset == 0 {
            self.0.select(value as u16);
        }
    }

    fn widest(&self) -> Width {
        Width::Word
    }
}

/// The DMA address register, big-endian; its lower half starts the transfer.
struct DmaPorts(Arc<FwCfg>);

impl PortIo for DmaPorts {
    fn name(&self) -> &str {
        "fwcfg.dma"
    }

    fn read(&self, offset: u16, width: Width) -> u32 {
        match (offset, width) {
            (0, Width::Dword) => DMA_SIGNATURE[0].swap_bytes(),
            (4, Width::Dword) => DMA_SIGNATURE[1].swap_bytes(),
            _ => 0,
        }
    }

    fn write(&self, offset: u16, width: Width, value: u32) {
        match (offset, width) {
            (0, Width::Dword) => self.0.channel.lock().dma_high = value.swap_bytes(),
            (4, Width::Dword) => {
                let high = std::mem::take(&mut self.0.channel.lock().dma_high);
                self.0.transfer(u64::from(high) << 32 | u64::from(value.swap_bytes()));
            }
            _ => {}
        }
    }

    fn widest(&self) -> Width {
        Width::Dword
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rhea_core::{Ram, memory::Target};

    use super::*;

    fn machine() -> (PortSpace, Arc<AddressSpace>, Arc<FwCfg>) {
        let (ports, memory) = (PortSpace::new(), Arc::new(AddressSpace::new()));
        let ram = Ram::new("test", 0x1_0000).unwrap();
        memory.map(0, 0x1_0000, 0, Target::Ram { ram, offset: 0, writable: true });
        let device = FwCfg::new(Arc::clone(&memory));
        device.map(&ports);
        (ports, memory, device)
    }

    fn bytes(ports: &PortSpace, key: u16, count: usize) -> Vec<u8> {
        ports.write(0x510, Width::Word, key.into());
        (0..count).map(|_| ports.read(0x511, Width::Byte) as u8).collect()
    }

    fn transfer(ports: &PortSpace, memory: &AddressSpace, control: u32, length: u32, target: u64) -> u32 {
        let descriptor = u128::from(control) << 96 | u128::from(length) << 64 | u128::from(target);
        memory.write(0x100, &descriptor.to_be_bytes());
        ports.write(0x514, Width::Dword, 0);
        ports.write(0x518, Width::Dword, 0x100_u32.swap_bytes());
        (memory.read_value(0x100, Width::Dword) as u32).swap_bytes()
    }

    #[test]
    fn guests_find_signature_and_features() {
        let (ports, ..) = machine();
        assert_eq!(bytes(&ports, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(bytes(&ports, key::ID, 4), [3, 0, 0, 0]);
        assert_eq!(bytes(&ports, 0x77, 2), [0, 0]);
        assert_eq!(ports.read(0x514, Width::Dword).to_le_bytes(), *b"QEMU");
        assert_eq!(ports.read(0x518, Width::Dword).to_le_bytes(), *b" CFG");
    }

    #[test]
    fn the_directory_lists_names_sizes_and_keys() {
        let (ports, _, device) = machine();
        assert_eq!(device.add_file("etc/e820", *b"abc"), Ok(0x20));
        assert_eq!(device.add_file("opt/x", vec![7; 300]), Ok(0x21));
        assert_eq!(device.add_file("etc/e820", *b"defg"), Ok(0x20));
        let directory = bytes(&ports, key::FILE_DIRECTORY, 4 + 2 * 64 + 1);
        assert_eq!(directory[..12], [0, 0, 0, 2, 0, 0, 0, 4, 0, 0x20, 0, 0]);
        assert_eq!(directory[12..21], *b"etc/e820\0");
        assert_eq!(directory[68..76], [0, 0, 1, 44, 0, 0x21, 0, 0]);
        assert_eq!(bytes(&ports, 0x20, 5), b"defg\0");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let (_, _, device) = machine();
        for name in ["", "a\0b", &"x".repeat(56)] {
            assert_eq!(device.add_file(name, []), Err(ItemError::Name(name.to_owned())));
        }
        assert!(device.add_file(&"x".repeat(55), []).is_ok());
    }

    #[test]
    fn dma_selects_skips_and_reads_with_zeros_behind_the_end() {
        let (ports, memory, device) = machine();
        let key = device.add_file("f", *b"0123456789").unwrap();
        let select = u32::from(key) << 16 | control::SELECT;
        memory.write(0x200, &[0xff; 16]);
        assert_eq!(transfer(&ports, &memory, select | control::SKIP, 3, 0), 0);
        assert_eq!(transfer(&ports, &memory, control::READ, 4, 0x200), 0);
        assert_eq!(transfer(&ports, &memory, control::READ, 5, 0x204), 0);
        let mut read = [0; 11];
        memory.read(0x200, &mut read);
        assert_eq!(&read, b"3456789\0\0\xff\xff");
        assert_eq!(transfer(&ports, &memory, select | control::READ, 10_000, 0x1000), 0);
        assert_eq!(memory.read_value(0x1000, Width::Word), 0x3130);
    }

    #[test]
    fn dma_that_writes_or_asks_for_too_much_fails() {
        let (ports, memory, _) = machine();
        assert_eq!(transfer(&ports, &memory, control::SELECT | control::WRITE, 4, 0x200), control::ERROR);
        assert_eq!(transfer(&ports, &memory, control::READ, u32::MAX, 0x200), control::ERROR);
        assert_eq!(transfer(&ports, &memory, control::READ, 8, u64::MAX - 3), control::ERROR);
        assert_eq!(bytes(&ports, key::SIGNATURE, 4), b"QEMU");
    }

    #[test]
    fn what_is_for_the_guest_to_write_is_written_in_place_until_a_reset() {
        let (ports, memory, device) = machine();
        let key = device.add_writable_file("etc/told", *b"0123456789").unwrap();
        let select = u32::from(key) << 16 | control::SELECT;
        memory.write(0x200, b"abcdefghijk");
        assert_eq!(device.written(key), None);
        assert_eq!(transfer(&ports, &memory, select | control::SKIP, 4, 0), 0);
        assert_eq!(transfer(&ports, &memory, control::WRITE, 3, 0x200), 0);
        assert_eq!(transfer(&ports, &memory, control::WRITE, 4, 0x200), control::ERROR);
        assert_eq!(transfer(&ports, &memory, control::WRITE, u32::MAX, 0x200), control::ERROR);
        assert_eq!(device.written(key).unwrap(), b"0123abc789");
        assert_eq!(bytes(&ports, key, 10), b"0123abc789");
        let state = device.save();
        device.reset();
        assert_eq!(bytes(&ports, key, 10), b"0123456789");
        device.restore(state.clone()).unwrap();
        assert_eq!(device.written(key).unwrap(), b"0123abc789");
        let (_, _, other) = machine();
        other.add_file("etc/told", *b"0123456789").unwrap();
        assert!(other.restore(state).is_err());
    }

    #[test]
    fn a_guest_goes_on_where_it_was_saved() {
        let (ports, _, device) = machine();
        bytes(&ports, key::SIGNATURE, 2);
        let state = device.save();
        device.reset();
        device.restore(state).unwrap();
        assert_eq!(ports.read(0x511, Width::Byte), u32::from(b'M'));
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(
            ops in prop::collection::vec((0u16..12, 0u32..3, any::<u32>(), any::<bool>()), 0..50),
            ram in prop::collection::vec(any::<u8>(), 64),
        ) {
            let (ports, memory, _) = machine();
            memory.write(0, &ram);
            for (offset, width, value, low) in ops {
                let width = Width::of(1 << width).unwrap();
                ports.read(0x510 + offset, width);
                ports.write(0x510 + offset, width, if low { value & 0x3f00_0000 } else { value });
            }
            prop_assert_eq!(bytes(&ports, key::SIGNATURE, 4), b"QEMU");
        }
    }
}
