//! Guest physical memory: RAM, memory-mapped devices, and the map that decodes an address to one of them.

mod dirty;
mod guest;
mod lost;
mod mapping;
mod ram;
mod sleepers;
mod space;
pub mod transfer;

pub use dirty::{Bitmap, Follower};
pub use guest::{Dma, GuestRam, RamRegion, WriteLog, WriteLogSlice};
pub use lost::say_when_memory_is_gone;
pub use mapping::{MAX_HOST_NODES, MapOptions, Placement, Source, page_size};
pub use ram::{GRAIN, PAGE, PageState, Ram};
pub use space::{AddressSpace, FlatRange, FlatView, Mmio, Region, RegionId, Target};
pub use transfer::GuestSlice;
