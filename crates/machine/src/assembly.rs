//! How a machine is built: its objects, memory and processors, its board, and the devices that were asked for.

use std::sync::Arc;

use rhea_api::run_state::ShutdownCause;
use rhea_backends::{block::ThrottleGroup, object::MemoryBackend};
use rhea_core::{Clock, Gate, TimerQueue};

use crate::{
    backends::Backends,
    board::{
        Board,
        none::{self, NoBoard},
        pc::{self, Pc},
        ram::Window,
    },
    config::{Accelerator, BoardKind, Config},
    devices::{character::show_backends, comes_and_goes},
    error::MachineError,
    events::EventSink,
    inbox::{GuestRequest, Inbox},
    machine::Machine,
    modules::MemoryModules,
    numa::Numa,
    objects::Objects,
    parts::Parts,
    processors::{OnShutdown, Processors},
    types::types,
};

impl Machine {
    /// Builds a machine and loads its software. It does not run yet.
    ///
    /// # Errors
    /// What cannot be built, with the reason.
    pub fn new(mut config: Config, backends: Backends, events: EventSink) -> Result<Arc<Self>, MachineError> {
        let under_test = config.accelerator == Accelerator::Qtest;
        let timers = TimerQueue::new(if under_test { Clock::told() } else { Clock::new() });
        let objects = {
            let object = match config.board {
                BoardKind::None => none::object(),
                BoardKind::Pc => pc::object(config.hidden),
            };
            Arc::new(Objects::new(types(), object)?)
        };
        show_backends(&backends.chars, &objects);
        let made = Arc::downgrade(&objects);
        backends.blocks.find_groups_by(move |id| Some(made.upgrade()?.find::<ThrottleGroup>(id)?.1));
        for object in &config.objects {
            let made = objects.create(object);
            made.map_err(|reason| MachineError::Object { id: object.id.clone(), reason })?;
        }
        let backend_size = |id: &str| objects.find::<MemoryBackend>(id).map(|(_, backend)| backend.ram().len());
        if let Some(id) = config.memory.backend.as_deref().filter(|_| config.ram == 0) {
            let size = backend_size(id);
            config.ram = size.ok_or_else(|| MachineError::Memory(format!("Memory backend '{id}' not found")))?;
        }
        config.check()?;
        let numa = Numa::new(&config.wanted_nodes(), backend_size)?;
        let inbox = Inbox::new();
        let on_shutdown: OnShutdown = {
            let inbox = Arc::clone(&inbox);
            Arc::new(move |_| inbox.leave(GuestRequest::Reset(ShutdownCause::GuestReset)))
        };
        let parts = Parts {
            memory: Arc::default(),
            ports: Arc::default(),
            timers,
            inbox,
            gate: Gate::new(),
            code_epoch: Arc::default(),
            processors: Processors::new(on_shutdown),
            taps: Default::default(),
            numa: Arc::new(numa),
            modules: Arc::new(modules(&config)?),
            boot_order: Arc::default(),
            objects,
            backends,
        };
        open_nodes(&config, &parts)?;
        let inbox = Arc::clone(&parts.inbox);
        parts.timers.on_earlier_deadline(move || inbox.wake());
        let board: Box<dyn Board> = match config.board {
            BoardKind::None => Box::new(NoBoard),
            BoardKind::Pc => Box::new(Pc::build(&config, &parts)?),
        };
        let machine = Self::of_parts(config, parts, board, events);
        machine.let_first_processors_leave();
        let built = machine.add_first_devices().and_then(|()| machine.board().reset(machine.processors()));
        // Whoever has no machine has nobody to end its processors.
        built.inspect_err(|_| machine.processors().quit())?;
        machine.follow_clock();
        for warning in machine.config().globals.among(types()).unused(|info| comes_and_goes(types(), info)) {
            tracing::warn!("{warning}");
        }
        Ok(machine)
    }
}

/// Makes the block nodes and drives that were asked for with the machine.
fn open_nodes(config: &Config, parts: &Parts) -> Result<(), MachineError> {
    let blocks = &parts.backends.blocks;
    if config.incoming {
        // They are another's until that machine is here.
        blocks.inactivate().map_err(MachineError::Disks)?;
    }
    for options in &config.nodes {
        blocks.add(options).map_err(|reason| {
            let name = options.get("node-name").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
            MachineError::Node { option: "blockdev", name, reason }
        })?;
    }
    for drive in &config.drives {
        let failed = |reason| MachineError::Node { option: "drive", name: drive.id.clone(), reason };
        blocks.add_drive(drive).map_err(failed)?;
    }
    Ok(())
}

/// Room for memory modules.
fn modules(config: &Config) -> Result<MemoryModules, MachineError> {
    if config.board == BoardKind::None {
        return Ok(MemoryModules::default());
    }
    let most = config.memory.maximum.saturating_sub(config.ram);
    Ok(MemoryModules::new(Window::of(config)?, config.memory.slots, most))
}
