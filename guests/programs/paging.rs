//! Paging of four levels: every combination of rights, access and control bits that matters, and thousands by chance, against
//! the model in `paging_model.rs`. What the processor does not offer is left out by what CPUID says.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, TABLES, USER_STACK, record, selector, variable},
    paging_model::{A, AC, Access, D, FRAME, Format, Kind, NX, NXE, P, PKE, PS, RW, Random, SMAP, SMEP, US, WP},
    program::{Program, dword},
};

/// Where the mapping under test is: a number at each level, and an offset.
const LINEAR: u64 = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x10;
/// Data is there, behind the instruction.
pub const DATA_OFFSET: u32 = 8;
/// The tables below the root.
const POINTERS: u32 = SCRATCH;
const DIRECTORY: u32 = SCRATCH + 0x1000;
const TABLE: u32 = SCRATCH + 0x2000;
/// Where the four entries stand.
const PLACES: [u32; 4] = [TABLES + 8, POINTERS + 2 * 8, DIRECTORY + 3 * 8, TABLE + 4 * 8];

/// Offsets in a case's row.
pub mod row {
    pub const CR0: u32 = 0;
    pub const CR4: u32 = 4;
    pub const EFER: u32 = 8;
    pub const PKRU: u32 = 12;
    pub const KIND: u32 = 16;
    pub const FLAGS: u32 = 20;
    pub const NEEDS: u32 = 24;
    pub const VECTOR: u32 = 28;
    pub const ENTRIES: u32 = 32;
    pub const AFTER: u32 = 64;
    pub const CR2: u32 = 96;
    pub const ERROR: u32 = 104;
    pub const SIZE: u32 = 112;
}

/// What a case needs of the processor.
mod needs {
    pub const NX: u32 = 1 << 0;
    pub const GIGABYTE: u32 = 1 << 1;
    pub const SMEP: u32 = 1 << 2;
    pub const SMAP: u32 = 1 << 3;
    pub const PKU: u32 = 1 << 4;
}

pub const AVAILABLE: u32 = variable::OWN;
pub const FAILED: u32 = variable::OWN + 4;
pub const LEFT_OUT: u32 = variable::OWN + 8;
const OUTER_CASE: u32 = variable::OWN + 12;
const BASE_CR0: u32 = 0x8000_0033;
const BASE_CR4: u32 = 0x620;
const BASE_EFER: u32 = 0x501;
const ALL: u64 = P | RW | US;

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    features(&mut p)?;
    // INT 0x20, which ends a case, is what is executed.
    p.a.mov(dword_ptr(FRAME as u32 + 0x10), (0xcd | RETURN_VECTOR << 8) as i32)?;
    let stubs = [
        p.user(64, |a| {
            a.mov(al, byte_ptr(rbx + DATA_OFFSET))?;
            a.int(RETURN_VECTOR)
        })?,
        p.user(64, |a| {
            a.mov(byte_ptr(rbx + DATA_OFFSET), al)?;
            a.int(RETURN_VECTOR)
        })?,
        p.user(64, |a| a.jmp(rbx))?,
    ];
    let stubs = p.dwords(&stubs);
    let mut run = p.label();
    for (name, large) in [("4 KiB", 3), ("2 MiB", 2), ("1 GiB", 1)] {
        group(&mut p, &format!("rights to pages of {name}"), &matrix(large), run)?;
    }
    for seed in 0..4 {
        group(&mut p, &format!("walks by chance, seed {seed}"), &chance(seed), run)?;
    }
    p.print("left out, for what CPUID does not offer: ")?;
    p.a.mov(eax, dword_ptr(LEFT_OUT))?;
    p.a.call(p.routines.decimal)?;
    p.print("\r\n")?;
    let over = p.label();
    p.a.jmp(over)?;
    p.a.set_label(&mut run)?;
    engine(&mut p, stubs)?;
    p.at(over)?;
    p.end()
}

/// What CPUID offers of what cases need.
pub fn features(p: &mut Program) -> Done {
    for (leaf, register, bit, need) in [
        (0x8000_0001_u32, edx, 20, needs::NX),
        (0x8000_0001, edx, 26, needs::GIGABYTE),
        (7, ebx, 7, needs::SMEP),
        (7, ebx, 20, needs::SMAP),
        (7, ecx, 3, needs::PKU),
    ] {
        let absent = p.label();
        p.a.mov(eax, leaf & 0x8000_0000)?;
        p.a.cpuid()?;
        p.a.cmp(eax, leaf as i32)?;
        p.a.jb(absent)?;
        p.a.mov(eax, leaf)?;
        p.a.xor(ecx, ecx)?;
        p.a.cpuid()?;
        p.a.bt(register, bit)?;
        p.a.jnc(absent)?;
        p.a.or(dword_ptr(AVAILABLE), need as i32)?;
        p.at(absent)?;
    }
    Ok(())
}

fn group(p: &mut Program, name: &str, cases: &[Access], run: CodeLabel) -> Done {
    let bytes: Vec<u8> = cases.iter().flat_map(|access| row_for(access, LINEAR)).collect();
    let table = p.bytes(&bytes);
    let name = format!("{name}: {} cases", cases.len());
    p.case(&name, vec![dword("cases that failed", FAILED, 0)], |p| {
        p.a.mov(r12d, table)?;
        p.a.mov(r13d, table + bytes.len() as u32)?;
        p.a.call(run)
    })
}

/// What is tested, by access of supervisor and user to a page whose last entry is at level `large`.
fn matrix(last: usize) -> Vec<Access> {
    let mut cases = Vec::new();
    for bits in 0..1 << 8 {
        let bit = |index: u32, value: u64| if bits >> index & 1 != 0 { value } else { 0 };
        let leaf = P | bit(0, RW) | bit(1, US) | bit(2, NX);
        for kind in [Kind::Read, Kind::Write, Kind::Execute] {
            for user in [false, true] {
                let mut entries = entries_to(last);
                entries[last] = entries[last] & !ALL | leaf;
                cases.push(Access {
                    format: Format::Long,
                    kind,
                    user,
                    cr0: BASE_CR0 | bit(3, WP.into()) as u32,
                    cr4: BASE_CR4 | bit(4, SMEP.into()) as u32 | bit(5, SMAP.into()) as u32,
                    efer: BASE_EFER | bit(6, NXE.into()) as u32,
                    flags: 2 | bit(7, AC.into()) as u32,
                    pkru: 0,
                    entries,
                });
            }
        }
    }
    cases
}

/// Entries with all rights that lead to the frame, the last at level `last`; those behind it are never read.
fn entries_to(last: usize) -> [u64; 4] {
    let mut entries = [u64::from(POINTERS) | ALL, u64::from(DIRECTORY) | ALL, u64::from(TABLE) | ALL, FRAME | ALL];
    let page = 1_u64 << (12 + 9 * (3 - last));
    if last < 3 {
        entries[last] = FRAME & !(page - 1) | ALL | PS;
    }
    entries
}

fn chance(seed: u64) -> Vec<Access> {
    let mut random = Random(seed);
    let mut cases = Vec::new();
    for _ in 0..750 {
        let last = if random.one_in(2) { 3 } else { 1 + random.next() as usize % 2 };
        let mut entries = entries_to(last);
        for (level, entry) in entries.iter_mut().enumerate() {
            for (bit, rarity) in [(RW, 4), (US, 4), (P, 24)] {
                if random.one_in(rarity) {
                    *entry &= !bit;
                }
            }
            for (bit, rarity) in [(NX, 8), (A, 3), (1 << 51, 40), (1 << 9, 3)] {
                if random.one_in(rarity) {
                    *entry |= bit;
                }
            }
            if level == last {
                if random.one_in(3) {
                    *entry |= D;
                }
                *entry |= (random.next() & 15) << 59;
            }
            if level == 0 && random.one_in(30) {
                *entry |= PS;
            }
            if level == last && level < 3 && random.one_in(8) {
                *entry |= 1 << 13;
            }
        }
        let control = random.next();
        let bit = |index: u32, value: u32| if control >> index & 1 != 0 { value } else { 0 };
        cases.push(Access {
            format: Format::Long,
            kind: [Kind::Read, Kind::Write, Kind::Execute][random.next() as usize % 3],
            user: random.one_in(2),
            cr0: BASE_CR0 | bit(0, WP),
            cr4: BASE_CR4 | bit(1, SMEP) & bit(5, SMEP) | bit(2, SMAP) & bit(6, SMAP) | bit(7, PKE) & bit(8, PKE),
            efer: BASE_EFER | bit(3, NXE) | bit(9, NXE),
            flags: 2 | bit(4, AC),
            pkru: if control & 1 << 7 != 0 && control & 1 << 8 != 0 { random.next() as u32 } else { 0 },
            entries,
        });
    }
    cases
}

/// The row of a case: an access to `linear`, and what is to come of it.
pub fn row_for(access: &Access, linear: u64) -> Vec<u8> {
    let outcome = access.outcome();
    let mut needed = 0;
    for (when, need) in [
        (access.efer & NXE != 0, needs::NX),
        (access.format == Format::Long && access.entries[1] & PS != 0, needs::GIGABYTE),
        (access.cr4 & SMEP != 0, needs::SMEP),
        (access.cr4 & SMAP != 0, needs::SMAP),
        (access.cr4 & PKE != 0, needs::PKU),
    ] {
        needed |= if when { need } else { 0 };
    }
    let kind = access.kind as u32 | u32::from(access.user) << 8;
    let vector = if outcome.fault.is_some() { 14 } else { RETURN_VECTOR };
    let words = [access.cr0, access.cr4, access.efer, access.pkru, kind, access.flags, needed, vector];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let address = linear + if access.kind == Kind::Execute { 0 } else { DATA_OFFSET.into() };
    let numbers = access.entries.into_iter().chain(outcome.entries).chain([address]);
    bytes.extend(numbers.flat_map(u64::to_le_bytes));
    bytes.extend(u64::from(outcome.fault.unwrap_or(0)).to_le_bytes());
    assert_eq!(bytes.len(), row::SIZE as usize, "a row");
    bytes
}

/// Goes through the rows from R12 up to R13.
fn engine(p: &mut Program, stubs: u32) -> Done {
    let [next, done, left_out, no_keys, user, read, write, recover, bad, good, compare, many] =
        std::array::from_fn(|_| p.label());
    let table = p.dwords(&[0, 0, 0, 0]);
    let recovers = p.address_of(recover);
    p.a.mov(eax, dword_ptr(recovers))?;
    p.a.mov(dword_ptr(table + 4), eax)?;
    p.a.mov(eax, dword_ptr(variable::CASE))?;
    p.a.mov(dword_ptr(OUTER_CASE), eax)?;
    p.a.mov(dword_ptr(variable::CASE), table as i32)?;
    p.a.mov(dword_ptr(variable::RECOVER_SP), esp)?;
    p.a.mov(dword_ptr(FAILED), 0)?;
    p.a.mov(r15, cr3)?;

    p.here(next)?;
    p.a.cmp(r12, r13)?;
    p.a.jae(done)?;
    p.a.mov(eax, dword_ptr(r12 + row::NEEDS))?;
    p.a.mov(ecx, eax)?;
    p.a.and(eax, dword_ptr(AVAILABLE))?;
    p.a.cmp(eax, ecx)?;
    p.a.jne(left_out)?;
    for (level, place) in (0..).zip(PLACES) {
        p.a.mov(rax, qword_ptr(r12 + (row::ENTRIES + 8 * level)))?;
        p.a.mov(qword_ptr(place), rax)?;
    }
    p.a.mov(ecx, 0xc000_0080_u32)?;
    p.a.xor(edx, edx)?;
    p.a.mov(eax, dword_ptr(r12 + row::EFER))?;
    p.a.wrmsr()?;
    p.a.mov(eax, dword_ptr(r12 + row::CR4))?;
    p.a.mov(cr4, rax)?;
    p.a.bt(eax, 22)?;
    p.a.jnc(no_keys)?;
    p.a.mov(eax, dword_ptr(r12 + row::PKRU))?;
    p.a.xor(ecx, ecx)?;
    p.a.wrpkru()?;
    p.at(no_keys)?;
    p.a.mov(eax, dword_ptr(r12 + row::CR0))?;
    p.a.mov(cr0, rax)?;
    p.a.mov(cr3, r15)?;
    p.a.mov(rbx, LINEAR)?;
    p.a.mov(ecx, dword_ptr(r12 + row::KIND))?;
    p.a.bt(ecx, 8)?;
    p.a.jc(user)?;
    p.a.mov(eax, dword_ptr(r12 + row::FLAGS))?;
    p.a.push(rax)?;
    p.a.popfq()?;
    p.a.test(cl, cl)?;
    p.a.jz(read)?;
    p.a.cmp(cl, 1)?;
    p.a.je(write)?;
    p.a.jmp(rbx)?;
    p.here(read)?;
    p.a.mov(al, byte_ptr(rbx + DATA_OFFSET))?;
    p.a.int(RETURN_VECTOR)?;
    p.here(write)?;
    p.a.mov(byte_ptr(rbx + DATA_OFFSET), al)?;
    p.a.int(RETURN_VECTOR)?;
    p.here(user)?;
    p.a.movzx(ecx, cl)?;
    p.a.mov(edx, dword_ptr(rcx * 4 + stubs))?;
    p.a.mov(eax, dword_ptr(r12 + row::FLAGS))?;
    p.a.push(i32::from(selector::USER_DATA))?;
    p.a.push(USER_STACK as i32)?;
    p.a.push(rax)?;
    p.a.push(i32::from(selector::USER_CODE_64))?;
    p.a.push(rdx)?;
    p.a.iretq()?;

    p.at(recover)?;
    p.a.push(2)?;
    p.a.popfq()?;
    p.a.mov(eax, BASE_CR0)?;
    p.a.mov(cr0, rax)?;
    p.a.mov(eax, BASE_CR4)?;
    p.a.mov(cr4, rax)?;
    p.a.mov(eax, dword_ptr(record::VECTOR))?;
    p.a.cmp(eax, dword_ptr(r12 + row::VECTOR))?;
    p.a.jne(bad)?;
    // Entries on the way to a fault may or may not be marked as accessed (§ 4.8).
    p.a.mov(ecx, -1)?;
    p.a.cmp(eax, 14)?;
    p.a.jne(compare)?;
    p.a.mov(ecx, !(A as i32))?;
    p.a.mov(rax, qword_ptr(record::ERROR))?;
    p.a.cmp(rax, qword_ptr(r12 + row::ERROR))?;
    p.a.jne(bad)?;
    p.a.mov(rax, qword_ptr(record::CR2))?;
    p.a.cmp(rax, qword_ptr(r12 + row::CR2))?;
    p.a.jne(bad)?;
    p.at(compare)?;
    p.a.movsxd(rcx, ecx)?;
    for (level, place) in (0..).zip(PLACES) {
        p.a.mov(rax, qword_ptr(place))?;
        p.a.xor(rax, qword_ptr(r12 + (row::AFTER + 8 * level)))?;
        p.a.and(rax, rcx)?;
        p.a.jnz(bad)?;
    }
    p.at(good)?;
    p.a.add(r12, row::SIZE as i32)?;
    p.a.jmp(next)?;
    p.here(left_out)?;
    p.a.inc(dword_ptr(LEFT_OUT))?;
    p.a.jmp(good)?;

    p.at(bad)?;
    p.a.inc(dword_ptr(FAILED))?;
    p.a.cmp(dword_ptr(FAILED), 6)?;
    p.a.ja(many)?;
    show(p, r12d, &PLACES)?;
    p.at(many)?;
    p.a.jmp(good)?;
    p.at(done)?;
    p.a.mov(eax, dword_ptr(OUTER_CASE))?;
    p.a.mov(dword_ptr(variable::CASE), eax)?;
    p.write_msr(0xc000_0080, (BASE_EFER | NXE).into())?;
    p.a.ret()
}

/// Prints the row that `at` points to, and what was found.
pub fn show(p: &mut Program, at: AsmRegister32, places: &[u32]) -> Done {
    for (name, offset) in [
        ("  access ", row::KIND),
        (" CR0 ", row::CR0),
        (" CR4 ", row::CR4),
        (" EFER ", row::EFER),
        (" PKRU ", row::PKRU),
        (" flags ", row::FLAGS),
        (" expected vector ", row::VECTOR),
        (" error ", row::ERROR),
    ] {
        p.print(name)?;
        p.a.mov(eax, dword_ptr(at + offset))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    for (name, address) in [(" found vector ", record::VECTOR), (" error ", record::ERROR), (" CR2 ", record::CR2)] {
        p.print(name)?;
        p.a.mov(eax, dword_ptr(address))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    for (level, place) in (0..).zip(places) {
        p.print("\r\n    entry, expected, found ")?;
        for half in [4, 0] {
            p.a.mov(eax, dword_ptr(at + (row::ENTRIES + 8 * level + half)))?;
            p.a.call(p.routines.hexadecimal)?;
        }
        p.print(" ")?;
        for half in [4, 0] {
            p.a.mov(eax, dword_ptr(at + (row::AFTER + 8 * level + half)))?;
            p.a.call(p.routines.hexadecimal)?;
        }
        p.print(" ")?;
        for half in [4, 0] {
            p.a.mov(eax, dword_ptr(*place + half))?;
            p.a.call(p.routines.hexadecimal)?;
        }
    }
    p.print("\r\n")
}
