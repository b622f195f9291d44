//! Small bare guests of our own, assembled from Rust.
