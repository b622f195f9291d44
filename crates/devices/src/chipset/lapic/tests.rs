//! Tests of the local APICs on their bus.

use proptest::prelude::*;
use rhea_core::{Clock, InterruptLine, PortSpace};

use super::*;

#[derive(Default)]
struct Pins(Mutex<Vec<String>>);

impl ProcessorPins for Pins {
    fn interrupt(&self, level: bool) {
        self.0.lock().push(format!("interrupt {level}"));
    }

    fn nmi(&self) {
        self.0.lock().push("nmi".into());
    }

    fn init(&self) {
        self.0.lock().push("init".into());
    }

    fn startup(&self, vector: u8) {
        self.0.lock().push(format!("startup {vector:#x}"));
    }
}

struct Bench {
    clock: Arc<Clock>,
    timers: Arc<TimerQueue>,
    pins: Vec<Arc<Pins>>,
    bus: Arc<ApicBus>,
}

impl Bench {
    fn new(processors: usize) -> Self {
        let clock = Clock::new();
        let timers = TimerQueue::new(Arc::clone(&clock));
        let pins: Vec<_> = (0..processors).map(|_| Arc::new(Pins::default())).collect();
        let bus = ApicBus::new(&timers);
        for (cpu, pins) in pins.iter().enumerate() {
            bus.plug(cpu, cpu as u8, Arc::clone(pins) as _);
        }
        let bench = Self { clock, timers, pins, bus };
        for cpu in 0..processors {
            bench.write(cpu, 0x0f0, 0x1ff);
        }
        bench
    }

    fn write(&self, cpu: usize, offset: u64, value: u32) {
        self.bus.apics()[cpu].write(offset, Width::Dword, value.into());
    }

    fn read(&self, cpu: usize, offset: u64) -> u32 {
        self.bus.apics()[cpu].read(offset, Width::Dword) as u32
    }

    fn acknowledge(&self, cpu: usize) -> Option<u8> {
        self.bus.apics()[cpu].acknowledge()
    }

    fn send(&self, cpu: usize, destination: u8, command: u32) {
        self.write(cpu, 0x310, u32::from(destination) << 24);
        self.write(cpu, 0x300, command);
    }

    fn run_to(&self, nanoseconds: u64) {
        self.clock.set(Instant::from_nanos(nanoseconds));
        self.timers.run_expired();
    }

    fn log(&self, cpu: usize) -> Vec<String> {
        std::mem::take(&mut self.pins[cpu].0.lock())
    }

    fn taken(&self) -> Vec<Option<u8>> {
        (0..self.pins.len()).map(|cpu| self.acknowledge(cpu)).collect()
    }
}

#[test]
fn higher_classes_nest_and_lower_ones_wait_for_the_eoi() {
    let bench = Bench::new(1);
    for vector in [0x31, 0x35, 0x52] {
        bench.send(0, 0, vector);
    }
    assert_eq!(bench.log(0), ["interrupt true"]);
    assert_eq!(bench.acknowledge(0), Some(0x52));
    assert_eq!(bench.read(0, 0x0a0), 0x50);
    assert_eq!(bench.acknowledge(0), None);
    bench.write(0, 0x0b0, 0);
    assert_eq!(bench.acknowledge(0), Some(0x35));
    // The same class does not nest.
    assert_eq!(bench.acknowledge(0), None);
    bench.write(0, 0x0b0, 0);
    assert_eq!(bench.acknowledge(0), Some(0x31));
}

#[test]
fn the_task_priority_holds_back_its_class_and_below() {
    let bench = Bench::new(1);
    bench.bus.apics()[0].set_cr8(4);
    assert_eq!(bench.read(0, 0x080), 0x40);
    bench.send(0, 0, 0x4f);
    assert_eq!(bench.acknowledge(0), None);
    bench.send(0, 0, 0x50);
    assert_eq!(bench.acknowledge(0), Some(0x50));
    bench.write(0, 0x0b0, 0);
    bench.write(0, 0x080, 0x30);
    assert_eq!(bench.acknowledge(0), Some(0x4f));
}

#[test]
fn a_start_of_an_application_processor_is_init_then_startup() {
    let bench = Bench::new(2);
    bench.write(1, 0x080, 0x20);
    bench.send(0, 1, 0x0000_c500);
    bench.send(0, 1, 0x0000_8500);
    bench.send(0, 1, 0x0000_0699);
    assert_eq!(bench.log(1), ["init", "startup 0x99"]);
    assert_eq!(bench.log(0), Vec::<String>::new());
    // INIT disabled the APIC by software and cleared the task priority, but not the ID.
    assert_eq!((bench.read(1, 0x0f0), bench.read(1, 0x080), bench.read(1, 0x020)), (0xff, 0, 1 << 24));
}

#[test]
fn shorthands_reach_whom_they_name() {
    let bench = Bench::new(3);
    bench.send(1, 0, 0x0004_0041);
    assert_eq!(bench.taken(), [None, Some(0x41), None]);
    bench.send(1, 0, 0x0008_0052);
    assert_eq!(bench.taken(), [Some(0x52); 3]);
    bench.send(1, 0, 0x000c_0063);
    assert_eq!(bench.taken(), [Some(0x63), None, Some(0x63)]);
    bench.send(1, 0xff, 0x0000_0074);
    assert_eq!(bench.taken(), [Some(0x74); 3]);
}

#[test]
fn logical_destinations_are_sets_in_the_flat_model_and_clusters_in_the_other() {
    let bench = Bench::new(3);
    for cpu in 0..3 {
        bench.write(cpu, 0x0d0, 1 << (24 + cpu));
    }
    bench.send(0, 0b101, 0x0000_0841);
    assert_eq!(bench.taken(), [Some(0x41), None, Some(0x41)]);
    for cpu in 0..3 {
        bench.write(cpu, 0x0e0, 0x0fff_ffff);
        bench.write(cpu, 0x0d0, [0x11, 0x12, 0x21][cpu] << 24);
    }
    bench.send(0, 0x13, 0x0000_0852);
    assert_eq!(bench.taken(), [Some(0x52), Some(0x52), None]);
    bench.send(0, 0xf1, 0x0000_0863);
    assert_eq!(bench.taken(), [Some(0x63), None, Some(0x63)]);
}

#[test]
fn the_lowest_priority_takes_the_interrupt_and_only_it() {
    let bench = Bench::new(3);
    bench.write(0, 0x080, 0x20);
    bench.write(1, 0x080, 0x10);
    // An APIC that is disabled by software is not asked, though its priority is the lowest.
    bench.write(2, 0x0f0, 0xff);
    bench.send(0, 0xff, 0x0000_0141);
    assert_eq!(bench.taken(), [None, Some(0x41), None]);
}

#[test]
fn the_timer_counts_by_its_divisor_and_expires_once() {
    let bench = Bench::new(1);
    bench.write(0, 0x320, 0x40);
    bench.write(0, 0x3e0, 0b0011);
    bench.write(0, 0x380, 1000);
    bench.run_to(15_999);
    assert_eq!((bench.read(0, 0x390), bench.acknowledge(0)), (1, None));
    bench.run_to(16_000);
    assert_eq!((bench.read(0, 0x390), bench.acknowledge(0)), (0, Some(0x40)));
    bench.write(0, 0x0b0, 0);
    bench.run_to(1_000_000);
    assert_eq!(bench.acknowledge(0), None);
    assert_eq!(bench.timers.next_deadline(), None);
}

#[test]
fn the_periodic_timer_keeps_its_beat_when_it_runs_late() {
    let bench = Bench::new(1);
    bench.write(0, 0x320, 0x2_0040);
    bench.write(0, 0x3e0, 0b1011);
    bench.write(0, 0x380, 100);
    bench.run_to(350);
    assert_eq!(bench.timers.next_deadline(), Some(Instant::from_nanos(400)));
    assert_eq!(bench.read(0, 0x390), 50);
    assert_eq!(bench.acknowledge(0), Some(0x40));
    bench.write(0, 0x0b0, 0);
    assert_eq!(bench.acknowledge(0), None);
    bench.write(0, 0x380, 0);
    assert_eq!(bench.timers.next_deadline(), None);
}

#[test]
fn the_deadline_expires_at_its_moment_and_reads_zero_then() {
    let bench = Bench::new(1);
    let apic = &bench.bus.apics()[0];
    apic.set_tsc_deadline(77, Instant::from_nanos(500));
    assert_eq!(apic.tsc_deadline(), 0);
    bench.write(0, 0x320, 0x4_0040);
    apic.set_tsc_deadline(77, Instant::from_nanos(500));
    assert_eq!(apic.tsc_deadline(), 77);
    bench.run_to(500);
    assert_eq!((apic.tsc_deadline(), bench.acknowledge(0)), (0, Some(0x40)));
    bench.write(0, 0x0b0, 0);
    apic.set_tsc_deadline(3, Instant::from_nanos(100));
    assert_eq!(bench.acknowledge(0), Some(0x40));
}

#[test]
fn disabling_by_software_masks_the_local_vectors_for_good() {
    let bench = Bench::new(1);
    bench.write(0, 0x360, 0x400);
    bench.bus.set_level(1, true);
    bench.bus.set_level(1, true);
    assert_eq!(bench.log(0), ["nmi"]);
    bench.write(0, 0x0f0, 0xff);
    bench.write(0, 0x360, 0x400);
    assert_eq!(bench.read(0, 0x360), 0x1_0400);
}

#[test]
fn errors_are_latched_by_a_write_and_raise_their_vector() {
    let bench = Bench::new(1);
    bench.write(0, 0x370, 0xfe);
    bench.send(0, 0, 0x0f);
    assert_eq!(bench.read(0, 0x280), 0);
    bench.write(0, 0x280, 0);
    assert_eq!(bench.read(0, 0x280), 0x20);
    assert_eq!(bench.acknowledge(0), Some(0xfe));
    bench.read(0, 0x040);
    bench.write(0, 0x280, 0);
    assert_eq!(bench.read(0, 0x280), 0x80);
}

struct Served(Mutex<Vec<u8>>);

impl EndOfInterrupt for Served {
    fn end_of_interrupt(&self, vector: u8) {
        self.0.lock().push(vector);
    }
}

#[test]
fn an_eoi_is_broadcast_for_levels_only() {
    let bench = Bench::new(1);
    let served = Arc::new(Served(Mutex::default()));
    let weak: Weak<Served> = Arc::downgrade(&served);
    bench.bus.connect_io_apic(weak);
    bench.bus.send_msi(0xfee0_0000, 0x8041);
    assert_eq!(bench.read(0, 0x1a0), 1 << 1);
    bench.acknowledge(0);
    bench.write(0, 0x0b0, 0);
    bench.bus.send_msi(0xfee0_0000, 0x0041);
    bench.acknowledge(0);
    bench.write(0, 0x0b0, 0);
    assert_eq!(*served.0.lock(), [0x41]);
}

fn with_pic(bench: &Bench) -> (Arc<Pic>, PortSpace) {
    let pic = Pic::new(InterruptLine::new(Arc::clone(&bench.bus) as _, 0));
    bench.bus.connect_pic(&pic);
    let ports = PortSpace::new();
    pic.map(&ports);
    ports.write(0x20, Width::Byte, 0x11);
    for value in [0x30, 4, 1] {
        ports.write(0x21, Width::Byte, value);
    }
    (pic, ports)
}

#[test]
fn lint0_passes_the_external_controller_where_it_is_told_to() {
    let bench = Bench::new(2);
    let (pic, _ports) = with_pic(&bench);
    pic.set_level(4, true);
    assert_eq!(bench.taken(), [None, None]);
    for apic in bench.bus.apics().iter() {
        apic.set_virtual_wire();
    }
    assert_eq!(bench.log(0), ["interrupt true"]);
    assert_eq!(bench.taken(), [Some(0x34), None]);
    assert_eq!(bench.log(0), ["interrupt false"]);
}

#[test]
fn a_disabled_apic_leaves_the_bootstrap_processor_to_the_external_controller() {
    let bench = Bench::new(2);
    let (pic, _ports) = with_pic(&bench);
    for apic in bench.bus.apics().iter() {
        let base = apic.read_msr(MSR_APIC_BASE).unwrap();
        apic.write_msr(MSR_APIC_BASE, base & !0x800).unwrap();
        assert_eq!(apic.window(), None);
    }
    pic.set_level(1, true);
    assert_eq!(bench.taken(), [Some(0x31), None]);
}

#[test]
fn an_apic_that_comes_later_gets_what_is_sent_from_then_on() {
    let bench = Bench::new(2);
    bench.bus.set_level(0, true);
    bench.send(0, 6, 0x0000_4500);
    let pins = Arc::new(Pins::default());
    let apic = bench.bus.plug(4, 6, Arc::clone(&pins) as _);
    let order: Vec<usize> = bench.bus.apics().iter().map(|apic| apic.index()).collect();
    assert_eq!(order, [0, 1, 4]);
    assert_eq!(apic.read(0x20, Width::Dword), 6 << 24);
    assert!(!apic.base().bsp());
    bench.send(0, 6, 0x0000_4500);
    bench.send(1, 6, 0x0000_4608);
    assert_eq!(std::mem::take(&mut *pins.0.lock()), ["init", "startup 0x8"]);
    // LINT0 was driven before the APIC came.
    apic.write(0x0f0, Width::Dword, 0x1ff);
    apic.write(0x350, Width::Dword, 0x700);
    assert!(apic.pending());
}

#[test]
fn an_apic_that_went_gets_nothing_and_leaves_its_place_to_another() {
    let bench = Bench::new(3);
    let gone = Arc::clone(&bench.bus.apics()[1]);
    bench.bus.unplug(1);
    bench.bus.unplug(7);
    bench.send(0, 1, 0x0000_4041);
    bench.send(0, 0, 0x000c_4042);
    assert_eq!((gone.acknowledge(), bench.acknowledge(1)), (None, Some(0x42)));
    bench.bus.set_level(1, true);
    bench.bus.reset();
    assert_eq!(bench.log(1), Vec::<String>::new());
    let pins = Arc::new(Pins::default());
    let again = bench.bus.plug(1, 1, Arc::clone(&pins) as _);
    assert!(Arc::ptr_eq(&again, &bench.bus.apics()[1]));
}

#[test]
fn x2apic_mode_has_its_registers_in_msrs() {
    let bench = Bench::new(2);
    let apic = &bench.bus.apics()[1];
    assert_eq!(apic.read_msr(0x802), Err(GeneralProtection));
    assert_eq!(apic.write_msr(MSR_APIC_BASE, 0xfee0_0c01), Err(GeneralProtection));
    for apic in bench.bus.apics().iter() {
        apic.write_msr(MSR_APIC_BASE, 0xfee0_0c00).unwrap();
    }
    assert_eq!(apic.read_msr(0x802), Ok(1));
    assert_eq!(apic.read_msr(0x80d), Ok(2));
    assert_eq!(apic.write_msr(0x802, 0), Err(GeneralProtection));
    apic.write_msr(0x830, 0x0000_0000_0000_0041).unwrap();
    apic.write_msr(0x83f, 0x52).unwrap();
    assert_eq!(bench.taken(), [Some(0x41), Some(0x52)]);
    apic.write_msr(0x80b, 0).unwrap();
    // Back to xAPIC mode only through disabled.
    assert_eq!(apic.write_msr(MSR_APIC_BASE, 0xfee0_0800), Err(GeneralProtection));
    apic.write_msr(MSR_APIC_BASE, 0xfee0_0000).unwrap();
    apic.write_msr(MSR_APIC_BASE, 0xfee0_0800).unwrap();
    assert_eq!(apic.window(), Some(DEFAULT_BASE));
}

#[test]
fn reset_equals_new() {
    let bench = Bench::new(2);
    bench.write(1, 0x320, 0x2_0040);
    bench.write(1, 0x380, 100);
    bench.run_to(1000);
    bench.bus.reset();
    for cpu in 0..2 {
        assert_eq!(bench.bus.apics()[cpu].inner.lock().chip, Apic::new(cpu as u32, cpu == 0));
    }
    assert_eq!(bench.timers.next_deadline(), None);
    assert_eq!(bench.log(1), ["interrupt true", "interrupt false"]);
}

proptest! {
    #[test]
    fn the_timer_in_small_steps_equals_one_large_step(
        count in 1u32..50, divide in 0u32..16, periodic: bool, times in prop::collection::vec(1u64..200, 1..20),
    ) {
        let mut small = Apic::new(0, true);
        let start = Instant::ZERO;
        for (offset, value) in [(0xf0, 0x1ff), (0x320, 0x40 | u32::from(periodic) << 17), (0x3e0, divide), (0x380, count)] {
            small.write(offset, value, start);
        }
        let mut large = small.clone();
        let mut now = start;
        for time in times {
            now = now.saturating_add(std::time::Duration::from_nanos(time));
            small.advance(now);
        }
        large.advance(now);
        prop_assert_eq!(small.read(0x390, now), large.read(0x390, now));
        prop_assert_eq!(small.next_expiry(), large.next_expiry());
        prop_assert_eq!(small.deliverable(), large.deliverable());
    }

    #[test]
    fn any_access_is_harmless(ops in prop::collection::vec((0u8..8, 0u16..0x400, any::<u32>()), 0..200)) {
        let bench = Bench::new(2);
        for (op, place, value) in ops {
            let cpu = usize::from(place & 1);
            let apic = &bench.bus.apics()[cpu];
            match op {
                0..3 => bench.write(cpu, u64::from(place & 0x3f0), value),
                3 => { bench.read(cpu, place.into()); }
                4 => { let _ = apic.write_msr(0x800 + u32::from(place & 0x3f), value.into()); }
                5 => { let _ = apic.write_msr(MSR_APIC_BASE, 0xfee0_0000 | u64::from(value & 0xc00)); }
                6 => bench.bus.send_msi(u64::from(value), value.rotate_left(7)),
                _ => { apic.acknowledge(); bench.bus.set_level(value & 3, value & 4 != 0); }
            }
            bench.run_to(bench.clock.now().as_nanos() + u64::from(value >> 8));
            let chip = apic.inner.lock().chip.clone();
            prop_assert_eq!(Apic::load(chip.save()).unwrap(), chip);
        }
    }
}
