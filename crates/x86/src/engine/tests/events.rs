//! What comes between instructions: interrupts, single steps, requests.

use std::sync::atomic::Ordering;

use super::{run, run_again};
use crate::{
    engine::{
        Exit, Vcpu,
        testing::{CODE, DATA, Machine, STACK, Stop},
    },
    state::{Request, Rflags, reg, seg},
    trap::Exception,
};

const RAX: usize = reg::RAX as usize;
const RBX: usize = reg::RBX as usize;
const RSP: usize = reg::RSP as usize;

/// Where handlers are.
const HANDLER: u64 = 0x9000;

/// A machine whose interrupt `vector` ends in HLT, which leaves the interrupt's frame on the stack.
fn with_handler(code: &[u8], vector: u8) -> Machine {
    let mut machine = Machine::new(code, 64);
    machine.memory.write(HANDLER, &[0xf4]);
    machine.set_gate(vector, HANDLER);
    machine
}

fn interrupt(machine: &Machine, vector: u8) {
    machine.bus.queue_interrupt(vector);
    let requests = &machine.vcpu.state().requests;
    requests.interrupt.store(true, Ordering::SeqCst);
    requests.ask(Request::INTERRUPT);
}

/// The RIP that an interrupt pushed.
fn pushed_rip(machine: &mut Machine) -> u64 {
    let pointer = machine.cpu().gpr[RSP];
    u64::from_le_bytes(machine.read(pointer))
}

#[test]
fn an_interrupt_waits_for_the_instruction_after_sti() {
    // sti; inc eax; inc ebx
    let mut machine = with_handler(&[0xfb, 0xff, 0xc0, 0xff, 0xc3], 0x40);
    interrupt(&machine, 0x40);
    run(&mut machine);
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RBX], cpu.rip), (1, 0, HANDLER + 1));
    assert_eq!(cpu.rflags & Rflags::IF.bits(), 0);
    assert_eq!(pushed_rip(&mut machine), CODE + 3);
}

#[test]
fn an_interrupt_waits_while_interrupts_are_disabled_and_is_not_lost() {
    // inc eax; inc eax; sti; nop
    let mut machine = with_handler(&[0xff, 0xc0, 0xff, 0xc0, 0xfb, 0x90, 0xff, 0xc3], 0x40);
    interrupt(&machine, 0x40);
    // The request is long taken when interrupts are enabled.
    machine.cpu().requests.ask(Request::EXIT);
    assert_eq!(machine.vcpu.run(), Exit::Asked);
    run(&mut machine);
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RBX]), (2, 0));
    assert_eq!(pushed_rip(&mut machine), CODE + 6);
}

#[test]
fn popf_and_iret_let_an_interrupt_in_at_once() {
    // push 0x202; popf; inc eax
    let mut machine = with_handler(&[0x68, 2, 2, 0, 0, 0x9d, 0xff, 0xc0], 0x40);
    interrupt(&machine, 0x40);
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RAX], 0);
    assert_eq!(pushed_rip(&mut machine), CODE + 6);
}

#[test]
fn an_interrupt_that_was_withdrawn_is_none() {
    let mut machine = with_handler(&[0xfb, 0x90, 0xff, 0xc0], 0x40);
    machine.cpu().requests.interrupt.store(true, Ordering::SeqCst);
    machine.cpu().requests.ask(Request::INTERRUPT);
    run(&mut machine);
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().rip), (1, CODE + 5));
}

#[test]
fn hlt_is_left_by_an_interrupt_only_if_interrupts_are_enabled() {
    let mut machine = with_handler(&[], 0x40);
    run(&mut machine);
    interrupt(&machine, 0x40);
    assert_eq!(machine.vcpu.run(), Exit::Halted);
    assert_eq!(machine.cpu().rip, CODE + 1);
    machine.cpu().rflags |= Rflags::IF.bits();
    assert_eq!(machine.vcpu.run(), Exit::Halted);
    assert_eq!(machine.cpu().rip, HANDLER + 1);
    assert_eq!(pushed_rip(&mut machine), CODE + 1);
}

#[test]
fn hlt_is_left_by_an_nmi_and_a_second_one_waits_for_iret() {
    let mut machine = with_handler(&[], 2);
    run(&mut machine);
    machine.cpu().requests.ask(Request::NMI);
    run(&mut machine);
    assert_eq!(machine.cpu().rip, HANDLER + 1);
    let frame = machine.cpu().gpr[RSP];
    machine.cpu().requests.ask(Request::NMI);
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RSP], frame, "blocked until IRET");
    machine.cpu().nmi_blocked = false;
    machine.memory.write(HANDLER + 1, &[0xf4]);
    run(&mut machine);
    assert_ne!(machine.cpu().gpr[RSP], frame);
}

#[test]
fn the_trap_flag_makes_a_debug_exception_after_each_instruction() {
    // Handler: inc qword [rdi]; iretq
    let mut machine =
        Machine::new(&[0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0x9c, 0x81, 0x24, 0x24, 0xff, 0xfe, 0xff, 0xff, 0x9d], 64);
    machine.memory.write(HANDLER, &[0x48, 0xff, 0x07, 0x48, 0xcf]);
    machine.set_gate(1, HANDLER);
    machine.vcpu.stop_at_exceptions(false);
    machine.cpu().rflags |= Rflags::TF.bits();
    run(&mut machine);
    // Three INC, PUSHF, AND and the POPF that clears the flag.
    assert_eq!(machine.read::<1>(DATA), [6]);
    assert_eq!(machine.cpu().dr[6] & (1 << 14), 1 << 14);
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RSP]), (3, STACK));
}

#[test]
fn a_trap_flag_that_iret_clears_has_its_trap_and_one_that_it_sets_waits_for_the_next_instruction() {
    for (before, after, traps) in [(true, false, Some(CODE + 2)), (false, true, Some(CODE + 4)), (false, false, None)] {
        let flag = |set: bool| if set { Rflags::TF.bits() } else { 0 };
        // iretq to the next instruction; inc eax
        let mut machine = Machine::new(&[0x48, 0xcf, 0xff, 0xc0], 64);
        let pointer = machine.cpu().gpr[RSP] - 40;
        let [cs, ss] = [seg::CS, seg::SS].map(|number| u64::from(machine.cpu().segments[usize::from(number)].selector));
        let frame = [CODE + 2, cs, 2 | flag(after), pointer + 40, ss];
        for (word, at) in frame.into_iter().zip((pointer..).step_by(8)) {
            machine.memory.write(at, &word.to_le_bytes());
        }
        machine.cpu().gpr[RSP] = pointer;
        machine.cpu().rflags |= flag(before);
        let trap = (machine.run() == Stop::Exception(Exception::DEBUG)).then(|| machine.cpu().rip);
        assert_eq!(trap, traps, "{before} {after}");
    }
}

#[test]
fn a_trap_flag_set_by_popf_takes_effect_after_the_next_instruction() {
    // pushf; or dword [rsp], 0x100; popf; inc eax; inc eax
    let code = [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0xff, 0xc0, 0xff, 0xc0];
    let mut machine = Machine::new(&code, 64);
    assert_eq!(machine.run(), Stop::Exception(Exception::DEBUG));
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().rip), (1, CODE + 11));
}

#[test]
fn an_exit_is_given_at_once_and_nothing_else_is_lost_by_it() {
    // jmp $
    let mut machine = with_handler(&[0xeb, 0xfe], 0x40);
    machine.cpu().rflags |= Rflags::IF.bits();
    interrupt(&machine, 0x40);
    machine.cpu().requests.ask(Request::EXIT);
    assert_eq!(machine.vcpu.run(), Exit::Asked);
    assert_eq!(machine.vcpu.run(), Exit::Halted);
    assert_eq!(pushed_rip(&mut machine), CODE);
}

#[test]
fn a_processor_of_two_starts_where_the_start_up_interrupt_says() {
    let machine = Machine::new(&[], 64);
    let config = |bootstrap| {
        Vcpu::new(crate::engine::VcpuConfig {
            index: 1,
            bus: machine.bus.clone(),
            memory: machine.memory.clone(),
            cpuid: crate::system::cpuid::CpuidTable::default(),
            requests: std::sync::Arc::default(),
            code_epoch: machine.code_epoch.clone(),
            bootstrap,
        })
    };
    let mut vcpu = config(false);
    assert_eq!(vcpu.run(), Exit::WaitingForStartup);
    machine.memory.write(0x5000, &[0x40, 0xf4]); // inc ax; hlt
    vcpu.state().requests.ask_startup(5);
    assert_eq!(vcpu.run(), Exit::Halted);
    let state = vcpu.state();
    assert_eq!((state.gpr[RAX], state.rip, state.segments[usize::from(seg::CS)].base), (1, 2, 0x5000));
    // It has been started: another start-up interrupt is ignored, INIT is not.
    vcpu.state().requests.ask_startup(6);
    assert_eq!(vcpu.run(), Exit::Halted);
    vcpu.state().requests.ask(Request::INIT);
    assert_eq!(vcpu.run(), Exit::WaitingForStartup);
    assert!(vcpu.idle());
    // The bootstrap processor runs from the reset vector after INIT.
    let mut first = config(true);
    first.stop_at_exceptions(true);
    assert_eq!((first.state().rip, first.idle()), (0xfff0, false));
}

#[test]
fn without_a_table_of_gates_an_exception_shuts_the_processor_down() {
    // ud2
    let mut machine = Machine::new(&[0x0f, 0x0b], 64);
    machine.vcpu.stop_at_exceptions(false);
    assert_eq!(machine.vcpu.run(), Exit::Shutdown);
    assert_eq!(machine.vcpu.run(), Exit::Shutdown);
    machine.vcpu.reset();
    assert!(!machine.vcpu.idle());
}

#[test]
fn an_address_that_is_not_canonical_faults_by_its_segment() {
    for (code, exception) in [
        ([0x48, 0x8b, 0x03].as_slice(), Exception::general_protection(0)), // mov rax, [rbx]
        (&[0x48, 0x8b, 0x45, 0x00], Exception::stack(0)),                  // mov rax, [rbp]
        (&[0x48, 0x89, 0x45, 0x00], Exception::stack(0)),                  // mov [rbp], rax
        (&[0xff, 0xe3], Exception::general_protection(0)),                 // jmp rbx
    ] {
        let mut machine = Machine::new(code, 64);
        machine.cpu().gpr[RBX] = 0x8000_0000_0000;
        machine.cpu().gpr[usize::from(reg::RBP)] = 0x8000_0000_0000;
        assert_eq!(machine.run(), Stop::Exception(exception), "{code:x?}");
    }
}

#[test]
fn a_masked_address_line_20_wraps_at_one_megabyte() {
    let mut machine = Machine::new(&[0x88, 0x05, 0x00, 0x00, 0x00, 0x00], 32); // mov [disp32], al
    machine.memory.write(CODE + 2, &0x10_4000u32.to_le_bytes());
    machine.cpu().gpr[RAX] = 0x5a;
    machine.cpu().requests.set_a20(false);
    run(&mut machine);
    assert_eq!((machine.read::<1>(DATA), machine.read::<1>(0x10_4000)), ([0x5a], [0]));
    machine.cpu().requests.set_a20(true);
    run_again(&mut machine);
    assert_eq!(machine.read::<1>(0x10_4000), [0x5a]);
}
