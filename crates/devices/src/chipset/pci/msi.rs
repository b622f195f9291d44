//! Message signalled interrupts: a function's MSI capability, and its MSI-X capability with table and pending bits.
//!
//! Source: PCI Local Bus Specification 3.0 §6.8 (cited as §).

use rhea_core::{AddressSpace, Mmio, Width, memory::Target};
use std::sync::Arc;

use super::{BarKind, ConfigSpace};
use crate::chipset::lapic::ApicBus;

/// Capability ID of MSI.
const MSI: u8 = 0x05;
/// Capability ID of MSI-X.
const MSI_X: u8 = 0x11;
/// Bytes of an entry of the MSI-X table.
const ENTRY: u64 = 16;
/// Most vectors of MSI-X (§6.8.2.3).
const MOST_VECTORS: u16 = 2048;
/// Where writes are interrupts: 1 MiB from here.
pub const MESSAGE_ADDRESS: u64 = 0xfee0_0000;
/// How much of it.
const MESSAGE_SPACE: u64 = 1 << 20;

/// An interrupt as a function sends it: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// Takes the messages of functions.
pub trait MessageSink: Send + Sync {
    /// Delivers one.
    fn send(&self, message: Message);
}

impl MessageSink for ApicBus {
    fn send(&self, message: Message) {
        self.send_msi(message.address, message.data);
    }
}

/// Makes writes to the message addresses interrupts, whoever writes.
pub fn map_message_space(memory: &AddressSpace, sink: Arc<dyn MessageSink>) {
    memory.map(MESSAGE_ADDRESS, MESSAGE_SPACE, 1, Target::Mmio(Arc::new(MessageSpace(sink))));
}

struct MessageSpace(Arc<dyn MessageSink>);

impl Mmio for MessageSpace {
    fn name(&self) -> &str {
        "apic-msi"
    }

    fn read(&self, _: u64, width: Width) -> u64 {
        width.ones()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        // §6.8.3: a message is a dword; its upper half is zero, so that a word will do.
        if width != Width::Byte && offset.is_multiple_of(4) {
            self.0.send(Message { address: MESSAGE_ADDRESS + offset, data: value as u32 });
        }
    }
}

/// An MSI capability with a 64-bit address and no masks; its registers are in the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    at: u8,
}

impl Msi {
    /// Gives the function an MSI capability for `vectors` (a power of two up to 32), if there is room.
    pub fn add(config: &mut ConfigSpace, vectors: u8) -> Option<Self> {
        let capable = vectors.clamp(1, 32).next_power_of_two().trailing_zeros() as u8;
        // Message control (§6.8.1.3): 64-bit address; the guest enables it and chooses how many vectors it gives.
        let mut body = [0; 12];
        body[0] = 0x80 | capable << 1;
        let at = config.add_capability(
            MSI,
            &body,
            &[0x71, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        )?;
        Some(Self { at })
    }

    /// Whether the guest uses it; the interrupt pin is silent then.
    pub fn enabled(self, config: &ConfigSpace) -> bool {
        config.byte(self.at + 2) & 1 != 0
    }

    /// The message for `vector`, with as many vectors as the guest gave; none while it is disabled.
    pub fn message(self, config: &ConfigSpace, vector: u32) -> Option<Message> {
        let control = config.byte(self.at + 2);
        let given = 1_u32 << (control >> 4 & 7).min(control >> 1 & 7);
        let dword = |offset| config.read(self.at + offset, Width::Dword);
        let data = dword(12) & 0xffff;
        (control & 1 != 0).then(|| Message {
            address: u64::from(dword(8)) << 32 | u64::from(dword(4)),
            data: data & !(given - 1) | vector & (given - 1),
        })
    }
}

/// An entry of the MSI-X table (§6.8.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
}

impl Default for Entry {
    fn default() -> Self {
        Self { address: 0, data: 0, masked: true }
    }
}

/// MSI-X: the table and the pending bits. Whether it is enabled is said in the configuration space.
#[derive(Clone, Debug, PartialEq)]
pub struct MsiX {
    entries: Vec<Entry>,
    pending: Vec<bool>,
    at: u8,
}

/// Saved form of [`MsiX`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MsiXV1 {
    entries: Vec<Entry>,
    pending: Vec<bool>,
}

/// Bytes of the window that [`MsiX::add`] asks for: the table in the first half, the pending bits in the second.
fn window(vectors: u16) -> u64 {
    (2 * ENTRY * u64::from(vectors)).next_power_of_two().max(0x1000)
}

impl MsiX {
    /// Gives the function MSI-X with `vectors`, whose table is in a window by base address register `bar`; nothing if
    /// there is no room for the capability.
    pub fn add(config: &mut ConfigSpace, bar: u8, vectors: u16) -> Option<Self> {
        let vectors = vectors.clamp(1, MOST_VECTORS);
        let size = window(vectors);
        let mut body = Vec::from((vectors - 1).to_le_bytes());
        body.extend(u32::from(bar).to_le_bytes());
        body.extend(((size as u32 / 2) | u32::from(bar)).to_le_bytes());
        // Message control (§6.8.2.3): enable and function mask.
        let at = config.add_capability(MSI_X, &body, &[0, 0xc0])?;
        config.add_bar(bar.into(), BarKind::Memory, size);
        Some(Self { entries: vec![Entry::default(); vectors.into()], pending: vec![false; vectors.into()], at })
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Whether the guest uses it; the interrupt pin is silent then.
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        config.byte(self.at + 3) & 0x80 != 0
    }

    fn silent(&self, config: &ConfigSpace) -> bool {
        // Enabled, and not masked as a whole.
        config.byte(self.at + 3) & 0xc0 != 0x80
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.entries.fill(Entry::default());
        self.pending.fill(false);
    }

    /// A read in the window.
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        let half = window(self.vectors()) / 2;
        let word = |offset: u64| {
            if offset >= half {
                let first = (offset - half) as usize * 8;
                let bits = self.pending.iter().skip(first).take(64).enumerate();
                return bits.fold(0, |word, (bit, &pending)| word | u64::from(pending) << bit);
            }
            let Some(entry) = self.entries.get((offset / ENTRY) as usize) else { return 0 };
            match offset % ENTRY {
                0 => entry.address,
                _ => u64::from(entry.masked) << 32 | u64::from(entry.data),
            }
        };
        // Aligned accesses do not cross a qword; of others the part past it reads as zero.
        word(offset & !7) >> (8 * (offset & 7)) & width.ones()
    }

    /// A write in the window: the message that was pending on the entry, if it is no longer masked.
    pub fn write(&mut self, config: &ConfigSpace, offset: u64, width: Width, value: u64) -> Option<Message> {
        // §6.8.2: dwords and qwords only.
        let bytes = width.bytes() as u64;
        if width < Width::Dword || !offset.is_multiple_of(bytes) {
            return None;
        }
        let index = (offset / ENTRY) as usize;
        let entry = self.entries.get_mut(index)?;
        for (part, value) in [value as u32, (value >> 32) as u32].into_iter().take(width.bytes() / 4).enumerate() {
            match offset % ENTRY / 4 + part as u64 {
                0 => entry.address = entry.address & !0xffff_ffff | u64::from(value & !3),
                1 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
                2 => entry.data = value,
                _ => entry.masked = value & 1 != 0,
            }
        }
        let pending = *self.pending.get(index)?;
        if pending { self.notify(config, index as u16) } else { None }
    }

    /// The function interrupts on `vector`: the message to send, or nothing if it is masked and so made pending.
    pub fn notify(&mut self, config: &ConfigSpace, vector: u16) -> Option<Message> {
        let silent = self.silent(config);
        let entry = self.entries.get(usize::from(vector))?;
        let pending = self.pending.get_mut(usize::from(vector))?;
        *pending = silent || entry.masked;
        (!*pending).then_some(Message { address: entry.address, data: entry.data })
    }

    /// What became free to be sent; to be called after each configuration write.
    pub fn release(&mut self, config: &ConfigSpace) -> Vec<Message> {
        if !self.enabled(config) {
            // §6.8.2: nothing is kept for a function that does not use its table.
            self.pending.fill(false);
        }
        if self.silent(config) || !self.pending.contains(&true) {
            return Vec::new();
        }
        let pending: Vec<u16> = (0..self.vectors()).filter(|&vector| self.pending[usize::from(vector)]).collect();
        pending.into_iter().filter_map(|vector| self.notify(config, vector)).collect()
    }

    /// Table and pending bits.
    pub fn save(&self) -> MsiXV1 {
        let Self { entries, pending, at: _ } = self.clone();
        MsiXV1 { entries, pending }
    }

    /// Puts saved ones back.
    ///
    /// # Errors
    /// The state of another number of vectors.
    pub fn restore(&mut self, state: MsiXV1) -> Result<(), rhea_core::LoadError> {
        let MsiXV1 { entries, pending } = state;
        let aligned = entries.iter().all(|entry| entry.address & 3 == 0);
        if entries.len() != self.entries.len() || pending.len() != self.pending.len() || !aligned {
            return Err(rhea_core::LoadError::invalid("MsiX", "not of this function"));
        }
        (self.entries, self.pending) = (entries, pending);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::{super::Identity, *};

    fn config() -> ConfigSpace {
        ConfigSpace::new(Identity { vendor: 1, device: 2, class: 0xff_0000, revision: 0, subsystem: (0, 0) })
    }

    #[test]
    fn msi_sends_as_many_vectors_as_it_was_given() {
        let mut config = config();
        let msi = Msi::add(&mut config, 4).unwrap();
        assert_eq!(config.read(0x40, Width::Dword), 0x0084_0005);
        config.write(0x44, Width::Dword, 0xfee0_1003);
        config.write(0x4c, Width::Word, 0x4133);
        assert_eq!(msi.message(&config, 1), None);
        config.write(0x42, Width::Word, 0x0001);
        assert_eq!(msi.message(&config, 1), Some(Message { address: 0xfee0_1000, data: 0x4133 }));
        config.write(0x42, Width::Word, 0x0071);
        assert_eq!(msi.message(&config, 2), Some(Message { address: 0xfee0_1000, data: 0x4132 }));
        assert!(msi.enabled(&config));
    }

    #[test]
    fn a_masked_vector_is_pending_until_it_is_unmasked() {
        let mut config = config();
        let mut msix = MsiX::add(&mut config, 1, 3).unwrap();
        assert_eq!(config.read(0x40, Width::Dword), 0x0002_0011);
        assert_eq!((config.read(0x44, Width::Dword), config.read(0x48, Width::Dword)), (1, 0x801));
        for (offset, value) in [(32, 0xfee0_0000), (36, 0), (40, 0x31)] {
            assert_eq!(msix.write(&config, offset, Width::Dword, value), None);
        }
        config.write(0x42, Width::Word, 0x8000);
        assert_eq!(msix.notify(&config, 2), None);
        assert_eq!(msix.read(0x800, Width::Qword), 4);
        let message = Some(Message { address: 0xfee0_0000, data: 0x31 });
        assert_eq!(msix.write(&config, 44, Width::Dword, 0), message);
        assert_eq!(msix.read(0x800, Width::Byte), 0);
        assert_eq!(msix.notify(&config, 2), message);
        // Masked as a whole, and let go again.
        config.write(0x42, Width::Word, 0xc000);
        assert_eq!(msix.notify(&config, 2), None);
        assert!(msix.release(&config).is_empty());
        config.write(0x42, Width::Word, 0x8000);
        assert_eq!(msix.release(&config), Vec::from_iter(message));
        assert_eq!(msix.notify(&config, 3), None);
        let state = msix.save();
        msix.reset();
        assert_eq!(msix.read(44, Width::Dword), 1);
        msix.restore(state).unwrap();
        assert_eq!(msix.read(40, Width::Qword), 0x31);
    }

    #[test]
    fn a_write_to_the_message_space_is_an_interrupt() {
        struct Sink(Mutex<Vec<Message>>);
        impl MessageSink for Sink {
            fn send(&self, message: Message) {
                self.0.lock().push(message);
            }
        }
        let (memory, sink) = (AddressSpace::new(), Arc::new(Sink(Mutex::default())));
        map_message_space(&memory, Arc::clone(&sink) as _);
        memory.write_value(0xfee0_3000, Width::Dword, 0x41);
        memory.write_value(0xfee0_3000, Width::Byte, 0x42);
        memory.write(0xfee0_3000, &[1, 2, 3, 4]);
        assert_eq!(*sink.0.lock(), [Message { address: 0xfee0_3000, data: 0x41 }]);
        assert_eq!(memory.read_value(0xfee0_3000, Width::Word), 0xffff);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(ops in prop::collection::vec((0u64..0x2000, 0u32..4, any::<u64>()), 0..200)) {
            let mut config = config();
            let mut msix = MsiX::add(&mut config, 1, 70).unwrap();
            config.write(0x42, Width::Word, 0x8000);
            for (offset, width, value) in ops {
                let width = Width::of(1 << width).unwrap();
                msix.write(&config, offset, width, value);
                msix.notify(&config, value as u16);
                msix.read(offset, width);
            }
            let state = msix.save();
            let mut other = msix.clone();
            other.reset();
            other.restore(state).unwrap();
            prop_assert_eq!(other, msix);
        }
    }
}
