//! What a board shows of itself to people.

use rhea_devices::chipset::{ioapic::IoApicV1, pic::PairV1};

/// The state of the interrupt controllers.
#[derive(Clone, Debug, PartialEq)]
pub struct InterruptControllers {
    /// The two 8259A.
    pub pic: PairV1,
    /// The I/O APIC.
    pub io_apic: IoApicV1,
}

/// What a direct start or the board has put into memory, or offers to firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedItem {
    /// What it is.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// Where it is.
    pub place: Place,
}

/// Where something is that a guest starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In RAM, at an address.
    Ram(u64),
    /// In a ROM at an address.
    Rom(u64),
    /// Nowhere yet: firmware fetches it by name.
    Offered,
}
