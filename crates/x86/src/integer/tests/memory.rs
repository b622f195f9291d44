//! Moves, locked instructions, bit strings and string instructions.

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::{exception, execute, peek, poke};
use crate::{
    engine::testing::{DATA, Machine, RAM, run},
    integer::flags::{CF, DF, ZF},
    state::{Request, reg, seg},
    trap::{Exception, Trap},
};

const RAX: usize = reg::RAX as usize;
const RCX: usize = reg::RCX as usize;
const RDX: usize = reg::RDX as usize;
const RBX: usize = reg::RBX as usize;
const RSI: usize = reg::RSI as usize;
const RDI: usize = reg::RDI as usize;

/// Where a test machine's RAM ends and nothing is mapped in page tables that are cut short.
const UNMAPPED: u64 = 0x20_0000;

/// A 64-bit machine whose page at [`UNMAPPED`] and those after it are not present.
fn with_hole() -> Machine {
    let mut machine = Machine::new(&[], 64);
    let entry = RAM - 4096 + 8;
    machine.memory.write(entry, &0_u64.to_le_bytes());
    machine.cpu().cr2 = 0;
    machine
}

#[test]
fn moves_extend_as_named() {
    let mut machine = Machine::new(&[], 64);
    poke(&machine, 0x8182_8384_8586_8788);
    for (code, expected) in [
        (&[0x0f, 0xb6, 0x06][..], 0x88_u64),                         // MOVZX EAX, BYTE [RSI]
        (&[0x0f, 0xbe, 0x06], 0xffff_ff88),                          // MOVSX EAX, BYTE [RSI]
        (&[0x48, 0x0f, 0xbe, 0x06], 0xffff_ffff_ffff_ff88),          // MOVSX RAX, BYTE [RSI]
        (&[0x48, 0x0f, 0xb7, 0x06], 0x8788),                         // MOVZX RAX, WORD [RSI]
        (&[0x48, 0x0f, 0xbf, 0x06], 0xffff_ffff_ffff_8788),          // MOVSX RAX, WORD [RSI]
        (&[0x48, 0x63, 0x06], 0xffff_ffff_8586_8788),                // MOVSXD RAX, [RSI]
        (&[0x63, 0x06], 0x8586_8788),                                // MOVSXD EAX, [RSI]
        (&[0x66, 0x8b, 0x06], 0xffff_ffff_ffff_8788),                // MOV AX, [RSI]
        (&[0x48, 0xc7, 0xc0, 0xfe, 0xff, 0xff, 0xff], u64::MAX - 1), // MOV RAX, -2
        (&[0x48, 0x8d, 0x44, 0x4e, 0x10], DATA + 0x10 + 2 * 5),      // LEA RAX, [RSI + 2 * RCX + 16]
        (&[0x66, 0x8d, 0x06], 0xffff_ffff_ffff_4000),                // LEA AX, [RSI]
    ] {
        machine.cpu().gpr[RAX] = u64::MAX;
        machine.cpu().gpr[RCX] = 5;
        execute(&mut machine, code).expect("no trap");
        assert_eq!(machine.cpu().gpr[RAX], expected, "{code:02x?}");
    }
}

#[test]
fn accumulator_widens() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 0x1111_2222_8000_7f80;
    for (code, rax) in
        [(&[0x66, 0x98][..], 0x1111_2222_8000_ff80_u64), (&[0x98], 0xffff_ff80), (&[0x48, 0x98], 0xffff_ffff_ffff_ff80)]
    {
        execute(&mut machine, code).expect("no trap");
        assert_eq!(machine.cpu().gpr[RAX], rax);
    }
    execute(&mut machine, &[0x48, 0x99]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RDX], u64::MAX);
    execute(&mut machine, &[0x99]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RDX], 0xffff_ffff);
}

#[test]
fn xlat_indexes_by_al_alone() {
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(DATA + 0xfe, &[0x77]);
    machine.cpu().gpr[RBX] = DATA;
    machine.cpu().gpr[RAX] = 0xffff_fffe;
    execute(&mut machine, &[0xd7]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 0xffff_ff77);
}

#[test]
fn exchanges_swap_in_either_direction_of_encoding() {
    let mut machine = Machine::new(&[], 64);
    poke(&machine, 0x1111_1111_2222_2222);
    machine.cpu().gpr[RAX] = 0x3333_3333_4444_4444;
    execute(&mut machine, &[0x87, 0x06]).expect("no trap"); // XCHG [RSI], EAX
    assert_eq!((machine.cpu().gpr[RAX], peek(&machine)), (0x2222_2222, 0x1111_1111_4444_4444));
    machine.cpu().gpr[RCX] = 7;
    execute(&mut machine, &[0x48, 0x91]).expect("no trap"); // XCHG RAX, RCX
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RCX]), (7, 0x2222_2222));
}

#[test]
fn compare_and_exchange_tells_what_it_found() {
    for lock in [false, true] {
        let mut machine = Machine::new(&[], 64);
        let code = if lock { &[0xf0, 0x48, 0x0f, 0xb1, 0x0e][..] } else { &[0x48, 0x0f, 0xb1, 0x0e] };
        poke(&machine, 5);
        machine.cpu().gpr[RAX] = 4;
        machine.cpu().gpr[RCX] = 9;
        execute(&mut machine, code).expect("no trap");
        assert_eq!((peek(&machine), machine.cpu().gpr[RAX], machine.cpu().rflags & (ZF | CF)), (5, 5, CF));
        execute(&mut machine, code).expect("no trap");
        assert_eq!((peek(&machine), machine.cpu().gpr[RAX], machine.cpu().rflags & (ZF | CF)), (9, 5, ZF));
    }
}

#[test]
fn sixteen_bytes_are_exchanged_only_if_aligned() {
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(DATA, &(1_u128 << 64 | 2).to_le_bytes());
    let cpu = machine.cpu();
    (cpu.gpr[RDX], cpu.gpr[RAX], cpu.gpr[RCX], cpu.gpr[RBX]) = (1, 2, 3, 4);
    let code = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];
    execute(&mut machine, &code).expect("no trap");
    assert_eq!(machine.read::<16>(DATA), (3_u128 << 64 | 4).to_le_bytes());
    assert_eq!(machine.cpu().rflags & ZF, ZF);
    execute(&mut machine, &code).expect("no trap");
    assert_eq!((machine.cpu().gpr[RDX], machine.cpu().gpr[RAX]), (3, 4));
    assert_eq!(machine.cpu().rflags & ZF, 0);
    machine.cpu().gpr[RSI] = DATA + 8;
    assert_eq!(exception(&mut machine, &code), Exception::general_protection(0));
}

#[test]
fn exchange_and_add_returns_the_old_value() {
    let mut machine = Machine::new(&[], 64);
    poke(&machine, 40);
    machine.cpu().gpr[RAX] = 2;
    execute(&mut machine, &[0xf0, 0x48, 0x0f, 0xc1, 0x06]).expect("no trap");
    assert_eq!((peek(&machine), machine.cpu().gpr[RAX]), (42, 40));
    // XADD RAX, RAX doubles.
    execute(&mut machine, &[0x48, 0x0f, 0xc1, 0xc0]).expect("no trap");
    assert_eq!(machine.cpu().gpr[RAX], 80);
}

#[test]
fn bit_offsets_reach_before_and_beyond_the_operand() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RSI] = DATA + 0x100;
    for (offset, byte, bit) in [(1000_i64, 125_i64, 0), (-1, -1, 7), (-64, -8, 0), (63, 7, 7)] {
        machine.cpu().gpr[RAX] = offset as u64;
        let address = (DATA as i64 + 0x100 + byte) as u64;
        // LOCK BTS [RSI], RAX twice, then BTC
        for expected in [0, CF] {
            execute(&mut machine, &[0xf0, 0x48, 0x0f, 0xab, 0x06]).expect("no trap");
            assert_eq!(machine.cpu().rflags & CF, expected);
            assert_eq!(machine.read::<1>(address), [1 << bit]);
        }
        execute(&mut machine, &[0x48, 0x0f, 0xbb, 0x06]).expect("no trap");
        assert_eq!(machine.read::<1>(address), [0]);
    }
    // An immediate stays inside: BT DWORD [RSI], 33 tests bit 1.
    machine.memory.write(DATA + 0x100, &[2]);
    execute(&mut machine, &[0x0f, 0xba, 0x26, 33]).expect("no trap");
    assert_eq!(machine.cpu().rflags & CF, CF);
}

#[test]
fn locked_sums_of_two_threads_do_not_get_lost() {
    // LOCK INC QWORD [RSI]; LOOP
    let code = [0xf0, 0x48, 0xff, 0x06, 0xe2, 0xfa];
    let mut first = Machine::new(&code, 64);
    let vcpu = first.second_processor();
    let mut second = Machine {
        vcpu,
        ram: std::sync::Arc::clone(&first.ram),
        bus: std::sync::Arc::clone(&first.bus),
        memory: std::sync::Arc::clone(&first.memory),
        code_epoch: std::sync::Arc::clone(&first.code_epoch),
    };
    first.cpu().gpr[RCX] = 20_000;
    second.cpu().gpr[RCX] = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| second.run());
        first.run();
    });
    assert_eq!(peek(&first), 40_000);
}

#[test]
fn a_repeated_move_stops_at_the_page_that_is_missing() {
    let mut machine = with_hole();
    let data: Vec<u8> = (0..=255).collect();
    machine.memory.write(DATA, &data);
    let cpu = machine.cpu();
    cpu.gpr[RDI] = UNMAPPED - 100;
    cpu.gpr[RCX] = 200;
    // REP MOVSB
    let raised = exception(&mut machine, &[0xf3, 0xa4]);
    assert_eq!(raised, Exception::page_fault(2));
    let cpu = machine.cpu();
    assert_eq!(cpu.cr2, UNMAPPED);
    assert_eq!((cpu.gpr[RCX], cpu.gpr[RSI], cpu.gpr[RDI]), (100, DATA + 100, UNMAPPED));
    assert_eq!(machine.read::<100>(UNMAPPED - 100)[..], data[..100]);
}

#[test]
fn an_element_across_a_missing_page_is_not_half_done() {
    let mut machine = with_hole();
    let cpu = machine.cpu();
    cpu.gpr[RAX] = u64::MAX;
    cpu.gpr[RDI] = UNMAPPED - 12;
    cpu.gpr[RCX] = 3;
    // REP STOSQ
    assert_eq!(exception(&mut machine, &[0xf3, 0x48, 0xab]), Exception::page_fault(2));
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RCX], cpu.gpr[RDI]), (2, UNMAPPED - 4));
    assert_eq!(machine.read::<4>(UNMAPPED - 4), [0; 4]);
}

#[test]
fn a_repetition_of_none_touches_nothing() {
    let mut machine = with_hole();
    machine.cpu().gpr[RDI] = UNMAPPED;
    machine.cpu().rflags = 2 | ZF;
    for code in [&[0xf3, 0xa4][..], &[0xf3, 0xaa], &[0xf3, 0xa6], &[0xf2, 0xae]] {
        assert_eq!(execute(&mut machine, code), Ok(()));
    }
    assert_eq!(machine.cpu().rflags, 2 | ZF);
}

#[test]
fn a_repetition_makes_way_and_goes_on() {
    let mut machine = Machine::new(&[0xf3, 0xaa], 64);
    machine.cpu().gpr[RAX] = 0x5a;
    machine.cpu().gpr[RDI] = 0x10_0000;
    machine.cpu().gpr[RCX] = 20_000;
    machine.cpu().requests.ask(Request::INTERRUPT);
    assert_eq!(execute(&mut machine, &[0xf3, 0xaa]), Err(Trap::AGAIN));
    let left = machine.cpu().gpr[RCX];
    assert!(left < 20_000 && left > 0);
    assert_eq!(machine.cpu().gpr[RDI], 0x10_0000 + 20_000 - left);
    machine.cpu().requests.take(Request::all());
    assert_eq!(execute(&mut machine, &[0xf3, 0xaa]), Ok(()));
    assert!(machine.read::<20_000>(0x10_0000).iter().all(|&byte| byte == 0x5a));
    assert_eq!(machine.read::<1>(0x10_0000 + 20_000), [0]);
}

#[test]
fn single_steps_stop_after_each_element() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().rflags |= 0x100;
    machine.cpu().gpr[RCX] = 3;
    assert_eq!(execute(&mut machine, &[0xf3, 0xaa]), Err(Trap::AGAIN));
    assert_eq!(machine.cpu().gpr[RCX], 2);
}

#[test]
fn scans_and_comparisons_stop_where_asked() {
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(DATA, b"hello, world");
    machine.memory.write(DATA + 0x100, b"hello, moon");
    let cpu = machine.cpu();
    cpu.gpr[RCX] = 100;
    cpu.gpr[RAX] = u64::from(b',');
    // REPNE SCASB
    execute(&mut machine, &[0xf2, 0xae]).expect("no trap");
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RDI], cpu.gpr[RCX], cpu.rflags & ZF), (DATA + 6, 94, ZF));
    cpu.gpr[RCX] = 100;
    cpu.gpr[RSI] = DATA;
    cpu.gpr[RDI] = DATA + 0x100;
    // REPE CMPSB: 'w' is above 'm'
    execute(&mut machine, &[0xf3, 0xa6]).expect("no trap");
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RSI], cpu.gpr[RCX], cpu.rflags & (ZF | CF)), (DATA + 8, 92, 0));
}

#[test]
fn small_addresses_wrap_inside_their_segment() {
    let mut machine = Machine::new(&[], 16);
    let cpu = machine.cpu();
    cpu.segments[usize::from(seg::ES)].base = 0x1_0000;
    cpu.gpr[RDI] = 0xaaaa_fffc;
    cpu.gpr[RCX] = 0xbbbb_0008;
    cpu.gpr[RAX] = 0x33;
    // REP STOSB
    execute(&mut machine, &[0xf3, 0xaa]).expect("no trap");
    assert_eq!((machine.cpu().gpr[RDI], machine.cpu().gpr[RCX]), (0xaaaa_0004, 0xbbbb_0000));
    assert_eq!(machine.read::<6>(0x1_fffa), [0, 0, 0x33, 0x33, 0x33, 0x33]);
    assert_eq!(machine.read::<6>(0x1_0000), [0x33, 0x33, 0x33, 0x33, 0, 0]);
    assert_eq!(machine.read::<1>(0x2_0000), [0]);
}

#[test]
fn the_source_segment_can_be_overridden_and_the_destination_cannot() {
    let mut machine = Machine::new(&[], 64);
    machine.memory.write(DATA + 0x800, &[0x99]);
    machine.cpu().segments[usize::from(seg::GS)].base = 0x800;
    machine.cpu().gpr[RDI] = DATA + 0x10;
    // GS MOVSB
    execute(&mut machine, &[0x65, 0xa4]).expect("no trap");
    assert_eq!(machine.read::<1>(DATA + 0x10), [0x99]);
}

#[test]
fn code_can_build_a_string_and_find_its_end() {
    // MOV ECX, 64; MOV AL, 'x'; REP STOSB; MOV BYTE [RDI], 0; MOV RDI, RSI; XOR EAX, EAX; MOV RCX, -1; REPNE SCASB;
    // NOT RCX; DEC RCX
    let code = [
        0xb9, 64, 0, 0, 0, 0xb0, b'x', 0xf3, 0xaa, 0xc6, 0x07, 0x00, 0x48, 0x89, 0xf7, 0x31, 0xc0, 0x48, 0xc7, 0xc1,
        0xff, 0xff, 0xff, 0xff, 0xf2, 0xae, 0x48, 0xf7, 0xd1, 0x48, 0xff, 0xc9,
    ];
    let cpu = run(&code, 64, |_| {});
    assert_eq!(cpu.gpr[RCX], 64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn repeated_moves_equal_moves_one_by_one(
        from in 0..5000_u64, distance in -40..40_i64, far in any::<bool>(), count in 0..3000_u64, size in 0..4_u32,
        down in any::<bool>()
    ) {
        let size = 1_u64 << size;
        let mut machine = Machine::new(&[], 64);
        let start = 0x10_0000;
        let content: Vec<u8> = (0..40_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        machine.memory.write(start, &content);
        let count = count / size;
        // Far enough from both ends of the buffer for what moves down from it.
        let from = 15_000 + from;
        let to = if far { from.wrapping_add_signed(distance * 201) } else { from.wrapping_add_signed(distance) };
        let cpu = machine.cpu();
        (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]) = (start + from, start + to, count);
        cpu.rflags = 2 | if down { DF } else { 0 };
        let mut expected = content;
        let (mut source, mut target) = (from as usize, to as usize);
        for _ in 0..count {
            let element = expected[source..source + size as usize].to_vec();
            expected[target..target + size as usize].copy_from_slice(&element);
            if down {
                (source, target) = (source - size as usize, target - size as usize);
            } else {
                (source, target) = (source + size as usize, target + size as usize);
            }
        }
        let code: &[u8] = match size {
            1 => &[0xf3, 0xa4],
            2 => &[0xf3, 0x66, 0xa5],
            4 => &[0xf3, 0xa5],
            _ => &[0xf3, 0x48, 0xa5],
        };
        prop_assert_eq!(execute(&mut machine, code), Ok(()));
        let mut found = vec![0; expected.len()];
        machine.memory.read(start, &mut found);
        prop_assert_eq!(found == expected, true, "size {} from {} to {} count {}", size, from, to, count);
        let cpu = machine.cpu();
        prop_assert_eq!(
            (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]),
            (start + source as u64, start + target as u64, 0)
        );
    }
}

#[test]
fn a_change_across_pages_tells_of_the_second_page_from_its_first_byte() {
    let mut machine = with_hole();
    machine.cpu().gpr[RSI] = UNMAPPED - 2;
    // add qword [rsi], rax
    assert_eq!(exception(&mut machine, &[0x48, 0x01, 0x06]), Exception::page_fault(2));
    assert_eq!(machine.cpu().cr2, UNMAPPED);
}

#[test]
fn an_operand_that_ends_in_no_canonical_address_is_no_page_fault() {
    let mut machine = with_hole();
    machine.cpu().gpr[RSI] = 0x7fff_ffff_ffff;
    // mov rax, [rsi]; add [rsi], rax
    for code in [[0x48, 0x8b, 0x06], [0x48, 0x01, 0x06]] {
        assert_eq!(exception(&mut machine, &code), Exception::general_protection(0));
    }
}

#[test]
fn a_failed_exchange_leaves_the_upper_half_of_its_register() {
    let mut machine = Machine::new(&[], 64);
    machine.cpu().gpr[RAX] = 1;
    machine.cpu().gpr[RBX] = 0xffff_ffff_0000_0002;
    // cmpxchg ebx, ecx
    assert_eq!(execute(&mut machine, &[0x0f, 0xb1, 0xcb]), Ok(()));
    assert_eq!((machine.cpu().gpr[RBX], machine.cpu().gpr[RAX]), (0xffff_ffff_0000_0002, 2));
}

#[test]
fn a_repeated_comparison_that_faults_leaves_the_flags_of_before() {
    let mut machine = with_hole();
    let cpu = machine.cpu();
    (cpu.gpr[RSI], cpu.gpr[RDI], cpu.gpr[RCX]) = (DATA, UNMAPPED - 1, 2);
    cpu.rflags = 2 | CF;
    // repe cmpsb
    assert_eq!(exception(&mut machine, &[0xf3, 0xa6]), Exception::page_fault(0));
    let cpu = machine.cpu();
    assert_eq!((cpu.gpr[RCX], cpu.rflags), (1, 2 | CF));
}

#[test]
fn a_comparison_asks_for_its_destination_first() {
    let mut machine = with_hole();
    (machine.cpu().gpr[RSI], machine.cpu().gpr[RDI]) = (UNMAPPED + 8, UNMAPPED);
    // cmpsb
    assert_eq!(exception(&mut machine, &[0xa6]), Exception::page_fault(0));
    assert_eq!(machine.cpu().cr2, UNMAPPED);
}
