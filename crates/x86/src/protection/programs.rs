//! Small programs that cross privilege levels, run by the engine from end to end.

use super::fixture::{Fixture, HANDLER, IDT, INNER_STACK, TSS, gate};
use crate::{
    engine::testing::{CODE, STACK, Stop},
    state::{TableRegister, reg, seg},
    system::cpuid::Leaf,
};

const RBX: usize = reg::RBX as usize;
const RSP: usize = reg::RSP as usize;
const HLT: u8 = 0xf4;

#[test]
fn user_code_faults_is_helped_and_calls_the_kernel() {
    // iretq
    let mut fixture = Fixture::new(&[0x48, 0xcf], 64);
    fixture.machine.vcpu.stop_at_exceptions(false);
    fixture.set_stack(STACK - 40, 8, &[HANDLER, 0x43, 2, 0x6000, 0x3b]);
    // ud2; mov ecx, 5; int 0x80
    fixture.write(HANDLER, &[0x0f, 0x0b, 0xb9, 5, 0, 0, 0, 0xcd, 0x80]);
    // add qword ptr [rsp], 2; inc ebx; iretq
    fixture.write(HANDLER + 0x100, &[0x48, 0x83, 0x04, 0x24, 2, 0xff, 0xc3, 0x48, 0xcf]);
    fixture.write(HANDLER + 0x200, &[HLT]);
    fixture.set_long_gate(6, gate(0x18, HANDLER + 0x100, 0x8e, 0), 0);
    fixture.set_long_gate(0x80, gate(0x18, HANDLER + 0x200, 0xee, 0), 0);
    assert_eq!(fixture.run(), Stop::Halted);
    assert_eq!((fixture.cpu().gpr[RBX], fixture.cpu().register(reg::RCX)), (1, 5));
    assert_eq!((fixture.cpu().rip, fixture.cpu().cpl), (HANDLER + 0x201, 0));
    assert_eq!(fixture.stack(8), [HANDLER + 9, 0x43, 2, 0x6000, 0x3b]);
}

#[test]
fn a_lost_stack_is_a_double_fault_on_a_stack_of_its_own() {
    // ud2
    let mut fixture = Fixture::new(&[0x0f, 0x0b], 64);
    fixture.machine.vcpu.stop_at_exceptions(false);
    for vector in [6, 14] {
        fixture.set_long_gate(vector, gate(0x18, HANDLER, 0x8e, 0), 0);
    }
    fixture.set_long_gate(8, gate(0x18, HANDLER + 0x100, 0x8e, 1), 0);
    fixture.write(HANDLER, &[HLT]);
    fixture.write(HANDLER + 0x100, &[HLT]);
    fixture.write(TSS + 0x24, &INNER_STACK.to_le_bytes());
    // Nothing is mapped here.
    fixture.cpu().gpr[RSP] = 0x7f_0000_0000;
    assert_eq!(fixture.run(), Stop::Halted);
    assert_eq!((fixture.cpu().rip, fixture.rsp()), (HANDLER + 0x101, INNER_STACK - 48));
    assert_eq!(fixture.stack::<3>(8), [0, CODE, 0x18]);
    assert_eq!(fixture.stack::<5>(8)[4], 0x7f_0000_0000);
    assert_eq!(fixture.cpu().cr2, 0x7f_0000_0000 - 8);
}

#[test]
fn without_handlers_the_processor_shuts_down() {
    let mut fixture = Fixture::new(&[0x0f, 0x0b], 64);
    fixture.machine.vcpu.stop_at_exceptions(false);
    fixture.cpu().idtr = TableRegister { base: IDT, limit: 0 };
    assert_eq!(fixture.run(), Stop::Shutdown);
}

#[test]
fn virtual_8086_code_is_watched_by_its_monitor() {
    // iretd, with VM set
    let mut fixture = Fixture::new(&[0xcf], 32);
    fixture.machine.vcpu.stop_at_exceptions(false);
    fixture.set_stack(STACK - 36, 4, &[0x10, 0x900, 0x2_0202, 0x100, 0x600, 0x400, 0x500, 0, 0]);
    // mov al, [0]; mov es:[2], al; int 0x21
    fixture.write(HANDLER + 0x10, &[0xa0, 0, 0, 0x26, 0xa2, 2, 0, 0xcd, 0x21]);
    fixture.write(0x5000, &[0x77]);
    fixture.set_gate(13, gate(8, HANDLER + 0x100, 0x8e, 0));
    fixture.write(HANDLER + 0x100, &[HLT]);
    assert_eq!(fixture.run(), Stop::Halted);
    assert_eq!(fixture.machine.read::<1>(0x4002), [0x77]);
    // #GP(0) at the INT, which needs IOPL 3.
    assert_eq!(fixture.stack::<3>(4), [0, 0x17, 0x900]);
    assert_eq!((fixture.cpu().cpl, fixture.selector(seg::DS), fixture.selector(seg::SS)), (0, 0, 0x10));
}

/// As Linux brings up its application processors.
#[test]
fn a_started_processor_climbs_from_real_to_long_mode() {
    let mut fixture = Fixture::new(&[], 64);
    fixture.machine.vcpu.stop_at_exceptions(false);
    let [a, b, c, d] = (fixture.cpu().cr3 as u32).to_le_bytes();
    let long_mode = Leaf { edx: 1 << 29 | 1 << 20 | 1 << 11, ..Leaf::default() };
    fixture.cpu().cpuid.set(0x8000_0000, 0, Leaf { eax: 0x8000_0008, ..Leaf::default() });
    fixture.cpu().cpuid.set(0x8000_0001, 0, long_mode);
    fixture.cpu().cpuid.set(1, 0, Leaf { edx: 1 << 6 | 1 << 5, ..Leaf::default() });
    fixture.cpu().reset();
    fixture.cpu().startup((CODE >> 12) as u8);
    #[rustfmt::skip]
    let code_16 = [
        0xfa,                                           // cli
        0x66, 0x0f, 0x01, 0x16, 0x80, 0x80,             // lgdt [0x8080]
        0x0f, 0x20, 0xc0,                               // mov eax, cr0
        0x66, 0x83, 0xc8, 0x01,                         // or eax, 1
        0x0f, 0x22, 0xc0,                               // mov cr0, eax
        0x66, 0xea, 0x00, 0x90, 0x00, 0x00, 0x08, 0x00, // jmp 0x08:0x9000
    ];
    #[rustfmt::skip]
    let code_32 = [
        0x66, 0xb8, 0x10, 0x00,                   // mov ax, 0x10
        0x8e, 0xd8,                               // mov ds, ax
        0x8e, 0xd0,                               // mov ss, ax
        0x0f, 0x20, 0xe0,                         // mov eax, cr4
        0x83, 0xc8, 0x20,                         // or eax, PAE
        0x0f, 0x22, 0xe0,                         // mov cr4, eax
        0xb8, a, b, c, d,                         // mov eax, page tables
        0x0f, 0x22, 0xd8,                         // mov cr3, eax
        0xb9, 0x80, 0x00, 0x00, 0xc0,             // mov ecx, EFER
        0x0f, 0x32,                               // rdmsr
        0x0d, 0x00, 0x01, 0x00, 0x00,             // or eax, LME
        0x0f, 0x30,                               // wrmsr
        0x0f, 0x20, 0xc0,                         // mov eax, cr0
        0x0d, 0x00, 0x00, 0x00, 0x80,             // or eax, PG
        0x0f, 0x22, 0xc0,                         // mov cr0, eax
        0xea, 0x00, 0xa0, 0x00, 0x00, 0x18, 0x00, // jmp 0x18:0xa000
    ];
    // mov rbx, 0x1122334455667788; hlt
    let code_64 = [0x48, 0xbb, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, HLT];
    fixture.write(CODE, &code_16);
    fixture.write(0x8080, &[0xff, 0x0f, 0x00, 0x10, 0x00, 0x00]);
    fixture.write(0x9000, &code_32);
    fixture.write(0xa000, &code_64);
    assert_eq!(fixture.run(), Stop::Halted, "at {:#x}", fixture.cpu().rip);
    let cpu = fixture.cpu();
    assert_eq!((cpu.rip, cpu.gpr[RBX]), (0xa00b, 0x1122_3344_5566_7788));
    assert!(cpu.long_mode() && cpu.in_64_bit_code());
}
