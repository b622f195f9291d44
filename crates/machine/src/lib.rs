//! Boards, firmware tables, direct kernel boot, virtual processor threads and run state.
