//! Segments, privilege, interrupts and far transfers.
