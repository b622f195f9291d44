//! Where the bare guest has what.

/// Where it is loaded; its first instruction is there.
pub const LOAD_ADDRESS: u64 = 0x10_0000;
/// The image ends below.
pub const STACK_BOTTOM: u64 = 0x10_4000;
/// Where the stack starts to grow down from.
pub const STACK_TOP: u64 = 0x10_8000;
/// The interrupt descriptor table.
pub const IDT: u64 = STACK_TOP;
/// Variables, behind the 256 descriptors of the table.
pub const VARIABLES: u64 = IDT + 256 * 16;
/// The first byte that the guest does not use.
pub const END: u64 = VARIABLES + 0x1000;
