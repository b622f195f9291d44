//! Rhea, a machine emulator managed over QMP.

fn main() {}
