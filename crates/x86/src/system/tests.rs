//! System instructions: privilege, reserved bits, and what changes with them.

mod address_spaces;

use crate::{
    engine::testing::{CODE, DATA, Machine, STACK, Stop, run},
    integer::tests::{exception, execute},
    state::{Cr0, Cr4, Efer, Request, Rflags, reg, seg},
    system::cpuid::{CpuModel, Feature, Package, Topology},
    trap::{Exception, Trap},
};
use rhea_core::Width;

const RAX: usize = reg::RAX as usize;
const RCX: usize = reg::RCX as usize;
const RDX: usize = reg::RDX as usize;
const RBX: usize = reg::RBX as usize;
const RSP: usize = reg::RSP as usize;
const RSI: usize = reg::RSI as usize;
const RDI: usize = reg::RDI as usize;

const GP: Exception = Exception::general_protection(0);
const UD: Exception = Exception::INVALID_OPCODE;

const RDMSR: [u8; 2] = [0x0f, 0x32];
const WRMSR: [u8; 2] = [0x0f, 0x30];

/// A machine of the default model.
fn machine(bits: u8) -> Machine {
    let mut machine = Machine::new(&[], bits);
    machine.cpu().cpuid = CpuModel::default().table(Topology {
        apic_id: 0,
        package: Package::new(1, 1),
        tsc_khz: 1_000_000,
        apic_khz: 1_000_000,
    });
    machine.cpu().configure_paging();
    machine
}

fn user(bits: u8) -> Machine {
    let mut machine = machine(bits);
    machine.cpu().cpl = 3;
    // A task state segment without a map of ports.
    machine.cpu().tr.limit = 0x65;
    machine
}

fn write_msr(machine: &mut Machine, msr: u32, value: u64) -> Result<(), Exception> {
    let cpu = machine.cpu();
    cpu.gpr[RCX] = u64::from(msr);
    (cpu.gpr[RAX], cpu.gpr[RDX]) = (value & 0xffff_ffff, value >> 32);
    match execute(machine, &WRMSR) {
        Ok(()) | Err(Trap::NEXT) => Ok(()),
        Err(Trap::EXCEPTION) => Err(machine.cpu().exception),
        Err(trap) => panic!("{trap:?}"),
    }
}

fn read_msr(machine: &mut Machine, msr: u32) -> Result<u64, Exception> {
    machine.cpu().gpr[RCX] = u64::from(msr);
    match execute(machine, &RDMSR) {
        Ok(()) => Ok(machine.cpu().gpr[RDX] << 32 | machine.cpu().gpr[RAX]),
        Err(Trap::EXCEPTION) => Err(machine.cpu().exception),
        Err(trap) => panic!("{trap:?}"),
    }
}

#[test]
fn privileged_instructions_fault_in_user_code() {
    for code in [
        &[0xf4][..],               // HLT
        &[0x0f, 0x20, 0xc0],       // MOV RAX, CR0
        &[0x0f, 0x22, 0xd8],       // MOV CR3, RAX
        &[0x44, 0x0f, 0x20, 0xc0], // MOV RAX, CR8
        &[0x0f, 0x21, 0xf8],       // MOV RAX, DR7
        &[0x0f, 0x23, 0xf8],       // MOV DR7, RAX
        &[0x0f, 0x06],             // CLTS
        &[0x0f, 0x01, 0xf0],       // LMSW AX
        &[0x0f, 0x01, 0x16],       // LGDT [RSI]
        &[0x0f, 0x01, 0x1e],       // LIDT [RSI]
        &[0x0f, 0x01, 0x3e],       // INVLPG [RSI]
        &[0x0f, 0x08],             // INVD
        &[0x0f, 0x09],             // WBINVD
        &[0xf3, 0x0f, 0x09],       // WBNOINVD
        &RDMSR,
        &WRMSR,
        &[0x0f, 0x01, 0xf8], // SWAPGS
        &[0xfa],             // CLI
        &[0xfb],             // STI
        &[0xec],             // IN AL, DX
        &[0xe7, 0x80],       // OUT 0x80, EAX
        &[0x6c],             // INSB
        &[0xf3, 0x6f],       // REP OUTSD
        &[0x0f, 0x33],       // RDPMC
    ] {
        let mut machine = user(64);
        machine.cpu().gpr[RCX] = 1;
        assert_eq!(exception(&mut machine, code), GP, "{code:02x?}");
    }
}

#[test]
fn what_is_not_offered_is_an_invalid_opcode() {
    // GETSEC, XGETBV, RSM, RDFSBASE RAX, RDTSCP, MOV CR1, SWAPGS in 32-bit code below
    for code in
        [&[0x0f, 0x37][..], &[0x0f, 0x01, 0xd0], &[0x0f, 0xaa], &[0xf3, 0x48, 0x0f, 0xae, 0xc0], &[0x0f, 0x01, 0xf9]]
    {
        assert_eq!(exception(&mut machine(64), code), UD, "{code:02x?}");
    }
    assert_eq!(exception(&mut machine(32), &[0x0f, 0x01, 0xf8]), UD);
}

#[test]
fn cr0_refuses_what_contradicts_itself() {
    let mut machine = machine(32);
    let before = machine.cpu().cr0;
    for value in [Cr0::PG.bits(), (Cr0::PE | Cr0::NW).bits()] {
        machine.cpu().gpr[RAX] = value;
        assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xc0]), GP, "{value:#x}");
        assert_eq!(machine.cpu().cr0, before);
    }
    let mut machine = self::machine(64);
    let cr0 = machine.cpu().cr0;
    // Upper bits; and paging cannot be left from 64-bit code.
    for value in [cr0 | 1 << 32, cr0 & !Cr0::PG.bits()] {
        machine.cpu().gpr[RAX] = value;
        assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xc0]), GP, "{value:#x}");
        assert_eq!(machine.cpu().cr0, cr0);
    }
}

#[test]
fn reserved_bits_of_cr0_are_ignored_and_et_stays() {
    let mut machine = machine(32);
    machine.cpu().gpr[RAX] = 0x1ffa_ffc9;
    assert_eq!(execute(&mut machine, &[0x0f, 0x22, 0xc0]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().cr0, (Cr0::PE | Cr0::ET | Cr0::TS).bits());
}

#[test]
fn long_mode_begins_with_paging_and_needs_pae() {
    let mut machine = machine(32);
    let cpu = machine.cpu();
    cpu.efer = Efer::LME.bits();
    cpu.cr3 = 0x10_0000;
    cpu.gpr[RAX] = cpu.cr0 | Cr0::PG.bits();
    assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xc0]), GP);
    assert!(!machine.cpu().long_mode());
    machine.cpu().cr4 |= Cr4::PAE.bits();
    assert_eq!(execute(&mut machine, &[0x0f, 0x22, 0xc0]), Err(Trap::NEXT));
    assert!(machine.cpu().long_mode(), "compatibility mode");
    // PAE must stay on, LME cannot change.
    machine.cpu().gpr[RAX] = machine.cpu().cr4 & !Cr4::PAE.bits();
    assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xe0]), GP);
    assert_eq!(write_msr(&mut machine, 0xc000_0080, 0), Err(GP));
    // And out again.
    machine.cpu().gpr[RAX] = machine.cpu().cr0 & !Cr0::PG.bits();
    assert_eq!(execute(&mut machine, &[0x0f, 0x22, 0xc0]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().efer, Efer::LME.bits());
}

#[test]
fn cr4_has_the_bits_of_the_model() {
    let mut machine = machine(64);
    let before = machine.cpu().cr4;
    for bit in [0, 1, 12, 13, 16, 17, 18, 20, 21, 22, 23, 40] {
        machine.cpu().gpr[RAX] = before | 1 << bit;
        assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xe0]), GP, "bit {bit}");
    }
    machine.cpu().cpuid.set_feature(Feature::SMEP, true);
    machine.cpu().gpr[RAX] = before | Cr4::SMEP.bits() | Cr4::TSD.bits();
    assert_eq!(execute(&mut machine, &[0x0f, 0x22, 0xe0]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().cr4, before | Cr4::SMEP.bits() | Cr4::TSD.bits());
}

#[test]
fn cr3_has_no_bits_beyond_physical_memory() {
    let mut machine = machine(64);
    let before = machine.cpu().cr3;
    machine.cpu().gpr[RAX] = before | 1 << 40;
    assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xd8]), GP);
    machine.cpu().gpr[RAX] = before | 1 << 3;
    assert_eq!(execute(&mut machine, &[0x0f, 0x22, 0xd8]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().cr3, before | 8);
}

#[test]
fn cr8_is_the_task_priority() {
    let mut machine = machine(64);
    machine.cpu().gpr[RAX] = 9;
    assert_eq!(execute(&mut machine, &[0x44, 0x0f, 0x22, 0xc0]), Err(Trap::NEXT));
    assert_eq!(execute(&mut machine, &[0x44, 0x0f, 0x20, 0xc3]), Ok(()));
    assert_eq!(machine.cpu().gpr[RBX], 9);
    machine.cpu().gpr[RAX] = 16;
    assert_eq!(exception(&mut machine, &[0x44, 0x0f, 0x22, 0xc0]), GP);
}

#[test]
fn lmsw_sets_protection_but_does_not_clear_it() {
    let mut machine = machine(32);
    machine.cpu().gpr[RAX] = 0xfff8;
    assert_eq!(execute(&mut machine, &[0x0f, 0x01, 0xf0]), Err(Trap::NEXT));
    assert!(machine.cpu().cr0_has(Cr0::PE | Cr0::TS));
    assert_eq!(execute(&mut machine, &[0x0f, 0x06]), Err(Trap::NEXT));
    assert!(!machine.cpu().cr0_has(Cr0::TS));
    // SMSW EAX
    let cr0 = machine.cpu().cr0;
    execute(&mut machine, &[0x0f, 0x01, 0xe0]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], cr0);
}

#[test]
fn debug_registers_keep_their_fixed_bits() {
    let mut machine = machine(64);
    machine.cpu().gpr[RAX] = 0xffff_ffff & !(1 << 13);
    assert_eq!(execute(&mut machine, &[0x0f, 0x23, 0xf0]), Err(Trap::NEXT)); // MOV DR6, RAX
    assert_eq!(execute(&mut machine, &[0x0f, 0x23, 0xf8]), Err(Trap::NEXT)); // MOV DR7, RAX
    assert_eq!(execute(&mut machine, &[0x0f, 0x21, 0xe1]), Ok(())); // MOV RCX, DR4, which is DR6
    assert_eq!(machine.cpu().gpr[RCX], 0xffff_cfff | 0x0ff0);
    assert_eq!(execute(&mut machine, &[0x0f, 0x21, 0xf9]), Ok(()));
    assert_eq!(machine.cpu().gpr[RCX], 0xffff_07ff);
    machine.cpu().gpr[RAX] = 1 << 32;
    assert_eq!(exception(&mut machine, &[0x0f, 0x23, 0xf8]), GP);
    machine.cpu().cr4 |= Cr4::DE.bits();
    assert_eq!(exception(&mut machine, &[0x0f, 0x21, 0xe1]), UD);
    machine.cpu().dr[7] |= 1 << 13;
    assert_eq!(exception(&mut machine, &[0x0f, 0x21, 0xf9]), Exception::DEBUG);
    assert_ne!(machine.cpu().dr[6] & 1 << 13, 0);
}

#[test]
fn descriptor_tables_are_loaded_and_stored_whole() {
    let mut machine = machine(64);
    machine.memory.write(DATA, &[0x34, 0x12]);
    machine.memory.write(DATA + 2, &0xffff_8000_1122_3344_u64.to_le_bytes());
    assert_eq!(execute(&mut machine, &[0x0f, 0x01, 0x1e]), Ok(()));
    assert_eq!((machine.cpu().idtr.base, machine.cpu().idtr.limit), (0xffff_8000_1122_3344, 0x1234));
    machine.cpu().gpr[RSI] = DATA + 0x20;
    assert_eq!(execute(&mut machine, &[0x0f, 0x01, 0x0e]), Ok(()));
    assert_eq!(machine.read::<10>(DATA + 0x20), machine.read::<10>(DATA));
    machine.memory.write(DATA + 0x22, &(1_u64 << 60).to_le_bytes());
    assert_eq!(exception(&mut machine, &[0x0f, 0x01, 0x16]), GP, "a base that is not canonical");

    let mut machine = self::machine(32);
    machine.memory.write(DATA, &[0xff, 0x00, 0x44, 0x33, 0x22, 0x11]);
    assert_eq!(execute(&mut machine, &[0x0f, 0x01, 0x16]), Ok(()));
    assert_eq!((machine.cpu().gdtr.base, machine.cpu().gdtr.limit), (0x1122_3344, 0xff));
    assert_eq!(execute(&mut machine, &[0x66, 0x0f, 0x01, 0x16]), Ok(()));
    assert_eq!(machine.cpu().gdtr.base, 0x22_3344, "24 bits with an operand size of 16");
}

#[test]
fn invlpg_makes_a_changed_table_count() {
    let mut machine = machine(64);
    let entry = crate::engine::testing::RAM - 4096 + 8;
    machine.memory.write(0x20_0000, &[0x11]);
    machine.memory.write(0x40_0000, &[0x22]);
    assert_eq!(machine.cpu().read::<u8>(0x20_0000), Ok(0x11));
    machine.memory.write(entry, &(0x40_0000_u64 | 0x87).to_le_bytes());
    machine.cpu().gpr[RSI] = 0x20_0000;
    assert_eq!(execute(&mut machine, &[0x0f, 0x01, 0x3e]), Err(Trap::NEXT));
    assert_eq!(machine.cpu().read::<u8>(0x20_0000), Ok(0x22));
}

#[test]
fn unknown_registers_fault() {
    let mut machine = machine(64);
    for msr in [
        2,
        0x3a,
        0x17,
        0x2a,
        0x1a0,
        0xce,
        0x186,
        0x251,
        0x414,
        0x999,
        0x4000_0000,
        0xc000_0079,
        0xc000_0103,
        0xc001_0000,
    ] {
        assert_eq!(read_msr(&mut machine, msr), Err(GP), "{msr:#x}");
        assert_eq!(write_msr(&mut machine, msr, 0), Err(GP), "{msr:#x}");
    }
    // Those that can only be read.
    for msr in [0xfe, 0x179, 0x8b] {
        assert!(read_msr(&mut machine, msr).is_ok());
        assert_eq!(write_msr(&mut machine, msr, 0), Err(GP), "{msr:#x}");
    }
}

#[test]
fn registers_keep_what_they_can_hold_and_refuse_the_rest() {
    const BAD_ADDRESS: u64 = 1 << 47;
    for (msr, good, bad) in [
        (0x175, 0xffff_8000_0000_1000_u64, BAD_ADDRESS),
        (0x176, 0x1000, BAD_ADDRESS),
        (0x200, 0xc000_0006, 0xc000_0002),
        (0x201, 0xff_c000_0800, 1 << 40),
        (0x250, 0x0606_0606_0606_0606, 0x0606_0606_0606_0607),
        (0x26f, 0x0504_0100_0000_0000, 0x1e00_0000_0000_0000),
        (0x277, 0x0007_0406_0007_0406, 0x0007_0406_0007_0402),
        (0x2ff, 0xc06, 0x1000),
        (0xc000_0080, 0xd01, 1 << 12),
        (0xc000_0081, 0x0023_0010_0000_0000, u64::MAX),
        (0xc000_0082, 0xffff_ffff_8100_0000, BAD_ADDRESS),
        (0xc000_0083, 0xffff_ffff_8100_0000, BAD_ADDRESS),
        (0xc000_0100, 0x7fff_ffff_f000, BAD_ADDRESS),
        (0xc000_0101, 0xffff_8880_0000_0000, BAD_ADDRESS),
        (0xc000_0102, 0xffff_8880_0000_0000, BAD_ADDRESS),
        (0xc001_0010, 0x74_0000, 1 << 32),
        (0xc001_0015, 0x10, 1 << 32),
        (0x400, u64::MAX, u64::MAX),
        (0x401, 0, 1),
    ] {
        let mut machine = machine(64);
        assert_eq!(write_msr(&mut machine, msr, good), Ok(()), "{msr:#x}");
        assert_eq!(read_msr(&mut machine, msr), Ok(good), "{msr:#x}");
        if matches!(msr, 0xc000_0081 | 0x400) {
            continue;
        }
        assert_eq!(write_msr(&mut machine, msr, bad), Err(GP), "{msr:#x}");
        assert_eq!(read_msr(&mut machine, msr), Ok(good), "{msr:#x}");
    }
}

#[test]
fn fixed_mtrrs_take_their_extra_bits_only_when_amd_unlocks_them() {
    let mut machine = machine(64);
    assert_eq!(write_msr(&mut machine, 0x259, 0x1e), Err(GP));
    assert_eq!(write_msr(&mut machine, 0xc001_0010, 1 << 19), Ok(()));
    assert_eq!(write_msr(&mut machine, 0x259, 0x1e), Ok(()));
    assert_eq!(read_msr(&mut machine, 0x259), Ok(0x1e));
}

#[test]
fn lma_is_not_for_writing() {
    let mut machine = machine(64);
    let efer = machine.cpu().efer;
    assert_eq!(write_msr(&mut machine, 0xc000_0080, efer & !Efer::LMA.bits() | 1), Ok(()));
    assert_eq!(machine.cpu().efer, efer | 1);
    let mut machine = self::machine(32);
    assert_eq!(write_msr(&mut machine, 0xc000_0080, (Efer::LMA | Efer::LME).bits()), Ok(()));
    assert_eq!(machine.cpu().efer, Efer::LME.bits());
}

#[test]
fn the_time_stamp_counter_goes_on_from_what_was_written() {
    let mut machine = machine(64);
    assert_eq!(write_msr(&mut machine, 0x10, 1 << 40), Ok(()));
    execute(&mut machine, &[0x0f, 0x31]).expect("no trap");
    let first = machine.cpu().gpr[RDX] << 32 | machine.cpu().gpr[RAX];
    assert!((1 << 40..(1 << 40) + 10_000).contains(&first), "{first:#x}");
    assert!(read_msr(&mut machine, 0x10).is_ok_and(|later| later > first));
    machine.cpu().cr4 |= Cr4::TSD.bits();
    execute(&mut machine, &[0x0f, 0x31]).expect("the kernel may still look");
    machine.cpu().cpl = 3;
    assert_eq!(exception(&mut machine, &[0x0f, 0x31]), GP);
}

#[test]
fn rdtscp_names_the_processor() {
    let mut machine = machine(64);
    machine.cpu().cpuid.set_feature(Feature::RDTSCP, true);
    assert_eq!(write_msr(&mut machine, 0xc000_0103, 0x5_0000_0007), Ok(()));
    execute(&mut machine, &[0x0f, 0x01, 0xf9]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RCX], 7);
}

#[test]
fn cpuid_fills_four_registers() {
    let mut machine = machine(64);
    for number in [RAX, RBX, RCX, RDX] {
        machine.cpu().gpr[number] = 0xffff_ffff_0000_0000;
    }
    execute(&mut machine, &[0x0f, 0xa2]).expect("no trap");
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RBX]), (0xd, u64::from(u32::from_le_bytes(*b"Auth"))));
    assert_eq!((cpu.gpr[RDX], cpu.gpr[RCX]), (0x6974_6e65, 0x444d_4163));
}

#[test]
fn a_system_call_goes_there_and_back() {
    let mut machine = machine(64);
    let cpu = machine.cpu();
    cpu.cpl = 3;
    cpu.efer |= Efer::SCE.bits();
    cpu.msr.star = 0x0023_0010 << 32;
    cpu.msr.lstar = 0xffff_ffff_8100_0000;
    cpu.msr.sfmask = (Rflags::IF | Rflags::TF | Rflags::DF).bits();
    cpu.rflags = 0x246 | Rflags::DF.bits() | Rflags::RF.bits();
    assert_eq!(execute(&mut machine, &[0x0f, 0x05]), Err(Trap::JUMP));
    let cpu = machine.cpu();
    assert_eq!((cpu.rip, cpu.gpr[RCX], cpu.gpr[11]), (0xffff_ffff_8100_0000, CODE + 2, 0x646));
    assert_eq!((cpu.cpl, cpu.rflags), (0, 0x46));
    let (code, stack) = (cpu.segments[usize::from(seg::CS)], cpu.segments[usize::from(seg::SS)]);
    assert_eq!((code.selector, code.attributes), (0x10, 0xa09b));
    assert_eq!((stack.selector, stack.attributes), (0x18, 0xc093));
    assert_eq!(execute(&mut machine, &[0x48, 0x0f, 0x07]), Err(Trap::JUMP));
    let cpu = machine.cpu();
    assert_eq!((cpu.rip, cpu.cpl, cpu.rflags), (CODE + 2, 3, 0x646));
    let (code, stack) = (cpu.segments[usize::from(seg::CS)], cpu.segments[usize::from(seg::SS)]);
    assert_eq!((code.selector, code.attributes), (0x33, 0xa0fb));
    assert_eq!((stack.selector, stack.attributes), (0x2b, 0xc0f3));
}

#[test]
fn sysret_to_compatibility_code_has_32_bits() {
    let mut machine = machine(64);
    let cpu = machine.cpu();
    cpu.efer |= Efer::SCE.bits();
    cpu.msr.star = 0x0023_0010 << 32;
    cpu.gpr[RCX] = 0x1_2345_6789;
    cpu.gpr[11] = 0x202 | Rflags::VM.bits();
    assert_eq!(execute(&mut machine, &[0x0f, 0x07]), Err(Trap::JUMP));
    let cpu = machine.cpu();
    assert_eq!((cpu.rip, cpu.cpl, cpu.rflags), (0x2345_6789, 3, 0x202));
    assert_eq!(cpu.segments[usize::from(seg::CS)].attributes, 0xc0fb);
    assert_eq!(cpu.mode().code_bits(), 32);
}

#[test]
fn system_calls_that_are_switched_off_are_invalid() {
    let mut machine = machine(64);
    assert_eq!(exception(&mut machine, &[0x0f, 0x05]), UD);
    assert_eq!(exception(&mut machine, &[0x48, 0x0f, 0x07]), UD);
    // AMD's processors have no SYSENTER in long mode.
    assert_eq!(exception(&mut machine, &[0x0f, 0x34]), UD);
    let mut machine = user(64);
    machine.cpu().efer |= Efer::SCE.bits();
    assert_eq!(exception(&mut machine, &[0x48, 0x0f, 0x07]), GP);
}

#[test]
fn sysenter_needs_a_selector_and_comes_back_by_sysexit() {
    let mut machine = user(32);
    assert_eq!(exception(&mut machine, &[0x0f, 0x34]), GP);
    let cpu = machine.cpu();
    (cpu.msr.sysenter_cs, cpu.msr.sysenter_eip, cpu.msr.sysenter_esp) = (0x60, 0xc010_0000, 0xc020_0000);
    cpu.rflags = 0x202;
    assert_eq!(execute(&mut machine, &[0x0f, 0x34]), Err(Trap::JUMP));
    let cpu = machine.cpu();
    assert_eq!((cpu.rip, cpu.gpr[RSP], cpu.cpl, cpu.rflags), (0xc010_0000, 0xc020_0000, 0, 2));
    assert_eq!(cpu.segments[usize::from(seg::CS)].selector, 0x60);
    assert_eq!(cpu.segments[usize::from(seg::SS)].selector, 0x68);
    (cpu.gpr[RDX], cpu.gpr[RCX]) = (CODE, STACK);
    assert_eq!(execute(&mut machine, &[0x0f, 0x35]), Err(Trap::JUMP));
    let cpu = machine.cpu();
    assert_eq!((cpu.rip, cpu.gpr[RSP], cpu.cpl), (CODE, STACK, 3));
    assert_eq!(cpu.segments[usize::from(seg::CS)].selector, 0x73);
    assert_eq!(cpu.segments[usize::from(seg::SS)].selector, 0x7b);
    assert_eq!(exception(&mut machine, &[0x0f, 0x35]), GP, "only the kernel may leave");
}

#[test]
fn swapgs_exchanges_the_bases() {
    let mut machine = machine(64);
    machine.cpu().msr.kernel_gs_base = 0xffff_8880_0000_0000;
    machine.cpu().segments[usize::from(seg::GS)].base = 0x7000;
    execute(&mut machine, &[0x0f, 0x01, 0xf8]).expect("no trap");
    assert_eq!(machine.cpu().segments[usize::from(seg::GS)].base, 0xffff_8880_0000_0000);
    assert_eq!(machine.cpu().msr.kernel_gs_base, 0x7000);
}

#[test]
fn segment_bases_move_by_instruction_when_switched_on() {
    let mut machine = machine(64);
    machine.cpu().cr4 |= Cr4::FSGSBASE.bits();
    machine.cpu().cpl = 3;
    machine.cpu().gpr[RAX] = 0x7fff_0000_1000;
    execute(&mut machine, &[0xf3, 0x48, 0x0f, 0xae, 0xd0]).expect("no trap"); // WRFSBASE RAX
    execute(&mut machine, &[0xf3, 0x0f, 0xae, 0xc1]).expect("no trap"); // RDFSBASE ECX
    assert_eq!(machine.cpu().gpr[RCX], 0x1000);
    machine.cpu().gpr[RAX] = 1 << 50;
    assert_eq!(exception(&mut machine, &[0xf3, 0x48, 0x0f, 0xae, 0xd8]), GP);
}

#[test]
fn ports_are_read_and_written_in_every_size() {
    let mut machine = machine(64);
    machine.bus.set_input(0x1f0, 0x1234_5678);
    let cpu = machine.cpu();
    cpu.gpr[RDX] = 0x1_01f0;
    cpu.gpr[RAX] = u64::MAX;
    execute(&mut machine, &[0xec]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], u64::MAX << 8 | 0x78);
    execute(&mut machine, &[0x66, 0xed]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], u64::MAX << 16 | 0x5678);
    execute(&mut machine, &[0xed]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0x1234_5678);
    execute(&mut machine, &[0xe6, 0x80]).expect("no trap");
    execute(&mut machine, &[0xef]).expect("no trap");
    assert_eq!(machine.bus.written(), [(0x80, Width::Byte, 0x78), (0x1f0, Width::Dword, 0x1234_5678)]);
}

#[test]
fn strings_go_to_and_come_from_ports() {
    let mut machine = machine(64);
    machine.bus.set_input(0x1f0, 0xabcd);
    let cpu = machine.cpu();
    (cpu.gpr[RDX], cpu.gpr[RCX], cpu.gpr[RDI]) = (0x1f0, 3, DATA + 2);
    // REP INSW, then REP OUTSB of what came
    execute(&mut machine, &[0xf3, 0x66, 0x6d]).expect("no trap");
    assert_eq!(machine.read::<8>(DATA), [0, 0, 0xcd, 0xab, 0xcd, 0xab, 0xcd, 0xab]);
    assert_eq!((machine.cpu().gpr[RCX], machine.cpu().gpr[RDI]), (0, DATA + 8));
    (machine.cpu().gpr[RCX], machine.cpu().gpr[RSI]) = (2, DATA + 2);
    execute(&mut machine, &[0xf3, 0x6e]).expect("no trap");
    assert_eq!(machine.bus.written(), [(0x1f0, Width::Byte, 0xcd), (0x1f0, Width::Byte, 0xab)]);
}

#[test]
fn an_access_that_rings_a_device_ends_the_block() {
    let mut machine = machine(64);
    machine.cpu().requests.ask(Request::INTERRUPT);
    assert_eq!(execute(&mut machine, &[0xe6, 0x80]), Err(Trap::NEXT));
}

#[test]
fn the_permission_map_opens_ports_one_by_one() {
    let mut machine = user(32);
    let task = 0x3000_u64;
    let cpu = machine.cpu();
    cpu.tr = crate::state::Segment { base: task, limit: 0x68 + 0x10, attributes: 0x8b, selector: 0x40 };
    machine.memory.write(task + 0x66, &0x68_u16.to_le_bytes());
    machine.memory.write(task + 0x68, &[0xff; 0x11]);
    // Ports 0x10 to 0x13 are open, and 0x17 with 0x18.
    machine.memory.write(task + 0x6a, &[0x70, 0xfe]);
    for (port, code, open) in [
        (0x10_u64, 0xec_u8, true),
        (0x13, 0xec, true),
        (0x14, 0xec, false),
        (0x10, 0xed, true),
        (0x11, 0xed, false),
        (0x17, 0xec, true),
        (0x18, 0xec, true),
        // The map ends here: port 0x80's byte is the limit's own.
        (0x80, 0xec, false),
        (0xffff, 0xec, false),
    ] {
        machine.cpu().gpr[RDX] = port;
        let expected = if open { Ok(()) } else { Err(Trap::EXCEPTION) };
        assert_eq!(execute(&mut machine, &[code]), expected, "port {port:#x}, opcode {code:#x}");
    }
    // With I/O privilege nobody asks the map.
    machine.cpu().rflags |= Rflags::IOPL.bits();
    assert_eq!(execute(&mut machine, &[0xec]), Ok(()));
    // In virtual-8086 mode it is asked all the same.
    machine.cpu().rflags |= Rflags::VM.bits();
    assert_eq!(exception(&mut machine, &[0xec]), GP);
}

#[test]
fn sti_holds_interrupts_off_for_one_more_instruction() {
    let mut machine = machine(64);
    assert_eq!(execute(&mut machine, &[0xfb]), Err(Trap::NEXT));
    assert!(machine.cpu().interrupt_shadow && machine.cpu().flags().contains(Rflags::IF));
    machine.cpu().interrupt_shadow = false;
    assert_eq!(execute(&mut machine, &[0xfb]), Ok(()), "nothing changes when they were open already");
    assert!(!machine.cpu().interrupt_shadow);
    assert_eq!(execute(&mut machine, &[0xfa]), Ok(()));
    assert!(!machine.cpu().flags().contains(Rflags::IF));
}

#[test]
fn io_privilege_is_enough_for_cli_and_sti() {
    let mut machine = user(32);
    machine.cpu().rflags = 2 | Rflags::IOPL.bits();
    assert_eq!(execute(&mut machine, &[0xfb]), Err(Trap::NEXT));
    assert_eq!(execute(&mut machine, &[0xfa]), Ok(()));
}

#[test]
fn code_can_enter_protected_mode_by_itself() {
    // In real mode: SMSW AX; OR AL, 1; LMSW AX; SMSW BX; HLT
    let cpu = run(&[0x0f, 0x01, 0xe0, 0x0c, 0x01, 0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3], 16, |_| {});
    assert_eq!(cpu.gpr[RBX] & 1, 1);
    assert!(cpu.cr0_has(Cr0::PE));
}

#[test]
fn a_halt_in_user_code_faults() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().cpl = 3;
    assert_eq!(machine.run(), Stop::Exception(GP));
}

/// What ends a run of `code` on a processor of the default model.
fn on_the_default_model(code: &[u8], bits: u8) -> (Stop, Machine) {
    let mut machine = Machine::new(code, bits);
    machine.cpu().cpuid = self::machine(bits).cpu().cpuid.clone();
    machine.cpu().execute_offered_instructions();
    let stop = machine.run();
    (stop, machine)
}

#[test]
fn code_meets_an_invalid_opcode_where_the_model_lacks_the_instruction() {
    for (code, bits) in [
        (&[0x0f, 0x38, 0x00, 0xc1][..], 64),   // pshufb mm0, mm1: ssse3
        (&[0x0f, 0x38, 0xf0, 0x06], 32),       // movbe eax, [esi]
        (&[0xc4, 0xe2, 0x70, 0xf2, 0xc2], 32), // andn eax, ecx, edx
        (&[0xc5, 0xf9, 0x6f, 0xc1], 64),       // vmovdqa xmm0, xmm1
        (&[0x0f, 0x01, 0xca], 64),             // clac
        (&[0x66, 0x0f, 0xae, 0x3e], 64),       // clflushopt [rsi]
        (&[0xf2, 0x2e, 0x64, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0x38, 0xf1, 0xc0], 32),
    ] {
        // INC EBX first: it is in the same block, and has been executed.
        let code = [&[0xff, 0xc3], code].concat();
        let (stop, mut machine) = on_the_default_model(&code, bits);
        assert_eq!(stop, Stop::Exception(UD), "{code:02x?}");
        assert_eq!((machine.cpu().rip, machine.cpu().gpr[RBX]), (CODE + 2, 1), "{code:02x?}");
    }
}

#[test]
fn an_instruction_that_is_another_without_its_feature_is_that_one() {
    // mov ecx, 8; tzcnt eax, ecx; lzcnt edx, ecx: BSF and BSR
    let code = [0xb9, 8, 0, 0, 0, 0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0xd1];
    let (stop, mut machine) = on_the_default_model(&code, 64);
    assert_eq!(stop, Stop::Halted);
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RDX]), (3, 3));
}

#[test]
fn an_instruction_of_more_than_15_bytes_is_no_invalid_opcode_but_a_fault() {
    let mut code = [0x66; 16];
    code[15] = 0x90;
    assert_eq!(on_the_default_model(&code, 64).0, Stop::Exception(GP));
    // 15 bytes are an instruction.
    assert_eq!(on_the_default_model(&code[1..], 64).0, Stop::Halted);
    // And across pages.
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(CODE + 0xffa, &code);
    machine.cpu().rip = CODE + 0xffa;
    assert_eq!(machine.run(), Stop::Exception(GP));
}

#[test]
fn the_end_of_the_segment_comes_before_the_page_after_it() {
    // mov eax, 1 at the end of a page, the segment's last; nothing is mapped behind.
    let mut machine = Machine::new(&[], 32);
    let tables = 0x10_0000_u64;
    machine.memory.write(tables, &(tables as u32 + 0x1007).to_le_bytes());
    for page in 0..9_u32 {
        machine.memory.write(tables + 0x1000 + 4 * u64::from(page), &(page << 12 | 7).to_le_bytes());
    }
    machine.memory.write(CODE + 0xffe, &[0xb8, 1]);
    let cpu = machine.cpu();
    (cpu.cr3, cpu.rip) = (tables, CODE + 0xffe);
    cpu.cr0 |= Cr0::PG.bits();
    cpu.segments[usize::from(seg::CS)].limit = CODE as u32 + 0xfff;
    assert_eq!(machine.run(), Stop::Exception(GP));
    machine.cpu().segments[usize::from(seg::CS)].limit = u32::MAX;
    assert!(matches!(machine.run(), Stop::Exception(Exception { vector: 14, .. })));
    assert_eq!(machine.cpu().cr2, CODE + 0x1000);
}

#[test]
fn models_have_the_registers_of_their_kind() {
    let intel = |msr| {
        let mut machine = machine(64);
        let model = CpuModel::named("Nehalem").expect("there is one");
        machine.cpu().cpuid =
            model.table(Topology { apic_id: 0, package: Package::new(1, 1), tsc_khz: 1_000_000, apic_khz: 1_000_000 });
        read_msr(&mut machine, msr)
    };
    for msr in [0x17, 0x2a, 0x1a0, 0x1d9, 0x1db, 0x8b] {
        assert!(intel(msr).is_ok(), "{msr:#x}");
    }
    for msr in [0xc001_0010, 0xc001_0015, 0xc001_001f, 0xc001_0055] {
        assert_eq!(intel(msr), Err(GP), "{msr:#x}");
        assert!(read_msr(&mut machine(64), msr).is_ok(), "{msr:#x}");
    }
    let mut old = machine(32);
    old.cpu().cpuid.set_feature(Feature::MTRR, false);
    old.cpu().cpuid.set_feature(Feature::PAT, false);
    for msr in [0xfe, 0x200, 0x250, 0x2ff, 0x277] {
        assert_eq!(read_msr(&mut old, msr), Err(GP), "{msr:#x}");
    }
}

#[test]
fn a_repeated_transfer_asks_for_its_port_even_if_there_is_nothing_to_do() {
    for code in [[0xf3, 0x6c], [0xf3, 0x6e]] {
        let mut machine = user(64);
        machine.cpu().gpr[RCX] = 0;
        assert_eq!(exception(&mut machine, &code), GP);
    }
}

#[test]
fn intel_has_sysret_in_64_bit_code_only() {
    let mut machine = user(32);
    machine.cpu().efer |= Efer::SCE.bits();
    assert_eq!(exception(&mut machine, &[0x0f, 0x07]), GP);
    let mut leaf = machine.cpu().cpuid.get(0, 0);
    leaf.ebx = u32::from_le_bytes(*b"Genu");
    machine.cpu().cpuid.set(0, 0, leaf);
    assert_eq!(exception(&mut machine, &[0x0f, 0x07]), UD);
}
