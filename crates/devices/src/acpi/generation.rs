//! The generation identifier: 16 bytes in memory by which a guest notices that it was copied or turned back.
//!
//! Source: Microsoft, "Virtual Machine Generation ID" (cited as §).

use std::sync::Arc;

use parking_lot::Mutex;
use rhea_core::{AddressSpace, Device, LoadError, SaveState};

pub use state::IdentifierV1;

use super::hotplug::Raise;
use crate::Saveable;

/// The general-purpose event that says that the identifier is another.
pub const EVENT: u8 = 5;

/// The identifier as it lies in memory: the first three fields of the written form with their lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier {
    bytes: [u8; 16],
}

mod state {
    use super::Identifier;

    saved_state!(Identifier => IdentifierV1 { bytes: [u8; 16] } if |_s| true);
}

/// The identifier in the guest's memory.
pub struct GenerationId {
    identifier: Mutex<Identifier>,
    memory: Arc<AddressSpace>,
    address: u64,
    raise: Raise,
}

impl GenerationId {
    /// An identifier for `address` of `memory`, where a reset writes it. `raise` raises [`EVENT`].
    pub fn new(memory: Arc<AddressSpace>, address: u64, raise: Raise, bytes: [u8; 16]) -> Arc<Self> {
        Arc::new(Self { identifier: Mutex::new(Identifier { bytes }), memory, address, raise })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The identifier.
    pub fn get(&self) -> [u8; 16] {
        self.identifier.lock().bytes
    }

    /// Another identifier, of which the guest is told.
    pub fn set(&self, bytes: [u8; 16]) {
        self.change(Identifier { bytes });
        (self.raise)();
    }

    fn change(&self, to: Identifier) {
        let mut identifier = self.identifier.lock();
        *identifier = to;
        self.memory.write(self.address, &identifier.bytes);
    }
}

impl Device for GenerationId {
    fn reset(&self) {
        self.change(Identifier { bytes: self.get() });
    }
}

impl Saveable for GenerationId {
    type Chip = Identifier;
    const KIND: &'static str = "vmgenid";

    fn save(&self) -> IdentifierV1 {
        self.identifier.lock().save()
    }

    fn restore(&self, state: IdentifierV1) -> Result<(), LoadError> {
        self.change(Identifier::load(state)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rhea_core::{Ram, memory::Target};

    use super::*;

    #[test]
    fn the_guest_reads_the_identifier_and_is_told_when_it_is_another() {
        let memory = Arc::new(AddressSpace::default());
        let ram = Ram::new("ram", 4096).unwrap();
        memory.map(0x1000, 4096, 0, Target::Ram { ram, offset: 0, writable: true });
        let told = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&told);
        let raise: Raise = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let generation = GenerationId::new(Arc::clone(&memory), 0x1100, raise, [1; 16]);
        let read = || {
            let mut bytes = [0; 16];
            memory.read(generation.address(), &mut bytes);
            bytes
        };
        assert_eq!(read(), [0; 16]);
        generation.reset();
        assert_eq!((read(), told.load(Ordering::Relaxed)), ([1; 16], 0));
        let state = generation.save();
        generation.set([2; 16]);
        assert_eq!((read(), generation.get(), told.load(Ordering::Relaxed)), ([2; 16], [2; 16], 1));
        // What the guest wrote there is gone after a reset.
        memory.write(0x1100, &[9; 16]);
        generation.reset();
        assert_eq!(read(), [2; 16]);
        generation.restore(state.clone()).unwrap();
        assert_eq!((read(), generation.save()), ([1; 16], state));
    }
}
