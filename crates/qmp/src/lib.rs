//! The QMP protocol: framing, sessions, negotiation, errors, events and descriptor passing, for servers and clients.
