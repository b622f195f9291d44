//! Paging of 32-bit code, in both its forms: two levels of 32-bit entries, and three of 64-bit entries, against the model in
//! `paging_model.rs`. SDM vol. 3 § 4.3 and 4.4.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, SCRATCH, USER, USER_STACK, record, selector, variable},
    paging::{AVAILABLE, DATA_OFFSET, FAILED, LEFT_OUT, features, row, row_for, show},
    paging_model::{A, AC, Access, D, FRAME, Format, Kind, NX, NXE, P, PS, RW, Random, SMAP, SMEP, US, WP},
    program::{Program, dword},
};

const ROOT: u32 = SCRATCH;
const ALL: u64 = P | RW | US;
const BASE_CR0: u32 = 0x33;
const BASE_EFER: u32 = 0;
const PAGING: u32 = 1 << 31;

/// One of the two forms.
#[derive(Clone, Copy)]
struct Form {
    format: Format,
    /// The address under test.
    linear: u32,
    /// Where its entries stand, from the root on.
    places: &'static [u32],
    /// Bytes of an entry.
    size: u32,
    cr4: u32,
}

const LEGACY: Form = Form {
    format: Format::Legacy,
    linear: 0xc020_4010,
    places: &[ROOT + 4 * 0x300, ROOT + 0x1000 + 4 * 0x204],
    size: 4,
    cr4: 0x610,
};

const PAE: Form = Form {
    format: Format::Pae,
    linear: 0xc000_4010,
    places: &[ROOT + 8 * 3, ROOT + 0x2000, ROOT + 0x3000 + 8 * 4],
    size: 8,
    cr4: 0x620,
};

impl Form {
    /// Entries with all rights; large or not.
    fn entries(self, large: bool) -> [u64; 4] {
        let frame = |bits: u32| FRAME & !((1 << bits) - 1) | ALL | PS;
        match (self.format, large) {
            (Format::Legacy, false) => [u64::from(ROOT + 0x1000) | ALL, FRAME | ALL, 0, 0],
            (Format::Legacy, true) => [frame(22), 0, 0, 0],
            (_, false) => [u64::from(ROOT + 0x2000) | P, u64::from(ROOT + 0x3000) | ALL, FRAME | ALL, 0],
            (_, true) => [u64::from(ROOT + 0x2000) | P, frame(21), 0, 0],
        }
    }

    fn last(self, large: bool) -> usize {
        self.places.len() - 1 - usize::from(large)
    }
}

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(32)?;
    features(&mut p)?;
    p.a.mov(dword_ptr(FRAME as u32 + 0x10), (0xcd | RETURN_VECTOR << 8) as i32)?;
    let stubs = [
        p.user(32, |a| {
            a.mov(al, byte_ptr(ebx + DATA_OFFSET))?;
            a.int(RETURN_VECTOR)
        })?,
        p.user(32, |a| {
            a.mov(byte_ptr(ebx + DATA_OFFSET), al)?;
            a.int(RETURN_VECTOR)
        })?,
        p.user(32, |a| a.jmp(ebx))?,
    ];
    let stubs = p.dwords(&stubs);
    for (name, form) in [("two levels", LEGACY), ("three levels", PAE)] {
        let (run, over) = (p.label(), p.label());
        p.a.jmp(over)?;
        p.at(run)?;
        engine(&mut p, form, stubs)?;
        p.at(over)?;
        tables(&mut p, form)?;
        for large in [false, true] {
            let kind = if large { "large" } else { "small" };
            group(&mut p, &format!("{name}, rights to {kind} pages"), form, &matrix(form, large), run)?;
        }
        for seed in 0..2 {
            group(&mut p, &format!("{name}, by chance, seed {seed}"), form, &chance(form, seed), run)?;
        }
    }
    p.print("left out, for what CPUID does not offer: ")?;
    p.a.mov(eax, dword_ptr(LEFT_OUT))?;
    p.a.call(p.routines.decimal)?;
    p.print("\r\n")?;
    p.end()
}

/// Tables that map the first 64 MiB to themselves by large pages; only the program's user page is for level 3.
fn tables(p: &mut Program, form: Form) -> Done {
    p.a.mov(edi, ROOT)?;
    p.a.xor(eax, eax)?;
    p.a.mov(ecx, 0x1000)?;
    p.a.rep().stosd()?;
    let (directory, size) = if form.size == 4 { (ROOT, 4) } else { (ROOT + 0x1000, 2) };
    if form.size == 8 {
        p.a.mov(dword_ptr(ROOT), (directory | 1) as i32)?;
    }
    for index in 0..64 / size {
        let address = (index * size) << 20;
        let user = if address == USER { US as u32 } else { 0 };
        p.a.mov(dword_ptr(directory + form.size * index), (address | (P | RW | PS) as u32 | user) as i32)?;
    }
    Ok(())
}

fn group(p: &mut Program, name: &str, form: Form, cases: &[Access], run: CodeLabel) -> Done {
    let bytes: Vec<u8> = cases.iter().flat_map(|access| row_for(access, form.linear.into())).collect();
    let table = p.bytes(&bytes);
    p.case(&format!("{name}: {} cases", cases.len()), vec![dword("cases that failed", FAILED, 0)], |p| {
        p.a.mov(esi, table)?;
        p.a.mov(edi, table + bytes.len() as u32)?;
        p.a.call(run)
    })
}

fn matrix(form: Form, large: bool) -> Vec<Access> {
    let mut cases = Vec::new();
    let last = form.last(large);
    for bits in 0..1 << 8 {
        let bit = |index: u32, value: u64| if bits >> index & 1 != 0 { value } else { 0 };
        if form.size == 4 && bits & 0b100_0100 != 0 {
            // There is no NX.
            continue;
        }
        for kind in [Kind::Read, Kind::Write, Kind::Execute] {
            for user in [false, true] {
                let mut entries = form.entries(large);
                entries[last] = entries[last] & !ALL | P | bit(0, RW) | bit(1, US) | bit(2, NX);
                cases.push(Access {
                    format: form.format,
                    kind,
                    user,
                    cr0: BASE_CR0 | bit(3, WP.into()) as u32,
                    cr4: form.cr4 | bit(4, SMEP.into()) as u32 | bit(5, SMAP.into()) as u32,
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

fn chance(form: Form, seed: u64) -> Vec<Access> {
    let mut random = Random(seed + 100);
    let mut cases = Vec::new();
    for _ in 0..600 {
        let large = random.one_in(2);
        let last = form.last(large);
        let mut entries = form.entries(large);
        for (level, entry) in entries.iter_mut().enumerate().take(last + 1) {
            if random.one_in(24) {
                *entry &= !P;
            }
            if form.size == 8 && level == 0 {
                continue;
            }
            for bit in [RW, US] {
                if random.one_in(4) {
                    *entry &= !bit;
                }
            }
            for (bit, rarity, wide) in
                [(A, 3, false), (1 << 9, 3, false), (NX, 8, true), (1 << 51, 30, true), (1 << 60, 30, true)]
            {
                if random.one_in(rarity) && (!wide || form.size == 8) {
                    *entry |= bit;
                }
            }
            if level == last && random.one_in(3) {
                *entry |= D;
            }
            if level == last && large && random.one_in(8) {
                *entry |= if form.size == 4 { 1 << 21 } else { 1 << 13 };
            }
        }
        let control = random.next();
        let bit = |index: u32, value: u32| if control >> index & 1 != 0 { value } else { 0 };
        cases.push(Access {
            format: form.format,
            kind: [Kind::Read, Kind::Write, Kind::Execute][random.next() as usize % 3],
            user: random.one_in(2),
            cr0: BASE_CR0 | bit(0, WP),
            cr4: form.cr4 | bit(1, SMEP) & bit(5, SMEP) | bit(2, SMAP) & bit(6, SMAP),
            efer: BASE_EFER | if form.size == 8 { bit(3, NXE) | bit(7, NXE) } else { 0 },
            flags: 2 | bit(4, AC),
            pkru: 0,
            entries,
        });
    }
    cases
}

/// Goes through the rows from ESI up to EDI; both are kept in memory meanwhile.
fn engine(p: &mut Program, form: Form, stubs: u32) -> Done {
    const ROW: u32 = variable::OWN + 0x40;
    const LIMIT: u32 = variable::OWN + 0x44;
    const OUTER: u32 = variable::OWN + 0x48;
    let [next, done, left_out, no_efer, user, read, write, recover, bad, good, compare, many] =
        std::array::from_fn(|_| p.label());
    let table = p.dwords(&[0, 0, 0, 0]);
    let recovers = p.address_of(recover);
    p.a.mov(dword_ptr(ROW), esi)?;
    p.a.mov(dword_ptr(LIMIT), edi)?;
    p.a.mov(eax, dword_ptr(recovers))?;
    p.a.mov(dword_ptr(table + 4), eax)?;
    p.a.mov(eax, dword_ptr(variable::CASE))?;
    p.a.mov(dword_ptr(OUTER), eax)?;
    p.a.mov(dword_ptr(variable::CASE), table as i32)?;
    p.a.mov(dword_ptr(variable::RECOVER_SP), esp)?;
    p.a.mov(dword_ptr(FAILED), 0)?;

    p.at(next)?;
    p.a.mov(esi, dword_ptr(ROW))?;
    p.a.cmp(esi, dword_ptr(LIMIT))?;
    p.a.jae(done)?;
    p.a.mov(eax, dword_ptr(esi + row::NEEDS))?;
    p.a.mov(ecx, eax)?;
    p.a.and(eax, dword_ptr(AVAILABLE))?;
    p.a.cmp(eax, ecx)?;
    p.a.jne(left_out)?;
    for (level, place) in (0..).zip(form.places) {
        for half in (0..form.size).step_by(4) {
            p.a.mov(eax, dword_ptr(esi + (row::ENTRIES + 8 * level + half)))?;
            p.a.mov(dword_ptr(place + half), eax)?;
        }
    }
    if form.size == 8 {
        p.a.test(dword_ptr(AVAILABLE), 1)?;
        p.a.jz(no_efer)?;
        p.a.mov(ecx, 0xc000_0080_u32)?;
        p.a.xor(edx, edx)?;
        p.a.mov(eax, dword_ptr(esi + row::EFER))?;
        p.a.wrmsr()?;
    }
    p.at(no_efer)?;
    p.a.mov(eax, dword_ptr(esi + row::CR4))?;
    p.a.mov(cr4, eax)?;
    p.a.mov(eax, ROOT)?;
    p.a.mov(cr3, eax)?;
    p.a.mov(eax, dword_ptr(esi + row::CR0))?;
    p.a.or(eax, PAGING)?;
    p.a.mov(cr0, eax)?;
    p.a.mov(ebx, form.linear)?;
    p.a.mov(ecx, dword_ptr(esi + row::KIND))?;
    p.a.bt(ecx, 8)?;
    p.a.jc(user)?;
    p.a.push(dword_ptr(esi + row::FLAGS))?;
    p.a.popfd()?;
    p.a.test(cl, cl)?;
    p.a.jz(read)?;
    p.a.cmp(cl, 1)?;
    p.a.je(write)?;
    p.a.jmp(ebx)?;
    p.here(read)?;
    p.a.mov(al, byte_ptr(ebx + DATA_OFFSET))?;
    p.a.int(RETURN_VECTOR)?;
    p.here(write)?;
    p.a.mov(byte_ptr(ebx + DATA_OFFSET), al)?;
    p.a.int(RETURN_VECTOR)?;
    p.here(user)?;
    p.a.movzx(ecx, cl)?;
    p.a.mov(edx, dword_ptr(ecx * 4 + stubs))?;
    p.a.mov(eax, u32::from(selector::USER_DATA))?;
    p.a.mov(ds, ax)?;
    p.a.push(i32::from(selector::USER_DATA))?;
    p.a.push(USER_STACK as i32)?;
    p.a.push(dword_ptr(esi + row::FLAGS).ss())?;
    p.a.push(i32::from(selector::USER_CODE_32))?;
    p.a.push(edx)?;
    p.a.iretd()?;

    p.at(recover)?;
    p.a.push(2)?;
    p.a.popfd()?;
    p.a.mov(eax, BASE_CR0)?;
    p.a.mov(cr0, eax)?;
    p.a.mov(eax, 0x600)?;
    p.a.mov(cr4, eax)?;
    p.a.mov(esi, dword_ptr(ROW))?;
    p.a.mov(eax, dword_ptr(record::VECTOR))?;
    p.a.cmp(eax, dword_ptr(esi + row::VECTOR))?;
    p.a.jne(bad)?;
    p.a.mov(ecx, -1)?;
    p.a.cmp(eax, 14)?;
    p.a.jne(compare)?;
    p.a.mov(ecx, !(A as i32))?;
    for (place, offset) in [(record::ERROR, row::ERROR), (record::CR2, row::CR2)] {
        p.a.mov(eax, dword_ptr(place))?;
        p.a.cmp(eax, dword_ptr(esi + offset))?;
        p.a.jne(bad)?;
    }
    p.at(compare)?;
    for (level, place) in (0..).zip(form.places) {
        p.a.mov(eax, dword_ptr(*place))?;
        p.a.xor(eax, dword_ptr(esi + (row::AFTER + 8 * level)))?;
        p.a.and(eax, ecx)?;
        p.a.jnz(bad)?;
    }
    p.at(good)?;
    p.a.add(dword_ptr(ROW), row::SIZE as i32)?;
    p.a.jmp(next)?;
    p.here(left_out)?;
    p.a.inc(dword_ptr(LEFT_OUT))?;
    p.a.jmp(good)?;
    p.at(bad)?;
    p.a.inc(dword_ptr(FAILED))?;
    p.a.cmp(dword_ptr(FAILED), 6)?;
    p.a.ja(many)?;
    show(p, esi, form.places)?;
    p.at(many)?;
    p.a.jmp(good)?;
    p.at(done)?;
    p.a.mov(eax, dword_ptr(OUTER))?;
    p.a.mov(dword_ptr(variable::CASE), eax)?;
    p.a.ret()
}
