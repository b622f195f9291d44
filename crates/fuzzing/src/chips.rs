//! The devices that are no virtio devices, each as a board wires it.

mod testers;

use std::{sync::Arc, time::Duration};

use rhea_core::{Device, HostTime, InterruptLine, InterruptSink, LoadError, SaveState, ToldHostTime, Width};
use rhea_devices::{
    Saveable,
    acpi::{
        generation::GenerationId,
        hotplug::{
            cpu::{self, CpuHotplug},
            memory::{self, MemoryHotplug, MemorySlot},
            pci::{self, PciHotplug},
        },
        pm::{DEFAULT_BASE, GPE_BASE, HiddenStates, Pm, SMI_COMMAND, WakeCause},
    },
    char::{debugcon::Debugcon, uart::Serial},
    chipset::{
        hpet::MmioHpet,
        ioapic::IoApic,
        lapic::{ApicBus, ProcessorPins},
        pci::{Bridge, HostBridge, IsaBridge, PciBus, PciFunction, SlotFunction},
        pic::Pic,
        pit::IsaPit,
        reset::ResetPorts,
    },
    input::{Buttons, Ps2},
    lost_ticks::{LostTickPolicy, OwedTickPolicy},
    misc::{
        fw_cfg::FwCfg,
        panic::{DEFAULT_PORT, PANICKED, PanicPort},
        rtc::{Base, Follows, IsaRtc, RtcOptions},
        watchdog::{PciWatchdog, WatchdogV1},
    },
};

use crate::{
    bench::{Bench, Ends},
    bytes::Bytes,
    subject::Subject,
};

pub(crate) use testers::{Exit, PciTester, Tester};

/// The saved form of an adapter's chip.
type StateOf<A> = <<A as Saveable>::Chip as SaveState>::State;

/// Reset, save and restore are those of the one adapter.
macro_rules! saved_by {
    ($adapter:ty) => {
        type State = StateOf<$adapter>;

        fn reset(&self) {
            self.0.reset();
        }

        fn save(&self) -> Self::State {
            self.0.save()
        }

        fn restore(&self, state: Self::State) -> Result<(), LoadError> {
            self.0.restore(state)
        }
    };
}
use saved_by;

/// A random access to configuration space.
fn configure(function: &dyn PciFunction, bytes: &mut Bytes<'_>) {
    let width = bytes.pick(&[Width::Byte, Width::Word, Width::Dword]);
    let offset = bytes.byte() & !(width.bytes() as u8 - 1);
    if bytes.byte() & 3 == 0 {
        function.read_config(offset, width);
    } else {
        function.write_config(offset, width, bytes.value() as u32);
    }
}

pub(crate) struct DebugConsole(Arc<Debugcon>);

impl Subject for DebugConsole {
    type State = ();

    const PORTS: &'static [(u16, u16)] = &[(0x402, 1)];

    fn new(bench: &Bench) -> Self {
        let console = Debugcon::new(Arc::clone(&bench.ends) as _, bench.variant);
        console.map(&bench.ports, 0x402);
        Self(console)
    }

    fn reset(&self) {}

    fn save(&self) {}

    fn restore(&self, (): ()) -> Result<(), LoadError> {
        assert!(Arc::strong_count(&self.0) > 1, "the console is at its port");
        Ok(())
    }
}

pub(crate) struct Firmware(Arc<FwCfg>);

impl Subject for Firmware {
    saved_by!(FwCfg);

    const PORTS: &'static [(u16, u16)] = &[(0x510, 2), (0x514, 8)];
    const MEMORY: &'static [(u64, u64)] = &[(0, 0x40)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let firmware = FwCfg::new(Arc::clone(&bench.memory));
        firmware.map(&bench.ports);
        firmware.set(3, [1, 2, 3, 4]);
        firmware.add_file("etc/long", vec![0xa5; 5000]).expect("a file of the firmware");
        Self(firmware)
    }

    /// A transfer described at an address.
    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        let at = bytes.below(0x40) * 4;
        let selected = u32::from(bytes.pick(&[0_u16, 3, 0x19, 0x20, 0xffff])) << 16;
        bench.memory.write(at, &(selected | u32::from(bytes.byte() & 0x1f)).to_be_bytes());
        bench.memory.write(at + 4, &(bytes.value() as u32).to_be_bytes());
        bench.memory.write(at + 8, &bytes.value().to_be_bytes());
        bench.ports.write(0x514, Width::Dword, 0);
        bench.ports.write(0x518, Width::Dword, (at as u32).swap_bytes());
    }
}

pub(crate) struct EventTimer(Arc<MmioHpet>);

impl Subject for EventTimer {
    saved_by!(MmioHpet);

    const MEMORY: &'static [(u64, u64)] = &[(0xfed0_0000, 0x200)];
    const PINS: u32 = 2;

    fn new(bench: &Bench) -> Self {
        let routes = (16..24).map(|input| (input, bench.line(input.into()))).collect();
        let hpet =
            MmioHpet::new(&bench.timers, [bench.line(0), bench.line(8)], routes, OwedTickPolicy::Slew, &Arc::default());
        bench.map(0xfed0_0000, 0x400, Arc::clone(&hpet) as _);
        Self(hpet)
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
    }
}

pub(crate) struct Keyboard(Arc<Ps2>);

impl Subject for Keyboard {
    saved_by!(Ps2);

    const PORTS: &'static [(u16, u16)] = &[(0x60, 1), (0x64, 1)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let controller = Ps2::new(bench.line(1), bench.line(12), Arc::new(|| ()), Arc::new(|_| ()));
        controller.map(&bench.ports);
        Self(controller)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() & 1 {
            0 => self.0.key(bytes.byte(), bytes.byte() & 1 != 0),
            _ => {
                let mut way = || bytes.value() as i32;
                let (right, down, wheel) = (way(), way(), way());
                self.0.pointer(right, down, wheel, Buttons::from(bytes.byte()));
            }
        }
    }
}

pub(crate) struct Controllers(Arc<Pic>);

impl Subject for Controllers {
    saved_by!(Pic);

    const PORTS: &'static [(u16, u16)] = &[(0x20, 2), (0xa0, 2), (0x4d0, 2)];
    const PINS: u32 = 18;
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let pic = Pic::new(bench.line(0));
        pic.map(&bench.ports);
        Self(pic)
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() & 1 {
            0 => drop(self.0.acknowledge_pending()),
            _ => drop(self.0.acknowledge()),
        }
    }
}

/// The interrupt request of processor `index`.
struct Pins(Arc<Ends>, u32);

impl ProcessorPins for Pins {
    fn interrupt(&self, level: bool) {
        self.0.set_level(self.1, level);
    }

    fn nmi(&self) {}

    fn init(&self) {}

    fn startup(&self, _: u8) {}
}

fn two_processors(bench: &Bench) -> Arc<ApicBus> {
    let apics = ApicBus::new(&bench.timers);
    for index in 0..2 {
        apics.plug(usize::from(index), index, Arc::new(Pins(Arc::clone(&bench.ends), index.into())));
    }
    apics
}

fn restore_both(
    apics: &ApicBus,
    (first, second): (
        StateOf<rhea_devices::chipset::lapic::LocalApic>,
        StateOf<rhea_devices::chipset::lapic::LocalApic>,
    ),
) -> Result<(), LoadError> {
    apics.apics()[0].restore(first)?;
    apics.apics()[1].restore(second)
}

pub(crate) struct Local(Arc<ApicBus>);

impl Subject for Local {
    type State = (StateOf<rhea_devices::chipset::lapic::LocalApic>, StateOf<rhea_devices::chipset::lapic::LocalApic>);

    const MEMORY: &'static [(u64, u64)] = &[(0xfee0_0000, 0x400), (0xfee1_0000, 0x400)];
    const PINS: u32 = 4;
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let apics = two_processors(bench);
        for (apic, base) in apics.apics().iter().zip([0xfee0_0000, 0xfee1_0000]) {
            bench.map(base, 0x1000, Arc::clone(apic) as _);
        }
        Self(apics)
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn save(&self) -> Self::State {
        let [first, second] = &*self.0.apics() else { panic!("there are two") };
        (first.save(), second.save())
    }

    fn restore(&self, state: Self::State) -> Result<(), LoadError> {
        restore_both(&self.0, state)
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.apics()[(pin & 1) as usize].set_lint((pin >> 1) as usize, level);
    }

    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        let apic = &self.0.apics()[usize::from(bytes.byte() & 1)];
        match bytes.byte() % 8 {
            0 | 1 => drop(apic.acknowledge()),
            2 => drop(apic.read_msr(0x800 + u32::from(bytes.byte()))),
            3 => drop(apic.write_msr(0x800 + u32::from(bytes.byte()), bytes.value())),
            4 => drop(apic.write_msr(0x1b, 0xfee0_0000 | u64::from(bytes.word()))),
            5 => apic.set_cr8(bytes.byte() & 0xf),
            6 => {
                let wait = Duration::from_nanos(bytes.value() >> 8);
                apic.set_tsc_deadline(bytes.value(), bench.timers.clock().now().saturating_add(wait));
            }
            _ => self.0.send_msi(0xfee0_0000 | bytes.value() & 0xf_ffff, bytes.value() as u32),
        }
    }
}

pub(crate) struct InputOutput(Arc<IoApic>, Arc<ApicBus>);

impl Subject for InputOutput {
    type State = (StateOf<IoApic>, <Local as Subject>::State);

    const MEMORY: &'static [(u64, u64)] = &[(0xfec0_0000, 0x50), (0xfec0_0010, 1), (0xfee0_00b0, 1)];
    const PINS: u32 = 26;
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let apics = two_processors(bench);
        let io_apic = IoApic::new(Arc::clone(&apics));
        bench.map(0xfec0_0000, 0x1000, Arc::clone(&io_apic) as _);
        bench.map(0xfee0_0000, 0x1000, Arc::clone(&apics.apics()[0]) as _);
        Self(io_apic, apics)
    }

    fn reset(&self) {
        self.0.reset();
        self.1.reset();
    }

    fn save(&self) -> Self::State {
        let [first, second] = &*self.1.apics() else { panic!("there are two") };
        (self.0.save(), (first.save(), second.save()))
    }

    fn restore(&self, (io_apic, apics): Self::State) -> Result<(), LoadError> {
        restore_both(&self.1, apics)?;
        self.0.restore(io_apic)
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
    }

    /// A register by its index; or a local APIC that takes interrupts, and one that it has.
    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 4 {
            0 => drop(self.1.apics()[0].acknowledge()),
            1 => bench.memory.write_value(0xfee0_00f0, Width::Dword, 0x1ff),
            _ => {
                bench.memory.write_value(0xfec0_0000, Width::Dword, u64::from(bytes.byte() & 0x3f));
                bench.memory.write_value(0xfec0_0010, Width::Dword, bytes.value());
            }
        }
    }
}

pub(crate) struct IntervalTimer(Arc<IsaPit>);

impl Subject for IntervalTimer {
    saved_by!(IsaPit);

    const PORTS: &'static [(u16, u16)] = &[(0x40, 4), (0x43, 1), (0x61, 1)];

    fn new(bench: &Bench) -> Self {
        let pit = IsaPit::new(&bench.timers, bench.line(0), OwedTickPolicy::Slew, &Arc::default());
        pit.map(&bench.ports);
        Self(pit)
    }
}

pub(crate) struct Resets(Arc<ResetPorts>);

impl Subject for Resets {
    saved_by!(ResetPorts);

    const PORTS: &'static [(u16, u16)] = &[(0xcf9, 1), (0x92, 1)];

    fn new(bench: &Bench) -> Self {
        let resets = ResetPorts::new(Arc::new(|| ()), Arc::new(|_| ()));
        resets.map(&bench.ports);
        Self(resets)
    }
}

/// A host on which it is always the same moment.
struct Epoch;

impl HostTime for Epoch {
    fn since_1970(&self) -> Duration {
        Duration::from_secs(1_234_567_890)
    }

    fn local_offset(&self) -> i64 {
        -3600
    }

    fn steady(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) struct Clock(Arc<IsaRtc>);

impl Subject for Clock {
    saved_by!(IsaRtc);

    const PORTS: &'static [(u16, u16)] = &[(0x70, 2)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let variant = usize::from(bench.variant);
        let options = RtcOptions {
            base: [Base::Utc, Base::LocalTime, Base::Date(-1)][variant % 3],
            follows: [Follows::Host, Follows::Steady, Follows::Machine][variant / 3 % 3],
            lost_tick_policy: [
                LostTickPolicy::Discard,
                LostTickPolicy::Delay,
                LostTickPolicy::Merge,
                LostTickPolicy::Slew,
            ][variant / 9 % 4],
        };
        let host = Arc::new(ToldHostTime::new(Arc::clone(bench.timers.clock()), &Epoch));
        let rtc = IsaRtc::new(&bench.timers, bench.line(8), &options, host);
        rtc.on_set_time(Box::new(|_| ()));
        rtc.map(&bench.ports);
        Self(rtc)
    }

    /// § "RESET": time, alarm, memory and modes stay.
    fn after_reset(before: &Self::State, new: Self::State) -> Self::State {
        let kept = before.clone();
        let modes = kept.b & 0x87;
        Self::State { b: modes, index: new.index, c: new.c, phase: new.phase, owed: new.owed, due: new.due, ..kept }
    }

    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.0.reset_reinjection(),
            1 => self.0.set_memory(bytes.byte(), bytes.byte()),
            _ => {
                bench.ports.write(
                    0x70,
                    Width::Byte,
                    bytes.pick(&[0_u8, 1, 2, 3, 4, 5, 7, 8, 9, 10, 10, 11, 11, 12, 12, 0x32]).into(),
                );
                bench.ports.write(0x71, Width::Byte, bytes.value() as u32);
                bench.ports.read(0x71, Width::Byte);
            }
        }
    }
}

pub(crate) struct SerialPort(Arc<Serial>);

impl Subject for SerialPort {
    saved_by!(Serial);

    const PORTS: &'static [(u16, u16)] = &[(0x3f8, 8)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let serial = Serial::new(&bench.timers, bench.line(4), Arc::clone(&bench.ends) as _);
        serial.map(&bench.ports, 0x3f8);
        Self(serial)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.0.break_received(),
            _ => drop(self.0.receive(bytes.take(40))),
        }
    }
}

pub(crate) struct Power(Arc<Pm>);

impl Subject for Power {
    saved_by!(Pm);

    const PORTS: &'static [(u16, u16)] = &[(DEFAULT_BASE, 64), (DEFAULT_BASE, 12), (GPE_BASE, 4), (SMI_COMMAND, 2)];
    const PINS: u32 = 1;
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let power =
            Pm::new(&bench.timers, bench.line(9), Arc::clone(&bench.ports), DEFAULT_BASE, HiddenStates::default());
        power.on_sleep(Box::new(|_| ()));
        Self(power)
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.0.press_power_button(),
            1 => self.0.press_sleep_button(),
            2 => self.0.raise_gpe(bytes.byte() & 15),
            3 => self.0.wake(WakeCause::Other),
            _ => configure(&*self.0, bytes),
        }
    }
}

pub(crate) struct North(Arc<HostBridge>);

impl Subject for North {
    saved_by!(HostBridge);

    const OTHER: bool = true;

    fn new(_: &Bench) -> Self {
        let bridge = HostBridge::new();
        bridge.on_shadow(Box::new(|_| ()));
        Self(bridge)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        configure(&*self.0, bytes);
    }
}

pub(crate) struct South(Arc<IsaBridge>);

impl Subject for South {
    saved_by!(IsaBridge);

    const PINS: u32 = 4;
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        Self(IsaBridge::new(std::array::from_fn(|irq| bench.line(irq as u32))))
    }

    fn set_pin(&self, pin: u32, level: bool) {
        self.0.set_level(pin, level);
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        configure(&*self.0, bytes);
    }
}

pub(crate) struct PciBridge(Arc<Bridge>);

impl Subject for PciBridge {
    saved_by!(Bridge);

    const OTHER: bool = true;

    fn new(_: &Bench) -> Self {
        let bridge = Bridge::new(std::array::from_fn(|_| InterruptLine::unconnected()));
        let behind = SlotFunction { slot: 3, function: 0 };
        bridge.slots().plug(behind, None, HostBridge::new()).expect("a free slot");
        Self(bridge)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        configure(&*self.0, bytes);
    }
}

/// The bus as guests reach it, with the bridges of the chipset on it.
pub(crate) struct Pci {
    bus: Arc<PciBus>,
    north: Arc<HostBridge>,
    south: Arc<IsaBridge>,
    bridge: Arc<Bridge>,
}

impl Subject for Pci {
    type State = (StateOf<PciBus>, StateOf<HostBridge>, StateOf<IsaBridge>, StateOf<Bridge>);

    const PORTS: &'static [(u16, u16)] = &[(0xcf8, 8)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        let south = IsaBridge::new(std::array::from_fn(|irq| bench.line(irq as u32)));
        let bus = PciBus::new(&(Arc::clone(&south) as Arc<dyn InterruptSink>));
        bus.map(&bench.ports);
        let north = HostBridge::new();
        let bridge = Bridge::new(std::array::from_fn(|_| InterruptLine::unconnected()));
        let functions: [(u8, Arc<dyn PciFunction>); 3] =
            [(0, Arc::clone(&north) as _), (1, Arc::clone(&south) as _), (2, Arc::clone(&bridge) as _)];
        for (slot, function) in functions {
            bus.add(SlotFunction { slot, function: 0 }, function).expect("a free slot");
        }
        bridge.slots().plug(SlotFunction { slot: 0, function: 0 }, None, HostBridge::new()).expect("a free slot");
        Self { bus, north, south, bridge }
    }

    fn reset(&self) {
        self.bus.reset();
    }

    fn save(&self) -> Self::State {
        (self.bus.save(), self.north.save(), self.south.save(), self.bridge.save())
    }

    fn restore(&self, (bus, north, south, bridge): Self::State) -> Result<(), LoadError> {
        self.bus.restore(bus)?;
        self.north.restore(north)?;
        self.south.restore(south)?;
        self.bridge.restore(bridge)
    }

    /// Chooses a register of a function that is there, or of one behind the bridge, and writes it.
    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        let bus = u32::from(bytes.pick(&[0_u8, 0, 0, 1, 2]));
        let (slot, register) = (u32::from(bytes.byte() % 4), u32::from(bytes.byte() & 0xfc));
        bench.ports.write(0xcf8, Width::Dword, 1 << 31 | bus << 16 | slot << 11 | register);
        let width = bytes.width().min(Width::Dword);
        bench.ports.write(0xcfc, width, bytes.value() as u32);
        bench.ports.read(0xcfc, width);
    }
}

pub(crate) struct Cpus(Arc<CpuHotplug>);

impl Subject for Cpus {
    saved_by!(CpuHotplug);

    const PORTS: &'static [(u16, u16)] = &[(cpu::BASE, cpu::LENGTH)];
    const OTHER: bool = true;
    const RESET_KEEPS_PARTS: bool = true;

    fn new(bench: &Bench) -> Self {
        let slots = CpuHotplug::new(Arc::new(|| ()), &[0, 1, 2, 3, 4, 5], 2);
        slots.map(&bench.ports);
        slots.power_on();
        Self(slots)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        let index = u32::from(bytes.byte() % 8);
        match bytes.byte() % 5 {
            0 => self.0.insert(index),
            1 => self.0.request_removal(index),
            2 => self.0.cancel_removal(index),
            3 => self.0.remove(index),
            _ => drop(self.0.reports()),
        }
    }
}

pub(crate) struct Modules(Arc<MemoryHotplug>);

impl Subject for Modules {
    saved_by!(MemoryHotplug);

    const PORTS: &'static [(u16, u16)] = &[(memory::BASE, memory::LENGTH)];
    const OTHER: bool = true;
    const RESET_KEEPS_PARTS: bool = true;

    fn new(bench: &Bench) -> Self {
        let slots = MemoryHotplug::new(Arc::new(|| ()), 4);
        slots.map(&bench.ports);
        slots.power_on();
        Self(slots)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        let slot = u32::from(bytes.byte() % 6);
        match bytes.byte() % 5 {
            0 => {
                let module = MemorySlot { address: bytes.value(), size: bytes.value(), node: bytes.byte().into() };
                self.0.insert(slot, module);
            }
            1 => self.0.request_removal(slot),
            2 => self.0.cancel_removal(slot),
            3 => self.0.remove(slot),
            _ => drop(self.0.reports()),
        }
    }
}

pub(crate) struct Slots(Arc<PciHotplug>);

impl Subject for Slots {
    saved_by!(PciHotplug);

    const PORTS: &'static [(u16, u16)] = &[(pci::BASE, pci::LENGTH)];
    const OTHER: bool = true;
    const RESET_KEEPS_PARTS: bool = true;

    fn new(bench: &Bench) -> Self {
        let slots = PciHotplug::new(Arc::new(|| ()));
        slots.map(&bench.ports);
        slots.register_bus();
        slots.power_on();
        Self(slots)
    }

    fn other(&self, _: &Bench, bytes: &mut Bytes<'_>) {
        let (bus, slot) = (u32::from(bytes.byte() % 3), bytes.byte() % 40);
        match bytes.byte() % 3 {
            0 => self.0.insert(bus, slot),
            1 => self.0.request_removal(bus, slot),
            _ => self.0.remove(bus, slot),
        }
    }
}

pub(crate) struct Generation(Arc<GenerationId>);

impl Subject for Generation {
    saved_by!(GenerationId);

    const MEMORY: &'static [(u64, u64)] = &[(0x100, 0x40)];
    const OTHER: bool = true;
    const RESET_KEEPS_PARTS: bool = true;

    fn new(bench: &Bench) -> Self {
        Self(GenerationId::new(Arc::clone(&bench.memory), 0x110, Arc::new(|| ()), [7; 16]))
    }

    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        self.0.set([bytes.byte(); 16]);
        let mut seen = [0; 16];
        bench.memory.read(self.0.address(), &mut seen);
        assert_eq!(seen, self.0.get(), "the identifier in memory");
    }
}

pub(crate) struct Panics(Arc<PanicPort>);

impl Subject for Panics {
    type State = ();

    const PORTS: &'static [(u16, u16)] = &[(DEFAULT_PORT, 1)];

    fn new(bench: &Bench) -> Self {
        let port = PanicPort::new(bench.variant, Box::new(|| ()));
        port.map(&bench.ports, DEFAULT_PORT);
        assert_eq!(bench.ports.read(DEFAULT_PORT, Width::Byte), u32::from(bench.variant & PANICKED));
        Self(port)
    }

    fn reset(&self) {}

    fn save(&self) {}

    fn restore(&self, (): ()) -> Result<(), LoadError> {
        assert!(Arc::strong_count(&self.0) > 1, "the port is at its place");
        Ok(())
    }
}

pub(crate) struct Tended(Arc<PciWatchdog>);

impl Tended {
    const WINDOW: u64 = 0x10_0000;
}

impl Subject for Tended {
    saved_by!(PciWatchdog);

    const MEMORY: &'static [(u64, u64)] = &[(Self::WINDOW, 16)];
    const OTHER: bool = true;

    fn new(bench: &Bench) -> Self {
        Self(PciWatchdog::new(&bench.timers, Arc::clone(&bench.memory), Arc::clone(&bench.ports), Box::new(|| ())))
    }

    /// That it ran out is still said after the reset that this was.
    fn after_reset(before: &WatchdogV1, new: WatchdogV1) -> WatchdogV1 {
        WatchdogV1 { timed_out: before.timed_out, ..new }
    }

    /// Puts the window where accesses go, opens a register with the keys, or accesses configuration space.
    fn other(&self, bench: &Bench, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 4 {
            0 => {
                self.0.write_config(0x10, Width::Dword, Self::WINDOW as u32);
                self.0.write_config(0x04, Width::Word, 2);
            }
            1 => {
                for (offset, value) in [(0xc, 0x80), (0xc, 0x86), (bytes.below(4) * 4, bytes.value())] {
                    bench.memory.write_value(Self::WINDOW + offset, Width::Dword, value);
                }
            }
            _ => configure(&*self.0, bytes),
        }
    }
}
