//! What every part of a machine stands on: time, guest memory, address spaces, ports and interrupt lines.
