//! Exceptions in 64-bit mode: which, with what error code, where, on what stack, and which of several comes first.
//! SDM vol. 3 ch. 6, § 5.8 and 8.7; vol. 2 (instructions).

mod levels;

use iced_x86::{Code, IcedError, Instruction, code_asm::*};

use super::{
    Done,
    layout::{
        GDT, IDT, INNER_STACK, INTERRUPT_STACKS, RETURN_VECTOR, SCRATCH, TABLES, TSS, USER_STACK, record, selector,
        variable,
    },
    program::{Check, Program, Want, descriptor, fault, fault_at, no_fault, number},
};

/// Not canonical with 48 bits of address, nor with 57.
const NOT_CANONICAL: u64 = 0x7fff_8000_0000_0000;
/// Beyond what is mapped.
const UNMAPPED: u64 = 0x80_0000_0000;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    // A fault of the stack is no use on that stack.
    p.idt[12].stack = 1;
    simple(&mut p)?;
    segments(&mut p)?;
    system_segments(&mut p)?;
    far(&mut p)?;
    interrupts(&mut p)?;
    stacks(&mut p)?;
    returns(&mut p)?;
    levels::levels(&mut p)?;
    levels::calls(&mut p)?;
    priority(&mut p)?;
    double(&mut p)?;
    p.end()
}

/// An exception at the next instruction of `body`.
fn faults(
    p: &mut Program,
    name: &str,
    vector: u8,
    error: u32,
    before: impl FnOnce(&mut Program) -> Done,
    instruction: impl FnOnce(&mut CodeAssembler) -> Done,
) -> Done {
    let at = p.label();
    p.case(name, fault_at(vector, error, at), |p| {
        before(p)?;
        p.here(at)?;
        instruction(&mut p.a)
    })
}

/// RET to another segment, with operands of 64 bits.
fn far_return(a: &mut CodeAssembler) -> Done {
    a.add_instruction(Instruction::with(Code::Retfq))
}

fn nothing(_: &mut Program) -> Done {
    Ok(())
}

fn simple(p: &mut Program) -> Done {
    faults(p, "#DE: division by zero", 0, 0, |p| p.a.xor(ecx, ecx), |a| a.div(ecx))?;
    let overflow = |p: &mut Program| {
        p.a.mov(edx, 5)?;
        p.a.mov(ecx, 5)
    };
    faults(p, "#DE: a quotient that is too large", 0, 0, overflow, |a| a.div(ecx))?;
    let least = |p: &mut Program| {
        p.a.mov(eax, 0x8000_0000_u32)?;
        p.a.mov(edx, u32::MAX)?;
        p.a.mov(ecx, u32::MAX)
    };
    faults(p, "#DE: the least number by -1", 0, 0, least, |a| a.idiv(ecx))?;
    faults(p, "#UD: UD2", 6, 0, nothing, |a| a.ud2())?;
    let after = p.label();
    p.case("#BP: INT3 is a trap", fault_at(3, 0, after), |p| {
        p.a.int3()?;
        p.at(after)
    })?;
    let after = p.label();
    p.case("INT 3 with an operand is the same", fault_at(3, 0, after), |p| {
        p.a.db(&[0xcd, 3])?;
        p.at(after)
    })?;
    let reads = |p: &mut Program| p.a.mov(rbx, NOT_CANONICAL);
    faults(p, "#GP: a read that is not canonical", 13, 0, reads, |a| a.mov(eax, dword_ptr(rbx)))?;
    faults(p, "#GP: a write that is not canonical", 13, 0, reads, |a| a.mov(dword_ptr(rbx), eax))?;
    let stack = |p: &mut Program| p.a.mov(rbp, NOT_CANONICAL);
    faults(p, "#SS: by way of RBP", 12, 0, stack, |a| a.mov(eax, dword_ptr(rbp + 0)))?;
    let push = |p: &mut Program| p.a.mov(rsp, NOT_CANONICAL);
    faults(p, "#SS: PUSH to where it is not canonical", 12, 0, push, |a| a.push(rax))?;
    let jump = |p: &mut Program| p.a.mov(rbx, NOT_CANONICAL);
    faults(p, "#GP: JMP to where it is not canonical", 13, 0, jump, |a| a.jmp(rbx))?;
    faults(p, "#GP: CALL to where it is not canonical", 13, 0, jump, |a| a.call(rbx))?;
    let pushed = |p: &mut Program| {
        p.a.mov(rbx, NOT_CANONICAL)?;
        p.a.push(rbx)
    };
    faults(p, "#GP: RET to where it is not canonical", 13, 0, pushed, |a| a.ret())?;
    // The last page of the lower half is there.
    p.a.mov(dword_ptr(TABLES + 8 * 255), (TABLES + 0x1007) as i32)?;
    p.a.mov(dword_ptr(TABLES + 0x1000 + 8 * 511), (TABLES + 0x2007) as i32)?;
    let crossing = |p: &mut Program| p.a.mov(rbx, 0x7fff_ffff_fffc_u64);
    faults(p, "#GP: an operand that leaves the canonical addresses", 13, 0, crossing, |a| a.mov(rax, qword_ptr(rbx)))?;
    p.a.mov(dword_ptr(TABLES + 0x1000 + 8 * 511), 0)?;
    p.a.mov(rax, cr3)?;
    p.a.mov(cr3, rax)?;
    let unaligned = |p: &mut Program| p.a.lea(rbx, ptr(rsp - 127));
    faults(p, "#GP: MOVAPS of an address that is not aligned", 13, 0, unaligned, |a| a.movaps(xmm0, xmmword_ptr(rbx)))?;
    let cases: [(&str, u32, u8, &[u8]); 8] = [
        ("#NM: x87 while CR0.TS is set", 1 << 3, 7, &[0xd9, 0xe8]),
        ("#NM: SSE while CR0.TS is set", 1 << 3, 7, &[0x0f, 0x57, 0xc0]),
        ("#NM: MMX while CR0.TS is set", 1 << 3, 7, &[0x0f, 0xef, 0xc0]),
        ("#NM: x87 while CR0.EM is set", 1 << 2, 7, &[0xd9, 0xe8]),
        ("#UD: SSE while CR0.EM is set", 1 << 2, 6, &[0x0f, 0x57, 0xc0]),
        ("#UD: MMX while CR0.EM is set", 1 << 2, 6, &[0x0f, 0xef, 0xc0]),
        ("#NM: WAIT while CR0.MP and CR0.TS are set", 1 << 3 | 1 << 1, 7, &[0x9b]),
        ("#NM: FXSAVE while CR0.TS is set", 1 << 3, 7, &[0x0f, 0xae, 0x04, 0x24]),
    ];
    for (name, set, vector, bytes) in cases {
        let flags = |p: &mut Program| {
            p.a.mov(rax, cr0)?;
            p.a.or(eax, set)?;
            p.a.mov(cr0, rax)
        };
        faults(p, name, vector, 0, flags, |a| a.db(bytes))?;
        clear_flags(p)?;
    }
    p.case("WAIT while CR0.TS is set without CR0.MP", vec![no_fault()], |p| {
        p.a.mov(rax, cr0)?;
        p.a.and(eax, !2)?;
        p.a.or(eax, 8)?;
        p.a.mov(cr0, rax)?;
        p.a.wait()
    })?;
    clear_flags(p)?;
    let no_sse = |p: &mut Program| {
        p.a.mov(rax, cr4)?;
        p.a.btr(rax, 9)?;
        p.a.mov(cr4, rax)
    };
    faults(p, "#UD: SSE while CR4.OSFXSR is clear", 6, 0, no_sse, |a| a.xorps(xmm0, xmm0))?;
    p.a.mov(rax, cr4)?;
    p.a.bts(rax, 9)?;
    p.a.mov(cr4, rax)?;
    let pending = |p: &mut Program| {
        // Zero divided by zero, not masked.
        p.a.fninit()?;
        p.a.mov(word_ptr(rsp - 8), 0x037e)?;
        p.a.fldcw(word_ptr(rsp - 8))?;
        p.a.fldz()?;
        p.a.fldz()?;
        p.a.fdivp(st1, st0)
    };
    faults(p, "#MF: at the instruction that waits", 16, 0, pending, |a| a.wait())?;
    p.a.fninit()?;
    let unmasked = |p: &mut Program| {
        p.a.mov(dword_ptr(rsp - 8), 0x1f80 & !(1 << 9))?;
        p.a.ldmxcsr(dword_ptr(rsp - 8))?;
        p.a.mov(eax, 0x3f80_0000)?;
        p.a.movd(xmm0, eax)?;
        p.a.xorps(xmm1, xmm1)
    };
    faults(p, "#XM: division by zero", 19, 0, unmasked, |a| a.divss(xmm0, xmm1))?;
    p.a.mov(dword_ptr(rsp - 8), 0x1f80)?;
    p.a.ldmxcsr(dword_ptr(rsp - 8))
}

fn clear_flags(p: &mut Program) -> Done {
    p.a.mov(rax, cr0)?;
    p.a.and(eax, !0b1100)?;
    p.a.or(eax, 2)?;
    p.a.mov(cr0, rax)
}

/// Loads of segment registers (SDM vol. 2, MOV).
fn segments(p: &mut Program) -> Done {
    let absent_data = p.descriptor(0, descriptor(0, 0xf_ffff, 0xc013));
    let absent_code = p.descriptor(1, descriptor(0, 0xf_ffff, 0xa01b));
    let execute_only = p.descriptor(2, descriptor(0, 0xf_ffff, 0xa099));
    let read_only = p.descriptor(3, descriptor(0, 0xf_ffff, 0xc091));
    let user_data = selector::USER_DATA;
    let cases: [(&str, u8, u16, AsmRegisterSegment); 11] = [
        ("#NP: DS of what is not present", 11, absent_data, ds),
        ("#SS: SS of what is not present", 12, absent_data, ss),
        ("#GP: ES beyond the table", 13, 0xfff8, es),
        ("#GP: FS of a local table that is not there", 13, 0x0c, fs),
        ("#GP: DS of code that cannot be read", 13, execute_only, ds),
        ("#GP: SS of code", 13, selector::CODE_64, ss),
        ("#GP: SS of data that is read only", 13, read_only, ss),
        ("#GP: SS of level 3", 13, user_data, ss),
        ("#GP: SS whose descriptor is of another level", 13, user_data & !3, ss),
        ("#GP: DS of a task state segment", 13, selector::TSS, ds),
        ("#NP: GS of code that is not present", 11, absent_code, gs),
    ];
    for (name, vector, value, register) in cases {
        // The selector's own level is no part of the error code.
        let error = u32::from(value & !3);
        faults(p, name, vector, error, |p| p.a.mov(eax, u32::from(value)), |a| a.mov(register, ax))?;
    }
    p.case("a null selector can be in DS, and in SS at level 0", vec![no_fault()], |p| {
        p.a.xor(eax, eax)?;
        p.a.mov(ds, ax)?;
        p.a.mov(ss, ax)?;
        p.a.mov(eax, u32::from(selector::DATA))?;
        p.a.mov(ds, ax)?;
        p.a.mov(ss, ax)
    })?;
    p.case(
        "what is loaded is marked as accessed",
        vec![
            no_fault(),
            Check {
                what: "access byte",
                at: GDT + u32::from(selector::OWN) + 32,
                mask: 0xff << 40,
                want: Want::Number(0x93 << 40),
            },
        ],
        |p| {
            let fresh = p.descriptor(4, descriptor(0, 0xf_ffff, 0xc092));
            p.a.mov(eax, u32::from(fresh))?;
            p.a.mov(es, ax)
        },
    )
}

fn system_segments(p: &mut Program) -> Done {
    let tss = u32::from(selector::TSS);
    faults(p, "#GP: LTR of a busy task", 13, tss, |p| p.a.mov(eax, tss), |a| a.ltr(ax))?;
    faults(p, "#GP: LTR of nothing", 13, 0, |p| p.a.xor(eax, eax), |a| a.ltr(ax))?;
    let data = u32::from(selector::DATA);
    faults(p, "#GP: LTR of data", 13, data, |p| p.a.mov(eax, data), |a| a.ltr(ax))?;
    faults(p, "#GP: LLDT of data", 13, data, |p| p.a.mov(eax, data), |a| a.lldt(ax))?;
    let absent = p.descriptor(6, descriptor(TSS, 0x67, 0x0009));
    faults(
        p,
        "#NP: LTR of what is not present",
        11,
        absent.into(),
        |p| p.a.mov(eax, u32::from(absent)),
        |a| a.ltr(ax),
    )?;
    let table = p.descriptor(8, descriptor(SCRATCH, 0xff, 0x0002));
    faults(
        p,
        "#NP: LLDT of what is not present",
        11,
        table.into(),
        |p| p.a.mov(eax, u32::from(table)),
        |a| a.lldt(ax),
    )?;
    p.case("LLDT of nothing", vec![no_fault()], |p| {
        p.a.xor(eax, eax)?;
        p.a.lldt(ax)
    })?;
    faults(
        p,
        "#GP: LGDT that is not canonical",
        13,
        0,
        |p| {
            p.a.mov(rax, NOT_CANONICAL)?;
            p.a.mov(qword_ptr(rsp - 8), rax)?;
            p.a.mov(word_ptr(rsp - 10), 0xff)
        },
        |a| a.lgdt(ptr(rsp - 10)),
    )
}

/// Far jumps, calls and call gates.
fn far(p: &mut Program) -> Done {
    let absent = p.descriptor(1, descriptor(0, 0xf_ffff, 0xa01b));
    let both = p.descriptor(10, descriptor(0, 0xf_ffff, 0xe09b));
    let cases: [(&str, u8, u16); 7] = [
        ("#GP: far JMP to data", 13, selector::DATA),
        ("#GP: far JMP to nothing", 13, 0),
        ("#NP: far JMP to code that is not present", 11, absent),
        ("#GP: far JMP to code with D and L", 13, both),
        ("#GP: far JMP to code of another level", 13, selector::USER_CODE_64 & !3),
        ("#GP: far JMP to a task state segment", 13, selector::TSS),
        ("#GP: far JMP beyond the table", 13, 0x7ff8),
    ];
    for (name, vector, target) in cases {
        let pointer = p.dwords(&[0x10_0000, target.into()]);
        faults(p, name, vector, target.into(), nothing, |a| a.jmp(fword_ptr(pointer)))?;
    }
    let target = p.label();
    let there = p.address_of(target);
    p.case("far JMP and far RET", vec![no_fault(), number("result", record::result(0), 7)], |p| {
        p.a.push(i32::from(selector::CODE_64))?;
        p.a.mov(rax, qword_ptr(there))?;
        p.a.push(rax)?;
        far_return(&mut p.a)?;
        p.at(target)?;
        p.a.mov(eax, 7)?;
        p.keep(0, eax)
    })?;
    // A call gate of 64 bits takes two places (§ 5.8.3.1).
    let entry = p.code(64, |a| {
        a.mov(qword_ptr(record::result(1)), rsp)?;
        a.mov(eax, cs)?;
        a.mov(dword_ptr(record::result(0)), eax)?;
        far_return(a)
    })?;
    let code = u64::from(selector::CODE_64) << 16;
    let gate = |access: u64| u64::from(entry & 0xffff) | code | access << 40 | u64::from(entry >> 16) << 48;
    let open = p.descriptor(12, gate(0xec));
    let closed = p.descriptor(14, gate(0x8c));
    let absent_gate = p.descriptor(16, gate(0x6c));
    let pointer = p.dwords(&[0, open.into()]);
    p.case(
        "far CALL through a gate at the same level",
        vec![no_fault(), number("CS", record::result(0), selector::CODE_64.into())],
        |p| p.a.call(fword_ptr(pointer)),
    )?;
    let absent_pointer = p.dwords(&[0, absent_gate.into()]);
    faults(p, "#NP: far CALL through a gate that is not present", 11, absent_gate.into(), nothing, |a| {
        a.call(fword_ptr(absent_pointer))
    })?;
    let user = p.user(64, |a| {
        let pointer = pointer_of(a, open)?;
        a.call(fword_ptr(pointer))?;
        a.int(RETURN_VECTOR)
    })?;
    let inner = u64::from(INNER_STACK - 32);
    p.case(
        "far CALL through a gate from level 3 changes the stack",
        vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            number("CS", record::result(0), selector::CODE_64.into()),
            number("RSP", record::result(1), inner),
            number("RSP afterwards", record::SP, USER_STACK.into()),
            number("SS afterwards", record::SS, selector::USER_DATA.into()),
        ],
        |p| p.enter_user(selector::USER_CODE_64, user, 2),
    )?;
    let refused = p.user(64, |a| {
        let pointer = pointer_of(a, closed)?;
        a.call(fword_ptr(pointer))
    })?;
    p.case("#GP: far CALL through a gate of level 0 from level 3", fault(13, closed.into()), |p| {
        p.enter_user(selector::USER_CODE_64, refused, 2)
    })
}

/// Puts a far pointer on the stack of level 3, and gives where.
fn pointer_of(a: &mut CodeAssembler, selector: u16) -> Result<u32, IcedError> {
    let at = USER_STACK - 64;
    a.mov(dword_ptr(at), 0)?;
    a.mov(dword_ptr(at + 4), i32::from(selector))?;
    Ok(at)
}

/// Gates, and software interrupts through them.
fn interrupts(p: &mut Program) -> Done {
    let gate = |vector: u32| IDT + 16 * vector;
    let after = p.label();
    p.case("INT n is a trap", fault_at(0x40, 0, after), |p| {
        p.a.int(0x40)?;
        p.at(after)
    })?;
    p.case(
        "an interrupt gate clears IF, TF and NT, and saves them",
        vec![Check { what: "flags", at: record::FLAGS, mask: 0x4200, want: Want::Number(0x4200) }],
        |p| {
            p.a.push(0x4202)?;
            p.a.popfq()?;
            p.a.int(0x40)
        },
    )?;
    p.a.push(2)?;
    p.a.popfq()?;
    faults(
        p,
        "#NP: INT through a gate that is not present",
        11,
        0x41 * 8 + 2,
        |p| p.a.mov(byte_ptr(gate(0x41) + 5), 0x0e),
        |a| a.int(0x41),
    )?;
    faults(
        p,
        "#GP: INT through a gate of another kind",
        13,
        0x42 * 8 + 2,
        |p| p.a.mov(byte_ptr(gate(0x42) + 5), 0x8c),
        |a| a.int(0x42),
    )?;
    faults(
        p,
        "#GP: INT to data",
        13,
        selector::DATA.into(),
        |p| p.a.mov(word_ptr(gate(0x43) + 2), i32::from(selector::DATA)),
        |a| a.int(0x43),
    )?;
    faults(p, "#GP: INT to nothing", 13, 0, |p| p.a.mov(word_ptr(gate(0x44) + 2), 0), |a| a.int(0x44))?;
    faults(
        p,
        "#GP: INT to code of 32 bits",
        13,
        selector::CODE_32.into(),
        |p| p.a.mov(word_ptr(gate(0x45) + 2), i32::from(selector::CODE_32)),
        |a| a.int(0x45),
    )?;
    let absent = p.descriptor(1, descriptor(0, 0xf_ffff, 0xa01b));
    faults(
        p,
        "#NP: INT to code that is not present",
        11,
        absent.into(),
        |p| p.a.mov(word_ptr(gate(0x46) + 2), i32::from(absent)),
        |a| a.int(0x46),
    )?;
    faults(
        p,
        "#GP: INT to where it is not canonical",
        13,
        0,
        |p| p.a.mov(dword_ptr(gate(0x47) + 8), 0x9000),
        |a| a.int(0x47),
    )?;
    // What an exception meets has EXT set; what an instruction asked for has not.
    faults(
        p,
        "#NP: an exception whose gate is not present",
        11,
        6 * 8 + 3,
        |p| p.a.mov(byte_ptr(gate(6) + 5), 0x0e),
        |a| a.ud2(),
    )?;
    p.a.mov(byte_ptr(gate(6) + 5), 0x8e)?;
    faults(
        p,
        "#NP: INT3 whose gate is not present",
        11,
        3 * 8 + 2,
        |p| p.a.mov(byte_ptr(gate(3) + 5), 0x0e),
        |a| a.int3(),
    )?;
    p.a.mov(byte_ptr(gate(3) + 5), 0x8e_u32 as i32)?;
    let (short, whole) = (p.pointer(0x53f, IDT), p.pointer(0xfff, IDT));
    faults(p, "#GP: INT beyond the table", 13, 0x60 * 8 + 2, |p| p.a.lidt(ptr(short)), |a| a.int(0x60))?;
    p.a.lidt(ptr(whole))?;
    let user = p.user(64, |a| a.int(0x40))?;
    p.case("#GP: INT from level 3 through a gate of level 0", fault(13, 0x40 * 8 + 2), |p| {
        p.enter_user(selector::USER_CODE_64, user, 2)
    })?;
    let breakpoint = p.user(64, |a| a.int3())?;
    p.case("#GP: INT3 from level 3 through a gate of level 0", fault(13, 3 * 8 + 2), |p| {
        p.enter_user(selector::USER_CODE_64, breakpoint, 2)
    })?;
    let icebp = p.user(64, |a| a.db(&[0xf1]))?;
    p.case("ICEBP from level 3 asks no gate", vec![number("vector", record::VECTOR, 1)], |p| {
        p.enter_user(selector::USER_CODE_64, icebp, 2)
    })
}

/// Stacks that exceptions use (§ 6.14.2, 6.14.5).
fn stacks(p: &mut Program) -> Done {
    let frame = |top: u32| u64::from((top & !15) - 48);
    p.case(
        "the stack is aligned to 16 bytes",
        vec![
            Check { what: "RSP of the handler", at: record::HANDLER_SP, mask: 15, want: Want::Number(0) },
            Check { what: "RSP", at: record::SP, mask: 15, want: Want::Number(3) },
        ],
        |p| {
            p.a.and(rsp, !15)?;
            p.a.sub(rsp, 13)?;
            p.a.ud2()
        },
    )?;
    p.a.mov(byte_ptr(IDT + 16 * 0x48 + 4), 1)?;
    p.case(
        "the interrupt stack table is used at the same level, too",
        vec![
            number("RSP of the handler", record::HANDLER_SP, frame(INTERRUPT_STACKS[0])),
            number("SS", record::SS, selector::DATA.into()),
        ],
        |p| p.a.int(0x48),
    )?;
    let user = p.user(64, |a| a.ud2())?;
    p.case(
        "from level 3 RSP0 is used, and SS is null",
        vec![
            number("vector", record::VECTOR, 6),
            number("RSP of the handler", record::HANDLER_SP, frame(INNER_STACK)),
            number("CS", record::CS, selector::USER_CODE_64.into()),
            number("SS", record::SS, selector::USER_DATA.into()),
            number("RIP", record::IP, user.into()),
        ],
        |p| p.enter_user(selector::USER_CODE_64, user, 2),
    )?;
    let compatible = p.user(32, |a| a.ud2())?;
    p.case(
        "from 32-bit code of level 3",
        vec![
            number("vector", record::VECTOR, 6),
            number("RSP of the handler", record::HANDLER_SP, frame(INNER_STACK)),
            number("CS", record::CS, selector::USER_CODE_32.into()),
            number("RIP", record::IP, compatible.into()),
        ],
        |p| p.enter_user(selector::USER_CODE_32, compatible, 2),
    )?;
    p.a.mov(rax, NOT_CANONICAL)?;
    p.a.mov(qword_ptr(TSS + 44), rax)?;
    p.a.mov(byte_ptr(IDT + 16 * 0x49 + 4), 2)?;
    p.case("#SS: a stack of the table that is not canonical", fault(12, 0), |p| p.a.int(0x49))?;
    p.a.mov(eax, INTERRUPT_STACKS[1])?;
    p.a.mov(qword_ptr(TSS + 44), rax)
}

/// IRET (SDM vol. 2).
fn returns(p: &mut Program) -> Done {
    let code: i32 = selector::CODE_64.into();
    let data: i32 = selector::DATA.into();
    let cases: [(&str, u8, u32, [i32; 3]); 8] = [
        ("#GP: IRET to nothing", 13, 0, [data, 2, 0]),
        ("#GP: IRET to data", 13, selector::DATA.into(), [data, 2, data]),
        ("#GP: IRET to a level that the descriptor has not", 13, u32::from(selector::CODE_64), [data, 2, code | 3]),
        (
            "#GP: IRET to code of level 3 with RPL 0",
            13,
            u32::from(selector::USER_CODE_64 & !3),
            [data, 2, i32::from(selector::USER_CODE_64 & !3)],
        ),
        (
            "#GP: IRET to level 3 with a stack of level 0",
            13,
            selector::DATA.into(),
            [data, 2, selector::USER_CODE_64.into()],
        ),
        ("#GP: IRET to level 3 with no stack in 32-bit code", 13, 0, [0, 2, selector::USER_CODE_32.into()]),
        ("#GP: IRET beyond the table", 13, 0x7ff8, [data, 2, 0x7ff8]),
        (
            "#GP: IRET with code as the stack",
            13,
            u32::from(selector::USER_CODE_64 & !3),
            [selector::USER_CODE_64.into(), 2, selector::USER_CODE_64.into()],
        ),
    ];
    for (name, vector, error, [stack, flags, target]) in cases {
        let before = |p: &mut Program| {
            p.a.push(stack)?;
            p.a.push(0x7000)?;
            p.a.push(flags)?;
            p.a.push(target)?;
            p.a.push(0x40_0000)
        };
        faults(p, name, vector, error, before, |a| a.iretq())?;
    }
    let nested = |p: &mut Program| {
        p.a.push(0x4002)?;
        p.a.popfq()
    };
    faults(p, "#GP: IRET with NT set", 13, 0, nested, |a| a.iretq())?;
    p.a.push(2)?;
    p.a.popfq()?;
    let far = |p: &mut Program| {
        p.a.push(data)?;
        p.a.push(0x7000)?;
        p.a.push(2)?;
        p.a.push(code)?;
        p.a.mov(rax, NOT_CANONICAL)?;
        p.a.push(rax)
    };
    faults(p, "#GP: IRET to where it is not canonical", 13, 0, far, |a| a.iretq())?;
    let target = p.label();
    let there = p.address_of(target);
    p.case(
        "IRET to the same level takes RSP and SS, which may be null",
        vec![no_fault(), number("RSP", record::result(0), 0x6_8000), number("SS", record::result(1), 0)],
        |p| {
            p.a.push(0)?;
            p.a.push(0x6_8000)?;
            p.a.push(2)?;
            p.a.push(code)?;
            p.a.push(qword_ptr(there))?;
            p.a.iretq()?;
            p.at(target)?;
            p.a.mov(qword_ptr(record::result(0)), rsp)?;
            p.a.mov(eax, ss)?;
            p.keep(1, eax)?;
            p.a.mov(eax, data)?;
            p.a.mov(ss, ax)?;
            p.a.mov(esp, dword_ptr(variable::RECOVER_SP))
        },
    )
}

/// Which of several exceptions an instruction has (§ 6.9).
fn priority(p: &mut Program) -> Done {
    let task_switched = |p: &mut Program| {
        p.a.mov(rax, cr0)?;
        p.a.bts(eax, 3)?;
        p.a.mov(cr0, rax)?;
        p.a.mov(rbx, UNMAPPED)
    };
    faults(p, "#NM comes before #PF", 7, 0, task_switched, |a| a.fld(dword_ptr(rbx)))?;
    clear_flags(p)?;
    let unmapped = |p: &mut Program| p.a.mov(rbx, UNMAPPED + 1);
    faults(p, "#GP for alignment comes before #PF", 13, 0, unmapped, |a| a.movaps(xmm0, xmmword_ptr(rbx)))?;
    faults(p, "#UD for LOCK comes before #PF", 6, 0, unmapped, |a| a.db(&[0xf0, 0x8b, 0x03]))?;
    let at = p.label();
    let mut checks = fault_at(14, 0, at);
    checks.push(number("CR2", record::CR2, UNMAPPED + 1));
    p.case("#PF for a read", checks, |p| {
        p.a.mov(rbx, UNMAPPED + 1)?;
        p.here(at)?;
        p.a.mov(eax, dword_ptr(rbx))
    })?;
    let at = p.label();
    let mut checks = fault_at(14, 2, at);
    checks.push(number("CR2", record::CR2, UNMAPPED));
    p.case("#PF for what reads and writes is one for a write", checks, |p| {
        p.a.mov(rbx, UNMAPPED)?;
        p.here(at)?;
        p.a.add(dword_ptr(rbx), eax)
    })?;
    let mut checks = fault(14, 0x10);
    checks.push(number("RIP", record::IP, UNMAPPED + 5));
    checks.push(number("CR2", record::CR2, UNMAPPED + 5));
    p.case("#PF for an instruction is at its target", checks, |p| {
        p.a.mov(rbx, UNMAPPED + 5)?;
        p.a.jmp(rbx)
    })
}

/// Exceptions while others are delivered (§ 6.15, interrupt 8).
fn double(p: &mut Program) -> Done {
    let gate = |vector: u32| IDT + 16 * vector;
    let absent = |p: &mut Program, vector: u32| p.a.mov(byte_ptr(gate(vector) + 5), 0x0e);
    let present = |p: &mut Program, vector: u32| p.a.mov(byte_ptr(gate(vector) + 5), 0x8e);
    p.case("#DF: #GP whose gate is not present", fault(8, 0), |p| {
        absent(p, 13)?;
        p.a.mov(rax, NOT_CANONICAL)?;
        p.a.mov(al, byte_ptr(rax))
    })?;
    present(p, 13)?;
    p.case("#DF: #PF whose gate is not present", fault(8, 0), |p| {
        absent(p, 14)?;
        p.a.mov(rax, UNMAPPED)?;
        p.a.mov(al, byte_ptr(rax))
    })?;
    present(p, 14)?;
    p.case("#DF: #DE whose gate is not present, twice", fault(8, 0), |p| {
        absent(p, 0)?;
        absent(p, 11)?;
        p.a.xor(ecx, ecx)?;
        p.a.div(ecx)
    })?;
    present(p, 11)?;
    p.case("#NP: #DE whose gate is not present is contributory to nothing yet", fault(8, 0), |p| {
        p.a.xor(ecx, ecx)?;
        p.a.div(ecx)
    })?;
    present(p, 0)?;
    // The stack is not there: #PF while #PF is delivered. The double fault has a stack of its own.
    p.a.mov(byte_ptr(gate(8) + 4), 1)?;
    p.case(
        "#DF: #PF whose stack is not mapped",
        {
            let mut checks = fault(8, 0);
            checks.push(number("RSP of the handler", record::HANDLER_SP, u64::from(INTERRUPT_STACKS[0] - 48)));
            checks
        },
        |p| {
            p.a.mov(rsp, UNMAPPED)?;
            p.a.mov(rax, UNMAPPED + 0x1000)?;
            p.a.mov(al, byte_ptr(rax))
        },
    )?;
    p.case(
        "#PF: #UD whose stack is not mapped",
        {
            let mut checks = fault(14, 2);
            checks.push(number("CR2", record::CR2, UNMAPPED - 8));
            checks
        },
        |p| {
            p.a.mov(byte_ptr(gate(14) + 4), 1)?;
            p.a.mov(rsp, UNMAPPED)?;
            p.a.ud2()
        },
    )?;
    p.a.mov(byte_ptr(gate(14) + 4), 0)?;
    p.a.mov(byte_ptr(gate(8) + 4), 0)
}
