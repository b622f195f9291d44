//! `info mtree`: what answers at which address, in memory and at I/O ports.

use std::fmt::Write as _;

use rhea_core::memory::Target;

use super::table::{Call, Printed};

/// The kind of memory, as people know it.
fn kind(target: &Target) -> &'static str {
    match target {
        Target::Ram { writable: true, .. } => "ram",
        Target::Ram { .. } => "rom",
        Target::Mmio(_) => "i/o",
    }
}

/// `info mtree [-f]`: regions with their priorities; with -f, what is left of them where they overlap.
pub(super) fn info(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let options = line.options("f")?;
    line.end()?;
    Ok(if options.has('f') { flat(call) } else { regions(call) })
}

// Writing to a string does not fail.

fn regions(call: &Call<'_>) -> String {
    let machine = &call.context.machine;
    let mut text = "address-space: memory\r\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\r\n".to_owned();
    for region in machine.memory().regions() {
        let (base, last, name) = (region.base, region.last, region.target.name());
        let _ = write!(text, "    {base:016x}-{last:016x} (prio {}, {}): ", region.priority, kind(&region.target));
        let _ = match region.target {
            // A part of its memory only.
            Target::Ram { offset, .. } if offset != 0 => {
                write!(text, "alias {name} @{name} {offset:016x}-{:016x}\r\n", offset.saturating_add(last - base))
            }
            _ => write!(text, "{name}\r\n"),
        };
    }
    text.push_str("\r\naddress-space: I/O\r\n  0000000000000000-000000000000ffff (prio 0, i/o): io\r\n");
    for window in machine.ports().windows() {
        let _ = write!(text, "    {:016x}-{:016x} (prio 0, i/o): {}\r\n", window.base, window.last, window.name);
    }
    text
}

fn flat(call: &Call<'_>) -> String {
    let machine = &call.context.machine;
    let mut text = "FlatView #0\r\n AS \"memory\", root: system\r\n".to_owned();
    for processor in machine.processors().list() {
        let _ = write!(text, " AS \"cpu-memory-{}\", root: system\r\n", processor.index());
    }
    text.push_str(" Root memory region: system\r\n");
    for range in machine.memory().view().ranges() {
        let (base, last, priority, name) = (range.base, range.last, range.priority, range.target.name());
        let _ = write!(text, "  {base:016x}-{last:016x} (prio {priority}, {}): {name}", kind(&range.target));
        if range.offset != 0 {
            let _ = write!(text, " @{:016x}", range.offset);
        }
        text.push_str("\r\n");
    }
    text.push_str("\r\nFlatView #1\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n");
    for window in machine.ports().decoded() {
        let _ = write!(text, "  {:016x}-{:016x} (prio 0, i/o): {}\r\n", window.base, window.last, window.name);
    }
    text
}
