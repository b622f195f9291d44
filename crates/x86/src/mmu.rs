//! Paging: from linear to guest physical addresses. SDM vol. 3 ch. 4.

use crate::{
    access::{Access, Privilege},
    state::{CpuState, Cr0, Cr4, Efer},
    system::cpuid::Feature,
    trap::{Exception, Trap},
};

/// Bits of paging-structure entries (SDM vol. 3 § 4.4 to 4.5).
mod entry {
    pub(super) const PRESENT: u64 = 1 << 0;
    pub(super) const WRITABLE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const ACCESSED: u64 = 1 << 5;
    pub(super) const DIRTY: u64 = 1 << 6;
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const GLOBAL: u64 = 1 << 8;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
    /// The lowest of the four bits of a protection key.
    pub(super) const KEY: u32 = 59;
    /// Where 8-byte entries may hold an address.
    pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bits of a page fault's error code (SDM vol. 3 § 4.7).
mod fault {
    pub(super) const PROTECTION: u32 = 1 << 0;
    pub(super) const WRITE: u32 = 1 << 1;
    pub(super) const USER: u32 = 1 << 2;
    pub(super) const RESERVED: u32 = 1 << 3;
    pub(super) const FETCH: u32 = 1 << 4;
    pub(super) const KEY: u32 = 1 << 5;
}

/// What translation depends on besides the tables; kept by [`CpuState::paging_changed`].
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// Page-directory-pointer-table entries, which PAE paging loads with CR3 (SDM vol. 3 § 4.4.1).
    pub directory_pointers: [u64; 4],
    /// Bits of a physical address that the processor has not.
    pub beyond_physical: u64,
    /// Whether there are 1 GiB pages.
    pub gigabyte_pages: bool,
    /// The bits that leave the processor: all but A20, while that is masked.
    pub address_mask: u64,
}

impl Default for Paging {
    fn default() -> Self {
        Self { directory_pointers: [0; 4], beyond_physical: !0 << 40, gigabyte_pages: false, address_mask: u64::MAX }
    }
}

/// A way through the tables to a page.
struct Walk {
    /// The physical address.
    address: u64,
    /// Address and value of the entries on the way, last one first; `depth` of them count.
    entries: [(u64, u64); 5],
    depth: usize,
    /// Whether entries have 8 bytes instead of 4.
    wide: bool,
    writable: bool,
    user: bool,
    no_execute: bool,
    global: bool,
    /// The page's protection key, in long mode.
    key: u32,
    /// log2 of the page's size.
    size: u32,
}

/// Why there is no way: nothing present, or reserved bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoPage {
    Absent,
    Reserved,
}

/// A translation with what the TLB must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub address: u64,
    /// Whether it outlives a change of address space.
    pub global: bool,
    /// log2 of the page's size.
    pub size: u32,
}

impl CpuState {
    /// The guest physical address of `linear`, with accessed and dirty bits set as the access demands.
    ///
    /// # Errors
    /// A page fault, with CR2 set; #GP(0) if the address is not canonical.
    pub fn translate(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<u64, Trap> {
        self.translate_page(linear, access, privilege).map(|translation| translation.address)
    }

    /// As [`translate`](Self::translate), with what else is known of the page.
    ///
    /// # Errors
    /// As [`translate`](Self::translate).
    pub fn translate_page(&mut self, linear: u64, access: Access, privilege: Privilege) -> Result<Translation, Trap> {
        if !self.cr0_has(Cr0::PG) {
            let address = linear & 0xffff_ffff & self.engine.paging.address_mask;
            return Ok(Translation { address, global: true, size: 12 });
        }
        if self.long_mode() && !self.is_canonical(linear) {
            self.engine.non_canonical = true;
            return Err(self.raise(Exception::general_protection(0)));
        }
        loop {
            let walk = match self.walk(linear) {
                Ok(walk) => walk,
                Err(NoPage::Absent) => return Err(self.page_fault(linear, 0, access, privilege)),
                Err(NoPage::Reserved) => {
                    let code = fault::PROTECTION | fault::RESERVED;
                    return Err(self.page_fault(linear, code, access, privilege));
                }
            };
            if !self.permits(&walk, access, privilege) {
                let key = if self.key_permits(&walk, access, privilege) { 0 } else { fault::KEY };
                return Err(self.page_fault(linear, fault::PROTECTION | key, access, privilege));
            }
            if self.mark_used(&walk, access) {
                return Ok(Translation { address: walk.address, global: walk.global, size: walk.size });
            }
            // Another processor changed an entry meanwhile: what was found need not hold any more.
        }
    }

    /// The guest physical address of `linear` as a debugger sees it: no permission is asked for, nothing is changed.
    pub fn debug_translate(&self, linear: u64) -> Option<u64> {
        if !self.cr0_has(Cr0::PG) {
            return Some(linear & 0xffff_ffff & self.engine.paging.address_mask);
        }
        if self.long_mode() && !self.is_canonical(linear) {
            return None;
        }
        self.walk(linear).ok().map(|walk| walk.address)
    }

    /// Loads CR3: an address space. Global translations stay.
    ///
    /// # Errors
    /// #GP(0) if PAE paging finds reserved bits set in a page-directory-pointer-table entry; CR3 is as it was then.
    pub fn load_cr3(&mut self, value: u64) -> Result<(), Trap> {
        let old = std::mem::replace(&mut self.cr3, value);
        if let Err(trap) = self.load_directory_pointers() {
            self.cr3 = old;
            return Err(trap);
        }
        self.flush_address_space();
        Ok(())
    }

    /// To be called after bits of CR0, CR4 or EFER changed that have to do with paging: loads what PAE paging keeps in the
    /// processor and drops every translation.
    ///
    /// # Errors
    /// #GP(0) as with [`load_cr3`](Self::load_cr3); the caller puts the registers back then.
    pub fn paging_changed(&mut self) -> Result<(), Trap> {
        self.load_directory_pointers()?;
        self.update_address_width();
        self.flush_all();
        Ok(())
    }

    /// Drops every translation.
    pub fn flush_all(&mut self) {
        for set in &mut self.tlb {
            set.clear(false);
        }
        self.engine.large_pages.clear();
        self.engine.code_translations_changed();
        self.renew_contexts(true);
    }

    /// Drops the translations of the address space, not the global ones.
    pub fn flush_address_space(&mut self) {
        for set in &mut self.tlb {
            set.clear(true);
        }
        self.renew_contexts(false);
    }

    /// INVLPG: drops the translations of the page at `linear`.
    pub fn flush_page(&mut self, linear: u64) {
        if let Some(size) = self.engine.large_pages.size_at(linear) {
            for set in &mut self.tlb {
                set.remove_where(|entry| (entry.tag ^ linear) >> size == 0);
            }
            self.engine.code_translations_changed();
            self.renew_contexts(true);
        }
        for set in &mut self.tlb {
            set.remove(linear);
        }
        if self.engine.may_hold_code(linear) {
            self.engine.code_translations_changed();
            self.renew_contexts(true);
        }
    }

    /// Masks address bit 20, as the keyboard controller of old does, or lets it through.
    pub(crate) fn set_address_mask(&mut self, mask: u64) {
        if self.engine.paging.address_mask != mask {
            self.engine.paging.address_mask = mask;
            self.flush_all();
        }
    }

    /// Takes from CPUID what paging depends on.
    pub(crate) fn configure_paging(&mut self) {
        self.engine.paging.beyond_physical = !0 << self.cpuid.physical_bits();
        self.engine.paging.gigabyte_pages = self.cpuid.has(Feature::PDPE1GB);
    }

    /// Changes the rights that protection keys leave to user pages.
    pub(crate) fn set_pkru(&mut self, value: u32) {
        if std::mem::replace(&mut self.pkru, value) != value && self.cr4_has(Cr4::PKE) {
            self.key_rights_changed();
        }
    }

    /// Changes the rights that protection keys leave to supervisor pages.
    pub(crate) fn set_pkrs(&mut self, value: u64) {
        if std::mem::replace(&mut self.msr.pkrs, value) != value && self.cr4_has(Cr4::PKS) {
            self.key_rights_changed();
        }
    }

    /// Fetches do not depend on keys.
    fn key_rights_changed(&mut self) {
        for set in &mut self.tlb {
            set.clear(false);
        }
    }

    fn pae_paging(&self) -> bool {
        self.cr0_has(Cr0::PG) && self.cr4_has(Cr4::PAE) && !self.long_mode()
    }

    /// SDM vol. 3 § 4.4.1: all four, or none.
    fn load_directory_pointers(&mut self) -> Result<(), Trap> {
        if !self.pae_paging() {
            return Ok(());
        }
        let reserved = self.engine.paging.beyond_physical | 0x1e6;
        let table = self.cr3 & 0xffff_ffe0;
        let mut pointers = [0; 4];
        for (i, pointer) in pointers.iter_mut().enumerate() {
            *pointer = self.read_physical::<u64>((table + 8 * i as u64) & self.engine.paging.address_mask);
            if *pointer & entry::PRESENT != 0 && *pointer & reserved != 0 {
                return Err(self.raise(Exception::general_protection(0)));
            }
        }
        self.engine.paging.directory_pointers = pointers;
        Ok(())
    }

    /// Finds the page of `linear`, which is canonical, without regard to permissions.
    fn walk(&self, linear: u64) -> Result<Walk, NoPage> {
        if self.long_mode() {
            let shift = if self.cr4_has(Cr4::LA57) { 48 } else { 39 };
            return self.walk_wide(linear, self.cr3, shift, self.engine.paging.beyond_physical & entry::ADDRESS);
        }
        let linear = linear & 0xffff_ffff;
        if self.cr4_has(Cr4::PAE) {
            let pointer = self.engine.paging.directory_pointers[(linear >> 30) as usize & 3];
            if pointer & entry::PRESENT == 0 {
                return Err(NoPage::Absent);
            }
            // Other than in long mode, the bits above the address are reserved too.
            let reserved = self.engine.paging.beyond_physical & !entry::NO_EXECUTE;
            return self.walk_wide(linear, pointer, 21, reserved);
        }
        self.walk_narrow(linear)
    }

    /// Tables of 512 entries of 8 bytes: PAE and long mode. `shift` is the number of address bits below the first
    /// table's index.
    fn walk_wide(&self, linear: u64, first: u64, shift: u32, mut reserved: u64) -> Result<Walk, NoPage> {
        let paging = &self.engine.paging;
        if self.efer & Efer::NXE.bits() == 0 {
            reserved |= entry::NO_EXECUTE;
        }
        let mut walk = Walk {
            address: 0,
            entries: [(0, 0); 5],
            depth: 0,
            wide: true,
            writable: true,
            user: true,
            no_execute: false,
            global: false,
            key: 0,
            size: shift,
        };
        let mut table = first & entry::ADDRESS;
        loop {
            let address = (table + 8 * ((linear >> walk.size) & 511)) & paging.address_mask;
            let value = self.read_physical::<u64>(address);
            if value & entry::PRESENT == 0 {
                return Err(NoPage::Absent);
            }
            let large = walk.size > 12 && value & entry::LARGE != 0;
            let mut wrong = value & reserved;
            if large {
                wrong |= match walk.size {
                    21 => value & 0x1f_e000,
                    30 if paging.gigabyte_pages => value & 0x3fff_e000,
                    _ => entry::LARGE,
                };
            }
            if wrong != 0 {
                return Err(NoPage::Reserved);
            }
            walk.entries.copy_within(0..4, 1);
            walk.entries[0] = (address, value);
            walk.depth += 1;
            walk.writable &= value & entry::WRITABLE != 0;
            walk.user &= value & entry::USER != 0;
            walk.no_execute |= value & entry::NO_EXECUTE != 0;
            if large || walk.size == 12 {
                let inside = (1 << walk.size) - 1;
                walk.address = ((value & entry::ADDRESS & !inside) | (linear & inside)) & paging.address_mask;
                walk.global = value & entry::GLOBAL != 0 && self.cr4_has(Cr4::PGE);
                walk.key = (value >> entry::KEY & 15) as u32;
                return Ok(walk);
            }
            table = value & entry::ADDRESS;
            walk.size -= 9;
        }
    }

    /// Tables of 1024 entries of 4 bytes (SDM vol. 3 § 4.3).
    fn walk_narrow(&self, linear: u64) -> Result<Walk, NoPage> {
        let paging = &self.engine.paging;
        let read = |table: u64, index: u64| {
            let address = ((table & 0xffff_f000) + 4 * (index & 1023)) & paging.address_mask;
            (address, u64::from(self.read_physical::<u32>(address)))
        };
        let directory = read(self.cr3, linear >> 22);
        if directory.1 & entry::PRESENT == 0 {
            return Err(NoPage::Absent);
        }
        if directory.1 & entry::LARGE != 0 && self.cr4_has(Cr4::PSE) {
            // PSE-36: bits 13 to 20 are bits 32 to 39 of the address.
            let base = (directory.1 & 0xffc0_0000) | (directory.1 & 0x1f_e000) << 19;
            if directory.1 & (1 << 21) != 0 || base & paging.beyond_physical != 0 {
                return Err(NoPage::Reserved);
            }
            return Ok(Walk {
                address: (base | (linear & 0x3f_ffff)) & paging.address_mask,
                entries: [directory, (0, 0), (0, 0), (0, 0), (0, 0)],
                depth: 1,
                wide: false,
                writable: directory.1 & entry::WRITABLE != 0,
                user: directory.1 & entry::USER != 0,
                no_execute: false,
                global: directory.1 & entry::GLOBAL != 0 && self.cr4_has(Cr4::PGE),
                key: 0,
                size: 22,
            });
        }
        let page = read(directory.1, linear >> 12);
        if page.1 & entry::PRESENT == 0 {
            return Err(NoPage::Absent);
        }
        let both = directory.1 & page.1;
        Ok(Walk {
            address: ((page.1 & 0xffff_f000) | (linear & 0xfff)) & paging.address_mask,
            entries: [page, directory, (0, 0), (0, 0), (0, 0)],
            depth: 2,
            wide: false,
            writable: both & entry::WRITABLE != 0,
            user: both & entry::USER != 0,
            no_execute: false,
            global: page.1 & entry::GLOBAL != 0 && self.cr4_has(Cr4::PGE),
            key: 0,
            size: 12,
        })
    }

    /// SDM vol. 3 § 4.6.1.
    fn permits(&self, walk: &Walk, access: Access, privilege: Privilege) -> bool {
        if access == Access::Execute && walk.no_execute || !self.key_permits(walk, access, privilege) {
            return false;
        }
        if privilege == Privilege::User {
            return walk.user && (access != Access::Write || walk.writable);
        }
        if walk.user {
            let forbidden = match access {
                Access::Execute => self.cr4_has(Cr4::SMEP),
                Access::Read | Access::Write => self.cr4_has(Cr4::SMAP) && privilege != Privilege::Override,
            };
            if forbidden {
                return false;
            }
        }
        access != Access::Write || walk.writable || !self.cr0_has(Cr0::WP)
    }

    /// SDM vol. 3 § 4.6.2: whether the page's protection key permits an access to data. User pages and supervisor pages
    /// have rights of their own.
    fn key_permits(&self, walk: &Walk, access: Access, privilege: Privilege) -> bool {
        let (enable, rights) = if walk.user { (Cr4::PKE, self.pkru) } else { (Cr4::PKS, self.msr.pkrs as u32) };
        if access == Access::Execute || !self.cr4_has(enable) || !self.long_mode() {
            return true;
        }
        let rights = rights >> (2 * walk.key);
        let (no_access, no_write) = (rights & 1 != 0, rights & 2 != 0);
        let held_back = no_write && (privilege == Privilege::User || self.cr0_has(Cr0::WP));
        !no_access && (access == Access::Read || !held_back)
    }

    /// Sets the accessed bits on the way and the dirty bit of a page that is written (SDM vol. 3 § 4.8). `false` if an
    /// entry is no longer what it was.
    fn mark_used(&mut self, walk: &Walk, access: Access) -> bool {
        for i in (0..walk.depth).rev() {
            let (address, value) = walk.entries[i];
            let dirty = if i == 0 && access == Access::Write { entry::DIRTY } else { 0 };
            let wanted = value | entry::ACCESSED | dirty;
            if wanted == value {
                continue;
            }
            let done = if walk.wide {
                self.exchange_physical::<u64>(address, value, wanted)
            } else {
                self.exchange_physical::<u32>(address, value as u32, wanted as u32)
            };
            if !done {
                return false;
            }
        }
        true
    }

    #[cold]
    fn page_fault(&mut self, linear: u64, mut code: u32, access: Access, privilege: Privilege) -> Trap {
        self.cr2 = if self.long_mode() { linear } else { linear & 0xffff_ffff };
        if privilege == Privilege::User {
            code |= fault::USER;
        }
        match access {
            Access::Write => code |= fault::WRITE,
            Access::Execute => {
                let no_execute = self.efer & Efer::NXE.bits() != 0 && self.cr4_has(Cr4::PAE);
                if no_execute || self.cr4_has(Cr4::SMEP) {
                    code |= fault::FETCH;
                }
            }
            Access::Read => {}
        }
        self.raise(Exception::page_fault(code))
    }
}

#[cfg(test)]
mod tests;
