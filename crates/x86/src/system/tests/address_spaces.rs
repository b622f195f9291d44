//! Who may use which pages, what address spaces are called, how far they reach, and the deadline of the local timer.

use super::*;

/// A machine of the model that has everything.
fn newest(bits: u8) -> Machine {
    let mut machine = Machine::new(&[], bits);
    let model = CpuModel::named("max").expect("there is one");
    machine.cpu().cpuid =
        model.table(Topology { apic_id: 0, package: Package::new(1, 1), tsc_khz: 1_000_000, apic_khz: 1_000_000 });
    machine.cpu().configure_paging();
    machine.cpu().update_mode();
    machine
}

/// MOV CR4, RAX.
fn write_cr4(machine: &mut Machine, value: u64) -> Result<(), Trap> {
    machine.cpu().gpr[RAX] = value;
    execute(machine, &[0x0f, 0x22, 0xe0])
}

const STAC: [u8; 3] = [0x0f, 0x01, 0xcb];
const CLAC: [u8; 3] = [0x0f, 0x01, 0xca];

#[test]
fn the_alignment_check_flag_lets_supervisors_use_user_pages() {
    let mut machine = newest(64);
    // The test machine's pages are the user's: the kernel's are elsewhere.
    let cr4 = machine.cpu().cr4 | Cr4::SMAP.bits();
    assert!(machine.cpu().read::<u8>(DATA).is_ok());
    assert_eq!(write_cr4(&mut machine, cr4), Err(Trap::NEXT));
    for _ in 0..2 {
        assert_eq!(machine.cpu().read::<u8>(DATA), Err(Trap::EXCEPTION));
        assert_eq!(machine.cpu().exception, Exception::page_fault(1));
        assert_eq!(execute(&mut machine, &STAC), Ok(()));
        assert_ne!(machine.cpu().rflags & Rflags::AC.bits(), 0);
        assert!(machine.cpu().read::<u8>(DATA).is_ok() && machine.cpu().write::<u8>(DATA, 1).is_ok());
        // What the processor does by itself has no such override.
        assert!(machine.cpu().read_system::<u8>(DATA).is_err());
        assert_eq!(execute(&mut machine, &CLAC), Ok(()));
        assert_eq!(machine.cpu().rflags & Rflags::AC.bits(), 0);
    }
    machine.cpu().cpl = 3;
    machine.cpu().update_mode();
    assert!(machine.cpu().read::<u8>(DATA).is_ok());
    assert_eq!(exception(&mut machine, &STAC), UD);
    assert_eq!(exception(&mut machine, &CLAC), UD);
}

#[test]
fn flags_that_are_popped_override_too() {
    // pushfq; or dword [rsp], AC; popfq; mov al, [rdi]
    let code = [0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x8a, 0x07];
    let mut machine = Machine::new(&code, 64);
    // The code and stack are the kernel's, the data is the user's: the tables map the first 2 MiB apart.
    let (tables, page_table) = (crate::engine::testing::RAM - 4096, 0x40_0000_u64);
    for page in 0..512 {
        let user = if page << 12 == DATA { 7 } else { 3 };
        machine.memory.write(page_table + 8 * page, &(page << 12 | user).to_le_bytes());
    }
    machine.memory.write(tables, &(page_table | 7).to_le_bytes());
    machine.cpu().cr4 |= (Cr4::SMAP | Cr4::SMEP).bits();
    assert_eq!(machine.run(), Stop::Halted);
    machine.memory.write(CODE + 8, &[0x58]); // pop rax
    machine.cpu().rip = CODE;
    machine.cpu().rflags = 2;
    machine.vcpu.start();
    assert_eq!(machine.run(), Stop::Exception(Exception::page_fault(1)));
    assert_eq!((machine.cpu().rip, machine.cpu().cr2), (CODE + 9, DATA));
}

#[test]
fn rights_of_keys_are_for_everybody_once_they_are_switched_on() {
    const RDPKRU: [u8; 3] = [0x0f, 0x01, 0xee];
    const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
    let mut machine = newest(64);
    assert_eq!(exception(&mut machine, &RDPKRU), UD);
    assert_eq!(exception(&mut machine, &WRPKRU), UD);
    let cr4 = machine.cpu().cr4 | Cr4::PKE.bits();
    assert_eq!(write_cr4(&mut machine, cr4), Err(Trap::NEXT));
    machine.cpu().cpl = 3;
    machine.cpu().update_mode();
    (machine.cpu().gpr[RAX], machine.cpu().gpr[RCX], machine.cpu().gpr[RDX]) = (0x5_5555_5554, 0, 0);
    assert_eq!(execute(&mut machine, &WRPKRU), Ok(()));
    (machine.cpu().gpr[RAX], machine.cpu().gpr[RDX]) = (u64::MAX, u64::MAX);
    assert_eq!(execute(&mut machine, &RDPKRU), Ok(()));
    assert_eq!((machine.cpu().gpr[RAX], machine.cpu().gpr[RDX]), (0x5555_5554, 0));
    machine.cpu().gpr[RDX] = 1;
    assert_eq!(exception(&mut machine, &WRPKRU), GP);
    (machine.cpu().gpr[RCX], machine.cpu().gpr[RDX]) = (1, 0);
    assert_eq!(exception(&mut machine, &WRPKRU), GP);
    assert_eq!(exception(&mut machine, &RDPKRU), GP);
    // CPUID.7.ECX.OSPKE
    (machine.cpu().gpr[RAX], machine.cpu().gpr[RCX]) = (7, 0);
    assert_eq!(execute(&mut machine, &[0x0f, 0xa2]), Ok(()));
    assert_ne!(machine.cpu().gpr[RCX] & 1 << 4, 0);
}

#[test]
fn identifiers_of_address_spaces_are_switched_on_in_long_mode_by_the_first() {
    let mut machine = newest(32);
    let cr4 = machine.cpu().cr4 | Cr4::PCIDE.bits();
    assert_eq!(write_cr4(&mut machine, cr4), Err(Trap::EXCEPTION));
    let mut machine = newest(64);
    let (cr3, cr4) = (machine.cpu().cr3, machine.cpu().cr4 | Cr4::PCIDE.bits());
    let write_cr3 = |machine: &mut Machine, value| {
        machine.cpu().gpr[RAX] = value;
        execute(machine, &[0x0f, 0x22, 0xd8])
    };
    assert_eq!(write_cr3(&mut machine, cr3 | 1 << 63), Err(Trap::EXCEPTION));
    assert_eq!(write_cr3(&mut machine, cr3 | 8), Err(Trap::NEXT));
    assert_eq!(write_cr4(&mut machine, cr4), Err(Trap::EXCEPTION));
    assert_eq!(write_cr3(&mut machine, cr3), Err(Trap::NEXT));
    assert_eq!(write_cr4(&mut machine, cr4), Err(Trap::NEXT));
    assert_eq!(write_cr3(&mut machine, cr3 | 0xabc | 1 << 63), Err(Trap::NEXT));
    assert_eq!(machine.cpu().cr3, cr3 | 0xabc);
    assert!(machine.cpu().read::<u8>(DATA).is_ok());
    // Paging cannot be left with them on.
    machine.cpu().gpr[RAX] = machine.cpu().cr0 & !Cr0::PG.bits();
    assert_eq!(exception(&mut machine, &[0x0f, 0x22, 0xc0]), GP);
}

#[test]
fn invpcid_checks_what_it_is_asked_for() {
    // INVPCID RAX, [RSI]
    const INVPCID: [u8; 5] = [0x66, 0x0f, 0x38, 0x82, 0x06];
    let mut machine = newest(64);
    for (kind, identifier, linear, identifiers, good) in [
        (0, 0, 0x20_0000, false, true),
        (0, 1, 0x20_0000, false, false),
        (0, 1, 0x20_0000, true, true),
        (0, 0x1000, 0x20_0000, true, false),
        (0, 0, 1 << 63, true, false),
        (1, 7, 1 << 63, true, true),
        (1, 7, 0, false, false),
        (2, 0, 0, false, true),
        (3, 0xfff, 0, false, true),
        (3, 1 << 32, 0, true, false),
        (4, 0, 0, true, false),
        (1 << 32, 0, 0, true, false),
    ] {
        let cr4 = machine.cpu().cr4 & !Cr4::PCIDE.bits();
        machine.cpu().cr4 = cr4 | if identifiers { Cr4::PCIDE.bits() } else { 0 };
        machine.memory.write(DATA, &u64::to_le_bytes(identifier));
        machine.memory.write(DATA + 8, &u64::to_le_bytes(linear));
        machine.cpu().gpr[RAX] = kind;
        let result = execute(&mut machine, &INVPCID);
        assert_eq!(result, Err(if good { Trap::NEXT } else { Trap::EXCEPTION }), "{kind} {identifier} {linear:#x}");
    }
    machine.cpu().cpl = 3;
    assert_eq!(exception(&mut machine, &INVPCID), GP);
}

#[test]
fn every_kind_of_invpcid_makes_a_changed_table_count() {
    for kind in 0..4 {
        let mut machine = newest(64);
        let entry = crate::engine::testing::RAM - 4096 + 8;
        assert!(machine.cpu().read::<u8>(0x20_0000).is_ok());
        machine.memory.write(entry, &0_u64.to_le_bytes());
        machine.memory.write(DATA, &0_u64.to_le_bytes());
        machine.memory.write(DATA + 8, &0x20_0000_u64.to_le_bytes());
        machine.cpu().gpr[RAX] = kind;
        assert_eq!(execute(&mut machine, &[0x66, 0x0f, 0x38, 0x82, 0x06]), Err(Trap::NEXT));
        assert!(machine.cpu().read::<u8>(0x20_0000).is_err(), "{kind}");
    }
}

#[test]
fn the_levels_of_paging_are_chosen_before_long_mode() {
    let mut machine = newest(64);
    let cr4 = machine.cpu().cr4;
    assert_eq!(write_cr4(&mut machine, cr4 | Cr4::LA57.bits()), Err(Trap::EXCEPTION));
    // Registers hold wider addresses all the same.
    assert_eq!(write_msr(&mut machine, 0xc000_0082, 1 << 55), Ok(()));
    assert_eq!(write_msr(&mut machine, 0xc000_0082, 1 << 56), Err(GP));
    let mut machine = newest(32);
    let cr4 = machine.cpu().cr4;
    assert_eq!(write_cr4(&mut machine, cr4 | Cr4::LA57.bits()), Err(Trap::NEXT));
}

#[test]
fn the_deadline_is_in_the_guests_time() {
    let mut machine = newest(64);
    assert_eq!(write_msr(&mut machine, 0x10, 1 << 40), Ok(()));
    assert_eq!(write_msr(&mut machine, 0x6e0, (1 << 40) + 5000), Ok(()));
    let (deadline, at) = machine.bus.deadline();
    assert_eq!((deadline, read_msr(&mut machine, 0x6e0)), ((1 << 40) + 5000, Ok((1 << 40) + 5000)));
    assert!((1..10_000).contains(&at), "{at}");
    // The guest's time goes on: the deadline is the same, and reached later or at once.
    assert_eq!(write_msr(&mut machine, 0x10, 0), Ok(()));
    assert!(machine.bus.deadline().1 > 1 << 40);
    assert_eq!(write_msr(&mut machine, 0x10, 1 << 50), Ok(()));
    assert!(machine.bus.deadline().1 < 10_000);
    machine.cpu().cpuid.set_feature(Feature::TSC_DEADLINE, false);
    assert_eq!(write_msr(&mut machine, 0x6e0, 1), Err(GP));
}
