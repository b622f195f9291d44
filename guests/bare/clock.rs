//! Date and time from the CMOS clock, and the rate of the time stamp counter against the interval timer.
//! Motorola MC146818A; Intel 231164 (8254).

use iced_x86::code_asm::*;

use super::{Done, Guest, variable};

/// Registers of the clock, in the order in which [`variable::TIME`] has them; the last is where PCs keep the century.
const REGISTERS: [u32; 7] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32];
const HOURS: i32 = 2;
/// Register A, whose top bit warns of an update; register B, with bits for 24 hours and for binary.
const REGISTER_A: u32 = 0x0a;
const REGISTER_B: u32 = 0x0b;
const HOURS_24: u32 = 1 << 1;
const BINARY: u32 = 1 << 2;

/// Ticks of the interval timer, 1193182 a second, in 10 ms.
const TICKS: u32 = 11_932;
/// How often the timer is looked at before it counts as absent.
const PATIENCE: u32 = 1 << 26;

impl Guest {
    pub fn show_time(&mut self) -> Done {
        self.print("clock: ")?;
        let read = self.routines.read_clock;
        let mut again = self.a.create_label();
        self.a.set_label(&mut again)?;
        // Two readings that agree are one moment.
        self.a.call(read)?;
        self.a.mov(rbx, rax)?;
        self.a.call(read)?;
        self.a.cmp(rax, rbx)?;
        self.a.jne(again)?;
        self.normalize_time()?;
        for (register, separator) in [(6, ""), (5, "-"), (4, "-"), (3, " "), (2, ":"), (1, ":"), (0, "\r\n")] {
            self.a.mov(al, byte_ptr(rbp + (variable::TIME + register)))?;
            self.a.call(self.routines.two_digits)?;
            if !separator.is_empty() {
                self.print(separator)?;
            }
        }
        Ok(())
    }

    /// Makes what was read binary, and hours count from 0 to 23.
    fn normalize_time(&mut self) -> Done {
        let a = &mut self.a;
        let [mut convert, mut binary, mut not_twelve, mut done] = std::array::from_fn(|_| a.create_label());
        a.mov(al, REGISTER_B)?;
        a.call(self.routines.cmos)?;
        a.movzx(ebx, al)?;
        // Half of the day, to R8.
        a.movzx(r8d, byte_ptr(rbp + (variable::TIME + HOURS)))?;
        a.and(byte_ptr(rbp + (variable::TIME + HOURS)), 0x7f)?;
        a.test(ebx, BINARY)?;
        a.jnz(binary)?;
        a.mov(ecx, REGISTERS.len() as u32)?;
        a.set_label(&mut convert)?;
        a.movzx(eax, byte_ptr(rbp + rcx + (variable::TIME - 1)))?;
        a.mov(edx, eax)?;
        a.shr(eax, 4)?;
        a.imul_3(eax, eax, 10)?;
        a.and(edx, 15)?;
        a.add(eax, edx)?;
        a.mov(byte_ptr(rbp + rcx + (variable::TIME - 1)), al)?;
        a.dec(ecx)?;
        a.jnz(convert)?;
        a.set_label(&mut binary)?;
        a.test(ebx, HOURS_24)?;
        a.jnz(done)?;
        a.mov(al, byte_ptr(rbp + (variable::TIME + HOURS)))?;
        a.cmp(al, 12)?;
        a.jne(not_twelve)?;
        a.xor(eax, eax)?;
        a.set_label(&mut not_twelve)?;
        a.and(r8d, 0x80)?;
        // 12 in the afternoon: bit 7 shifted down to bits 3 and 2.
        a.mov(edx, r8d)?;
        a.shr(edx, 4)?;
        a.shr(r8d, 5)?;
        a.add(eax, edx)?;
        a.add(eax, r8d)?;
        a.mov(byte_ptr(rbp + (variable::TIME + HOURS)), al)?;
        a.set_label(&mut done)?;
        a.nop()
    }

    /// Counts the time stamp while channel 2 of the interval timer counts 10 ms.
    pub fn show_tsc_rate(&mut self) -> Done {
        self.print("tsc: ")?;
        // Gate and speaker off; mode 0, both bytes.
        self.out(0x61, 0)?;
        self.out(0x43, 0xb0)?;
        self.out(0x42, TICKS & 0xff)?;
        self.out(0x42, TICKS >> 8)?;
        self.out(0x61, 1)?;
        let a = &mut self.a;
        let [mut wait, mut over, mut unknown, mut end] = std::array::from_fn(|_| a.create_label());
        a.rdtsc()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.mov(rbx, rax)?;
        a.mov(ecx, PATIENCE)?;
        a.set_label(&mut wait)?;
        a.in_(al, 0x61)?;
        // The output of channel 2.
        a.test(al, 0x20)?;
        a.jnz(over)?;
        a.dec(ecx)?;
        a.jnz(wait)?;
        a.jmp(unknown)?;
        a.set_label(&mut over)?;
        a.rdtsc()?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)?;
        a.sub(rax, rbx)?;
        // A hundredth of a second to MHz.
        a.xor(edx, edx)?;
        a.mov(ecx, 10_000)?;
        a.div(rcx)?;
        self.print_decimal()?;
        self.print(" MHz\r\n")?;
        self.a.jmp(end)?;
        self.a.set_label(&mut unknown)?;
        self.print("unknown\r\n")?;
        self.a.set_label(&mut end)?;
        self.a.nop()
    }

    pub fn clock_routines(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        a.set_label(&mut routines.cmos)?;
        a.out(0x70, al)?;
        a.in_(al, 0x71)?;
        a.ret()?;

        let mut wait = routines.read_clock;
        a.set_label(&mut wait)?;
        a.mov(al, REGISTER_A)?;
        a.call(routines.cmos)?;
        a.test(al, 0x80)?;
        a.jnz(wait)?;
        for (i, register) in REGISTERS.into_iter().enumerate() {
            a.mov(al, register)?;
            a.call(routines.cmos)?;
            a.mov(byte_ptr(rbp + (variable::TIME + i as i32)), al)?;
        }
        a.mov(rax, qword_ptr(rbp + variable::TIME))?;
        a.ret()
    }
}
