//! The PC: 440FX and PIIX chips, up to eight processors, direct start of its software.

use std::sync::{Arc, OnceLock};

use rhea_api::run_state::ShutdownCause;
use rhea_backends::clock::HostClock;
use rhea_core::{
    AddressSpace, Device, HostTime, InterruptLine, InterruptSink, Mmio, ToldHostTime,
    memory::Target,
    object::{Fixed, Object},
};
use rhea_devices::{
    acpi::{
        generation::{self, GenerationId},
        pm::{Pm, SleepRequest, WakeCause},
    },
    char::{
        debugcon::Debugcon,
        uart::{Serial, SerialSettings},
    },
    chipset::{
        hpet::MmioHpet,
        ioapic::IoApic,
        lapic::{ApicBus, ProcessorPins},
        pci::{HostBridge, IsaBridge, MessageSink, PciBus, PciFunction, SlotFunction, map_message_space},
        pic::Pic,
        pit::IsaPit,
        reset::ResetPorts,
        wires::{IsaInterrupts, SharedWire},
    },
    input::Ps2,
    misc::{fw_cfg::FwCfg, rtc::IsaRtc},
};
use rhea_x86::{
    bus::SystemBus,
    engine::{Vcpu, VcpuConfig},
    state::CpuState,
    system::cpuid::{CpuidTable, Topology as CpuidTopology},
};

use super::{
    Board,
    debug_log::DebugLog,
    hotplug::Hotplug,
    processor_bus::ProcessorBus,
    ram::{self, BoardRam, HIGH_RAM, LOW_RAM_LIMIT},
};
use crate::{
    MachineError,
    acpi::{self, Affinity, IO_APIC_ADDRESS, MemoryAffinity, Platform, PossibleProcessor},
    boot::{Entry, LoadError, MemoryMap, parameters, start},
    config::{Config, Software},
    devices::{PciSlots, connect_serial},
    inbox::GuestRequest,
    numa::Numa,
    objects::PciHost,
    parts::Parts,
    processors::{Processor, Processors},
};

/// Where the ACPI root pointer goes: in the area that operating systems search.
const ROOT_POINTER: u64 = 0xf_0000;
/// The frame buffer window of a VGA card, where RAM does not answer.
const VGA_WINDOW: (u64, u64) = (0xa_0000, 0x2_0000);

/// The time stamp counter counts nanoseconds.
const TSC_KHZ: u32 = 1_000_000;
/// So does the local APICs' timer, before its divider.
const APIC_KHZ: u32 = 1_000_000;

/// More processors than an APIC identifier of eight bits can tell apart cannot be.
const MOST_APICS: u32 = 255;

/// Ports of the debug console: what firmware and bare guests print there goes to this program's log.
const DEBUG_CONSOLE: [u16; 2] = [0xe9, 0x402];

/// Selectors of what firmware asks for by number.
mod fw_cfg_key {
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const NB_CPUS: u16 = 0x05;
    pub(super) const MAX_CPUS: u16 = 0x0f;
}

/// Port and interrupt of each serial port.
const SERIAL: [(u16, usize); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// The board.
pub struct Pc {
    memory: Arc<AddressSpace>,
    map: MemoryMap,
    numa: Arc<Numa>,
    /// Which of its nodes has what memory.
    affinity: Vec<MemoryAffinity>,
    /// First address of the PCI memory window below 4 GiB.
    pci_window: u32,
    software: Software,
    apics: Arc<ApicBus>,
    first_bus: Option<Arc<dyn SystemBus>>,
    power: Arc<Pm>,
    hotplug: Hotplug,
    generation_id: OnceLock<Arc<GenerationId>>,
    /// Tables of the user's.
    given_tables: Vec<Vec<u8>>,
    pci: Arc<PciBus>,
    /// The clock, and where in the tree it is.
    clock: (Arc<IsaRtc>, String),
    /// Everything that a reset resets, in order.
    devices: Vec<Arc<dyn Device>>,
}

/// A window in which nothing answers: reads are all ones, as on an open bus.
struct Nothing;

impl Mmio for Nothing {
    fn read(&self, _: u64, width: rhea_core::Width) -> u64 {
        width.ones()
    }

    fn write(&self, _: u64, _: rhea_core::Width, _: u64) {}
}

type Built = (Pc, Vec<Arc<Processor>>, Vec<Box<Vcpu>>);

impl Pc {
    /// Builds the board and its processors.
    ///
    /// # Errors
    /// The host cannot give the memory.
    pub fn build(config: &Config, parts: &Parts) -> Result<Built, MachineError> {
        let Parts { memory, ports, timers, inbox, code_epoch, taps, gate: _, numa, objects, backends } = parts;
        let BoardRam { map, affinity } = ram::build(config, numa, memory, objects)?;
        memory.map(VGA_WINDOW.0, VGA_WINDOW.1, 1, Target::Mmio(Arc::new(Nothing)));

        let topology = &config.topology;
        let processors: Vec<Arc<Processor>> = (0..topology.cpus)
            .map(|index| Processor::new(index as usize, index as u8, topology.place(index)))
            .collect();
        let pins = processors.iter().map(|processor| Arc::clone(processor) as Arc<dyn ProcessorPins>).collect();
        let apics = ApicBus::new(timers, pins);
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
        let routes =
            (16..24).map(|input| (input, InterruptLine::new(Arc::clone(&io_apic_inputs), u32::from(input)))).collect();
        let sci = isa.line(usize::from(acpi::SCI));
        let power = Pm::new(timers, sci, Arc::clone(ports), acpi::ports::PM1A_EVENT);
        // The clock's alarm is an event of power management as well.
        let alarm = InterruptLine::new(Arc::clone(&power) as Arc<dyn InterruptSink>, 0);
        let interrupt_8 = SharedWire::new(vec![isa.line(8), alarm]);
        let hpet = MmioHpet::new(timers, [isa.line(0), interrupt_8.driver()], routes);
        memory.map(acpi::HPET_ADDRESS, 0x400, 1, Target::Mmio(Arc::clone(&hpet) as Arc<dyn Mmio>));
        let hpet_input = |input| InterruptLine::new(Arc::clone(&hpet) as Arc<dyn InterruptSink>, input);
        let pit = IsaPit::new(timers, hpet_input(0));
        pit.map(ports);
        let host: Arc<dyn HostTime> = match timers.clock() {
            clock if clock.is_told() => Arc::new(ToldHostTime::new(Arc::clone(clock), &HostClock::new())),
            _ => Arc::new(HostClock::new()),
        };
        let rtc = IsaRtc::new(timers, hpet_input(1), &config.rtc, host);
        rtc.map(ports);
        rtc.set_memory_size(map.below_4g(), config.ram - map.below_4g());

        let reset_inbox = Arc::clone(inbox);
        let on_reset: Arc<dyn Fn() + Send + Sync> =
            Arc::new(move || reset_inbox.leave(GuestRequest::Reset(ShutdownCause::GuestReset)));
        // The address line A20 is always open, as on processors since Haswell.
        let on_a20: Arc<dyn Fn(bool) + Send + Sync> = Arc::new(|_| ());
        let reset = ResetPorts::new(Arc::clone(&on_reset), Arc::clone(&on_a20));
        reset.map(ports);
        let keyboard = Ps2::new(isa.line(1), isa.line(12), on_reset, on_a20);
        keyboard.map(ports);

        let firmware = FwCfg::new(Arc::clone(memory));
        firmware.map(ports);
        firmware.set(fw_cfg_key::RAM_SIZE, config.ram.to_le_bytes());
        firmware.set(fw_cfg_key::NB_CPUS, (topology.cpus as u16).to_le_bytes());
        firmware.set(fw_cfg_key::MAX_CPUS, (topology.max_cpus() as u16).to_le_bytes());
        let debug_console = Debugcon::new(Arc::new(DebugLog::default()));
        for port in DEBUG_CONSOLE {
            debug_console.map(ports, port);
        }

        let sleep_inbox = Arc::clone(inbox);
        power.on_sleep(Box::new(move |request| match request {
            SleepRequest::S3 => sleep_inbox.leave(GuestRequest::Suspend),
            SleepRequest::S5 => sleep_inbox.leave(GuestRequest::Shutdown(ShutdownCause::GuestShutdown)),
            // The tables do not offer it.
            SleepRequest::S4 => tracing::warn!("the guest asked for suspend to disk, which this machine does not have"),
        }));

        // No APIC of this machine has an identifier of more than eight bits.
        let apic_ids: Vec<u32> = (0..topology.max_cpus().clamp(topology.cpus, MOST_APICS)).collect();
        let hotplug = Hotplug::new(&power, inbox, ports, &apic_ids, topology.cpus as usize, config.memory.slots);

        let isa_bridge = IsaBridge::new(std::array::from_fn(|irq| isa.line(irq)));
        let pci = PciBus::new(&(Arc::clone(&isa_bridge) as Arc<dyn InterruptSink>));
        pci.map(ports);
        let host_bridge = HostBridge::new();
        let functions: [(u8, u8, Arc<dyn PciFunction>); 3] = [
            (0, 0, Arc::clone(&host_bridge) as _),
            (1, 0, Arc::clone(&isa_bridge) as _),
            (1, 3, Arc::clone(&power) as _),
        ];
        for (slot, function, device) in functions {
            pci.add(SlotFunction { slot, function }, device)?;
        }

        let mut serials = Vec::new();
        for (backend, (base, irq)) in config.serials.iter().zip(SERIAL) {
            let Some(id) = backend else { continue };
            let make = |sink| Serial::new(timers, isa.line(irq), sink);
            let serial = connect_serial(&backends.chars, id, make)?;
            serial.map(ports, base);
            let settings = SerialSettings { iobase: base.into(), irq: irq as u32, chardev: Some(id.clone()) };
            serials.push((serial, settings));
        }

        let buses: Vec<Arc<dyn SystemBus>> = apics
            .apics()
            .iter()
            .map(|apic| {
                let bus = ProcessorBus {
                    apic: Arc::clone(apic),
                    memory: Arc::clone(memory),
                    ports: Arc::clone(ports),
                    clock: Arc::clone(timers.clock()),
                };
                Arc::new(bus) as Arc<dyn SystemBus>
            })
            .collect();
        let first_bus = buses.first().cloned();
        let tables = processors.iter().map(|processor| {
            CpuidTable::qemu64(CpuidTopology {
                apic_id: processor.apic_id(),
                cores: u8::try_from(topology.cores * topology.threads).unwrap_or(u8::MAX),
                tsc_khz: TSC_KHZ,
                apic_khz: APIC_KHZ,
            })
        });
        let tables: Vec<CpuidTable> = tables.collect();
        for ((processor, apic), table) in processors.iter().zip(apics.apics()).zip(&tables) {
            let node = objects.attach_processor(processor, table.clone())?;
            objects.attach_to(node, "lapic", Arc::clone(apic) as Arc<dyn Object>)?;
        }
        let host = objects.attach_to(objects.machine(), "i440fx", Arc::new(PciHost))?;
        objects.attach_to(host, "pci.0", PciSlots::first(&pci))?;
        objects.attach_to(host, "ioapic", Arc::clone(&io_apic) as Arc<dyn Object>)?;
        objects.attach_to(objects.machine(), "fw_cfg", Arc::clone(&firmware) as Arc<dyn Object>)?;
        let parts: [Arc<dyn Object>; 9] = [
            host_bridge,
            Arc::clone(&isa_bridge) as _,
            Arc::clone(&power) as _,
            Arc::clone(&pic) as _,
            Arc::clone(&hpet) as _,
            Arc::clone(&pit) as _,
            Arc::clone(&reset) as _,
            Arc::clone(&keyboard) as _,
            debug_console,
        ];
        for part in parts {
            objects.attach(part)?;
        }
        let node = objects.attach(Arc::clone(&rtc) as Arc<dyn Object>)?;
        objects.tree().link(objects.machine(), "rtc_state", "mc146818rtc", Some(node))?;
        let clock = (Arc::clone(&rtc), objects.tree().path(node));
        let mut serial_ports = Vec::new();
        for (serial, settings) in serials {
            objects.attach(Arc::new(Fixed(settings)))?;
            serial_ports.push(serial as Arc<dyn Device>);
        }

        let vcpus = processors
            .iter()
            .zip(buses)
            .zip(tables)
            .map(|((processor, bus), cpuid)| {
                Vcpu::new(VcpuConfig {
                    index: processor.index(),
                    bus,
                    memory: Arc::clone(memory),
                    cpuid,
                    requests: Arc::clone(processor.requests()),
                    code_epoch: Arc::clone(code_epoch),
                    bootstrap: processor.index() == 0,
                })
            })
            .collect();

        // Lines move while devices are reset. The interrupt controllers come first, so that nothing of that reaches a
        // processor, and last, so that they forget it.
        let controllers: [Arc<dyn Device>; 3] = [pic, Arc::clone(&apics) as _, io_apic];
        let mut devices = Vec::from(controllers.clone());
        let others: [Arc<dyn Device>; 7] = [hpet, pit, rtc, reset, keyboard, firmware, Arc::clone(&pci) as _];
        devices.extend(others);
        devices.extend(serial_ports);
        devices.extend(hotplug.devices());
        devices.extend(controllers);
        let pci_window = map.below_4g().max(LOW_RAM_LIMIT) as u32;
        let software = config.software.clone();
        let (memory, numa) = (Arc::clone(memory), Arc::clone(numa));
        let (generation_id, given_tables) = (OnceLock::new(), config.acpi_tables.clone());
        let board = Self {
            memory,
            map,
            numa,
            affinity,
            pci_window,
            software,
            apics,
            first_bus,
            power,
            hotplug,
            generation_id,
            given_tables,
            pci,
            clock,
            devices,
        };
        Ok((board, processors, vcpus))
    }

    /// The machine as it is now, for the tables.
    fn platform(&self) -> Platform {
        let processors = &self.hotplug.processors;
        let ids = processors.apic_ids();
        let node = |index| self.numa.processor(index).map(u32::from);
        let processor = |(index, &apic_id): (usize, &u32)| PossibleProcessor {
            apic_id: apic_id as u8,
            present: processors.is_present(index),
            node: node(index),
        };
        let in_node = |(index, &apic_id): (usize, &u32)| Some((apic_id as u8, node(index)?));
        Platform {
            processors: ids.iter().enumerate().map(processor).collect(),
            memory_slots: self.hotplug.memory.slots(),
            hotplug_buses: self.hotplug.buses(),
            pci_window: self.pci_window,
            affinity: (!self.numa.nodes().is_empty()).then(|| Affinity {
                processors: ids.iter().enumerate().filter_map(in_node).collect(),
                memory: self.affinity.clone(),
                distances: self.numa.distances().to_vec(),
            }),
            generation_id: self.generation_id.get().map(|generation| generation.address() as u32),
            given: self.given_tables.clone(),
        }
    }

    /// Writes the firmware's tables, and loads the software; gives how it starts.
    fn load(&self) -> Result<Option<Entry>, LoadError> {
        let tables = acpi::build(&self.platform(), self.map.facs() as u32, self.map.acpi_tables() as u32);
        let needs = tables.tables.len() as u64;
        if needs > self.map.acpi_tables_length() {
            return Err(LoadError::Memory { what: "the ACPI tables", needs });
        }
        self.memory.write(ROOT_POINTER, &tables.root_pointer);
        self.memory.write(self.map.facs(), &tables.facs);
        self.memory.write(self.map.acpi_tables(), &tables.tables);
        if let Some(generation) = self.generation_id.get() {
            generation.reset();
        }
        start::write_tables(&self.memory);
        match &self.software {
            Software::None => Ok(None),
            Software::Linux(kernel) => kernel.load(&self.memory, &self.map, ROOT_POINTER).map(Some),
            Software::Flat { image, address, entry, uses } => {
                let needs = (*uses).max(image.len() as u64);
                if !self.map.usable_below_4g(*address, address.saturating_add(needs)) {
                    return Err(LoadError::Memory { what: "the guest", needs });
                }
                self.memory.write(*address, image);
                self.memory.write(parameters::ADDRESS, &parameters::page(&self.map, ROOT_POINTER));
                Ok(Some(Entry::Long { rip: *entry, rsi: parameters::ADDRESS }))
            }
        }
    }

    /// Devices as firmware leaves them, after a reset of all.
    fn reset_devices(&self) {
        for device in &self.devices {
            device.reset();
        }
        for apic in self.apics.apics() {
            apic.set_virtual_wire();
        }
    }

    /// Processors in their reset state, the first one at `entry`.
    fn reset_processors(&self, processors: &Processors, entry: Option<Entry>) {
        let pci_window = self.pci_window;
        for processor in processors.list() {
            let entry = entry.filter(|_| processor.index() == 0);
            processor.with(move |vcpu| {
                vcpu.reset();
                let cpu = vcpu.state_mut();
                set_memory_types(cpu, pci_window);
                match entry {
                    None => {}
                    Some(Entry::Long { rip, rsi }) => {
                        cpu.start_long(rip, rsi, start::PAGE_TABLES, start::GDT, start::GDT_LIMIT);
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

    fn wake(&self, processors: &Processors) -> Result<(), MachineError> {
        // The operating system left its waking vector in the FACS (ACPI 5.0 § 5.2.10).
        let vector = self.memory.read_value(self.map.facs() + 12, rhea_core::Width::Dword) as u32;
        if vector == 0 || vector >= 0x10_0000 {
            return Err(MachineError::Unsupported("the guest left no waking vector"));
        }
        self.reset_devices();
        self.power.wake(WakeCause::Other);
        self.reset_processors(processors, Some(Entry::Real { address: vector }));
        Ok(())
    }

    fn first_processor_bus(&self) -> Option<Arc<dyn SystemBus>> {
        self.first_bus.clone()
    }

    fn power_button(&self) {
        self.power.press_power_button();
    }

    fn nmi(&self) -> Result<(), MachineError> {
        for apic in self.apics.apics() {
            apic.set_lint(1, true);
            apic.set_lint(1, false);
        }
        Ok(())
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

    fn hotplug(&self) -> Option<&Hotplug> {
        Some(&self.hotplug)
    }

    fn pci(&self) -> Option<&Arc<PciBus>> {
        Some(&self.pci)
    }

    fn clock(&self) -> Option<(&Arc<IsaRtc>, &str)> {
        Some((&self.clock.0, &self.clock.1))
    }

    fn messages(&self) -> Option<Arc<dyn MessageSink>> {
        Some(Arc::clone(&self.apics) as Arc<dyn MessageSink>)
    }
}

/// Memory types as firmware sets them (SDM vol. 3 § 11.11): write-back, but for the window of PCI devices.
fn set_memory_types(cpu: &mut CpuState, pci_window: u32) {
    const UNCACHED: u64 = 0;
    const VALID: u64 = 1 << 11;
    const PHYSICAL_MASK: u64 = 0xff_ffff_f000;
    cpu.msr.mtrr_base[0] = u64::from(pci_window) | UNCACHED;
    cpu.msr.mtrr_mask[0] = PHYSICAL_MASK & !(HIGH_RAM - u64::from(pci_window) - 1) | VALID;
    // Enabled, with the fixed ranges, which are write-back too; the default is write-back.
    cpu.msr.mtrr_def_type = 0xc06;
    cpu.msr.mtrr_fixed = [0x0606_0606_0606_0606; 11];
    // The frame buffer window.
    cpu.msr.mtrr_fixed[2] = 0;
}
