//! Guest physical memory: RAM, memory-mapped devices, and the map that decodes an address to one of them.

mod ram;
mod space;

pub use ram::{GRAIN, PAGE, PageState, Ram};
pub use space::{AddressSpace, FlatRange, FlatView, Mmio, RegionId, Target};
