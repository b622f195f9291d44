//! Tests that need the whole program: transcripts, guest boots and third-party clients.
