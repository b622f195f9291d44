//! Why there can be no SMBIOS tables.

/// Tables that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// More strings than a structure can number.
    #[error("-smbios type=11: {0} strings are more than a structure holds, which is 255")]
    Strings(usize),
    /// A string with a zero in it, which would end it.
    #[error("-smbios type={0}: a value has a zero byte in it")]
    Zero(u8),
    /// More than the old entry point reaches.
    #[error("SMBIOS tables of {0} bytes need -machine smbios-entry-point-type=64")]
    Entry(usize),
    /// More than there is room for.
    #[error("SMBIOS tables of {length} bytes are too large: there is room for {room}")]
    Large {
        /// Their length.
        length: usize,
        /// How much room there is.
        room: usize,
    },
}
