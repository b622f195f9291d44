//! What the guest shows of its machine: processors by CPUID and the ACPI tables, and the map of memory.
//! SDM vol. 2 (CPUID); ACPI 5.0 § 5.2; Linux `Documentation/arch/x86/zero-page.rst`.

use iced_x86::code_asm::*;

use super::{Done, Guest, variable};

/// Offsets in the boot parameters.
const ROOT_POINTER: i32 = 0x70;
const E820_ENTRIES: i32 = 0x1e8;
const E820_TABLE: i32 = 0x2d0;

/// What kinds of memory are called; others have no name.
const KINDS: [(u32, &str); 4] = [(1, "usable"), (2, "reserved"), (3, "acpi"), (4, "nvs")];

impl Guest {
    pub fn show_processors(&mut self) -> Done {
        self.print("cpu vendor: ")?;
        self.a.xor(eax, eax)?;
        self.a.cpuid()?;
        for (i, register) in [ebx, edx, ecx].into_iter().enumerate() {
            self.a.mov(dword_ptr(rbp + (variable::TEXT + 4 * i as i32)), register)?;
        }
        self.a.mov(byte_ptr(rbp + (variable::TEXT + 12)), 0)?;
        self.print_variable_text()?;

        let mut unnamed = self.a.create_label();
        self.a.mov(eax, 0x8000_0000_u32)?;
        self.a.cpuid()?;
        self.a.cmp(eax, 0x8000_0004_u32 as i32)?;
        self.a.jb(unnamed)?;
        self.print("cpu name: ")?;
        for leaf in 0..3 {
            self.a.mov(eax, 0x8000_0002_u32 + leaf)?;
            self.a.cpuid()?;
            for (i, register) in [eax, ebx, ecx, edx].into_iter().enumerate() {
                let offset = variable::TEXT + 16 * leaf as i32 + 4 * i as i32;
                self.a.mov(dword_ptr(rbp + offset), register)?;
            }
        }
        self.a.mov(byte_ptr(rbp + (variable::TEXT + 48)), 0)?;
        self.print_variable_text()?;
        self.a.set_label(&mut unnamed)?;
        self.count_processors()
    }

    fn print_variable_text(&mut self) -> Done {
        self.a.lea(rsi, ptr(rbp + variable::TEXT))?;
        self.a.call(self.routines.text)?;
        self.print("\r\n")
    }

    /// Follows root pointer, XSDT and MADT, and counts the enabled local APICs and x2APICs in EBX.
    fn count_processors(&mut self) -> Done {
        let a = &mut self.a;
        let [mut table, mut entry, mut other, mut x2apic, mut counted, mut skip, mut end] =
            std::array::from_fn(|_| a.create_label());
        a.xor(ebx, ebx)?;
        a.mov(rax, qword_ptr(r15 + ROOT_POINTER))?;
        a.test(rax, rax)?;
        a.jz(end)?;
        a.cmp(byte_ptr(rax + 15), 2)?;
        a.jb(end)?;
        // § 5.2.5.3: the XSDT's address at 24, from revision 2 on. § 5.2.8: addresses of tables behind its header of 36 bytes.
        a.mov(r8, qword_ptr(rax + 24))?;
        a.test(r8, r8)?;
        a.jz(end)?;
        a.mov(r9d, dword_ptr(r8 + 4))?;
        a.add(r9, r8)?;
        a.add(r8, 36)?;
        a.set_label(&mut table)?;
        a.cmp(r8, r9)?;
        a.jae(end)?;
        a.mov(r10, qword_ptr(r8))?;
        a.add(r8, 8)?;
        a.cmp(dword_ptr(r10), i32::from_le_bytes(*b"APIC"))?;
        a.jne(table)?;
        // § 5.2.12: structures from 44 on, each with its type and length in front.
        a.mov(r11d, dword_ptr(r10 + 4))?;
        a.add(r11, r10)?;
        a.add(r10, 44)?;
        a.set_label(&mut entry)?;
        a.cmp(r10, r11)?;
        a.jae(end)?;
        a.movzx(eax, byte_ptr(r10))?;
        a.movzx(ecx, byte_ptr(r10 + 1))?;
        a.test(ecx, ecx)?;
        a.jz(end)?;
        a.cmp(eax, 9)?;
        a.je(x2apic)?;
        a.test(eax, eax)?;
        a.jnz(other)?;
        a.mov(eax, dword_ptr(r10 + 4))?;
        a.jmp(counted)?;
        a.set_label(&mut x2apic)?;
        a.mov(eax, dword_ptr(r10 + 8))?;
        a.set_label(&mut counted)?;
        a.test(eax, 1)?;
        a.jz(skip)?;
        a.inc(ebx)?;
        a.set_label(&mut skip)?;
        a.nop()?;
        a.set_label(&mut other)?;
        a.add(r10, rcx)?;
        a.jmp(entry)?;
        a.set_label(&mut end)?;
        a.nop()?;
        self.print("cpus: ")?;
        self.a.mov(eax, ebx)?;
        self.print_decimal()?;
        self.print("\r\n")
    }

    /// Shows each range of the map, and how much is usable together.
    pub fn show_memory(&mut self) -> Done {
        let (mut next, mut end) = (self.a.create_label(), self.a.create_label());
        let a = &mut self.a;
        a.movzx(ebx, byte_ptr(r15 + E820_ENTRIES))?;
        a.lea(r12, ptr(r15 + E820_TABLE))?;
        // What is usable adds up in R13.
        a.xor(r13d, r13d)?;
        a.set_label(&mut next)?;
        a.test(ebx, ebx)?;
        a.jz(end)?;
        self.print("memory: 0x")?;
        self.a.mov(rax, qword_ptr(r12))?;
        self.a.call(self.routines.hexadecimal)?;
        self.print("-0x")?;
        self.a.mov(rax, qword_ptr(r12))?;
        self.a.add(rax, qword_ptr(r12 + 8))?;
        self.a.dec(rax)?;
        self.a.call(self.routines.hexadecimal)?;
        self.print(" ")?;
        self.print_kind()?;
        self.print(" ")?;
        self.a.mov(rax, qword_ptr(r12 + 8))?;
        self.print_mebibytes()?;
        self.a.add(r12, 20)?;
        self.a.dec(ebx)?;
        self.a.jmp(next)?;
        self.a.set_label(&mut end)?;
        self.a.nop()?;
        self.print("memory usable: ")?;
        self.a.mov(rax, r13)?;
        self.print_mebibytes()
    }

    /// Prints RAX bytes, rounded down.
    fn print_mebibytes(&mut self) -> Done {
        self.a.shr(rax, 20)?;
        self.print_decimal()?;
        self.print(" MiB\r\n")
    }

    fn print_kind(&mut self) -> Done {
        let (mut usable, mut print) = (self.a.create_label(), self.a.create_label());
        let other = self.text("other");
        self.a.lea(rsi, ptr(other))?;
        self.a.mov(ecx, dword_ptr(r12 + 16))?;
        for (kind, name) in KINDS {
            let name = self.text(name);
            self.a.lea(rax, ptr(name))?;
            self.a.cmp(ecx, kind)?;
            self.a.cmove(rsi, rax)?;
        }
        self.a.cmp(ecx, KINDS[0].0)?;
        self.a.je(usable)?;
        self.a.jmp(print)?;
        self.a.set_label(&mut usable)?;
        self.a.add(r13, qword_ptr(r12 + 8))?;
        self.a.set_label(&mut print)?;
        self.a.call(self.routines.text)
    }
}
