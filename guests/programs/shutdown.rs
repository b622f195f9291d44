//! A triple fault: the processor shuts down, which resets the machine. SDM vol. 3 § 6.15, interrupt 8.

use iced_x86::{IcedError, code_asm::*};

use super::{layout::IDT, program::Program};

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    p.print("nothing comes behind this line\r\n")?;
    let none = p.pointer(0, IDT);
    p.a.lidt(ptr(none))?;
    p.a.ud2()?;
    p.end()
}
