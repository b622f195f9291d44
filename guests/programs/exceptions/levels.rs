//! What level 3 may not do, and how it gets to level 0: SYSCALL and SYSENTER. SDM vol. 3 § 5.8.

use super::*;

/// What level 3 may not do.
pub(super) fn levels(p: &mut Program) -> Done {
    type Step = fn(&mut CodeAssembler) -> Done;
    let refused: [(&str, Step); 15] = [
        ("CLI", |a| a.cli()),
        ("STI", |a| a.sti()),
        ("HLT", |a| a.hlt()),
        ("IN", |a| a.in_(al, 0x60)),
        ("OUT", |a| a.out(0x80, al)),
        ("INVD", |a| a.invd()),
        ("WBINVD", |a| a.wbinvd()),
        ("CLTS", |a| a.clts()),
        ("LMSW", |a| a.lmsw(ax)),
        ("INVLPG", |a| a.invlpg(ptr(rax))),
        ("RDMSR", |a| a.rdmsr()),
        ("LLDT", |a| a.lldt(ax)),
        ("MOV to CR3", |a| a.mov(cr3, rax)),
        ("MOV from DR7", |a| a.mov(rax, dr7)),
        ("SWAPGS", |a| a.swapgs()),
    ];
    for (name, step) in refused {
        let at = p.user(64, step)?;
        let mut checks = fault(13, 0);
        checks.push(number("RIP", record::IP, at.into()));
        p.case(&format!("#GP: {name} at level 3"), checks, |p| p.enter_user(selector::USER_CODE_64, at, 2))?;
    }
    let flags = p.user(64, |a| {
        a.push(0x3202)?;
        a.popfq()?;
        a.int(RETURN_VECTOR)
    })?;
    p.case(
        "POPF at level 3 changes neither IF nor IOPL",
        vec![Check { what: "flags", at: record::FLAGS, mask: 0x3200, want: Want::Number(0) }],
        |p| p.enter_user(selector::USER_CODE_64, flags, 2),
    )?;
    p.case(
        "POPF at level 3 changes IF if IOPL is 3",
        vec![Check { what: "flags", at: record::FLAGS, mask: 0x3200, want: Want::Number(0x3200) }],
        |p| p.enter_user(selector::USER_CODE_64, flags, 0x3002),
    )?;
    let port = p.user(64, |a| {
        a.mov(edx, 0x3fd)?;
        a.in_(al, dx)?;
        a.int(RETURN_VECTOR)
    })?;
    p.case("IN at level 3 if IOPL is 3", vec![number("vector", record::VECTOR, RETURN_VECTOR.into())], |p| {
        p.enter_user(selector::USER_CODE_64, port, 0x3002)
    })?;
    let map = TSS + 104 + 0x3fd / 8;
    p.case(
        "IN at level 3 if the map of permissions lets it",
        vec![number("vector", record::VECTOR, RETURN_VECTOR.into())],
        |p| {
            p.a.mov(byte_ptr(map), 0xdf)?;
            p.enter_user(selector::USER_CODE_64, port, 2)
        },
    )?;
    let wide = p.user(64, |a| {
        a.mov(edx, 0x3fd)?;
        a.in_(ax, dx)
    })?;
    p.case("#GP: IN of a word of which the map lets one byte only", fault(13, 0), |p| {
        p.enter_user(selector::USER_CODE_64, wide, 2)
    })?;
    let aligned = p.user(64, |a| {
        a.mov(ebx, USER_STACK - 127)?;
        a.mov(eax, dword_ptr(rbx))?;
        a.int(RETURN_VECTOR)
    })?;
    p.case(
        "operands of level 3 need no alignment",
        vec![number("vector", record::VECTOR, RETURN_VECTOR.into())],
        |p| p.enter_user(selector::USER_CODE_64, aligned, 0x4_0002),
    )?;
    p.a.mov(rax, cr0)?;
    p.a.bts(eax, 18)?;
    p.a.mov(cr0, rax)?;
    p.case("#AC: once CR0.AM and AC are set they do", fault(17, 0), |p| {
        p.enter_user(selector::USER_CODE_64, aligned, 0x4_0002)
    })?;
    p.a.mov(rax, cr0)?;
    p.a.btr(eax, 18)?;
    p.a.mov(cr0, rax)
}

/// SYSCALL, SYSENTER and their returns.
pub(super) fn calls(p: &mut Program) -> Done {
    let star = u64::from(selector::CODE_64) << 32 | u64::from(selector::USER_CODE_32) << 48;
    p.write_msr(0xc000_0081, star)?;
    let entry = p.code(64, |a| {
        a.mov(qword_ptr(record::result(0)), rcx)?;
        a.mov(qword_ptr(record::result(1)), r11)?;
        a.mov(qword_ptr(record::result(2)), rsp)?;
        a.mov(eax, cs)?;
        a.mov(dword_ptr(record::result(3)), eax)?;
        a.mov(eax, ss)?;
        a.mov(dword_ptr(record::result(4)), eax)?;
        a.pushfq()?;
        a.pop(rax)?;
        a.mov(qword_ptr(record::result(5)), rax)?;
        a.sysretq()
    })?;
    p.write_msr(0xc000_0082, entry.into())?;
    p.write_msr(0xc000_0084, 0x4_0000)?;
    let user = p.user(64, |a| {
        a.syscall()?;
        a.int(RETURN_VECTOR)
    })?;
    p.case(
        "SYSCALL and SYSRET",
        vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            number("RCX", record::result(0), u64::from(user) + 2),
            number("R11", record::result(1), 0x4_0ed7),
            number("RSP", record::result(2), USER_STACK.into()),
            number("CS", record::result(3), selector::CODE_64.into()),
            number("SS", record::result(4), u64::from(selector::CODE_64) + 8),
            number("flags", record::result(5), 0xed7),
            number("CS afterwards", record::CS, selector::USER_CODE_64.into()),
            number("SS afterwards", record::SS, selector::USER_DATA.into()),
            number("flags afterwards", record::FLAGS, 0x4_0ed7),
            number("RIP afterwards", record::IP, u64::from(user) + 4),
        ],
        |p| p.enter_user(selector::USER_CODE_64, user, 0x4_0ed7),
    )?;
    let far = |p: &mut Program| p.a.mov(rcx, NOT_CANONICAL);
    p.when_intel(true, |p| faults(p, "#GP: SYSRET to where it is not canonical", 13, 0, far, |a| a.sysretq()))?;
    let mut checks = fault(13, 0);
    checks.push(number("RIP", record::IP, NOT_CANONICAL));
    checks.push(number("CS", record::CS, selector::USER_CODE_64.into()));
    p.when_intel(false, |p| {
        p.case("#GP: SYSRET to where it is not canonical, once it is there", checks, |p| {
            far(p)?;
            p.a.sysretq()
        })
    })?;
    p.case("#UD: SYSCALL while EFER.SCE is clear", fault(6, 0), |p| {
        p.read_msr(0xc000_0080)?;
        p.a.and(eax, !1)?;
        p.a.wrmsr()?;
        p.enter_user(selector::USER_CODE_64, user, 2)
    })?;
    p.read_msr(0xc000_0080)?;
    p.a.or(eax, 1)?;
    p.a.wrmsr()?;
    let enter = p.user(64, |a| a.sysenter())?;
    p.when_intel(false, |p| {
        p.case("#UD: SYSENTER in 64-bit mode", fault(6, 0), |p| p.enter_user(selector::USER_CODE_64, enter, 2))
    })?;
    p.when_intel(true, |p| sysenter(p, enter))
}

fn sysenter(p: &mut Program, enter: u32) -> Done {
    p.write_msr(0x174, 0)?;
    p.case("#GP: SYSENTER while its code segment is nothing", fault(13, 0), |p| {
        p.enter_user(selector::USER_CODE_64, enter, 2)
    })?;
    let arrival = p.code(64, |a| {
        a.mov(qword_ptr(record::result(0)), rsp)?;
        a.mov(eax, cs)?;
        a.mov(dword_ptr(record::result(1)), eax)?;
        a.mov(eax, ss)?;
        a.mov(dword_ptr(record::result(2)), eax)?;
        a.pushfq()?;
        a.pop(rax)?;
        a.mov(qword_ptr(record::result(3)), rax)?;
        a.int(RETURN_VECTOR)
    })?;
    p.write_msr(0x174, selector::CODE_64.into())?;
    p.write_msr(0x175, INTERRUPT_STACKS[0].into())?;
    p.write_msr(0x176, arrival.into())?;
    p.case(
        "SYSENTER",
        vec![
            number("vector", record::VECTOR, RETURN_VECTOR.into()),
            number("RSP", record::result(0), INTERRUPT_STACKS[0].into()),
            number("CS", record::result(1), selector::CODE_64.into()),
            number("SS", record::result(2), u64::from(selector::CODE_64) + 8),
            Check { what: "flags", at: record::result(3), mask: 0x2_0200, want: Want::Number(0) },
        ],
        |p| p.enter_user(selector::USER_CODE_64, enter, 0x202),
    )
}
