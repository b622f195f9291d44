//! The PC: 440FX and PIIX chips, sockets for processors, direct start of its software.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rhea_api::run_state::ShutdownCause;
use rhea_backends::clock::HostClock;
use rhea_core::{
    AddressSpace, Device, HostTime, InterruptLine, InterruptSink, Mmio, Stateful, ToldHostTime,
    memory::Target,
    object::{Fixed, Object, Settings as _, Typed as _},
};
use rhea_devices::{
    Saveable as _,
    acpi::{
        generation::{self, GenerationId},
        pm::{HiddenStates, Pm, SleepRequest, WakeCause},
    },
    char::{
        debugcon::{Debugcon, DebugconSettings},
        uart::SerialSettings,
    },
    chipset::{
        coprocessor::CoprocessorErrors,
        hpet::MmioHpet,
        ioapic::IoApic,
        lapic::{ApicBus, Inspection},
        pci::{HostBridge, IsaBridge, MessageSink, PciBus, PciFunction, SlotFunction, map_message_space},
        pic::Pic,
        pit::IsaPit,
        reset::ResetPorts,
        wires::{IsaInterrupts, SharedWire},
    },
    input::Ps2,
    misc::{
        fw_cfg::FwCfg,
        rtc::{IsaRtc, RtcOptions},
    },
};
use rhea_x86::{bus::SystemBus, state::reg};

use super::{
    Board,
    bios::BiosArea,
    debug_log::DebugLog,
    hotplug::Hotplug,
    ram::{self, BoardRam, HIGH_RAM, LOW_RAM_LIMIT, Window},
    shown::{InterruptControllers, LoadedItem, Place},
    smbios,
    sockets::{Shown, Sockets, set_memory_types},
    vmcoreinfo,
};
use crate::{
    acpi::{self, Affinity, IO_APIC_ADDRESS, MemoryAffinity, Platform, PossibleProcessor},
    boot::{Entry, LoadError, MemoryMap, buses, multiboot, parameters, start},
    boot_order::{BootOrder, BootPlace},
    config::{Config, Hidden, Software},
    devices::{error::DeviceError, isa_bus::IsaBus, pci_bus::PciSlots},
    error::MachineError,
    firmware::{self, About, Firmware},
    inbox::GuestRequest,
    input::Input,
    numa::Numa,
    parts::Parts,
    processors::{self, Processors},
    smbios::Tables,
    state::part::{BoardParts, Part},
};

/// The machine `pc`.
#[derive(Object)]
#[object(type = "pc-i440fx-10.0-machine", parent = "generic-pc-machine", settings)]
pub(crate) struct PcSettings {
    /// ACPI tables: on or off.
    #[property(default = "on")]
    acpi: String,
    /// The high precision event timer.
    #[property(default = true)]
    hpet: bool,
    /// A USB controller.
    #[property(default = false)]
    usb: bool,
    /// A graphical console.
    #[property(default = false)]
    graphics: bool,
}

/// What the machine tells of itself.
pub(crate) fn object(hidden: Hidden) -> Arc<dyn Object> {
    let Hidden { acpi, hpet } = hidden;
    let acpi = if acpi { "off" } else { "on" }.to_owned();
    Arc::new(Fixed(PcSettings { acpi, hpet: !hpet, ..PcSettings::defaults() }))
}

/// The chip that holds the host bridge and its bus.
#[derive(Object)]
#[object(type = "i440FX-pcihost", parent = "sys-bus-device")]
pub(crate) struct PciHost;

/// Where the ACPI root pointer goes: in the area that operating systems search.
const ROOT_POINTER: u64 = 0xf_0000;
/// The frame buffer window of a VGA card, where RAM does not answer.
const VGA_WINDOW: (u64, u64) = (0xa_0000, 0x2_0000);

/// Ports of the debug console: what firmware and bare guests print there goes to this program's log.
const DEBUG_CONSOLE: [u16; 2] = [0xe9, 0x402];

/// The byte of the clock's memory from which firmware learns why it starts, and what it is after suspend to RAM.
const RESET_CODE: u8 = 0x0f;
const RESUME: u8 = 0xfe;

/// Selectors of what firmware asks for by number.
mod fw_cfg_key {
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const NB_CPUS: u16 = 0x05;
    pub(super) const MAX_CPUS: u16 = 0x0f;
}

/// The board.
pub struct Pc {
    memory: Arc<AddressSpace>,
    map: MemoryMap,
    numa: Arc<Numa>,
    /// Which of its nodes has what memory.
    affinity: Vec<MemoryAffinity>,
    /// First address of the PCI memory window below 4 GiB, and the window above all memory.
    pci_window: u32,
    high_pci_window: Option<(u64, u64)>,
    /// Where modules may come.
    module_window: Option<Window>,
    software: Software,
    apics: Arc<ApicBus>,
    sockets: Sockets,
    /// What the board tells firmware, and the firmware, if there is one.
    items: Arc<FwCfg>,
    firmware: Option<Firmware>,
    /// What it tries to boot; the places of option ROMs in that are kept here.
    boot_order: Arc<BootOrder>,
    _option_rom_places: Vec<Arc<BootPlace>>,
    /// Whether it has been started once.
    booted: AtomicBool,
    bios: Arc<BiosArea>,
    host_bridge: Arc<HostBridge>,
    input: Arc<Input>,
    power: Arc<Pm>,
    hotplug: Hotplug,
    generation_id: OnceLock<Arc<GenerationId>>,
    /// Number of the configuration item in which the guest tells of its note for dumps.
    vmcoreinfo: OnceLock<u16>,
    panic_port: OnceLock<u16>,
    /// Tables of the user's.
    given_tables: Vec<Vec<u8>>,
    hidden: Hidden,
    /// What the machine is called and made of.
    identity: Tables,
    pci: Arc<PciBus>,
    /// The clock, and where in the tree it is.
    clock: (Arc<IsaRtc>, String),
    /// Everything that a reset resets, in order.
    devices: Vec<Arc<dyn Device>>,
    isa: Arc<IsaBus>,
    /// What is saved by name, in order of loading.
    saved: Vec<(&'static str, Arc<dyn Stateful>)>,
    pic: Arc<Pic>,
    io_apic: Arc<IoApic>,
}

/// A window in which nothing answers: reads are all ones, as on an open bus.
struct Nothing;

impl Mmio for Nothing {
    fn name(&self) -> &str {
        "vga-window"
    }

    fn read(&self, _: u64, width: rhea_core::Width) -> u64 {
        width.ones()
    }

    fn write(&self, _: u64, _: rhea_core::Width, _: u64) {}
}

impl Pc {
    /// Builds the board, with the processors that are there from the start.
    ///
    /// # Errors
    /// The host cannot give the memory or the threads.
    pub fn build(config: &Config, parts: &Parts) -> Result<Self, MachineError> {
        let Parts { memory, ports, timers, inbox, taps, numa, objects, boot_order, .. } = parts;
        let firmware = config.firmware.as_ref();
        let option_rom_places = firmware.map(|firmware| firmware.places(boot_order)).transpose()?.unwrap_or_default();
        let BoardRam { map, affinity, window: module_window } = ram::build(config, numa, memory, objects)?;
        memory.map(VGA_WINDOW.0, VGA_WINDOW.1, 1, Target::Mmio(Arc::new(Nothing)));

        let topology = &config.topology;
        let apics = ApicBus::new(timers);
        let interrupt = taps.outputs("isa-i8259", 1, Arc::clone(&apics) as Arc<dyn InterruptSink>);
        let pic = Pic::new(InterruptLine::new(interrupt, 0));
        apics.connect_pic(&pic);
        pic.map(ports);
        let io_apic = IoApic::new(Arc::clone(&apics));
        memory.map(u64::from(IO_APIC_ADDRESS), 0x1000, 1, Target::Mmio(Arc::clone(&io_apic) as Arc<dyn Mmio>));

        map_message_space(memory, Arc::clone(&apics) as Arc<dyn MessageSink>);

        let pic_inputs = taps.inputs("isa-i8259", 16, Arc::clone(&pic) as Arc<dyn InterruptSink>);
        let io_apic_inputs = taps.inputs("ioapic", 24, Arc::clone(&io_apic) as Arc<dyn InterruptSink>);
        let isa = IsaInterrupts::new(&pic_inputs, &io_apic_inputs);
        // Inputs that no ISA interrupt uses are free for the timer.
        let routes = (16..24).map(|input| (input, isa.line(usize::from(input)))).collect();
        let sci = isa.line(usize::from(acpi::SCI));
        let globals = config.globals.among(objects.tree().types());
        let hidden = |name| Ok::<_, MachineError>(globals.value::<u8>(Pm::INFO, name)?.unwrap_or_default());
        let hidden = HiddenStates { s3: hidden("disable_s3")?, s4: hidden("disable_s4")? };
        let power = Pm::new(timers, sci, Arc::clone(ports), acpi::ports::PM1A_EVENT, hidden);
        let policy = |info| Ok::<_, MachineError>(globals.value(info, "lost_tick_policy")?.unwrap_or_default());
        let (legacy, taken) = ([isa.line(0), isa.line(8)], apics.taken());
        let hpet = MmioHpet::new(timers, legacy, routes, policy(MmioHpet::INFO)?, taken);
        if !config.hidden.hpet {
            memory.map(acpi::HPET_ADDRESS, 0x400, 1, Target::Mmio(Arc::clone(&hpet) as Arc<dyn Mmio>));
        }
        let hpet_input = |input| InterruptLine::new(Arc::clone(&hpet) as Arc<dyn InterruptSink>, input);
        let pit = IsaPit::new(timers, hpet_input(0), policy(IsaPit::INFO)?, taken);
        pit.map(ports);
        let host: Arc<dyn HostTime> = match timers.clock() {
            clock if clock.is_told() => Arc::new(ToldHostTime::new(Arc::clone(clock), &HostClock::new())),
            _ => Arc::new(HostClock::new()),
        };
        // The clock's alarm is an event of power management as well, also while the other timer has its interrupt.
        let alarm = InterruptLine::new(Arc::clone(&power) as Arc<dyn InterruptSink>, 0);
        let interrupt_8 = SharedWire::new(vec![hpet_input(1), alarm]);
        let lost_tick_policy = globals.value(IsaRtc::INFO, "lost_tick_policy")?.unwrap_or_default();
        let options = RtcOptions { lost_tick_policy, ..config.rtc };
        let rtc = IsaRtc::new(timers, interrupt_8.driver(), &options, host);
        rtc.map(ports);
        rtc.set_memory_size(map.below_4g(), config.ram - map.below_4g());

        let reset_inbox = Arc::clone(inbox);
        let on_reset: Arc<dyn Fn() + Send + Sync> =
            Arc::new(move || reset_inbox.leave(GuestRequest::Reset(ShutdownCause::GuestReset)));
        // The gate does what it was told last, by whichever of its two switches.
        let gated = Arc::clone(&parts.processors);
        let on_a20: Arc<dyn Fn(bool) + Send + Sync> = Arc::new(move |open| {
            for processor in gated.list() {
                processor.requests().set_a20(open);
            }
        });
        let reset = ResetPorts::new(Arc::clone(&on_reset), Arc::clone(&on_a20));
        reset.map(ports);
        let keyboard = Ps2::new(isa.line(1), isa.line(12), on_reset, on_a20);
        keyboard.map(ports);
        let input = Input::new(&keyboard, timers);
        let first = Arc::clone(&parts.processors);
        let on_ignored = move || {
            if let Some(processor) = first.get(0) {
                processor.look_again();
            }
        };
        let coprocessor = CoprocessorErrors::new(isa.line(13), Arc::new(on_ignored));
        coprocessor.map(ports);

        let items = FwCfg::new(Arc::clone(memory));
        items.map(ports);
        items.set(fw_cfg_key::RAM_SIZE, config.ram.to_le_bytes());
        let apic_ids: Vec<u32> =
            (0..topology.max_cpus()).filter_map(|index| topology.apic_id(index).map(u32::from)).collect();
        // Firmware counts by identifications here, which have gaps.
        let limit = apic_ids.last().map_or(0, |last| last + 1);
        items.set(fw_cfg_key::MAX_CPUS, (limit as u16).to_le_bytes());
        let debug_settings = DebugconSettings::defaults();
        let debug_console = Debugcon::new(Arc::new(DebugLog::default()), debug_settings.readback as u8);
        for port in DEBUG_CONSOLE {
            debug_console.map(ports, port);
        }

        let wake_inbox = Arc::clone(inbox);
        power.on_wake(Box::new(move |cause| wake_inbox.leave(GuestRequest::Wake(cause))));
        let sleep_inbox = Arc::clone(inbox);
        power.on_sleep(Box::new(move |request| match request {
            SleepRequest::S3 => sleep_inbox.leave(GuestRequest::Suspend),
            SleepRequest::S5 => sleep_inbox.leave(GuestRequest::Shutdown(ShutdownCause::GuestShutdown)),
            SleepRequest::S4 => sleep_inbox.leave(GuestRequest::SuspendToDisk),
        }));

        let hotplug = Hotplug::new(&power, inbox, ports, &apic_ids, topology.cpus as usize, config.memory.slots);

        let isa_bridge = IsaBridge::new(std::array::from_fn(|irq| isa.line(irq)));
        let pci = PciBus::new(&(Arc::clone(&isa_bridge) as Arc<dyn InterruptSink>));
        pci.map(ports);
        let host_bridge = HostBridge::new();
        let bios = BiosArea::new(memory, &parts.processors, firmware, &host_bridge)?;
        let functions: [(u8, u8, Arc<dyn PciFunction>); 3] = [
            (0, 0, Arc::clone(&host_bridge) as _),
            (1, 0, Arc::clone(&isa_bridge) as _),
            (1, 3, Arc::clone(&power) as _),
        ];
        for (slot, function, device) in functions {
            pci.add(SlotFunction { slot, function }, device)?;
        }

        let isa = IsaBus::new(isa);
        let mut serials = Vec::new();
        for (index, backend) in (0..).zip(&config.serials) {
            let Some(id) = backend else { continue };
            let mut settings = SerialSettings::given(&globals.of(SerialSettings::INFO)?).map_err(DeviceError::from)?;
            (settings.index, settings.chardev) = (index, Some(id.clone()));
            serials.push(isa.add_serial(parts, settings)?);
        }

        let pci_window = map.below_4g().max(LOW_RAM_LIMIT) as u32;
        let model = processors::model_of(&config.processor, globals)?;
        let memory_end = module_window.map_or(HIGH_RAM + map.above_4g(), Window::end);
        let high_pci_window = ram::high_pci_window(memory_end, model.physical_bits());
        let identity = smbios::build(config, &map, &model)?;
        let sockets = Sockets::new(*topology, model, &apics, Arc::clone(&coprocessor), parts, pci_window);
        for index in 0..topology.cpus {
            sockets.add(index as usize, None, Shown::Board)?;
        }
        let host = objects.attach_to(objects.machine(), "i440fx", Arc::new(PciHost))?;
        objects.attach_to(host, "pci.0", PciSlots::first(&pci))?;
        objects.attach_to(host, "ioapic", Arc::clone(&io_apic) as Arc<dyn Object>)?;
        objects.attach_to(objects.machine(), "fw_cfg", Arc::clone(&items) as Arc<dyn Object>)?;
        objects.attach(Arc::clone(&host_bridge) as Arc<dyn Object>)?;
        let node = objects.attach(Arc::clone(&isa_bridge) as Arc<dyn Object>)?;
        objects.attach_to(node, "isa.0", Arc::clone(&isa) as Arc<dyn Object>)?;
        if !config.hidden.hpet {
            objects.attach(Arc::clone(&hpet) as Arc<dyn Object>)?;
        }
        let parts: [Arc<dyn Object>; 6] = [
            Arc::clone(&power) as _,
            Arc::clone(&pic) as _,
            Arc::clone(&pit) as _,
            Arc::clone(&reset) as _,
            Arc::clone(&keyboard) as _,
            Arc::new(Fixed(debug_settings)),
        ];
        for part in parts {
            objects.attach(part)?;
        }
        let node = objects.attach(Arc::clone(&rtc) as Arc<dyn Object>)?;
        objects.tree().link(objects.machine(), "rtc_state", "mc146818rtc", Some(node))?;
        let clock = (Arc::clone(&rtc), objects.tree().path(node));
        for settings in serials {
            objects.attach(Arc::new(Fixed(settings)))?;
        }

        // Lines move while devices are reset. The interrupt controllers come first, so that nothing of that reaches a
        // processor, and last, so that they forget it.
        let saved: Vec<(_, Arc<dyn Stateful>)> = vec![
            ("fw_cfg", Arc::clone(&items) as _),
            ("hpet", Arc::clone(&hpet) as _),
            ("isa-pit", Arc::clone(&pit) as _),
            ("rtc", Arc::clone(&rtc) as _),
            ("port92", Arc::clone(&reset) as _),
            ("i8042", Arc::clone(&keyboard) as _),
            ("coprocessor", Arc::clone(&coprocessor) as _),
            ("cpu-hotplug", Arc::clone(&hotplug.processors) as _),
            ("memory-hotplug", Arc::clone(&hotplug.memory) as _),
            ("pci-hotplug", Arc::clone(&hotplug.pci) as _),
        ];
        let controllers: [Arc<dyn Device>; 3] =
            [Arc::clone(&pic) as _, Arc::clone(&apics) as _, Arc::clone(&io_apic) as _];
        let mut devices = Vec::from(controllers.clone());
        let others: [Arc<dyn Device>; 8] =
            [hpet, pit, rtc, reset, keyboard, coprocessor, Arc::clone(&items) as _, Arc::clone(&pci) as _];
        devices.extend(others);
        devices.push(Arc::clone(&isa) as _);
        devices.extend(hotplug.devices());
        devices.extend(controllers);
        let software = config.software.clone();
        let (memory, numa) = (Arc::clone(memory), Arc::clone(numa));
        let (generation_id, given_tables) = (OnceLock::new(), config.acpi_tables.clone());
        Ok(Self {
            memory,
            map,
            numa,
            affinity,
            pci_window,
            high_pci_window,
            module_window,
            software,
            apics,
            sockets,
            items,
            firmware: config.firmware.clone(),
            boot_order: Arc::clone(boot_order),
            _option_rom_places: option_rom_places,
            booted: AtomicBool::new(false),
            bios,
            host_bridge,
            input,
            power,
            hotplug,
            generation_id,
            vmcoreinfo: OnceLock::new(),
            panic_port: OnceLock::new(),
            given_tables,
            hidden: config.hidden,
            identity,
            pci,
            clock,
            devices,
            isa,
            saved,
            pic,
            io_apic,
        })
    }

    /// The machine as it is now, for the tables.
    fn platform(&self) -> Platform {
        let processors = &self.hotplug.processors;
        let ids = processors.apic_ids();
        let node = |index| self.numa.processor(index).map(u32::from);
        let processor = |(index, &apic_id): (usize, &u32)| PossibleProcessor {
            apic_id: apic_id as u8,
            present: processors.is_present(index as u32),
            node: node(index),
        };
        let in_node = |(index, &apic_id): (usize, &u32)| Some((apic_id as u8, node(index)?));
        Platform {
            processors: ids.iter().enumerate().map(processor).collect(),
            memory_slots: self.hotplug.memory.slots(),
            hotplug_buses: self.hotplug.buses(),
            pci_window: self.pci_window,
            high_pci_window: self.high_pci_window,
            affinity: (!self.numa.nodes().is_empty()).then(|| Affinity {
                processors: ids.iter().enumerate().filter_map(in_node).collect(),
                memory: self.affinity.clone(),
                distances: self.numa.distances().to_vec(),
            }),
            generation_id: self.generation_id.get().map(|generation| generation.address() as u32),
            panic_port: self.panic_port.get().copied(),
            sleep_states: self.power.offered(),
            hpet: !self.hidden.hpet,
            given: self.given_tables.clone(),
        }
    }

    /// Writes the firmware's tables, and loads the software; gives how it starts.
    fn load(&self) -> Result<Option<Entry>, LoadError> {
        self.items.set(fw_cfg_key::NB_CPUS, (self.apics.apics().len() as u16).to_le_bytes());
        if let Some(firmware) = &self.firmware {
            self.brief(firmware)?;
            return Ok(None);
        }
        let root_pointer = self.place_tables()?;
        smbios::place(&self.identity, &self.bios);
        if let Some(generation) = self.generation_id.get() {
            generation.reset();
        }
        start::write_tables(&self.memory);
        match &self.software {
            Software::None => Ok(None),
            Software::Linux(kernel) => kernel.load(&self.memory, &self.map, root_pointer).map(Some),
            Software::Multiboot(program) => program.load(&self.memory, &self.map).map(Some),
            Software::Flat { image, address, entry, uses } => {
                let needs = (*uses).max(image.len() as u64);
                if !self.map.usable_below_4g(*address, address.saturating_add(needs)) {
                    return Err(LoadError::Memory { what: "the guest", needs });
                }
                self.memory.write(*address, image);
                self.memory.write(parameters::ADDRESS, &parameters::page(&self.map, root_pointer));
                Ok(Some(Entry::Long { rip: *entry, rsi: parameters::ADDRESS }))
            }
        }
    }

    /// Writes the ACPI tables as firmware would; gives where their root pointer is, 0 if the guest is to have none.
    fn place_tables(&self) -> Result<u64, LoadError> {
        if self.hidden.acpi {
            return Ok(0);
        }
        let tables = acpi::build(&self.platform(), self.map.facs() as u32, self.map.acpi_tables() as u32);
        let needs = tables.tables.len() as u64;
        if needs > self.map.acpi_tables_length() {
            return Err(LoadError::Memory { what: "the ACPI tables", needs });
        }
        self.bios.write_behind(ROOT_POINTER, &tables.root_pointer);
        self.memory.write(self.map.facs(), &tables.facs);
        self.memory.write(self.map.acpi_tables(), &tables.tables);
        Ok(ROOT_POINTER)
    }

    /// Gives firmware what it is to place, and tells it what to boot.
    fn brief(&self, firmware: &Firmware) -> Result<(), LoadError> {
        let kept = self.generation_id.get();
        if let Some(generation) = kept {
            generation.reset();
        }
        let about = About {
            reserve_tables: kept.is_some(),
            reserved_end: self.module_window.map(Window::end),
            order: &self.boot_order,
        };
        firmware.introduce(&self.items, &self.map, &about)?;
        firmware.tell_order(&self.clock.0, !self.booted.swap(true, Ordering::Relaxed));
        if !self.hidden.acpi {
            let tables = acpi::build(&self.platform(), 0, acpi::loader::FACS_LENGTH);
            firmware::give_tables(&self.items, acpi::loader::files(tables))?;
        }
        smbios::give(&self.identity, &self.items)?;
        match &self.software {
            Software::Linux(kernel) => firmware::offer_kernel(&self.items, kernel.offer(&self.map)?),
            Software::Multiboot(program) => firmware::offer_program(&self.items, program.offer(&self.map)?),
            Software::None | Software::Flat { .. } => {}
        }
        Ok(())
    }

    /// Has firmware wake the operating system: it starts as after a reset, but finds itself in shadow RAM, and a byte that
    /// says what for.
    fn wake_by_firmware(&self, processors: &Processors, cause: WakeCause) -> Result<(), MachineError> {
        let shadow = self.host_bridge.save();
        self.reset_devices();
        let stays = |_| MachineError::Unsupported("the host bridge does not take its state back");
        self.host_bridge.restore(shadow).map_err(stays)?;
        self.clock.0.set_memory(RESET_CODE, RESUME);
        self.power.wake(cause);
        self.reset_processors(processors, None);
        Ok(())
    }

    /// Devices as firmware leaves them, after a reset of all.
    fn reset_devices(&self) {
        for device in &self.devices {
            device.reset();
        }
        for apic in self.apics.apics().iter() {
            apic.set_virtual_wire();
        }
        // A test wants the chips as they are after power-on, and so does firmware.
        if self.firmware.is_none() && !matches!(self.software, Software::None) {
            self.host_bridge.open_bios_area();
            buses::set_up(self.pci.slots());
        }
    }

    /// Processors in their reset state, the first one at `entry`.
    fn reset_processors(&self, processors: &Processors, entry: Option<Entry>) {
        let (pci_window, has_firmware) = (self.pci_window, self.firmware.is_some());
        for processor in processors.list() {
            let entry = entry.filter(|_| processor.index() == 0);
            processor.with(move |vcpu| {
                vcpu.reset();
                let cpu = vcpu.state_mut();
                cpu.requests.set_a20(true);
                if !has_firmware {
                    set_memory_types(cpu, pci_window);
                }
                match entry {
                    None => {}
                    Some(Entry::Long { rip, rsi }) => {
                        cpu.start_long(rip, rsi, start::PAGE_TABLES, start::GDT, start::GDT_LIMIT);
                    }
                    Some(Entry::Multiboot { eip, information }) => {
                        cpu.start_protected(eip, information, start::GDT, start::GDT_LIMIT);
                        cpu.gpr[usize::from(reg::RAX)] = multiboot::LOADER_MAGIC.into();
                    }
                    Some(Entry::Protected { eip, esi }) => {
                        cpu.start_protected(eip, 0, start::GDT, start::GDT_LIMIT);
                        cpu.gpr[usize::from(reg::RSI)] = esi.into();
                    }
                    Some(Entry::Real { address }) => cpu.start_real(address),
                }
            });
        }
    }
}

impl Board for Pc {
    fn reset(&self, processors: &Processors) -> Result<(), MachineError> {
        self.reset_devices();
        let entry = self.load()?;
        self.reset_processors(processors, entry);
        Ok(())
    }

    fn wake(&self, processors: &Processors, cause: WakeCause) -> Result<(), MachineError> {
        if self.firmware.is_some() {
            return self.wake_by_firmware(processors, cause);
        }
        // The operating system left its waking vector in the FACS (ACPI 5.0 § 5.2.10).
        let vector = self.memory.read_value(self.map.facs() + 12, rhea_core::Width::Dword) as u32;
        if vector == 0 || vector >= 0x10_0000 {
            return Err(MachineError::Unsupported("the guest left no waking vector"));
        }
        self.reset_devices();
        self.power.wake(cause);
        self.reset_processors(processors, Some(Entry::Real { address: vector }));
        Ok(())
    }

    fn parts(&self) -> BoardParts {
        let mut devices: Vec<Part> =
            self.saved.iter().map(|(place, part)| Part::new(*place, Arc::clone(part))).collect();
        devices.extend(self.isa.parts());
        let mut controllers = vec![
            Part::new("isa-i8259", Arc::clone(&self.pic) as _),
            Part::new("ioapic", Arc::clone(&self.io_apic) as _),
        ];
        let apics = self.apics.apics();
        controllers.extend(apics.iter().map(|apic| Part::new(format!("apic.{}", apic.index()), Arc::clone(apic) as _)));
        BoardParts { devices, controllers }
    }

    fn drive_wires(&self) {
        self.isa.interrupts().drive();
    }

    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>> {
        self.sockets.first_bus()
    }

    fn sockets(&self) -> Option<&Sockets> {
        Some(&self.sockets)
    }

    fn power_button(&self) {
        self.power.press_power_button();
    }

    fn nmi(&self) -> Result<(), MachineError> {
        for apic in self.apics.apics().iter() {
            apic.set_lint(1, true);
            apic.set_lint(1, false);
        }
        Ok(())
    }

    fn vmcoreinfo(&self) -> Option<(u64, u64)> {
        vmcoreinfo::note(&self.items.written(*self.vmcoreinfo.get()?)?)
    }

    fn add_vmcoreinfo(&self) -> Result<(), MachineError> {
        const SECOND: MachineError = MachineError::Unsupported("at most one vmcoreinfo device is permitted");
        if self.vmcoreinfo.get().is_some() {
            return Err(SECOND);
        }
        let failed = |_| MachineError::Unsupported("no room for another configuration item");
        let key = self.items.add_writable_file(vmcoreinfo::ITEM, vmcoreinfo::empty()).map_err(failed)?;
        self.vmcoreinfo.set(key).map_err(|_| SECOND)
    }

    fn generation_id(&self) -> Option<Arc<GenerationId>> {
        self.generation_id.get().cloned()
    }

    fn add_generation_id(&self, bytes: [u8; 16]) -> Result<Arc<GenerationId>, MachineError> {
        let power = Arc::clone(&self.power);
        let raise = Arc::new(move || power.raise_gpe(generation::EVENT));
        let made = GenerationId::new(Arc::clone(&self.memory), self.map.generation_id(), raise, bytes);
        let second = |_| MachineError::Unsupported("at most one vmgenid device is permitted");
        self.generation_id.set(Arc::clone(&made)).map_err(second)?;
        Ok(made)
    }

    fn set_panic_port(&self, port: u16) -> Result<(), MachineError> {
        let second = |_| MachineError::Unsupported("at most one pvpanic device is permitted");
        self.panic_port.set(port).map_err(second)
    }

    fn hotplug(&self) -> Option<&Hotplug> {
        Some(&self.hotplug)
    }

    fn pci(&self) -> Option<&Arc<PciBus>> {
        Some(&self.pci)
    }

    fn interrupt_controllers(&self) -> Option<InterruptControllers> {
        Some(InterruptControllers { pic: self.pic.save(), io_apic: self.io_apic.save() })
    }

    fn local_apic(&self, id: u8) -> Option<Inspection> {
        self.apics.apics().iter().find(|apic| apic.id() == id).map(|apic| apic.inspect())
    }

    fn loaded_items(&self) -> Vec<LoadedItem> {
        let files = self.items.files().into_iter();
        let files = files.map(|(name, size)| LoadedItem { name, size: size as u64, place: Place::Offered });
        let loaded = match &self.firmware {
            // It fetches the tables itself.
            Some(Firmware { name, image, .. }) => LoadedItem {
                name: name.clone(),
                size: image.len() as u64,
                place: Place::Rom((1 << 32) - image.len() as u64),
            },
            None => LoadedItem {
                name: acpi::loader::TABLES.to_owned(),
                size: self.map.acpi_tables_length(),
                place: Place::Ram(self.map.acpi_tables()),
            },
        };
        [loaded].into_iter().chain(files).collect()
    }

    fn input(&self) -> Option<&Input> {
        Some(&self.input)
    }

    fn clock(&self) -> Option<(&Arc<IsaRtc>, &str)> {
        Some((&self.clock.0, &self.clock.1))
    }

    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        Some(Arc::clone(&self.apics) as Arc<dyn MessageSink>)
    }
}
