//! What a command line comes to.

use std::path::PathBuf;

use rhea_api::run_state::{GuestPanicAction, WatchdogAction};
use rhea_backends::char::{CharDevices, Definition, Options as CharOptions};
use rhea_core::files::{self, DESCRIPTOR_SETS};
use rhea_devices::misc::rtc::RtcOptions;
use rhea_machine::{Accelerator, BoardKind, GivenTable, Hidden, Topology, objects::ObjectConfig};
use rhea_x86::system::cpuid::CpuModel;
use serde_json::Value;
use uuid::Uuid;

use super::{
    Argument, acpi, chardev, clock,
    config_file::{self, Section},
    devices::{self, DeviceSettings, device_help},
    firmware::FirmwareSettings,
    host::HostSettings,
    keyval::{self, KeyValues, OptionError},
    log::{self, LogSettings},
    machine,
    memory::MemorySettings,
    objects, processor,
    smbios::SmbiosSettings,
    table,
    typed::{check_id, is_json, json, named},
};

/// What a serial port or monitor is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CharUse {
    /// Nothing: the port is not there.
    None,
    /// The backend of this id.
    Backend(String),
}

impl CharUse {
    /// The backend's id, if there is one.
    pub fn backend(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Backend(id) => Some(id.clone()),
        }
    }
}

/// How a monitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorMode {
    /// QMP.
    Control,
    /// For people.
    Readline,
}

/// A monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// The backend's id.
    pub backend: String,
    /// How it speaks.
    pub mode: MonitorMode,
}

/// Everything that the command line decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The board.
    pub board: BoardKind,
    /// What the guest does not find on it.
    pub hidden: Hidden,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// The processor model.
    pub cpu: CpuModel,
    /// Memory.
    pub memory: MemorySettings,
    /// Processors.
    pub topology: Topology,
    /// ACPI tables of the user's.
    pub acpi_tables: Vec<GivenTable>,
    /// What the machine says that it is.
    pub smbios: SmbiosSettings,
    /// Firmware.
    pub firmware: FirmwareSettings,
    /// Kernel.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: Option<String>,
    /// Character backends by id, in order.
    pub backends: Vec<(String, Definition)>,
    /// What -drive, -blockdev and -device say.
    pub devices: DeviceSettings,
    /// Serial ports.
    pub serials: Vec<CharUse>,
    /// Monitors.
    pub monitors: Vec<MonitorSettings>,
    /// The backend of the test port.
    pub test_port: Option<String>,
    /// Where to write what passes there.
    pub test_log: Option<PathBuf>,
    /// The guest's name.
    pub name: Option<String>,
    /// The guest's identifier; all zeros if none was given.
    pub uuid: Uuid,
    /// The clock of date and time.
    pub rtc: RtcOptions,
    /// `-S`.
    pub start_stopped: bool,
    /// `-incoming`: where from, or `defer`.
    pub incoming: Option<String>,
    /// `-no-reboot`.
    pub no_reboot: bool,
    /// `-no-shutdown`.
    pub no_shutdown: bool,
    /// What `-action` says of panics.
    pub on_panic: GuestPanicAction,
    /// What `-action` or `-watchdog-action` says of watchdogs.
    pub on_watchdog: WatchdogAction,
    /// Objects, in order.
    pub objects: Vec<ObjectConfig>,
    /// Descriptors that go into sets.
    pub inherited: Vec<Inherited>,
    /// The log.
    pub log: LogSettings,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-loadvm`: the snapshot to go on from.
    pub load_snapshot: Option<String>,
    /// `-pidfile`.
    pub pid_file: Option<PathBuf>,
    /// What it takes of the host, and what it gives up.
    pub host: HostSettings,
    /// Nothing was said of what to run and how to manage it: this is someone's first minute.
    pub first_minute: bool,
    /// Text to print instead of running anything.
    pub print: Option<String>,
}

#[derive(Default)]
pub(super) struct Said {
    nodefaults: bool,
    nographic: bool,
    display_none: bool,
    serial: bool,
    monitor: bool,
    /// Accelerators to try, in order.
    pub(super) accelerators: Vec<String>,
    /// Monitors in short form.
    monitors: usize,
}

/// Id of the terminal that serial port and monitor share when nothing is said of them.
pub const FIRST_TERMINAL: &str = "serial0";

/// Most serial ports of the board.
const SERIAL_PORTS: usize = 4;

/// Reads a command line, without the program's name.
///
/// # Errors
/// One line that names the option and says what is wrong.
pub fn parse(arguments: &[String]) -> Result<Settings, OptionError> {
    let mut settings = Settings {
        board: BoardKind::Pc,
        hidden: Hidden::default(),
        accelerator: Accelerator::default(),
        cpu: CpuModel::default(),
        memory: MemorySettings::new(),
        topology: Topology::default(),
        acpi_tables: Vec::new(),
        smbios: SmbiosSettings::default(),
        firmware: FirmwareSettings::default(),
        kernel: None,
        initrd: None,
        append: None,
        backends: Vec::new(),
        devices: DeviceSettings::default(),
        serials: Vec::new(),
        monitors: Vec::new(),
        test_port: None,
        test_log: None,
        name: None,
        uuid: Uuid::nil(),
        rtc: RtcOptions::default(),
        start_stopped: false,
        incoming: None,
        no_reboot: false,
        no_shutdown: false,
        on_panic: GuestPanicAction::Poweroff,
        on_watchdog: WatchdogAction::Reset,
        objects: Vec::new(),
        inherited: Vec::new(),
        log: LogSettings::default(),
        daemonize: false,
        load_snapshot: None,
        pid_file: None,
        host: HostSettings::default(),
        first_minute: false,
        print: None,
    };
    let mut said = Said::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name)) else {
            return Err(OptionError(format!("'{argument}' is no option; a disk is given by -drive")));
        };
        let Some(row) = table::option(name) else {
            return Err(OptionError(format!("-{name}: invalid option; -help lists those there are")));
        };
        let value = match row.argument {
            Argument::None => "",
            _ => arguments.next().ok_or_else(|| OptionError::about(name, "requires an argument"))?,
        };
        settings.take(row, value, &mut said)?;
        if settings.print.is_some() {
            return Ok(settings);
        }
    }
    settings.finish(&said)?;
    Ok(settings)
}

impl Settings {
    fn take(&mut self, row: &'static table::OptionRow, value: &str, said: &mut Said) -> Result<(), OptionError> {
        let parameters = || KeyValues::parse(row, value);
        let lists_itself =
            matches!(row.name, "machine" | "accel" | "chardev" | "trace") && matches!(value, "help" | "?");
        if let Some(text) = row.parameters_help(value).filter(|_| !lists_itself) {
            self.print = Some(text);
            return Ok(());
        }
        match row.name {
            "help" => self.print = Some(table::help("rhea")),
            "version" => self.print = Some(format!("{}\n", crate::version::text())),
            "machine" if lists_itself => self.print = Some(machine::help()),
            "machine" => self.machine(&parameters()?, said)?,
            "accel" if lists_itself => {
                self.print = Some("Accelerators supported in this build:\ntcg\nqtest\n".to_owned());
            }
            "accel" => self.accelerator(&parameters()?, said)?,
            "cpu" if matches!(value, "help" | "?") => self.print = Some(processor::help()),
            "cpu" => self.cpu = processor::processor(value)?,
            "smp" => self.topology = processor::topology(&parameters()?)?,
            "m" => self.memory.size(&parameters()?)?,
            "numa" => self.memory.numa(&parameters()?)?,
            "mem-path" => self.memory.config.path = Some(value.to_owned()),
            "mem-prealloc" => self.memory.config.prealloc = true,
            "acpitable" => self.acpi_tables.push(acpi::table(&parameters()?)?),
            "smbios" => self.uuid = self.smbios.take(&parameters()?)?.unwrap_or(self.uuid),
            "bios" => self.firmware.file = Some(value.to_owned()),
            "L" if matches!(value, "help" | "?") => self.print = Some(self.firmware.directories_help()),
            "L" => self.firmware.directories.push(value.into()),
            "option-rom" => self.firmware.option_rom(&parameters()?)?,
            "boot" => self.firmware.boot(&parameters()?)?,
            "kernel" => self.kernel = Some(value.into()),
            "initrd" => self.initrd = Some(value.into()),
            "append" => self.append = Some(value.to_owned()),
            "serial" => {
                said.serial = true;
                let used = self.device("serial", "serial", self.serials.len(), value)?;
                self.serials.push(used);
            }
            "debugcon" => match self.device("debugcon", "debugcon", 0, value)? {
                CharUse::None => {}
                CharUse::Backend(backend) => self.devices.debug_console(backend),
            },
            "chardev" if lists_itself => {
                let kinds: String = CharDevices::kinds().iter().map(|kind| format!("  {kind}\n")).collect();
                self.print = Some(format!("Available chardev backend types:\n{kinds}"));
            }
            "chardev" => self.chardev(&parameters()?)?,
            "mon" => {
                said.monitor = true;
                self.monitor(&parameters()?)?;
            }
            "qmp" | "monitor" => {
                said.monitor = true;
                said.monitors += 1;
                let mode = if row.name == "qmp" { MonitorMode::Control } else { MonitorMode::Readline };
                match self.device(row.name, "compat_monitor", said.monitors - 1, value)? {
                    CharUse::None => {}
                    CharUse::Backend(backend) => self.monitors.push(MonitorSettings { backend, mode }),
                }
            }
            "qtest" => match self.device("qtest", "qtest", 0, value)? {
                CharUse::None => {}
                CharUse::Backend(backend) => self.test_port = Some(backend),
            },
            "qtest-log" => self.test_log = Some(value.into()),
            "audio" | "vga" | "net" | "nic" | "parallel" => only_none(row.name, value)?,
            "audiodev" => audio_backend(value)?,
            "drive" => self.devices.drive(&parameters()?)?,
            "blockdev" => self.devices.blocks.node(value)?,
            "device" => match device_help(value) {
                Some(text) => self.print = Some(text),
                None => self.devices.device(value)?,
            },
            "display" => match value.split(',').next() {
                Some("none") => said.display_none = true,
                Some("help") => self.print = Some("Available display backend types:\nnone\n".to_owned()),
                _ => return Err(OptionError::about("display", format!("'{value}' is not there; 'none' is"))),
            },
            "nographic" => said.nographic = true,
            "nodefaults" => said.nodefaults = true,
            "no-user-config" => {}
            "name" => {
                let parameters = parameters()?;
                self.name = parameters.get("guest").map(str::to_owned).or(self.name.take());
                self.host.process = parameters.get("process").map(str::to_owned).or(self.host.process.take());
            }
            "overcommit" => self.host.overcommit(&parameters()?)?,
            "run-with" => self.host.run_with(&parameters()?)?,
            "sandbox" => self.host.sandbox(&parameters()?)?,
            "msg" => self.host.messages(&parameters()?),
            "enable-kvm" => said.accelerators.push("kvm".to_owned()),
            "usb" => return Err(OptionError::about("usb", "there is no USB controller yet")),
            "no-acpi" => self.hidden.acpi = true,
            "no-hpet" => self.hidden.hpet = true,
            "readconfig" => {
                for Section { row, text } in config_file::read(value)? {
                    self.take(row, &text, said)?;
                }
            }
            "uuid" => {
                self.uuid = Uuid::parse_str(value).map_err(|_| {
                    OptionError::about("uuid", format!("'{value}' is no UUID, such as {}", Uuid::nil()))
                })?;
            }
            "rtc" => {
                let policy = clock::rtc(&parameters()?, &mut self.rtc)?;
                self.devices.globals.extend(policy);
            }
            "global" => self.devices.globals.push(devices::global(row, value)?),
            "S" => self.start_stopped = true,
            "incoming" => self.incoming = Some(value.to_owned()),
            "no-reboot" => self.no_reboot = true,
            "object" => match objects::help(value) {
                Some(text) => self.print = Some(text),
                None => self.objects.push(objects::object(row.name, value)?),
            },
            "no-shutdown" => self.no_shutdown = true,
            "action" => self.action(&parameters()?)?,
            "watchdog-action" => self.on_watchdog = watchdog_action(row.name, value)?,
            "daemonize" => self.daemonize = true,
            "add-fd" => self.inherited.push(Inherited::read(&parameters()?)?),
            "loadvm" => self.load_snapshot = Some(value.to_owned()),
            "trace" if lists_itself => self.print = Some(log::trace_help()),
            "trace" => self.log.trace(&parameters()?)?,
            "d" if value == "help" => self.print = Some(log::items_help()),
            "d" => self.log.items(value)?,
            "D" => self.log.file = Some(value.into()),
            "pidfile" => self.pid_file = Some(value.into()),
            other => return Err(OptionError::about(other, "is in the table but nothing is done with it")),
        }
        Ok(())
    }

    /// What is done when the guest resets, powers off or panics.
    fn action(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let wrong = |key: &str, value: &str| parameters.error(format!("parameter '{key}' does not accept '{value}'"));
        match parameters.get("reboot") {
            None => {}
            Some("reset") => self.no_reboot = false,
            Some("shutdown") => self.no_reboot = true,
            Some(other) => return Err(wrong("reboot", other)),
        }
        match parameters.get("shutdown") {
            None => {}
            Some("poweroff") => self.no_shutdown = false,
            Some("pause") => self.no_shutdown = true,
            Some(other) => return Err(wrong("shutdown", other)),
        }
        match parameters.get("panic") {
            None => {}
            Some("shutdown") => self.on_panic = GuestPanicAction::Poweroff,
            Some("pause") => self.on_panic = GuestPanicAction::Pause,
            Some("none") => self.on_panic = GuestPanicAction::Run,
            Some(other) => return Err(wrong("panic", other)),
        }
        if let Some(action) = parameters.get("watchdog") {
            self.on_watchdog = watchdog_action("action", action)?;
        }
        Ok(())
    }

    fn chardev(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let (id, definition) = chardev::backend_of(parameters)?;
        self.add_backend(id, definition)
    }

    fn add_backend(&mut self, id: String, definition: Definition) -> Result<(), OptionError> {
        if self.backends.iter().any(|(other, _)| *other == id) {
            return Err(OptionError::about("chardev", format!("duplicate id '{id}'")));
        }
        self.backends.push((id, definition));
        Ok(())
    }

    fn monitor(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let mode = match parameters.or_default("mode").unwrap_or_default() {
            "control" => MonitorMode::Control,
            "readline" => MonitorMode::Readline,
            other => return Err(parameters.error(format!("there is no mode '{other}'"))),
        };
        if parameters.flag("pretty") {
            return Err(parameters.error("'pretty=on' is not supported yet"));
        }
        self.monitors.push(MonitorSettings { backend: parameters.require("chardev")?.to_owned(), mode });
        Ok(())
    }

    /// A backend in its short form, as `-serial`, `-qmp` and `-monitor` take it.
    fn device(&mut self, option: &str, label: &str, number: usize, value: &str) -> Result<CharUse, OptionError> {
        if value == "none" {
            return Ok(CharUse::None);
        }
        if let Some(id) = value.strip_prefix("chardev:") {
            return Ok(CharUse::Backend(id.to_owned()));
        }
        let (value, shared) = match value.strip_prefix("mon:") {
            Some(_) if option != "serial" => return Err(OptionError::about(option, "'mon:' is for serial ports")),
            Some(rest) => (rest, true),
            None => (value, false),
        };
        let row = table::option("chardev").ok_or_else(|| OptionError::about(option, "no backends"))?;
        let (kind, rest) = value.split_once(':').unwrap_or((value, ""));
        let text = match kind {
            // Whoever shares a terminal ends the program by another key.
            "stdio" if shared => "stdio,signal=off".to_owned(),
            "null" | "stdio" | "pty" => kind.to_owned(),
            "file" | "pipe" => format!("{kind},path={}", rest.replace(',', ",,")),
            // The parameters that follow are as for -chardev.
            "unix" => format!("socket,path={rest}"),
            "tcp" => {
                let (address, flags) = rest.split_once(',').unwrap_or((rest, ""));
                let (host, port) = address
                    .rsplit_once(':')
                    .ok_or_else(|| OptionError::about(option, format!("'{value}' has no port: tcp:HOST:PORT")))?;
                format!("socket,host={host},port={port},{flags}")
            }
            _ => {
                let reason = format!("'{value}' is no backend; -help lists those there are");
                return Err(OptionError::about(option, reason));
            }
        };
        let id = format!("{label}{number}");
        let mux = if shared { ",mux=on" } else { "" };
        let parameters = KeyValues::parse(row, &format!("{text},id={id}{mux}"))?;
        self.chardev(&parameters)?;
        if shared {
            self.monitors.push(MonitorSettings { backend: id.clone(), mode: MonitorMode::Readline });
        }
        Ok(CharUse::Backend(id))
    }

    fn finish(&mut self, said: &Said) -> Result<(), OptionError> {
        if self.kernel.is_none() && (self.initrd.is_some() || self.append.is_some()) {
            return Err(OptionError("-initrd and -append need a -kernel".to_owned()));
        }
        self.accelerator = machine::choose_accelerator(&said.accelerators)?;
        if self.daemonize && said.nographic && !said.nodefaults {
            return Err(OptionError("-nographic cannot be used with -daemonize".to_owned()));
        }
        // Whoever chose no display wants nothing on the terminal, unless it is asked for.
        let terminal = said.nographic || !(said.display_none || said.nodefaults || self.daemonize);
        let stdio_used =
            self.backends.iter().any(|(_, definition)| matches!(definition.options, CharOptions::Stdio { .. }));
        if !said.serial && !said.nodefaults && self.board == BoardKind::Pc && terminal && !stdio_used {
            self.first_minute = self.kernel.is_none()
                && self.firmware.file.is_none()
                && !said.monitor
                && !said.nographic
                && !self.start_stopped
                && self.incoming.is_none()
                && self.accelerator != Accelerator::Qtest;
            let id = FIRST_TERMINAL.to_owned();
            let options = CharOptions::Stdio { signal: self.first_minute };
            self.add_backend(id.clone(), Definition { options, log: None, mux: true })?;
            self.monitors.push(MonitorSettings { backend: id.clone(), mode: MonitorMode::Readline });
            self.serials.push(CharUse::Backend(id));
        }
        if self.serials.len() > SERIAL_PORTS {
            return Err(OptionError::about("serial", format!("there are {SERIAL_PORTS} serial ports at the most")));
        }
        self.check_backends()?;
        // Tests wait for the test port before they wait for a monitor.
        if let Some(at) = self.backends.iter().position(|(id, _)| Some(id) == self.test_port.as_ref()) {
            self.backends[..=at].rotate_right(1);
        }
        Ok(())
    }

    /// Every backend that is used is there, and none is used twice.
    fn check_backends(&self) -> Result<(), OptionError> {
        let serials = self.serials.iter().filter_map(|used| match used {
            CharUse::Backend(id) => Some(id.as_str()),
            _ => None,
        });
        let mut seen: Vec<&str> = Vec::new();
        let monitors = self.monitors.iter().map(|monitor| monitor.backend.as_str());
        for id in serials.chain(monitors).chain(self.test_port.as_deref()) {
            let Some((_, definition)) = self.backends.iter().find(|(known, _)| known == id) else {
                return Err(OptionError::about("chardev", format!("there is no backend '{id}'")));
            };
            let shared = definition.mux || matches!(definition.options, CharOptions::Mux { .. });
            if seen.contains(&id) && !shared {
                return Err(OptionError::about("chardev", format!("backend '{id}' is used twice")));
            }
            seen.push(id);
        }
        Ok(())
    }
}

/// An inherited descriptor that goes into a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherited {
    descriptor: i32,
    set: i32,
    note: Option<String>,
}

impl Inherited {
    fn read(parameters: &KeyValues) -> Result<Self, OptionError> {
        let number = |key: &str| {
            let text = parameters.require(key)?;
            keyval::number(text)
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(|| parameters.error(format!("'{key}={text}' is too large")))
        };
        let note = parameters.get("opaque").map(str::to_owned);
        Ok(Self { descriptor: number("fd")?, set: number("set")?, note })
    }

    /// Takes the descriptor over and puts it into its set: in the process that is to use it, not in one that only starts
    /// that.
    ///
    /// # Errors
    /// There is no such descriptor, or it cannot be in a set.
    pub fn take(&self) -> Result<(), OptionError> {
        let failed = |reason: String| OptionError::about("add-fd", reason);
        let Self { descriptor, set, note } = self;
        let inherited = files::inherited(*descriptor)
            .map_err(|error| failed(format!("descriptor {descriptor}: {}", files::reason(&error))))?;
        let added = DESCRIPTOR_SETS.add(inherited, Some((*set).into()), note.clone());
        added.map(drop).map_err(|error| failed(error.to_string()))
    }
}

/// An option for something that is not there: it can be told so.
fn only_none(option: &str, value: &str) -> Result<(), OptionError> {
    match value {
        "none" | "driver=none" => Ok(()),
        _ => Err(OptionError::about(option, format!("'{value}' is not there; 'none' is"))),
    }
}

/// `-audiodev`: a sound backend, in words or JSON; the only one there is makes no sound.
fn audio_backend(text: &str) -> Result<(), OptionError> {
    let error = |reason: String| OptionError::about("audiodev", reason);
    let member = |name: &str| -> Result<Option<String>, OptionError> {
        if is_json(text) {
            let members = json(text).map_err(error)?;
            return Ok(members.get(name).and_then(Value::as_str).map(str::to_owned));
        }
        let given = named(text, Some("driver")).into_iter().rev().find(|(key, _)| key == name);
        Ok(given.and_then(|(_, value)| value))
    };
    let id = member("id")?.ok_or_else(|| error("parameter 'id' is missing".to_owned()))?;
    check_id(&id).map_err(error)?;
    only_none("audiodev", &member("driver")?.ok_or_else(|| error("parameter 'driver' is missing".to_owned()))?)
}

fn watchdog_action(option: &str, word: &str) -> Result<WatchdogAction, OptionError> {
    let wrong = || OptionError::about(option, format!("'{word}' is nothing to do about a watchdog"));
    WatchdogAction::ALL.iter().copied().find(|action| action.as_str() == word).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(line: &str) -> Result<Settings, OptionError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_terminal_is_shared_unless_something_else_was_said() {
        let serials = |line: &str| settings(line).map(|settings| settings.serials);
        for line in ["-m 64", "-nographic", "-serial mon:stdio"] {
            let settings = settings(line).unwrap();
            let [(id, definition)] = settings.backends.as_slice() else { panic!("{:?}", settings.backends) };
            assert!(definition.mux && matches!(definition.options, CharOptions::Stdio { .. }));
            assert_eq!(settings.serials, [CharUse::Backend(id.clone())]);
            assert_eq!(settings.monitors, [MonitorSettings { backend: id.clone(), mode: MonitorMode::Readline }]);
        }
        assert_eq!(serials("-display none"), Ok(vec![]));
        assert_eq!(serials("-nodefaults -nographic"), Ok(vec![]));
        assert_eq!(serials("-serial none"), Ok(vec![CharUse::None]));
    }

    #[test]
    fn backends_are_shared_only_if_that_was_said() {
        assert!(settings("-chardev null,id=a,mux=on -serial chardev:a -mon a -mon a").is_ok());
        assert!(settings("-chardev null,id=a -chardev mux,id=b,chardev=a -serial chardev:b -mon b").is_ok());
        assert!(settings("-chardev null,id=a -serial chardev:a -mon a").is_err());
        let again = settings("-chardev socket,id=a,path=/x,reconnect=2").unwrap();
        let CharOptions::Socket { reconnect, wait, .. } = again.backends[0].1.options else { panic!("{again:?}") };
        assert_eq!((reconnect, wait), (Some(Duration::from_secs(2)), false));
        for bad in ["reconnect=1,reconnect-ms=2", "reconnect=1,server=on"] {
            assert!(settings(&format!("-chardev socket,id=a,path=/x,{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn managers_may_ask_in_the_background_without_a_terminal() {
        assert!(settings("-nodefaults -nographic -machine none -daemonize").is_ok());
        assert!(settings("-nographic -daemonize").is_err());
    }
}
