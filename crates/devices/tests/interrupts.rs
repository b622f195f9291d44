//! The interrupt paths of a PC, wired as a board wires them: from devices through routers and controllers to processors.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rhea_core::{Clock, Instant, InterruptLine, Mmio, PortSpace, TimerQueue, Width};
use rhea_devices::chipset::{
    hpet::{MmioHpet, PIN_TIMER},
    ioapic::IoApic,
    lapic::{ApicBus, ProcessorPins},
    pci::{IsaBridge, PciBus, PciFunction, SlotFunction},
    pic::Pic,
    pit::{FREQUENCY, IsaPit},
    wires::IsaInterrupts,
};
use rhea_devices::lost_ticks::OwedTickPolicy;

#[derive(Default)]
struct Pins {
    level: AtomicBool,
    rises: AtomicU32,
}

impl ProcessorPins for Pins {
    fn interrupt(&self, level: bool) {
        self.level.store(level, Ordering::SeqCst);
        self.rises.fetch_add(u32::from(level), Ordering::SeqCst);
    }

    fn nmi(&self) {}

    fn init(&self) {}

    fn startup(&self, _: u8) {}
}

struct Board {
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    ports: PortSpace,
    pins: Vec<Arc<Pins>>,
    apics: Arc<ApicBus>,
    io_apic: Arc<IoApic>,
    hpet: Arc<MmioHpet>,
    _pit: Arc<IsaPit>,
    bridge: Arc<IsaBridge>,
    pci: Arc<PciBus>,
    _pic: Arc<Pic>,
}

impl Board {
    fn new(processors: usize) -> Self {
        Self::with_policy(processors, OwedTickPolicy::Slew)
    }

    fn with_policy(processors: usize, policy: OwedTickPolicy) -> Self {
        let clock = Clock::new();
        let timers = TimerQueue::new(Arc::clone(&clock));
        let ports = PortSpace::new();
        let pins: Vec<_> = (0..processors).map(|_| Arc::new(Pins::default())).collect();
        let apics = ApicBus::new(&timers);
        for (cpu, pins) in pins.iter().enumerate() {
            apics.plug(cpu, cpu as u8, Arc::clone(pins) as _);
        }
        let pic = Pic::new(InterruptLine::new(Arc::clone(&apics) as _, 0));
        apics.connect_pic(&pic);
        let io_apic = IoApic::new(Arc::clone(&apics));
        let isa = IsaInterrupts::new(&(Arc::clone(&pic) as _), &(Arc::clone(&io_apic) as _));
        let hpet = MmioHpet::new(&timers, [isa.line(0), isa.line(8)], Vec::new(), policy, apics.taken());
        let pit = IsaPit::new(&timers, InterruptLine::new(Arc::clone(&hpet) as _, PIN_TIMER), policy, apics.taken());
        let bridge = IsaBridge::new(std::array::from_fn(|irq| isa.line(irq)));
        let pci = PciBus::new(&(Arc::clone(&bridge) as _));
        pic.map(&ports);
        pit.map(&ports);
        for apic in apics.apics().iter() {
            apic.set_virtual_wire();
        }
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x38), (0xa1, 2)] {
            ports.write(port, Width::Byte, value);
        }
        ports.write(0xa1, Width::Byte, 1);
        Self { clock, timers, ports, pins, apics, io_apic, hpet, _pit: pit, bridge, pci, _pic: pic }
    }

    fn run_to_tick(&self, tick: u64) {
        self.clock.set(Instant::of_ticks(tick, FREQUENCY));
        self.timers.run_expired();
    }

    fn start_timer(&self, period: u16) {
        self.ports.write(0x43, Width::Byte, 0x34);
        for byte in period.to_le_bytes() {
            self.ports.write(0x40, Width::Byte, byte.into());
        }
    }

    /// Routes an input of the I/O APIC to processor 0.
    fn redirect(&self, pin: u32, entry: u32) {
        self.io_apic.write(0, Width::Dword, (0x10 + 2 * pin).into());
        self.io_apic.write(0x10, Width::Dword, entry.into());
    }

    fn acknowledge(&self, cpu: usize) -> Option<u8> {
        self.apics.apics()[cpu].acknowledge()
    }

    fn eoi(&self, cpu: usize) {
        self.apics.apics()[cpu].write(0xb0, Width::Dword, 0);
    }
}

#[test]
fn the_interval_timer_reaches_the_processor_through_the_8259a() {
    let board = Board::new(1);
    board.start_timer(1000);
    for period in 1..4 {
        board.run_to_tick(period * 1000 + 1);
        assert!(board.pins[0].level.load(Ordering::SeqCst));
        assert_eq!(board.acknowledge(0), Some(0x30));
        assert!(!board.pins[0].level.load(Ordering::SeqCst));
        assert_eq!(board.acknowledge(0), None);
        board.ports.write(0x20, Width::Byte, 0x20);
    }
}

#[test]
fn the_interval_timer_reaches_the_processor_through_input_2_of_the_io_apic() {
    let board = Board::new(1);
    board.ports.write(0x21, Width::Byte, 0xff);
    board.redirect(2, 0x51);
    board.start_timer(1000);
    for period in 1..4 {
        board.run_to_tick(period * 1000 + 1);
        assert_eq!(board.acknowledge(0), Some(0x51));
        board.eoi(0);
    }
}

#[test]
fn the_hpet_takes_the_place_of_the_interval_timer() {
    let board = Board::new(1);
    board.ports.write(0x21, Width::Byte, 0xff);
    board.redirect(2, 0x51);
    board.start_timer(1000);
    // Mode 2 set OUT high: an edge.
    assert_eq!(board.acknowledge(0), Some(0x51));
    board.eoi(0);
    board.hpet.write(0x100, Width::Dword, 4);
    board.hpet.write(0x108, Width::Qword, 1_000_000);
    board.hpet.write(0x10, Width::Dword, 3);
    board.run_to_tick(2000);
    assert_eq!(board.acknowledge(0), None);
    board.clock.set(Instant::from_nanos(10_000_000));
    board.timers.run_expired();
    assert_eq!(board.acknowledge(0), Some(0x51));
}

#[test]
fn a_pci_interrupt_comes_back_after_each_eoi_while_it_stands() {
    let board = Board::new(1);
    board.ports.write(0xa1, Width::Byte, 0xff);
    // Slot 4 has INTA# on PIRQD#, here routed to interrupt 11.
    board.bridge.write_config(0x63, Width::Byte, 0x0b);
    board.redirect(11, 0x1_a061);
    let line = board.pci.interrupt(SlotFunction { slot: 4, function: 0 }, 0);
    line.raise();
    assert_eq!(board.acknowledge(0), None);
    board.redirect(11, 0xa061);
    for _ in 0..3 {
        assert_eq!(board.acknowledge(0), Some(0x61));
        assert_eq!(board.acknowledge(0), None);
        board.eoi(0);
    }
    assert_eq!(board.acknowledge(0), Some(0x61));
    line.lower();
    board.eoi(0);
    assert_eq!(board.acknowledge(0), None);
}

#[test]
fn processors_devices_and_timers_at_once_lock_up_nowhere() {
    let board = Arc::new(Board::new(2));
    board.redirect(2, 0x51);
    board.redirect(11, 0xa061);
    board.bridge.write_config(0x63, Width::Byte, 0x0b);
    let stop = Arc::new(AtomicBool::new(false));
    let line = board.pci.interrupt(SlotFunction { slot: 4, function: 0 }, 0);
    let spawn = |work: Box<dyn Fn(&Board) + Send>| {
        let (board, stop) = (Arc::clone(&board), Arc::clone(&stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work(&board);
            }
        })
    };
    let mut threads = Vec::new();
    for cpu in 0..2_usize {
        threads.push(spawn(Box::new(move |board: &Board| {
            let apic = &board.apics.apics()[cpu];
            // To everybody else, then the other processor alone.
            apic.write(0x300, Width::Dword, 0x000c_0071);
            apic.write(0x310, Width::Dword, (1 - cpu as u64) << 24);
            apic.write(0x300, Width::Dword, 0x0000_0072);
            apic.write(0x380, Width::Dword, 100);
            while board.acknowledge(cpu).is_some() {
                board.eoi(cpu);
                board.ports.write(0x20, Width::Byte, 0x20);
            }
        })));
    }
    threads.push(spawn(Box::new(move |_| line.pulse())));
    threads.push(spawn(Box::new(|board: &Board| {
        board.start_timer(2);
        let now = board.clock.now();
        board.clock.set(now.saturating_add(Duration::from_micros(5)));
        board.timers.run_expired();
    })));
    thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    // Interrupts went both ways, and each processor's pin says what its APIC says.
    for (cpu, pins) in board.pins.iter().enumerate() {
        assert!(pins.rises.load(Ordering::SeqCst) > 0);
        assert_eq!(pins.level.load(Ordering::SeqCst), board.apics.apics()[cpu].pending());
    }
}

/// Ticks that the processor counts after it took none for `periods` of them: each is served before the next is looked at.
fn counted(board: &Board, vector: u8, eoi: impl Fn()) -> u32 {
    let mut ticks = 0;
    while let Some(taken) = board.acknowledge(0) {
        assert_eq!(taken, vector);
        eoi();
        ticks += 1;
    }
    ticks
}

#[test]
fn ticks_that_no_processor_took_in_time_come_as_soon_as_it_takes_them() {
    for (policy, expected) in [(OwedTickPolicy::Slew, 10), (OwedTickPolicy::Discard, 1)] {
        let board = Board::with_policy(1, policy);
        board.start_timer(1000);
        // OUT rises when the counter is set.
        assert_eq!(counted(&board, 0x30, || board.ports.write(0x20, Width::Byte, 0x20)), 1);
        for period in 1..=10 {
            board.run_to_tick(period * 1000 + 1);
        }
        assert_eq!(counted(&board, 0x30, || board.ports.write(0x20, Width::Byte, 0x20)), expected, "{policy:?}");
        // And then as ever.
        board.run_to_tick(11 * 1000 + 1);
        assert_eq!(counted(&board, 0x30, || board.ports.write(0x20, Width::Byte, 0x20)), 1);
    }
}

#[test]
fn ticks_are_owed_through_the_io_apic_also_when_the_host_looks_late() {
    let board = Board::new(1);
    board.ports.write(0x21, Width::Byte, 0xff);
    board.start_timer(1000);
    board.redirect(2, 0x41);
    board.run_to_tick(7 * 1000 + 1);
    assert_eq!(counted(&board, 0x41, || board.eoi(0)), 7);
}

#[test]
fn the_event_timer_owes_its_periodic_ticks_until_it_is_set_anew() {
    let board = Board::new(1);
    board.ports.write(0x21, Width::Byte, 0xff);
    board.redirect(2, 0x41);
    // Timer 0: periodic every 1000 ticks of 10 ns, in place of the interval timer.
    for (offset, value) in [(0x100, 0x4c), (0x108, 1000), (0x108, 1000), (0x10, 3)] {
        board.hpet.write(offset, Width::Qword, value);
    }
    board.clock.set(Instant::from_nanos(55_000));
    board.timers.run_expired();
    assert_eq!(counted(&board, 0x41, || board.eoi(0)), 5);
    board.clock.set(Instant::from_nanos(155_000));
    board.timers.run_expired();
    board.hpet.write(0x10, Width::Dword, 2);
    assert_eq!(counted(&board, 0x41, || board.eoi(0)), 1);
}

#[test]
fn a_processor_that_takes_no_ticks_for_long_is_not_flooded() {
    let board = Board::new(1);
    board.start_timer(1000);
    for period in 1..=1000 {
        board.run_to_tick(period * 1000 + 1);
    }
    let ticks = counted(&board, 0x30, || board.ports.write(0x20, Width::Byte, 0x20));
    assert!((2..=65).contains(&ticks), "{ticks}");
}
