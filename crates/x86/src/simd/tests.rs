//! SSE and MMX instructions run whole: faults, memory operands, and the state they share with the x87.

use crate::{
    engine::testing::{DATA, Machine, Stop, run, run_to_exception},
    state::{Cr0, Cr4},
    trap::Exception,
};

#[test]
fn aligned_moves_fault_on_other_addresses_and_unaligned_ones_do_not() {
    // movaps xmm0, [rsi]
    let movaps = [0x0f, 0x28, 0x06];
    let (_, exception) = run_to_exception(&movaps, 64, |cpu| cpu.gpr[6] = DATA + 8);
    assert_eq!(exception, Exception::general_protection(0));
    // movups [rsi], xmm0; movups xmm1, [rsi]
    let cpu = run(&[0x0f, 0x11, 0x06, 0x0f, 0x10, 0x0e], 64, |cpu| {
        cpu.gpr[6] = DATA + 1;
        cpu.xmm[0] = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
    });
    assert_eq!(cpu.xmm[1], 0x0123_4567_89ab_cdef_0011_2233_4455_6677);
    // paddb xmm0, [rsi]
    let (_, exception) = run_to_exception(&[0x66, 0x0f, 0xfc, 0x06], 64, |cpu| cpu.gpr[6] = DATA + 15);
    assert_eq!(exception, Exception::general_protection(0));
}

#[test]
fn control_bits_decide_whether_sse_runs() {
    // xorps xmm0, xmm0
    let xorps = [0x0f, 0x57, 0xc0];
    let (_, exception) = run_to_exception(&xorps, 32, |cpu| cpu.cr4 &= !Cr4::OSFXSR.bits());
    assert_eq!(exception, Exception::INVALID_OPCODE);
    let (_, exception) = run_to_exception(&xorps, 32, |cpu| cpu.cr0 |= (Cr0::EM | Cr0::TS).bits());
    assert_eq!(exception, Exception::INVALID_OPCODE);
    let (_, exception) = run_to_exception(&xorps, 32, |cpu| cpu.cr0 |= Cr0::TS.bits());
    assert_eq!(exception, Exception::DEVICE_NOT_AVAILABLE);
    // pxor mm0, mm0: asks not for OSFXSR, but for pending x87 exceptions
    let pxor = [0x0f, 0xef, 0xc0];
    run(&pxor, 32, |cpu| cpu.cr4 &= !Cr4::OSFXSR.bits());
    let (_, exception) = run_to_exception(&pxor, 32, |cpu| {
        cpu.x87.load_control(0x340);
        cpu.x87.load_status(1);
    });
    assert_eq!(exception, Exception::X87_ERROR);
}

#[test]
fn mmx_registers_are_the_physical_x87_registers() {
    // movq mm3, [rsi]
    let mut machine = Machine::new(&[0x0f, 0x6f, 0x1e], 64);
    assert!(machine.ram.write(DATA, &[1, 2, 3, 4, 5, 6, 7, 0x88]));
    machine.cpu().x87.top = 5;
    machine.cpu().x87.valid = 0;
    assert_eq!(machine.run(), Stop::Halted);
    let x87 = machine.cpu().x87;
    assert_eq!((x87.top, x87.valid), (0, 0xff));
    assert_eq!(x87.registers[3], 0xffff_8807_0605_0403_0201);
    // emms
    assert_eq!(run(&[0x0f, 0x77], 64, |cpu| cpu.x87.valid = 0xff).x87.valid, 0);
}

#[test]
fn moves_between_general_and_vector_registers_cut_and_extend() {
    // movd xmm0, eax; movq xmm1, rax; movd ecx, xmm1; movq rdx, xmm1
    let code =
        [0x66, 0x0f, 0x6e, 0xc0, 0x66, 0x48, 0x0f, 0x6e, 0xc8, 0x66, 0x0f, 0x7e, 0xc9, 0x66, 0x48, 0x0f, 0x7e, 0xca];
    let cpu = run(&code, 64, |cpu| {
        cpu.gpr[0] = 0x1122_3344_5566_7788;
        cpu.gpr[1] = u64::MAX;
        cpu.xmm[0] = u128::MAX;
    });
    assert_eq!(cpu.xmm[0], 0x5566_7788);
    assert_eq!(cpu.xmm[1], 0x1122_3344_5566_7788);
    assert_eq!((cpu.gpr[1], cpu.gpr[2]), (0x5566_7788, 0x1122_3344_5566_7788));
}

#[test]
fn masked_stores_write_only_the_chosen_bytes() {
    // maskmovdqu xmm1, xmm2
    let mut machine = Machine::new(&[0x66, 0x0f, 0xf7, 0xca], 64);
    assert!(machine.ram.write(DATA, &[0xee; 16]));
    machine.cpu().xmm[1] = u128::from_le_bytes(std::array::from_fn(|i| i as u8));
    machine.cpu().xmm[2] = 0x80 << 120 | 0x80 << 8 | 0x7f;
    assert_eq!(machine.run(), Stop::Halted);
    let mut expected = [0xee; 16];
    expected[1] = 1;
    expected[15] = 15;
    assert_eq!(machine.read::<16>(DATA), expected);
    // An empty mask touches no memory: here that would be a page fault.
    run(&[0x66, 0x0f, 0xf7, 0xca], 64, |cpu| cpu.gpr[7] = 1 << 40);
}

#[test]
fn fxsave_and_fxrstor_carry_everything_over() {
    // fxsave64 [rsi]; fninit; xorps xmm9, xmm9; fxrstor64 [rsi]
    let code = [0x48, 0x0f, 0xae, 0x06, 0xdb, 0xe3, 0x45, 0x0f, 0x57, 0xc9, 0x48, 0x0f, 0xae, 0x0e];
    let mut machine = Machine::new(&code, 64);
    assert!(machine.ram.write(DATA, &[0xcc; 512]));
    let cpu = machine.cpu();
    cpu.x87.load_control(0x27f);
    cpu.x87.load_status(0x6a01);
    cpu.x87.valid = 0b1010_0101;
    cpu.x87.last_opcode = 0x5d8;
    cpu.x87.last_instruction = 0x1122_3344_5566_7788;
    cpu.x87.last_data = 0x99aa_bbcc_ddee_ff00;
    cpu.x87.registers = std::array::from_fn(|i| (i as u128) << 72 | 0x1234);
    cpu.xmm = std::array::from_fn(|i| (i as u128) << 100 | 0x5678);
    cpu.mxcsr = 0x9fc0;
    let (x87, xmm) = (cpu.x87, cpu.xmm);
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<6>(DATA), [0x7f, 0x02, 0x01, 0x6a, 0b1010_0101, 0]);
    assert_eq!(machine.read::<8>(DATA + 24), [0xc0, 0x9f, 0, 0, 0xff, 0xff, 0, 0]);
    // ST(0) is R5, and the software's part is left alone.
    assert_eq!(machine.read::<16>(DATA + 32), (5u128 << 72 | 0x1234).to_le_bytes());
    assert_eq!(machine.read::<48>(DATA + 464), [0xcc; 48]);
    let cpu = machine.cpu();
    assert_eq!((cpu.x87, cpu.xmm, cpu.mxcsr), (x87, xmm, 0x9fc0));
}

#[test]
fn fxrstor_refuses_bad_addresses_and_bad_control_bits() {
    // fxrstor [rsi]
    let fxrstor = [0x0f, 0xae, 0x0e];
    let (_, exception) = run_to_exception(&fxrstor, 64, |cpu| cpu.gpr[6] = DATA + 8);
    assert_eq!(exception, Exception::general_protection(0));
    let mut machine = Machine::new(&fxrstor, 64);
    assert!(machine.ram.write(DATA + 24, &[0, 0, 1, 0]));
    let before = machine.cpu().x87;
    assert_eq!(machine.run(), Stop::Exception(Exception::general_protection(0)));
    assert_eq!(machine.cpu().x87, before);
    // ldmxcsr [rsi]
    let mut machine = Machine::new(&[0x0f, 0xae, 0x16], 64);
    assert!(machine.ram.write(DATA, &[0x80, 0x1f, 1, 0]));
    assert_eq!(machine.run(), Stop::Exception(Exception::general_protection(0)));
}

#[test]
fn the_short_form_saves_eight_registers_outside_64_bit_code() {
    // fxsave [esi]
    let mut machine = Machine::new(&[0x0f, 0xae, 0x06], 32);
    assert!(machine.ram.write(DATA, &[0xcc; 512]));
    machine.cpu().xmm = [u128::MAX; 16];
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.read::<16>(DATA + 160 + 7 * 16), [0xff; 16]);
    assert_eq!(machine.read::<16>(DATA + 160 + 8 * 16), [0xcc; 16]);
}

#[test]
fn an_unmasked_exception_keeps_the_destination_and_tells_its_flag() {
    // divps xmm0, xmm1: one lane divides by zero, another one overflows
    let divps = [0x0f, 0x5e, 0xc1];
    let setup = |cpu: &mut crate::state::CpuState| {
        cpu.xmm[0] = 0x3f80_0000_7f7f_ffff_3f80_0000_3f80_0000;
        cpu.xmm[1] = 0x0000_0000_0080_0000_3f80_0000_4040_0000;
        cpu.mxcsr = 0x1d80;
    };
    let (cpu, exception) = run_to_exception(&divps, 64, setup);
    assert_eq!(exception, Exception::SIMD_ERROR);
    assert_eq!(cpu.xmm[0], 0x3f80_0000_7f7f_ffff_3f80_0000_3f80_0000);
    assert_eq!(cpu.mxcsr, 0x1d84);
    let (_, exception) = run_to_exception(&divps, 64, |cpu| {
        setup(cpu);
        cpu.cr4 &= !Cr4::OSXMMEXCPT.bits();
    });
    assert_eq!(exception, Exception::INVALID_OPCODE);
    let cpu = run(&divps, 64, |cpu| {
        setup(cpu);
        cpu.mxcsr = 0x1f80;
    });
    assert_eq!(cpu.xmm[0], 0x7f80_0000_7f80_0000_3f80_0000_3eaa_aaab);
    assert_eq!(cpu.mxcsr, 0x1fac);
}

#[test]
fn scalar_operations_read_no_more_than_their_operand() {
    // addsd xmm0, [rsi]; addss xmm1, [rsi + 8]: the operands end where memory does
    let mut machine = Machine::new(&[0xf2, 0x0f, 0x58, 0x06, 0xf3, 0x0f, 0x58, 0x4e, 0x08], 64);
    let end = 1 << 20;
    assert!(machine.ram.write(end + 5, &1.5f64.to_le_bytes()));
    assert!(machine.ram.write(end + 13, &0.25f32.to_le_bytes()));
    let cpu = machine.cpu();
    cpu.gpr[6] = end + 5;
    cpu.xmm[0] = 7 << 64 | u128::from(2f64.to_bits());
    cpu.xmm[1] = 9 << 32 | u128::from(1f32.to_bits());
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.cpu().xmm[0], 7 << 64 | u128::from(3.5f64.to_bits()));
    assert_eq!(machine.cpu().xmm[1], 9 << 32 | u128::from(1.25f32.to_bits()));
}

#[test]
fn ordered_comparisons_set_three_flags_and_clear_three() {
    for (a, b, flags, mxcsr) in
        [(1.0, 2.0, 0x01, 0x1f80), (2.0, 1.0, 0x00, 0x1f80), (-0.0, 0.0, 0x40, 0x1f80), (1.0, f64::NAN, 0x45, 0x1f80)]
    {
        // ucomisd xmm0, xmm1
        let cpu = run(&[0x66, 0x0f, 0x2e, 0xc1], 64, |cpu| {
            cpu.xmm[0] = u128::from(f64::to_bits(a));
            cpu.xmm[1] = u128::from(f64::to_bits(b));
            cpu.rflags |= 0x8d5;
        });
        assert_eq!((cpu.rflags & 0x8d5, cpu.mxcsr), (flags, mxcsr));
    }
}

#[test]
fn conversions_to_mmx_registers_take_them_over() {
    // cvtpi2pd xmm0, [rsi]; cvttpd2pi mm1, xmm0
    let mut machine = Machine::new(&[0x66, 0x0f, 0x2a, 0x06, 0x66, 0x0f, 0x2c, 0xc8], 64);
    assert!(machine.ram.write(DATA, &[0xfe, 0xff, 0xff, 0xff, 3, 0, 0, 0]));
    machine.cpu().x87.top = 3;
    assert_eq!(machine.run(), Stop::Halted);
    let cpu = machine.cpu();
    assert_eq!(cpu.xmm[0], u128::from(3f64.to_bits()) << 64 | u128::from((-2f64).to_bits()));
    assert_eq!(cpu.x87.registers[1], 0xffff_0000_0003_ffff_fffe);
    assert_eq!((cpu.x87.top, cpu.x87.valid), (0, 0xff));
}

#[test]
fn horizontal_operations_take_neighbours_of_both_operands() {
    let vector = |lanes: [f32; 4]| lanes.iter().rev().fold(0, |v, lane| v << 32 | u128::from(lane.to_bits()));
    let setup = |cpu: &mut crate::state::CpuState| {
        cpu.xmm[0] = vector([1.0, 2.0, 4.0, 8.0]);
        cpu.xmm[1] = vector([16.0, 32.0, 64.0, 128.0]);
    };
    // haddps, hsubps, addsubps xmm0, xmm1
    assert_eq!(run(&[0xf2, 0x0f, 0x7c, 0xc1], 64, setup).xmm[0], vector([3.0, 12.0, 48.0, 192.0]));
    assert_eq!(run(&[0xf2, 0x0f, 0x7d, 0xc1], 64, setup).xmm[0], vector([-1.0, -4.0, -16.0, -64.0]));
    assert_eq!(run(&[0xf2, 0x0f, 0xd0, 0xc1], 64, setup).xmm[0], vector([-15.0, 34.0, -60.0, 136.0]));
}

#[test]
fn operands_of_other_sizes_need_no_alignment() {
    // pmovzxbq xmm0, [rsi]; pinsrb xmm1, [rsi + 1], 15; pextrw [rsi + 3], xmm1, 7; insertps xmm2, [rsi + 2], 0x30
    let code = [
        &[0x66, 0x0f, 0x38, 0x32, 0x06][..],
        &[0x66, 0x0f, 0x3a, 0x20, 0x4e, 0x01, 15],
        &[0x66, 0x0f, 0x3a, 0x15, 0x4e, 0x03, 7],
        &[0x66, 0x0f, 0x3a, 0x21, 0x56, 0x02, 0x30],
    ]
    .concat();
    let mut machine = Machine::new(&code, 64);
    let end = 1 << 20;
    assert!(machine.ram.write(end + 1, &[0xfe, 0x81, 3, 4, 5, 6]));
    machine.cpu().gpr[6] = end + 1;
    assert_eq!(machine.run(), Stop::Halted);
    assert_eq!(machine.cpu().xmm[0], 0x81 << 64 | 0xfe);
    assert_eq!(machine.cpu().xmm[1], 0x81 << 120);
    assert_eq!(machine.read::<6>(end + 1), [0xfe, 0x81, 3, 0, 0x81, 6]);
    assert_eq!(machine.cpu().xmm[2], 0x0681_0003 << 96);
    // pmulld xmm0, [rsi]; movntdqa xmm0, [rsi]
    for code in [[0x66, 0x0f, 0x38, 0x40, 0x06], [0x66, 0x0f, 0x38, 0x2a, 0x06]] {
        let (_, exception) = run_to_exception(&code, 64, |cpu| cpu.gpr[6] = DATA + 8);
        assert_eq!(exception, Exception::general_protection(0));
    }
}

#[test]
fn rounding_tells_of_inexact_results_if_it_is_to() {
    // roundsd xmm0, xmm1, imm8
    for (immediate, mxcsr, result, flags) in [
        (0, 0x1f80, 2.0, 0x20),
        (1, 0x1f80, 1.0, 0x20),
        (2, 0x1f80, 2.0, 0x20),
        (3, 0x1f80, 1.0, 0x20),
        (4, 0x3f80, 1.0, 0x20),
        (12, 0x5f80, 2.0, 0),
    ] {
        let cpu = run(&[0x66, 0x0f, 0x3a, 0x0b, 0xc1, immediate], 64, |cpu| {
            cpu.xmm[0] = 7 << 64;
            cpu.xmm[1] = u128::from(1.5f64.to_bits());
            cpu.mxcsr = mxcsr;
        });
        assert_eq!(cpu.xmm[0], 7 << 64 | u128::from(f64::to_bits(result)));
        assert_eq!(cpu.mxcsr, mxcsr | flags);
    }
}

#[test]
fn dot_products_stop_at_the_step_that_traps() {
    // dpps xmm0, xmm1, 0xf1: the products overflow, which is not masked; their sum would be invalid
    let dpps = [0x66, 0x0f, 0x3a, 0x40, 0xc1, 0xf1];
    let setup = |cpu: &mut crate::state::CpuState| {
        cpu.xmm[0] = 0x0000_0000_0000_0000_ff7f_ffff_7f7f_ffff;
        cpu.xmm[1] = 0x0000_0000_0000_0000_7f7f_ffff_7f7f_ffff;
    };
    let (cpu, exception) = run_to_exception(&dpps, 64, |cpu| {
        setup(cpu);
        cpu.mxcsr = 0x1b80;
    });
    assert_eq!((exception, cpu.mxcsr), (Exception::SIMD_ERROR, 0x1ba8));
    assert_eq!(cpu.xmm[0], 0xff7f_ffff_7f7f_ffff);
    let cpu = run(&dpps, 64, setup);
    assert_eq!((cpu.xmm[0], cpu.mxcsr), (0xffc0_0000, 0x1fa9));
}

#[test]
fn instructions_beyond_sse4_are_undefined() {
    // vaddps xmm0, xmm1, xmm2; gf2p8mulb xmm0, xmm1
    for code in [&[0xc5, 0xf0, 0x58, 0xc2][..], &[0x66, 0x0f, 0x38, 0xcf, 0xc1]] {
        assert_eq!(run_to_exception(code, 64, |_| {}).1, Exception::INVALID_OPCODE);
    }
}

#[test]
fn a_store_from_mmx_that_faults_has_already_moved_the_stack() {
    // movq [rsi], mm0
    let (cpu, exception) = run_to_exception(&[0x0f, 0x7f, 0x06], 64, |cpu| {
        cpu.gpr[6] = 1 << 47;
        (cpu.x87.top, cpu.x87.valid) = (5, 0x12);
    });
    assert_eq!(exception, Exception::general_protection(0));
    assert_eq!((cpu.x87.top, cpu.x87.valid), (0, 0x12));
}

#[test]
fn cvtpi2ps_from_memory_is_no_mmx_instruction() {
    // cvtpi2ps xmm0, [rsi]; cvtpi2ps xmm0, mm1
    for (code, top) in [([0x0f, 0x2a, 0x06], 5), ([0x0f, 0x2a, 0xc1], 0)] {
        assert_eq!(run(&code, 64, |cpu| cpu.x87.top = 5).x87.top, top);
    }
}

#[test]
fn only_halves_with_a_chosen_byte_are_asked_for() {
    // maskmovdqu xmm0, xmm1
    let (cpu, _) = run_to_exception(&[0x66, 0x0f, 0xf7, 0xc1], 64, |cpu| {
        // Nothing is mapped from here on.
        cpu.gpr[7] = 1 << 30;
        cpu.xmm[1] = 0x80 << 64;
    });
    assert_eq!(cpu.cr2, (1 << 30) + 8);
}
