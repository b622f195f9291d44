//! `info tlb` and `info mem`: what the page tables of a processor map.

use std::{fmt::Write as _, ops::ControlFlow, sync::Arc};

use rhea_core::AddressSpace;
use rhea_page_tables::{Memory, Page, PageTables, Table, Visitor};

use super::table::{Call, Failure, Work};

/// The most tables that one command looks at.
const MOST_TABLES: usize = 1 << 15;
/// The most lines that one command prints.
const MOST_LINES: usize = 1 << 16;

const CUT: &str = "(there is more, which is left out)\r\n";

/// What is left to do, off the monitor's thread: tables may be large.
fn walk(call: &Call<'_>, show: fn(&PageTables, &AddressSpace) -> String) -> Result<Work, Failure> {
    call.no_words()?;
    let machine = &call.context.machine;
    if machine.processors().get(call.processor).is_none() {
        return Err(Failure::new("this machine has no processor"));
    }
    let tables = machine.page_tables(call.processor);
    let memory = Arc::clone(machine.memory());
    let job = move || Ok(tables.map_or_else(|| "PG disabled\r\n".to_owned(), |tables| show(&tables, &memory)));
    Ok(Work::new(call.commands(), Box::new(job), |text| text))
}

/// A look at the pages, which `visit` sees.
struct Look<'a> {
    memory: &'a AddressSpace,
    tables_left: usize,
    visit: &'a mut dyn FnMut(Page) -> ControlFlow<()>,
}

impl Memory for Look<'_> {
    /// Tables are only where RAM is: nothing is asked of devices.
    fn read(&mut self, physical: u64, bytes: &mut [u8]) -> bool {
        let there = self.memory.is_ram(physical, bytes.len() as u64);
        if there {
            self.memory.read(physical, bytes);
        }
        there
    }
}

impl Visitor for Look<'_> {
    fn table(&mut self, _: Table) -> ControlFlow<(), bool> {
        match self.tables_left.checked_sub(1) {
            Some(left) => {
                self.tables_left = left;
                ControlFlow::Continue(true)
            }
            None => ControlFlow::Break(()),
        }
    }

    fn page(&mut self, page: Page) -> ControlFlow<()> {
        (self.visit)(page)
    }
}

/// Has `visit` see the pages. `false` if there was more than is looked at.
fn pages(tables: &PageTables, memory: &AddressSpace, visit: &mut dyn FnMut(Page) -> ControlFlow<()>) -> bool {
    tables.walk(&mut Look { memory, tables_left: MOST_TABLES, visit })
}

/// `info tlb`: each page, with the entry that maps it.
pub(super) fn entries(call: &Call<'_>) -> Result<Work, Failure> {
    walk(call, |tables, memory| {
        let (mut text, mut lines) = (String::new(), 0);
        let complete = pages(tables, memory, &mut |page| {
            if lines == MOST_LINES {
                return ControlFlow::Break(());
            }
            lines += 1;
            // Writing to a string does not fail.
            let _ = write!(text, "{:016x}: {:016x} ", page.linear, page.physical);
            let large = page.size > 4096;
            // Bits of the entry (SDM vol. 3 § 4.5), and the letters by which people know them.
            let bits = [(63, 'X'), (8, 'G'), (7, 'P'), (6, 'D'), (5, 'A'), (4, 'C'), (3, 'T'), (2, 'U'), (1, 'W')];
            for (bit, letter) in bits {
                let set = if bit == 7 { large } else { page.entry >> bit & 1 != 0 };
                text.push(if set { letter } else { '-' });
            }
            text.push_str("\r\n");
            ControlFlow::Continue(())
        });
        if !complete {
            text.push_str(CUT);
        }
        text
    })
}

/// A run of pages with the same rights.
struct Run {
    start: u64,
    /// The last address, inclusive.
    last: u64,
    user: bool,
    writable: bool,
}

impl Run {
    fn show(&self, text: &mut String) {
        let end = self.last.wrapping_add(1);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{:016x}-{end:016x} {:016x} {}r{}\r\n",
            self.start,
            end.wrapping_sub(self.start),
            if self.user { 'u' } else { '-' },
            if self.writable { 'w' } else { '-' }
        );
    }
}

/// `info mem`: runs of pages, with who may do what with them.
pub(super) fn runs(call: &Call<'_>) -> Result<Work, Failure> {
    walk(call, |tables, memory| {
        let (mut text, mut lines) = (String::new(), 0);
        let mut run: Option<Run> = None;
        let complete = pages(tables, memory, &mut |page| {
            let (start, last) = (page.linear, page.linear.wrapping_add(page.size - 1));
            match &mut run {
                Some(run)
                    if run.last.wrapping_add(1) == start
                        && start != 0
                        && (run.user, run.writable) == (page.user, page.writable) =>
                {
                    run.last = last;
                }
                before => {
                    if let Some(before) = before {
                        before.show(&mut text);
                        lines += 1;
                    }
                    *before = Some(Run { start, last, user: page.user, writable: page.writable });
                }
            }
            if lines == MOST_LINES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match run {
            Some(run) if complete => run.show(&mut text),
            _ => {}
        }
        if !complete {
            text.push_str(CUT);
        }
        text
    })
}
