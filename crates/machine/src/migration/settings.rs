//! What migrations go by, as far as it can be changed.

use rhea_api::migration::{MigrationCapability, ZeroPageDetection};

/// Numbers that migrations go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The most bytes a second while the machine may run; 0 for no limit.
    pub max_bandwidth: u64,
    /// Bytes a second that are counted on while the machine stands; 0 for what was measured.
    pub switchover_bandwidth: u64,
    /// Milliseconds for which the machine may stand.
    pub downtime_limit: u64,
    /// Who looks for zeros.
    pub zero_pages: ZeroPageDetection,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_bandwidth: 128 << 20,
            switchover_bandwidth: 0,
            downtime_limit: 300,
            zero_pages: ZeroPageDetection::Multifd,
        }
    }
}

/// What a migration can be asked to do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Say what happens.
    Events,
    /// Wait while the machine stands.
    PauseBeforeSwitchover,
    /// Take disks only when the machine goes on.
    LateBlockActivate,
}

impl Capability {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Events, Self::PauseBeforeSwitchover, Self::LateBlockActivate];

    /// Its name.
    pub const fn name(self) -> MigrationCapability {
        match self {
            Self::Events => MigrationCapability::Events,
            Self::PauseBeforeSwitchover => MigrationCapability::PauseBeforeSwitchover,
            Self::LateBlockActivate => MigrationCapability::LateBlockActivate,
        }
    }

    /// The one of that name, if it is there.
    pub fn named(name: MigrationCapability) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}
