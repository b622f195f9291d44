//! The bare guest, in assembly written in Rust: what it is made of, and the order in which it does its work.
//!
//! Routines keep all registers but RAX, RCX, RDX, RSI and RDI. RBP points to the variables and R15 to the boot
//! parameters throughout.

// The assembler's registers and memory operands are its vocabulary: dozens of short names.
#![allow(clippy::wildcard_imports)]

mod clock;
mod console;
mod interrupts;
#[allow(dead_code)]
mod layout;
mod lines;
mod machine;

use iced_x86::{IcedError, code_asm::*};
use layout::{LOAD_ADDRESS, STACK_TOP, VARIABLES};

pub type Done = Result<(), IcedError>;

/// Offsets of variables from RBP.
pub mod variable {
    /// Characters in the line so far, and the last one read.
    pub const LENGTH: i32 = 8;
    pub const LAST: i32 = 12;
    /// Seconds, minutes, hours, day, month, year, century, zero.
    pub const TIME: i32 = 16;
    /// Limit and base for LGDT and LIDT.
    pub const TABLE: i32 = 32;
    /// A text being put together, with its final zero.
    pub const TEXT: i32 = 64;
    /// The line being read.
    pub const LINE: i32 = 128;
    pub const LINE_SIZE: u32 = 256;
}

/// Routines that others call.
pub struct Routines {
    /// Sends AL.
    pub character: CodeLabel,
    /// Prints the text at RSI up to its final zero.
    pub text: CodeLabel,
    /// Prints RAX in decimal.
    pub decimal: CodeLabel,
    /// Prints RAX in 16 hexadecimal digits.
    pub hexadecimal: CodeLabel,
    /// Prints AL, below 100, in two digits.
    pub two_digits: CodeLabel,
    /// Reads the CMOS register AL into AL.
    pub cmos: CodeLabel,
    /// Reads date and time into [`variable::TIME`], and as one number into RAX.
    pub read_clock: CodeLabel,
    /// Fills the interrupt descriptor table.
    pub gates: CodeLabel,
    /// Ends everything.
    pub halt: CodeLabel,
}

/// The guest while it is being written.
pub struct Guest {
    pub a: CodeAssembler,
    pub routines: Routines,
    texts: Vec<(CodeLabel, String)>,
}

impl Guest {
    fn new() -> Result<Self, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let routines = Routines {
            character: a.create_label(),
            text: a.create_label(),
            decimal: a.create_label(),
            hexadecimal: a.create_label(),
            two_digits: a.create_label(),
            cmos: a.create_label(),
            read_clock: a.create_label(),
            gates: a.create_label(),
            halt: a.create_label(),
        };
        Ok(Self { a, routines, texts: Vec::new() })
    }

    /// A label of a text that is put behind the code.
    pub fn text(&mut self, text: &str) -> CodeLabel {
        if let Some((label, _)) = self.texts.iter().find(|(_, known)| known == text) {
            return *label;
        }
        let label = self.a.create_label();
        self.texts.push((label, text.to_owned()));
        label
    }

    /// Prints a fixed text.
    pub fn print(&mut self, text: &str) -> Done {
        let label = self.text(text);
        self.a.lea(rsi, ptr(label))?;
        self.a.call(self.routines.text)
    }

    pub fn print_decimal(&mut self) -> Done {
        self.a.call(self.routines.decimal)
    }

    fn start(&mut self) -> Done {
        let a = &mut self.a;
        a.cli()?;
        a.cld()?;
        a.mov(rsp, STACK_TOP)?;
        a.mov(ebp, VARIABLES as u32)?;
        a.mov(r15, rsi)?;
        // The machine may have been reset: variables start as zeros.
        a.mov(rdi, rbp)?;
        a.mov(ecx, 0x1000 / 8)?;
        a.xor(eax, eax)?;
        a.rep().stosq()?;
        self.initialize_console()?;
        self.print("Rhea: bare guest\r\n")?;
        self.initialize_descriptors()?;
        self.a.call(self.routines.gates)?;
        self.show_processors()?;
        self.show_memory()?;
        self.show_time()?;
        self.show_tsc_rate()?;
        self.initialize_interrupts()?;
        self.print("ready\r\n")?;
        self.read_lines()
    }

    fn halt(&mut self) -> Done {
        let Self { a, routines, .. } = self;
        a.set_label(&mut routines.halt)?;
        a.cli()?;
        a.hlt()?;
        a.jmp(routines.halt)
    }

    fn emit_texts(&mut self) -> Done {
        for (mut label, text) in std::mem::take(&mut self.texts) {
            self.a.set_label(&mut label)?;
            let mut bytes = text.into_bytes();
            bytes.push(0);
            self.a.db(&bytes)?;
        }
        Ok(())
    }
}

/// The guest's bytes, for [`LOAD_ADDRESS`].
pub fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut guest = Guest::new()?;
    guest.start()?;
    guest.console_routines()?;
    guest.clock_routines()?;
    guest.interrupt_handlers()?;
    guest.halt()?;
    guest.emit_texts()?;
    guest.a.assemble(LOAD_ADDRESS)
}
