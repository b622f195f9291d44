//! Virtio over PCI: a function whose windows are the registers of the modern and of the legacy interface.
//!
//! Source: VIRTIO 1.2 §4.1 (cited as §).

mod legacy;
mod modern;

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::Mutex;
use rhea_core::{
    AddressSpace, Device, Dma, Gate, InterruptLine, LoadError, Mmio, PortSpace, SaveError, Stateful, Task, Width, Work,
    memory::Target,
    state::{Value, from_value, to_value},
    trace,
};
use serde::{Deserialize, Serialize};
use virtio_queue::QueueT;

use legacy::LegacyWindow;
use modern::ModernWindow;

use super::{
    DeviceV1, VirtioDevice, Virtqueue, Worker,
    queue::{QueueEvents, QueueV1},
    registers::{
        ANY_LAYOUT, COMMON_SIZE, EVENT_IDX, INDIRECT, LEGACY_HEADER, Registers, RegistersV1, StatusChange, VERSION_1,
    },
};
use crate::chipset::pci::{
    BARS, BarKind, ConfigSpace, Forwarded, Identity, Message, MessageSink, MsiX, MsiXV1, PciFunction, WindowTarget,
    Windows,
};

/// Vendor of virtio devices.
const VENDOR: u16 = 0x1af4;
/// PCI device ID of a modern device, less its device ID (§4.1.2).
const MODERN_BASE: u16 = 0x1040;
/// The vector that is none (§4.1.4.3).
const NO_VECTOR: u16 = 0xffff;

/// Base address registers: the legacy interface, MSI-X, the modern interface.
const LEGACY_BAR: usize = 0;
const VECTORS_BAR: u8 = 1;
const MODERN_BAR: usize = 4;
/// Where the structures of the modern interface are in its window, and its size.
const COMMON: u64 = 0;
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const MODERN_SIZE: u64 = 0x4000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_MULTIPLIER: u64 = 4;

/// Bits of the interrupt status (§4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Which drivers a device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// Modern and legacy ones.
    #[default]
    Transitional,
    /// Those of version 1 on.
    Modern,
    /// Those from before version 1.
    Legacy,
}

/// What a function is wired to.
pub struct Wiring {
    /// Memory, for its windows.
    pub memory: Arc<AddressSpace>,
    /// Ports, for its windows.
    pub ports: Arc<PortSpace>,
    /// Guest RAM.
    pub dma: Arc<Dma>,
    /// Its interrupt pin.
    pub line: InterruptLine,
    /// Takes its messages.
    pub messages: Arc<dyn MessageSink>,
    /// Serves its queues.
    pub worker: Arc<Worker>,
    /// Stands before all that is done outside of processors.
    pub gate: Arc<Gate>,
}

/// Configuration space and interrupts, behind one lock that is taken last.
struct Front {
    config: ConfigSpace,
    msix: Option<MsiX>,
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    device: Arc<dyn VirtioDevice>,
    interface: Interface,
    registers: Mutex<Registers>,
    queues: Vec<Arc<Virtqueue>>,
    tasks: Vec<Arc<Task>>,
    front: Mutex<Front>,
    /// The configuration space after power-on.
    pristine: ConfigSpace,
    /// Where the capability is that reaches windows through the configuration space.
    access: Option<u8>,
    windows: Windows,
    line: InterruptLine,
    messages: Arc<dyn MessageSink>,
    worker: Arc<Worker>,
}

/// A device's way to its queues and driver.
#[derive(Clone)]
pub struct Link(Weak<VirtioPci>);

impl Link {
    /// Queue `index` is to be served: the device has something for the driver.
    pub fn serve(&self, index: usize) {
        if let Some(function) = self.0.upgrade() {
            function.notify(index);
        }
    }

    /// Queue `index` is to be served at `time`: the device put off what is in it.
    pub fn serve_at(&self, index: usize, time: Instant) {
        if let Some(function) = self.0.upgrade()
            && let Some(task) = function.tasks.get(index)
        {
            function.worker.ask_at(task, time);
        }
    }

    /// The device changed its configuration.
    pub fn config_changed(&self) {
        if let Some(function) = self.0.upgrade() {
            let mut registers = function.registers.lock();
            registers.config_changed();
            if registers.status().driver_ok() {
                function.interrupt(ISR_CONFIG, |front| front.config_vector);
            }
        }
    }

    /// Gives back a chain of queue `index` that was held.
    pub fn give_back(&self, index: usize, head: u16) {
        if let Some(function) = self.0.upgrade()
            && let Some(queue) = function.queues.get(index)
        {
            queue.give_back(head);
        }
    }
}

/// Serving one queue.
struct QueueWork {
    function: Weak<VirtioPci>,
    gate: Arc<Gate>,
    index: usize,
}

impl QueueWork {
    /// Does something with the queue while the machine runs.
    fn with_queue(&self, work: impl FnOnce(&VirtioPci, &Virtqueue)) {
        // Whoever waits at the gate keeps no device from leaving.
        let _inside = self.gate.enter();
        if let Some(function) = self.function.upgrade()
            && let Some(queue) = function.queues.get(self.index)
        {
            work(&function, queue);
        }
    }
}

impl Work for QueueWork {
    fn run(&self) {
        self.with_queue(|function, _| function.serve(self.index));
    }

    fn is_ready(&self) -> bool {
        let Some(function) = self.function.upgrade() else { return false };
        function.queues.get(self.index).is_some_and(|queue| queue.has_more()) && function.may_serve()
    }

    fn attend(&self, attended: bool) {
        self.with_queue(|function, queue| queue.attend(attended && function.may_serve()));
    }
}

/// Saved form of transport and device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtioPciV1 {
    config: Vec<u8>,
    msix: Option<MsiXV1>,
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
    registers: RegistersV1,
    queues: Vec<QueueV1>,
    device: DeviceV1,
}

impl VirtioPci {
    /// `device` as a function for drivers of `interface`, with one vector a queue and one for its configuration unless
    /// `vectors` says otherwise (0: no MSI-X).
    pub fn new(device: Arc<dyn VirtioDevice>, interface: Interface, vectors: Option<u16>, wiring: Wiring) -> Arc<Self> {
        let Wiring { memory, ports, dma, line, messages, worker, gate } = wiring;
        let kind = device.device_type();
        let modern_only = interface == Interface::Modern;
        let identity = Identity {
            vendor: VENDOR,
            device: if modern_only { MODERN_BASE + kind.id } else { kind.transitional },
            class: kind.class,
            revision: u8::from(modern_only),
            subsystem: (VENDOR, if modern_only { 0x1100 } else { kind.id }),
        };
        let sizes = device.queues();
        let mut config = ConfigSpace::new(identity);
        config.set_interrupt_pin(1);
        let vectors = vectors.unwrap_or(sizes.len() as u16 + 1);
        let msix = if vectors == 0 { None } else { MsiX::add(&mut config, VECTORS_BAR, vectors) };
        let mut access = None;
        if interface != Interface::Legacy {
            config.add_bar(MODERN_BAR, BarKind::Prefetchable64, MODERN_SIZE);
            access = add_capabilities(&mut config, sizes.len() as u64);
        }
        let legacy_size = (u64::from(LEGACY_HEADER) + 4 + device.config_size() as u64).next_power_of_two().max(0x20);
        if !modern_only {
            config.add_bar(LEGACY_BAR, BarKind::Io, legacy_size);
        }
        let offered = device.features() | INDIRECT | EVENT_IDX;
        let offered = match interface {
            Interface::Modern => offered | VERSION_1,
            Interface::Transitional => offered | VERSION_1 | ANY_LAYOUT,
            Interface::Legacy => offered | ANY_LAYOUT,
        };
        let queues: Vec<_> = sizes
            .iter()
            .enumerate()
            .filter_map(|(index, size)| Virtqueue::new(index as u16, *size, Arc::clone(&dma)))
            .collect();
        let front = Front {
            config: config.clone(),
            msix,
            isr: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues.len()],
        };
        let function = Arc::new_cyclic(|weak: &Weak<Self>| {
            let mut targets = [const { None }; BARS];
            targets[LEGACY_BAR] = Some(WindowTarget::Io(Arc::new(LegacyWindow(Weak::clone(weak)))));
            let vectors = Arc::new(VectorsWindow(Weak::clone(weak)));
            targets[usize::from(VECTORS_BAR)] = Some(WindowTarget::Memory(Target::Mmio(vectors)));
            let modern = Arc::new(ModernWindow(Weak::clone(weak)));
            targets[MODERN_BAR] = Some(WindowTarget::Memory(Target::Mmio(modern)));
            let tasks = (0..queues.len())
                .map(|index| {
                    let (function, gate) = (Weak::clone(weak), Arc::clone(&gate));
                    let task = Worker::task(QueueWork { function, gate, index });
                    worker.watch(&task);
                    task
                })
                .collect();
            Self {
                device,
                interface,
                registers: Mutex::new(Registers::new(offered)),
                queues,
                tasks,
                front: Mutex::new(front),
                pristine: config,
                access,
                windows: Windows::new(memory, ports, targets),
                line,
                messages,
                worker,
            }
        });
        for queue in &function.queues {
            queue.connect(Arc::new(Events(Arc::downgrade(&function))));
        }
        function.device.attach(Link(Arc::downgrade(&function)));
        function
    }

    /// The device behind the transport.
    pub fn device(&self) -> &Arc<dyn VirtioDevice> {
        &self.device
    }

    /// §3.1: nothing is touched before the driver is ready, nor by a function that may not reach memory.
    fn may_serve(&self) -> bool {
        let ready = self.registers.lock().status();
        ready.driver_ok() && !ready.needs_reset() && self.front.lock().config.command().bus_master()
    }

    /// On the worker.
    fn serve(&self, index: usize) {
        if !self.may_serve() {
            return;
        }
        if let Some(queue) = self.queues.get(index) {
            self.device.serve(index, queue);
        }
    }

    fn notify(&self, index: usize) {
        trace!(VIRTIO_QUEUE_NOTIFY, "device {:?} n {index}", self.device.device_type());
        if let Some(task) = self.tasks.get(index) {
            self.worker.ask(task);
        }
    }

    /// Has all queues looked at, as if the driver had rung for each.
    pub fn notify_all(&self) {
        for task in &self.tasks {
            self.worker.ask(task);
        }
    }

    /// Interrupts for `cause`, by the vector that `vector` picks or by the pin.
    fn interrupt(&self, cause: u8, vector: impl FnOnce(&Front) -> u16) {
        trace!(VIRTIO_NOTIFY, "device {:?} cause {cause}", self.device.device_type());
        let mut front = self.front.lock();
        let vector = vector(&front);
        let Front { config, msix, isr, .. } = &mut *front;
        match msix {
            Some(msix) if msix.enabled(config) => {
                let message = if vector == NO_VECTOR { None } else { msix.notify(config, vector) };
                self.send(message);
            }
            _ => {
                *isr |= cause;
                self.line.set(config.set_interrupt(true));
            }
        }
    }

    fn send(&self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.messages.send(message);
        }
    }

    /// Reading the interrupt status clears it and lets the pin go.
    fn take_isr(&self) -> u8 {
        let mut front = self.front.lock();
        let isr = std::mem::take(&mut front.isr);
        self.line.set(front.config.set_interrupt(false));
        isr
    }

    fn set_status(&self, value: u8, legacy: bool) {
        trace!(VIRTIO_SET_STATUS, "device {:?} val {value}", self.device.device_type());
        let mut registers = self.registers.lock();
        match registers.set_status(value, legacy) {
            StatusChange::Nothing => {}
            StatusChange::Reset => self.start_over(&mut registers),
            StatusChange::Ready => {
                let features = registers.features();
                for queue in &self.queues {
                    queue.with(|queue| queue.set_event_idx(features & EVENT_IDX != 0));
                }
                self.device.activate(features);
                self.notify_all();
            }
        }
    }

    /// Waits for what is being served, and resets registers, queues and device.
    fn start_over(&self, registers: &mut Registers) {
        registers.reset();
        for queue in &self.queues {
            queue.reset();
        }
        self.device.reset();
        let mut front = self.front.lock();
        front.isr = 0;
        front.config_vector = NO_VECTOR;
        front.queue_vectors.fill(NO_VECTOR);
        self.line.set(front.config.set_interrupt(false));
    }

    fn queue(&self, index: u16) -> Option<&Arc<Virtqueue>> {
        self.queues.get(usize::from(index))
    }

    fn queue_vector(&self, index: u16) -> u16 {
        self.front.lock().queue_vectors.get(usize::from(index)).copied().unwrap_or(NO_VECTOR)
    }

    fn set_vector(&self, value: u16, slot: impl FnOnce(&mut Front) -> Option<&mut u16>) {
        let mut front = self.front.lock();
        // §4.1.5.1.2: a vector that there is not reads back as none.
        let there = front.msix.as_ref().is_some_and(|msix| value < msix.vectors());
        if let Some(slot) = slot(&mut front) {
            *slot = if there { value } else { NO_VECTOR };
        }
    }

    fn read_config_bytes(&self, offset: usize, width: Width) -> u64 {
        let mut bytes = [0; 8];
        self.device.read_config(offset, &mut bytes[..width.bytes()]);
        u64::from_le_bytes(bytes)
    }

    fn write_config_bytes(&self, offset: usize, width: Width, value: u64) {
        self.device.write_config(offset, &value.to_le_bytes()[..width.bytes()]);
    }

    fn vectors_enabled(&self) -> bool {
        let front = self.front.lock();
        front.msix.as_ref().is_some_and(|msix| msix.enabled(&front.config))
    }

    /// Where and how wide the access is that the configuration space asks for (§4.1.4.9).
    fn asked_access(&self) -> Option<(usize, u64, Width)> {
        let at = self.access?;
        let front = self.front.lock();
        let width =
            Width::of(front.config.read(at + 12, Width::Dword) as usize).filter(|width| *width <= Width::Dword)?;
        Some((front.config.byte(at + 4).into(), front.config.read(at + 8, Width::Dword).into(), width))
    }

    fn is_access_data(&self, offset: u8) -> bool {
        self.access.is_some_and(|at| (at + 16..at + 20).contains(&offset))
    }

    fn read_window(&self) {
        let Some((bar, offset, width)) = self.asked_access() else { return };
        let value = match bar {
            MODERN_BAR => self.read_modern(offset, width) as u32,
            LEGACY_BAR if self.interface != Interface::Modern => self.read_legacy(offset as u16, width),
            _ => return,
        };
        if let Some(at) = self.access {
            self.front.lock().config.set(usize::from(at) + 16, &value.to_le_bytes()[..width.bytes()]);
        }
    }

    fn write_window(&self, value: u32) {
        let Some((bar, offset, width)) = self.asked_access() else { return };
        let value = value & width.ones() as u32;
        match bar {
            MODERN_BAR => self.write_modern(offset, width, value.into()),
            LEGACY_BAR if self.interface != Interface::Modern => self.write_legacy(offset as u16, width, value),
            _ => {}
        }
    }

    /// Drives what follows from the configuration space.
    fn settle(&self, front: &mut Front) {
        let Front { config, msix, isr, .. } = front;
        self.windows.update(config);
        let by_message = msix.as_ref().is_some_and(|msix| msix.enabled(config));
        self.line.set(config.set_interrupt(*isr != 0 && !by_message));
        if let Some(msix) = msix {
            self.send(msix.release(config));
        }
    }

    /// Transport, queues and device; nothing may be being served.
    pub fn save(&self) -> VirtioPciV1 {
        let registers = self.registers.lock().save();
        let queues = self.queues.iter().map(|queue| queue.save()).collect();
        let front = self.front.lock();
        let Front { config, msix, isr, config_vector, queue_vectors } = &*front;
        VirtioPciV1 {
            config: config.save(),
            msix: msix.as_ref().map(MsiX::save),
            isr: *isr,
            config_vector: *config_vector,
            queue_vectors: queue_vectors.clone(),
            registers,
            queues,
            device: self.device.save(),
        }
    }

    /// Puts saved ones back.
    ///
    /// # Errors
    /// The state of another function; then it is to be reset.
    pub fn restore(&self, state: VirtioPciV1) -> Result<(), LoadError> {
        let VirtioPciV1 { config, msix, isr, config_vector, queue_vectors, registers, queues, device } = state;
        let invalid = || LoadError::invalid("VirtioPci", "not of this function");
        if queues.len() != self.queues.len() || queue_vectors.len() != self.queues.len() {
            return Err(LoadError::invalid(self.kind(), "another number of queues"));
        }
        self.device.restore(&device)?;
        self.registers.lock().restore(&registers)?;
        for (queue, state) in self.queues.iter().zip(&queues) {
            queue.restore(state)?;
        }
        let mut front = self.front.lock();
        front.config.restore(&config)?;
        match (&mut front.msix, msix) {
            (Some(msix), Some(state)) => msix.restore(state)?,
            (None, None) => {}
            _ => return Err(invalid()),
        }
        (front.isr, front.config_vector, front.queue_vectors) = (isr, config_vector, queue_vectors);
        self.settle(&mut front);
        drop(front);
        // Whoever looked for buffers all the time had told the driver to be silent.
        self.notify_all();
        Ok(())
    }
}

/// The capabilities that say where the structures are (§4.1.4): where the last one is, that reaches them through the
/// configuration space.
fn add_capabilities(config: &mut ConfigSpace, queues: u64) -> Option<u8> {
    const VENDOR_SPECIFIC: u8 = 9;
    let structures = [
        (1, COMMON, COMMON_SIZE),
        (3, ISR, 1),
        (4, CONFIG, NOTIFY - CONFIG),
        (2, NOTIFY, queues * NOTIFY_MULTIPLIER),
        (5, 0, 0),
    ];
    let mut last = None;
    for (kind, offset, length) in structures {
        let mut body = vec![0, kind, MODERN_BAR as u8, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((length as u32).to_le_bytes());
        let mut writable = Vec::new();
        match kind {
            2 => body.extend((NOTIFY_MULTIPLIER as u32).to_le_bytes()),
            5 => {
                body[2] = 0;
                body.extend([0; 4]);
                writable = vec![0, 0, 0xff, 0, 0, 0];
                writable.extend([0xff; 12]);
            }
            _ => {}
        }
        body[0] = body.len() as u8 + 2;
        last = config.add_capability(VENDOR_SPECIFIC, &body, &writable);
    }
    last
}

struct Events(Weak<VirtioPci>);

impl QueueEvents for Events {
    fn used(&self, index: u16) {
        if let Some(function) = self.0.upgrade() {
            let index = usize::from(index);
            function.interrupt(ISR_QUEUE, |front| front.queue_vectors.get(index).copied().unwrap_or(NO_VECTOR));
        }
    }

    fn broken(&self, index: u16) {
        let Some(function) = self.0.upgrade() else { return };
        // Whoever resets the device holds these meanwhile: what broke before a reset is not told after it.
        let mut registers = function.registers.lock();
        if function.queue(index).is_some_and(|queue| queue.is_broken()) {
            // §2.1.2: the driver is told.
            registers.break_down();
            function.interrupt(ISR_CONFIG, |front| front.config_vector);
        }
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&self, offset: u8, width: Width) -> u32 {
        if self.is_access_data(offset) {
            self.read_window();
        }
        self.front.lock().config.read(offset, width)
    }

    fn write_config(&self, offset: u8, width: Width, value: u32) {
        let started = {
            let mut front = self.front.lock();
            let before = front.config.command().bus_master();
            front.config.write(offset, width, value);
            self.settle(&mut front);
            front.config.command().bus_master() && !before
        };
        if self.is_access_data(offset) {
            self.write_window(value);
        }
        if started {
            self.notify_all();
        }
    }

    fn config(&self) -> ConfigSpace {
        self.front.lock().config.clone()
    }

    fn set_forwarded(&self, forwarded: &Forwarded) {
        self.windows.set_forwarded(forwarded);
        self.windows.update(&self.front.lock().config);
    }
}

impl Stateful for VirtioPci {
    fn kind(&self) -> &'static str {
        self.device.device_type().name
    }

    fn version(&self) -> u32 {
        1
    }

    fn save_value(&self) -> Result<Value, SaveError> {
        to_value(self.kind(), &self.save())
    }

    fn load_value(&self, state: &Value) -> Result<(), LoadError> {
        self.restore(from_value(self.kind(), state)?)
    }
}

impl Device for VirtioPci {
    fn reset(&self) {
        self.start_over(&mut self.registers.lock());
        let mut front = self.front.lock();
        front.config = self.pristine.clone();
        if let Some(msix) = &mut front.msix {
            msix.reset();
        }
        self.settle(&mut front);
    }
}

struct VectorsWindow(Weak<VirtioPci>);

impl Mmio for VectorsWindow {
    fn name(&self) -> &str {
        "msix"
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        let Some(function) = self.0.upgrade() else { return 0 };
        let front = function.front.lock();
        front.msix.as_ref().map_or(0, |msix| msix.read(offset, width))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let Some(function) = self.0.upgrade() {
            let mut front = function.front.lock();
            let Front { config, msix, .. } = &mut *front;
            if let Some(msix) = msix {
                function.send(msix.write(config, offset, width, value));
            }
        }
    }
}

#[cfg(test)]
mod tests;
