//! x87 instructions run whole: control, environment, faults, and the stack.

use crate::{
    engine::testing::{DATA, Machine, Stop, run, run_to_exception},
    state::Cr0,
    trap::Exception,
};

#[test]
fn initialising_gives_the_words_that_software_probes_for() {
    // fninit; fnstsw ax; fnstcw [rsi]
    let mut machine = Machine::new(&[0xdb, 0xe3, 0xdf, 0xe0, 0xd9, 0x3e], 64);
    machine.cpu().gpr[0] = 0x1234_5a5a;
    machine.cpu().x87.load_control(0);
    machine.cpu().x87.load_status(0x7fff);
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.cpu().gpr[0], 0x1234_0000);
    assert_eq!(machine.read::<2>(DATA), [0x7f, 0x03]);
}

#[test]
fn emulation_and_task_switched_bits_make_the_unit_unavailable() {
    for bit in [Cr0::EM, Cr0::TS] {
        // fninit
        let (_, exception) = run_to_exception(&[0xdb, 0xe3], 64, |cpu| cpu.cr0 |= bit.bits());
        assert_eq!(exception, Exception::DEVICE_NOT_AVAILABLE);
    }
    // wait: needs MP beside TS
    run(&[0x9b], 64, |cpu| cpu.cr0 |= (Cr0::EM | Cr0::TS).bits());
    let (_, exception) = run_to_exception(&[0x9b], 64, |cpu| cpu.cr0 |= (Cr0::MP | Cr0::TS).bits());
    assert_eq!(exception, Exception::DEVICE_NOT_AVAILABLE);
}

#[test]
fn a_pending_exception_is_raised_by_the_next_waiting_instruction() {
    let pending = |cpu: &mut crate::state::CpuState| {
        cpu.x87.load_control(0x37b);
        cpu.x87.load_status(4);
    };
    // fnstsw ax; fnclex; wait
    let cpu = run(&[0xdf, 0xe0, 0xdb, 0xe2, 0x9b], 64, pending);
    assert_eq!(cpu.gpr[0], 0x8084);
    assert_eq!(cpu.x87.status_word(), 0);
    // fnstsw ax; wait
    let (_, exception) = run_to_exception(&[0xdf, 0xe0, 0x9b], 64, pending);
    assert_eq!(exception, Exception::X87_ERROR);
}

#[test]
fn the_environment_comes_back_from_each_of_its_formats() {
    // fnstenv [esi]; fninit; fldenv [esi], with an operand size prefix or without
    let long = [0xd9, 0x36, 0xdb, 0xe3, 0xd9, 0x26];
    let short = [0x66, 0xd9, 0x36, 0xdb, 0xe3, 0x66, 0xd9, 0x26];
    for (code, bits, opcode) in [(&long[..], 32, 0x5d8), (&short[..], 32, 0)] {
        let cpu = run(code, bits, |cpu| {
            cpu.x87.load_control(0x27f);
            cpu.x87.load_status(0x2941);
            cpu.x87.valid = 0x0f;
            cpu.x87.last_opcode = 0x5d8;
            cpu.x87.last_instruction = 0x1234;
            cpu.x87.last_cs = 8;
            cpu.x87.last_data = 0x5678;
            cpu.x87.last_ds = 16;
        });
        assert_eq!((cpu.x87.control, cpu.x87.status_word(), cpu.x87.valid), (0x27f, 0x2941, 0x0f));
        assert_eq!((cpu.x87.last_instruction, cpu.x87.last_cs), (0x1234, 8));
        assert_eq!((cpu.x87.last_data, cpu.x87.last_ds, cpu.x87.last_opcode), (0x5678, 16, opcode));
    }
    // In real mode pointers are linear addresses. fnstenv [si]; fninit; fldenv [si]
    let cpu = run(&[0xd9, 0x34, 0xdb, 0xe3, 0xd9, 0x24], 16, |cpu| {
        cpu.x87.last_opcode = 0x123;
        cpu.x87.last_instruction = 0x4567;
        cpu.x87.last_cs = 0x9000;
    });
    assert_eq!((cpu.x87.last_instruction, cpu.x87.last_cs, cpu.x87.last_opcode), (0x9_4567, 0, 0x123));
}

#[test]
fn storing_the_environment_masks_all_exceptions() {
    // fnstenv [rsi]
    let mut machine = Machine::new(&[0xd9, 0x36], 64);
    machine.cpu().x87.load_control(0x340);
    machine.cpu().x87.load_status(1);
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<8>(DATA), [0x40, 0x03, 0xff, 0xff, 0x81, 0x80, 0xff, 0xff]);
    assert_eq!((machine.cpu().x87.control, machine.cpu().x87.status_word()), (0x37f, 1));
}

#[test]
fn saving_all_keeps_registers_in_stack_order_and_initialises() {
    // fnsave [rsi]; frstor [rsi]
    let mut machine = Machine::new(&[0xdd, 0x36, 0xdd, 0x26], 64);
    machine.cpu().x87.load_status(0x1800);
    machine.cpu().x87.valid = 0xff;
    machine.cpu().x87.registers = std::array::from_fn(|i| 0x4000_8000_0000_0000_0000 + i as u128);
    let before = machine.cpu().x87;
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<10>(DATA + 28), [3, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40]);
    assert_eq!(machine.cpu().x87, before);
    // fnsave [rsi]
    let cpu = run(&[0xdd, 0x36], 64, |cpu| cpu.x87.valid = 0xff);
    assert_eq!((cpu.x87.valid, cpu.x87.control), (0, 0x37f));
}
