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

/// Runs 64-bit code after FNINIT with `control`; gives the state.
fn run_with(control: u16, code: &[u8], data: &[u8]) -> Machine {
    let mut machine = Machine::new(code, 64);
    assert!(machine.ram.write(DATA, data));
    machine.cpu().x87 = crate::state::X87::INITIAL;
    machine.cpu().x87.load_control(control);
    assert_eq!(machine.run(), Stop::Halted);
    machine
}

/// ST(0) after such a run.
fn top_after(control: u16, code: &[u8], data: &[u8]) -> u128 {
    let mut machine = run_with(control, code, data);
    let x87 = machine.cpu().x87;
    x87.registers[usize::from(x87.top)]
}

#[test]
fn pushing_onto_a_full_stack_gives_the_default_nan_and_says_overflow() {
    // fld1, nine times
    let mut machine = run_with(0x37f, &[0xd9, 0xe8].repeat(9), &[]);
    let x87 = machine.cpu().x87;
    assert_eq!((x87.top, x87.valid), (7, 0xff));
    assert_eq!(x87.status_word(), 0x3a41);
    assert_eq!(x87.registers[7], 0xffff_c000_0000_0000_0000);
}

#[test]
fn using_an_empty_register_gives_the_default_nan_and_says_underflow() {
    // fld1; faddp st(1), st(0)
    let mut machine = run_with(0x37f, &[0xd9, 0xe8, 0xde, 0xc1], &[]);
    let x87 = machine.cpu().x87;
    assert_eq!((x87.top, x87.valid, x87.status_word()), (0, 1, 0x0041));
    assert_eq!(x87.registers[0], 0xffff_c000_0000_0000_0000);
}

#[test]
fn an_unmasked_stack_fault_changes_nothing_and_comes_up_later() {
    // faddp st(1), st(0); fnstsw ax; fld1
    let (cpu, exception) = run_to_exception(&[0xde, 0xc1, 0xdf, 0xe0, 0xd9, 0xe8], 64, |cpu| {
        cpu.x87.load_control(0x37e);
        cpu.x87.load_status(0);
        cpu.x87.valid = 0;
    });
    assert_eq!(exception, Exception::X87_ERROR);
    assert_eq!(cpu.gpr[0] & 0xffff, 0x80c1);
    assert_eq!((cpu.x87.top, cpu.x87.valid), (0, 0));
    assert_eq!((cpu.x87.last_opcode, cpu.x87.last_instruction), (0x6c1, crate::engine::testing::CODE));
}

#[test]
fn rounding_and_precision_control_govern_a_quotient() {
    // fld1; fidiv dword [rsi]: 1 / 3 and 1 / -3
    let code = [0xd9, 0xe8, 0xda, 0x36];
    for (control, positive, negative) in [
        (0x37f, 0x3ffd_aaaa_aaaa_aaaa_aaab_u128, 0xbffd_aaaa_aaaa_aaaa_aaab_u128),
        (0x77f, 0x3ffd_aaaa_aaaa_aaaa_aaaa, 0xbffd_aaaa_aaaa_aaaa_aaab),
        (0xb7f, 0x3ffd_aaaa_aaaa_aaaa_aaab, 0xbffd_aaaa_aaaa_aaaa_aaaa),
        (0xf7f, 0x3ffd_aaaa_aaaa_aaaa_aaaa, 0xbffd_aaaa_aaaa_aaaa_aaaa),
        (0x27f, 0x3ffd_aaaa_aaaa_aaaa_a800, 0xbffd_aaaa_aaaa_aaaa_a800),
        (0x07f, 0x3ffd_aaaa_ab00_0000_0000, 0xbffd_aaaa_ab00_0000_0000),
        (0xc7f, 0x3ffd_aaaa_aa00_0000_0000, 0xbffd_aaaa_aa00_0000_0000),
    ] {
        assert_eq!(top_after(control, &code, &3i32.to_le_bytes()), positive, "control {control:#x}");
        assert_eq!(top_after(control, &code, &(-3i32).to_le_bytes()), negative, "control {control:#x}");
    }
}

#[test]
fn integers_are_stored_as_the_rounding_mode_says() {
    // fld qword [rsi]; fistp dword [rsi + 8]; fld qword [rsi]; fisttp word [rsi + 12]
    let code = [0xdd, 0x06, 0xdb, 0x5e, 0x08, 0xdd, 0x06, 0xdf, 0x4e, 0x0c];
    for (control, value, expected, truncated) in [
        (0x37f, 2.5, 2, 2),
        (0x37f, 3.5, 4, 3),
        (0x77f, -2.5, -3, -2),
        (0xb7f, -2.5, -2, -2),
        (0xf7f, 2.75, 2, 2),
        (0x37f, 1e10, i32::MIN, i16::MIN),
        (0x37f, f64::NAN, i32::MIN, i16::MIN),
    ] {
        let machine = run_with(control, &code, &f64::to_le_bytes(value));
        assert_eq!(i32::from_le_bytes(machine.read(DATA + 8)), expected, "{value}");
        assert_eq!(i16::from_le_bytes(machine.read(DATA + 12)), truncated, "{value}");
    }
}

#[test]
fn packed_decimals_come_and_go() {
    // fbld [rsi]; fchs; fbstp [rsi + 16]
    let code = [0xdf, 0x26, 0xd9, 0xe0, 0xdf, 0x76, 0x10];
    let data = [0x90, 0x78, 0x56, 0x34, 0x12, 0x90, 0x78, 0x56, 0x34, 0x80];
    let machine = run_with(0x37f, &code, &data);
    assert_eq!(machine.read::<9>(DATA + 16), data[..9]);
    assert_eq!(machine.read::<1>(DATA + 25), [0]);
    // Nineteen digits do not fit. fild qword [rsi]; fbstp [rsi + 16]
    let machine = run_with(0x37f, &[0xdf, 0x2e, 0xdf, 0x76, 0x10], &i64::MAX.to_le_bytes());
    assert_eq!(machine.read::<10>(DATA + 16), [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff]);
}

#[test]
fn every_class_of_number_is_told() {
    // fxam; fnstsw ax
    for (value, valid, expected) in [
        (0x3fff_8000_0000_0000_0000_u128, 1, 0x0400),
        (0xbfff_8000_0000_0000_0000, 1, 0x0600),
        (0, 1, 0x4000),
        (1 << 79, 1, 0x4200),
        (1, 1, 0x4400),
        (0x7fff_8000_0000_0000_0000, 1, 0x0500),
        (0xffff_c000_0000_0000_0000, 1, 0x0300),
        (0x3fff_0000_0000_0000_0001, 1, 0x0000),
        (0x3fff_8000_0000_0000_0000, 0, 0x4100),
    ] {
        let cpu = run(&[0xd9, 0xe5, 0xdf, 0xe0], 64, |cpu| {
            cpu.x87 = crate::state::X87::INITIAL;
            cpu.x87.registers[0] = value;
            cpu.x87.valid = valid;
        });
        assert_eq!(cpu.gpr[0] & 0xffff, expected, "{value:#x}");
    }
}

#[test]
fn comparisons_report_to_condition_codes_or_flags() {
    // fld qword [rsi + 8]; fld qword [rsi]; fucom st(1); fnstsw ax; fucomip st, st(1)
    let code = [0xdd, 0x46, 0x08, 0xdd, 0x06, 0xdd, 0xe1, 0xdf, 0xe0, 0xdf, 0xe9];
    for (a, b, codes, flags) in
        [(1.0, 2.0, 0x0100, 0x01), (2.0, 1.0, 0x0000, 0x00), (0.0, -0.0, 0x4000, 0x40), (f64::NAN, 1.0, 0x4500, 0x45)]
    {
        let mut data = f64::to_le_bytes(a).to_vec();
        data.extend(f64::to_le_bytes(b));
        let mut machine = run_with(0x37f, &code, &data);
        let cpu = machine.cpu();
        assert_eq!((cpu.gpr[0] & 0x47ff, cpu.rflags & 0x8d5), (codes, flags), "{a} {b}");
        assert_eq!(cpu.x87.valid.count_ones(), 1);
    }
}

#[test]
fn a_remainder_is_complete_when_c2_is_clear_and_tells_the_quotient() {
    // fld qword [rsi + 8]; fld qword [rsi]; fprem; fnstsw ax
    let code = [0xdd, 0x46, 0x08, 0xdd, 0x06, 0xd9, 0xf8, 0xdf, 0xe0];
    let mut data = 23f64.to_le_bytes().to_vec();
    data.extend(4f64.to_le_bytes());
    let mut machine = run_with(0x37f, &code, &data);
    // 23 = 5 * 4 + 3; 5 is 101: C0 and C1.
    assert_eq!(machine.cpu().gpr[0] & 0x4700, 0x0300);
    assert_eq!(machine.cpu().x87.registers[6], 0x4000_c000_0000_0000_0000);
    // fprem1 in fprem's place: 23 = 6 * 4 - 1; 6 is 110: C0 and C3.
    let code = [0xdd, 0x46, 0x08, 0xdd, 0x06, 0xd9, 0xf5, 0xdf, 0xe0];
    let mut machine = run_with(0x37f, &code, &data);
    assert_eq!(machine.cpu().gpr[0] & 0x4700, 0x4100);
    assert_eq!(machine.cpu().x87.registers[6], 0xbfff_8000_0000_0000_0000);
    let mut data = 1e300f64.to_le_bytes().to_vec();
    data.extend(3f64.to_le_bytes());
    let mut machine = run_with(0x37f, &code, &data);
    assert_eq!(machine.cpu().gpr[0] & 0x0400, 0x0400);
}

#[test]
fn a_trapped_overflow_is_wrapped_in_a_register_and_not_stored_to_memory() {
    let huge = 0x7ffe_8000_0000_0000_0000;
    // fadd st, st(0)
    let cpu = run(&[0xd8, 0xc0], 64, |cpu| {
        cpu.x87 = crate::state::X87::INITIAL;
        cpu.x87.load_control(0x377);
        cpu.x87.valid = 1;
        cpu.x87.registers[0] = huge;
    });
    assert_eq!(cpu.x87.status_word(), 0x8088);
    assert_eq!(cpu.x87.registers[0], 0x1fff_8000_0000_0000_0000);
    // fstp dword [rsi]
    let mut machine = Machine::new(&[0xd9, 0x1e], 64);
    assert!(machine.ram.write(DATA, &[0xcc; 4]));
    machine.cpu().x87 = crate::state::X87::INITIAL;
    machine.cpu().x87.load_control(0x377);
    machine.cpu().x87.valid = 1;
    machine.cpu().x87.registers[0] = huge;
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<4>(DATA), [0xcc; 4]);
    assert_eq!((machine.cpu().x87.valid, machine.cpu().x87.status_word()), (1, 0x8088));
}

#[test]
fn constants_are_rounded_as_the_mode_says() {
    // fldpi
    assert_eq!(top_after(0x37f, &[0xd9, 0xeb], &[]), 0x4000_c90f_daa2_2168_c235);
    assert_eq!(top_after(0x77f, &[0xd9, 0xeb], &[]), 0x4000_c90f_daa2_2168_c234);
    // fldl2t
    assert_eq!(top_after(0x37f, &[0xd9, 0xe9], &[]), 0x4000_d49a_784b_cd1b_8afe);
    assert_eq!(top_after(0xb7f, &[0xd9, 0xe9], &[]), 0x4000_d49a_784b_cd1b_8aff);
}

#[test]
fn scaling_and_extraction_are_inverse() {
    // fld qword [rsi]; fxtract; fscale; fstp st(1)
    let code = [0xdd, 0x06, 0xd9, 0xf4, 0xd9, 0xfd, 0xdd, 0xd9];
    let mut machine = run_with(0x37f, &code, &(-1234.5f64).to_le_bytes());
    let x87 = machine.cpu().x87;
    assert_eq!((x87.valid.count_ones(), x87.status_word() & 0x3f), (1, 0));
    assert_eq!(x87.registers[7], 0xc009_9a50_0000_0000_0000);
}

#[test]
fn memory_that_cannot_be_written_keeps_the_stack() {
    // fstp qword [rsi]
    let (cpu, exception) = run_to_exception(&[0xdd, 0x1e], 64, |cpu| {
        cpu.x87.load_status(0);
        cpu.x87.valid = 1;
        cpu.gpr[6] = 1 << 40;
    });
    assert_eq!((exception.vector, cpu.x87.valid, cpu.x87.top), (14, 1, 0));
}

#[test]
fn fstpnce_pops_what_is_empty_without_a_word() {
    // fstpnce st(1)
    let cpu = run(&[0xd9, 0xd9], 64, |cpu| {
        cpu.x87.load_status(0x0200);
        cpu.x87.registers[1] = 7;
        cpu.x87.valid = 2;
    });
    assert_eq!((cpu.x87.status_word(), cpu.x87.registers[1], cpu.x87.valid), (0x0800, 7, 2));
}

#[test]
fn a_denormal_number_does_not_underflow_by_what_leaves_it_alone() {
    // fscale by zero; fprem by infinity; fscale by 1/2, which is by zero as well, but is computed
    let one_half = 0x3ffe_8000_0000_0000_0000;
    for (code, other, status) in
        [([0xd9, 0xfd], 0, 2), ([0xd9, 0xf8], 0x7fff_8000_0000_0000_0000, 2), ([0xd9, 0xfd], one_half, 0x8092)]
    {
        let cpu = run(&code, 64, |cpu| {
            // Underflow is not masked.
            cpu.x87.load_control(0x36f);
            cpu.x87.registers[0] = 5;
            cpu.x87.registers[1] = other;
            cpu.x87.valid = 3;
        });
        assert_eq!((cpu.x87.status, cpu.x87.registers[0] == 5), (status, status == 2), "{code:x?}");
    }
}
