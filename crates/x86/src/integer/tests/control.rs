//! Branches, the stack, and flags as a whole.

use super::{exception, execute};
use crate::{
    engine::testing::{CODE, DATA, Machine, STACK, run, run_to_exception},
    integer::flags::CF,
    state::{Rflags, reg, seg},
    trap::{Exception, Trap},
};

const RAX: usize = reg::RAX as usize;
const RCX: usize = reg::RCX as usize;
const RSP: usize = reg::RSP as usize;
const RBP: usize = reg::RBP as usize;

#[test]
fn a_loop_runs_as_often_as_rcx_says() {
    // ADD EAX, 3; LOOP -5
    let cpu = run(&[0x83, 0xc0, 0x03, 0xe2, 0xfb], 64, |cpu| cpu.gpr[RCX] = 5);
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RCX]), (15, 0));
    let cpu = run(&[0x83, 0xc0, 0x03, 0xe2, 0xfb], 16, |cpu| cpu.gpr[RCX] = 0xabcd_0005);
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RCX]), (15, 0xabcd_0000), "16-bit code counts in CX");
}

#[test]
fn calls_return_behind_themselves() {
    for bits in [16, 32, 64] {
        // CALL +1; HLT; INC AX/EAX (by FF /0, which is the same in all modes); RET
        let code = if bits == 16 {
            &[0xe8, 0x01, 0x00, 0xf4, 0xff, 0xc0, 0xc3][..]
        } else {
            &[0xe8, 0x01, 0x00, 0x00, 0x00, 0xf4, 0xff, 0xc0, 0xc3]
        };
        let cpu = run(code, bits, |_| {});
        assert_eq!((cpu.gpr[RAX], cpu.gpr[RSP]), (1, STACK), "{bits}");
    }
}

#[test]
fn ret_drops_the_arguments() {
    let mut machine = Machine::new(&[], 64);
    assert_eq!(machine.cpu().push(CODE + 0x100), Ok(()));
    execute(&mut machine, &[0xc2, 0x18, 0x00]).expect("no trap");
    assert_eq!(machine.cpu().rip, CODE + 0x100);
    assert_eq!(machine.cpu().gpr[RSP], STACK + 0x18);
}

#[test]
fn targets_that_are_not_canonical_fault_before_the_call() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0x0000_8000_0000_0000;
    for code in [[0xff, 0xe0], [0xff, 0xd0]] {
        assert_eq!(exception(&mut machine, &code), Exception::general_protection(0));
        assert_eq!((machine.cpu().rip, machine.cpu().gpr[RSP]), (CODE, STACK));
    }
}

#[test]
fn targets_beyond_the_code_segment_fault() {
    let mut machine = Machine::new(&[], 32);
    machine.cpu().segments[usize::from(seg::CS)].limit = 0x8fff;
    machine.cpu().gpr[RAX] = 0x9000;
    assert_eq!(exception(&mut machine, &[0xff, 0xe0]), Exception::general_protection(0));
    machine.cpu().gpr[RAX] = 0x8fff;
    execute(&mut machine, &[0xff, 0xe0]).expect("no trap");
    assert_eq!(machine.cpu().rip, 0x8fff);
}

#[test]
fn a_16_bit_jump_cuts_its_target() {
    let mut machine = Machine::new(&[], 32);
    machine.cpu().gpr[RAX] = 0x1234_5678;
    // JMP AX
    execute(&mut machine, &[0x66, 0xff, 0xe0]).expect("no trap");
    assert_eq!(machine.cpu().rip, 0x5678);
}

#[test]
fn push_rsp_pushes_the_old_value_and_pop_rsp_keeps_the_new() {
    let mut machine = Machine::new(&[], 64);
    execute(&mut machine, &[0x54]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RSP], STACK - 8);
    execute(&mut machine, &[0x5c]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RSP], STACK);
}

#[test]
fn pop_to_memory_addresses_by_the_new_stack_pointer() {
    let mut machine = Machine::new(&[], 64);
    assert_eq!(machine.cpu().push(0x1111_u64), Ok(()));
    assert_eq!(machine.cpu().push(0x2222_u64), Ok(()));
    // POP [RSP]: replaces the older value
    execute(&mut machine, &[0x8f, 0x04, 0x24]).expect("no trap");
    assert_eq!(machine.cpu().pop::<u64>(), Ok(0x2222));
    // A fault leaves the stack pointer alone: POP [RAX] at an address that is not canonical
    machine.cpu().gpr[RAX] = 1 << 63;
    let before = machine.cpu().gpr[RSP];
    exception(&mut machine, &[0x8f, 0x00]);
    assert_eq!(machine.cpu().gpr[RSP], before);
}

#[test]
fn small_immediates_are_pushed_sign_extended() {
    let mut machine = Machine::new(&[], 64);
    execute(&mut machine, &[0x6a, 0xfe]).expect("no trap");
    assert_eq!(machine.cpu().pop::<u64>(), Ok(u64::MAX - 1));
    execute(&mut machine, &[0x66, 0x6a, 0xfe]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RSP], STACK - 2);
}

#[test]
fn all_registers_go_to_the_stack_and_come_back() {
    let mut machine = Machine::new(&[], 32);
    for number in [0, 1, 2, 3, 5, 6, 7] {
        machine.cpu().gpr[number] = 0x100 + number as u64;
    }
    let before = machine.cpu().gpr;
    execute(&mut machine, &[0x60]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RSP], STACK - 32);
    assert_eq!(machine.cpu().stack_top::<u32>(12), Ok(STACK as u32), "ESP as it was before");
    for number in [0, 1, 2, 3, 5, 6, 7] {
        machine.cpu().gpr[number] = 0;
    }
    execute(&mut machine, &[0x61]).expect("no trap");
    assert_eq!(machine.cpu().gpr, before);
}

#[test]
fn frames_link_and_unwind() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RBP] = DATA + 0x100;
    // ENTER 32, 2; LEAVE
    execute(&mut machine, &[0xc8, 0x20, 0x00, 0x02]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RBP], STACK - 8);
    assert_eq!(machine.cpu().gpr[RSP], STACK - 24 - 32);
    assert_eq!(machine.cpu().stack_top::<u64>(32), Ok(STACK - 8), "the frame's own address is the last link");
    execute(&mut machine, &[0xc9]).expect("no trap");
    assert_eq!((machine.cpu().gpr[RBP], machine.cpu().gpr[RSP]), (DATA + 0x100, STACK));
}

#[test]
fn popf_changes_only_what_the_privilege_allows() {
    let all = 0x003f_7fd7_u64;
    let interrupts = Rflags::IF.bits();
    for (cpl, iopl, expected) in [
        (0_u8, 0_u64, Rflags::IOPL.bits() | interrupts),
        (3, 0, 0),
        (3, 3, Rflags::IOPL.bits() | interrupts),
        (2, 1, 1 << 12),
        (1, 1, 1 << 12 | interrupts),
    ] {
        let mut machine = Machine::new(&[], 64);
        machine.cpu().cpl = cpl;
        machine.cpu().rflags = 2 | iopl << 12;
        assert_eq!(machine.cpu().push(all), Ok(()));
        assert_eq!(execute(&mut machine, &[0x9d]), Err(Trap::NEXT), "TF and AC change the mode");
        let flags = machine.cpu().flags();
        let privileged = flags & (Rflags::IOPL | Rflags::IF);
        assert_eq!(privileged.bits(), expected, "CPL {cpl}, IOPL {iopl}");
        assert!(flags.contains(Rflags::ARITHMETIC | Rflags::AC | Rflags::ID | Rflags::NT | Rflags::DF));
        assert!(!flags.intersects(Rflags::RF | Rflags::VM | Rflags::VIF | Rflags::VIP));
    }
}

#[test]
fn pushf_hides_vm_and_rf() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().rflags = 2 | Rflags::RF.bits() | CF | Rflags::ID.bits();
    execute(&mut machine, &[0x9c]).expect("no trap");
    assert_eq!(machine.cpu().pop::<u64>(), Ok(2 | CF | Rflags::ID.bits()));
}

#[test]
fn virtual_8086_code_needs_io_privilege_for_its_flags() {
    let mut machine = Machine::new(&[], 16);
    machine.cpu().cr0 |= 1;
    machine.cpu().cpl = 3;
    machine.cpu().rflags = 2 | Rflags::VM.bits() | 2 << 12;
    for code in [0x9c, 0x9d] {
        assert_eq!(exception(&mut machine, &[code]), Exception::general_protection(0));
    }
    machine.cpu().rflags |= 3 << 12;
    execute(&mut machine, &[0x9c]).expect("no trap");
}

#[test]
fn opening_interrupts_by_popf_ends_the_block() {
    let mut machine = Machine::new(&[], 64);
    assert_eq!(machine.cpu().push(0x202_u64), Ok(()));
    assert_eq!(execute(&mut machine, &[0x9d]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().push(2_u64), Ok(()));
    assert_eq!(execute(&mut machine, &[0x9d]), Ok(()));
    assert_eq!(machine.cpu().rflags, 2);
}

#[test]
fn bound_lets_only_the_inside_pass() {
    let mut machine = Machine::new(&[], 32);
    machine.memory.write(DATA, &(-5_i32).to_le_bytes());
    machine.memory.write(DATA + 4, &7_i32.to_le_bytes());
    // BOUND EAX, [ESI]
    for (index, inside) in [(-6_i32, false), (-5, true), (0, true), (7, true), (8, false)] {
        machine.cpu().gpr[RAX] = u64::from(index as u32);
        let outcome = execute(&mut machine, &[0x62, 0x06]);
        assert_eq!(outcome, if inside { Ok(()) } else { Err(Trap::EXCEPTION) }, "{index}");
    }
    assert_eq!(machine.cpu().exception, Exception::BOUND);
}

#[test]
fn ud2_is_an_invalid_opcode() {
    let (cpu, raised) = run_to_exception(&[0x90, 0x0f, 0x0b], 64, |_| {});
    assert_eq!((raised, cpu.rip), (Exception::INVALID_OPCODE, CODE + 1));
}

#[test]
fn lock_before_what_cannot_be_locked_is_an_invalid_opcode() {
    // LOCK ADD EAX, ECX; LOCK MOV [RSI], EAX; LOCK CMP [RSI], EAX; LOCK NOP
    for code in [&[0xf0, 0x01, 0xc8][..], &[0xf0, 0x89, 0x06], &[0xf0, 0x39, 0x06], &[0xf0, 0x90]] {
        let mut machine = Machine::new(&[], 64);
        assert_eq!(exception(&mut machine, code), Exception::INVALID_OPCODE, "{code:02x?}");
    }
}

#[test]
fn hints_do_nothing() {
    // NOP DWORD [RAX]; ENDBR64; PREFETCHT0 [RAX]; PAUSE; MFENCE; RDSSPQ RAX (a NOP without shadow stacks)
    for code in [
        &[0x0f, 0x1f, 0x00][..],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x0f, 0x18, 0x08],
        &[0xf3, 0x90],
        &[0x0f, 0xae, 0xf0],
        &[0xf3, 0x48, 0x0f, 0x1e, 0xc8],
    ] {
        let mut machine = Machine::new(&[], 64);
        machine.cpu().gpr[RAX] = 1 << 63;
        assert_eq!(execute(&mut machine, code), Ok(()), "{code:02x?}");
        assert_eq!(machine.cpu().gpr[RAX], 1 << 63);
    }
}
