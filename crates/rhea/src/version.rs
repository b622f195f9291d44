//! What Rhea says it is. Clients of today judge a machine emulator by QEMU's version numbers; the package tells whose
//! program it really is.

/// The version of the interface and machines: major, minor, micro.
pub const COMPATIBLE: (i64, i64, i64) = (10, 0, 0);

/// The program's own name and version.
pub const PACKAGE: &str = concat!("rhea-", env!("CARGO_PKG_VERSION"));

/// The line of `-version` and `info version`.
pub fn text() -> String {
    let (major, minor, micro) = COMPATIBLE;
    format!("Rhea emulator version {major}.{minor}.{micro} ({PACKAGE})")
}
