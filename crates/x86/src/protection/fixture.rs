//! A test machine with descriptor tables of its own, for tests of this family.

use iced_x86::{Decoder, DecoderOptions};

use crate::{
    engine::testing::{CODE, GDT, Machine, Stop},
    state::{CpuState, Segment, TableRegister, reg, seg},
    trap::{Exception, Trap},
};

pub(super) const IDT: u64 = 0x2000;
pub(super) const TSS: u64 = 0x3000;
/// A second task's state segment.
pub(super) const OTHER_TSS: u64 = 0x3800;
pub(super) const LDT: u64 = 0x5000;
/// Where handlers are.
pub(super) const HANDLER: u64 = 0x9000;
/// The stack of privilege level 0 in the task state segment.
pub(super) const INNER_STACK: u64 = 0x6800;
/// First index in the descriptor table that the machine leaves free.
pub(super) const FREE: u16 = 16;
/// The selector of [`FREE`].
pub(super) const FREE_SELECTOR: u16 = FREE << 3;
pub(super) const TSS_SELECTOR: u16 = 0x200;

/// A descriptor from its fields; `limit` is the raw one of 20 bits, `attributes` as in [`Segment::attributes`].
pub(super) fn descriptor(base: u64, limit: u32, attributes: u16) -> u64 {
    u64::from(limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | u64::from(attributes) << 40
        | u64::from(limit & 0xf_0000) << 32
        | (base >> 24 & 0xff) << 56
}

/// A gate from its fields; `access` is the byte with P, DPL and the type.
pub(super) fn gate(selector: u16, offset: u64, access: u8, extra: u8) -> u64 {
    offset & 0xffff
        | u64::from(selector) << 16
        | u64::from(extra) << 32
        | u64::from(access) << 40
        | (offset >> 16 & 0xffff) << 48
}

pub(super) struct Fixture {
    pub(super) machine: Machine,
}

impl Fixture {
    /// A machine at CPL 0 with whole descriptor tables, an empty interrupt table and a task register.
    pub(super) fn new(code: &[u8], bits: u8) -> Self {
        let machine = Machine::new(code, bits);
        let mut fixture = Self { machine };
        let cpu = fixture.cpu();
        cpu.gdtr = TableRegister { base: GDT, limit: 0xfff };
        cpu.idtr =
            TableRegister { base: if bits == 16 { 0 } else { IDT }, limit: if bits == 16 { 0x3ff } else { 0xfff } };
        cpu.tr = Segment { base: TSS, limit: 0x67, attributes: 0x8b, selector: TSS_SELECTOR };
        cpu.ldtr = Segment { base: LDT, limit: 0x7f, attributes: 0x82, selector: 0x208 };
        fixture.set_descriptor(TSS_SELECTOR, descriptor(TSS, 0x67, 0x8b));
        if bits == 64 {
            fixture.write(TSS + 4, &INNER_STACK.to_le_bytes());
        } else {
            fixture.write(TSS + 4, &(INNER_STACK as u32).to_le_bytes());
            fixture.write(TSS + 8, &0x10_u16.to_le_bytes());
        }
        fixture
    }

    pub(super) fn cpu(&mut self) -> &mut CpuState {
        self.machine.cpu()
    }

    pub(super) fn run(&mut self) -> Stop {
        self.machine.run()
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        assert!(self.machine.ram.write(address, bytes));
    }

    pub(super) fn read_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.machine.read(address))
    }

    pub(super) fn read_u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.machine.read(address))
    }

    pub(super) fn read_u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.machine.read(address))
    }

    /// Puts a descriptor where `selector` points to, in the global or the local table.
    pub(super) fn set_descriptor(&self, selector: u16, raw: u64) {
        let table = if selector & 4 != 0 { LDT } else { GDT };
        self.write(table + u64::from(selector & !7), &raw.to_le_bytes());
    }

    /// Puts an 8-byte gate into the interrupt table.
    pub(super) fn set_gate(&self, vector: u8, raw: u64) {
        self.write(IDT + u64::from(vector) * 8, &raw.to_le_bytes());
    }

    /// Puts a 16-byte gate into the interrupt table.
    pub(super) fn set_long_gate(&self, vector: u8, low: u64, high: u64) {
        self.write(IDT + u64::from(vector) * 16, &low.to_le_bytes());
        self.write(IDT + u64::from(vector) * 16 + 8, &high.to_le_bytes());
    }

    /// Moves the processor to CPL 3 with flat segments of the code's size.
    pub(super) fn enter_user(&mut self) {
        let cpu = self.cpu();
        let long = cpu.in_64_bit_code();
        let (code, code_attributes) = if long { (0x43, 0xa0fb) } else { (0x33, 0xc0fb) };
        for number in [seg::ES, seg::SS, seg::DS, seg::FS, seg::GS] {
            cpu.segments[usize::from(number)] =
                Segment { base: 0, limit: u32::MAX, attributes: 0xc0f3, selector: 0x3b };
        }
        cpu.segments[usize::from(seg::CS)] =
            Segment { base: 0, limit: u32::MAX, attributes: code_attributes, selector: code };
        cpu.cpl = 3;
        cpu.update_mode();
    }

    /// What a fallible operation of the processor's came to.
    pub(super) fn outcome(&mut self, result: Result<(), Trap>) -> Result<(), Exception> {
        match result {
            Ok(()) => Ok(()),
            Err(Trap::EXCEPTION) => Err(self.cpu().exception),
            Err(trap) => panic!("{trap:?}"),
        }
    }

    /// Executes one instruction, as if it were at [`CODE`]; RIP moves on unless the instruction has set it.
    pub(super) fn execute(&mut self, code: &[u8]) -> Result<(), Exception> {
        let result = self.try_execute(code);
        self.outcome(result)
    }

    /// As [`execute`](Self::execute), for an instruction that may shut the processor down.
    pub(super) fn try_execute(&mut self, code: &[u8]) -> Result<(), Trap> {
        let cpu = self.cpu();
        cpu.update_mode();
        cpu.rip = CODE;
        let bits = u32::from(cpu.mode().code_bits());
        let instruction = Decoder::with_ip(bits, code, CODE, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), code.len(), "{code:x?}");
        let op = crate::decode::decode(&instruction, cpu.mode(), true);
        match (op.handler)(cpu, &op) {
            Ok(()) | Err(Trap::NEXT) => {
                cpu.rip = CODE + code.len() as u64;
                Ok(())
            }
            Err(Trap::JUMP | Trap::RETURN) => Ok(()),
            result => result,
        }
    }

    /// Writes values of `size` bytes to the stack, the last one deepest, and points the stack pointer to the first.
    pub(super) fn set_stack(&mut self, top: u64, size: usize, values: &[u64]) {
        for (i, value) in values.iter().enumerate() {
            self.write(top + (i * size) as u64, &value.to_le_bytes()[..size]);
        }
        self.cpu().gpr[usize::from(reg::RSP)] = top;
    }

    /// `N` values of `size` bytes from the top of the stack down.
    pub(super) fn stack<const N: usize>(&mut self, size: usize) -> [u64; N] {
        let base = self.cpu().segments[usize::from(seg::SS)].base + self.rsp();
        std::array::from_fn(|i| {
            let value = self.read_u64(base + (i * size) as u64);
            if size == 8 { value } else { value & ((1 << (8 * size)) - 1) }
        })
    }

    pub(super) fn rsp(&mut self) -> u64 {
        self.cpu().register(reg::RSP)
    }

    pub(super) fn selector(&mut self, segment: u8) -> u16 {
        self.cpu().segments[usize::from(segment)].selector
    }
}
