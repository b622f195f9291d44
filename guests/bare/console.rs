//! The console: the first serial port, and the printing of texts and numbers. National Semiconductor PC16550D.

use iced_x86::code_asm::*;

use super::{Done, Guest};

/// The port's first I/O port.
pub const COM1: u32 = 0x3f8;
/// Line status register, and its bits "data ready" and "transmitter holding register empty".
pub const LINE_STATUS: u32 = COM1 + 5;
pub const DATA_READY: u32 = 1 << 0;
const TRANSMITTER_EMPTY: u32 = 1 << 5;

impl Guest {
    /// Writes `value` to `port`.
    pub fn out(&mut self, port: u32, value: u32) -> Done {
        self.a.mov(edx, port)?;
        self.a.mov(eax, value)?;
        self.a.out(dx, al)
    }

    /// 115200 bits a second, 8 bits, no parity; FIFOs that interrupt at the first character; DTR, RTS and OUT2.
    pub fn initialize_console(&mut self) -> Done {
        let writes = [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0x07), (4, 0x0b)];
        writes.into_iter().try_for_each(|(register, value)| self.out(COM1 + register, value))
    }

    pub fn console_routines(&mut self) -> Done {
        self.character_routine()?;
        self.text_routine()?;
        self.decimal_routine()?;
        self.hexadecimal_routine()?;
        self.two_digits_routine()
    }

    fn character_routine(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        let mut wait = a.create_label();
        a.set_label(&mut routines.character)?;
        a.push(rdx)?;
        a.push(rax)?;
        a.mov(edx, LINE_STATUS)?;
        a.set_label(&mut wait)?;
        a.in_(al, dx)?;
        a.test(al, TRANSMITTER_EMPTY)?;
        a.jz(wait)?;
        a.mov(edx, COM1)?;
        a.pop(rax)?;
        a.out(dx, al)?;
        a.pop(rdx)?;
        a.ret()
    }

    fn text_routine(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        let mut end = a.create_label();
        a.set_label(&mut routines.text)?;
        a.lodsb()?;
        a.test(al, al)?;
        a.jz(end)?;
        a.call(routines.character)?;
        a.jmp(routines.text)?;
        a.set_label(&mut end)?;
        a.ret()
    }

    fn decimal_routine(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        let (mut divide, mut print) = (a.create_label(), a.create_label());
        a.set_label(&mut routines.decimal)?;
        a.xor(ecx, ecx)?;
        a.mov(edi, 10)?;
        a.set_label(&mut divide)?;
        a.xor(edx, edx)?;
        a.div(rdi)?;
        a.push(rdx)?;
        a.inc(ecx)?;
        a.test(rax, rax)?;
        a.jnz(divide)?;
        a.set_label(&mut print)?;
        a.pop(rax)?;
        a.add(al, u32::from(b'0'))?;
        a.call(routines.character)?;
        a.dec(ecx)?;
        a.jnz(print)?;
        a.ret()
    }

    fn hexadecimal_routine(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        let (mut digit, mut print) = (a.create_label(), a.create_label());
        a.set_label(&mut routines.hexadecimal)?;
        a.mov(rdi, rax)?;
        a.mov(ecx, 16)?;
        a.set_label(&mut digit)?;
        a.rol(rdi, 4)?;
        a.mov(eax, edi)?;
        a.and(eax, 15)?;
        a.add(al, u32::from(b'0'))?;
        a.cmp(al, u32::from(b'9'))?;
        a.jbe(print)?;
        a.add(al, u32::from(b'a' - b'9' - 1))?;
        a.set_label(&mut print)?;
        a.call(routines.character)?;
        a.dec(ecx)?;
        a.jnz(digit)?;
        a.ret()
    }

    fn two_digits_routine(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        a.set_label(&mut routines.two_digits)?;
        a.movzx(eax, al)?;
        a.mov(dl, 10)?;
        a.div(dl)?;
        // Quotient in AL, remainder in AH.
        a.add(ax, 0x3030)?;
        a.mov(ecx, eax)?;
        a.call(routines.character)?;
        a.mov(al, ch)?;
        a.jmp(routines.character)
    }
}
