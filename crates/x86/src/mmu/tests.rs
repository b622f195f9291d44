//! Every page size and permission, against rules written down a second time.

use std::ops::ControlFlow;

use proptest::prelude::*;
use rhea_page_tables::{Memory, Page, Table, Visitor};

use crate::{
    access::{Access, Privilege},
    engine::testing::{Machine, RAM},
    state::{CpuState, Cr0, Cr4, Efer},
    system::cpuid::{Feature, Leaf},
    trap::{Exception, Trap},
};

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const NX: u64 = 1 << 63;

/// Tables, one after another; pages are below 16 MiB.
const TABLES: u64 = 0x80_0000;
/// The linear address tried; its indices differ at every level.
const LINEAR: u64 = (1 << 39) | (2 << 30) | (3 << 21) | (4 << 12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Narrow,
    Pae,
    Long,
    /// Long mode with five levels.
    Long5,
}

/// A way of mapping one page: where its entries are, the last one last.
struct Mapping {
    machine: Machine,
    linear: u64,
    entries: Vec<u64>,
    entry_size: usize,
    page: u64,
}

impl Mapping {
    /// A page of 2 to the power of `size` bytes at the largest fitting address below 16 MiB, everything allowed.
    fn new(scheme: Scheme, size: u32) -> Self {
        let mut machine = Machine::new(&[], 32);
        let shifts: &[u32] = match (scheme, size) {
            (Scheme::Narrow, 22) => &[22],
            (Scheme::Narrow, _) => &[22, 12],
            (Scheme::Pae, 21) => &[30, 21],
            (Scheme::Pae, _) => &[30, 21, 12],
            (Scheme::Long, 30) => &[39, 30],
            (Scheme::Long, 21) => &[39, 30, 21],
            (Scheme::Long, _) => &[39, 30, 21, 12],
            (Scheme::Long5, 30) => &[48, 39, 30],
            (Scheme::Long5, 21) => &[48, 39, 30, 21],
            (Scheme::Long5, _) => &[48, 39, 30, 21, 12],
        };
        let (entry_size, index_bits) = if scheme == Scheme::Narrow { (4, 10) } else { (8, 9) };
        let linear = match scheme {
            Scheme::Long => LINEAR,
            Scheme::Long5 => LINEAR | 5 << 48,
            _ => LINEAR & 0xffff_ffff,
        };
        let page = match size {
            30 => 0,
            22 => 0x40_0000,
            21 => 0x20_0000,
            _ => 0x40_5000,
        };
        let entries: Vec<u64> = shifts
            .iter()
            .enumerate()
            .map(|(i, shift)| TABLES + 0x1000 * i as u64 + entry_size * ((linear >> shift) & ((1 << index_bits) - 1)))
            .collect();
        let cpu = machine.cpu();
        cpu.cpuid.set(0x8000_0001, 0, Leaf { edx: 1 << 26, ..Leaf::default() });
        cpu.cpuid.set(0x8000_0008, 0, Leaf { eax: 40, ..Leaf::default() });
        cpu.configure_paging();
        cpu.cr0 |= (Cr0::PG | Cr0::WP).bits();
        cpu.cr3 = TABLES;
        cpu.cr4 |= Cr4::PGE.bits();
        match scheme {
            Scheme::Narrow => cpu.cr4 |= Cr4::PSE.bits(),
            Scheme::Pae => cpu.cr4 |= Cr4::PAE.bits(),
            Scheme::Long | Scheme::Long5 => {
                cpu.cr4 |= Cr4::PAE.bits();
                if scheme == Scheme::Long5 {
                    cpu.cr4 |= Cr4::LA57.bits();
                }
                cpu.efer |= (Efer::LME | Efer::LMA).bits();
            }
        }
        if scheme != Scheme::Narrow {
            cpu.efer |= Efer::NXE.bits();
        }
        let mut mapping = Self { machine, linear, entries, entry_size: entry_size as usize, page };
        let last = mapping.entries.len() - 1;
        for level in 0..=last {
            let next = TABLES + 0x1000 * (level as u64 + 1);
            let value = match (scheme, level) {
                _ if level == last => page | P | W | U | if size > 12 { PS } else { 0 },
                (Scheme::Pae, 0) => next | P,
                _ => next | P | W | U,
            };
            mapping.set(level, value);
        }
        mapping.cpu().paging_changed().unwrap();
        mapping
    }

    fn cpu(&mut self) -> &mut CpuState {
        self.machine.cpu()
    }

    /// Levels whose entries have permissions: not PAE's directory pointers.
    fn levels(&self, scheme: Scheme) -> std::ops::Range<usize> {
        usize::from(scheme == Scheme::Pae)..self.entries.len()
    }

    fn set(&mut self, level: usize, value: u64) {
        self.machine.memory.write(self.entries[level], &value.to_le_bytes()[..self.entry_size]);
    }

    fn get(&self, level: usize) -> u64 {
        let mut bytes = [0; 8];
        self.machine.memory.read(self.entries[level], &mut bytes[..self.entry_size]);
        u64::from_le_bytes(bytes)
    }

    /// Translates an address a little into the page; the error is the page fault's code.
    fn translate(&mut self, access: Access, privilege: Privilege) -> Result<u64, u32> {
        let linear = self.linear + 0x123;
        let cpu = self.cpu();
        cpu.cr2 = 0;
        match cpu.translate(linear, access, privilege) {
            Ok(address) => Ok(address),
            Err(trap) => {
                assert_eq!(trap, Trap::EXCEPTION);
                assert_eq!((cpu.exception.vector, cpu.cr2), (14, linear));
                Err(cpu.exception.error_code.unwrap())
            }
        }
    }
}

const ALL: [(Scheme, u32); 10] = [
    (Scheme::Narrow, 12),
    (Scheme::Narrow, 22),
    (Scheme::Pae, 12),
    (Scheme::Pae, 21),
    (Scheme::Long, 12),
    (Scheme::Long, 21),
    (Scheme::Long, 30),
    (Scheme::Long5, 12),
    (Scheme::Long5, 21),
    (Scheme::Long5, 30),
];
const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];
const PRIVILEGES: [Privilege; 2] = [Privilege::Supervisor, Privilege::User];

#[test]
fn each_size_of_page_leads_to_its_address() {
    for (scheme, size) in ALL {
        let mut mapping = Mapping::new(scheme, size);
        let expected = mapping.page + (mapping.linear & ((1 << size) - 1)) + 0x123;
        for access in ACCESSES {
            assert_eq!(mapping.translate(access, Privilege::User), Ok(expected), "{scheme:?} {size} {access:?}");
        }
        let linear = mapping.linear + 0x123;
        assert_eq!(mapping.cpu().debug_translate(linear), Some(expected));
        // Bit 12 of a large page's entry is the PAT bit, which is no part of its address.
        if size > 12 {
            let last = mapping.entries.len() - 1;
            mapping.set(last, mapping.get(last) | 1 << 12);
            assert_eq!(mapping.translate(Access::Read, Privilege::User), Ok(expected));
        }
    }
}

#[test]
fn each_level_takes_permissions_away_and_none_gives_them_back() {
    for (scheme, size) in ALL {
        let mut mapping = Mapping::new(scheme, size);
        let has_nx = scheme != Scheme::Narrow;
        for level in mapping.levels(scheme) {
            let full = mapping.get(level) & !(A | D);
            for bits in 0..8 {
                let (writable, user, executable) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0 || !has_nx);
                let mut value = full & !(W | U);
                value |= if writable { W } else { 0 } | if user { U } else { 0 } | if executable { 0 } else { NX };
                mapping.set(level, value);
                for (wp, privilege, access) in [false, true].into_iter().flat_map(|wp| {
                    PRIVILEGES
                        .into_iter()
                        .flat_map(move |privilege| ACCESSES.map(move |access| (wp, privilege, access)))
                }) {
                    let cpu = mapping.cpu();
                    cpu.cr0 = if wp { cpu.cr0 | Cr0::WP.bits() } else { cpu.cr0 & !Cr0::WP.bits() };
                    let is_user = privilege == Privilege::User;
                    let allowed = (user || !is_user)
                        && match access {
                            Access::Read => true,
                            Access::Write => writable || (!is_user && !wp),
                            Access::Execute => executable,
                        };
                    let code = 1
                        | u32::from(access == Access::Write) << 1
                        | u32::from(is_user) << 2
                        | u32::from(access == Access::Execute && has_nx) << 4;
                    let got = mapping.translate(access, privilege);
                    let case = format!("{scheme:?} {size} level {level} {bits:03b} wp {wp} {privilege:?} {access:?}");
                    assert_eq!(got.err(), (!allowed).then_some(code), "{case}");
                }
            }
            mapping.set(level, full);
        }
    }
}

#[test]
fn an_absent_entry_at_any_level_faults_as_absent_whatever_else_it_holds() {
    for (scheme, size) in ALL {
        let mut mapping = Mapping::new(scheme, size);
        for level in mapping.levels(scheme) {
            let full = mapping.get(level);
            mapping.set(level, !P & if scheme == Scheme::Narrow { 0xffff_ffff } else { u64::MAX });
            assert_eq!(mapping.translate(Access::Write, Privilege::User), Err(6), "{scheme:?} {size} {level}");
            assert_eq!(mapping.translate(Access::Read, Privilege::Supervisor), Err(0), "{scheme:?} {size} {level}");
            let linear = mapping.linear;
            assert_eq!(mapping.cpu().debug_translate(linear), None);
            mapping.set(level, full);
        }
    }
}

#[test]
fn reserved_bits_fault_as_such() {
    for (scheme, size) in ALL {
        let mut mapping = Mapping::new(scheme, size);
        let last = mapping.entries.len() - 1;
        for level in mapping.levels(scheme) {
            let full = mapping.get(level);
            let large = level == last && size > 12;
            for bit in 0..if scheme == Scheme::Narrow { 32 } else { 64 } {
                let reserved = match (scheme, bit) {
                    (Scheme::Narrow, 21) => large,
                    // Bits 13 to 20 of a 4 MiB page are address bits up to the processor's 40.
                    (Scheme::Narrow, _) => false,
                    (_, 7) => {
                        level < last && {
                            let first = if scheme == Scheme::Long5 { 1 } else { 0 };
                            !(scheme != Scheme::Pae && level > first || scheme == Scheme::Pae)
                        }
                    }
                    (_, 13..=20) => large,
                    (_, 21..=29) => large && size == 30,
                    (_, 40..=51) => true,
                    (_, 52..=62) => scheme == Scheme::Pae,
                    _ => false,
                };
                if !reserved {
                    continue;
                }
                mapping.set(level, full | 1 << bit);
                let case = format!("{scheme:?} {size} level {level} bit {bit}");
                assert_eq!(mapping.translate(Access::Read, Privilege::Supervisor), Err(9), "{case}");
                assert_eq!(mapping.translate(Access::Write, Privilege::User), Err(15), "{case}");
            }
            mapping.set(level, full);
        }
    }
}

#[test]
fn no_execute_is_reserved_until_it_is_enabled() {
    for (scheme, size) in ALL.into_iter().filter(|(scheme, _)| *scheme != Scheme::Narrow) {
        let mut mapping = Mapping::new(scheme, size);
        let last = mapping.entries.len() - 1;
        mapping.set(last, mapping.get(last) | NX);
        assert_eq!(mapping.translate(Access::Execute, Privilege::Supervisor), Err(0x11));
        mapping.cpu().efer &= !Efer::NXE.bits();
        assert_eq!(mapping.translate(Access::Execute, Privilege::Supervisor), Err(9));
        assert_eq!(mapping.translate(Access::Read, Privilege::User), Err(13));
    }
}

#[test]
fn pages_of_a_gigabyte_exist_only_where_cpuid_says_so() {
    let mut mapping = Mapping::new(Scheme::Long, 30);
    assert!(mapping.translate(Access::Read, Privilege::User).is_ok());
    mapping.cpu().cpuid.set(0x8000_0001, 0, Leaf::default());
    mapping.cpu().configure_paging();
    assert_eq!(mapping.translate(Access::Read, Privilege::User), Err(13));
}

#[test]
fn accessed_is_set_on_the_way_and_dirty_only_by_a_write() {
    for (scheme, size) in ALL {
        let mut mapping = Mapping::new(scheme, size);
        let levels = mapping.levels(scheme);
        let last = mapping.entries.len() - 1;
        let linear = mapping.linear;
        mapping.cpu().debug_translate(linear).unwrap();
        assert!(levels.clone().all(|level| mapping.get(level) & (A | D) == 0), "a debugger leaves no traces");
        mapping.translate(Access::Read, Privilege::User).unwrap();
        assert!(levels.clone().all(|level| mapping.get(level) & (A | D) == A), "{scheme:?} {size}");
        mapping.translate(Access::Write, Privilege::User).unwrap();
        assert!(levels.clone().all(|level| mapping.get(level) & (A | D) == if level == last { A | D } else { A }));
    }
}

#[test]
fn a_refused_access_sets_no_dirty_bit() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    mapping.set(3, mapping.get(3) & !W);
    assert_eq!(mapping.translate(Access::Write, Privilege::User), Err(7));
    assert_eq!(mapping.get(3) & (A | D), 0);
}

#[test]
fn a_read_translation_does_not_let_a_first_write_past_the_dirty_bit() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    let linear = mapping.linear;
    mapping.cpu().read_system::<u8>(linear).unwrap();
    assert_eq!(mapping.get(3) & (A | D), A);
    mapping.cpu().write_system::<u8>(linear, 1).unwrap();
    assert_eq!(mapping.get(3) & (A | D), A | D);
}

#[test]
fn directory_pointers_are_loaded_with_cr3_and_not_read_again() {
    let mut mapping = Mapping::new(Scheme::Pae, 12);
    let pointer = mapping.get(0);
    mapping.set(0, 0);
    assert!(mapping.translate(Access::Read, Privilege::User).is_ok());
    mapping.cpu().load_cr3(TABLES).unwrap();
    assert_eq!(mapping.translate(Access::Read, Privilege::User), Err(4));
    // Reserved bits are found at once, and CR3 stays what it was.
    mapping.set(0, pointer | 2);
    assert_eq!(mapping.cpu().load_cr3(TABLES + 0x20), Ok(()));
    assert_eq!(mapping.cpu().load_cr3(TABLES), Err(Trap::EXCEPTION));
    assert_eq!(mapping.cpu().exception, Exception::general_protection(0));
    assert_eq!(mapping.cpu().cr3, TABLES + 0x20);
}

#[test]
fn supervisors_keep_off_user_pages_where_they_are_told_to() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    mapping.cpu().cr4 |= (Cr4::SMEP | Cr4::SMAP).bits();
    assert_eq!(mapping.translate(Access::Execute, Privilege::Supervisor), Err(0x11));
    assert_eq!(mapping.translate(Access::Read, Privilege::Supervisor), Err(1));
    assert!(mapping.translate(Access::Execute, Privilege::User).is_ok());
    assert!(mapping.translate(Access::Write, Privilege::Override).is_ok());
    assert_eq!(mapping.translate(Access::Execute, Privilege::Override), Err(0x11));
}

#[test]
fn a_fetch_is_told_apart_only_where_it_may_be_forbidden() {
    let mut mapping = Mapping::new(Scheme::Narrow, 12);
    mapping.set(1, 0);
    assert_eq!(mapping.translate(Access::Execute, Privilege::User), Err(4));
    mapping.cpu().cr4 |= Cr4::SMEP.bits();
    assert_eq!(mapping.translate(Access::Execute, Privilege::User), Err(0x14));
}

#[test]
fn one_invalidation_drops_every_piece_of_a_large_page() {
    for size in [21, 30] {
        let mut mapping = Mapping::new(Scheme::Long, size);
        let linear = mapping.linear;
        let last = mapping.entries.len() - 1;
        for page in [0, 7, 500] {
            mapping.cpu().read_system::<u8>(linear + 0x1000 * page).unwrap();
        }
        mapping.set(last, 0);
        assert!(mapping.cpu().read_system::<u8>(linear).is_ok());
        mapping.cpu().flush_page(linear + 0x3000);
        for page in [0, 7, 500] {
            assert!(mapping.cpu().read_system::<u8>(linear + 0x1000 * page).is_err(), "{size} {page}");
        }
    }
}

#[test]
fn a_value_across_pages_is_written_whole_or_not_at_all() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    let linear = mapping.linear + 0xffc;
    assert_eq!(mapping.cpu().write_system::<u64>(linear, u64::MAX), Err(Trap::EXCEPTION));
    assert_eq!(mapping.cpu().cr2, linear + 4);
    assert_eq!(mapping.machine.read::<4>(mapping.page + 0xffc), [0; 4]);
    // The next page is elsewhere in memory.
    mapping.machine.memory.write(mapping.entries[3] + 8, &(0x30_0000 | P | W | U).to_le_bytes());
    mapping.cpu().write_system(linear, 0x0807_0605_0403_0201u64).unwrap();
    assert_eq!(mapping.machine.read::<4>(mapping.page + 0xffc), [1, 2, 3, 4]);
    assert_eq!(mapping.machine.read::<4>(0x30_0000), [5, 6, 7, 8]);
    assert_eq!(mapping.cpu().read_system::<u64>(linear), Ok(0x0807_0605_0403_0201));
}

#[test]
fn tables_outside_memory_map_nothing_and_hang_nothing() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    mapping.cpu().load_cr3(RAM + 0x1000).unwrap();
    assert_eq!(mapping.translate(Access::Write, Privilege::User), Err(6));
    mapping.cpu().load_cr3(0x00ff_ffff_f000).unwrap();
    assert_eq!(mapping.translate(Access::Read, Privilege::Supervisor), Err(0));
}

#[test]
fn five_levels_reach_addresses_that_four_do_not_have() {
    let mut mapping = Mapping::new(Scheme::Long5, 12);
    assert!(mapping.translate(Access::Read, Privilege::User).is_ok());
    let linear = 1 << 56;
    assert_eq!(mapping.cpu().translate(linear, Access::Read, Privilege::User), Err(Trap::EXCEPTION));
    assert_eq!(mapping.cpu().exception, Exception::general_protection(0));
    let linear = mapping.linear;
    mapping.cpu().cr4 &= !Cr4::LA57.bits();
    mapping.cpu().paging_changed().unwrap();
    assert_eq!(mapping.cpu().translate(linear, Access::Read, Privilege::User), Err(Trap::EXCEPTION));
    assert_eq!(mapping.cpu().exception, Exception::general_protection(0));
}

/// SDM vol. 3 § 4.6.2.
#[test]
fn protection_keys_take_rights_to_the_data_of_pages_away() {
    for enable in [Cr4::PKE, Cr4::PKS] {
        take_rights_away(enable);
    }
}

/// By the keys that a bit of CR4 enables: those of user pages or of supervisor pages.
fn take_rights_away(enable: Cr4) {
    let of_users = enable == Cr4::PKE;
    for size in [12, 21, 30] {
        let mut mapping = Mapping::new(Scheme::Long, size);
        let last = mapping.entries.len() - 1;
        let key = 11_u32;
        for (user, enabled, wp, rights) in [false, true].into_iter().flat_map(|user| {
            [false, true].into_iter().flat_map(move |enabled| {
                [false, true].into_iter().flat_map(move |wp| (0..4_u32).map(move |rights| (user, enabled, wp, rights)))
            })
        }) {
            let value = mapping.get(last) & !U | u64::from(key) << 59 | if user { U } else { 0 };
            mapping.set(last, value);
            let cpu = mapping.cpu();
            cpu.cr0 = if wp { cpu.cr0 | Cr0::WP.bits() } else { cpu.cr0 & !Cr0::WP.bits() };
            cpu.cr4 = if enabled { cpu.cr4 | enable.bits() } else { cpu.cr4 & !enable.bits() };
            if of_users {
                cpu.set_pkru(rights << (2 * key));
            } else {
                cpu.set_pkrs(u64::from(rights << (2 * key)));
            }
            for (privilege, access) in PRIVILEGES.into_iter().flat_map(|p| ACCESSES.map(|a| (p, a))) {
                let is_user = privilege == Privilege::User;
                let data = access != Access::Execute;
                if !user && is_user {
                    // Whose page it is denies this.
                    continue;
                }
                let denied = user == of_users
                    && enabled
                    && data
                    && (rights & 1 != 0 || rights & 2 != 0 && access == Access::Write && (is_user || wp));
                let allowed = (user || !is_user) && !denied;
                let code = 1
                    | u32::from(access == Access::Write) << 1
                    | u32::from(is_user) << 2
                    | u32::from(access == Access::Execute) << 4
                    | u32::from(denied) << 5;
                let got = mapping.translate(access, privilege);
                let case =
                    format!("{size} {enable:?} {enabled} user {user} wp {wp} rights {rights} {privilege:?} {access:?}");
                assert_eq!(got.err(), (!allowed).then_some(code), "{case}");
            }
        }
    }
}

#[test]
fn a_change_of_rights_to_supervisor_pages_counts_for_pages_in_use() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    let linear = mapping.linear;
    mapping.set(3, mapping.get(3) & !U | 2 << 59);
    mapping.cpu().cr4 |= Cr4::PKS.bits();
    mapping.cpu().cpuid.set_feature(Feature::PKS, true);
    mapping.cpu().update_mode();
    assert!(mapping.cpu().write::<u8>(linear, 1).is_ok());
    assert_eq!(mapping.cpu().write_msr(0x6e1, 1 << 4), Some(()));
    assert_eq!((mapping.cpu().read_msr(0x6e1), mapping.cpu().write_msr(0x6e1, 1 << 32)), (Some(0x10), None));
    assert!(mapping.cpu().read::<u8>(linear).is_err());
    assert_eq!(mapping.cpu().write_msr(0x6e1, 1 << 6), Some(()));
    assert!(mapping.cpu().read::<u8>(linear).is_ok());
}

#[test]
fn a_change_of_rights_counts_for_pages_in_use() {
    let mut mapping = Mapping::new(Scheme::Long, 12);
    let linear = mapping.linear;
    mapping.set(3, mapping.get(3) | 2 << 59);
    mapping.cpu().cr4 |= Cr4::PKE.bits();
    mapping.cpu().update_mode();
    assert!(mapping.cpu().write::<u8>(linear, 1).is_ok());
    mapping.cpu().set_pkru(2 << 4);
    assert!(mapping.cpu().write::<u8>(linear, 1).is_err() && mapping.cpu().read::<u8>(linear).is_ok());
    mapping.cpu().set_pkru(1 << 4);
    assert!(mapping.cpu().read::<u8>(linear).is_err());
    mapping.cpu().set_pkru(0);
    assert!(mapping.cpu().write::<u8>(linear, 1).is_ok());
}

/// Whoever looks at tables from outside: at so many of them.
struct Outside<'a> {
    machine: &'a Machine,
    tables_left: usize,
    pages: Vec<Page>,
}

impl Memory for Outside<'_> {
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        self.machine.memory.read(physical, bytes);
        true
    }
}

impl Visitor for Outside<'_> {
    fn table(&mut self, _: Table) -> ControlFlow<(), bool> {
        let left = self.tables_left.checked_sub(1);
        self.tables_left = left.unwrap_or(0);
        if left.is_some() { ControlFlow::Continue(true) } else { ControlFlow::Break(()) }
    }

    fn page(&mut self, page: Page) -> ControlFlow<()> {
        self.pages.push(page);
        ControlFlow::Continue(())
    }
}

proptest! {
    /// One entry of each level on the way of an address, with any flags; it leads to a table or to a page.
    #[test]
    fn whoever_looks_at_tables_from_outside_sees_what_the_processor_does(
        way in 0..ALL.len(),
        flags in prop::collection::vec((prop_oneof![3 => Just(0), 1 => any::<u64>()], any::<u64>(), any::<bool>()), 5),
        no_execute: bool,
        narrow_pages: bool,
        gigabyte_pages: bool,
        others in prop::collection::vec((0_u64..0x5000, any::<u64>()), 0..8),
        linear: u64,
    ) {
        let (scheme, size) = ALL[way];
        let mut mapping = Mapping::new(scheme, size);
        for (at, value) in others {
            // Somewhere in the tables, leading back into them.
            let next = TABLES + (value & 0x7000);
            mapping.machine.memory.write(TABLES + (at & !7), &(next | value & 0xfff).to_le_bytes());
        }
        for level in mapping.levels(scheme) {
            let (first, second, present) = flags[level];
            // A few bits of many, so that not everything is reserved.
            let changed = mapping.get(level) ^ (first & second & second.rotate_left(7) & second.rotate_left(13));
            mapping.set(level, if present { changed | P } else { changed });
        }
        let linear_near = mapping.linear;
        let cpu = mapping.cpu();
        if !no_execute {
            cpu.efer &= !Efer::NXE.bits();
        }
        if !narrow_pages {
            cpu.cr4 &= !Cr4::PSE.bits();
        }
        if !gigabyte_pages {
            cpu.cpuid.set(0x8000_0001, 0, Leaf::default());
            cpu.configure_paging();
        }
        // Tables may make PAE's pointers such that they cannot be loaded: then those from before count.
        let _ = cpu.paging_changed();
        let tables = cpu.page_tables().unwrap();
        let mut outside = Outside { machine: &mapping.machine, tables_left: 64, pages: Vec::new() };
        tables.walk(&mut outside);
        let seen: Vec<u64> = outside.pages.iter().step_by(1 + outside.pages.len() / 50).map(|page| page.linear).collect();
        let places: Vec<u64> = seen.into_iter().chain([linear_near | 0xfff, linear, linear & 0xffff_ffff]).collect();
        let told: Vec<_> = places.iter().map(|place| tables.translate(&mut outside, *place)).collect();
        let pages = outside.pages;
        let cpu = mapping.cpu();
        for (place, told) in places.into_iter().zip(told) {
            prop_assert_eq!(told, cpu.debug_translate(place), "{:x}", place);
        }
        for page in pages.into_iter().take(50) {
            prop_assert_eq!(cpu.debug_translate(page.linear), Some(page.physical));
            let user = cpu.translate(page.linear, Access::Read, Privilege::User).is_ok();
            prop_assert_eq!(user, page.user, "{:?}", page);
        }
    }
}
