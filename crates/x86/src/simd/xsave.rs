//! XSAVE and its kin: the extended state to memory and back, component by component; and XCR0, which chooses them.
//!
//! Source: SDM vol. 1 §§ 13.4 to 13.10; SDM vol. 2 (XSAVE, XSAVEOPT, XSAVEC, XRSTOR, XGETBV, XSETBV). Of the modified
//! optimization software can see nothing but speed, and so there is none here.

use iced_x86::Mnemonic;

use super::{
    operands::misaligned,
    save::{read_mxcsr, read_x87, read_xmm, save_mxcsr, save_x87, save_xmm},
};
use crate::{
    access::Access,
    op::{Handler, Op},
    state::{CpuState, Cr0, Cr4, X87, Xcr0, reg},
    system::cpuid::{
        Feature,
        components::{COMPONENTS, FIRST, compacted_size, standard_size},
    },
    trap::{Exception, Trap},
};

const X87_BIT: u64 = Xcr0::X87.bits();
const SSE_BIT: u64 = Xcr0::SSE.bits();
const AVX_BIT: u64 = Xcr0::AVX.bits();
const PKRU_BIT: u64 = Xcr0::PKRU.bits();

/// Where XSTATE_BV is in an area: the header's first eight bytes.
const STATE_BITS: u64 = 512;
/// Where XCOMP_BV is.
const COMPACTION_BITS: u64 = 520;
/// XCOMP_BV: the area is of compacted format.
const COMPACTED: u64 = 1 << 63;
/// MXCSR after a reset.
const INITIAL_MXCSR: u32 = 0x1f80;

/// How an instruction saves.
trait Format {
    /// Components lie one behind the other.
    const COMPACTED: bool;
    /// Components in their initial state are not written.
    const SKIPS_INITIAL: bool;
}

/// XSAVE.
struct Plain;
impl Format for Plain {
    const COMPACTED: bool = false;
    const SKIPS_INITIAL: bool = false;
}

/// XSAVEOPT.
struct Optimized;
impl Format for Optimized {
    const COMPACTED: bool = false;
    const SKIPS_INITIAL: bool = true;
}

/// XSAVEC.
struct Compact;
impl Format for Compact {
    const COMPACTED: bool = true;
    const SKIPS_INITIAL: bool = true;
}

fn demand_switched_on(cpu: &mut CpuState) -> Result<(), Trap> {
    if cpu.cr4_has(Cr4::OSXSAVE) { Ok(()) } else { Err(cpu.raise(Exception::INVALID_OPCODE)) }
}

/// Lets an instruction that saves or restores pass; gives the components that it is asked for.
fn enter(cpu: &mut CpuState) -> Result<u64, Trap> {
    demand_switched_on(cpu)?;
    if cpu.cr0_has(Cr0::TS) {
        return Err(cpu.raise(Exception::DEVICE_NOT_AVAILABLE));
    }
    Ok(edx_eax(cpu) & cpu.xcr0)
}

fn edx_eax(cpu: &CpuState) -> u64 {
    cpu.register(reg::RAX) & 0xffff_ffff | cpu.register(reg::RDX) << 32
}

/// The linear address of an area of `size` bytes.
fn area(cpu: &mut CpuState, op: &Op, size: u32, access: Access) -> Result<u64, Trap> {
    let linear = cpu.linear(op, u64::from(size), access)?;
    if linear & 63 == 0 { Ok(linear) } else { Err(misaligned(cpu)) }
}

/// XINUSE: the components that are not in their initial state.
fn in_use(cpu: &CpuState) -> u64 {
    let x87 = cpu.x87 != X87::INITIAL;
    let sse = cpu.xmm != [0; 16];
    let avx = cpu.ymm_high != [0; 16];
    let parts = [(x87, X87_BIT), (sse, SSE_BIT), (avx, AVX_BIT), (cpu.pkru != 0, PKRU_BIT)];
    parts.iter().filter(|(used, _)| *used).fold(0, |bits, (_, bit)| bits | bit)
}

/// How many XMM and YMM registers the running code sees.
fn registers(cpu: &CpuState) -> u8 {
    if cpu.in_64_bit_code() { 16 } else { 8 }
}

/// Where each component of `present` beyond x87 and SSE lies in an area: its bit, and the distance.
fn places(present: u64, compacted: bool) -> impl Iterator<Item = (u64, u64)> {
    let mut end = FIRST;
    COMPONENTS.iter().filter(move |component| present >> component.bit & 1 != 0).map(move |component| {
        let offset = if compacted { end } else { component.offset };
        end += component.size;
        (1 << component.bit, u64::from(offset))
    })
}

extern "C" fn save<F: Format, const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let requested = enter(cpu)?;
    let size = if F::COMPACTED { compacted_size(requested) } else { standard_size(requested) };
    let area = area(cpu, op, size, Access::Write)?;
    cpu.probe_write(area, u64::from(size))?;
    let mut in_use = in_use(cpu);
    if F::COMPACTED && cpu.mxcsr != INITIAL_MXCSR {
        in_use |= SSE_BIT;
    }
    let written = if F::SKIPS_INITIAL { requested & in_use } else { requested };
    let with_mxcsr = if F::COMPACTED { written & SSE_BIT } else { requested & (SSE_BIT | AVX_BIT) };
    if written & X87_BIT != 0 {
        save_x87(cpu, area, LONG)?;
    }
    if with_mxcsr != 0 {
        save_mxcsr(cpu, area)?;
    }
    let count = registers(cpu);
    if written & SSE_BIT != 0 {
        save_xmm(cpu, area, count)?;
    }
    for (component, offset) in places(requested, F::COMPACTED) {
        if component == AVX_BIT && written & AVX_BIT != 0 {
            for (i, half) in (0..count).zip(cpu.ymm_high) {
                cpu.write(area.wrapping_add(offset + 16 * u64::from(i)), half)?;
            }
        }
        if component == PKRU_BIT && written & PKRU_BIT != 0 {
            let rights = u64::from(cpu.pkru);
            cpu.write(area.wrapping_add(offset), rights)?;
        }
    }
    if F::COMPACTED {
        cpu.write(area.wrapping_add(STATE_BITS), written)?;
        return cpu.write(area.wrapping_add(COMPACTION_BITS), requested | COMPACTED);
    }
    let old: u64 = cpu.read(area.wrapping_add(STATE_BITS))?;
    cpu.write(area.wrapping_add(STATE_BITS), old & !requested | in_use & requested)
}

/// What a header says: the components that are there, and XCOMP_BV.
///
/// # Errors
/// #GP(0) for what no instruction can have written with this XCR0.
fn read_header(cpu: &mut CpuState, area: u64) -> Result<(u64, u64), Trap> {
    let mut words = [0_u64; 8];
    for (i, word) in (0..).zip(&mut words) {
        *word = cpu.read(area.wrapping_add(STATE_BITS + 8 * i))?;
    }
    let [present, compaction, reserved @ ..] = words;
    let valid = if compaction & COMPACTED == 0 {
        present & !cpu.xcr0 == 0 && compaction == 0 && reserved[0] == 0
    } else {
        cpu.cpuid.has(Feature::XSAVEC)
            && compaction & !COMPACTED & !cpu.xcr0 == 0
            && present & !(compaction & !COMPACTED) == 0
            && reserved == [0; 6]
    };
    if valid { Ok((present, compaction)) } else { Err(cpu.raise(Exception::general_protection(0))) }
}

extern "C" fn restore<const LONG: bool>(cpu: &mut CpuState, op: &Op) -> Result<(), Trap> {
    let requested = enter(cpu)?;
    let start = area(cpu, op, FIRST, Access::Read)?;
    cpu.probe_read(start, u64::from(FIRST))?;
    let (present, compaction) = read_header(cpu, start)?;
    let compacted = compaction & COMPACTED != 0;
    let size = if compacted { compacted_size(compaction) } else { standard_size(requested & present) };
    cpu.linear(op, u64::from(size), Access::Read)?;
    let loaded = requested & present;
    let mxcsr = match (compacted, requested & SSE_BIT != 0) {
        (true, true) if present & SSE_BIT == 0 => INITIAL_MXCSR,
        (true, true) => read_mxcsr(cpu, start)?,
        (false, _) if requested & (SSE_BIT | AVX_BIT) != 0 => read_mxcsr(cpu, start)?,
        _ => cpu.mxcsr,
    };
    let count = registers(cpu);
    let mut xmm = cpu.xmm;
    let mut halves = cpu.ymm_high;
    let mut rights = if requested & PKRU_BIT != 0 { 0 } else { cpu.pkru };
    // What is asked for and not there takes its initial state.
    if loaded & SSE_BIT != 0 {
        xmm = read_xmm(cpu, start, count)?;
    } else if requested & SSE_BIT != 0 {
        xmm.iter_mut().take(usize::from(count)).for_each(|register| *register = 0);
    }
    if requested & AVX_BIT != 0 {
        halves.iter_mut().take(usize::from(count)).for_each(|half| *half = 0);
    }
    for (component, offset) in places(if compacted { compaction } else { loaded }, compacted) {
        if component == AVX_BIT && loaded & AVX_BIT != 0 {
            for (i, half) in (0..count).zip(&mut halves) {
                *half = cpu.read(start.wrapping_add(offset + 16 * u64::from(i)))?;
            }
        }
        if component == PKRU_BIT && loaded & PKRU_BIT != 0 {
            rights = cpu.read(start.wrapping_add(offset))?;
        }
    }
    // The last that can fault.
    if loaded & X87_BIT != 0 {
        read_x87(cpu, start, LONG)?.load(cpu);
    } else if requested & X87_BIT != 0 {
        cpu.x87 = X87::INITIAL;
        cpu.settle_x87_error();
    }
    (cpu.xmm, cpu.ymm_high, cpu.mxcsr) = (xmm, halves, mxcsr);
    cpu.set_pkru(rights);
    Ok(())
}

/// XGETBV: XCR0, and with index 1 which of its components are in use.
extern "C" fn read_control(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    demand_switched_on(cpu)?;
    let value = match cpu.register(reg::RCX) as u32 {
        0 => cpu.xcr0,
        1 if cpu.cpuid.has(Feature::XGETBV1) => cpu.xcr0 & in_use(cpu),
        _ => return Err(cpu.raise(Exception::general_protection(0))),
    };
    cpu.gpr[usize::from(reg::RAX)] = value & 0xffff_ffff;
    cpu.gpr[usize::from(reg::RDX)] = value >> 32;
    Ok(())
}

/// XSETBV.
extern "C" fn write_control(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    demand_switched_on(cpu)?;
    cpu.require_cpl_0()?;
    let value = edx_eax(cpu);
    if cpu.register(reg::RCX) as u32 != 0 || !cpu.accepts_xcr0(value) {
        return Err(cpu.raise(Exception::general_protection(0)));
    }
    cpu.xcr0 = value;
    Ok(())
}

/// The handler of an instruction on the extended state.
pub(super) fn select(mnemonic: Mnemonic) -> Option<Handler> {
    Some(match mnemonic {
        Mnemonic::Xsave => save::<Plain, false>,
        Mnemonic::Xsave64 => save::<Plain, true>,
        Mnemonic::Xsaveopt => save::<Optimized, false>,
        Mnemonic::Xsaveopt64 => save::<Optimized, true>,
        Mnemonic::Xsavec => save::<Compact, false>,
        Mnemonic::Xsavec64 => save::<Compact, true>,
        Mnemonic::Xrstor => restore::<false>,
        Mnemonic::Xrstor64 => restore::<true>,
        Mnemonic::Xgetbv => read_control,
        Mnemonic::Xsetbv => write_control,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        engine::testing::{DATA, Machine, Stop, run_to_exception},
        state::{Cr0, Cr4, X87},
        system::cpuid::Feature,
        trap::Exception,
    };

    const GP: Stop = Stop::Exception(Exception::general_protection(0));

    /// A machine with everything, XCR0 of 7 and EDX:EAX of 7.
    fn machine(code: &[u8], bits: u8) -> Machine {
        let mut machine = Machine::new(code, bits);
        let cpu = machine.cpu();
        for name in ["xsave", "xsaveopt", "xsavec", "xgetbv1", "avx"] {
            cpu.cpuid.set_feature(Feature::named(name).unwrap(), true);
        }
        cpu.cr4 |= Cr4::OSXSAVE.bits();
        (cpu.xcr0, cpu.gpr[0], cpu.x87) = (7, 7, X87::INITIAL);
        machine
    }

    fn fill(machine: &mut Machine) {
        let cpu = machine.cpu();
        cpu.x87.registers = std::array::from_fn(|i| (i as u128) << 72 | 0x1234);
        cpu.x87.valid = 0x5a;
        cpu.xmm = std::array::from_fn(|i| (i as u128) << 100 | 0x5678);
        cpu.ymm_high = std::array::from_fn(|i| (i as u128) << 64 | 0x9abc);
        cpu.mxcsr = 0x9fc0;
    }

    fn word(machine: &Machine, offset: u64) -> u64 {
        u64::from_le_bytes(machine.read(DATA + offset))
    }

    /// xsave64, xsaveopt64 and xsavec64 [rsi], xrstor64 [rsi].
    const SAVES: [[u8; 4]; 3] = [[0x48, 0x0f, 0xae, 0x26], [0x48, 0x0f, 0xae, 0x36], [0x48, 0x0f, 0xc7, 0x26]];
    const RESTORE: [u8; 4] = [0x48, 0x0f, 0xae, 0x2e];

    #[test]
    fn what_was_saved_comes_back_in_each_format() {
        for (save, compaction) in SAVES.into_iter().zip([0, 0, 1 << 63 | 7]) {
            let mut machine = machine(&save, 64);
            fill(&mut machine);
            assert_eq!(machine.run(), Stop::Halted);
            assert_eq!((word(&machine, 512), word(&machine, 520)), (7, compaction));
            assert_eq!(word(&machine, 576 + 16 * 15 + 8), 15);
            let cpu = machine.cpu();
            let kept = (cpu.x87, cpu.xmm, cpu.ymm_high, cpu.mxcsr);
            let mut second = self::machine(&RESTORE, 64);
            assert!(second.ram.write(DATA, &machine.read::<832>(DATA)));
            second.cpu().x87.valid = 1;
            assert_eq!(second.run(), Stop::Halted);
            let cpu = second.cpu();
            assert_eq!((cpu.x87, cpu.xmm, cpu.ymm_high, cpu.mxcsr), kept);
        }
    }

    #[test]
    fn components_that_are_initial_are_not_written_where_that_is_the_promise() {
        for (save, written) in SAVES.into_iter().zip([true, false, false]) {
            let mut machine = machine(&save, 64);
            assert!(machine.ram.write(DATA, &[0xee; 512]) && machine.ram.write(DATA + 576, &[0xee; 256]));
            machine.cpu().xmm[1] = 1;
            assert_eq!(machine.run(), Stop::Halted);
            assert_eq!(word(&machine, 512), 2);
            assert_eq!(word(&machine, 576) == 0, written);
            assert_eq!(word(&machine, 0) != u64::from_le_bytes([0xee; 8]), written);
            assert_eq!((word(&machine, 24), word(&machine, 160 + 16)), (0xffff_0000_1f80, 1));
        }
    }

    #[test]
    fn compacted_areas_have_no_gaps_and_save_mxcsr_with_sse_alone() {
        let mut machine = machine(&SAVES[2], 64);
        assert!(machine.ram.write(DATA, &[0xee; 512]));
        machine.cpu().gpr[0] = 4;
        (machine.cpu().ymm_high[0], machine.cpu().mxcsr) = (5, 0x1fbf);
        assert_eq!(machine.run(), Stop::Halted);
        assert_eq!((word(&machine, 512), word(&machine, 520), word(&machine, 576)), (4, 1 << 63 | 4, 5));
        assert_eq!(word(&machine, 24), u64::from_le_bytes([0xee; 8]));
    }

    #[test]
    fn what_is_absent_takes_its_initial_state_and_what_is_not_asked_for_stays() {
        let mut machine = machine(&RESTORE, 64);
        fill(&mut machine);
        // Present: nothing. Asked for: x87 and AVX, and with AVX comes MXCSR.
        machine.cpu().gpr[0] = 5;
        assert!(machine.ram.write(DATA, &[0; 832]) && machine.ram.write(DATA + 24, &[0x80, 0x1f, 0, 0]));
        assert_eq!(machine.run(), Stop::Halted);
        let cpu = machine.cpu();
        assert_eq!((cpu.x87, cpu.ymm_high, cpu.mxcsr), (X87::INITIAL, [0; 16], 0x1f80));
        assert_eq!(cpu.xmm[1], 1 << 100 | 0x5678);
    }

    #[test]
    fn code_of_32_bits_has_eight_registers() {
        let mut machine = machine(&[0x0f, 0xae, 0x2e], 32);
        fill(&mut machine);
        assert!(machine.ram.write(DATA, &[0; 832]));
        assert_eq!(machine.run(), Stop::Halted);
        let cpu = machine.cpu();
        assert_eq!((cpu.xmm[7], cpu.ymm_high[7]), (0, 0));
        assert_eq!((cpu.xmm[8], cpu.ymm_high[8]), (8 << 100 | 0x5678, 8 << 64 | 0x9abc));
    }

    #[test]
    fn headers_that_nothing_writes_are_refused() {
        let bad: [&[(u64, u64)]; 9] = [
            &[(512, 8)],
            &[(520, 1)],
            &[(528, 1)],
            &[(520, 1 << 63 | 8)],
            &[(512, 4), (520, 1 << 63 | 3)],
            &[(512, 1 << 63 | 3), (520, 1 << 63 | 3)],
            &[(520, 1 << 63 | 7), (568, 1)],
            &[(24, 1 << 16)],
            &[(24, 1 << 16), (512, 2), (520, 1 << 63 | 7)],
        ];
        for words in bad {
            let mut machine = machine(&RESTORE, 64);
            for (offset, value) in words {
                assert!(machine.ram.write(DATA + offset, &value.to_le_bytes()));
            }
            assert_eq!(machine.run(), GP, "{words:?}");
        }
        // Bytes of the header that the standard format does not look at.
        let mut machine = machine(&RESTORE, 64);
        assert!(machine.ram.write(DATA + 536, &[1]));
        assert_eq!(machine.run(), Stop::Halted);
    }

    #[test]
    fn faults_come_in_the_order_of_the_manual() {
        for code in [&SAVES[0][..], &RESTORE, &[0x0f, 0x01, 0xd0], &[0x0f, 0x01, 0xd1]] {
            let (_, exception) = run_to_exception(code, 64, |cpu| cpu.cr0 |= Cr0::TS.bits());
            assert_eq!(exception, Exception::INVALID_OPCODE);
        }
        let mut machine = machine(&RESTORE, 64);
        machine.cpu().cr0 |= Cr0::TS.bits();
        machine.cpu().gpr[6] += 8;
        assert_eq!(machine.run(), Stop::Exception(Exception::DEVICE_NOT_AVAILABLE));
        machine.cpu().cr0 &= !Cr0::TS.bits();
        assert_eq!(machine.run(), GP);
    }

    #[test]
    fn xcr0_takes_what_the_model_has_and_makes_sense() {
        for (value, accepted) in [(1, true), (3, true), (7, true), (0, false), (5, false), (2, false), (9, false)] {
            // xsetbv; xgetbv
            let mut machine = machine(&[0x0f, 0x01, 0xd1, 0x31, 0xc0, 0x0f, 0x01, 0xd0], 64);
            machine.cpu().gpr[0] = value;
            assert_eq!(machine.run() == Stop::Halted, accepted, "{value}");
            assert_eq!(machine.cpu().xcr0, if accepted { value } else { 7 });
            assert_eq!(machine.cpu().gpr[0], value);
        }
        let mut machine = machine(&[0x0f, 0x01, 0xd0], 64);
        machine.cpu().gpr[1] = 1;
        (machine.cpu().xcr0, machine.cpu().xmm[2], machine.cpu().ymm_high[2]) = (3, 1, 1);
        assert_eq!(machine.run(), Stop::Halted);
        assert_eq!(machine.cpu().gpr[0], 2);
        let mut machine = self::machine(&[0x0f, 0x01, 0xd0], 64);
        machine.cpu().gpr[1] = 2;
        assert_eq!(machine.run(), GP);
    }

    #[test]
    fn the_rights_of_protection_keys_are_saved_and_restored() {
        // xsave [rsi]; xrstor [rsi]
        for (code, present, expected) in [
            (&[0x0f, 0xae, 0x26][..], 0, 0x5555_5550),
            (&[0x0f, 0xae, 0x2e], 1 << 9, 0x1234),
            (&[0x0f, 0xae, 0x2e], 0, 0),
        ] {
            let mut machine = Machine::new(code, 64);
            machine.cpu().cr4 |= Cr4::OSXSAVE.bits();
            (machine.cpu().xcr0, machine.cpu().gpr[0], machine.cpu().pkru) = (0x207, 1 << 9, 0x5555_5550);
            machine.memory.write(DATA + 512, &u64::to_le_bytes(present));
            machine.memory.write(DATA + 2688, &0x1234_u32.to_le_bytes());
            assert_eq!(machine.run(), Stop::Halted);
            assert_eq!(machine.cpu().pkru, expected);
            if code[2] == 0x26 {
                assert_eq!(machine.read::<4>(DATA + 2688), 0x5555_5550_u32.to_le_bytes());
                assert_eq!(machine.read::<2>(DATA + 512), [0, 2]);
            }
        }
    }
}
