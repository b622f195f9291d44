//! The table of what `info` shows.

use super::{
    block, chardev,
    complete::Words::{Block, Event, Path},
    dump, machine, memory_info, objects, pci, registers, snapshots,
    table::{Row, row},
    trace,
};
use crate::version;

/// What `info` shows, by name.
pub(super) const SUBJECTS: &[Row] = &[
    row("balloon", "", "what the balloon leaves the guest", machine::show_balloon),
    row("block", "[-n] [-v] [NAME]", "the disks, or with -n the block nodes; -v: with their images", block::info)
        .completes(&[Block]),
    row("blockstats", "", "what was done with disks", block::statistics),
    row("chardev", "", "the character backends", chardev::info),
    row("cpus", "", "the processors", machine::processors),
    row("dump", "", "how the latest dump stands", dump::info),
    row("history", "", "the lines that were typed", |call| {
        let lines = call.history.iter().rev().enumerate();
        Ok(lines.map(|(number, line)| format!("{number}: '{line}'\r\n")).collect())
    }),
    row("hotpluggable-cpus", "", "the places for processors", machine::places),
    row("iothreads", "", "the I/O threads", objects::iothreads),
    row("kvm", "", "whether KVM is used", machine::kvm),
    row("memdev", "", "the memory backends", memory_info::memdev),
    row("memory-devices", "", "the memory modules", memory_info::modules),
    row("memory_size_summary", "", "how much memory the guest has", memory_info::sizes),
    row("name", "", "the guest's name", machine::name),
    row("numa", "", "the nodes of processors and memory", memory_info::numa),
    row("pci", "", "the PCI buses and what is on them", pci::info),
    row("qom-tree", "[PATH]", "the objects of the machine, or those below one", objects::tree).completes(&[Path]),
    row(
        "registers",
        "[-a] [NUMBER]",
        "the registers of the chosen processor, of another one, or with -a of all",
        registers::info,
    ),
    row("snapshots", "", "the snapshots in the disks", snapshots::info),
    row("status", "", "whether the machine runs", machine::status),
    row("trace-events", "[NAME]", "the trace events, and whether they are written", trace::show).completes(&[Event]),
    row("uuid", "", "the guest's identifier", machine::uuid),
    row("version", "", "the program's version", |_| Ok(version::text() + "\r\n")),
];
