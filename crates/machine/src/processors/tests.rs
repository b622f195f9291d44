//! Tests of processors that come and go, on whole machines.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rhea_core::Width;

use super::*;
use crate::{
    BoardKind, Choice, Config, Machine, MachineError, Place, Software, Topology, backends::Backends,
    board::sockets::Shown, inbox::SlotKind,
};

fn config(cpus: u32, sockets: u32, cores: u32, threads: u32) -> Config {
    let topology = Topology { cpus, sockets, cores, threads };
    Config { topology, start_stopped: true, ..Config::new(BoardKind::Pc, 16 << 20) }
}

fn machine(config: Config) -> Arc<Machine> {
    Machine::new(config, Backends::new().unwrap(), Arc::new(|_| ())).unwrap()
}

fn numbers(machine: &Machine) -> Vec<usize> {
    machine.processors().list().iter().map(|processor| processor.index()).collect()
}

fn remove(machine: &Machine, index: usize) {
    let node = machine.processors().get(index).unwrap().node().unwrap();
    machine.finish_removal(node);
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

#[test]
fn numbers_belong_to_places_and_leave_gaps() {
    let machine = machine(config(1, 2, 3, 1));
    for index in [5, 3] {
        machine.add_processor(index).unwrap();
    }
    assert_eq!(numbers(&machine), [0, 3, 5]);
    let ids = machine.processors().list().iter().map(|processor| processor.apic_id()).collect::<Vec<_>>();
    assert_eq!(ids, [0, 4, 6]);
    assert!(machine.processors().get(4).is_none());
    assert_eq!(machine.processors().get(5).unwrap().place(), Place { socket: 1, core: 2, thread: 0 });
    remove(&machine, 3);
    assert_eq!(numbers(&machine), [0, 5]);
    let node = machine.place_processor(4, None, Shown::Device(Some("fifth"))).unwrap();
    assert_eq!(machine.objects().tree().path(node), "/machine/peripheral/fifth");
    for (index, reason) in [
        (-1, "Invalid CPU id: -1"),
        (6, "Unable to add CPU: 6, max allowed: 5"),
        (i64::MAX, "Unable to add CPU: 9223372036854775807, max allowed: 5"),
        (0, "Unable to add CPU: 0, it already exists"),
        (4, "Unable to add CPU: 4, it already exists"),
    ] {
        assert_eq!(machine.add_processor(index).unwrap_err().to_string(), reason);
    }
    let taken = machine.place_processor(3, None, Shown::Device(Some("fifth"))).unwrap_err();
    assert!(taken.to_string().contains("fifth"), "{taken}");
    assert_eq!(numbers(&machine), [0, 4, 5]);
    let places = machine.processor_places().unwrap();
    let filled: Vec<_> = places.iter().map(|place| place.processor.as_ref().map(|found| found.index())).collect();
    assert_eq!(filled, [Some(0), None, None, None, Some(4), Some(5)]);
}

#[test]
fn the_guest_lets_go_of_any_but_the_first() {
    let machine = machine(config(2, 4, 1, 1));
    machine.add_processor(3).unwrap();
    for slot in [0, 2, 4, u32::MAX] {
        machine.ejected(SlotKind::Cpu, slot);
    }
    assert_eq!(numbers(&machine), [0, 1, 3]);
    machine.ejected(SlotKind::Cpu, 1);
    machine.ejected(SlotKind::Cpu, 3);
    assert_eq!(numbers(&machine), [0]);
    assert_eq!(machine.device_del("/machine/unattached/device[0]").unwrap_err().to_string(), "Boot CPU is unpluggable");
}

#[test]
fn those_that_come_stand_still_while_the_others_do() {
    let machine = machine(config(1, 4, 1, 1));
    let processors = machine.processors();
    machine.power_on();
    machine.add_processor(1).unwrap();
    let paused = processors.pause();
    machine.add_processor(2).unwrap();
    machine.cont().unwrap();
    drop(paused);
    let again = processors.pause();
    remove(&machine, 1);
    drop(again);
    for processor in processors.list() {
        assert_eq!(processor.with(|vcpu| vcpu.index()), Some(processor.index()));
    }
    machine.stop().unwrap();
    machine.add_processor(1).unwrap();
    machine.reset(rhea_api::run_state::ShutdownCause::HostQmpSystemReset).unwrap();
    assert_eq!(numbers(&machine), [0, 1, 2]);
    let gone = processors.get(1).unwrap();
    remove(&machine, 1);
    assert_eq!(gone.with(|vcpu| vcpu.index()), None);
}

/// 64-bit code that sends INIT and a start-up at page 8 to the APIC with identification 1, for ever.
const CALLER: [u8; 35] = [
    0xb8, 0x00, 0x03, 0xe0, 0xfe, // mov eax, 0xfee00300
    0xc7, 0x40, 0x10, 0x00, 0x00, 0x00, 0x01, // mov dword [rax + 0x10], 1 << 24
    0xc7, 0x00, 0x00, 0x45, 0x00, 0x00, // mov dword [rax], INIT
    0xc7, 0x00, 0x08, 0x46, 0x00, 0x00, // mov dword [rax], start-up at page 8
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 0x10000
    0xff, 0xc9, 0x75, 0xfc, // dec ecx, jnz: gives it time
    0xeb, 0xe2, // jmp to the second instruction
];
/// 16-bit code at page 8: counts up at 0x9000, and halts.
const CALLED: [u8; 8] = [0xf0, 0xff, 0x06, 0x00, 0x90, 0xf4, 0xeb, 0xfd];

#[test]
fn one_that_came_starts_when_the_guest_calls_it_and_one_that_went_is_not_heard() {
    let image = CALLER.to_vec();
    let address = 0x10_0000;
    let mut config = config(1, 2, 1, 1);
    config.software = Software::Flat { image, address, entry: address, uses: 4096 };
    config.start_stopped = false;
    let machine = machine(config);
    machine.memory().write(0x8000, &CALLED);
    machine.power_on();
    let count = || machine.memory().read_value(0x9000, Width::Word);
    for _ in 0..20 {
        let before = count();
        machine.add_processor(1).unwrap();
        wait_until("the guest starts the new processor", || count() != before);
        remove(&machine, 1);
        let after = count();
        assert_eq!(machine.processors().get(0).unwrap().with(|vcpu| vcpu.idle()), Some(false));
        assert_eq!(count(), after);
    }
}

#[test]
fn a_machine_may_have_255_places_if_their_identifications_fit() {
    let machine = machine(config(1, 255, 1, 1));
    machine.add_processor(254).unwrap();
    assert_eq!(machine.processors().get(254).unwrap().apic_id(), 254);
    for (sockets, cores, threads) in [(256, 1, 1), (85, 3, 1), (1, 128, 3), (u32::MAX, u32::MAX, 1)] {
        assert!(config(1, sockets, cores, threads).check().is_err(), "{sockets} {cores} {threads}");
    }
    let none = Machine::new(
        Config { board: BoardKind::None, ..config(1, 1, 1, 1) },
        Backends::new().unwrap(),
        Arc::new(|_| ()),
    );
    assert!(matches!(none.unwrap().add_processor(0), Err(MachineError::Unsupported(_))));
}

#[test]
fn places_are_chosen_by_parts_or_by_apic() {
    let topology = Topology { cpus: 1, sockets: 3, cores: 2, threads: 1 };
    let parts = |socket, core, thread| Choice { apic_id: None, socket, die: None, core, thread };
    let apic = |apic_id| Choice { apic_id: Some(apic_id), ..Choice::default() };
    assert_eq!(topology.choose(parts(Some(2), Some(1), Some(0))), Ok(5));
    assert_eq!(topology.choose(apic(4)), Ok(4));
    assert_eq!(topology.choose(Choice { socket: Some(2), core: Some(0), ..apic(4) }), Ok(4));
    for (choice, reason) in [
        (Choice::default(), "CPU socket-id is not set"),
        (parts(Some(1), None, Some(0)), "CPU core-id is not set"),
        (parts(Some(1), Some(1), None), "CPU thread-id is not set"),
        (parts(Some(9), Some(1), Some(0)), "Invalid CPU socket-id: 9 must be in range 0:2"),
        (parts(Some(1), Some(9), Some(0)), "Invalid CPU core-id: 9 must be in range 0:1"),
        (parts(Some(1), Some(1), Some(9)), "Invalid CPU thread-id: 9 must be in range 0:0"),
        (apic(30), "Invalid CPU [socket: 15, core: 0, thread: 0] with APIC ID 30, valid index range 0:5"),
        (Choice { core: Some(1), ..apic(4) }, "property core-id: 1 doesn't match set apic-id: 0x4 (core-id: 0)"),
    ] {
        assert_eq!(topology.choose(choice).unwrap_err().to_string(), reason);
    }
}

proptest! {
    #[test]
    fn every_place_is_found_again_by_its_parts_and_by_its_apic(sockets in 1_u32..9, cores in 1_u32..5, threads in 1_u32..4) {
        let topology = Topology { cpus: 1, sockets, cores, threads };
        let mut last = None;
        for index in 0..topology.max_cpus() {
            let Place { socket, core, thread } = topology.place(index);
            let by_parts = Choice { apic_id: None, socket: Some(socket), die: Some(0), core: Some(core), thread: Some(thread) };
            prop_assert_eq!(topology.choose(by_parts), Ok(index as usize));
            let apic_id = topology.apic_id(index);
            prop_assert!(apic_id > last);
            last = apic_id;
            let by_apic = Choice { apic_id: apic_id.map(u32::from), ..Choice::default() };
            prop_assert_eq!(topology.choose(by_apic), Ok(index as usize));
        }
    }

    #[test]
    fn any_choice_is_a_place_or_an_error(apic_id: Option<u32>, socket: Option<u32>, core: Option<u32>, thread: Option<u32>) {
        let topology = Topology { cpus: 1, sockets: 4, cores: 3, threads: 2 };
        if let Ok(index) = topology.choose(Choice { apic_id, socket, die: core, core, thread }) {
            prop_assert!(index < 24);
        }
    }
}
