//! Limits as managers write them, and what they cannot be.

use super::BILLION;

/// What is limited: bytes and operations; of all, of reads and of writes.
pub const METERS: usize = 6;
const METER_NAMES: [&str; METERS] = ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];

/// All names of limits.
pub const LIMIT_NAMES: [&str; 3 * METERS + 1] = [
    "bps-total",
    "bps-total-max",
    "bps-total-max-length",
    "bps-read",
    "bps-read-max",
    "bps-read-max-length",
    "bps-write",
    "bps-write-max",
    "bps-write-max-length",
    "iops-total",
    "iops-total-max",
    "iops-total-max-length",
    "iops-read",
    "iops-read-max",
    "iops-read-max-length",
    "iops-write",
    "iops-write-max",
    "iops-write-max-length",
    "iops-size",
];

/// The largest limit.
const MOST: u64 = 1_000_000_000_000_000;

/// A limit on one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Units a second in the long run; 0 is no limit.
    pub average: u64,
    /// Units a second in a burst; 0 is no burst.
    pub max: u64,
    /// Seconds that a burst may last.
    pub length: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { average: 0, max: 0, length: 1 }
    }
}

impl Limit {
    /// Whether a burst may last longer than a second, so that it has a rate of its own.
    pub(super) const fn lasts(&self) -> bool {
        self.max > 0 && self.length > 1
    }
}

/// All limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all, of reads and of writes; then operations.
    pub meters: [Limit; METERS],
    /// Bytes that count as one operation; 0 if a request is one, however large.
    pub operation: u64,
}

/// What limits cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No limit has this name.
    #[error("Parameter '{0}' is unexpected")]
    Unknown(String),
    /// A number that is none of a limit.
    #[error("bps/iops/max values must be within [0, {MOST}]")]
    Range,
    /// A number of seconds that is none.
    #[error("{0} value must be in the range [0, {max}]", max = u32::MAX)]
    LengthRange(String),
    /// All are limited, and a part of them.
    #[error("bps/iops/max total values and read/write values cannot be used at the same time")]
    TotalAndPart,
    /// What counts as an operation, where none are counted.
    #[error("iops size requires an iops value to be set")]
    OperationAlone,
    /// A burst of nothing.
    #[error("the burst length cannot be 0")]
    NoLength,
    /// Seconds of no burst.
    #[error("burst length set without burst rate")]
    LengthAlone,
    /// A burst above no limit.
    #[error("bps_max/iops_max require corresponding bps/iops values")]
    MaxAlone,
    /// A burst that is slower than all else.
    #[error("bps_max/iops_max cannot be lower than bps/iops")]
    MaxBelow,
    /// A burst that is too long.
    #[error("burst length too high for this burst rate")]
    TooLong,
}

/// A limit's meter and which of its three numbers, by name.
fn place(name: &str) -> Option<(usize, usize)> {
    let (meter, part) = match (name.strip_suffix("-max-length"), name.strip_suffix("-max")) {
        (Some(meter), _) => (meter, 2),
        (None, Some(meter)) => (meter, 1),
        (None, None) => (name, 0),
    };
    Some((METER_NAMES.iter().position(|known| *known == meter)?, part))
}

impl Limits {
    /// Whether a meter counts writes, or reads.
    pub(super) const fn counts(meter: usize, write: bool) -> bool {
        match meter % 3 {
            0 => true,
            1 => !write,
            _ => write,
        }
    }

    /// Whether a meter counts bytes.
    pub(super) const fn counts_bytes(meter: usize) -> bool {
        meter < 3
    }

    /// How many operations, in billionths, a request of so many bytes counts as.
    pub(super) fn operations(&self, bytes: u64) -> u128 {
        let whole = (u128::from(bytes) * BILLION).checked_div(self.operation.into()).unwrap_or(0);
        whole.max(BILLION)
    }

    /// The limit `name`.
    pub fn get(&self, name: &str) -> Option<u64> {
        if name == "iops-size" {
            return Some(self.operation);
        }
        let (meter, part) = place(name)?;
        let Limit { average, max, length } = self.meters.get(meter)?;
        [average, max, length].get(part).map(|value| **value)
    }

    /// Sets the limit `name`; what they are together is checked by [`check`](Self::check).
    ///
    /// # Errors
    /// There is none of this name, or it cannot have the value.
    pub fn set(&mut self, name: &str, value: i64) -> Result<(), LimitError> {
        let unknown = || LimitError::Unknown(name.to_owned());
        let limited = u64::try_from(value).ok().filter(|value| *value <= MOST).ok_or(LimitError::Range);
        if name == "iops-size" {
            self.operation = limited?;
            return Ok(());
        }
        let (meter, part) = place(name).ok_or_else(unknown)?;
        let limit = self.meters.get_mut(meter).ok_or_else(unknown)?;
        match part {
            0 => limit.average = limited?,
            1 => limit.max = limited?,
            _ => limit.length = u32::try_from(value).map_err(|_| LimitError::LengthRange(name.to_owned()))?.into(),
        }
        Ok(())
    }

    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        self.meters.iter().any(|limit| limit.average > 0)
    }

    /// Whether they can be, together.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), LimitError> {
        let [bytes, bytes_read, bytes_written, all, reads, writes] = &self.meters;
        for (total, parts) in [(bytes, [bytes_read, bytes_written]), (all, [reads, writes])] {
            let both = |value: fn(&Limit) -> u64| value(total) > 0 && parts.iter().any(|part| value(part) > 0);
            if both(|limit| limit.average) || both(|limit| limit.max) {
                return Err(LimitError::TotalAndPart);
            }
        }
        if self.operation > 0 && [all, reads, writes].iter().all(|limit| limit.average == 0) {
            return Err(LimitError::OperationAlone);
        }
        for Limit { average, max, length } in self.meters {
            if length == 0 {
                return Err(LimitError::NoLength);
            }
            if length > 1 && max == 0 {
                return Err(LimitError::LengthAlone);
            }
            if max > 0 && average == 0 {
                return Err(LimitError::MaxAlone);
            }
            if max > 0 && max < average {
                return Err(LimitError::MaxBelow);
            }
            if max > MOST / length {
                return Err(LimitError::TooLong);
            }
        }
        Ok(())
    }
}
