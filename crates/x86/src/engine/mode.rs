//! The mode word: what of the processor's state decoded code depends on.
