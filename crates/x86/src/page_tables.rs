//! The page tables of a processor, for whoever looks at them from outside.

use rhea_page_tables::{ControlRegisters, PageTables};

use crate::state::CpuState;

impl CpuState {
    /// The page tables in force; none without paging.
    pub fn page_tables(&self) -> Option<PageTables> {
        let Self { cr0, cr3, cr4, .. } = *self;
        let tables = PageTables::of(&ControlRegisters { cr0, cr3, cr4, efer: self.efer })?;
        let paging = &self.engine.paging;
        let physical_bits = paging.beyond_physical.trailing_zeros();
        Some(tables.of_processor(physical_bits, paging.gigabyte_pages).with_pointers(paging.directory_pointers))
    }
}
