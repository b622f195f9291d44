//! System instructions: privilege, reserved bits, and what changes with them.
