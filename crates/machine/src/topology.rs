//! How the processors of a machine are grouped, and the places that follow from it.

use rhea_x86::system::cpuid::{Package, Seat};

/// Where a processor sits in its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Socket number.
    pub socket: u32,
    /// Core number inside the socket.
    pub core: u32,
    /// Thread number inside the core.
    pub thread: u32,
}

/// How processors are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Processors that are there at power-on.
    pub cpus: u32,
    /// Sockets.
    pub sockets: u32,
    /// Cores in a socket.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

impl Default for Topology {
    fn default() -> Self {
        Self { cpus: 1, sockets: 1, cores: 1, threads: 1 }
    }
}

impl Topology {
    /// How many processors there may be: the product of sockets, cores and threads.
    pub fn max_cpus(&self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }

    /// Where processor `index` sits.
    pub fn place(&self, index: u32) -> Place {
        let threads = self.threads.max(1);
        let cores = self.cores.max(1);
        let inside = cores.saturating_mul(threads);
        Place { socket: index / inside, core: index / threads % cores, thread: index % threads }
    }

    /// What a socket holds, as CPUID tells it.
    pub fn package(&self) -> Package {
        Package::new(self.cores, self.threads)
    }

    /// The identification of the local APIC of processor `index`; `None` if it has none of 8 bits.
    pub fn apic_id(&self, index: u32) -> Option<u8> {
        let Place { socket, core, thread } = self.place(index);
        let id = self.package().apic_id(Seat { package: socket, core, thread })?;
        u8::try_from(id).ok().filter(|&id| id != u8::MAX)
    }
}

/// A place as somebody asks for it: by its parts, or by the identification of the local APIC that follows from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Local APIC.
    pub apic_id: Option<u32>,
    /// Socket.
    pub socket: Option<u32>,
    /// Die in the socket, which has one; need not be said.
    pub die: Option<u32>,
    /// Core in the socket.
    pub core: Option<u32>,
    /// Thread in the core.
    pub thread: Option<u32>,
}

/// A place that is none, or not free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A part of the place was not said.
    #[error("CPU {0} is not set")]
    Missing(&'static str),
    /// A part of the place is beyond what the machine has.
    #[error("Invalid CPU {part}: {value} must be in range 0:{last}")]
    Part {
        /// Which.
        part: &'static str,
        /// What was asked for.
        value: u32,
        /// The last there is.
        last: u32,
    },
    /// The parts lead to another local APIC than the one that was asked for.
    #[error("property {part}: {value} doesn't match set apic-id: {apic_id:#x} ({part}: {expected})")]
    Mismatch {
        /// Which part.
        part: &'static str,
        /// What was asked for.
        value: u32,
        /// The local APIC.
        apic_id: u32,
        /// What it would be for that.
        expected: u32,
    },
    /// No processor has this local APIC.
    #[error(
        "Invalid CPU [socket: {}, core: {}, thread: {}] with APIC ID {apic_id}, valid index range 0:{last}",
        place.socket, place.core, place.thread
    )]
    ApicId {
        /// The local APIC.
        apic_id: u32,
        /// Where its processor would be.
        place: Place,
        /// The last place's number.
        last: u32,
    },
    /// The place belongs to another NUMA node.
    #[error("invalid node-id, must be {0}")]
    Node(u16),
    /// Somebody is there.
    #[error("CPU[{index}] with APIC ID {apic_id} exists")]
    Taken {
        /// The place's number.
        index: usize,
        /// The local APIC.
        apic_id: u8,
    },
}

impl Topology {
    /// The number of the place that was asked for; whether it is free is another question.
    ///
    /// # Errors
    /// There is no such place, or not all of it was said.
    pub fn choose(&self, choice: Choice) -> Result<usize, PlaceError> {
        let part = |part, value: Option<u32>, count: u32| {
            let (value, last) = (value.ok_or(PlaceError::Missing(part))?, count.saturating_sub(1));
            if value > last { Err(PlaceError::Part { part, value, last }) } else { Ok(value) }
        };
        let Some(apic_id) = choice.apic_id else {
            let socket = part("socket-id", choice.socket, self.sockets)?;
            part("die-id", choice.die.or(Some(0)), 1)?;
            let core = part("core-id", choice.core, self.cores)?;
            let thread = part("thread-id", choice.thread, self.threads)?;
            return Ok(((socket * self.cores + core) * self.threads + thread) as usize);
        };
        let seat = self.package().seat(apic_id);
        let place = Place { socket: seat.package, core: seat.core, thread: seat.thread };
        let known = (0..self.max_cpus()).find(|&index| self.place(index) == place);
        let index = known.ok_or(PlaceError::ApicId { apic_id, place, last: self.max_cpus().saturating_sub(1) })?;
        for (part, value, expected) in [
            ("socket-id", choice.socket, place.socket),
            ("die-id", choice.die, 0),
            ("core-id", choice.core, place.core),
            ("thread-id", choice.thread, place.thread),
        ] {
            match value {
                Some(value) if value != expected => {
                    return Err(PlaceError::Mismatch { part, value, apic_id, expected });
                }
                _ => {}
            }
        }
        Ok(index as usize)
    }
}
