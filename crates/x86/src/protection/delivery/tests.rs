//! Deliveries against the manual's pseudo-code (SDM vol. 2 INT n) and tables (vol. 3 ch. 6).

use proptest::prelude::*;

use crate::protection::fixture::{
    FREE_SELECTOR, Fixture, HANDLER, IDT, INNER_STACK, TSS, TSS_SELECTOR, descriptor, gate,
};
use crate::{
    engine::testing::{CODE, STACK},
    state::{Cr0, Rflags, Segment, reg, seg},
    trap::{Exception, Trap},
};

const RSP: usize = reg::RSP as usize;
const SET: u64 = Rflags::FIXED.bits();
const IF: u64 = Rflags::IF.bits();
const TF: u64 = Rflags::TF.bits();
const RF: u64 = Rflags::RF.bits();
const VM: u64 = Rflags::VM.bits();
const IOPL: u64 = Rflags::IOPL.bits();

const fn gp(code: u32) -> Result<(), Exception> {
    Err(Exception::general_protection(code))
}

#[test]
fn real_mode_pushes_three_words_and_goes_through_the_vector_table() {
    let mut fixture = Fixture::new(&[], 16);
    fixture.write(0x21 * 4, &[0x34, 0x12, 0x00, 0x20]);
    fixture.cpu().rflags = SET | IF | TF | Rflags::CF.bits();
    fixture.cpu().rip = CODE;
    assert_eq!(fixture.cpu().deliver_interrupt(0x21), Ok(()));
    assert_eq!(fixture.stack(2), [CODE, 0, SET | IF | TF | 1]);
    assert_eq!((fixture.cpu().rip, fixture.selector(seg::CS)), (0x1234, 0x2000));
    assert_eq!(fixture.cpu().segments[usize::from(seg::CS)].base, 0x2_0000);
    assert_eq!(fixture.cpu().rflags, SET | 1);
}

#[test]
fn real_mode_exceptions_push_no_error_code() {
    let mut fixture = Fixture::new(&[], 16);
    fixture.write(13 * 4, &[0x34, 0x12, 0, 0]);
    assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), CODE), Ok(()));
    assert_eq!(fixture.rsp(), STACK - 6);
}

#[test]
fn a_vector_table_without_entries_shuts_the_processor_down() {
    let mut fixture = Fixture::new(&[], 16);
    fixture.cpu().idtr.limit = 0;
    assert_eq!(fixture.cpu().deliver_interrupt(0x21), Err(Trap::SHUTDOWN));
    assert_eq!(fixture.rsp(), STACK);
}

#[test]
fn faults_push_flags_with_rf_and_their_error_code() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(14, gate(8, 0x1234_9000, 0x8e, 0));
    fixture.cpu().rflags = SET | IF | TF | Rflags::NT.bits();
    assert_eq!(fixture.cpu().deliver_exception(Exception::page_fault(2), CODE), Ok(()));
    assert_eq!(fixture.stack(4), [2, CODE, 8, SET | IF | TF | Rflags::NT.bits() | RF]);
    assert_eq!(fixture.rsp(), STACK - 16);
    assert_eq!((fixture.cpu().rip, fixture.cpu().rflags), (0x1234_9000, SET));
}

#[test]
fn debug_traps_leave_rf_alone_and_end_general_detect() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(1, gate(8, HANDLER, 0x8e, 0));
    fixture.cpu().dr[7] = 0x2400;
    assert_eq!(fixture.cpu().deliver_exception(Exception::DEBUG, CODE), Ok(()));
    assert_eq!(fixture.stack(4), [CODE, 8, SET]);
    assert_eq!(fixture.cpu().dr[7], 0x400);
}

#[test]
fn trap_gates_leave_interrupts_enabled() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(0x20, gate(8, HANDLER, 0x8f, 0));
    fixture.cpu().rflags = SET | IF;
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!(fixture.cpu().rflags, SET | IF);
}

#[test]
fn gates_of_16_bits_push_words() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(13, gate(8, 0xffff_9000, 0x86, 0));
    assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0x18), CODE), Ok(()));
    assert_eq!(fixture.stack(2), [0x18, CODE, 8, SET]);
    assert_eq!(fixture.cpu().rip, 0x9000);
}

#[test]
fn user_code_is_left_for_the_stack_of_the_task_state_segment() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
    fixture.enter_user();
    fixture.cpu().gpr[RSP] = 0x6000;
    fixture.cpu().rip = CODE;
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!(fixture.rsp(), INNER_STACK - 20);
    assert_eq!(fixture.stack(4), [CODE, 0x33, SET, 0x6000, 0x3b]);
    assert_eq!((fixture.cpu().cpl, fixture.selector(seg::CS), fixture.selector(seg::SS)), (0, 8, 0x10));
    assert_eq!(fixture.selector(seg::DS), 0x3b);
}

#[test]
fn stacks_of_a_16_bit_task_state_segment_have_16_bit_pointers() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
    fixture.write(TSS + 2, &[0x00, 0x68, 0x10, 0x00]);
    fixture.cpu().tr.attributes = 0x83;
    fixture.enter_user();
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!(fixture.rsp(), INNER_STACK - 20);
}

#[test]
fn conforming_handlers_keep_the_privilege_level_and_the_stack() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xfffff, 0xc09e));
    fixture.set_gate(0x20, gate(FREE_SELECTOR, HANDLER, 0x8e, 0));
    fixture.enter_user();
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!((fixture.cpu().cpl, fixture.selector(seg::CS), fixture.rsp()), (3, FREE_SELECTOR | 3, STACK - 12));
}

/// The exceptions of SDM vol. 2 "INT n", PROTECTED-MODE, each with its error code. `ext` is what an event from
/// outside adds to it.
#[test]
fn bad_gates_and_segments_are_named_by_error_codes() {
    let free = u32::from(FREE_SELECTOR);
    let vector = 0x20 * 8 + 2;
    let ts = |code| Err(Exception::invalid_tss(code));
    let np = |code| Err(Exception::not_present(code));
    for (gate_raw, code_raw, user, expected) in [
        // Not a gate that interrupts use; not present.
        (gate(8, HANDLER, 0x8c, 0), 0, false, gp(vector)),
        (gate(8, HANDLER, 0xee, 0) & !(1 << 47), 0, false, np(vector)),
        // The code segment: null, beyond the table, no code, less privileged, not present.
        (gate(0, HANDLER, 0xee, 0), 0, false, gp(0)),
        (gate(0x1008, HANDLER, 0xee, 0), 0, false, gp(0x1008)),
        (gate(0x10, HANDLER, 0xee, 0), 0, false, gp(0x10)),
        (gate(0x33, HANDLER, 0xee, 0), 0, false, gp(0x30)),
        (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfffff, 0xc01b), false, np(free)),
        // The offset is beyond the code segment.
        (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfff, 0x409b), false, gp(0)),
        // The stack is that of level 1, which the task state segment has none for.
        (gate(FREE_SELECTOR, HANDLER, 0xee, 0), descriptor(0, 0xfffff, 0xc0bb), true, ts(0)),
    ] {
        for external in [false, true] {
            let mut fixture = Fixture::new(&[], 32);
            fixture.set_gate(0x20, gate_raw);
            fixture.set_descriptor(FREE_SELECTOR, code_raw);
            if user {
                fixture.enter_user();
            }
            let origin = if external { super::Origin::External } else { super::Origin::Software };
            let event = super::Event { vector: 0x20, error_code: None, origin, return_rip: CODE, resume: false };
            let result = fixture.cpu().deliver(event).map(drop);
            let expected = expected.map_err(|exception: Exception| Exception {
                error_code: exception.error_code.map(|code| code | u32::from(external)),
                ..exception
            });
            assert_eq!(fixture.outcome(result), expected, "{gate_raw:#x}");
            assert_eq!(fixture.rsp(), STACK);
        }
    }
}

#[test]
fn bad_inner_stacks_are_invalid_task_state_segments() {
    let free = u32::from(FREE_SELECTOR);
    for (ss, raw, limit, expected) in [
        (0, 0, 0x67, Exception::invalid_tss(0)),
        (0x1008, 0, 0x67, Exception::invalid_tss(0x1008)),
        (FREE_SELECTOR | 3, descriptor(0, 0xfffff, 0xc093), 0x67, Exception::invalid_tss(free)),
        (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc091), 0x67, Exception::invalid_tss(free)),
        (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc0f3), 0x67, Exception::invalid_tss(free)),
        (FREE_SELECTOR, descriptor(0, 0xfffff, 0xc013), 0x67, Exception::stack(free)),
        // No room for what is to be pushed.
        (FREE_SELECTOR, descriptor(0, 0xff, 0x4093), 0x67, Exception::stack(free)),
        // The task state segment ends before the stack pointer does.
        (0x10, 0, 8, Exception::invalid_tss(TSS_SELECTOR.into())),
    ] {
        let mut fixture = Fixture::new(&[], 32);
        fixture.set_gate(0x20, gate(8, HANDLER, 0xee, 0));
        fixture.set_descriptor(FREE_SELECTOR, raw);
        fixture.write(TSS + 8, &ss.to_le_bytes());
        fixture.enter_user();
        fixture.cpu().tr.limit = limit;
        let before = fixture.cpu().segments;
        let result = fixture.cpu().software_interrupt(0x20, CODE + 2);
        assert_eq!(fixture.outcome(result), Err(expected), "{ss:#x} {raw:#x}");
        assert_eq!((fixture.cpu().segments, fixture.cpu().cpl, fixture.rsp()), (before, 3, STACK));
    }
}

#[test]
fn programs_may_only_use_gates_of_their_privilege() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(0x20, gate(8, HANDLER, 0x8e, 0));
    fixture.set_gate(3, gate(8, HANDLER, 0x8e, 0));
    fixture.set_gate(0x80, gate(8, HANDLER, 0xee, 0));
    fixture.enter_user();
    // int 0x20; int3; int 0x80
    assert_eq!(fixture.execute(&[0xcd, 0x20]), gp(0x20 * 8 + 2));
    assert_eq!(fixture.execute(&[0xcc]), gp(3 * 8 + 2));
    assert_eq!(fixture.cpu().rip, CODE);
    assert_eq!(fixture.execute(&[0xcd, 0x80]), Ok(()));
    assert_eq!((fixture.cpu().rip, fixture.cpu().cpl), (HANDLER, 0));
    assert_eq!(fixture.stack(4), [CODE + 2, 0x33, SET]);
}

#[test]
fn int1_asks_no_gate_for_permission() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(1, gate(8, HANDLER, 0x8e, 0));
    fixture.enter_user();
    assert_eq!(fixture.execute(&[0xf1]), Ok(()));
    assert_eq!(fixture.stack(4), [CODE + 1, 0x33, SET]);
}

#[test]
fn into_interrupts_on_overflow_alone() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(4, gate(8, HANDLER, 0xee, 0));
    assert_eq!(fixture.execute(&[0xce]), Ok(()));
    assert_eq!(fixture.cpu().rip, CODE + 1);
    fixture.cpu().rflags |= Rflags::OF.bits();
    assert_eq!(fixture.execute(&[0xce]), Ok(()));
    assert_eq!(fixture.cpu().rip, HANDLER);
}

#[test]
fn long_mode_pushes_five_quadwords_on_an_aligned_stack() {
    let mut fixture = Fixture::new(&[], 64);
    fixture.set_long_gate(0x20, gate(0x18, 0x9000, 0x8e, 0), 0xffff_8000);
    fixture.cpu().gpr[RSP] = STACK - 1;
    fixture.cpu().rflags = SET | IF;
    fixture.cpu().rip = 0xffff_8000_0000_1234;
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!(fixture.rsp(), STACK - 16 - 40);
    assert_eq!(fixture.stack(8), [0xffff_8000_0000_1234, 0x18, SET | IF, STACK - 1, 0x10]);
    assert_eq!((fixture.cpu().rip, fixture.cpu().rflags), (0xffff_8000_0000_9000, SET));
    // Without a change of privilege, SS stays.
    assert_eq!(fixture.selector(seg::SS), 0x10);
}

#[test]
fn long_mode_takes_the_stack_of_the_task_state_segment_and_a_null_stack_segment() {
    let mut fixture = Fixture::new(&[], 64);
    fixture.set_long_gate(14, gate(0x18, HANDLER, 0x8e, 0), 0);
    fixture.enter_user();
    assert_eq!(fixture.cpu().deliver_exception(Exception::page_fault(6), CODE), Ok(()));
    assert_eq!(fixture.rsp(), INNER_STACK - 48);
    assert_eq!(fixture.stack(8), [6, CODE, 0x43, SET | RF, STACK, 0x3b]);
    assert_eq!((fixture.cpu().cpl, fixture.selector(seg::SS), fixture.selector(seg::DS)), (0, 0, 0x3b));
}

#[test]
fn interrupt_stacks_are_used_from_every_privilege_level() {
    for user in [false, true] {
        let mut fixture = Fixture::new(&[], 64);
        fixture.set_long_gate(2, gate(0x18, HANDLER, 0x8e, 3), 0);
        fixture.write(TSS + 0x34, &0x6408_u64.to_le_bytes());
        if user {
            fixture.enter_user();
        }
        assert_eq!(fixture.cpu().deliver_nmi(), Ok(()));
        assert_eq!(fixture.rsp(), 0x6400 - 40);
        assert_eq!(fixture.selector(seg::SS), if user { 0 } else { 0x10 });
        assert!(fixture.cpu().nmi_blocked);
    }
}

#[test]
fn long_mode_gates_lead_to_64_bit_code_at_canonical_addresses() {
    let vector = 0x20 * 16;
    for (low, high, expected) in [
        (gate(8, HANDLER, 0xee, 0), 0, gp(8)),
        (gate(0x18, HANDLER, 0xee, 0), 0x8000, gp(0)),
        (gate(0x18, HANDLER, 0xe5, 0), 0, gp(0x20 * 8 + 2)),
        (gate(0x18, HANDLER, 0xe6, 0), 0, gp(0x20 * 8 + 2)),
        (gate(0x18, HANDLER, 0x6e, 0), 0, Err(Exception::not_present(0x20 * 8 + 2))),
    ] {
        let mut fixture = Fixture::new(&[], 64);
        fixture.write(IDT + vector, &low.to_le_bytes());
        fixture.write(IDT + vector + 8, &u64::to_le_bytes(high));
        assert_eq!(fixture.execute(&[0xcd, 0x20]), expected, "{low:#x}");
    }
    // Beyond the table.
    let mut fixture = Fixture::new(&[], 64);
    fixture.cpu().idtr.limit = 0x20e;
    assert_eq!(fixture.execute(&[0xcd, 0x20]), gp(0x102));
    // A stack that is not canonical.
    let mut fixture = Fixture::new(&[], 64);
    fixture.set_long_gate(0x20, gate(0x18, HANDLER, 0xee, 0), 0);
    fixture.write(TSS + 4, &0x8000_0000_0100_u64.to_le_bytes());
    fixture.enter_user();
    assert_eq!(fixture.execute(&[0xcd, 0x20]), Err(Exception::stack(0)));
}

#[test]
fn a_fault_while_a_contributory_one_is_delivered_is_a_double_fault() {
    let mut fixture = Fixture::new(&[], 32);
    // #GP's gate is absent, which is #NP; the handler of #DF is there.
    fixture.set_gate(13, gate(8, HANDLER, 0x0e, 0));
    fixture.set_gate(8, gate(8, HANDLER + 0x100, 0x8e, 0));
    assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0x10), CODE), Ok(()));
    assert_eq!(fixture.cpu().rip, HANDLER + 0x100);
    assert_eq!(fixture.stack::<3>(4), [0, CODE, 8]);
}

/// SDM vol. 3 table 6-5.
#[test]
fn exceptions_combine_as_the_table_says() {
    const DE: Exception = Exception::DIVIDE;
    const UD: Exception = Exception::INVALID_OPCODE;
    const GP: Exception = Exception::general_protection(0);
    const PF: Exception = Exception::page_fault(0);
    const DF: Exception = Exception::DOUBLE_FAULT;
    for (first, second, expected) in [
        (UD, GP, Some(13)),
        (UD, PF, Some(14)),
        (DE, GP, Some(8)),
        (GP, GP, Some(8)),
        (GP, PF, Some(14)),
        (GP, UD, Some(6)),
        (PF, GP, Some(8)),
        (PF, PF, Some(8)),
        (PF, UD, Some(6)),
        (DF, GP, None),
        (DF, PF, None),
    ] {
        let result = super::combine(&super::Event::exception(first, 0), super::Event::exception(second, 0));
        assert_eq!(result.map(|event| event.vector), expected, "{first:?} then {second:?}");
    }
}

#[test]
fn errors_found_while_an_interrupt_is_delivered_have_the_external_bit() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(11, gate(8, HANDLER, 0x8e, 0));
    fixture.set_gate(0x20, gate(8, HANDLER, 0x0e, 0));
    fixture.cpu().rip = CODE;
    assert_eq!(fixture.cpu().deliver_interrupt(0x20), Ok(()));
    assert_eq!(fixture.stack::<2>(4), [0x20 * 8 + 3, CODE]);
}

#[test]
fn an_empty_interrupt_table_is_a_triple_fault() {
    for bits in [32, 64] {
        let mut fixture = Fixture::new(&[], bits);
        assert_eq!(fixture.cpu().deliver_exception(Exception::INVALID_OPCODE, CODE), Err(Trap::SHUTDOWN));
    }
}

/// Puts the processor into virtual-8086 mode, at 0x800:0 (which is [`CODE`]).
fn enter_virtual_8086(fixture: &mut Fixture, iopl: u64) {
    let cpu = fixture.cpu();
    cpu.rflags = SET | VM | IF | iopl;
    cpu.cpl = 3;
    for segment in seg::ES..=seg::GS {
        cpu.segments[usize::from(segment)] = cpu.paragraph_segment(segment, 0x800 + u16::from(segment));
    }
    cpu.gpr[RSP] = 0x100;
    cpu.update_mode();
}

#[test]
fn virtual_8086_mode_is_left_and_returned_to_with_all_its_segments() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(13, gate(8, HANDLER, 0x8e, 0));
    enter_virtual_8086(&mut fixture, 0);
    let before = fixture.cpu().segments;
    assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), 0x12), Ok(()));
    assert_eq!(fixture.rsp(), INNER_STACK - 40);
    let flags = SET | VM | IF;
    assert_eq!(fixture.stack(4), [0, 0x12, 0x801, flags | RF, 0x100, 0x802, 0x800, 0x803, 0x804, 0x805]);
    assert_eq!((fixture.cpu().cpl, fixture.cpu().rflags), (0, SET));
    assert_eq!([seg::ES, seg::DS, seg::FS, seg::GS].map(|segment| fixture.selector(segment)), [0; 4]);
    // add esp, 4; iretd
    fixture.cpu().gpr[RSP] += 4;
    assert_eq!(fixture.execute(&[0xcf]), Ok(()));
    assert_eq!((fixture.cpu().cpl, fixture.cpu().rflags, fixture.cpu().rip), (3, flags, 0x12));
    assert_eq!((fixture.cpu().segments, fixture.rsp()), (before, 0x100));
}

#[test]
fn virtual_8086_programs_need_the_io_privilege_level_for_int_but_not_for_int3() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_gate(0x21, gate(8, HANDLER, 0xee, 0));
    fixture.set_gate(3, gate(8, HANDLER, 0xee, 0));
    enter_virtual_8086(&mut fixture, IOPL & 0x2000);
    assert_eq!(fixture.execute(&[0xcd, 0x21]), gp(0));
    assert_eq!(fixture.execute(&[0xcc]), Ok(()));
    enter_virtual_8086(&mut fixture, IOPL);
    assert_eq!(fixture.execute(&[0xcd, 0x21]), Ok(()));
    assert_eq!(fixture.cpu().rip, HANDLER);
}

#[test]
fn virtual_8086_mode_is_only_left_for_privilege_level_0() {
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_descriptor(FREE_SELECTOR, descriptor(0, 0xfffff, 0xc09e));
    fixture.set_gate(0x21, gate(FREE_SELECTOR, HANDLER, 0xee, 0));
    enter_virtual_8086(&mut fixture, IOPL);
    assert_eq!(fixture.execute(&[0xcd, 0x21]), gp(FREE_SELECTOR.into()));
}

#[test]
fn a_task_gate_hands_the_error_code_to_the_new_task() {
    use crate::protection::fixture::OTHER_TSS;
    let mut fixture = Fixture::new(&[], 32);
    fixture.set_descriptor(FREE_SELECTOR, descriptor(OTHER_TSS, 0x67, 0x89));
    fixture.set_gate(8, gate(FREE_SELECTOR, 0, 0x85, 0));
    for (offset, value) in [(32, HANDLER), (36, 2), (56, INNER_STACK), (76, 8), (80, 0x10), (84, 0x10)] {
        fixture.write(OTHER_TSS + offset, &(value as u32).to_le_bytes());
    }
    // Nothing can be pushed here: #SS, and #DF because there is no handler for it, which needs no stack.
    fixture.cpu().segments[usize::from(seg::SS)].limit = 0;
    fixture.set_gate(13, gate(8, HANDLER, 0x8e, 0));
    assert_eq!(fixture.cpu().deliver_exception(Exception::general_protection(0), CODE), Ok(()));
    assert_eq!((fixture.cpu().rip, fixture.rsp()), (HANDLER, INNER_STACK - 4));
    assert_eq!(fixture.stack::<1>(4), [0]);
    assert_eq!(fixture.cpu().tr.selector, FREE_SELECTOR);
    assert_eq!(fixture.read_u16(OTHER_TSS), TSS_SELECTOR);
    assert_eq!(fixture.read_u32(TSS + 32), CODE as u32);
}

proptest! {
    /// Whatever the tables hold, a delivery ends, and it ends in success or shutdown.
    #[test]
    fn no_table_makes_a_delivery_panic(
        tables in proptest::collection::vec(any::<u64>(), 96),
        kinds in proptest::collection::vec(0_u8..16, 64),
        vector in 0_u8..32,
        bits in proptest::sample::select(vec![16_u8, 32, 64]),
        user in any::<bool>(),
        virtual_8086 in any::<bool>(),
        base in any::<u32>(),
    ) {
        let mut fixture = Fixture::new(&[], bits);
        for (i, &raw) in tables.iter().take(64).enumerate() {
            // Mostly present gates that lead into the table's first entries.
            let kind = kinds[i];
            let raw = raw & !0xff80_fff8_0000 & !(0x1f << 40) | u64::from(kind) << 40 | u64::from(vector & 7) << 19;
            fixture.write(IDT + 8 * i as u64, &raw.to_le_bytes());
        }
        for (i, &raw) in tables[64..].iter().enumerate() {
            fixture.write(0x1000 + 8 * i as u64, &raw.to_le_bytes());
        }
        fixture.write(TSS, &tables[0].to_le_bytes());
        fixture.cpu().tr.base = u64::from(base) % 0x8000;
        if bits != 16 && user {
            fixture.enter_user();
            if bits == 32 && virtual_8086 {
                enter_virtual_8086(&mut fixture, 0);
            }
        }
        let exception = Exception::with_code(vector, 0);
        let result = fixture.cpu().deliver_exception(exception, CODE);
        prop_assert!(matches!(result, Ok(()) | Err(Trap::SHUTDOWN)), "{result:?}");
    }
}

#[test]
fn the_first_delivery_after_power_on_works_without_tables() {
    let mut fixture = Fixture::new(&[], 16);
    fixture.cpu().reset();
    fixture.cpu().segments[usize::from(seg::SS)] = Segment { base: 0, limit: 0xffff, attributes: 0x93, selector: 0 };
    fixture.cpu().gpr[RSP] = STACK;
    fixture.write(2 * 4, &[0x00, 0x90, 0, 0]);
    assert_eq!(fixture.cpu().deliver_nmi(), Ok(()));
    assert!(!fixture.cpu().cr0_has(Cr0::PE));
    assert_eq!(fixture.stack::<2>(2), [0xfff0, 0xf000]);
}
