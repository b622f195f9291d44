//! Debug consoles: a port whose every written byte is text for the host.
