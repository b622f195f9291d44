//! Interrupts and timers: local APIC with priorities and IPIs of all kinds, I/O APIC, 8259A, PIT, HPET and clock. SDM vol. 3
//! ch. 11; Intel 290566 (82093AA), 231468 (8259A), 231164 (8254); IA-PC HPET specification 1.0a; Motorola MC146818.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{log, record, variable},
    processors::{COUNT, ICR_HIGH, ICR_LOW, apic_read, apic_write, run, start},
    program::{Check, Program, Want, dword, fault, no_fault, number},
};

const TASK_PRIORITY: u32 = 0xfee0_0080;
const PROCESSOR_PRIORITY: u32 = 0xfee0_00a0;
pub const END: u32 = 0xfee0_00b0;
pub const LOGICAL: u32 = 0xfee0_00d0;
pub const FORMAT: u32 = 0xfee0_00e0;
const SPURIOUS: u32 = 0xfee0_00f0;
const IN_SERVICE: u32 = 0xfee0_0100;
pub const REQUESTED: u32 = 0xfee0_0200;
const ERRORS: u32 = 0xfee0_0280;
pub const LVT_TIMER: u32 = 0xfee0_0320;
pub const LVT_LINT0: u32 = 0xfee0_0350;
pub const INITIAL_COUNT: u32 = 0xfee0_0380;
const CURRENT_COUNT: u32 = 0xfee0_0390;
pub const DIVIDE: u32 = 0xfee0_03e0;
pub const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 1 << 18;
const LEVEL: u32 = 1 << 15;
/// Shorthands of destinations.
pub const TO_SELF: u32 = 1 << 18;
const TO_ALL: u32 = 2 << 18;
pub const TO_OTHERS: u32 = 3 << 18;
const NMI: u32 = 4 << 8;

const IO_APIC: u32 = 0xfec0_0000;
const HPET: u32 = 0xfed0_0000;
/// The second processor stays while this is zero.
const LEAVE: u32 = variable::OWN + 0x400;
const HERE: u32 = variable::OWN + 0x404;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    // All vectors from 0x30 on return, and NMI.
    for word in 0..8 {
        let bits = match word {
            0 => 1 << 2,
            1 => 0xffff_0000_u32,
            _ => u32::MAX,
        };
        p.a.mov(dword_ptr(variable::RETURNS + 4 * word), bits as i32)?;
    }
    start(&mut p)?;
    p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
    own(&mut p)?;
    priorities(&mut p)?;
    local_timer(&mut p)?;
    non_maskable(&mut p)?;
    io_apic(&mut p)?;
    timers(&mut p)?;
    others(&mut p)?;
    x2apic(&mut p)?;
    p.end()
}

/// Lets interrupts in for a moment.
pub fn open(p: &mut Program) -> Done {
    p.a.sti()?;
    for _ in 0..4 {
        p.a.nop()?;
    }
    p.a.cli()
}

/// Lets interrupts in until there were `count` of them, for some seconds at the most.
pub fn wait_for(p: &mut Program, count: u32) -> Done {
    let (again, out) = (p.label(), p.label());
    p.a.rdtsc()?;
    p.a.shl(rdx, 32)?;
    p.a.or(rax, rdx)?;
    p.a.mov(r8, rax)?;
    p.a.mov(r9, 20_000_000_000_u64)?;
    p.a.sti()?;
    p.at(again)?;
    p.a.pause()?;
    p.a.cmp(dword_ptr(variable::LOGGED), count as i32)?;
    p.a.jae(out)?;
    p.a.rdtsc()?;
    p.a.shl(rdx, 32)?;
    p.a.or(rax, rdx)?;
    p.a.sub(rax, r8)?;
    p.a.cmp(rax, r9)?;
    p.a.jb(again)?;
    p.at(out)?;
    p.a.cli()
}

pub fn logged(count: u32) -> Check {
    dword("interrupts", variable::LOGGED, count)
}

pub fn vector(index: u32, vector: u32) -> Check {
    dword("vector of an interrupt", log::field(index, log::VECTOR), vector)
}

fn bit(what: &'static str, at: u32, mask: u64, set: bool) -> Check {
    Check { what, at, mask, want: Want::Number(if set { mask } else { 0 }) }
}

pub fn send(p: &mut Program, command: u32) -> Done {
    apic_write(p, ICR_LOW, command)
}

fn keep_register(p: &mut Program, register: u32, index: u32) -> Done {
    apic_read(p, register)?;
    p.keep(index, eax)
}

fn own(p: &mut Program) -> Done {
    p.case("an interrupt to oneself", vec![no_fault(), logged(1), vector(0, 0x50)], |p| {
        send(p, TO_SELF | 0x50)?;
        open(p)
    })?;
    let checks = vec![
        no_fault(),
        logged(1),
        bit("requested before", record::result(0), 1 << 16, true),
        bit("requested afterwards", record::result(1), 1 << 16, false),
        dword("interrupts while IF is clear", record::result(2), 0),
    ];
    p.case("what is requested waits for IF", checks, |p| {
        send(p, TO_SELF | 0x50)?;
        keep_register(p, REQUESTED + 0x20, 0)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(2, eax)?;
        open(p)?;
        keep_register(p, REQUESTED + 0x20, 1)
    })?;
    p.case("STI holds interrupts off for one instruction", vec![no_fault(), logged(0)], |p| {
        send(p, TO_SELF | 0x51)?;
        p.a.sti()?;
        p.a.cli()
    })?;
    p.case("and POPF does not", vec![no_fault(), logged(1), vector(0, 0x51)], |p| {
        p.a.push(0x202)?;
        p.a.popfq()?;
        p.a.cli()
    })?;
    p.case("HLT ends with an interrupt", vec![no_fault(), logged(1), vector(0, 0x52)], |p| {
        send(p, TO_SELF | 0x52)?;
        p.a.sti()?;
        p.a.hlt()?;
        p.a.cli()
    })?;
    p.case(
        "a vector below 16 is an error",
        vec![no_fault(), logged(0), bit("errors", record::result(0), 1 << 5, true)],
        |p| {
            apic_write(p, ERRORS, 0)?;
            send(p, TO_SELF | 0x0f)?;
            open(p)?;
            apic_write(p, ERRORS, 0)?;
            keep_register(p, ERRORS, 0)
        },
    )
}

fn priorities(p: &mut Program) -> Done {
    let order = [0xc1, 0x95, 0x61, 0x60, 0x53];
    let mut checks = vec![no_fault(), logged(5)];
    checks.extend((0..).zip(order).map(|(index, number)| vector(index, number)));
    p.case("the highest vector comes first", checks, |p| {
        for number in [0x60, 0xc1, 0x53, 0x61, 0x95] {
            send(p, TO_SELF | number)?;
        }
        for _ in 0..3 {
            open(p)?;
        }
        Ok(())
    })?;
    let checks = vec![
        no_fault(),
        logged(2),
        vector(0, 0x75),
        vector(1, 0x6f),
        dword("interrupts above the task's priority", record::result(0), 1),
        number("CR8", record::result(1), 6),
        dword("processor priority", record::result(2), 0x60),
    ];
    p.case("the task's priority holds off what is not above it", checks, |p| {
        apic_write(p, TASK_PRIORITY, 0x60)?;
        send(p, TO_SELF | 0x6f)?;
        send(p, TO_SELF | 0x75)?;
        open(p)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        p.a.mov(rax, cr8)?;
        p.a.mov(qword_ptr(record::result(1)), rax)?;
        keep_register(p, PROCESSOR_PRIORITY, 2)?;
        p.a.xor(eax, eax)?;
        p.a.mov(cr8, rax)?;
        open(p)
    })?;
    let checks = vec![
        no_fault(),
        logged(4),
        vector(0, 0x60),
        vector(1, 0x71),
        vector(2, 0x6e),
        vector(3, 0x55),
        dword("interrupts while one is in service", record::result(0), 2),
        bit("in service", record::result(1), 1, true),
        dword("processor priority", record::result(2), 0x70),
        dword("interrupts after one end", record::result(3), 2),
        bit("in service afterwards", record::result(4), u32::MAX.into(), false),
    ];
    p.case("an interrupt in service holds off its class and those below", checks, |p| {
        p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
        send(p, TO_SELF | 0x60)?;
        open(p)?;
        for number in [0x55, 0x6e, 0x71] {
            send(p, TO_SELF | number)?;
        }
        open(p)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        keep_register(p, IN_SERVICE + 0x30, 1)?;
        keep_register(p, PROCESSOR_PRIORITY, 2)?;
        apic_write(p, END, 0)?;
        open(p)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(3, eax)?;
        for _ in 0..3 {
            apic_write(p, END, 0)?;
            open(p)?;
        }
        keep_register(p, IN_SERVICE + 0x30, 4)?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 1)
    })
}

fn local_timer(p: &mut Program) -> Done {
    apic_write(p, DIVIDE, 0xb)?;
    let once = vec![no_fault(), logged(1), vector(0, 0x70), dword("count afterwards", record::result(0), 0)];
    p.case("the local timer, once", once, |p| {
        apic_write(p, LVT_TIMER, 0x70)?;
        apic_write(p, INITIAL_COUNT, 100_000)?;
        wait_for(p, 1)?;
        keep_register(p, CURRENT_COUNT, 0)?;
        for _ in 0..1000 {
            p.a.pause()?;
        }
        open(p)
    })?;
    let checks = vec![no_fault(), dword("enough interrupts", record::result(0), 1), vector(0, 0x71), vector(4, 0x71)];
    p.case("the local timer, again and again", checks, |p| {
        apic_write(p, LVT_TIMER, PERIODIC | 0x71)?;
        apic_write(p, INITIAL_COUNT, 1_000_000)?;
        wait_for(p, 5)?;
        apic_write(p, INITIAL_COUNT, 0)?;
        apic_write(p, LVT_TIMER, MASKED)?;
        p.a.xor(eax, eax)?;
        p.a.cmp(dword_ptr(variable::LOGGED), 5)?;
        p.a.setae(al)?;
        p.keep(0, eax)
    })?;
    open(p)?;
    p.case("the local timer, masked", vec![no_fault(), logged(0), dword("count", record::result(0), 0)], |p| {
        let wait = p.label();
        apic_write(p, LVT_TIMER, MASKED | 0x72)?;
        apic_write(p, INITIAL_COUNT, 100_000)?;
        p.here(wait)?;
        apic_read(p, CURRENT_COUNT)?;
        p.a.test(eax, eax)?;
        p.a.jnz(wait)?;
        p.keep(0, eax)?;
        open(p)
    })?;
    p.case(
        "the local timer counts as long as the PM timer says",
        vec![no_fault(), dword("about 100 ms", record::result(0), 1)],
        |p| {
            // In 100 ms the timer, at 1 GHz, counts down by 100 million. A busy host may make it more, not less.
            let (wait, short) = (p.label(), p.label());
            apic_write(p, LVT_TIMER, MASKED | 0x72)?;
            apic_write(p, INITIAL_COUNT, u32::MAX)?;
            p.a.mov(edx, 0x608)?;
            p.a.in_(eax, dx)?;
            p.a.mov(esi, eax)?;
            p.here(wait)?;
            p.a.mov(edx, 0x608)?;
            p.a.in_(eax, dx)?;
            p.a.sub(eax, esi)?;
            p.a.and(eax, 0xff_ffff)?;
            p.a.cmp(eax, 357_955)?;
            p.a.jb(wait)?;
            p.a.mov(edi, eax)?;
            apic_read(p, CURRENT_COUNT)?;
            p.a.not(eax)?;
            // 1000 counts are 3.579545 ticks.
            p.a.imul_3(rdi, rdi, 279)?;
            p.a.imul_3(rdi, rdi, 95)?;
            p.a.imul_3(rax, rax, 100)?;
            p.a.cmp(rax, rdi)?;
            p.a.jb(short)?;
            p.a.mov(dword_ptr(record::result(0)), 1)?;
            p.at(short)?;
            apic_write(p, INITIAL_COUNT, 0)
        },
    )?;
    let absent = p.label();
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(ecx, 24)?;
    p.a.jnc(absent)?;
    let checks = vec![
        no_fault(),
        logged(1),
        vector(0, 0x73),
        dword("deadline before", record::result(0), 1),
        number("deadline afterwards", record::result(1), 0),
        dword("it has passed", record::result(2), 1),
    ];
    p.case("the local timer, by a deadline", checks, |p| {
        apic_write(p, LVT_TIMER, TSC_DEADLINE | 0x73)?;
        p.a.mfence()?;
        p.a.rdtsc()?;
        p.a.shl(rdx, 32)?;
        p.a.or(rax, rdx)?;
        p.a.add(rax, 20_000_000)?;
        p.a.mov(r10, rax)?;
        p.a.mov(rdx, rax)?;
        p.a.shr(rdx, 32)?;
        p.a.mov(ecx, 0x6e0)?;
        p.a.wrmsr()?;
        p.a.rdmsr()?;
        p.a.cmp(eax, r10d)?;
        p.a.sete(al)?;
        p.a.movzx(eax, al)?;
        p.keep(0, eax)?;
        wait_for(p, 1)?;
        p.read_msr(0x6e0)?;
        p.keep(1, eax)?;
        p.a.mov(dword_ptr(record::result(1) + 4), edx)?;
        p.a.rdtsc()?;
        p.a.shl(rdx, 32)?;
        p.a.or(rax, rdx)?;
        p.a.cmp(rax, r10)?;
        p.a.setae(al)?;
        p.a.movzx(eax, al)?;
        p.keep(2, eax)?;
        apic_write(p, LVT_TIMER, MASKED)
    })?;
    p.at(absent)
}

fn non_maskable(p: &mut Program) -> Done {
    p.case("an NMI to oneself needs no IF", vec![no_fault(), logged(1), vector(0, 2)], |p| {
        apic_write(p, ICR_HIGH, 0)?;
        send(p, NMI)?;
        p.a.nop()
    })?;
    // This one does not return: further ones are held off.
    p.case("an NMI that does not end", vec![number("vector", record::VECTOR, 2)], |p| {
        p.a.mov(dword_ptr(variable::RETURNS), 0)?;
        send(p, NMI)?;
        p.a.nop()
    })?;
    p.a.mov(dword_ptr(variable::RETURNS), 1 << 2)?;
    let after = p.label();
    let there = p.address_of(after);
    let checks = vec![no_fault(), logged(1), vector(0, 2), dword("NMIs before IRET", record::result(0), 0)];
    p.case("holds the next off up to IRET", checks, |p| {
        send(p, NMI)?;
        p.a.nop()?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        p.a.mov(rax, rsp)?;
        p.a.push(0x18)?;
        p.a.push(rax)?;
        p.a.push(2)?;
        p.a.push(0x10)?;
        p.a.push(qword_ptr(there))?;
        p.a.iretq()?;
        p.at(after)?;
        p.a.nop()
    })
}

/// Writes the two halves of an entry of the I/O APIC.
pub fn redirect(p: &mut Program, pin: u32, low: u32, destination: u32) -> Done {
    for (register, value) in [(0x11 + 2 * pin, destination << 24), (0x10 + 2 * pin, low)] {
        p.a.mov(eax, IO_APIC)?;
        p.a.mov(dword_ptr(eax), register as i32)?;
        p.a.mov(dword_ptr(eax + 0x10), value as i32)?;
    }
    Ok(())
}

pub fn keep_entry(p: &mut Program, pin: u32, index: u32) -> Done {
    p.a.mov(eax, IO_APIC)?;
    p.a.mov(dword_ptr(eax), (0x10 + 2 * pin) as i32)?;
    p.a.mov(eax, dword_ptr(eax + 0x10))?;
    p.keep(index, eax)
}

pub fn outs(p: &mut Program, writes: &[(u32, u32)]) -> Done {
    for (port, value) in writes {
        p.a.mov(edx, *port)?;
        p.a.mov(eax, *value)?;
        p.a.out(dx, al)?;
    }
    Ok(())
}

/// Lets the serial port interrupt when it is ready to send, or not.
pub fn serial(p: &mut Program, on: bool) -> Done {
    outs(p, &[(0x3f9, if on { 2 } else { 0 })])
}

fn io_apic(p: &mut Program) -> Done {
    const LEVEL_TRIGGERED: u32 = 1 << 15;
    p.case("a masked entry lets nothing through", vec![no_fault(), logged(0)], |p| {
        redirect(p, 4, MASKED | 0x62, 0)?;
        serial(p, true)?;
        open(p)?;
        serial(p, false)
    })?;
    p.case("an edge is one interrupt", vec![no_fault(), logged(1), vector(0, 0x62)], |p| {
        redirect(p, 4, 0x62, 0)?;
        serial(p, true)?;
        open(p)?;
        open(p)?;
        serial(p, false)?;
        redirect(p, 4, MASKED, 0)
    })?;
    let checks = vec![
        no_fault(),
        logged(2),
        vector(0, 0x63),
        vector(1, 0x63),
        dword("interrupts before the end", record::result(0), 1),
        bit("remote IRR", record::result(1), 1 << 14, true),
        bit("trigger mode", record::result(2), 1 << 3, true),
        bit("remote IRR at the end", record::result(3), 1 << 14, false),
    ];
    p.case("a level interrupts again after its end while it lasts", checks, |p| {
        p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
        redirect(p, 4, LEVEL_TRIGGERED | 0x63, 0)?;
        serial(p, true)?;
        open(p)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        keep_entry(p, 4, 1)?;
        // The trigger mode register has a bit for each vector.
        keep_register(p, 0xfee0_0180 + 0x30, 2)?;
        apic_write(p, END, 0)?;
        open(p)?;
        serial(p, false)?;
        apic_write(p, END, 0)?;
        open(p)?;
        keep_entry(p, 4, 3)?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
        redirect(p, 4, MASKED, 0)
    })?;
    p.case("an entry that is an NMI", vec![no_fault(), logged(1), vector(0, 2)], |p| {
        redirect(p, 4, NMI, 0)?;
        serial(p, true)?;
        p.a.nop()?;
        serial(p, false)?;
        redirect(p, 4, MASKED, 0)
    })
}

fn timers(p: &mut Program) -> Done {
    p.case("the PIT, once, by the I/O APIC", vec![no_fault(), logged(1), vector(0, 0x64)], |p| {
        redirect(p, 2, 0x64, 0)?;
        // Counter 0, mode 0: 1193 ticks are a millisecond.
        outs(p, &[(0x43, 0x30), (0x40, 0xa9), (0x40, 0x04)])?;
        wait_for(p, 1)?;
        redirect(p, 2, MASKED, 0)
    })?;
    let again = |number: u32| {
        vec![no_fault(), dword("enough interrupts", record::result(0), 1), vector(0, number), vector(3, number)]
    };
    let enough = |p: &mut Program| {
        p.a.xor(eax, eax)?;
        p.a.cmp(dword_ptr(variable::LOGGED), 4)?;
        p.a.setae(al)?;
        p.keep(0, eax)
    };
    p.case("the PIT, again and again, by the 8259A", again(0x30), |p| {
        apic_write(p, LVT_LINT0, 0x700)?;
        p.a.mov(dword_ptr(variable::END_AT_PIC), 1)?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
        outs(p, &[(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04), (0x21, 0xfe)])?;
        wait_for(p, 4)?;
        outs(p, &[(0x21, 0xff), (0x43, 0x30), (0x40, 0), (0x40, 0)])?;
        open(p)?;
        enough(p)
    })?;
    p.case(
        "the clock, by both 8259A",
        vec![no_fault(), dword("enough interrupts", record::result(0), 1), vector(0, 0x38), vector(1, 0x38)],
        |p| {
            // 1024 a second.
            outs(p, &[(0x70, 0x0a), (0x71, 0x26), (0x70, 0x0b), (0x71, 0x42), (0x70, 0x0c)])?;
            p.a.in_(al, 0x71)?;
            outs(p, &[(0x21, 0xfb), (0xa1, 0xfe)])?;
            for count in 1..=2 {
                wait_for(p, count)?;
                outs(p, &[(0x70, 0x0c)])?;
                p.a.in_(al, 0x71)?;
                p.keep(1, eax)?;
            }
            outs(p, &[(0xa1, 0xff), (0x21, 0xff), (0x70, 0x0b), (0x71, 0x02)])?;
            p.a.xor(eax, eax)?;
            p.a.cmp(dword_ptr(variable::LOGGED), 2)?;
            p.a.setae(al)?;
            p.keep(0, eax)?;
            p.a.mov(dword_ptr(variable::END_AT_PIC), 0)?;
            p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
            apic_write(p, LVT_LINT0, MASKED)
        },
    )?;
    p.case(
        "the HPET, once, in place of the PIT",
        vec![no_fault(), logged(1), vector(0, 0x65), dword("the counter goes", record::result(0), 1)],
        |p| {
            redirect(p, 2, 0x65, 0)?;
            // Legacy replacement, and on. Timer 0: interrupts, once, a million ticks from now.
            p.a.mov(ebx, HPET)?;
            p.a.mov(dword_ptr(ebx + 0x10), 3)?;
            p.a.mov(dword_ptr(ebx + 0x100), 4)?;
            p.a.mov(rax, qword_ptr(ebx + 0xf0))?;
            p.a.add(rax, 1_000_000)?;
            p.a.mov(rsi, rax)?;
            p.a.mov(qword_ptr(ebx + 0x108), rax)?;
            wait_for(p, 1)?;
            p.a.mov(ebx, HPET)?;
            p.a.mov(rax, qword_ptr(ebx + 0xf0))?;
            p.a.cmp(rax, rsi)?;
            p.a.setae(al)?;
            p.a.movzx(eax, al)?;
            p.keep(0, eax)?;
            // The PIT has the line again.
            redirect(p, 2, MASKED, 0)?;
            p.a.mov(ebx, HPET)?;
            p.a.mov(dword_ptr(ebx + 0x100), 0)?;
            p.a.mov(dword_ptr(ebx + 0x10), 0)
        },
    )
}

/// Interrupts from one processor to others; number 1 has its APIC's identification.
fn others(p: &mut Program) -> Done {
    let (idle, routine, again, over, alone) = (p.label(), p.label(), p.label(), p.label(), p.label());
    p.a.jmp(over)?;
    p.at(idle)?;
    p.a.ret()?;
    // The other sleeps with interrupts on until it is to leave.
    p.at(routine)?;
    p.a.lock().inc(dword_ptr(HERE))?;
    p.at(again)?;
    p.a.sti()?;
    p.a.hlt()?;
    p.a.cli()?;
    p.a.cmp(dword_ptr(LEAVE), 0)?;
    p.a.je(again)?;
    p.a.ret()?;
    p.at(over)?;
    p.a.cmp(dword_ptr(COUNT), 2)?;
    p.a.jb(alone)?;
    let by = |index: u32, apic: u32| dword("which processor took it", log::field(index, log::APIC), apic);
    let first = p.label();
    let beyond = p.label();
    p.a.jmp(beyond)?;
    p.at(first)?;
    let sleeps = p.label();
    p.here(sleeps)?;
    p.a.pause()?;
    p.a.cmp(dword_ptr(HERE), 1)?;
    p.a.jb(sleeps)?;
    p.case("an interrupt to another", vec![no_fault(), logged(1), vector(0, 0x55), by(0, 1)], |p| {
        apic_write(p, ICR_HIGH, 1 << 24)?;
        send(p, 0x55)?;
        wait_for(p, 1)
    })?;
    p.case("an interrupt to all others", vec![no_fault(), logged(1), vector(0, 0x56), by(0, 1)], |p| {
        send(p, TO_OTHERS | 0x56)?;
        wait_for(p, 1)?;
        open(p)
    })?;
    p.case("an interrupt to all", vec![no_fault(), logged(2), vector(0, 0x57), vector(1, 0x57)], |p| {
        send(p, TO_ALL | 0x57)?;
        wait_for(p, 2)
    })?;
    p.case("an NMI to another", vec![no_fault(), logged(1), vector(0, 2), by(0, 1)], |p| {
        apic_write(p, ICR_HIGH, 1 << 24)?;
        send(p, NMI)?;
        wait_for(p, 1)
    })?;
    p.case("a level assert is a fixed interrupt", vec![no_fault(), logged(1), vector(0, 0x58), by(0, 1)], |p| {
        send(p, LEVEL | 1 << 14 | 0x58)?;
        wait_for(p, 1)
    })?;
    p.case("the I/O APIC to another", vec![no_fault(), logged(1), vector(0, 0x66), by(0, 1)], |p| {
        redirect(p, 4, 0x66, 1)?;
        serial(p, true)?;
        wait_for(p, 1)?;
        serial(p, false)?;
        redirect(p, 4, MASKED, 0)
    })?;
    // Logical destinations: this one is 1.
    p.case("a logical destination, flat", vec![no_fault(), logged(1), vector(0, 0x59), by(0, 0)], |p| {
        apic_write(p, FORMAT, u32::MAX)?;
        apic_write(p, LOGICAL, 1 << 24)?;
        apic_write(p, ICR_HIGH, 0x81 << 24)?;
        send(p, 1 << 11 | 0x59)?;
        wait_for(p, 1)
    })?;
    p.case("a logical destination, by cluster", vec![no_fault(), logged(1), vector(0, 0x5b), by(0, 0)], |p| {
        apic_write(p, FORMAT, 0x0fff_ffff)?;
        apic_write(p, LOGICAL, 0x32 << 24)?;
        apic_write(p, ICR_HIGH, 0x41 << 24)?;
        send(p, 1 << 11 | 0x5a)?;
        open(p)?;
        apic_write(p, ICR_HIGH, 0x33 << 24)?;
        send(p, 1 << 11 | 0x5b)?;
        wait_for(p, 1)
    })?;
    p.a.mov(dword_ptr(LEAVE), 1)?;
    apic_write(p, ICR_HIGH, 1 << 24)?;
    send(p, 0x5c)?;
    p.a.ret()?;
    p.at(beyond)?;
    run(p, &[first, routine], idle)?;
    p.at(alone)
}

fn x2apic(p: &mut Program) -> Done {
    const BASE: u32 = 0x1b;
    let absent = p.label();
    p.a.mov(eax, 1)?;
    p.a.cpuid()?;
    p.a.bt(ecx, 21)?;
    p.a.jnc(absent)?;
    p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
    p.case(
        "x2APIC: identification and an interrupt to oneself",
        vec![
            no_fault(),
            logged(1),
            vector(0, 0x5d),
            dword("identification", record::result(0), 0),
            bit("in service", record::result(1), 1 << 29, true),
            bit("in service afterwards", record::result(2), 1 << 29, false),
        ],
        |p| {
            p.read_msr(BASE)?;
            p.a.or(eax, 1 << 10)?;
            p.a.wrmsr()?;
            p.read_msr(0x802)?;
            p.keep(0, eax)?;
            p.write_msr(0x83f, 0x5d)?;
            open(p)?;
            p.read_msr(0x812)?;
            p.keep(1, eax)?;
            p.write_msr(0x80b, 0)?;
            p.read_msr(0x812)?;
            p.keep(2, eax)
        },
    )?;
    p.case("x2APIC: an interrupt by the one command register", vec![no_fault(), logged(1), vector(0, 0x5e)], |p| {
        p.write_msr(0x830, u64::from(TO_SELF | 0x5e))?;
        open(p)?;
        p.write_msr(0x80b, 0)
    })?;
    for (name, msr, value) in [
        ("a write to the identification", 0x802, 0),
        ("an end that is not zero", 0x80b, 1),
        ("a register that is not there", 0x831, 0),
        ("a reserved bit of the task's priority", 0x808, 0x100),
        ("the way back to xAPIC without being off", BASE, 0xfee0_0900),
    ] {
        p.case(&format!("#GP: x2APIC: {name}"), fault(13, 0), |p| p.write_msr(msr, value))?;
    }
    p.case("and back by way of off", vec![no_fault(), logged(1), vector(0, 0x5f)], |p| {
        p.write_msr(BASE, 0xfee0_0100)?;
        p.write_msr(BASE, 0xfee0_0900)?;
        apic_write(p, SPURIOUS, 0x1ff)?;
        send(p, TO_SELF | 0x5f)?;
        open(p)?;
        apic_write(p, END, 0)
    })?;
    p.at(absent)
}
