//! Interrupts for whichever of several processors has the least urgent work: through the I/O APIC, between processors, and as
//! messages of a PCI device. One processor takes each, and only one. SDM vol. 3 §§ 11.6.2.4, 11.8.3, 11.11; Intel 290566
//! (82093AA); PCI Local Bus Specification 3.0 § 6.8.2 (MSI-X); Virtual I/O Device 1.1 § 2.6, 4.1.4.8 (legacy interface).

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    interrupts::{
        END, FORMAT, LOGICAL, REQUESTED, TO_OTHERS, TO_SELF, keep_entry, logged, open, redirect, send, serial, vector,
        wait_for,
    },
    layout::{SCRATCH, log, record, variable},
    processors::{COUNT, ICR_HIGH, apic_read, apic_write, run, start},
    program::{Check, Program, Want, dword, no_fault},
};

/// How many processors there are to be.
const PROCESSORS: u32 = 4;
const EVERYBODY: u32 = 0xf;
/// Delivery mode and destination mode, as they stand in entries of the I/O APIC and in the command register.
const LOWEST: u32 = 1 << 8;
const LOGICAL_MODE: u32 = 1 << 11;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u64 = 1 << 14;
/// Of high and of low priority.
const VECTOR: u32 = 0x91;

/// Task priorities, a byte for each processor, and how many others have taken theirs over.
const PRIORITIES: u32 = variable::OWN + 0x500;
const ACCEPTED: u32 = variable::OWN + 0x504;
/// Counts the times that priorities were set.
const ROUND: u32 = variable::OWN + 0x508;
const LEAVE: u32 = variable::OWN + 0x50c;
/// The processor that is to end an interrupt when priorities are set next.
const ENDS: u32 = variable::OWN + 0x510;
const FOUND: u32 = variable::OWN + 0x514;
const NOBODY: u32 = u32::MAX;
/// What of the vectors around [`VECTOR`] is requested at each of the others, as it was when priorities were set.
const REQUESTS: u32 = variable::OWN + 0x520;
/// How often it is asked whether an interrupt has come.
const ROUNDS: u32 = 5000;
/// Wakes the others when priorities are set: of a class above all of those.
const WAKE: u32 = 0xf1;

/// The device: its ports, its table of messages, its queue, and where it puts what it is asked for.
const PORTS: u32 = 0xc000;
const MESSAGES: u32 = 0xfeb0_0000;
const QUEUE: u32 = SCRATCH + 0x2_0000;
const BUFFER: u32 = SCRATCH + 0x3_0000;
/// Vendor and device: random numbers, with the legacy interface.
const IDENTITY: u32 = 0x1005_1af4;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    // Vectors from 0x40 on return.
    for word in 2..8 {
        p.a.mov(dword_ptr(variable::RETURNS + 4 * word), -1)?;
    }
    start(&mut p)?;
    p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
    p.a.mov(dword_ptr(ENDS), NOBODY as i32)?;
    let [idle, other, first, over, wake] = std::array::from_fn(|_| p.label());
    p.idt[WAKE as usize].handler = wake;
    p.a.jmp(over)?;
    p.at(wake)?;
    p.a.push(rax)?;
    apic_write(&mut p, END, 0)?;
    p.a.pop(rax)?;
    p.a.iretq()?;
    p.at(idle)?;
    p.a.ret()?;
    others(&mut p, other)?;
    p.at(first)?;
    apic_write(&mut p, FORMAT, u32::MAX)?;
    apic_write(&mut p, LOGICAL, 1 << 24)?;
    set_priorities(&mut p, [0; 4])?;
    device(&mut p)?;
    cases(&mut p)?;
    p.a.mov(dword_ptr(LEAVE), 1)?;
    set_priorities(&mut p, [0; 4])?;
    p.a.ret()?;
    p.at(over)?;
    p.case("there are four processors", vec![dword("processors", COUNT, PROCESSORS)], |_| Ok(()))?;
    run(&mut p, &[first, other, other, other], idle)?;
    p.end()
}

/// What the other processors do: they sleep with interrupts on, and take over priorities as they are set.
fn others(p: &mut Program, other: CodeLabel) -> Done {
    let (again, ends_not) = (p.label(), p.label());
    p.at(other)?;
    apic_write(p, FORMAT, u32::MAX)?;
    p.a.mov(eax, 0xfee0_0020_u32)?;
    p.a.mov(eax, dword_ptr(eax))?;
    p.a.shr(eax, 24)?;
    p.a.mov(r12d, eax)?;
    // Each has a bit of its own, from bit 24 on.
    p.a.lea(ecx, ptr(eax + 24))?;
    p.a.mov(eax, 1)?;
    p.a.shl(eax, cl)?;
    p.a.mov(edx, LOGICAL)?;
    p.a.mov(dword_ptr(edx), eax)?;
    p.a.xor(r13d, r13d)?;
    p.at(again)?;
    p.a.sti()?;
    p.a.hlt()?;
    p.a.cli()?;
    p.a.mov(eax, dword_ptr(ROUND))?;
    p.a.cmp(eax, r13d)?;
    p.a.je(again)?;
    p.a.mov(r13d, eax)?;
    p.a.cmp(r12d, dword_ptr(ENDS))?;
    p.a.jne(ends_not)?;
    apic_write(p, END, 0)?;
    p.at(ends_not)?;
    apic_read(p, REQUESTED + VECTOR / 32 * 0x10)?;
    p.a.mov(dword_ptr(r12d * 4 + REQUESTS), eax)?;
    p.a.movzx(eax, byte_ptr(r12d + PRIORITIES))?;
    p.a.mov(cr8, rax)?;
    p.a.lock().inc(dword_ptr(ACCEPTED))?;
    p.a.cmp(dword_ptr(LEAVE), 0)?;
    p.a.je(again)?;
    p.a.ret()
}

/// Sets the priority of each processor's task, and waits until all have theirs.
fn set_priorities(p: &mut Program, priorities: [u8; 4]) -> Done {
    let wait = p.label();
    p.a.mov(dword_ptr(PRIORITIES), i32::from_le_bytes(priorities))?;
    p.a.mov(dword_ptr(ACCEPTED), 0)?;
    p.a.mov(eax, u32::from(priorities[0]))?;
    p.a.mov(cr8, rax)?;
    p.a.lock().inc(dword_ptr(ROUND))?;
    send(p, TO_OTHERS | WAKE)?;
    p.at(wait)?;
    p.a.pause()?;
    p.a.cmp(dword_ptr(ACCEPTED), PROCESSORS as i32 - 1)?;
    p.a.jb(wait)
}

/// Has every processor take whatever waits for it: between two rounds each let interrupts in.
fn settle(p: &mut Program) -> Done {
    for _ in 0..2 {
        set_priorities(p, [0; 4])?;
        open(p)?;
    }
    Ok(())
}

/// Where an interrupt comes from.
#[derive(Clone, Copy)]
enum Source {
    IoApic,
    Processor,
    Device,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::IoApic => "I/O APIC",
            Self::Processor => "command register",
            Self::Device => "message",
        }
    }

    /// Sends one of lowest priority to those that `destination` names, logically or physically.
    fn send(self, p: &mut Program, destination: u32, logical: bool) -> Done {
        let mode = LOWEST | if logical { LOGICAL_MODE } else { 0 };
        match self {
            Self::IoApic => {
                redirect(p, 4, mode | VECTOR, destination)?;
                serial(p, true)?;
                serial(p, false)?;
                redirect(p, 4, MASKED, 0)
            }
            Self::Processor => {
                apic_write(p, ICR_HIGH, destination << 24)?;
                send(p, mode | VECTOR)
            }
            Self::Device => {
                // Redirection hint, and destination mode.
                let address = 0xfee0_0008 | destination << 12 | if logical { 4 } else { 0 };
                ask(p, address, LOWEST | VECTOR)
            }
        }
    }
}

fn by(index: u32, apic: u32) -> Check {
    dword("which processor took it", log::field(index, log::APIC), apic)
}

fn cases(p: &mut Program) -> Done {
    p.case("a device with messages is there", vec![dword("found", FOUND, 1)], |_| Ok(()))?;
    for source in [Source::IoApic, Source::Processor, Source::Device] {
        let name = source.name();
        for who in 0..PROCESSORS {
            let mut priorities = [8, 7, 6, 5];
            priorities[who as usize] = 3;
            chosen(p, &format!("{name}: processor {who} has the lowest priority"), source, EVERYBODY, priorities, who)?;
        }
        chosen(p, &format!("{name}: the lower of two that are named"), source, 0b1010, [0, 6, 0, 5], 3)?;
        chosen(p, &format!("{name}: the only one that is named"), source, 0b0100, [0, 0, 8, 0], 2)?;
        alike(p, source)?;
        waits(p, source)?;
        p.case(&format!("{name}: a physical destination"), vec![no_fault(), logged(1), by(0, 2)], |p| {
            source.send(p, 2, false)?;
            wait_for(p, 1)?;
            settle(p)
        })?;
    }
    in_service(p)?;
    level(p)
}

/// One of those that are named takes it, the one whose priority is the lowest.
fn chosen(p: &mut Program, name: &str, source: Source, named: u32, priorities: [u8; 4], who: u32) -> Done {
    p.case(name, vec![no_fault(), logged(1), vector(0, VECTOR), by(0, who)], |p| {
        set_priorities(p, priorities)?;
        source.send(p, named, true)?;
        wait_for(p, 1)?;
        settle(p)
    })
}

/// Where several have the lowest, it is one of them.
fn alike(p: &mut Program, source: Source) -> Done {
    const TIMES: u32 = 8;
    let name = format!("{}: {TIMES} interrupts while all are alike", source.name());
    p.case(&name, vec![no_fault(), logged(TIMES), vector(0, VECTOR), vector(TIMES - 1, VECTOR)], |p| {
        for count in 1..=TIMES {
            source.send(p, EVERYBODY, true)?;
            wait_for(p, count)?;
        }
        settle(p)
    })
}

/// Where none takes it yet, it waits at one.
fn waits(p: &mut Program, source: Source) -> Done {
    let name = format!("{}: it waits where the priority is the lowest", source.name());
    let checks =
        vec![no_fault(), dword("interrupts before", record::result(0), 0), logged(1), vector(0, VECTOR), by(0, 1)];
    p.case(&name, checks, |p| {
        let (again, there) = (p.label(), p.label());
        set_priorities(p, [14, 13, 14, 14])?;
        source.send(p, EVERYBODY, true)?;
        // A device answers when it likes.
        p.a.mov(r10d, ROUNDS)?;
        p.at(again)?;
        set_priorities(p, [14, 13, 14, 14])?;
        p.a.bt(dword_ptr(REQUESTS + 4), VECTOR % 32)?;
        p.a.jc(there)?;
        p.a.dec(r10d)?;
        p.a.jnz(again)?;
        p.at(there)?;
        open(p)?;
        p.a.mov(eax, dword_ptr(variable::LOGGED))?;
        p.keep(0, eax)?;
        set_priorities(p, [0; 4])?;
        wait_for(p, 1)?;
        settle(p)
    })
}

/// Work of an interrupt is work too.
fn in_service(p: &mut Program) -> Done {
    let checks = vec![no_fault(), logged(2), vector(0, 0xe1), by(0, 0), vector(1, VECTOR), by(1, 3)];
    p.case("an interrupt in service makes for priority", checks, |p| {
        p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
        send(p, TO_SELF | 0xe1)?;
        open(p)?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
        set_priorities(p, [0, 5, 5, 4])?;
        Source::IoApic.send(p, EVERYBODY, true)?;
        wait_for(p, 2)?;
        apic_write(p, END, 0)?;
        settle(p)
    })
}

/// The one that took a level ends it for the I/O APIC.
fn level(p: &mut Program) -> Done {
    let remote = |index: u32, set: bool| Check {
        what: "remote IRR",
        at: record::result(index),
        mask: REMOTE_IRR,
        want: Want::Number(if set { REMOTE_IRR } else { 0 }),
    };
    let checks = vec![no_fault(), logged(1), vector(0, VECTOR), by(0, 2), remote(0, true), remote(1, false)];
    p.case("a level goes to one, and ends there", checks, |p| {
        set_priorities(p, [8, 7, 1, 6])?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 0)?;
        redirect(p, 4, LOWEST | LOGICAL_MODE | LEVEL | VECTOR, EVERYBODY)?;
        serial(p, true)?;
        wait_for(p, 1)?;
        serial(p, false)?;
        keep_entry(p, 4, 0)?;
        p.a.mov(dword_ptr(variable::END_AT_APIC), 1)?;
        p.a.mov(dword_ptr(ENDS), 2)?;
        set_priorities(p, [0; 4])?;
        p.a.mov(dword_ptr(ENDS), NOBODY as i32)?;
        keep_entry(p, 4, 1)?;
        redirect(p, 4, MASKED, 0)?;
        settle(p)
    })
}

/// Names a register of the device at ESI in configuration space.
fn name_register(p: &mut Program, register: u32) -> Done {
    p.a.lea(eax, ptr(esi + register))?;
    p.a.mov(edx, 0xcf8)?;
    p.a.out(dx, eax)?;
    p.a.mov(edx, 0xcfc)
}

fn configure(p: &mut Program, register: u32, value: u32) -> Done {
    name_register(p, register)?;
    p.a.mov(eax, value)?;
    p.a.out(dx, eax)
}

fn out_8(p: &mut Program, register: u32, value: u32) -> Done {
    p.a.mov(edx, PORTS + register)?;
    p.a.mov(eax, value)?;
    p.a.out(dx, al)
}

fn out_16(p: &mut Program, register: u32, value: u32) -> Done {
    p.a.mov(edx, PORTS + register)?;
    p.a.mov(eax, value)?;
    p.a.out(dx, ax)
}

/// Looks for the device on the first bus, and gives it addresses, messages and its queue.
fn device(p: &mut Program) -> Done {
    let [scan, found, absent, next, here] = std::array::from_fn(|_| p.label());
    p.a.mov(esi, 0x8000_0000_u32)?;
    p.at(scan)?;
    name_register(p, 0)?;
    p.a.in_(eax, dx)?;
    p.a.cmp(eax, IDENTITY as i32)?;
    p.a.je(found)?;
    p.a.add(esi, 0x800)?;
    p.a.cmp(esi, 0x8001_0000_u32 as i32)?;
    p.a.jb(scan)?;
    p.a.jmp(absent)?;
    p.at(found)?;
    // Base addresses: of the legacy interface, of the messages, and of what is not used.
    for (register, value) in [(0x10, PORTS), (0x14, MESSAGES), (0x20, 0xfe80_0000), (0x24, 0), (0x04, 7)] {
        configure(p, register, value)?;
    }
    // Through the list of capabilities, to that of MSI-X.
    name_register(p, 0x34)?;
    p.a.in_(eax, dx)?;
    p.a.movzx(edi, al)?;
    p.at(next)?;
    p.a.test(edi, edi)?;
    p.a.jz(absent)?;
    p.a.add(edi, esi)?;
    p.a.mov(eax, edi)?;
    p.a.mov(edx, 0xcf8)?;
    p.a.out(dx, eax)?;
    p.a.mov(edx, 0xcfc)?;
    p.a.in_(eax, dx)?;
    p.a.cmp(al, 0x11)?;
    p.a.je(here)?;
    p.a.movzx(edi, ah)?;
    p.a.jmp(next)?;
    p.at(here)?;
    p.a.or(eax, 0x8000_0000_u32 as i32)?;
    p.a.out(dx, eax)?;
    // Acknowledge, driver; the queue, whose messages are the first of the table; driver is ready.
    out_8(p, 0x12, 0)?;
    out_8(p, 0x12, 1)?;
    out_8(p, 0x12, 3)?;
    out_16(p, 0x0e, 0)?;
    p.a.mov(edx, PORTS + 8)?;
    p.a.mov(eax, QUEUE >> 12)?;
    p.a.out(dx, eax)?;
    out_16(p, 0x16, 0)?;
    out_16(p, 0x14, 0xffff)?;
    out_8(p, 0x12, 7)?;
    // One buffer of 8 bytes, for the device to write to.
    for (offset, value) in [(0, BUFFER), (4, 0), (8, 8), (12, 2)] {
        p.a.mov(dword_ptr(QUEUE + offset), value as i32)?;
    }
    p.a.mov(dword_ptr(FOUND), 1)?;
    p.at(absent)
}

/// Asks the device for random numbers, which it is to tell of by a message.
fn ask(p: &mut Program, address: u32, data: u32) -> Done {
    p.a.mov(ebx, MESSAGES)?;
    for (offset, value) in [(0, address), (4, 0), (8, data), (12, 0)] {
        p.a.mov(dword_ptr(ebx + offset), value as i32)?;
    }
    // Behind the buffers, of which each has 16 bytes, is the ring of those that the device may use.
    p.a.mov(edx, PORTS + 0x0c)?;
    p.a.xor(eax, eax)?;
    p.a.in_(ax, dx)?;
    p.a.shl(eax, 4)?;
    p.a.inc(word_ptr(eax + (QUEUE + 2)))?;
    out_16(p, 0x10, 0)
}
