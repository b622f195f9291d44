//! Ways to reset the PC, and its A20 gate: the reset control register (port 0xcf9) and system control port A (0x92).
