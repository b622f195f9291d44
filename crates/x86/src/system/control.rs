//! Control and debug registers, descriptor table registers, caches and translations: MOV to and from CRn and DRn, LMSW,
//! SMSW, CLTS, LGDT, LIDT, SGDT, SIDT, INVLPG, INVD, WBINVD. SDM vol. 3 §§ 2.5, 2.8, 17.2.

use iced_x86::{Code, Instruction, Mnemonic};

use super::{cpuid::Feature, serialize};
use crate::{
    access::Access,
    decode::{Form, Kind},
    integer::word::{Word, mask, set_sized},
    op::{Handler, Op},
    protection::address::attribute,
    state::{CpuState, Cr0, Cr4, Efer, TableRegister, seg},
    trap::{Exception, Trap},
};

/// CR0's bits that can be set; writes of the others are ignored.
const CR0_BITS: u64 = Cr0::all().bits();

#[cold]
fn refuse(cpu: &mut CpuState) -> Trap {
    cpu.raise(Exception::general_protection(0))
}

impl CpuState {
    /// Changes CR0 as MOV to CR0 does: with all checks, and with the changes of mode that go with it.
    ///
    /// # Errors
    /// #GP(0), or what loading the page directory pointers raises; nothing changed then.
    pub(crate) fn write_cr0(&mut self, value: u64) -> Result<(), Trap> {
        if value >> 32 != 0 {
            return Err(refuse(self));
        }
        let new = Cr0::from_bits_truncate(value & CR0_BITS) | Cr0::ET;
        let old = Cr0::from_bits_truncate(self.cr0);
        let paging_without_protection = new.contains(Cr0::PG) && !new.contains(Cr0::PE);
        let write_through_without_cache = new.contains(Cr0::NW) && !new.contains(Cr0::CD);
        if paging_without_protection || write_through_without_cache {
            return Err(refuse(self));
        }
        let changed = old ^ new;
        let mut efer = self.efer;
        if changed.contains(Cr0::PG) {
            let long_code = self.segments[usize::from(seg::CS)].has(attribute::LONG);
            if new.contains(Cr0::PG) {
                if efer & Efer::LME.bits() != 0 {
                    if !self.cr4_has(Cr4::PAE) || long_code {
                        return Err(refuse(self));
                    }
                    efer |= Efer::LMA.bits();
                }
            } else {
                if self.long_mode() && long_code || self.cr4_has(Cr4::PCIDE) {
                    return Err(refuse(self));
                }
                efer &= !Efer::LMA.bits();
            }
        }
        let before = (self.cr0, self.efer);
        (self.cr0, self.efer) = (new.bits(), efer);
        if changed.intersects(Cr0::PG | Cr0::PE | Cr0::CD | Cr0::NW)
            && let Err(trap) = self.paging_changed()
        {
            (self.cr0, self.efer) = before;
            return Err(trap);
        }
        if changed.contains(Cr0::WP) {
            self.flush_all();
        }
        self.update_mode();
        Ok(())
    }

    /// CR4's bits that this processor's model has.
    pub(crate) fn cr4_bits(&self) -> u64 {
        let mut bits = Cr4::PCE;
        for (feature, bit) in [
            (Feature::VME, Cr4::VME | Cr4::PVI),
            (Feature::TSC, Cr4::TSD),
            (Feature::DE, Cr4::DE),
            (Feature::PSE, Cr4::PSE),
            (Feature::PAE, Cr4::PAE),
            (Feature::MCE, Cr4::MCE),
            (Feature::PGE, Cr4::PGE),
            (Feature::FXSR, Cr4::OSFXSR),
            (Feature::SSE, Cr4::OSXMMEXCPT),
            (Feature::FSGSBASE, Cr4::FSGSBASE),
            (Feature::XSAVE, Cr4::OSXSAVE),
            (Feature::SMEP, Cr4::SMEP),
            (Feature::UMIP, Cr4::UMIP),
            (Feature::SMAP, Cr4::SMAP),
            (Feature::PCID, Cr4::PCIDE),
            (Feature::PKU, Cr4::PKE),
            (Feature::PKS, Cr4::PKS),
            (Feature::LA57, Cr4::LA57),
        ] {
            bits.set(bit, self.cpuid.has(feature));
        }
        bits.bits()
    }

    /// Changes CR4 as MOV to CR4 does.
    ///
    /// # Errors
    /// As with [`write_cr0`](Self::write_cr0).
    pub(crate) fn write_cr4(&mut self, value: u64) -> Result<(), Trap> {
        let (new, changed) = (Cr4::from_bits_retain(value), Cr4::from_bits_retain(self.cr4 ^ value));
        let leaves_pae = self.long_mode() && !new.contains(Cr4::PAE);
        // SDM vol. 3 § 2.5: the levels of paging stay while it is in use, identifiers begin with that of zero.
        let other_levels = self.long_mode() && changed.contains(Cr4::LA57);
        let identifies = changed.contains(Cr4::PCIDE) && new.contains(Cr4::PCIDE);
        let early = identifies && (!self.long_mode() || self.cr3 & 0xfff != 0);
        if value & !self.cr4_bits() != 0 || leaves_pae || other_levels || early {
            return Err(refuse(self));
        }
        let old = std::mem::replace(&mut self.cr4, value);
        if changed.intersects(Cr4::PSE | Cr4::PAE | Cr4::PGE | Cr4::SMEP)
            && let Err(trap) = self.paging_changed()
        {
            self.cr4 = old;
            return Err(trap);
        }
        if changed.intersects(Cr4::SMAP | Cr4::PKE | Cr4::PKS | Cr4::PCIDE | Cr4::LA57) {
            self.flush_all();
        }
        self.update_mode();
        Ok(())
    }

    /// Changes CR3 as MOV to CR3 does.
    fn write_cr3(&mut self, value: u64) -> Result<(), Trap> {
        // With process-context identifiers bit 63 asks to keep what is known of the new address space. Nothing is kept.
        let value = if self.cr4_has(Cr4::PCIDE) { value & !(1 << 63) } else { value };
        if self.long_mode() && value >> self.cpuid.physical_bits() != 0 {
            return Err(refuse(self));
        }
        self.load_cr3(value)
    }
}

/// MOV from CRn; `LONG` moves 64 bits.
extern "C" fn read_control<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    let value = match op.src {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        8 => u64::from(cpu.bus.task_priority()),
        _ => return Err(cpu.raise(Exception::INVALID_OPCODE)),
    };
    put::<LONG>(cpu, op.dst, value);
    Ok(())
}

#[inline(always)]
fn put<const LONG: bool>(cpu: &mut CpuState, register: u8, value: u64) {
    if LONG {
        u64::set(cpu, register, value);
    } else {
        u32::set(cpu, register, value as u32);
    }
}

#[inline(always)]
fn get<const LONG: bool>(cpu: &CpuState, register: u8) -> u64 {
    if LONG { u64::get(cpu, register) } else { u64::from(u32::get(cpu, register)) }
}

/// MOV to CRn.
extern "C" fn write_control<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    serialize();
    let value = get::<LONG>(cpu, op.src);
    match op.dst {
        0 => cpu.write_cr0(value)?,
        2 => cpu.cr2 = value,
        3 => cpu.write_cr3(value)?,
        4 => cpu.write_cr4(value)?,
        8 if value > 15 => return Err(refuse(cpu)),
        8 => cpu.bus.set_task_priority(value as u8),
        _ => return Err(cpu.raise(Exception::INVALID_OPCODE)),
    }
    Err(Trap::NEXT)
}

/// DR7.GD: any use of a debug register is an exception.
const GENERAL_DETECT: u64 = 1 << 13;
/// DR6's bits that are always set.
const DR6_FIXED: u64 = 0xffff_0ff0;
/// DR6's bits that can be written.
const DR6_BITS: u64 = 0xe00f;
/// DR7's bit that is always set.
const DR7_FIXED: u64 = 0x400;
/// DR7's bits that can be written.
const DR7_BITS: u64 = 0xffff_23ff;

/// The debug register that a number names, after the checks that come with its use.
fn debug_register(cpu: &mut CpuState, number: u8) -> Result<usize, Trap> {
    cpu.require_cpl_0()?;
    let number = match number {
        4 | 5 if cpu.cr4_has(Cr4::DE) => return Err(cpu.raise(Exception::INVALID_OPCODE)),
        4 | 5 => number + 2,
        0..=7 => number,
        _ => return Err(cpu.raise(Exception::INVALID_OPCODE)),
    };
    if cpu.dr[7] & GENERAL_DETECT != 0 {
        cpu.dr[6] |= 1 << 13;
        return Err(cpu.raise(Exception::DEBUG));
    }
    Ok(usize::from(number))
}

extern "C" fn read_debug<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let number = debug_register(cpu, op.src)?;
    let value = match number {
        6 => cpu.dr[6] & DR6_BITS | DR6_FIXED,
        7 => cpu.dr[7] & DR7_BITS | DR7_FIXED,
        number => cpu.dr[number & 7],
    };
    put::<LONG>(cpu, op.dst, value);
    Ok(())
}

extern "C" fn write_debug<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let number = debug_register(cpu, op.dst)?;
    serialize();
    let value = get::<LONG>(cpu, op.src);
    if number >= 6 && value >> 32 != 0 {
        return Err(refuse(cpu));
    }
    cpu.dr[number & 7] = match number {
        6 => value & DR6_BITS | DR6_FIXED,
        7 => value & DR7_BITS | DR7_FIXED,
        _ => value,
    };
    cpu.update_mode();
    if number != 6 {
        // What is watched now may have translations, and what is no longer may have some again.
        cpu.flush_all();
    }
    Err(Trap::NEXT)
}

/// LMSW: the low four bits of CR0; PE can be set but not cleared.
extern "C" fn load_machine_status<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    let value = if MEMORY {
        let linear = cpu.linear(op, 2, Access::Read)?;
        u64::from(cpu.read::<u16>(linear)?)
    } else {
        cpu.register(op.dst)
    };
    let kept = cpu.cr0 & (!0xf | Cr0::PE.bits());
    cpu.write_cr0(kept | value & 0xf)?;
    Err(Trap::NEXT)
}

/// #GP(0) for what user-mode instruction prevention forbids.
fn user_may_look(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cpl == 3 && cpu.cr4_has(Cr4::UMIP) { Err(refuse(cpu)) } else { Ok(()) }
}

extern "C" fn store_machine_status<const MEMORY: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    user_may_look(cpu)?;
    let value = cpu.cr0;
    if MEMORY {
        let linear = cpu.linear(op, 2, Access::Write)?;
        return cpu.write(linear, value as u16);
    }
    set_sized(cpu, op.dst, op.size, value & mask(op.size));
    Ok(())
}

extern "C" fn clear_task_switched(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    if !cpu.cr0_has(Cr0::TS) {
        return Ok(());
    }
    cpu.cr0 &= !Cr0::TS.bits();
    cpu.update_mode();
    Err(Trap::NEXT)
}

/// Reads the limit and base of a descriptor table; `op.size` is that of the base: 3 (of four bytes), 4 or 8.
fn table_operand(cpu: &mut CpuState, op: &Op) -> Result<TableRegister, Trap> {
    cpu.require_cpl_0()?;
    let bytes = if op.size == 8 { 10 } else { 6 };
    let linear = cpu.linear(op, bytes, Access::Read)?;
    let limit = cpu.read(linear)?;
    let base = linear.wrapping_add(2);
    let base = match op.size {
        8 => cpu.read::<u64>(base)?,
        4 => u64::from(cpu.read::<u32>(base)?),
        _ => u64::from(cpu.read::<u32>(base)? & 0xff_ffff),
    };
    if op.size == 8 && !cpu.is_canonical(base) {
        return Err(refuse(cpu));
    }
    Ok(TableRegister { base, limit })
}

extern "C" fn load_global_table(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    serialize();
    cpu.gdtr = table_operand(cpu, op)?;
    Ok(())
}

extern "C" fn load_interrupt_table(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    serialize();
    cpu.idtr = table_operand(cpu, op)?;
    Ok(())
}

/// SGDT and SIDT.
extern "C" fn store_table<const INTERRUPT: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    user_may_look(cpu)?;
    let table = if INTERRUPT { cpu.idtr } else { cpu.gdtr };
    let bytes = if op.size == 8 { 10 } else { 6 };
    let linear = cpu.linear(op, bytes, Access::Write)?;
    cpu.probe_write(linear, bytes)?;
    cpu.write(linear, table.limit)?;
    let base = linear.wrapping_add(2);
    if op.size == 8 { cpu.write(base, table.base) } else { cpu.write(base, table.base as u32) }
}

extern "C" fn invalidate_page(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    serialize();
    // No limit is checked: the address is only a name.
    let offset = op.effective_address(cpu);
    let base =
        if cpu.in_64_bit_code() && op.segment < seg::FS { 0 } else { cpu.segments[usize::from(op.segment & 7)].base };
    let linear = base.wrapping_add(offset);
    if cpu.long_mode() {
        if cpu.is_canonical(linear) {
            cpu.flush_page(linear);
        }
    } else {
        cpu.flush_page(linear & 0xffff_ffff);
    }
    Err(Trap::NEXT)
}

/// INVPCID: what it names is dropped, and as translations do not outlive their address space, no other's are there.
extern "C" fn invalidate_by_identifier(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    cpu.require_cpl_0()?;
    serialize();
    let kind = if cpu.in_64_bit_code() { cpu.register(op.dst) } else { u64::from(cpu.register(op.dst) as u32) };
    let descriptor = cpu.linear(op, 16, Access::Read)?;
    let identifier: u64 = cpu.read(descriptor)?;
    let linear: u64 = cpu.read(descriptor.wrapping_add(8))?;
    let possible = match kind {
        0 | 1 => identifier == 0 || identifier < 0x1000 && cpu.cr4_has(Cr4::PCIDE),
        2 | 3 => identifier < 0x1000,
        _ => false,
    };
    if !possible || kind == 0 && !cpu.is_canonical(linear) {
        return Err(refuse(cpu));
    }
    match kind {
        0 => cpu.flush_page(linear),
        2 => cpu.flush_all(),
        _ => cpu.flush_address_space(),
    }
    Err(Trap::NEXT)
}

/// INVD, WBINVD: there are no caches to lose or write back.
extern "C" fn write_back(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    serialize();
    cpu.require_cpl_0()
}

/// Handlers of this file's instructions.
pub(super) fn select(instruction: &Instruction, form: &Form, op: &mut Op) -> Option<Handler> {
    let long = form.bits == 64;
    let memory = form.kinds[0] == Kind::Memory;
    let (first, second) = (instruction.op0_register(), instruction.op1_register());
    let handler: Handler = match instruction.mnemonic() {
        Mnemonic::Mov if first.is_cr() && long => write_control::<true>,
        Mnemonic::Mov if first.is_cr() => write_control::<false>,
        Mnemonic::Mov if second.is_cr() && long => read_control::<true>,
        Mnemonic::Mov if second.is_cr() => read_control::<false>,
        Mnemonic::Mov if first.is_dr() && long => write_debug::<true>,
        Mnemonic::Mov if first.is_dr() => write_debug::<false>,
        Mnemonic::Mov if second.is_dr() && long => read_debug::<true>,
        Mnemonic::Mov if second.is_dr() => read_debug::<false>,
        Mnemonic::Lmsw if memory => load_machine_status::<true>,
        Mnemonic::Lmsw => load_machine_status::<false>,
        Mnemonic::Smsw if memory => store_machine_status::<true>,
        Mnemonic::Smsw => store_machine_status::<false>,
        Mnemonic::Clts => clear_task_switched,
        Mnemonic::Lgdt => load_global_table,
        Mnemonic::Lidt => load_interrupt_table,
        Mnemonic::Sgdt => store_table::<false>,
        Mnemonic::Sidt => store_table::<true>,
        Mnemonic::Invlpg => invalidate_page,
        Mnemonic::Invpcid => invalidate_by_identifier,
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => write_back,
        _ => return None,
    };
    match instruction.code() {
        Code::Lgdt_m1664 | Code::Lidt_m1664 | Code::Sgdt_m1664 | Code::Sidt_m1664 => op.size = 8,
        Code::Lgdt_m1632 | Code::Lidt_m1632 | Code::Sgdt_m1632 | Code::Sidt_m1632 => op.size = 4,
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => op.size = 3,
        _ => {}
    }
    Some(handler)
}
