//! Descriptor tables, what happens on faults, and the serial port's interrupt through the 8259A pair.
//! SDM vol. 3 chapters 3 and 6; Intel 231468 (8259A).

use iced_x86::{Code, Instruction, code_asm::*};

use super::{
    Done, Guest,
    console::COM1,
    layout::{IDT, VARIABLES},
    variable,
};

/// Flat 64-bit code and flat data, at selectors 8 and 16 (§ 3.4.5).
const DESCRIPTORS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const CODE: u32 = 8;
const DATA: u32 = 16;

/// Exceptions that push an error code (§ 6.15).
const WITH_ERROR_CODE: [u32; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];
const EXCEPTIONS: u32 = 32;
/// The interrupt controllers' vectors: the exceptions come before.
const VECTORS: u32 = 0x20;
const SERIAL: u32 = 4;
const SPURIOUS: u32 = 7;

impl Guest {
    /// Loads descriptor tables of the guest's own; every exception is shown and ends it.
    pub fn initialize_descriptors(&mut self) -> Done {
        let a = &mut self.a;
        let (mut table, mut behind, mut reloaded) = (a.create_label(), a.create_label(), a.create_label());
        a.jmp(behind)?;
        a.set_label(&mut table)?;
        a.dq(&DESCRIPTORS)?;
        a.set_label(&mut behind)?;
        a.lea(rax, ptr(table))?;
        a.mov(word_ptr(rbp + variable::TABLE), (DESCRIPTORS.len() * 8 - 1) as u32)?;
        a.mov(qword_ptr(rbp + (variable::TABLE + 2)), rax)?;
        a.lgdt(ptr(rbp + variable::TABLE))?;
        a.push(CODE as i32)?;
        a.lea(rax, ptr(reloaded))?;
        a.push(rax)?;
        a.add_instruction(Instruction::with(Code::Retfq))?;
        a.set_label(&mut reloaded)?;
        a.mov(eax, DATA)?;
        for segment in [ds, es, fs, gs, ss] {
            a.mov(segment, eax)?;
        }
        a.mov(word_ptr(rbp + variable::TABLE), 256 * 16 - 1)?;
        a.mov(qword_ptr(rbp + (variable::TABLE + 2)), IDT as i32)?;
        a.lidt(ptr(rbp + variable::TABLE))
    }

    /// Writes the gate of `vector` for the handler at RAX.
    fn gate(&mut self, vector: u32) -> Done {
        let a = &mut self.a;
        a.mov(edi, IDT as u32 + 16 * vector)?;
        a.mov(word_ptr(rdi), ax)?;
        a.shr(eax, 16)?;
        // An interrupt gate, present, for the code segment; the image is below 4 GiB.
        a.mov(dword_ptr(rdi + 2), (0x8e00 << 16 | CODE) as i32)?;
        a.mov(word_ptr(rdi + 6), ax)?;
        a.and(qword_ptr(rdi + 8), 0)
    }

    /// Puts the controllers' vectors behind the exceptions, lets the serial port through and interrupts on.
    pub fn initialize_interrupts(&mut self) -> Done {
        let master = [(0x20, 0x11), (0x21, VECTORS), (0x21, 1 << 2), (0x21, 1), (0x21, 0xff & !(1 << SERIAL))];
        let slave = [(0xa0, 0x11), (0xa1, VECTORS + 8), (0xa1, 2), (0xa1, 1), (0xa1, 0xff)];
        slave.into_iter().chain(master).try_for_each(|(port, value)| self.out(port, value))?;
        self.out(COM1 + 1, 1)
    }

    /// The handlers, and before them the code that enters them into the table: run on the way, by a call.
    pub fn interrupt_handlers(&mut self) -> Done {
        let mut set_gates = self.routines.gates;
        let mut handlers: Vec<(u32, CodeLabel)> = (0..EXCEPTIONS)
            .chain([VECTORS + SERIAL, VECTORS + SPURIOUS])
            .map(|vector| (vector, self.a.create_label()))
            .collect();
        self.a.set_label(&mut set_gates)?;
        for (vector, handler) in &handlers {
            self.a.lea(rax, ptr(*handler))?;
            self.gate(*vector)?;
        }
        self.a.ret()?;
        let mut fault = self.a.create_label();
        for (vector, handler) in &mut handlers {
            self.a.set_label(handler)?;
            match *vector {
                vector if vector == VECTORS + SERIAL => self.serial_handler()?,
                vector if vector == VECTORS + SPURIOUS => self.a.iretq()?,
                vector => {
                    if !WITH_ERROR_CODE.contains(&vector) {
                        self.a.push(0)?;
                    }
                    self.a.push(vector as i32)?;
                    self.a.jmp(fault)?;
                }
            }
        }
        self.a.set_label(&mut fault)?;
        self.fault_handler()
    }

    /// Shows vector and instruction pointer: on the stack are vector, error code and the pointer.
    fn fault_handler(&mut self) -> Done {
        self.a.mov(ebp, VARIABLES as u32)?;
        self.print("\r\nfault ")?;
        self.a.mov(rax, qword_ptr(rsp))?;
        self.print_decimal()?;
        self.print(" at 0x")?;
        self.a.mov(rax, qword_ptr(rsp + 16))?;
        self.a.call(self.routines.hexadecimal)?;
        self.print("\r\n")?;
        self.a.jmp(self.routines.halt)
    }

    /// Only ends the processor's sleep: who slept reads the port.
    fn serial_handler(&mut self) -> Done {
        let a = &mut self.a;
        a.push(rax)?;
        // A non-specific end of interrupt.
        a.mov(al, 0x20)?;
        a.out(0x20, al)?;
        a.pop(rax)?;
        a.iretq()
    }
}
