//! What a machine is to be: everything that is decided before power-on.

use rhea_api::run_state::{GuestPanicAction, WatchdogAction};
use rhea_backends::block::DriveConfig;
use rhea_core::object::Value;
use rhea_devices::misc::rtc::RtcOptions;
use rhea_x86::system::cpuid::CpuModel;
use serde_json::Map;

use crate::{
    boot::{linux::Kernel, multiboot::Program},
    devices::DeviceConfig,
    firmware::Firmware,
    globals::Globals,
    numa::{self, NumaOption},
    objects::ObjectConfig,
    smbios::Smbios,
    topology::Topology,
};

/// The boards there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoardKind {
    /// A machine with nothing, for managers that only ask.
    None,
    /// A PC with the 440FX and PIIX chips.
    #[default]
    Pc,
}

/// What there would be on a board, but is not to be there for the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// ACPI tables.
    pub acpi: bool,
    /// The high precision event timer.
    pub hpet: bool,
}

impl BoardKind {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pc => "pc",
        }
    }
}

/// What runs the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// The software processor.
    #[default]
    Tcg,
    /// Nothing: no instruction runs and the clock stands still, for tests that drive the machine from outside.
    Qtest,
}

/// The most processors that a `pc` has: their local APICs have identifications of 8 bits, of which the last means all.
pub const MAX_PROCESSORS: u32 = 255;

/// The least RAM of a `pc`: what is below has no room for firmware tables.
pub const MIN_RAM: u64 = 2 << 20;

/// The most bytes of tables of one's own.
const MOST_TABLES: u64 = 16 << 20;

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The board.
    pub board: BoardKind,
    /// What the guest does not find on it.
    pub hidden: Hidden,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Bytes of RAM. 0 stands for the size of the backend that `memory` names.
    pub ram: u64,
    /// Where it comes from, and how it can grow.
    pub memory: MemoryConfig,
    /// Nodes of processors and memory, in the order in which they were given.
    pub numa: Vec<NumaOption>,
    /// Processors.
    pub topology: Topology,
    /// What model they are of.
    pub processor: CpuModel,
    /// What runs first.
    pub software: Software,
    /// What runs before that; without it the board does what firmware would.
    pub firmware: Option<Firmware>,
    /// The clock of date and time.
    pub rtc: RtcOptions,
    /// Tables of one's own for the guest, complete.
    pub acpi_tables: Vec<Vec<u8>>,
    /// What the machine says that it is.
    pub smbios: Smbios,
    /// Objects that managers make, in order.
    pub objects: Vec<ObjectConfig>,
    /// Block nodes to make, by the options of `blockdev-add`, in order.
    pub nodes: Vec<Map<String, Value>>,
    /// Drives to make, in order.
    pub drives: Vec<DriveConfig>,
    /// The character backend of each serial port, first port first; ports without one are not there.
    pub serials: Vec<Option<String>>,
    /// Devices that somebody asked for, in order.
    pub devices: Vec<DeviceConfig>,
    /// Properties that all devices of a type are to have.
    pub globals: Globals,
    /// Whether the machine waits for `cont` at the start.
    pub start_stopped: bool,
    /// Whether it waits for another machine to come and be it.
    pub incoming: bool,
    /// Whether a reset ends the machine.
    pub no_reboot: bool,
    /// Whether a guest that powers off leaves the machine there, stopped.
    pub no_shutdown: bool,
    /// What is done when the guest panics.
    pub on_panic: GuestPanicAction,
    /// What is done when the guest does not tend its watchdog.
    pub on_watchdog: WatchdogAction,
}

impl Config {
    /// A machine of which nothing more is said than its board and its RAM.
    pub fn new(board: BoardKind, ram: u64) -> Self {
        Self {
            board,
            hidden: Hidden::default(),
            accelerator: Accelerator::default(),
            ram,
            memory: MemoryConfig::default(),
            numa: Vec::new(),
            topology: Topology::default(),
            processor: CpuModel::default(),
            software: Software::None,
            firmware: None,
            rtc: RtcOptions::default(),
            acpi_tables: Vec::new(),
            smbios: Smbios::default(),
            objects: Vec::new(),
            nodes: Vec::new(),
            drives: Vec::new(),
            serials: Vec::new(),
            devices: Vec::new(),
            globals: Globals::default(),
            start_stopped: false,
            incoming: false,
            no_reboot: false,
            no_shutdown: false,
            on_panic: GuestPanicAction::Poweroff,
            on_watchdog: WatchdogAction::Reset,
        }
    }
}

/// Where RAM comes from, and how it can grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Places for memory modules.
    pub slots: u32,
    /// The most memory there can be with modules; 0 for no more than at the start.
    pub maximum: u64,
    /// Id of the backend that is all the RAM; the board makes one if none is named.
    pub backend: Option<String>,
    /// The file or directory that the board's own is in.
    pub path: Option<String>,
    /// Whether the board's own is taken from the host at once.
    pub prealloc: bool,
    /// Whether the host may merge its pages.
    pub merge: bool,
    /// Whether core dumps of this program hold it.
    pub dump: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { slots: 0, maximum: 0, backend: None, path: None, prealloc: false, merge: true, dump: true }
    }
}

/// The most places for memory modules.
pub const MAX_SLOTS: u32 = 256;

/// What runs first.
#[derive(Clone, Debug)]
pub enum Software {
    /// Nothing: the processors wait.
    None,
    /// A Linux kernel.
    Linux(Box<Kernel>),
    /// A kernel or bare program with a multiboot header.
    Multiboot(Box<Program>),
    /// A flat binary in 64-bit code.
    Flat {
        /// The code and data.
        image: Vec<u8>,
        /// Where in memory it belongs.
        address: u64,
        /// Its first instruction.
        entry: u64,
        /// How many bytes from `address` it uses, stack and variables included.
        uses: u64,
    },
}

/// A machine that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// RAM of an impossible size.
    #[error("invalid RAM size {0}: it must be a multiple of 4096 bytes, and at least 2 MiB")]
    Ram(u64),
    /// Tables that leave no memory for anything else.
    #[error("ACPI tables of {0} bytes are more than a machine with this much memory takes")]
    Tables(u64),
    /// The numbers of -smp do not agree.
    #[error("invalid SMP configuration: {0}")]
    Smp(String),
    /// Processors cannot be as they were asked for.
    #[error("{0}")]
    Processor(#[from] rhea_x86::system::cpuid::ModelError),
    /// Software for processors of 64 bits, and processors that have fewer.
    #[error("processor model '{0}' has no 64-bit mode, which the kernel needs; choose another with -cpu")]
    Bits(&'static str),
    /// Memory beyond what addresses reach.
    #[error("Address space limit 0x{limit:x} < 0x{last:x} phys-bits too low ({bits})")]
    Addresses {
        /// The last address.
        limit: u64,
        /// The last byte of RAM.
        last: u64,
        /// Bits of an address.
        bits: u32,
    },
    /// The numbers of -m do not agree.
    #[error("{0}")]
    Memory(String),
}

impl Config {
    /// What its nodes are made of.
    pub(crate) fn wanted_nodes(&self) -> numa::Wanted<'_> {
        numa::Wanted {
            options: &self.numa,
            topology: &self.topology,
            ram: self.ram,
            grows: self.memory.maximum > self.ram,
            one_backend: self.memory.backend.is_some(),
        }
    }

    /// Bytes that tables of one's own take in memory.
    pub(crate) fn tables_length(&self) -> u64 {
        self.acpi_tables.iter().map(|table| table.len().next_multiple_of(16) as u64 + 16).sum()
    }

    fn check_growth(&self) -> Result<(), ConfigError> {
        let MemoryConfig { slots, maximum, .. } = self.memory;
        let wrong = |reason: String| Err(ConfigError::Memory(reason));
        if slots > MAX_SLOTS {
            return wrong(format!("unsupported amount of memory slots: {slots}"));
        }
        if slots > 0 && maximum == 0 {
            return wrong("slots specified but no max-size".to_owned());
        }
        if maximum != 0 && maximum < self.ram {
            return wrong(format!(
                "invalid value of maxmem: maximum memory size (0x{maximum:x}) must be at least the initial memory size \
                 (0x{:x})",
                self.ram
            ));
        }
        if slots > 0 && maximum == self.ram {
            return wrong(format!(
                "invalid value of maxmem: memory slots were specified but maximum memory size (0x{maximum:x}) is equal \
                 to the initial memory size (0x{:x})",
                self.ram
            ));
        }
        if !maximum.is_multiple_of(4096) {
            return wrong("maximum memory size must be aligned to multiple of 4096 bytes".to_owned());
        }
        Ok(())
    }

    fn check_processor(&self) -> Result<(), ConfigError> {
        let model = &self.processor;
        for warning in model.check()? {
            tracing::warn!("-cpu {}: {warning}", model.name());
        }
        let direct = self.firmware.is_none() && !matches!(self.software, Software::None | Software::Multiboot(_));
        if direct && !model.is_64_bit() {
            return Err(ConfigError::Bits(model.name()));
        }
        // What has no room below the devices' window is above 4 GiB.
        let total = self.ram.max(self.memory.maximum);
        let end = if total > 3 << 30 { total.saturating_add(1 << 30) } else { total };
        let (bits, last) = (model.physical_bits(), end.saturating_sub(1));
        let limit = u64::MAX >> (64 - bits.clamp(32, 52));
        if last > limit {
            return Err(ConfigError::Addresses { limit, last, bits });
        }
        Ok(())
    }

    /// Checks what the parts cannot check by themselves.
    ///
    /// # Errors
    /// What no machine can be.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.board == BoardKind::None {
            return Ok(());
        }
        if self.ram < MIN_RAM || !self.ram.is_multiple_of(4096) || self.ram > 1 << 46 {
            return Err(ConfigError::Ram(self.ram));
        }
        self.check_growth()?;
        let tables = self.tables_length();
        if tables > self.ram / 4 || tables > MOST_TABLES {
            return Err(ConfigError::Tables(tables));
        }
        let topology = &self.topology;
        let smp = |reason: String| Err(ConfigError::Smp(reason));
        let possible = topology.max_cpus();
        if topology.cpus == 0 || possible > MAX_PROCESSORS {
            return smp(format!("{} processors; this machine has 1 to {MAX_PROCESSORS}", possible.max(topology.cpus)));
        }
        if topology.max_cpus() < topology.cpus {
            return smp(format!(
                "sockets {} * cores {} * threads {} is less than the {} processors",
                topology.sockets, topology.cores, topology.threads, topology.cpus
            ));
        }
        if topology.apic_id(possible - 1).is_none() {
            return smp(format!(
                "{} sockets of {} cores with {} threads need identifications of local APICs above 254: each field of \
                 those is a power of two",
                topology.sockets, topology.cores, topology.threads
            ));
        }
        self.check_processor()
    }
}
