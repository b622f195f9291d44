//! Code that changes: whatever way it is written to, what runs is what memory holds (SDM vol. 3 § 11.6).

use std::{sync::mpsc, thread, time::Duration};

use super::{run, run_again};
use crate::{
    engine::{
        Exit,
        testing::{self, CODE, DATA, Machine, RAM, Stop},
    },
    state::{Cr4, Request, reg},
};

const RAX: usize = reg::RAX as usize;
const RBX: usize = reg::RBX as usize;
const RCX: usize = reg::RCX as usize;
const RSI: usize = reg::RSI as usize;

/// A page for functions, apart from the code that calls them.
const FUNCTION: u64 = 0x2_0000;

/// MOV AL, `value`; RET.
fn function(value: u8) -> [u8; 3] {
    [0xb0, value, 0xc3]
}

#[test]
fn a_write_into_the_running_block_ends_it_after_the_instruction() {
    let code = [
        0xc6, 0x05, 0x03, 0x00, 0x00, 0x00, 0x07, // mov byte [rip + 3], 7: the immediate below
        0xff, 0xc3, // inc ebx
        0xb0, 0x01, // mov al, 1
    ];
    let mut machine = Machine::new(&code, 64);
    for _ in 0..3 {
        machine.cpu().gpr[RAX] = 0;
        machine.memory.write(CODE + 10, &[1]);
        run_again(&mut machine);
        assert_eq!(machine.cpu().gpr[RAX], 7);
    }
    assert_eq!(machine.cpu().gpr[RBX], 3);
}

#[test]
fn a_block_of_the_same_page_is_decoded_anew_after_a_write() {
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(CODE, &[0xe8, 0x1b, 0x00, 0x00, 0x00]); // call CODE + 0x20
    machine.memory.write(CODE + 5, &[0x88, 0xc3]); // mov bl, al
    machine.memory.write(CODE + 7, &[0xc6, 0x05, 0x13, 0x00, 0x00, 0x00, 0x09]); // mov byte [CODE + 0x21], 9
    machine.memory.write(CODE + 14, &[0xe8, 0x0d, 0x00, 0x00, 0x00, 0xf4]); // call CODE + 0x20; hlt
    machine.memory.write(CODE + 0x20, &function(5));
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RBX] & 0xff, 5);
    assert_eq!(machine.cpu().gpr[RAX] & 0xff, 9);
}

#[test]
fn a_block_of_another_page_is_decoded_anew_after_every_write() {
    let code = [
        0xff, 0xd6, // again: call rsi
        0x00, 0xc3, // add bl, al
        0xfe, 0x46, 0x01, // inc byte [rsi + 1]
        0xff, 0xc9, // dec ecx
        0x75, 0xf5, // jnz again
    ];
    let mut machine = Machine::new(&code, 64);
    machine.memory.write(FUNCTION, &function(1));
    machine.cpu().gpr[RSI] = FUNCTION;
    machine.cpu().gpr[RCX] = 10;
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RBX], (1..=10).sum::<u64>());
}

#[test]
fn a_write_through_another_mapping_is_seen() {
    // Two linear pages, 2 MiB apart, lead to the same memory.
    let mut machine = Machine::new(&[0xff, 0xd6, 0x00, 0xc3, 0xc6, 0x42, 0x01, 0x21, 0xff, 0xd6, 0x00, 0xc3], 64);
    let directory = RAM - 4096;
    let alias = 1 << 30 >> 1;
    machine.memory.write(directory + 8 * (alias >> 21), &0x87u64.to_le_bytes());
    machine.memory.write(FUNCTION, &function(1));
    let cpu = machine.cpu();
    cpu.gpr[RSI] = FUNCTION;
    cpu.gpr[usize::from(reg::RDX)] = alias + FUNCTION;
    // A translation to write through exists before the page holds code.
    cpu.write::<u8>(alias + FUNCTION + 0x800, 1).unwrap();
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RBX], 0x22);
}

#[test]
fn an_instruction_across_two_pages_depends_on_both() {
    let code = [0xff, 0xd6, 0x00, 0xc3, 0x88, 0x0f, 0xff, 0xd6, 0x00, 0xc3];
    // mov eax, 0x01010101 begins three bytes before the end of a page; RDI points into its second part.
    let at = FUNCTION + 0xffd;
    for (i, expected) in [(0, 0x22), (1, 0x02)] {
        let mut machine = Machine::new(&code, 64);
        machine.memory.write(at, &[0xb8, 1, 1, 1, 1, 0xc3]);
        let cpu = machine.cpu();
        cpu.gpr[RSI] = at;
        cpu.gpr[usize::from(reg::RDI)] = at + if i == 0 { 1 } else { 4 };
        cpu.gpr[RCX] = 0x21;
        run(&mut machine);
        assert_eq!(machine.cpu().gpr[RBX] & 0xff, expected);
        assert_eq!(machine.cpu().gpr[RAX], if i == 0 { 0x0101_0121 } else { 0x2101_0101 });
    }
}

#[test]
fn an_instruction_across_two_pages_follows_the_second_page_to_where_it_is_mapped() {
    let mut machine = Machine::new(&[0xff, 0xd6], 64);
    // A page table for the linear pages from 0x400000 on: the second one moves.
    let table = RAM - 4 * 4096;
    machine.memory.write(RAM - 4096 + 8 * 2, &(table | 7).to_le_bytes());
    machine.memory.write(table, &(FUNCTION | 7).to_le_bytes());
    machine.memory.write(FUNCTION + 0xfff, &[0xb0]);
    for (i, value) in [(1u64, 0x11u8), (2, 0x22), (1, 0x11)] {
        let target = FUNCTION + 0x1_0000 * i;
        machine.memory.write(target, &[value, 0xc3]);
        machine.memory.write(table + 8, &(target | 7).to_le_bytes());
        let cpu = machine.cpu();
        cpu.flush_page(0x40_1000);
        cpu.gpr[RSI] = 0x40_0fff;
        run_again(&mut machine);
        assert_eq!(machine.cpu().gpr[RAX] & 0xff, u64::from(value));
    }
}

#[test]
fn code_follows_its_page_to_where_it_is_mapped() {
    for global in [false, true] {
        let mut machine = Machine::new(&[0xff, 0xd6], 64);
        let table = RAM - 4 * 4096;
        machine.memory.write(RAM - 4096 + 8 * 2, &(table | 7).to_le_bytes());
        machine.memory.write(FUNCTION, &function(1));
        machine.memory.write(FUNCTION + 0x1000, &function(2));
        let mut call = |page: u64, flush: &dyn Fn(&mut crate::state::CpuState)| {
            machine.memory.write(table, &(page | 7 | u64::from(global) << 8).to_le_bytes());
            let cpu = machine.cpu();
            flush(cpu);
            cpu.gpr[RSI] = 0x40_0000;
            run_again(&mut machine);
            machine.cpu().gpr[RAX] & 0xff
        };
        let reload = |cpu: &mut crate::state::CpuState| cpu.load_cr3(cpu.cr3).unwrap();
        assert_eq!(call(FUNCTION, &|_| {}), 1);
        assert_eq!(call(FUNCTION + 0x1000, &|cpu| cpu.flush_page(0x40_0123)), 2);
        assert_eq!(call(FUNCTION, &|cpu| cpu.flush_all()), 1);
        // A global translation outlives a load of CR3, and may still be used.
        assert_eq!(call(FUNCTION + 0x1000, &reload), if global { 1 } else { 2 });
    }
}

#[test]
fn a_device_that_writes_to_code_is_seen() {
    let mut machine = Machine::new(&[0xff, 0xd6], 64);
    machine.cpu().gpr[RSI] = FUNCTION;
    for value in 1..5 {
        assert!(machine.ram.write(FUNCTION, &function(value)));
        run_again(&mut machine);
        assert_eq!(machine.cpu().gpr[RAX] & 0xff, u64::from(value));
    }
}

#[test]
fn a_changed_memory_map_is_seen() {
    let mut machine = Machine::new(&[0xff, 0xd6], 64);
    machine.memory.write(FUNCTION, &function(1));
    machine.cpu().gpr[RSI] = FUNCTION;
    run(&mut machine);
    let rom = rhea_core::Ram::new("rom", 4096).unwrap();
    assert!(rom.write(0, &function(2)));
    let target = rhea_core::memory::Target::Ram { ram: rom, offset: 0, writable: false };
    machine.memory.map(FUNCTION, 4096, 1, target);
    machine.cpu().requests.ask(Request::FLUSH);
    run_again(&mut machine);
    assert_eq!(machine.cpu().gpr[RAX] & 0xff, 2);
    // Read-only memory stays as it is.
    machine.cpu().write::<u8>(FUNCTION + 1, 9).unwrap();
    assert_eq!(machine.read::<3>(FUNCTION), function(2));
}

#[test]
fn code_that_is_no_ram_is_fetched_from_its_device() {
    let (mut machine, address) = (Machine::new(&[0xff, 0xd6], 64), RAM + 0x1000);
    for (i, byte) in (0..).zip(function(0x42)) {
        machine.cpu().bus.memory_write(address + i, rhea_core::Width::Byte, u64::from(byte));
    }
    machine.cpu().gpr[RSI] = address;
    run(&mut machine);
    assert_eq!(machine.cpu().gpr[RAX] & 0xff, 0x42);
}

#[test]
fn a_fetch_past_the_end_of_mapped_memory_faults_at_the_instruction() {
    let mut machine = Machine::new(&[0xff, 0xe6], 64);
    // jmp rsi to the last byte of a page whose successor is absent: MOV AL needs one byte more.
    let table = RAM - 4 * 4096;
    machine.memory.write(RAM - 4096 + 8 * 2, &(table | 7).to_le_bytes());
    machine.memory.write(table, &(FUNCTION | 7).to_le_bytes());
    machine.memory.write(FUNCTION + 0xffe, &[0x90, 0xb0]);
    machine.cpu().gpr[RSI] = 0x40_0ffe;
    // An instruction fetch, page absent.
    let fault = crate::trap::Exception::page_fault(0x10);
    assert_eq!(machine.run(), Stop::Exception(fault));
    assert_eq!((machine.cpu().cr2, machine.cpu().rip), (0x40_1000, 0x40_0fff));
}

#[test]
fn what_follows_is_run_when_the_cache_is_full() {
    // A long run of two-byte jumps to the next instruction: more blocks than are kept.
    let blocks = 100_000u64;
    let mut machine = Machine::new(&[0xff, 0xe6], 64);
    let code: Vec<u8> = (0..blocks).flat_map(|_| [0xeb, 0x00]).chain([0xff, 0xc3, 0xf4]).collect();
    machine.memory.write(0x10_0000, &code);
    for pass in 1..=2 {
        machine.cpu().gpr[RSI] = 0x10_0000;
        run_again(&mut machine);
        assert_eq!(machine.cpu().gpr[RBX], pass);
    }
}

#[test]
fn code_beyond_the_limit_of_its_segment_faults() {
    // Real mode: inc ax at the last two bytes of the segment, then past its end.
    let mut machine = Machine::new(&[0xff, 0xe6], 16);
    machine.memory.write(0xfffd, &[0x40, 0x40, 0x40]);
    machine.cpu().gpr[RSI] = 0xfffd;
    machine.cpu().segments[1].limit = 0xfffe;
    machine.cpu().update_mode();
    assert_eq!(machine.run(), Stop::Exception(crate::trap::Exception::general_protection(0)));
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().rip), (2, 0xffff));
}

#[test]
fn a_second_processor_sees_code_written_through_a_translation_made_before() {
    // The writer counts in the page of the function until it is told to change it.
    let writer = [
        0xff, 0x86, 0x00, 0x08, 0x00, 0x00, // again: inc dword [rsi + 0x800]
        0x83, 0x3f, 0x00, // cmp dword [rdi], 0
        0x74, 0xf5, // je again
        0xc6, 0x46, 0x01, 0x63, // mov byte [rsi + 1], 0x63
    ];
    let reader = [
        0xff, 0xd6, // again: call rsi
        0xff, 0xc1, // inc ecx
        0x81, 0xf9, 0x00, 0x04, 0x00, 0x00, // cmp ecx, 0x400
        0x75, 0x02, // jne on
        0x89, 0x0f, // mov [rdi], ecx
        0x3c, 0x63, // on: cmp al, 0x63
        0x75, 0xee, // jne again
        0xf4, // hlt
    ];
    for _ in 0..5 {
        let mut machine = Machine::new(&writer, 64);
        machine.memory.write(FUNCTION, &function(1));
        machine.memory.write(CODE + 0x1000, &reader);
        let cpu = machine.cpu();
        cpu.gpr[RSI] = FUNCTION;
        cpu.gpr[usize::from(reg::RDI)] = DATA;
        let mut second = machine.second_processor();
        second.state_mut().rip = CODE + 0x1000;
        second.state_mut().gpr[usize::from(reg::RSP)] -= 0x800;
        let (requests, others) = (machine.cpu().requests.clone(), second.state().requests.clone());
        let exits = thread::scope(|scope| {
            let (done, watchdog) = mpsc::channel();
            let first = scope.spawn(|| machine.vcpu.run());
            let second = scope.spawn(move || {
                let exit = second.run();
                done.send(()).unwrap();
                exit
            });
            let _ = watchdog.recv_timeout(Duration::from_secs(60));
            requests.ask(Request::EXIT);
            others.ask(Request::EXIT);
            (first.join().unwrap(), second.join().unwrap())
        });
        assert_eq!(exits.1, Exit::Halted, "the reader never saw the new code");
    }
}

#[test]
fn global_pages_need_their_enable_bit() {
    let mut machine = Machine::new(&[], 64);
    let table = RAM - 4 * 4096;
    machine.memory.write(RAM - 4096 + 8 * 2, &(table | 7).to_le_bytes());
    for enabled in [true, false] {
        machine.memory.write(table, &(DATA | 0x107).to_le_bytes());
        let cpu = machine.cpu();
        cpu.cr4 = if enabled { cpu.cr4 | Cr4::PGE.bits() } else { cpu.cr4 & !Cr4::PGE.bits() };
        cpu.paging_changed().unwrap();
        cpu.read::<u8>(0x40_0000).unwrap();
        machine.memory.write(table, &[0; 8]);
        let cpu = machine.cpu();
        cpu.load_cr3(cpu.cr3).unwrap();
        assert_eq!(cpu.read::<u8>(0x40_0000).is_ok(), enabled);
    }
}

#[test]
fn instructions_are_counted_one_by_one() {
    // mov ecx,3; again: dec ecx; jnz again; hlt
    let mut machine = Machine::new(&[0xb9, 3, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc], 64);
    run(&mut machine);
    assert_eq!(machine.vcpu.instructions(), 1 + 6 + 1);
    let cpu = testing::run(&[0xff, 0xc0], 64, |_| {});
    assert_eq!(cpu.rip, CODE + 3);
}
