//! What of a machine's state belongs to none of its devices: its time, how it goes on, what leaves, and what the guest has
//! asked for and nobody has done yet.

use rhea_api::run_state::{RunState, ShutdownCause};
use rhea_core::{
    Instant, LoadError, SaveError,
    object::NodeId,
    state::{Value, from_value, to_value},
};
use rhea_devices::acpi::pm::WakeCause;
use serde::{Deserialize, Serialize};

use crate::{
    inbox::{GuestRequest, SlotKind},
    machine::Machine,
};

/// What it is called.
pub(super) const KIND: &str = "machine";
/// The number of its shape.
pub(super) const VERSION: u32 = 1;
/// More devices than this cannot leave at a time, nor can more be asked for.
const MOST: usize = 4096;

/// How a machine that was loaded goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoesOn {
    /// The run state of the machine that was saved: `running` also if its guest slept.
    pub state: RunState,
}

impl GoesOn {
    /// The run state of such a machine until somebody has it go on: whose guest has ended stays that way.
    pub const fn at_rest(self) -> RunState {
        match self.state {
            RunState::Shutdown | RunState::InternalError | RunState::GuestPanicked | RunState::Prelaunch => self.state,
            _ => RunState::Paused,
        }
    }
}

/// The saved form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunV1 {
    clock: Instant,
    /// The run state's word.
    state: String,
    /// The guest sleeps, whether the machine runs or not.
    sleeps: bool,
    /// The guest may have seen its machine.
    under_way: bool,
    /// Paths of the devices that are about to leave.
    leaving: Vec<String>,
    requests: Vec<RequestV1>,
}

/// What the guest asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum RequestV1 {
    Reset(String),
    Shutdown(String),
    Suspend,
    SuspendToDisk,
    Wake(WakeV1),
    Panicked,
    Exit(u8),
    WatchdogExpired,
    Ejected(SlotV1, u32),
    Reported(SlotV1, u32, u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum WakeV1 {
    PowerButton,
    SleepButton,
    Rtc,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum SlotV1 {
    Pci,
    Cpu,
    Dimm,
}

impl RequestV1 {
    fn of(request: GuestRequest) -> Option<Self> {
        let slot = |kind| match kind {
            SlotKind::Pci => SlotV1::Pci,
            SlotKind::Cpu => SlotV1::Cpu,
            SlotKind::Dimm => SlotV1::Dimm,
        };
        Some(match request {
            GuestRequest::Reset(cause) => Self::Reset(cause.as_str().to_owned()),
            GuestRequest::Shutdown(cause) => Self::Shutdown(cause.as_str().to_owned()),
            GuestRequest::Suspend => Self::Suspend,
            GuestRequest::SuspendToDisk => Self::SuspendToDisk,
            GuestRequest::Wake(cause) => Self::Wake(match cause {
                WakeCause::PowerButton => WakeV1::PowerButton,
                WakeCause::SleepButton => WakeV1::SleepButton,
                WakeCause::Rtc => WakeV1::Rtc,
                WakeCause::Other => WakeV1::Other,
            }),
            GuestRequest::Panicked => Self::Panicked,
            GuestRequest::Exit(status) => Self::Exit(status),
            GuestRequest::WatchdogExpired => Self::WatchdogExpired,
            GuestRequest::Ejected(kind, number) => Self::Ejected(slot(kind), number),
            GuestRequest::Reported { kind, slot: number, event, status } => {
                Self::Reported(slot(kind), number, event, status)
            }
            // The host's, whose machine stays here.
            GuestRequest::Quit => return None,
        })
    }

    fn request(&self) -> Result<GuestRequest, LoadError> {
        let slot = |kind| match kind {
            SlotV1::Pci => SlotKind::Pci,
            SlotV1::Cpu => SlotKind::Cpu,
            SlotV1::Dimm => SlotKind::Dimm,
        };
        let cause = |word: &str| {
            let unknown = || LoadError::invalid(KIND, format!("'{word}', which ends no machine"));
            ShutdownCause::named(word).ok_or_else(unknown)
        };
        Ok(match *self {
            Self::Reset(ref word) => GuestRequest::Reset(cause(word)?),
            Self::Shutdown(ref word) => GuestRequest::Shutdown(cause(word)?),
            Self::Suspend => GuestRequest::Suspend,
            Self::SuspendToDisk => GuestRequest::SuspendToDisk,
            Self::Wake(cause) => GuestRequest::Wake(match cause {
                WakeV1::PowerButton => WakeCause::PowerButton,
                WakeV1::SleepButton => WakeCause::SleepButton,
                WakeV1::Rtc => WakeCause::Rtc,
                WakeV1::Other => WakeCause::Other,
            }),
            Self::Panicked => GuestRequest::Panicked,
            Self::Exit(status) => GuestRequest::Exit(status),
            Self::WatchdogExpired => GuestRequest::WatchdogExpired,
            Self::Ejected(kind, number) => GuestRequest::Ejected(slot(kind), number),
            Self::Reported(kind, number, event, status) => {
                GuestRequest::Reported { kind: slot(kind), slot: number, event, status }
            }
        })
    }
}

impl RunV1 {
    /// The state of `machine`, which stands, and `ran` before.
    pub(super) fn of(machine: &Machine, ran: bool) -> Self {
        let control = machine.control().lock();
        let sleeps = control.was_suspended || control.state == RunState::Suspended;
        let state = if ran { RunState::Running } else { control.state };
        drop(control);
        Self {
            clock: machine.clock().now(),
            state: state.as_str().to_owned(),
            sleeps,
            under_way: machine.devices().under_way(),
            leaving: machine.devices().leaving().into_iter().map(|node| machine.objects().tree().path(node)).collect(),
            requests: machine.parts().inbox.waiting().into_iter().filter_map(RequestV1::of).collect(),
        }
    }

    pub(super) fn save(&self) -> Result<Value, SaveError> {
        to_value(KIND, self)
    }

    /// What was saved, if it can be.
    pub(super) fn load(state: &Value) -> Result<Self, LoadError> {
        let loaded: Self = from_value(KIND, state)?;
        if loaded.leaving.len() > MOST || loaded.requests.len() > MOST {
            return Err(LoadError::invalid(KIND, "more requests than can wait"));
        }
        loaded.requests.iter().try_for_each(|request| request.request().map(drop))?;
        match RunState::named(&loaded.state) {
            Some(_) => Ok(loaded),
            None => Err(LoadError::invalid(KIND, format!("'{}', which is no run state", loaded.state))),
        }
    }

    pub(super) const fn clock(&self) -> Instant {
        self.clock
    }

    /// The devices of `machine` that are about to leave.
    pub(super) fn leaving(&self, machine: &Machine) -> Result<Vec<NodeId>, LoadError> {
        let find = |path: &String| {
            let unknown = || LoadError::invalid(KIND, format!("'{path}' is about to leave, and is not here"));
            let node = machine.objects().tree().resolve(path).map_err(|_| unknown())?;
            if machine.devices().knows(node) { Ok(node) } else { Err(unknown()) }
        };
        self.leaving.iter().map(find).collect()
    }

    /// Gives `machine` this state, and says how it goes on.
    pub(super) fn put(&self, machine: &Machine, leaving: &[NodeId]) -> GoesOn {
        let Self { clock: _, state, sleeps, under_way, leaving: _, requests } = self;
        machine.devices().set_leaving(leaving);
        if *under_way {
            machine.devices().set_under_way();
            if let Some(hotplug) = machine.board().hotplug() {
                hotplug.power_on();
            }
        }
        machine.parts().inbox.replace(requests.iter().filter_map(|request| request.request().ok()));
        machine.control().lock().was_suspended = *sleeps;
        GoesOn { state: RunState::named(state).unwrap_or(RunState::Paused) }
    }
}
