//! Runs a machine from its command line to its end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use rhea_api::run_state::ShutdownCause;
use rhea_backends::char::{Address, Backend, Options as CharOptions, Output, Port, pump};
use rhea_machine::{Accelerator, Config, GuestRequest, Machine, Software, board::SerialPorts, boot::linux::Kernel};
use rhea_qmp::EventSender;
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};

use crate::{
    commands::{Context, Identity},
    daemon, devices,
    monitor::{EndOfInput, MonitorThread, Monitors, SharedTerminal},
    options::{self, CharUse, MonitorMode, Settings},
    test_port,
};

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
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("RHEA_LOG").unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    machine(&settings)
}

fn machine(settings: &Settings) -> anyhow::Result<ExitCode> {
    let events = EventSender::new();
    let mut backends = open_backends(settings)?;
    let mut take = |id: &str| backends.iter().position(|(known, _)| known == id).map(|at| backends.swap_remove(at).1);

    let mut monitors: Vec<(Backend, MonitorMode)> =
        settings.monitors.iter().filter_map(|monitor| Some((take(&monitor.backend)?, monitor.mode))).collect();
    let serials: Vec<(CharUse, Option<Backend>)> = settings
        .serials
        .iter()
        .map(|used| match used {
            CharUse::Backend(id) => (used.clone(), take(id)),
            _ => (used.clone(), None),
        })
        .collect();
    let outputs: Vec<Option<Arc<Output>>> =
        serials.iter().map(|(used, _)| (*used != CharUse::None).then(Output::new)).collect();

    let test_port = settings.test_port.as_deref().and_then(&mut take);

    let emitter = events.clone();
    let ports: Vec<(usize, u32, Option<Backend>, Arc<Output>)> = devices::console_ports(&settings.devices)
        .map(|(device, number, backend)| (device, number, take(backend), Output::new()))
        .collect();
    let port_outputs: Vec<(&str, Arc<Output>)> = devices::console_ports(&settings.devices)
        .zip(&ports)
        .map(|((_, _, backend), (.., output))| (backend, Arc::clone(output)))
        .collect();
    let output_of = |id: &str| {
        let found = port_outputs.iter().find(|(backend, _)| *backend == id);
        sink(found.map_or_else(Output::new, |(_, output)| Arc::clone(output)))
    };
    let (devices, media) = devices::open(&settings.devices, output_of)?;
    let machine = Machine::new(
        Config { devices, ..config(settings)? },
        SerialPorts { ports: outputs.iter().map(|output| output.clone().map(sink)).collect() },
        Arc::new(move |event: rhea_api::Event| {
            emitter.emit(event.name(), event.data());
        }),
    )?;

    if settings.first_minute {
        monitors.push((first_minute_monitor()?, MonitorMode::Control));
    }
    let mut pumps = Vec::new();
    let mut terminal = None;
    for (index, ((used, backend), output)) in serials.into_iter().zip(outputs).enumerate() {
        let (Some(output), Some(port)) = (output, machine.serial_port(index)) else { continue };
        let port: Arc<dyn Port> = Arc::new(SerialPort(port));
        match (used, backend) {
            (CharUse::SharedTerminal, _) => {
                let backend = Backend::open(&CharOptions::Stdio { signal: settings.first_minute })?;
                let end_of_input = if settings.first_minute { EndOfInput::Ends } else { EndOfInput::GoesOn };
                terminal = Some(SharedTerminal { backend, output, port, end_of_input });
            }
            (_, Some(backend)) => pumps.push((backend, output, port)),
            _ => {}
        }
    }
    for (device, number, backend, output) in ports {
        if let (Some(console), Some(backend)) = (machine.consoles().get(device), backend) {
            pumps.push((backend, output, Arc::new(ConsolePort(Arc::clone(console), number))));
        }
    }
    start_pumps(pumps)?;

    let context = Context {
        machine: Arc::clone(&machine),
        identity: Arc::new(Identity { name: settings.name.clone(), uuid: settings.uuid }),
    };
    end_on_signals(&machine)?;
    // From here on clients may come, and find the machine in the state that it was to start in.
    machine.power_on();
    if let Some(backend) = test_port {
        test_port::start(backend, settings.test_log.as_deref(), &machine)?;
    }
    let monitors = MonitorThread::start(Monitors { backends: monitors, terminal }, context, events)
        .context("could not start the monitor thread")?;
    if let Some(path) = &settings.pid_file {
        daemon::write_pid_file(path)?;
    }
    if settings.daemonize {
        daemon::ready()?;
    }
    machine.main_loop();
    monitors.end();
    for medium in &media {
        if let Err(error) = medium.flush() {
            tracing::error!("{medium:?}: {error}");
        }
    }
    if let Some(path) = &settings.pid_file {
        // Gone already is as good.
        let _ = fs::remove_file(path);
    }
    Ok(ExitCode::SUCCESS)
}

fn open_backends(settings: &Settings) -> anyhow::Result<Vec<(String, Backend)>> {
    let mut open = Vec::new();
    for (id, options) in &settings.backends {
        let backend = Backend::open(options).with_context(|| format!("-chardev {id}"))?;
        if matches!(options, CharOptions::Pty) {
            eprintln!("char device redirected to {} (label {id})", backend.filename().trim_start_matches("pty:"));
        }
        open.push((id.clone(), backend));
    }
    Ok(open)
}

/// A QMP monitor for someone who asked for nothing, with the one line to talk to it.
fn first_minute_monitor() -> anyhow::Result<Backend> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("rhea-{}.qmp", std::process::id()));
    let options = CharOptions::Socket { address: Address::Unix(path.clone()), server: true, wait: false };
    let backend = Backend::open(&options)?;
    eprintln!("QMP is at {0}; talk to it with: rhea shell {0}", path.display());
    eprintln!("Ctrl-a h tells the keys of this terminal.");
    Ok(backend)
}

fn config(settings: &Settings) -> anyhow::Result<Config> {
    let software = match &settings.kernel {
        // A test wants memory as it is at power-on.
        None if settings.accelerator == Accelerator::Qtest => Software::None,
        None => {
            let guest = rhea_guests::default_guest();
            Software::Flat { image: guest.bytes.to_vec(), address: guest.address, entry: guest.entry, uses: guest.uses }
        }
        Some(path) => {
            let image = read(path)?;
            let initrd = settings.initrd.as_deref().map(read).transpose()?;
            let command_line = settings.append.as_deref().unwrap_or_default();
            let kernel = Kernel::new(image, initrd, command_line);
            Software::Linux(Box::new(kernel.with_context(|| format!("-kernel '{}'", path.display()))?))
        }
    };
    Ok(Config {
        board: settings.board,
        accelerator: settings.accelerator,
        ram: settings.memory,
        topology: settings.topology,
        software,
        devices: Vec::new(),
        start_stopped: settings.start_stopped,
        no_reboot: settings.no_reboot,
        no_shutdown: settings.no_shutdown,
    })
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<Vec<u8>> {
    let path = path.as_ref();
    fs::read(path).with_context(|| format!("Could not open '{}'", path.display()))
}

/// A serial port as a backend fills it.
struct SerialPort(Arc<rhea_devices::char::uart::Serial>);

impl Port for SerialPort {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.receive(bytes)
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.on_room(wake);
    }
}

/// A port of a console device as a backend fills it.
struct ConsolePort(Arc<rhea_devices::virtio::console::Console>, u32);

impl Port for ConsolePort {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.0.receive(self.1, bytes)
    }

    fn on_room(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.on_room(self.1, wake);
    }
}

/// A backend's queue as a serial port fills it.
struct Sink(Arc<Output>);

impl rhea_devices::char::CharSink for Sink {
    fn write(&self, bytes: &[u8]) {
        self.0.push(bytes);
    }
}

fn sink(output: Arc<Output>) -> Arc<dyn rhea_devices::char::CharSink> {
    Arc::new(Sink(output))
}

/// Serves serial ports on a thread of their own, until the program ends.
fn start_pumps(pumps: Vec<(Backend, Arc<Output>, Arc<dyn Port>)>) -> anyhow::Result<()> {
    if pumps.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("backends".to_owned())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            for (backend, output, port) in pumps {
                local.spawn_local(pump(backend, output, port));
            }
            runtime.block_on(local);
        })
        .context("could not start the thread of the backends")?;
    Ok(())
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
