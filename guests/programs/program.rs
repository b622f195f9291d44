//! A test program while it is being written: code, data, descriptors, and how they become an image with a multiboot header.
//! Multiboot Specification 0.6.96; SDM vol. 3 ch. 3, 6 and 8.

use std::collections::HashMap;

use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction, code_asm::*};

use super::{
    Done,
    harness::{self, Routines},
    layout::{
        CODE, DATA, GDT, IDT, INNER_STACK, INTERRUPT_STACKS, LOAD, RETURN_VECTOR, SCRATCH, STACK, TABLES, TSS, USER,
        USER_STACK, record, selector, variable,
    },
};

/// What a case expects of a number in memory.
pub struct Check {
    pub what: &'static str,
    pub at: u32,
    pub mask: u64,
    pub want: Want,
}

/// A number that is expected.
#[derive(Clone, Copy)]
pub enum Want {
    Number(u64),
    /// The address of an instruction.
    At(CodeLabel),
}

/// No exception.
pub const NONE: u64 = 0xff;

/// A number is to be another.
pub fn number(what: &'static str, at: u32, want: u64) -> Check {
    Check { what, at, mask: u64::MAX, want: Want::Number(want) }
}

/// A number of 32 bits is to be another.
pub fn dword(what: &'static str, at: u32, want: u32) -> Check {
    Check { what, at, mask: u32::MAX.into(), want: Want::Number(want.into()) }
}

/// No exception is expected.
pub fn no_fault() -> Check {
    number("vector", record::VECTOR, NONE)
}

/// An exception is expected.
pub fn fault(vector: u8, error: u32) -> Vec<Check> {
    vec![number("vector", record::VECTOR, vector.into()), number("error code", record::ERROR, error.into())]
}

/// An exception is expected at an instruction.
pub fn fault_at(vector: u8, error: u32, at: CodeLabel) -> Vec<Check> {
    let mut checks = fault(vector, error);
    checks.push(Check { what: "instruction pointer", at: record::IP, mask: u64::MAX, want: Want::At(at) });
    checks
}

/// A descriptor from its fields; `limit` is the raw one of 20 bits, `attributes` the access byte and, from bit 12, the
/// upper flags.
pub const fn descriptor(base: u32, limit: u32, attributes: u16) -> u64 {
    let (base, limit, attributes) = (base as u64, limit as u64, attributes as u64);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (attributes & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (attributes >> 12) << 52
        | (base >> 24) << 56
}

/// A gate of a descriptor table: present, a 32- or 64-bit interrupt gate, for level 0.
pub const INTERRUPT_GATE: u8 = 0x8e;

#[derive(Clone, Copy)]
pub struct Gate {
    pub handler: CodeLabel,
    pub selector: u16,
    pub access: u8,
    /// Index in the interrupt stack table.
    pub stack: u8,
}

/// The program.
pub struct Program {
    pub a: CodeAssembler,
    pub bits: u32,
    pub routines: Routines,
    pub gdt: Vec<u64>,
    pub idt: Vec<Gate>,
    data: Vec<u8>,
    user: Vec<u8>,
    /// Labels as they were made, and as they are once they have a place.
    placed: HashMap<CodeLabel, CodeLabel>,
    /// Places in the data at which addresses of instructions stand.
    addresses: Vec<(usize, CodeLabel)>,
}

impl Program {
    /// A program in code of `bits`: 32 or 64.
    pub fn new(bits: u32) -> Result<Self, IcedError> {
        let mut a = CodeAssembler::new(bits)?;
        let routines = Routines::new(&mut a);
        let code = if bits == 64 { selector::CODE_64 } else { selector::CODE_32 };
        let idt =
            routines.stubs.iter().map(|&handler| Gate { handler, selector: code, access: INTERRUPT_GATE, stack: 0 });
        let mut idt: Vec<Gate> = idt.collect();
        idt[RETURN_VECTOR as usize].access = 0xee;
        let mut gdt = vec![0; usize::from(selector::END) / 8];
        gdt[1] = descriptor(0, 0xf_ffff, 0xc09b);
        gdt[2] = descriptor(0, 0xf_ffff, 0xa09b);
        gdt[3] = descriptor(0, 0xf_ffff, 0xc093);
        gdt[4] = descriptor(0, 0xf_ffff, 0xc0fb);
        gdt[5] = descriptor(0, 0xf_ffff, 0xc0f3);
        gdt[6] = descriptor(0, 0xf_ffff, 0xa0fb);
        gdt[7] = descriptor(TSS, 0x20ff, 0x0089);
        gdt[9] = descriptor(0, 0xffff, 0x009b);
        gdt[10] = descriptor(0, 0xffff, 0x0093);
        let mut program = Self {
            a,
            bits,
            routines,
            gdt,
            idt,
            data: Vec::new(),
            user: Vec::new(),
            addresses: Vec::new(),
            placed: HashMap::new(),
        };
        harness::prologue(&mut program)?;
        Ok(program)
    }

    /// Puts bytes into the data, on an 8-byte boundary; gives their address.
    pub fn bytes(&mut self, bytes: &[u8]) -> u32 {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = DATA + self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        at
    }

    /// Has the guest copy bytes to `to`, through ECX, ESI and EDI.
    pub fn copy(&mut self, bytes: &[u8], to: u32) -> Done {
        let from = self.bytes(bytes);
        self.a.mov(esi, from)?;
        self.a.mov(edi, to)?;
        self.a.mov(ecx, bytes.len() as u32)?;
        self.a.rep().movsb()
    }

    /// A text with its final zero.
    pub fn text(&mut self, text: &str) -> u32 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(&bytes)
    }

    pub fn dwords(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// What LGDT and LIDT take.
    pub fn pointer(&mut self, limit: u16, base: u32) -> u32 {
        let mut bytes = limit.to_le_bytes().to_vec();
        bytes.extend(u64::from(base).to_le_bytes());
        self.bytes(&bytes)
    }

    /// Where the address of an instruction stands, in 8 bytes.
    pub fn address_of(&mut self, label: CodeLabel) -> u32 {
        let at = self.bytes(&[0; 8]);
        self.addresses.push(((at - DATA) as usize, label));
        at
    }

    /// Code of any kind in the data; gives its address.
    pub fn code(&mut self, bits: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Result<u32, IcedError> {
        let at = self.bytes(&[]);
        let bytes = assemble(bits, at, write)?;
        Ok(self.bytes(&bytes))
    }

    /// Code that privilege level 3 may run; gives its address.
    pub fn user(&mut self, bits: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Result<u32, IcedError> {
        self.user.resize(self.user.len().next_multiple_of(16), 0xcc);
        let at = USER + self.user.len() as u32;
        self.user.extend(assemble(bits, at, write)?);
        Ok(at)
    }

    /// Defines a descriptor of a program's own; gives its selector.
    pub fn descriptor(&mut self, index: u16, value: u64) -> u16 {
        let at = selector::OWN + 8 * index;
        self.gdt[usize::from(at) / 8] = value;
        at
    }

    pub fn label(&mut self) -> CodeLabel {
        self.a.create_label()
    }

    /// Puts a label before the next instruction.
    pub fn here(&mut self, label: CodeLabel) -> Done {
        let mut placed = label;
        self.a.set_label(&mut placed)?;
        self.placed.insert(label, placed);
        Ok(())
    }

    /// Puts a label here, whatever follows.
    pub fn at(&mut self, label: CodeLabel) -> Done {
        self.here(label)?;
        self.a.nop()
    }

    /// Prints a text.
    pub fn print(&mut self, text: &str) -> Done {
        let text = self.text(text);
        self.a.mov(eax, text)?;
        self.a.call(self.routines.text)
    }

    /// A case: `body` runs, and whether it ends in an exception or not, `checks` are then done.
    pub fn case(&mut self, name: &str, checks: Vec<Check>, body: impl FnOnce(&mut Self) -> Done) -> Done {
        self.begin(name, checks)?;
        body(self)?;
        self.finish()
    }

    fn begin(&mut self, name: &str, checks: Vec<Check>) -> Done {
        let name = self.text(name);
        let whats: Vec<u32> = checks.iter().map(|check| self.text(check.what)).collect();
        let table = self.dwords(&[name, 0, checks.len() as u32, 0]);
        let recover = self.label();
        self.addresses.push(((table - DATA) as usize + 4, recover));
        for (check, what) in checks.into_iter().zip(whats) {
            let want = match check.want {
                Want::Number(number) => number & check.mask,
                Want::At(_) => 0,
            };
            let mask = check.mask;
            let row = [what, check.at, mask as u32, (mask >> 32) as u32, want as u32, (want >> 32) as u32];
            let row = self.dwords(&row);
            if let Want::At(label) = check.want {
                self.addresses.push(((row - DATA) as usize + 16, label));
            }
        }
        self.routines.recover = Some(recover);
        self.a.mov(dword_ptr(variable::CASE), table as i32)?;
        self.a.mov(dword_ptr(variable::RECOVER_SP), esp)?;
        self.a.call(self.routines.begin)
    }

    fn finish(&mut self) -> Done {
        if let Some(recover) = self.routines.recover.take() {
            self.at(recover)?;
        }
        self.a.call(self.routines.finish)
    }

    /// Does something if the processor is of Intel's make, or if it is not: some faults differ.
    pub fn when_intel(&mut self, intel: bool, what: impl FnOnce(&mut Self) -> Done) -> Done {
        let other = self.label();
        self.a.xor(eax, eax)?;
        self.a.cpuid()?;
        self.a.cmp(ebx, i32::from_le_bytes(*b"Genu"))?;
        if intel {
            self.a.jne(other)?;
        } else {
            self.a.je(other)?;
        }
        what(self)?;
        self.at(other)
    }

    /// Stores a register of 32 bits as a result.
    pub fn keep(&mut self, index: u32, register: AsmRegister32) -> Done {
        self.a.mov(dword_ptr(record::result(index)), register)
    }

    /// Goes to `address` at privilege level 3, with `flags`.
    pub fn enter_user(&mut self, code: u16, address: u32, flags: u32) -> Done {
        for word in [selector::USER_DATA.into(), USER_STACK, flags, code.into(), address] {
            self.a.push(word as i32)?;
        }
        if self.bits == 64 { self.a.iretq() } else { self.a.iretd() }
    }

    /// Reads an MSR into EDX:EAX.
    pub fn read_msr(&mut self, msr: u32) -> Done {
        self.a.mov(ecx, msr)?;
        self.a.rdmsr()
    }

    pub fn write_msr(&mut self, msr: u32, value: u64) -> Done {
        self.a.mov(ecx, msr)?;
        self.a.mov(eax, value as u32)?;
        self.a.mov(edx, (value >> 32) as u32)?;
        self.a.wrmsr()
    }

    /// Says how it went, and ends.
    pub fn end(mut self) -> Result<Vec<u8>, IcedError> {
        harness::verdict(&mut self)?;
        harness::routines(&mut self)?;
        self.link()
    }

    fn link(mut self) -> Result<Vec<u8>, IcedError> {
        let user_at = self.bytes(&[]);
        let user = std::mem::take(&mut self.user);
        self.bytes(&user);
        let start = self.start(user_at, user.len() as u32)?;
        let result = self.a.assemble_options(CODE.into(), BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let code = result.inner.code_buffer.clone();
        assert!(code.len() < (DATA - CODE) as usize, "{} bytes of code", code.len());
        let place = |label: &CodeLabel| {
            let placed = self.placed.get(label).unwrap_or(label);
            Ok::<u32, IcedError>(result.label_ip(placed)? as u32)
        };
        let mut image = vec![0; (DATA - LOAD) as usize];
        let put = |image: &mut Vec<u8>, at: u32, bytes: &[u8]| {
            image[(at - LOAD) as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        for (at, label) in &self.addresses {
            // Below 4 GiB: what follows the lower half is not touched.
            let address = place(label)?;
            self.data[*at..at + 4].copy_from_slice(&address.to_le_bytes());
        }
        put(&mut image, LOAD, &start);
        put(&mut image, CODE, &code);
        for (index, descriptor) in self.gdt.iter().enumerate() {
            put(&mut image, GDT + 8 * index as u32, &descriptor.to_le_bytes());
        }
        for (index, gate) in (0..).zip(&self.idt) {
            let handler = place(&gate.handler)?;
            let low = handler & 0xffff | u32::from(gate.selector) << 16;
            let high = handler & 0xffff_0000 | u32::from(gate.access) << 8 | u32::from(gate.stack);
            let size = if self.bits == 64 { 16 } else { 8 };
            put(&mut image, IDT + size * index, &low.to_le_bytes());
            put(&mut image, IDT + size * index + 4, &high.to_le_bytes());
        }
        self.task_state(&mut |at, bytes| put(&mut image, at, bytes));
        tables(&mut |at, value| put(&mut image, at, &value.to_le_bytes()));
        image.extend(&self.data);
        assert!(image.len() < (USER - LOAD) as usize, "{} bytes", image.len());
        Ok(image)
    }

    fn task_state(&self, put: &mut impl FnMut(u32, &[u8])) {
        let mut word = |at: u32, value: u32| put(TSS + at, &value.to_le_bytes());
        if self.bits == 64 {
            word(4, INNER_STACK);
            for (index, stack) in (0..).zip(INTERRUPT_STACKS) {
                word(36 + 8 * index, stack);
            }
        } else {
            word(4, INNER_STACK);
            word(8, selector::DATA.into());
        }
        // Behind the structure is the map of I/O permissions: ports 0 to 0xffff, all refused.
        word(100, 104 << 16);
        put(TSS + 104, &[0xff; 0x2001]);
    }

    /// Header, and code that sets up segments, paging and the stack.
    fn start(&mut self, user_at: u32, user_length: u32) -> Result<Vec<u8>, IcedError> {
        let flags = 1 << 16;
        let entry = LOAD + 0x20;
        let long = self.bits == 64;
        let (gdt, idt) = (self.pointer(selector::END - 1, GDT), self.pointer(if long { 0xfff } else { 0x7ff }, IDT));
        let end = DATA + self.data.len() as u32;
        let code = assemble(32, entry, |a| {
            a.cli()?;
            a.mov(dword_ptr(variable::LOADER_NUMBER), eax)?;
            a.mov(dword_ptr(variable::INFORMATION), ebx)?;
            a.lgdt(ptr(gdt))?;
            a.lidt(ptr(idt))?;
            a.mov(eax, u32::from(selector::DATA))?;
            for segment in [ds, es, fs, gs, ss] {
                a.mov(segment, ax)?;
            }
            a.mov(esp, STACK)?;
            a.cld()?;
            a.mov(esi, user_at)?;
            a.mov(edi, USER)?;
            a.mov(ecx, user_length.div_ceil(4))?;
            a.rep().movsd()?;
            // Native x87 errors, no emulation, SSE.
            a.mov(eax, cr0)?;
            a.and(eax, !0b1100)?;
            a.or(eax, 0b10_0010)?;
            a.mov(cr0, eax)?;
            a.mov(eax, cr4)?;
            a.or(eax, 0b110_0000_0000 | u32::from(long) << 5)?;
            a.mov(cr4, eax)?;
            if long {
                a.mov(eax, TABLES)?;
                a.mov(cr3, eax)?;
                a.mov(ecx, 0xc000_0080_u32)?;
                a.rdmsr()?;
                // SCE, LME and NXE.
                a.or(eax, 0x901)?;
                a.wrmsr()?;
                a.mov(eax, cr0)?;
                a.or(eax, 0x8000_0000_u32)?;
                a.mov(cr0, eax)?;
            }
            let code = if long { selector::CODE_64 } else { selector::CODE_32 };
            a.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, code, CODE)?)
        })?;
        let header =
            [0x1bad_b002, flags, 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags), LOAD, LOAD, end, end, entry];
        let bytes = header.iter().flat_map(|word| word.to_le_bytes());
        let all: Vec<u8> = bytes.chain(code).collect();
        assert!(all.len() < 0x1000, "the start is a page");
        Ok(all)
    }
}

/// Code by itself, for `address`.
pub fn assemble(bits: u32, address: u32, write: impl FnOnce(&mut CodeAssembler) -> Done) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    write(&mut a)?;
    a.assemble(address.into())
}

/// Page tables of 4 levels that map 4 GiB to themselves by pages of 2 MiB; only those of [`USER`] are for level 3.
fn tables(put: &mut impl FnMut(u32, u64)) {
    const PRESENT_WRITABLE_USER: u64 = 0b111;
    put(TABLES, u64::from(TABLES + 0x1000) | PRESENT_WRITABLE_USER);
    for gigabyte in 0..4_u32 {
        let directory = TABLES + 0x2000 + 0x1000 * gigabyte;
        put(TABLES + 0x1000 + 8 * gigabyte, u64::from(directory) | PRESENT_WRITABLE_USER);
        for index in 0..512 {
            let address = u64::from(gigabyte) << 30 | u64::from(index) << 21;
            let user = if address == USER.into() { 0b100 } else { 0 };
            put(directory + 8 * index, address | 1 << 7 | 0b011 | user);
        }
    }
}

const _: () = assert!(SCRATCH > USER_STACK, "what is free is behind the rest");
