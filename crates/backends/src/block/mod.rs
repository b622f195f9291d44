//! Disk images on the host: raw and qcow2 files.

mod image;

pub use image::{Format, Image, OpenError, Options};
