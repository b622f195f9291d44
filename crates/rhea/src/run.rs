//! Runs a machine from its command line to its end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rhea_api::run_state::ShutdownCause;
use rhea_backends::{
    block::BlockNodes,
    char::{Address, CharDevices, FrontEnd, Options as CharOptions},
};
use rhea_core::{files, memory::say_when_memory_is_gone, trace};
use rhea_machine::{
    Accelerator, Backends, Config, GivenTable, Globals, GuestRequest, Machine, SnapshotChoice, Software,
    boot::{
        linux::Kernel,
        multiboot::{Module, Program},
    },
    firmware::{Firmware, LINUX_LOADER, MULTIBOOT_LOADER, OptionRom},
};
use rhea_qmp::EventSender;
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};

use crate::{
    commands::{Context, Identity},
    daemon::{self, Background},
    logging, messages,
    monitor::MonitorThread,
    options::{self, CharUse, FIRST_TERMINAL, Inherited, MonitorMode, Settings},
    rights, test_port,
};

/// How long the last output has to get out at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs what `arguments` say.
///
/// # Errors
/// One line that says what could not be done.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let settings = options::parse(arguments)?;
    if let Some(text) = &settings.print {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    if settings.daemonize && !daemon::in_background() {
        daemon::start()?;
        return Ok(ExitCode::SUCCESS);
    }
    messages::configure(settings.host.messages, settings.name.as_deref());
    logging::start(&settings.log)?;
    machine(&settings)
}

fn machine(settings: &Settings) -> anyhow::Result<ExitCode> {
    let background = settings.daemonize.then(Background::leave_terminal).transpose()?;
    rights::take(&settings.host)?;
    say_when_memory_is_gone().context("could not handle signals")?;
    settings.inherited.iter().try_for_each(Inherited::take)?;
    let chars = CharDevices::new().context("could not start the thread of the backends")?;
    with_backends(settings, &chars, background).or_else(|reason| {
        // Managers look for the reason once their connection ends, which is when the backends go.
        messages::error(&reason);
        Ok(ExitCode::FAILURE)
    })
}

fn with_backends(
    settings: &Settings,
    chars: &Arc<CharDevices>,
    background: Option<Background>,
) -> anyhow::Result<ExitCode> {
    let events = EventSender::new();
    open_backends(chars, settings)?;
    let emitter = events.clone();
    let blocks = BlockNodes::new();
    let machine = Machine::new(
        config(settings)?,
        Backends { chars: Arc::clone(chars), blocks: Arc::clone(&blocks) },
        Arc::new(move |event: rhea_api::Event| {
            trace!(MONITOR_PROTOCOL_EVENT_EMIT, "event={}", event.name());
            emitter.emit(event.name(), event.data());
        }),
    )?;

    // Of those that share a terminal the serial port, which is there now, is the first.
    let monitors = settings.monitors.iter().map(|monitor| Ok((chars.claim(&monitor.backend)?, monitor.mode)));
    let mut monitors: Vec<(FrontEnd, MonitorMode)> = monitors.collect::<anyhow::Result<_>>()?;
    let test_port = settings.test_port.as_deref().map(|id| chars.claim(id)).transpose()?;
    if settings.first_minute {
        monitors.push((first_minute_monitor(chars)?, MonitorMode::Control));
    }
    let ended = Arc::clone(&machine);
    chars.on_exit(Arc::new(move || ended.request(GuestRequest::Shutdown(ShutdownCause::HostUi))));
    if settings.first_minute {
        // Someone who closes the terminal is done.
        let ended = Arc::clone(&machine);
        let end = move || ended.request(GuestRequest::Shutdown(ShutdownCause::HostUi));
        chars.on_end_of_input(FIRST_TERMINAL, Arc::new(end))?;
    }

    let context = Context {
        machine: Arc::clone(&machine),
        identity: Arc::new(Identity { name: settings.name.clone(), uuid: settings.uuid }),
        chars: Arc::clone(chars),
    };
    end_on_signals(&machine)?;
    if let Some(tag) = &settings.load_snapshot {
        machine.load_snapshot(&SnapshotChoice::of_all(tag)).with_context(|| format!("-loadvm {tag}"))?;
    }
    if let Some(path) = &settings.pid_file {
        daemon::write_pid_file(path)?;
    }
    rights::give_up(&settings.host)?;
    // From here on clients may come, and find the machine in the state that it was to start in.
    machine.power_on();
    if let Some(uri) = settings.incoming.as_deref().filter(|uri| *uri != "defer") {
        receive(&machine, uri).map_err(|reason| anyhow::anyhow!("-incoming {uri}: {reason}"))?;
    }
    let test_port =
        test_port.map(|front| test_port::start(front, settings.test_log.as_deref(), &machine)).transpose()?;
    let monitors = MonitorThread::start(monitors, context, events).context("could not start the monitor thread")?;
    if let Some(background) = background {
        background.ready()?;
    }
    machine.main_loop();
    if let Some(port) = &test_port {
        port.finish(LAST_WORDS);
    }
    chars.flush(LAST_WORDS);
    monitors.end();
    blocks.flush();
    chars.release();
    if let Some(path) = &settings.pid_file {
        // Gone already is as good.
        let _ = fs::remove_file(path);
    }
    match machine.migration().take_fatal() {
        Some(reason) => Err(anyhow::anyhow!(reason)),
        None => Ok(ExitCode::from(machine.exit_status())),
    }
}

/// Has `machine` wait for another one from `uri`.
fn receive(machine: &Arc<Machine>, uri: &str) -> Result<(), String> {
    let inherited = |name: &str| {
        let number = name.parse().map_err(|_| format!("'{name}' is no number of a descriptor"))?;
        files::inherited(number).map_err(|error| format!("descriptor {name}: {}", files::reason(&error)))
    };
    let address = rhea_machine::migration::Address::parse(uri, inherited)?;
    machine.receive(address, true).map_err(|reason| reason.to_string())
}

fn open_backends(chars: &CharDevices, settings: &Settings) -> anyhow::Result<()> {
    for (id, definition) in &settings.backends {
        if let Some(name) = chars.add(id, definition, None)?.pty() {
            eprintln!("char device redirected to {name} (label {id})");
        }
    }
    Ok(())
}

/// A QMP monitor for someone who asked for nothing, with the one line to talk to it.
fn first_minute_monitor(chars: &CharDevices) -> anyhow::Result<FrontEnd> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("rhea-{}.qmp", std::process::id()));
    let address = Address::Unix(path.clone());
    chars.add("qmp", &CharOptions::Socket { address, server: true, wait: false, reconnect: None }.into(), None)?;
    eprintln!("QMP is at {0}; talk to it with: rhea shell {0}", path.display());
    eprintln!("Ctrl-a h tells the keys of this terminal.");
    Ok(chars.claim("qmp")?)
}

fn config(settings: &Settings) -> anyhow::Result<Config> {
    let software = match &settings.kernel {
        // A test wants memory as it is at power-on.
        None if settings.accelerator == Accelerator::Qtest => Software::None,
        None if settings.firmware.file.is_some() => Software::None,
        None if !settings.cpu.is_64_bit() => {
            tracing::warn!("the guest within the program needs 64 bits, which '{}' lacks", settings.cpu.name());
            Software::None
        }
        None => {
            let guest = rhea_guests::default_guest();
            Software::Flat { image: guest.bytes.to_vec(), address: guest.address, entry: guest.entry, uses: guest.uses }
        }
        Some(path) => {
            let image = read(path)?;
            let command_line = settings.append.as_deref().unwrap_or_default();
            let named = || format!("-kernel '{}'", path.display());
            if !Kernel::is_bzimage(&image) && Program::is_multiboot(&image) {
                let modules = settings.initrd.as_deref().map_or_else(|| Ok(Vec::new()), modules)?;
                // The first word of the command line is the kernel's own name.
                let command_line = format!("{} {command_line}", path.display());
                let program = Program::new(image, modules, command_line.trim_end());
                Software::Multiboot(Box::new(program.with_context(named)?))
            } else {
                let initrd = settings.initrd.as_deref().map(read).transpose()?;
                let kernel = Kernel::new(image, initrd, command_line);
                Software::Linux(Box::new(kernel.with_context(named)?))
            }
        }
    };
    let firmware = firmware(settings, &software)?;
    let tables = settings.acpi_tables.iter().map(GivenTable::read).collect::<Result<_, _>>().context("-acpitable")?;
    Ok(Config {
        board: settings.board,
        hidden: settings.hidden,
        accelerator: settings.accelerator,
        ram: settings.memory.bytes(),
        memory: settings.memory.config.clone(),
        numa: settings.memory.numa.clone(),
        topology: settings.topology,
        processor: settings.cpu.clone(),
        software,
        firmware,
        rtc: settings.rtc,
        acpi_tables: tables,
        smbios: settings.smbios.load(settings.uuid)?,
        serials: settings.serials.iter().map(CharUse::backend).collect(),
        nodes: settings.devices.blocks.nodes.clone(),
        drives: settings.devices.blocks.drives.clone(),
        devices: settings.devices.lines.clone(),
        globals: Globals::new(settings.devices.globals.iter().cloned()),
        start_stopped: settings.start_stopped,
        incoming: settings.incoming.is_some(),
        no_reboot: settings.no_reboot,
        no_shutdown: settings.no_shutdown,
        on_panic: settings.on_panic,
        on_watchdog: settings.on_watchdog,
        objects: settings.objects.clone(),
    })
}

/// The modules of a multiboot kernel: files with words for each behind its name, and commas between; a comma that is part of
/// a name or word stands twice.
fn modules(list: &Path) -> anyhow::Result<Vec<Module>> {
    let list = list.to_string_lossy().replace(",,", "\0");
    let texts = list.split(',').map(|text| text.replace('\0', ","));
    let module = |text: String| {
        let name = text.split(' ').next().unwrap_or_default();
        Ok(Module { bytes: read(name)?, text })
    };
    texts.map(module).collect()
}

/// The firmware, with what it starts the software by.
fn firmware(settings: &Settings, software: &Software) -> anyhow::Result<Option<Firmware>> {
    let mut firmware = settings.firmware.load(settings.uuid.into_bytes())?;
    if let Some(firmware) = &mut firmware {
        // There is no graphical console.
        firmware.serial_console = settings.serials.first().is_some_and(|port| *port != CharUse::None);
        let loader = match software {
            Software::Linux(_) => Some((LINUX_LOADER, rhea_guests::linux_loader())),
            Software::Multiboot(_) => Some((MULTIBOOT_LOADER, rhea_guests::multiboot_loader())),
            Software::None | Software::Flat { .. } => None,
        };
        // It comes before everything that has a place of its own.
        let rom =
            |(name, image): (&str, &[u8])| OptionRom { name: name.to_owned(), image: image.to_vec(), boot_index: -1 };
        firmware.option_roms.extend(loader.map(rom));
    }
    Ok(firmware)
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<Vec<u8>> {
    let path = path.as_ref();
    files::read(path).map_err(|error| anyhow::anyhow!("Could not open '{}': {}", path.display(), files::reason(&error)))
}

/// SIGINT, SIGTERM and SIGHUP end the machine in order.
fn end_on_signals(machine: &Arc<Machine>) -> anyhow::Result<()> {
    let mut signals = Signals::new(TERM_SIGNALS).context("could not handle signals")?;
    let machine = Arc::clone(machine);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                machine.request(GuestRequest::Shutdown(ShutdownCause::HostSignal));
            }
        })
        .context("could not start the signal thread")?;
    Ok(())
}
