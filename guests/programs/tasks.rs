//! Protected mode of 32 bits: tasks that processor and gates switch to, call gates with arguments, limits of segments.
//! SDM vol. 3 ch. 3, 5 and 8; vol. 2 (instructions).

use iced_x86::{Code, IcedError, Instruction, code_asm::*};

use super::{
    Done,
    layout::{GDT, IDT, INNER_STACK, RETURN_VECTOR, SCRATCH, TSS, USER_STACK, record, selector, variable},
    program::{Check, Program, Want, descriptor, dword, fault, fault_at, no_fault, number},
};

/// Stacks of tasks end here.
const TASK_STACK: u32 = SCRATCH + 0x1000;
/// Offsets in a task state segment of 32 bits.
mod field {
    pub const LINK: u32 = 0;
    pub const EIP: u32 = 32;
    pub const EFLAGS: u32 = 36;
    pub const EBX: u32 = 52;
    pub const SS: u32 = 80;
    pub const CS: u32 = 76;
    pub const LDT: u32 = 96;
    pub const TRAP: u32 = 100;
}
const NESTED: u64 = 1 << 14;

/// A task state segment in memory, and its descriptor.
#[derive(Clone, Copy)]
struct Task {
    at: u32,
    selector: u16,
}

impl Task {
    /// The access byte of its descriptor.
    fn busy(self, busy: bool) -> Check {
        busy_check(self.selector, busy)
    }

    fn field(self, offset: u32) -> u32 {
        self.at + offset
    }
}

fn busy_check(selector: u16, busy: bool) -> Check {
    let mask = 2 << 8;
    Check { what: "busy", at: GDT + u32::from(selector) + 4, mask, want: Want::Number(if busy { mask } else { 0 }) }
}

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    let tasks = good_tasks(&mut p)?;
    switches(&mut p, tasks)?;
    bad_tasks(&mut p)?;
    small_task(&mut p)?;
    gates(&mut p)?;
    limits(&mut p)?;
    p.end()
}

/// A task of 32 bits that starts at `eip`, its descriptor at place `index` of the program's own.
fn task(p: &mut Program, index: u16, eip: u32, changes: &[(u32, u32)]) -> Task {
    let data = u32::from(selector::DATA);
    let mut words = [0; 26];
    words[8] = eip;
    words[9] = 2;
    for word in [18, 20, 21, 22, 23] {
        words[word] = data;
    }
    words[19] = selector::CODE_32.into();
    // EAX to EDI.
    for (word, number) in (1..).zip(&mut words[10..18]) {
        *number = 0x1111_1111 * word;
    }
    words[14] = TASK_STACK;
    words[25] = 104 << 16;
    for (offset, value) in changes {
        words[*offset as usize / 4] = *value;
    }
    let at = p.dwords(&words);
    Task { at, selector: p.descriptor(index, descriptor(at, 0x67, 0x0089)) }
}

fn far_pointer(p: &mut Program, selector: u16) -> u32 {
    p.dwords(&[0, selector.into()])
}

/// Makes the first task the current one again, whatever was tried.
fn restore(p: &mut Program, task: Option<Task>) -> Done {
    for selector in [Some(selector::TSS), task.map(|task| task.selector)].into_iter().flatten() {
        p.a.and(byte_ptr(GDT + u32::from(selector) + 5), !2)?;
    }
    p.a.mov(eax, u32::from(selector::TSS))?;
    p.a.ltr(ax)?;
    p.a.xor(eax, eax)?;
    p.a.lldt(ax)?;
    p.a.clts()?;
    p.a.push(2)?;
    p.a.popfd()
}

/// What a task notes of its state: its registers, task register, flags and CR0.
fn note(a: &mut CodeAssembler) -> Done {
    a.mov(dword_ptr(record::result(0)), eax)?;
    a.mov(dword_ptr(record::result(1)), edi)?;
    a.mov(dword_ptr(record::result(2)), esp)?;
    a.str(eax)?;
    a.mov(dword_ptr(record::result(3)), eax)?;
    a.pushfd()?;
    a.pop(eax)?;
    a.mov(dword_ptr(record::result(4)), eax)?;
    a.mov(eax, cr0)?;
    a.mov(dword_ptr(record::result(5)), eax)
}

struct Good {
    returns: Task,
    jumps: Task,
    code: u32,
}

fn good_tasks(p: &mut Program) -> Result<Good, IcedError> {
    let code = p.code(32, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        note(a)?;
        a.iretd()?;
        // Entered again it goes on behind the IRET.
        a.jmp(again)
    })?;
    let back = far_pointer(p, selector::TSS);
    let jumping = p.code(32, |a| {
        note(a)?;
        a.jmp(fword_ptr(back))
    })?;
    Ok(Good { returns: task(p, 0, code, &[]), jumps: task(p, 1, jumping, &[]), code })
}

fn in_task(task: Task, nested: bool) -> Vec<Check> {
    vec![
        no_fault(),
        dword("EAX of the task", record::result(0), 0x1111_1111),
        dword("EDI of the task", record::result(1), 0x8888_8888),
        dword("ESP of the task", record::result(2), TASK_STACK),
        dword("task register", record::result(3), task.selector.into()),
        Check { what: "NT", at: record::result(4), mask: NESTED, want: Want::Number(if nested { NESTED } else { 0 }) },
        Check { what: "CR0.TS", at: record::result(5), mask: 8, want: Want::Number(8) },
        dword("EBX afterwards", record::result(6), 0x1234_5678),
        dword("task register afterwards", record::result(7), selector::TSS.into()),
        busy_check(selector::TSS, true),
        task.busy(false),
    ]
}

/// Keeps what is to be as it was before.
fn afterwards(p: &mut Program) -> Done {
    p.keep(6, ebx)?;
    p.a.str(eax)?;
    p.keep(7, eax)
}

fn switches(p: &mut Program, Good { returns, jumps, code }: Good) -> Done {
    let to_returns = far_pointer(p, returns.selector);
    let to_jumps = far_pointer(p, jumps.selector);
    let mut checks = in_task(returns, true);
    checks.push(dword("link", returns.field(field::LINK), selector::TSS.into()));
    checks.push(Check {
        what: "NT that is saved",
        at: returns.field(field::EFLAGS),
        mask: NESTED,
        want: Want::Number(0),
    });
    p.case("CALL to a task, and IRET", checks, |p| {
        p.a.mov(ebx, 0x1234_5678)?;
        p.a.call(fword_ptr(to_returns))?;
        afterwards(p)
    })?;
    restore(p, Some(returns))?;
    let mut checks = in_task(jumps, false);
    checks.push(dword("EBX that is saved", jumps.field(field::EBX), 0x4444_4444));
    p.case("JMP to a task, and JMP back", checks, |p| {
        p.a.mov(ebx, 0x1234_5678)?;
        p.a.jmp(fword_ptr(to_jumps))?;
        afterwards(p)
    })?;
    restore(p, Some(jumps))?;
    // Through gates, as new.
    let fresh = |p: &mut Program, index: u16, code: u32| task(p, index, code, &[]);
    let by_gate = fresh(p, 2, code);
    let gate = p.descriptor(3, u64::from(by_gate.selector) << 16 | 0x85 << 40);
    let pointer = far_pointer(p, gate);
    p.case("CALL through a task gate", in_task(by_gate, true), |p| {
        p.a.mov(ebx, 0x1234_5678)?;
        p.a.call(fword_ptr(pointer))?;
        afterwards(p)
    })?;
    restore(p, Some(by_gate))?;
    let by_interrupt = fresh(p, 4, code);
    let mut checks = in_task(by_interrupt, true);
    checks.push(Check { what: "flags that are saved", at: TSS + field::EFLAGS, mask: 0x1, want: Want::Number(1) });
    p.case("INT through a task gate", checks, |p| {
        p.a.mov(dword_ptr(IDT + 8 * 0x50), i32::from(by_interrupt.selector) << 16)?;
        p.a.mov(dword_ptr(IDT + 8 * 0x50 + 4), 0x8500)?;
        p.a.mov(ebx, 0x1234_5678)?;
        p.a.stc()?;
        p.a.int(0x50)?;
        afterwards(p)
    })?;
    restore(p, Some(by_interrupt))?;
    // An exception leaves its error code on the stack of the task.
    let faulting = p.code(32, |a| {
        a.pop(eax)?;
        a.mov(dword_ptr(record::result(0)), eax)?;
        a.mov(dword_ptr(record::result(1)), esp)?;
        a.int(RETURN_VECTOR)
    })?;
    let by_exception = fresh(p, 5, faulting);
    let at = p.label();
    let checks = vec![
        number("vector", record::VECTOR, RETURN_VECTOR.into()),
        dword("error code", record::result(0), 0xfff8),
        dword("ESP", record::result(1), TASK_STACK),
        Check { what: "EIP that is saved", at: TSS + field::EIP, mask: u32::MAX.into(), want: Want::At(at) },
    ];
    p.case("#GP through a task gate", checks, |p| {
        p.a.mov(dword_ptr(IDT + 8 * 13), i32::from(by_exception.selector) << 16)?;
        p.a.mov(byte_ptr(IDT + 8 * 13 + 5), 0x85)?;
        p.a.mov(eax, 0xfff8)?;
        p.here(at)?;
        p.a.mov(es, ax)
    })?;
    let handler = p.routines.stubs[13];
    let handler = p.address_of(handler);
    p.a.mov(eax, dword_ptr(handler))?;
    p.a.mov(word_ptr(IDT + 8 * 13), ax)?;
    p.a.mov(word_ptr(IDT + 8 * 13 + 2), i32::from(selector::CODE_32))?;
    p.a.mov(byte_ptr(IDT + 8 * 13 + 5), 0x8e)?;
    p.a.shr(eax, 16)?;
    p.a.mov(word_ptr(IDT + 8 * 13 + 6), ax)?;
    restore(p, Some(by_exception))?;
    // The T bit.
    let traps = task(p, 6, code, &[(field::TRAP, 104 << 16 | 1)]);
    let pointer = far_pointer(p, traps.selector);
    let mut checks = vec![number("vector", record::VECTOR, 1), number("EIP", record::IP, code.into())];
    checks.push(Check { what: "DR6", at: record::DR6, mask: 0xe00f, want: Want::Number(0x8000) });
    p.case("#DB: a task with the T bit", checks, |p| {
        p.a.xor(eax, eax)?;
        p.a.mov(dr6, eax)?;
        p.a.call(fword_ptr(pointer))
    })?;
    restore(p, Some(traps))?;
    // A table of its own.
    let table = p.dwords(&[0, 0, 0x0000_ffff, 0x00cf_9300]);
    let local = p.descriptor(8, descriptor(table, 0xf, 0x0082));
    let uses = p.code(32, |a| {
        a.mov(eax, 0x0c)?;
        a.mov(fs, ax)?;
        a.mov(dword_ptr(record::result(0)), fs)?;
        a.sldt(eax)?;
        a.mov(dword_ptr(record::result(1)), eax)?;
        a.iretd()
    })?;
    let with_table = task(p, 9, uses, &[(field::LDT, local.into())]);
    let pointer = far_pointer(p, with_table.selector);
    let checks = vec![
        no_fault(),
        dword("FS", record::result(0), 0x0c),
        dword("LDT", record::result(1), local.into()),
        dword("LDT afterwards", record::result(2), 0),
    ];
    p.case("a task with a local table", checks, |p| {
        p.a.call(fword_ptr(pointer))?;
        p.a.sldt(eax)?;
        p.keep(2, eax)
    })?;
    restore(p, Some(with_table))
}

/// Switches that fail: before there is anything of the new task, or as the first thing in it.
fn bad_tasks(p: &mut Program) -> Done {
    let code = p.code(32, |a| a.int(RETURN_VECTOR))?;
    let here = u32::from(selector::TSS);
    let pointer = far_pointer(p, selector::TSS);
    let at = p.label();
    p.case("#GP: JMP to the task that is busy", fault_at(13, here, at), |p| {
        p.here(at)?;
        p.a.jmp(fword_ptr(pointer))
    })?;
    let any = task(p, 10, code, &[]);
    for (index, name, vector, attributes, limit) in [
        (12, "#NP: CALL to a task that is not present", 11, 0x0009, 0x67),
        (13, "#TS: CALL to a task that is too short", 10, 0x0089, 0x66),
        (14, "#GP: CALL to a task that is busy", 13, 0x008b, 0x67),
    ] {
        let bad = p.descriptor(index, descriptor(any.at, limit, attributes));
        let pointer = far_pointer(p, bad);
        let at = p.label();
        let mut checks = fault_at(vector, bad.into(), at);
        checks.push(number("CS", record::CS, selector::CODE_32.into()));
        p.case(name, checks, |p| {
            p.here(at)?;
            p.a.call(fword_ptr(pointer))
        })?;
        restore(p, None)?;
    }
    let absent_code = p.descriptor(15, descriptor(0, 0xf_ffff, 0xc01b));
    let absent_data = p.descriptor(16, descriptor(0, 0xf_ffff, 0xc013));
    let data = u32::from(selector::DATA);
    let cases: [(&str, u8, u32, u32, u32); 8] = [
        ("#TS: CS is nothing", 10, 0, field::CS, 0),
        ("#TS: CS is data", 10, data, field::CS, data),
        ("#NP: CS is not present", 11, absent_code.into(), field::CS, absent_code.into()),
        ("#TS: SS is nothing", 10, 0, field::SS, 0),
        ("#SS: SS is not present", 12, absent_data.into(), field::SS, absent_data.into()),
        ("#TS: SS is code", 10, selector::CODE_32.into(), field::SS, selector::CODE_32.into()),
        ("#TS: LDT is data", 10, data, field::LDT, data),
        ("#TS: DS beyond the table", 10, 0xfff8, 84, 0xfff8),
    ];
    for (index, (name, vector, error, offset, value)) in (18..).zip(cases) {
        // The stack segment that is no good cannot be used for delivery: the gate goes to a task.
        let bad = task(p, index, code, &[(offset, value)]);
        let pointer = far_pointer(p, bad.selector);
        let catcher = p.code(32, |a| {
            a.pop(eax)?;
            a.mov(dword_ptr(record::result(0)), eax)?;
            a.str(eax)?;
            a.mov(dword_ptr(record::result(1)), eax)?;
            a.int(RETURN_VECTOR)
        })?;
        let catches = task(p, index + 10, catcher, &[]);
        let gate = IDT + 8 * u32::from(vector);
        let checks = vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            dword("error code", record::result(0), error),
            dword("task register", record::result(1), catches.selector.into()),
            dword("link", catches.field(field::LINK), bad.selector.into()),
        ];
        let saved = SCRATCH + 0x2000;
        for half in [0, 4] {
            p.a.mov(eax, dword_ptr(gate + half))?;
            p.a.mov(dword_ptr(saved + half), eax)?;
        }
        p.case(name, checks, |p| {
            p.a.mov(dword_ptr(gate), i32::from(catches.selector) << 16)?;
            p.a.mov(dword_ptr(gate + 4), 0x8500)?;
            p.a.call(fword_ptr(pointer))
        })?;
        for half in [0, 4] {
            p.a.mov(eax, dword_ptr(saved + half))?;
            p.a.mov(dword_ptr(gate + half), eax)?;
        }
        restore(p, Some(bad))?;
    }
    let at = p.label();
    p.case("#TS: IRET from a task to one that is not busy", fault_at(10, any.selector.into(), at), |p| {
        p.a.mov(dword_ptr(TSS), i32::from(any.selector))?;
        p.a.push(0x4002)?;
        p.a.popfd()?;
        p.here(at)?;
        p.a.iretd()
    })?;
    restore(p, None)
}

/// A task of 16 bits.
fn small_task(p: &mut Program) -> Done {
    let code = p.code(16, |a| {
        // Its data segment is flat for the while.
        a.mov(di, i32::from(selector::DATA))?;
        a.mov(ds, di)?;
        a.mov(esi, record::RESULT)?;
        a.mov(dword_ptr(esi + 0).ds(), eax)?;
        a.str(eax)?;
        a.mov(dword_ptr(esi + 8).ds(), eax)?;
        a.pushfd()?;
        a.pop(eax)?;
        a.mov(dword_ptr(esi + 16).ds(), eax)?;
        a.iret()
    })?;
    let code_segment = p.descriptor(40, descriptor(code, 0xffff, 0x009b));
    let data = selector::DATA_16;
    let halves: [u16; 22] = [
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        2,
        0x1111,
        0x2222,
        0x3333,
        0x4444,
        0x7000,
        0x6666,
        0x7777,
        0x8888,
        data,
        code_segment,
        data,
        data,
        0,
    ];
    let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let at = p.bytes(&bytes);
    let small = Task { at, selector: p.descriptor(41, descriptor(at, 0x2b, 0x0081)) };
    let pointer = far_pointer(p, small.selector);
    let checks = vec![
        no_fault(),
        Check { what: "AX", at: record::result(0), mask: 0xffff, want: Want::Number(0x1111) },
        dword("task register", record::result(1), small.selector.into()),
        Check { what: "NT", at: record::result(2), mask: NESTED, want: Want::Number(NESTED) },
        dword("EBX afterwards", record::result(6), 0x1234_5678),
        dword("task register afterwards", record::result(7), selector::TSS.into()),
        Check { what: "link", at, mask: 0xffff, want: Want::Number(selector::TSS.into()) },
        Check { what: "DI that is saved", at: at + 32, mask: 0xffff, want: Want::Number(selector::DATA.into()) },
        small.busy(false),
    ];
    p.case("CALL to a task of 16 bits, and IRET", checks, |p| {
        p.a.mov(ebx, 0x1234_5678)?;
        p.a.call(fword_ptr(pointer))?;
        afterwards(p)
    })?;
    restore(p, Some(small))
}

/// Call gates that change the level, with arguments; returns that take things away.
fn gates(p: &mut Program) -> Done {
    let entry = p.code(32, |a| {
        a.mov(dword_ptr(record::result(0)).ss(), esp)?;
        for (index, offset) in [(1, 0), (2, 4), (3, 8), (4, 12), (5, 16), (6, 20)] {
            a.mov(eax, dword_ptr(esp + offset))?;
            a.mov(dword_ptr(record::result(index)).ss(), eax)?;
        }
        a.add_instruction(Instruction::with1(Code::Retfd_imm16, 8)?)
    })?;
    let gate = |access: u64, count: u64| {
        u64::from(entry & 0xffff)
            | u64::from(selector::CODE_32) << 16
            | count << 32
            | access << 40
            | u64::from(entry >> 16) << 48
    };
    let open = p.descriptor(44, gate(0xec, 2));
    let closed = p.descriptor(45, gate(0x8c, 0));
    let user = p.user(32, |a| {
        a.mov(eax, u32::from(selector::DATA))?;
        a.push(0x11)?;
        a.push(0x22)?;
        a.add_instruction(Instruction::with_far_branch(Code::Call_ptr1632, open, 0)?)?;
        a.int(RETURN_VECTOR)
    })?;
    let checks = vec![
        number("vector", record::VECTOR, RETURN_VECTOR.into()),
        dword("ESP at level 0", record::result(0), INNER_STACK - 24),
        dword("return CS", record::result(2), selector::USER_CODE_32.into()),
        dword("second argument", record::result(3), 0x22),
        dword("first argument", record::result(4), 0x11),
        dword("outer ESP", record::result(5), USER_STACK - 8),
        dword("outer SS", record::result(6), selector::USER_DATA.into()),
        dword("ESP afterwards", record::SP, USER_STACK),
    ];
    p.case("a call gate copies arguments, and RET takes them away", checks, |p| {
        p.enter_user(selector::USER_CODE_32, user, 2)
    })?;
    let refused = p.user(32, |a| a.add_instruction(Instruction::with_far_branch(Code::Call_ptr1632, closed, 0)?))?;
    p.case("#GP: a call gate of level 0 from level 3", fault(13, closed.into()), |p| {
        p.enter_user(selector::USER_CODE_32, refused, 2)
    })?;
    // Conforming code runs at the level of who calls it.
    let conforming = p.descriptor(46, descriptor(0, 0xf_ffff, 0xc09f));
    let level = p.user(32, |a| {
        a.mov(eax, cs)?;
        a.int(RETURN_VECTOR)
    })?;
    let calls =
        p.user(32, |a| a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, conforming, level)?))?;
    let checks = vec![
        number("vector", record::VECTOR, RETURN_VECTOR.into()),
        number("CS", record::CS, u64::from(conforming) | 3),
    ];
    p.case("conforming code keeps the level", checks, |p| p.enter_user(selector::USER_CODE_32, calls, 2))?;
    let plain =
        p.user(32, |a| a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, selector::CODE_32, level)?))?;
    p.case("#GP: other code does not", fault(13, selector::CODE_32.into()), |p| {
        p.enter_user(selector::USER_CODE_32, plain, 2)
    })?;
    let segments = p.user(32, |a| {
        a.mov(eax, ds)?;
        a.mov(ebx, es)?;
        a.int(RETURN_VECTOR)
    })?;
    let note = p.code(32, |a| {
        a.mov(dword_ptr(record::result(0)).ss(), eax)?;
        a.mov(dword_ptr(record::result(1)).ss(), ebx)?;
        a.int(RETURN_VECTOR + 1)
    })?;
    let checks = vec![
        number("vector", record::VECTOR, u64::from(RETURN_VECTOR) + 1),
        dword("DS", record::result(0), 0),
        dword("ES", record::result(1), selector::USER_DATA.into()),
    ];
    p.case("IRET to level 3 takes segments of level 0 away", checks, |p| {
        // The vector goes where the registers are noted, and the next one ends the case.
        p.a.mov(eax, note)?;
        p.a.mov(word_ptr(IDT + 8 * RETURN_VECTOR), ax)?;
        p.a.shr(eax, 16)?;
        p.a.mov(word_ptr(IDT + 8 * RETURN_VECTOR + 6), ax)?;
        p.a.mov(eax, u32::from(selector::USER_DATA))?;
        p.a.mov(es, ax)?;
        p.enter_user(selector::USER_CODE_32, segments, 2)
    })
}

/// Limits and kinds of segments.
fn limits(p: &mut Program) -> Done {
    let handler = p.routines.stubs[RETURN_VECTOR as usize];
    let handler = p.address_of(handler);
    p.a.mov(eax, dword_ptr(handler))?;
    p.a.mov(word_ptr(IDT + 8 * RETURN_VECTOR), ax)?;
    p.a.shr(eax, 16)?;
    p.a.mov(word_ptr(IDT + 8 * RETURN_VECTOR + 6), ax)?;
    let small = p.descriptor(48, descriptor(SCRATCH, 0xfff, 0x4093));
    let down = p.descriptor(49, descriptor(SCRATCH, 0xfff, 0x4097));
    let read_only = p.descriptor(50, descriptor(SCRATCH, 0xfff, 0x4091));
    let execute_only = p.descriptor(51, descriptor(0, 0xf_ffff, 0xc099));
    let cases: [(&str, Option<u8>, u16, u32); 6] = [
        ("the last bytes of a segment", None, small, 0xffc),
        ("#GP: bytes beyond a segment", Some(13), small, 0xffd),
        ("#GP: an address beyond a segment", Some(13), small, 0x1000),
        ("#GP: below a segment that grows down", Some(13), down, 0xfff),
        ("the first bytes of a segment that grows down", None, down, 0x1000),
        ("#GP: an operand that wraps in a segment that grows down", Some(13), down, 0xffff_fffe),
    ];
    for (name, vector, segment, offset) in cases {
        let at = p.label();
        let checks = vector.map_or_else(|| vec![no_fault()], |vector| fault_at(vector, 0, at));
        p.case(name, checks, |p| {
            p.a.mov(eax, u32::from(segment))?;
            p.a.mov(fs, ax)?;
            p.a.mov(ebx, offset)?;
            p.here(at)?;
            p.a.mov(eax, dword_ptr(ebx).fs())
        })?;
    }
    let at = p.label();
    p.case("#GP: a write to what is read only", fault_at(13, 0, at), |p| {
        p.a.mov(eax, u32::from(read_only))?;
        p.a.mov(fs, ax)?;
        p.here(at)?;
        p.a.mov(dword_ptr(0).fs(), eax)
    })?;
    let at = p.label();
    p.case("#GP: a read by way of nothing", fault_at(13, 0, at), |p| {
        p.a.xor(eax, eax)?;
        p.a.mov(fs, ax)?;
        p.here(at)?;
        p.a.mov(eax, dword_ptr(0).fs())
    })?;
    let at = p.label();
    p.case("#GP: a write to code", fault_at(13, 0, at), |p| {
        p.here(at)?;
        p.a.mov(dword_ptr(0).cs(), eax)
    })?;
    let reads = p.code(32, |a| a.mov(eax, dword_ptr(0).cs()))?;
    let checks = {
        let mut checks = fault(13, 0);
        checks.push(number("EIP", record::IP, reads.into()));
        checks
    };
    p.case("#GP: a read of code that is for execution only", checks, |p| {
        p.a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, execute_only, reads)?)
    })?;
    // Instructions at the end of a segment.
    let code = p.bytes(&[0x90, 0x90, 0x90, 0xb8, 1, 2, 3, 4]);
    let short = p.descriptor(52, descriptor(code, 6, 0x409b));
    let whole = p.descriptor(53, descriptor(code, 7, 0x409b));
    let mut checks = fault(13, 0);
    checks.push(number("EIP", record::IP, 3));
    checks.push(number("CS", record::CS, short.into()));
    p.case("#GP: an instruction that is partly beyond the segment", checks, |p| {
        p.a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, short, 0)?)
    })?;
    let mut checks = fault(13, 0);
    checks.push(number("EIP", record::IP, 8));
    checks.push(number("CS", record::CS, whole.into()));
    p.case("#GP: what follows the last instruction of a segment", checks, |p| {
        p.a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, whole, 0)?)
    })?;
    let bounds = p.dwords(&[10, 20]);
    let at = p.label();
    p.case("#BR: BOUND", fault_at(5, 0, at), |p| {
        p.a.mov(eax, 21)?;
        p.here(at)?;
        p.a.bound(eax, qword_ptr(bounds))
    })?;
    let after = p.label();
    p.case("#OF: INTO is a trap", fault_at(4, 0, after), |p| {
        p.a.mov(al, 0x7f)?;
        p.a.inc(al)?;
        p.a.db(&[0xce])?;
        p.at(after)
    })?;
    let at = p.label();
    p.case("#GP: JMP beyond the limit", fault_at(13, 0, at), |p| {
        let pointer = p.dwords(&[8, whole.into()]);
        p.here(at)?;
        p.a.jmp(fword_ptr(pointer))
    })?;
    p.a.mov(esp, dword_ptr(variable::RECOVER_SP))
}
