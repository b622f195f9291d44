//! Guest physical memory: RAM, memory-mapped devices, and the map that decodes an address to one of them.

mod guest;
mod ram;
mod space;

pub use guest::{Dma, GuestRam, RamRegion, WriteLog, WriteLogSlice};
pub use ram::{GRAIN, PAGE, PageState, Ram};
pub use space::{AddressSpace, FlatRange, FlatView, Mmio, RegionId, Target};
