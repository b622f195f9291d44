//! How paging is tested, whatever its form: cases by the matrix of all rights and by chance, their rows for the program, and the
//! routine that goes through them. What the processor does not offer is left out by what CPUID says.
//!
//! The routine uses registers of 32 bits where it can, so that it is one text for code of 32 and of 64 bits.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::{RETURN_VECTOR, USER_STACK, record, selector, variable},
    paging_model::{
        A, AC, Access, D, FRAME, Format, Kind, LEVELS, NX, NXE, P, PKE, PS, RW, Random, SMAP, SMEP, US, WP,
    },
    program::{Program, dword},
};

/// A form of paging, and the mapping under test.
pub struct Form {
    pub format: Format,
    /// The address under test.
    pub linear: u64,
    /// The root of its tables.
    pub root: u32,
    /// Where its entries stand, from the root on: each in a table of its own.
    pub places: &'static [u32],
    /// What these are where a case does not say otherwise.
    pub cr0: u32,
    pub cr4: u32,
    pub efer: u32,
}

/// CR0.PG.
const PAGING: u32 = 1 << 31;
pub const ALL: u64 = P | RW | US;
/// Data is there, behind the instruction.
const DATA_OFFSET: u32 = 8;

/// Offsets in a case's row.
mod row {
    use super::LEVELS;

    pub const CR0: u32 = 0;
    pub const CR4: u32 = 4;
    pub const EFER: u32 = 8;
    pub const PKRU: u32 = 12;
    pub const KIND: u32 = 16;
    pub const FLAGS: u32 = 20;
    pub const NEEDS: u32 = 24;
    pub const VECTOR: u32 = 28;
    pub const ENTRIES: u32 = 32;
    pub const AFTER: u32 = ENTRIES + 8 * LEVELS as u32;
    pub const CR2: u32 = AFTER + 8 * LEVELS as u32;
    pub const ERROR: u32 = CR2 + 8;
    pub const SIZE: u32 = ERROR + 8;
}

/// What a case needs of the processor.
mod needs {
    pub const NX: u32 = 1 << 0;
    pub const GIGABYTE: u32 = 1 << 1;
    pub const SMEP: u32 = 1 << 2;
    pub const SMAP: u32 = 1 << 3;
    pub const PKU: u32 = 1 << 4;
}

const AVAILABLE: u32 = variable::OWN;
const FAILED: u32 = variable::OWN + 4;
const LEFT_OUT: u32 = variable::OWN + 8;
const OUTER_CASE: u32 = variable::OWN + 12;
/// The row that is worked on, and the end of all.
const ROW: u32 = variable::OWN + 16;
const LIMIT: u32 = variable::OWN + 20;
/// Failures that are shown.
const SHOWN: u32 = 6;

impl Form {
    fn last(&self) -> usize {
        self.places.len() - 1
    }

    /// Bytes of an entry.
    const fn size(&self) -> u32 {
        self.format.entry_size()
    }

    /// Entries with all rights that lead to the frame, the last at level `last`; those behind it are never read.
    fn entries(&self, last: usize) -> [u64; LEVELS] {
        let mut entries = [0; LEVELS];
        for (level, entry) in entries.iter_mut().enumerate().take(self.places.len()) {
            let page = 1_u64 << self.format.shift(level);
            let rights = if self.format == Format::Pae && level == 0 { P } else { ALL };
            *entry = match self.places.get(level + 1) {
                Some(_) if level == last => FRAME & !(page - 1) | ALL | PS,
                Some(table) => u64::from(table & !0xfff) | rights,
                None => FRAME | ALL,
            };
        }
        entries
    }

    /// What is tested by every combination: rights of the last entry, at level `last`, and control bits, by access of
    /// supervisor and user.
    pub fn matrix(&self, last: usize) -> Vec<Access> {
        let mut cases = Vec::new();
        for bits in 0..1 << 8 {
            let bit = |index: u32, value: u64| if bits >> index & 1 != 0 { value } else { 0 };
            if self.size() == 4 && bits & 0b100_0100 != 0 {
                // There is no NX.
                continue;
            }
            for kind in [Kind::Read, Kind::Write, Kind::Execute] {
                for user in [false, true] {
                    let mut entries = self.entries(last);
                    entries[last] = entries[last] & !ALL | P | bit(0, RW) | bit(1, US) | bit(2, NX);
                    cases.push(Access {
                        format: self.format,
                        kind,
                        user,
                        cr0: self.cr0 | bit(3, WP.into()) as u32,
                        cr4: self.cr4 | bit(4, SMEP.into()) as u32 | bit(5, SMAP.into()) as u32,
                        efer: self.efer | bit(6, NXE.into()) as u32,
                        flags: 2 | bit(7, AC.into()) as u32,
                        pkru: 0,
                        entries,
                    });
                }
            }
        }
        cases
    }

    /// What is tested by chance: whole walks.
    pub fn chance(&self, seed: u64, count: usize) -> Vec<Access> {
        let mut random = Random(seed);
        (0..count).map(|_| self.by_chance(&mut random)).collect()
    }

    fn by_chance(&self, random: &mut Random) -> Access {
        let (wide, long) = (self.size() == 8, self.format.is_long());
        // Pages of two larger sizes, or of one.
        let larger = if long { 2 } else { 1 };
        let last = self.last() - if random.one_in(2) { 0 } else { 1 + random.next() as usize % larger };
        let mut entries = self.entries(last);
        for (level, entry) in entries.iter_mut().enumerate().take(last + 1) {
            if random.one_in(24) {
                *entry &= !P;
            }
            if self.format == Format::Pae && level == 0 {
                continue;
            }
            for bit in [RW, US] {
                if random.one_in(4) {
                    *entry &= !bit;
                }
            }
            for (bit, rarity, there) in
                [(A, 3, true), (1 << 9, 3, true), (NX, 8, wide), (1 << 51, 40, wide), (1 << 60, 30, wide && !long)]
            {
                if random.one_in(rarity) && there {
                    *entry |= bit;
                }
            }
            if level == last {
                if random.one_in(3) {
                    *entry |= D;
                }
                if long {
                    *entry |= (random.next() & 15) << 59;
                }
                if level < self.last() && random.one_in(8) {
                    *entry |= if wide { 1 << 13 } else { 1 << 21 };
                }
            } else if !self.format.may_be_page(level) && random.one_in(30) {
                *entry |= PS;
            }
        }
        let control = random.next();
        let bit = |index: u32, value: u32| if control >> index & 1 != 0 { value } else { 0 };
        let keys = if long { bit(7, PKE) & bit(8, PKE) } else { 0 };
        Access {
            format: self.format,
            kind: [Kind::Read, Kind::Write, Kind::Execute][random.next() as usize % 3],
            user: random.one_in(2),
            cr0: self.cr0 | bit(0, WP),
            cr4: self.cr4 | bit(1, SMEP) & bit(5, SMEP) | bit(2, SMAP) & bit(6, SMAP) | keys,
            efer: self.efer | if wide { bit(3, NXE) | bit(9, NXE) } else { 0 },
            flags: 2 | bit(4, AC),
            pkru: if keys != 0 { random.next() as u32 } else { 0 },
            entries,
        }
    }

    /// The row of a case, and what is to come of it.
    fn row(&self, access: &Access) -> Vec<u8> {
        let outcome = access.outcome();
        let gigabyte = access.format.is_long() && access.entries[self.places.len() - 3] & PS != 0;
        let mut needed = 0;
        for (when, need) in [
            (access.efer & NXE != 0, needs::NX),
            (gigabyte, needs::GIGABYTE),
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
        let address = self.linear + if access.kind == Kind::Execute { 0 } else { DATA_OFFSET.into() };
        let numbers = access.entries.into_iter().chain(outcome.entries).chain([address]);
        bytes.extend(numbers.flat_map(u64::to_le_bytes));
        bytes.extend(u64::from(outcome.fault.unwrap_or(0)).to_le_bytes());
        assert_eq!(bytes.len(), row::SIZE as usize, "a row");
        bytes
    }
}

/// The code that does the accesses, by their kind: for supervisors and for users.
#[derive(Clone, Copy)]
pub struct Accesses {
    supervisor: u32,
    user: u32,
}

/// Finds out what the processor offers, and puts the code of accesses where it can be run.
pub fn prepare(p: &mut Program) -> Result<Accesses, IcedError> {
    features(p)?;
    // INT 0x20, which ends a case, is what is executed.
    p.a.mov(dword_ptr(FRAME as u32 + 0x10), (0xcd | RETURN_VECTOR << 8) as i32)?;
    let bits = p.bits;
    let (mut supervisor, mut user) = ([0; 3], [0; 3]);
    for (index, kind) in [Kind::Read, Kind::Write, Kind::Execute].into_iter().enumerate() {
        supervisor[index] = p.code(bits, |a| access(a, bits, kind))?;
        user[index] = p.user(bits, |a| access(a, bits, kind))?;
    }
    Ok(Accesses { supervisor: p.dwords(&supervisor), user: p.dwords(&user) })
}

/// An access to what RBX or EBX points to.
fn access(a: &mut CodeAssembler, bits: u32, kind: Kind) -> Done {
    let data = byte_ptr(if bits == 64 { rbx + DATA_OFFSET } else { ebx + DATA_OFFSET });
    match kind {
        Kind::Read => a.mov(al, data)?,
        Kind::Write => a.mov(data, al)?,
        Kind::Execute if bits == 64 => a.jmp(rbx)?,
        Kind::Execute => a.jmp(ebx)?,
    }
    a.int(RETURN_VECTOR)
}

/// What CPUID offers of what cases need.
fn features(p: &mut Program) -> Done {
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

/// Cases of a form, which `run` goes through, as one case of the program.
pub fn group(p: &mut Program, name: &str, form: &Form, cases: &[Access], run: CodeLabel) -> Done {
    let bytes: Vec<u8> = cases.iter().flat_map(|access| form.row(access)).collect();
    let table = p.bytes(&bytes);
    p.case(&format!("{name}: {} cases", cases.len()), vec![dword("cases that failed", FAILED, 0)], |p| {
        p.a.mov(esi, table)?;
        p.a.mov(edi, table + bytes.len() as u32)?;
        p.a.call(run)
    })
}

/// Says how many cases there were that the processor has nothing for.
pub fn say_what_was_left_out(p: &mut Program) -> Done {
    p.print("left out, for what CPUID does not offer: ")?;
    p.a.mov(eax, dword_ptr(LEFT_OUT))?;
    p.a.call(p.routines.decimal)?;
    p.print("\r\n")
}

/// Loads EAX into a control register.
fn from_eax(p: &mut Program, register: AsmRegisterCr) -> Done {
    if p.bits == 64 { p.a.mov(register, rax) } else { p.a.mov(register, eax) }
}

fn control(p: &mut Program, register: AsmRegisterCr, value: u32) -> Done {
    p.a.mov(eax, value)?;
    from_eax(p, register)
}

/// Loads EFER with EAX, where there is one.
fn extended(p: &mut Program) -> Done {
    let absent = p.label();
    if p.bits == 32 {
        p.a.test(dword_ptr(AVAILABLE), needs::NX as i32)?;
        p.a.jz(absent)?;
    }
    p.a.mov(ecx, 0xc000_0080_u32)?;
    p.a.xor(edx, edx)?;
    p.a.wrmsr()?;
    p.at(absent)
}

/// Pushes EAX, and takes it for the flags.
fn flags(p: &mut Program) -> Done {
    if p.bits == 64 {
        p.a.push(rax)?;
        p.a.popfq()
    } else {
        p.a.push(eax)?;
        p.a.popfd()
    }
}

/// The routine that goes through rows of a form, from that at ESI up to EDI. It stands here, and is passed by.
pub fn routine(p: &mut Program, form: &Form, accesses: Accesses) -> Result<CodeLabel, IcedError> {
    let [run, over, next, done, left_out, no_keys, user, recover, bad, good, compare, many] =
        std::array::from_fn(|_| p.label());
    let table = p.dwords(&[0, 0, 0, 0]);
    let recovers = p.address_of(recover);
    let long = p.bits == 64;
    p.a.jmp(over)?;
    p.at(run)?;
    p.a.mov(dword_ptr(ROW), esi)?;
    p.a.mov(dword_ptr(LIMIT), edi)?;
    p.a.mov(eax, dword_ptr(recovers))?;
    p.a.mov(dword_ptr(table + 4), eax)?;
    p.a.mov(eax, dword_ptr(variable::CASE))?;
    p.a.mov(dword_ptr(OUTER_CASE), eax)?;
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
        for half in (0..form.size()).step_by(4) {
            p.a.mov(eax, dword_ptr(esi + (row::ENTRIES + 8 * level + half)))?;
            p.a.mov(dword_ptr(place + half), eax)?;
        }
    }
    p.a.mov(eax, dword_ptr(esi + row::EFER))?;
    extended(p)?;
    p.a.mov(eax, dword_ptr(esi + row::CR4))?;
    from_eax(p, cr4)?;
    p.a.bt(eax, PKE.trailing_zeros())?;
    p.a.jnc(no_keys)?;
    p.a.mov(eax, dword_ptr(esi + row::PKRU))?;
    p.a.xor(ecx, ecx)?;
    p.a.xor(edx, edx)?;
    p.a.wrpkru()?;
    p.at(no_keys)?;
    control(p, cr3, form.root)?;
    p.a.mov(eax, dword_ptr(esi + row::CR0))?;
    from_eax(p, cr0)?;
    if long {
        p.a.mov(rbx, form.linear)?;
    } else {
        p.a.mov(ebx, form.linear as u32)?;
    }
    p.a.mov(edi, dword_ptr(esi + row::FLAGS))?;
    p.a.movzx(ecx, byte_ptr(esi + row::KIND))?;
    p.a.cmp(byte_ptr(esi + (row::KIND + 1)), 0)?;
    p.a.jne(user)?;
    p.a.mov(edx, dword_ptr(ecx * 4 + accesses.supervisor))?;
    p.a.mov(eax, edi)?;
    flags(p)?;
    if long {
        p.a.jmp(rdx)?;
    } else {
        p.a.jmp(edx)?;
    }
    p.here(user)?;
    p.a.mov(edx, dword_ptr(ecx * 4 + accesses.user))?;
    p.a.mov(eax, u32::from(selector::USER_DATA))?;
    p.a.mov(ds, ax)?;
    p.a.push(i32::from(selector::USER_DATA))?;
    p.a.push(USER_STACK as i32)?;
    if long {
        p.a.push(rdi)?;
        p.a.push(i32::from(selector::USER_CODE_64))?;
        p.a.push(rdx)?;
        p.a.iretq()?;
    } else {
        p.a.push(edi)?;
        p.a.push(i32::from(selector::USER_CODE_32))?;
        p.a.push(edx)?;
        p.a.iretd()?;
    }

    p.at(recover)?;
    p.a.mov(eax, 2)?;
    flags(p)?;
    control(p, cr0, if long { form.cr0 } else { form.cr0 & !PAGING })?;
    control(p, cr4, form.cr4)?;
    p.a.mov(esi, dword_ptr(ROW))?;
    p.a.mov(eax, dword_ptr(record::VECTOR))?;
    p.a.cmp(eax, dword_ptr(esi + row::VECTOR))?;
    p.a.jne(bad)?;
    // Entries on the way to a fault may or may not be marked as accessed (§ 4.8).
    p.a.mov(ecx, -1)?;
    p.a.cmp(eax, 14)?;
    p.a.jne(compare)?;
    p.a.mov(ecx, !(A as i32))?;
    for (place, offset) in [(record::ERROR, row::ERROR), (record::CR2, row::CR2)] {
        for half in [0, 4] {
            p.a.mov(eax, dword_ptr(place + half))?;
            p.a.cmp(eax, dword_ptr(esi + (offset + half)))?;
            p.a.jne(bad)?;
        }
    }
    p.at(compare)?;
    for (level, place) in (0..).zip(form.places) {
        for half in (0..form.size()).step_by(4) {
            p.a.mov(eax, dword_ptr(place + half))?;
            p.a.xor(eax, dword_ptr(esi + (row::AFTER + 8 * level + half)))?;
            if half == 0 {
                p.a.and(eax, ecx)?;
            } else {
                p.a.test(eax, eax)?;
            }
            p.a.jnz(bad)?;
        }
    }
    p.at(good)?;
    p.a.add(dword_ptr(ROW), row::SIZE as i32)?;
    p.a.jmp(next)?;
    p.here(left_out)?;
    p.a.inc(dword_ptr(LEFT_OUT))?;
    p.a.jmp(good)?;
    p.at(bad)?;
    p.a.inc(dword_ptr(FAILED))?;
    p.a.cmp(dword_ptr(FAILED), SHOWN as i32)?;
    p.a.ja(many)?;
    show(p, form)?;
    p.at(many)?;
    p.a.jmp(good)?;
    p.at(done)?;
    p.a.mov(eax, dword_ptr(OUTER_CASE))?;
    p.a.mov(dword_ptr(variable::CASE), eax)?;
    p.a.mov(eax, form.efer | NXE)?;
    extended(p)?;
    p.a.ret()?;
    p.at(over)?;
    Ok(run)
}

/// Prints the row at ESI, and what was found.
fn show(p: &mut Program, form: &Form) -> Done {
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
        p.a.mov(eax, dword_ptr(esi + offset))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    for (name, address) in [(" found vector ", record::VECTOR), (" error ", record::ERROR), (" CR2 ", record::CR2)] {
        p.print(name)?;
        p.a.mov(eax, dword_ptr(address))?;
        p.a.call(p.routines.hexadecimal)?;
    }
    for (level, place) in (0..).zip(form.places) {
        p.print("\r\n    entry, expected, found ")?;
        for offset in [row::ENTRIES, row::AFTER] {
            for half in [4, 0] {
                p.a.mov(eax, dword_ptr(esi + (offset + 8 * level + half)))?;
                p.a.call(p.routines.hexadecimal)?;
            }
            p.print(" ")?;
        }
        for half in (0..form.size()).step_by(4).rev() {
            p.a.mov(eax, dword_ptr(place + half))?;
            p.a.call(p.routines.hexadecimal)?;
        }
    }
    p.print("\r\n")
}
