//! What several processors see of each other's writes: litmus tests of the order of memory, atomic counters, and code that one
//! processor writes and another runs. SDM vol. 3 § 9.1 to 9.3 (order), 9.1.3 (cross-modifying code).

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{SCRATCH, record},
    processors::{COUNT, meet, run, start},
    program::{Program, dword, no_fault, number},
};

/// Each turn has a line of its own for each variable.
const TURNS: u32 = 4096;
const ROUNDS: u32 = 4;
const X: u32 = 0;
const Y: u32 = TURNS * 64;
/// What was read.
const R: [u32; 4] = [2 * Y, 2 * Y + 4, 2 * Y + 8, 2 * Y + 12];
const LINES: u32 = SCRATCH + 0x10_0000;

/// A turn of a processor; RDI points to its line.
type Turn = fn(&mut CodeAssembler) -> Done;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    start(&mut p)?;
    let (idle, over) = (p.label(), p.label());
    p.a.jmp(over)?;
    p.at(idle)?;
    p.a.ret()?;
    p.at(over)?;
    litmus_tests(&mut p, idle)?;
    counters(&mut p, idle)?;
    exclusion(&mut p, idle)?;
    cross_modifying(&mut p, idle)?;
    p.end()
}

fn store(a: &mut CodeAssembler, at: u32, value: i32) -> Done {
    a.mov(dword_ptr(rdi + at), value)
}

fn load(a: &mut CodeAssembler, at: u32, into: u32) -> Done {
    a.mov(eax, dword_ptr(rdi + at))?;
    a.mov(dword_ptr(rdi + into), eax)
}

fn load_two(a: &mut CodeAssembler, [first, second]: [u32; 2], into: [u32; 2]) -> Done {
    a.mov(eax, dword_ptr(rdi + first))?;
    a.mov(ecx, dword_ptr(rdi + second))?;
    a.mov(dword_ptr(rdi + into[0]), eax)?;
    a.mov(dword_ptr(rdi + into[1]), ecx)
}

fn litmus_tests(p: &mut Program, idle: CodeLabel) -> Done {
    let fences: [(&str, Turn); 10] = [
        ("MFENCE", |a| a.mfence()),
        ("a locked operation", |a| a.lock().add(dword_ptr(rsp - 4), 0)),
        ("XCHG", |a| a.xchg(dword_ptr(rsp - 4), eax)),
        ("CPUID", |a| {
            a.xor(eax, eax)?;
            a.cpuid()
        }),
        ("MOV to CR2", |a| a.mov(cr2, rdi)),
        ("INVLPG", |a| a.invlpg(ptr(rdi))),
        ("WRMSR", |a| {
            a.mov(ecx, 0xc000_0102_u32)?;
            a.xor(eax, eax)?;
            a.xor(edx, edx)?;
            a.wrmsr()
        }),
        ("OUT", |a| a.out(0x80, al)),
        ("WBINVD", |a| a.wbinvd()),
        ("IRET", |a| {
            let mut next = a.create_label();
            a.mov(rcx, rsp)?;
            a.push(0x18)?;
            a.push(rcx)?;
            a.push(2)?;
            a.push(0x10)?;
            a.lea(rax, ptr(next))?;
            a.push(rax)?;
            a.iretq()?;
            a.set_label(&mut next)?;
            a.nop()
        }),
    ];
    for (name, fence) in fences {
        let turn = |own: u32, other: u32, into: u32| {
            move |a: &mut CodeAssembler| {
                store(a, own, 1)?;
                fence(a)?;
                load(a, other, into)
            }
        };
        litmus(
            p,
            idle,
            &format!("store buffering with {name}"),
            &[&turn(X, Y, R[0]), &turn(Y, X, R[1])],
            &[(R[0], 0), (R[1], 0)],
        )?;
    }
    let both: Turn = |a| {
        store(a, X, 1)?;
        store(a, Y, 1)
    };
    litmus(
        p,
        idle,
        "message passing",
        &[&both, &|a: &mut CodeAssembler| load_two(a, [Y, X], [R[0], R[1]])],
        &[(R[0], 1), (R[1], 0)],
    )?;
    let buffers = |own: u32, other: u32, into: u32| {
        move |a: &mut CodeAssembler| {
            load(a, own, into)?;
            store(a, other, 1)
        }
    };
    litmus(p, idle, "load buffering", &[&buffers(X, Y, R[0]), &buffers(Y, X, R[1])], &[(R[0], 1), (R[1], 1)])?;
    let writes = |first: u32, second: u32| {
        move |a: &mut CodeAssembler| {
            store(a, first, 1)?;
            store(a, second, 2)
        }
    };
    litmus(p, idle, "2+2W", &[&writes(X, Y), &writes(Y, X)], &[(X, 1), (Y, 1)])?;
    litmus(
        p,
        idle,
        "reads of one place",
        &[&|a: &mut CodeAssembler| store(a, X, 1), &|a: &mut CodeAssembler| load_two(a, [X, X], [R[0], R[1]])],
        &[(R[0], 1), (R[1], 0)],
    )?;
    let s: Turn = |a| {
        store(a, X, 2)?;
        store(a, Y, 1)
    };
    let reads: Turn = |a| {
        load(a, Y, R[0])?;
        store(a, X, 1)
    };
    litmus(p, idle, "S", &[&s, &reads], &[(R[0], 1), (X, 2)])?;
    let forward: Turn = |a| {
        load(a, X, R[0])?;
        store(a, Y, 1)
    };
    litmus(
        p,
        idle,
        "write to read causality",
        &[&|a: &mut CodeAssembler| store(a, X, 1), &forward, &|a: &mut CodeAssembler| {
            load_two(a, [Y, X], [R[1], R[2]])
        }],
        &[(R[0], 1), (R[1], 1), (R[2], 0)],
    )?;
    litmus(
        p,
        idle,
        "independent reads of independent writes",
        &[
            &|a: &mut CodeAssembler| store(a, X, 1),
            &|a: &mut CodeAssembler| store(a, Y, 1),
            &|a: &mut CodeAssembler| load_two(a, [X, Y], [R[0], R[1]]),
            &|a: &mut CodeAssembler| load_two(a, [Y, X], [R[2], R[3]]),
        ],
        &[(R[0], 1), (R[1], 0), (R[2], 1), (R[3], 0)],
    )
}

/// Does something if there are that many processors.
fn with_processors(p: &mut Program, count: u32, what: impl FnOnce(&mut Program) -> Done) -> Done {
    let few = p.label();
    p.a.cmp(dword_ptr(COUNT), count as i32)?;
    p.a.jb(few)?;
    what(p)?;
    p.at(few)
}

/// Processors do their turns side by side; what is `forbidden`, numbers at places of a line, is never seen.
fn litmus(
    p: &mut Program,
    idle: CodeLabel,
    name: &str,
    turns: &[&dyn Fn(&mut CodeAssembler) -> Done],
    forbidden: &[(u32, i32)],
) -> Done {
    let count = turns.len() as u32;
    let (over, check, fine) = (p.label(), p.label(), p.label());
    let mut routines = Vec::new();
    p.a.jmp(over)?;
    for turn in turns {
        let (routine, again) = (p.label(), p.label());
        p.at(routine)?;
        p.a.mov(edi, LINES)?;
        p.a.mov(esi, TURNS)?;
        meet(p, count)?;
        p.at(again)?;
        turn(&mut p.a)?;
        p.a.add(rdi, 64)?;
        p.a.dec(esi)?;
        p.a.jnz(again)?;
        p.a.ret()?;
        routines.push(routine);
    }
    p.at(over)?;
    with_processors(p, count, |p| {
        p.case(name, vec![no_fault(), dword("forbidden outcomes", record::result(0), 0)], |p| {
            let round = p.label();
            p.a.mov(r12d, ROUNDS)?;
            p.at(round)?;
            p.a.mov(edi, LINES)?;
            p.a.xor(eax, eax)?;
            p.a.mov(ecx, 3 * Y / 4)?;
            p.a.rep().stosd()?;
            run(p, &routines, idle)?;
            p.a.mov(edi, LINES)?;
            p.a.mov(esi, TURNS)?;
            p.at(check)?;
            for (at, value) in forbidden {
                p.a.cmp(dword_ptr(rdi + *at), *value)?;
                p.a.jne(fine)?;
            }
            p.a.inc(dword_ptr(record::result(0)))?;
            p.at(fine)?;
            p.a.add(rdi, 64)?;
            p.a.dec(esi)?;
            p.a.jnz(check)?;
            p.a.dec(r12d)?;
            p.a.jnz(round)
        })
    })
}

/// Counters that all processors count at once are exact.
fn counters(p: &mut Program, idle: CodeLabel) -> Done {
    const TIMES: u32 = 10_000;
    let kinds: [(&str, u32, Turn); 9] = [
        ("LOCK INC", SCRATCH, |a| a.lock().inc(dword_ptr(rdi))),
        ("LOCK ADD of 64 bits", SCRATCH, |a| a.lock().add(qword_ptr(rdi), 1)),
        ("LOCK XADD", SCRATCH, |a| {
            a.mov(eax, 1)?;
            a.lock().xadd(dword_ptr(rdi), eax)
        }),
        ("LOCK SUB", SCRATCH, |a| a.lock().sub(dword_ptr(rdi), -1)),
        ("LOCK CMPXCHG", SCRATCH, |a| {
            let mut again = a.create_label();
            a.mov(eax, dword_ptr(rdi))?;
            a.set_label(&mut again)?;
            a.lea(ecx, ptr(rax + 1))?;
            a.lock().cmpxchg(dword_ptr(rdi), ecx)?;
            a.jne(again)
        }),
        ("LOCK CMPXCHG16B", SCRATCH, |a| {
            let mut again = a.create_label();
            a.mov(rax, qword_ptr(rdi))?;
            a.mov(rdx, qword_ptr(rdi + 8))?;
            a.set_label(&mut again)?;
            // Both halves count, the upper one down.
            a.lea(rbx, ptr(rax + 1))?;
            a.lea(rcx, ptr(rdx - 1))?;
            a.lock().cmpxchg16b(xmmword_ptr(rdi))?;
            a.jne(again)
        }),
        ("LOCK INC across two lines", SCRATCH + 0x3e, |a| a.lock().inc(dword_ptr(rdi))),
        ("LOCK INC across two pages", SCRATCH + 0xffe, |a| a.lock().inc(dword_ptr(rdi))),
        ("LOCK CMPXCHG across two pages", SCRATCH + 0xffc, |a| {
            let mut again = a.create_label();
            a.mov(rax, qword_ptr(rdi))?;
            a.set_label(&mut again)?;
            a.lea(rcx, ptr(rax + 1))?;
            a.lock().cmpxchg(qword_ptr(rdi), rcx)?;
            a.jne(again)
        }),
    ];
    for (name, place, turn) in kinds {
        for count in [2, 4] {
            let (routine, again, over) = (p.label(), p.label(), p.label());
            p.a.jmp(over)?;
            p.at(routine)?;
            p.a.mov(edi, place)?;
            p.a.mov(esi, TIMES)?;
            meet(p, count)?;
            p.at(again)?;
            turn(&mut p.a)?;
            p.a.dec(esi)?;
            p.a.jnz(again)?;
            p.a.ret()?;
            p.at(over)?;
            with_processors(p, count, |p| {
                let upper = if name.ends_with("16B") { u64::from(count * TIMES).wrapping_neg() } else { 0 };
                let checks = vec![
                    no_fault(),
                    number("counter", place, u64::from(count * TIMES)),
                    number("upper half", place + 8, upper),
                ];
                p.case(&format!("{name} on {count} processors"), checks, |p| {
                    for half in [0, 4, 8, 12] {
                        p.a.mov(dword_ptr(place + half), 0)?;
                    }
                    run(p, &vec![routine; count as usize], idle)
                })
            })?;
        }
    }
    Ok(())
}

/// A lock that is taken with XCHG and given back with a store keeps others out.
fn exclusion(p: &mut Program, idle: CodeLabel) -> Done {
    const TIMES: u32 = 2000;
    let [routine, again, taken, over] = std::array::from_fn(|_| p.label());
    p.a.jmp(over)?;
    p.at(routine)?;
    p.a.mov(esi, TIMES)?;
    meet(p, 2)?;
    p.at(again)?;
    p.a.mov(eax, 1)?;
    p.at(taken)?;
    p.a.pause()?;
    p.a.xchg(dword_ptr(SCRATCH + 64), eax)?;
    p.a.test(eax, eax)?;
    p.a.jnz(taken)?;
    p.a.mov(ecx, dword_ptr(SCRATCH))?;
    p.a.inc(ecx)?;
    p.a.mov(dword_ptr(SCRATCH), ecx)?;
    p.a.mov(dword_ptr(SCRATCH + 64), 0)?;
    p.a.dec(esi)?;
    p.a.jnz(again)?;
    p.a.ret()?;
    p.at(over)?;
    with_processors(p, 2, |p| {
        p.case("a lock by XCHG", vec![no_fault(), dword("counter", SCRATCH, 2 * TIMES)], |p| {
            p.a.mov(dword_ptr(SCRATCH), 0)?;
            p.a.mov(dword_ptr(SCRATCH + 64), 0)?;
            run(p, &[routine, routine], idle)
        })
    })
}

/// One processor writes code, another runs it after it heard of it and serialized itself.
fn cross_modifying(p: &mut Program, idle: CodeLabel) -> Done {
    const TIMES: u32 = 1000;
    // MOV EAX, number; RET. The number is across two pages in the second case.
    for (name, code) in
        [("code that another processor writes", SCRATCH + 0x100), ("the same across two pages", SCRATCH + 0x1ffd)]
    {
        let [writer, write, wait, runner, again, heard, right, over] = std::array::from_fn(|_| p.label());
        let (written, ran) = (SCRATCH + 0x4000, SCRATCH + 0x4040);
        p.a.jmp(over)?;
        p.at(writer)?;
        p.a.mov(esi, 1)?;
        p.at(write)?;
        p.a.mov(byte_ptr(code), 0xb8)?;
        p.a.mov(dword_ptr(code + 1), esi)?;
        p.a.mov(byte_ptr(code + 5), 0xc3)?;
        p.a.mov(dword_ptr(written), esi)?;
        p.at(wait)?;
        p.a.pause()?;
        p.a.cmp(dword_ptr(ran), esi)?;
        p.a.jne(wait)?;
        p.a.inc(esi)?;
        p.a.cmp(esi, TIMES as i32)?;
        p.a.jbe(write)?;
        p.a.ret()?;
        p.at(runner)?;
        p.a.mov(esi, 1)?;
        p.at(again)?;
        p.at(heard)?;
        p.a.pause()?;
        p.a.cmp(dword_ptr(written), esi)?;
        p.a.jne(heard)?;
        p.a.xor(eax, eax)?;
        p.a.cpuid()?;
        p.a.mov(edi, code)?;
        p.a.call(rdi)?;
        p.a.cmp(eax, esi)?;
        p.a.je(right)?;
        p.a.inc(dword_ptr(record::result(0)))?;
        p.at(right)?;
        p.a.inc(dword_ptr(record::result(1)))?;
        p.a.mov(dword_ptr(ran), esi)?;
        p.a.inc(esi)?;
        p.a.cmp(esi, TIMES as i32)?;
        p.a.jbe(again)?;
        p.a.ret()?;
        p.at(over)?;
        with_processors(p, 2, |p| {
            let checks = vec![
                no_fault(),
                dword("calls of what had been before", record::result(0), 0),
                dword("calls", record::result(1), TIMES),
            ];
            p.case(name, checks, |p| {
                p.a.mov(dword_ptr(written), 0)?;
                p.a.mov(dword_ptr(ran), 0)?;
                run(p, &[writer, runner], idle)
            })
        })?;
    }
    Ok(())
}
