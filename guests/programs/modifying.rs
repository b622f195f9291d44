//! Code that changes, code and operands that cross from one page to another, and operands in devices.
//! SDM vol. 3 § 9.1.3 (self-modifying code), 4.10 (translations); vol. 1 § 3.3.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{SCRATCH, TABLES, record},
    program::{Check, Program, Want, assemble, dword, fault, no_fault, number},
};

/// Page tables of this program's own: pages of 4 KiB at [`WINDOW`].
const TABLE: u32 = SCRATCH + 0x10_0000;
const WINDOW: u32 = 0x800_0000;
const FRAMES: u32 = SCRATCH + 0x20_0000;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    window(&mut p)?;
    changes(&mut p)?;
    crossings(&mut p)?;
    translations(&mut p)?;
    devices(&mut p)?;
    p.end()
}

/// Maps 8 pages at the window in the order of the frames, and no more.
fn window(p: &mut Program) -> Done {
    p.a.mov(edi, TABLE)?;
    p.a.xor(eax, eax)?;
    p.a.mov(ecx, 1024)?;
    p.a.rep().stosd()?;
    for page in 0..8 {
        map(p, page, Some(page))?;
    }
    p.a.mov(dword_ptr(TABLES + 0x2000 + 8 * (WINDOW >> 21)), (TABLE | 3) as i32)?;
    flush(p)
}

/// Maps a page of the window to a frame, or to none; what is known of it stays.
fn map(p: &mut Program, page: u32, frame: Option<u32>) -> Done {
    let entry = frame.map_or(0, |frame| (FRAMES + 0x1000 * frame) | 3);
    p.a.mov(dword_ptr(TABLE + 8 * page), entry as i32)
}

fn flush(p: &mut Program) -> Done {
    p.a.mov(rax, cr3)?;
    p.a.mov(cr3, rax)
}

/// Writes code to `address`, which is for there.
fn put(p: &mut Program, address: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Done {
    for (at, byte) in (address..).zip(assemble(64, address, write)?) {
        p.a.mov(byte_ptr(at), i32::from(byte))?;
    }
    Ok(())
}

fn call(p: &mut Program, address: u32) -> Done {
    p.a.mov(eax, address)?;
    p.a.call(rax)
}

/// Code that gives `value` in EAX.
fn gives(value: u32) -> impl FnOnce(&mut CodeAssembler) -> Done {
    move |a| {
        a.mov(eax, value)?;
        a.ret()
    }
}

fn changes(p: &mut Program) -> Done {
    let results = |values: &[u32]| {
        let mut checks = vec![no_fault()];
        checks.extend((0..).zip(values).map(|(index, value)| dword("result", record::result(index), *value)));
        checks
    };
    p.case("code that is written anew", results(&[1, 2]), |p| {
        for (index, value) in [(0, 1), (1, 2)] {
            put(p, WINDOW, gives(value))?;
            call(p, WINDOW)?;
            p.keep(index, eax)?;
        }
        Ok(())
    })?;
    p.case("the next instruction", results(&[7]), |p| {
        // MOV byte ptr [its own last operand], 7; MOV EAX, 1; RET.
        put(p, WINDOW, |a| {
            a.mov(byte_ptr(rbx), 7)?;
            a.mov(eax, 1)?;
            a.ret()
        })?;
        p.a.mov(ebx, WINDOW + 4)?;
        call(p, WINDOW)?;
        p.keep(0, eax)
    })?;
    p.case("an instruction of a loop, at each turn", results(&[55, 10]), |p| {
        // ADD EAX, number; INC byte ptr [number]; LOOP.
        put(p, WINDOW + 0x100, |a| {
            let mut again = a.create_label();
            a.xor(eax, eax)?;
            a.mov(byte_ptr(rbx), 1)?;
            a.set_label(&mut again)?;
            a.db(&[0x83, 0xc0, 1])?;
            a.inc(byte_ptr(rbx))?;
            a.inc(edx)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.ret()
        })?;
        p.a.mov(ebx, WINDOW + 0x100 + 2 + 3 + 2)?;
        p.a.mov(ecx, 10)?;
        p.a.xor(edx, edx)?;
        call(p, WINDOW + 0x100)?;
        p.keep(0, eax)?;
        p.keep(1, edx)
    })?;
    p.case("code that a string instruction writes", results(&[3]), |p| {
        put(p, WINDOW + 0x200, gives(2))?;
        call(p, WINDOW + 0x200)?;
        let new = assemble(64, 0, gives(3))?;
        let length = new.len() as u32;
        let new = p.bytes(&new);
        p.a.mov(esi, new)?;
        p.a.mov(edi, WINDOW + 0x200)?;
        p.a.mov(ecx, length)?;
        p.a.rep().movsb()?;
        call(p, WINDOW + 0x200)?;
        p.keep(0, eax)
    })?;
    p.case("code that is written by another address", results(&[1, 4]), |p| {
        put(p, WINDOW + 0x300, gives(1))?;
        call(p, WINDOW + 0x300)?;
        p.keep(0, eax)?;
        p.a.mov(byte_ptr(FRAMES + 0x301), 4)?;
        call(p, WINDOW + 0x300)?;
        p.keep(1, eax)
    })?;
    p.case("code that a push overwrites", results(&[9]), |p| {
        put(p, WINDOW + 0x400, gives(8))?;
        call(p, WINDOW + 0x400)?;
        p.a.mov(rcx, rsp)?;
        p.a.mov(rax, u64::from_le_bytes([0xb8, 9, 0, 0, 0, 0xc3, 0x90, 0x90]))?;
        p.a.mov(esp, WINDOW + 0x408)?;
        p.a.push(rax)?;
        p.a.mov(rsp, rcx)?;
        call(p, WINDOW + 0x400)?;
        p.keep(0, eax)
    })?;
    p.case("code that a locked operation changes", results(&[5, 6]), |p| {
        put(p, WINDOW + 0x500, gives(5))?;
        call(p, WINDOW + 0x500)?;
        p.keep(0, eax)?;
        p.a.lock().inc(byte_ptr(WINDOW + 0x501))?;
        call(p, WINDOW + 0x500)?;
        p.keep(1, eax)
    })
}

fn crossings(p: &mut Program) -> Done {
    for before in 1..6 {
        let at = WINDOW + 0x1000 - before;
        let checks = vec![
            no_fault(),
            dword("result", record::result(0), 0x1234_5678),
            dword("changed", record::result(1), 0x1234_56aa),
        ];
        p.case(&format!("an instruction with {before} bytes before the end of a page"), checks, |p| {
            put(p, at, gives(0x1234_5678))?;
            call(p, at)?;
            p.keep(0, eax)?;
            // On whichever page the operand is.
            p.a.mov(byte_ptr(at + 1), 0xaa)?;
            call(p, at)?;
            p.keep(1, eax)
        })?;
    }
    let at = WINDOW + 0x8000 - 3;
    let mut checks = fault(14, 0x10);
    checks.push(number("RIP", record::IP, at.into()));
    checks.push(number("CR2", record::CR2, (WINDOW + 0x8000).into()));
    p.case("#PF: an instruction whose second page is not there", checks, |p| {
        put(p, at, |a| a.db(&[0xb8, 1, 2]))?;
        p.a.mov(eax, at)?;
        p.a.jmp(rax)
    })?;
    p.case(
        "an instruction that ends with the last page that is there",
        vec![number("vector", record::VECTOR, 0x20)],
        |p| {
            put(p, WINDOW + 0x7ffe, |a| a.int(0x20))?;
            p.a.mov(eax, WINDOW + 0x7ffe)?;
            p.a.jmp(rax)
        },
    )?;
    let mut checks = fault(14, 2);
    checks.push(number("CR2", record::CR2, (WINDOW + 0x8000).into()));
    checks.push(dword("what is before", FRAMES + 0x7ffc, 0x1111_1111));
    p.case("#PF: a write whose second page is not there writes nothing", checks, |p| {
        p.a.mov(dword_ptr(WINDOW + 0x7ffc), 0x1111_1111)?;
        p.a.mov(ebx, WINDOW + 0x7ffe)?;
        p.a.mov(dword_ptr(rbx), -1)
    })?;
    let mut checks = fault(14, 2);
    checks.push(number("CR2", record::CR2, (WINDOW + 0x8000).into()));
    checks.push(dword("the last that could be written", FRAMES + 0x7ffc, 0x2222_2222));
    p.case("#PF: a string instruction has done what it could", checks, |p| {
        p.a.mov(edi, WINDOW + 0x7ff0)?;
        p.a.mov(ecx, 10)?;
        p.a.mov(eax, 0x2222_2222)?;
        p.a.rep().stosd()
    })?;
    for (name, offset, width) in [("2", 0xfff, 2), ("4", 0xffd, 4), ("8", 0xffb, 8), ("16", 0xff7, 16)] {
        let at = WINDOW + offset;
        let value = 0x1122_3344_5566_7788_u64;
        let mask = if width == 2 {
            0xffff
        } else if width == 4 {
            0xffff_ffff
        } else {
            u64::MAX
        };
        let checks = vec![no_fault(), number("result", record::result(0), value & mask)];
        p.case(&format!("an operand of {name} bytes across pages that are apart"), checks, |p| {
            // The second page is another frame than the next.
            map(p, 1, Some(6))?;
            flush(p)?;
            p.a.mov(rax, value)?;
            p.a.mov(ebx, at)?;
            match width {
                2 => p.a.mov(word_ptr(rbx), ax)?,
                4 => p.a.mov(dword_ptr(rbx), eax)?,
                8 => p.a.mov(qword_ptr(rbx), rax)?,
                _ => {
                    p.a.movq(xmm0, rax)?;
                    p.a.movups(xmmword_ptr(rbx), xmm0)?;
                }
            }
            map(p, 1, Some(1))?;
            flush(p)?;
            // Put together by hand from the two frames.
            for index in 0..width.min(8) {
                let place = offset + index;
                let frame = if place < 0x1000 { FRAMES + place } else { FRAMES + 0x6000 + place - 0x1000 };
                p.a.mov(al, byte_ptr(frame))?;
                p.a.mov(byte_ptr(record::result(0) + index), al)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// What a processor may still know of a translation, and what it must forget.
fn translations(p: &mut Program) -> Done {
    let checks = |first: u32, second: u32| {
        vec![no_fault(), dword("before", record::result(0), first), dword("afterwards", record::result(1), second)]
    };
    type Forget = fn(&mut Program) -> Done;
    let ways: [(&str, Forget); 3] = [
        ("INVLPG", |p| p.a.invlpg(ptr(WINDOW + 0x2000))),
        ("a load of CR3", flush),
        ("CR4.PGE", |p| {
            p.a.mov(rax, cr4)?;
            p.a.btc(rax, 7)?;
            p.a.mov(cr4, rax)?;
            p.a.btc(rax, 7)?;
            p.a.mov(cr4, rax)
        }),
    ];
    for (name, forget) in ways {
        p.case(&format!("{name} forgets where a page of data is"), checks(0x33, 0x44), |p| {
            map(p, 2, Some(3))?;
            flush(p)?;
            p.a.mov(dword_ptr(FRAMES + 0x3000), 0x33)?;
            p.a.mov(dword_ptr(FRAMES + 0x4000), 0x44)?;
            p.a.mov(eax, dword_ptr(WINDOW + 0x2000))?;
            p.keep(0, eax)?;
            map(p, 2, Some(4))?;
            forget(p)?;
            p.a.mov(eax, dword_ptr(WINDOW + 0x2000))?;
            p.keep(1, eax)
        })?;
        p.case(&format!("{name} forgets where a page of code is"), checks(3, 4), |p| {
            for frame in [3, 4] {
                map(p, 2, Some(frame))?;
                flush(p)?;
                put(p, WINDOW + 0x2000, gives(frame))?;
            }
            map(p, 2, Some(3))?;
            flush(p)?;
            call(p, WINDOW + 0x2000)?;
            p.keep(0, eax)?;
            map(p, 2, Some(4))?;
            forget(p)?;
            call(p, WINDOW + 0x2000)?;
            p.keep(1, eax)
        })?;
    }
    p.case("a page that comes to be there needs nothing forgotten", checks(0, 0x55), |p| {
        map(p, 2, None)?;
        p.a.invlpg(ptr(WINDOW + 0x2000))?;
        p.a.mov(dword_ptr(FRAMES + 0x5000), 0x55)?;
        map(p, 2, Some(5))?;
        p.a.mov(eax, dword_ptr(WINDOW + 0x2000))?;
        p.keep(1, eax)
    })?;
    p.case("INVLPG forgets a global page", checks(0x33, 0x44), |p| {
        p.a.mov(rax, cr4)?;
        p.a.bts(rax, 7)?;
        p.a.mov(cr4, rax)?;
        p.a.mov(dword_ptr(FRAMES + 0x3000), 0x33)?;
        p.a.mov(dword_ptr(FRAMES + 0x4000), 0x44)?;
        p.a.mov(dword_ptr(TABLE + 16), ((FRAMES + 0x3000) | 0x103) as i32)?;
        p.a.invlpg(ptr(WINDOW + 0x2000))?;
        p.a.mov(eax, dword_ptr(WINDOW + 0x2000))?;
        p.keep(0, eax)?;
        map(p, 2, Some(4))?;
        p.a.invlpg(ptr(WINDOW + 0x2000))?;
        p.a.mov(eax, dword_ptr(WINDOW + 0x2000))?;
        p.keep(1, eax)?;
        p.a.mov(rax, cr4)?;
        p.a.btr(rax, 7)?;
        p.a.mov(cr4, rax)
    })
}

/// Operands in devices, and partly so.
fn devices(p: &mut Program) -> Done {
    const APIC: u32 = 0xfee0_0000;
    // Page 3 is RAM, page 4 the local APIC.
    p.a.mov(dword_ptr(TABLE + 8 * 4), (APIC | 0x1b) as i32)?;
    flush(p)?;
    let task_priority = WINDOW + 0x4080;
    p.case(
        "instructions that read, change and write a register",
        vec![
            no_fault(),
            dword("after MOV", record::result(0), 0x10),
            dword("after ADD", record::result(1), 0x30),
            dword("after XCHG", record::result(2), 0x50),
            dword("what XCHG gave", record::result(3), 0x30),
            dword("after STOS and LODS", record::result(4), 0x40),
        ],
        |p| {
            p.a.mov(ebx, task_priority)?;
            p.a.mov(dword_ptr(rbx), 0x10)?;
            p.a.mov(eax, dword_ptr(rbx))?;
            p.keep(0, eax)?;
            p.a.add(dword_ptr(rbx), 0x20)?;
            p.a.mov(eax, dword_ptr(rbx))?;
            p.keep(1, eax)?;
            p.a.mov(eax, 0x50)?;
            p.a.xchg(dword_ptr(rbx), eax)?;
            p.keep(3, eax)?;
            p.a.mov(eax, dword_ptr(rbx))?;
            p.keep(2, eax)?;
            p.a.mov(eax, 0x40)?;
            p.a.mov(edi, ebx)?;
            p.a.stosd()?;
            p.a.mov(esi, ebx)?;
            p.a.lodsd()?;
            p.keep(4, eax)?;
            p.a.mov(dword_ptr(rbx), 0)
        },
    )?;
    p.case(
        "an operand that begins in RAM and ends in a device",
        vec![
            no_fault(),
            Check { what: "word", at: FRAMES + 0x3ffe, mask: 0xffff, want: Want::Number(0x7788) },
            dword("read again, the half in RAM", record::result(0), 0x7788),
        ],
        |p| {
            p.a.mov(ebx, WINDOW + 0x3ffe)?;
            p.a.mov(dword_ptr(rbx), 0x5566_7788)?;
            p.a.mov(eax, dword_ptr(rbx))?;
            p.a.movzx(eax, ax)?;
            p.keep(0, eax)
        },
    )?;
    p.case("locked operations on a register", vec![no_fault(), dword("result", record::result(0), 0x30)], |p| {
        p.a.mov(ebx, task_priority)?;
        p.a.mov(dword_ptr(rbx), 0x10)?;
        p.a.lock().or(dword_ptr(rbx), 0x20)?;
        p.a.mov(eax, dword_ptr(rbx))?;
        p.keep(0, eax)?;
        p.a.mov(dword_ptr(rbx), 0)
    })
}
