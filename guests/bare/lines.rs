//! What the guest does all day: it sleeps until a character comes, and sends back each line.

use iced_x86::code_asm::*;

use super::{
    Done, Guest,
    console::{COM1, DATA_READY, LINE_STATUS},
    variable,
};

/// PM1a control of the PIIX4 (ACPI 5.0 § 4.8.3.2.1): sleep type 0 is off, bit 13 enters it.
const PM1A_CONTROL: u32 = 0x604;
const SLEEP: u32 = 1 << 13;
/// The reset control register of the PIIX3, and its values before and at a reset of the system.
const RESET_CONTROL: u32 = 0xcf9;

const BACKSPACE: u32 = 0x08;
const LINE_FEED: u32 = b'\n' as u32;
const CARRIAGE_RETURN: u32 = b'\r' as u32;
const DELETE: u32 = 0x7f;

impl Guest {
    /// Never ends.
    pub fn read_lines(&mut self) -> Done {
        let [mut next, mut take, mut line, mut delete] = std::array::from_fn(|_| self.a.create_label());
        let a = &mut self.a;
        a.set_label(&mut next)?;
        // Off while looking, so that nothing comes between the look and the sleep.
        a.cli()?;
        a.mov(edx, LINE_STATUS)?;
        a.in_(al, dx)?;
        a.test(al, DATA_READY)?;
        a.jnz(take)?;
        a.sti()?;
        a.hlt()?;
        a.jmp(next)?;
        a.set_label(&mut take)?;
        a.mov(edx, COM1)?;
        a.in_(al, dx)?;
        a.sti()?;
        a.movzx(eax, al)?;
        a.mov(ecx, dword_ptr(rbp + variable::LAST))?;
        a.mov(dword_ptr(rbp + variable::LAST), eax)?;
        a.cmp(eax, CARRIAGE_RETURN)?;
        a.je(line)?;
        a.cmp(eax, BACKSPACE)?;
        a.je(delete)?;
        a.cmp(eax, DELETE)?;
        a.je(delete)?;
        // A line feed behind a carriage return is the same end of line.
        let mut ordinary = a.create_label();
        a.cmp(eax, LINE_FEED)?;
        a.jne(ordinary)?;
        a.cmp(ecx, CARRIAGE_RETURN)?;
        a.je(next)?;
        a.jmp(line)?;
        a.set_label(&mut ordinary)?;
        a.mov(ecx, dword_ptr(rbp + variable::LENGTH))?;
        // Room for the final zero; more is dropped.
        a.cmp(ecx, variable::LINE_SIZE - 1)?;
        a.jae(next)?;
        a.mov(byte_ptr(rbp + rcx + variable::LINE), al)?;
        a.inc(dword_ptr(rbp + variable::LENGTH))?;
        a.jmp(next)?;
        a.set_label(&mut delete)?;
        a.cmp(dword_ptr(rbp + variable::LENGTH), 0)?;
        a.je(next)?;
        a.dec(dword_ptr(rbp + variable::LENGTH))?;
        a.jmp(next)?;
        a.set_label(&mut line)?;
        a.mov(ecx, dword_ptr(rbp + variable::LENGTH))?;
        a.mov(byte_ptr(rbp + rcx + variable::LINE), 0)?;
        a.and(dword_ptr(rbp + variable::LENGTH), 0)?;
        self.answer(next)
    }

    /// Sends the line back and does what it says, if it says anything.
    fn answer(&mut self, next: CodeLabel) -> Done {
        self.print("> ")?;
        self.a.lea(rsi, ptr(rbp + variable::LINE))?;
        self.a.call(self.routines.text)?;
        self.print("\r\n")?;
        let (mut poweroff, mut reset) = (self.a.create_label(), self.a.create_label());
        self.if_line("poweroff", poweroff)?;
        self.if_line("reset", reset)?;
        self.a.jmp(next)?;
        self.a.set_label(&mut poweroff)?;
        self.a.mov(edx, PM1A_CONTROL)?;
        self.a.mov(eax, SLEEP)?;
        self.a.out(dx, ax)?;
        self.a.jmp(self.routines.halt)?;
        self.a.set_label(&mut reset)?;
        self.a.nop()?;
        self.out(RESET_CONTROL, 0x02)?;
        self.out(RESET_CONTROL, 0x06)?;
        self.a.jmp(self.routines.halt)
    }

    fn if_line(&mut self, word: &str, then: CodeLabel) -> Done {
        let text = self.text(word);
        let a = &mut self.a;
        a.lea(rsi, ptr(rbp + variable::LINE))?;
        a.lea(rdi, ptr(text))?;
        // The final zero is compared too.
        a.mov(ecx, word.len() as u32 + 1)?;
        a.repe().cmpsb()?;
        a.je(then)
    }
}
