//! The table of what `info` shows.

use super::{
    block, chardev,
    complete::Words::{Block, Event, Path},
    device_tree, dump, input, interrupts, machine, memory_info, migration, mtree, objects, paging, pci, registers,
    snapshots,
    table::{Failure, Row, row, slow},
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
    row("irq", "", "how often interrupts came", interrupts::counts),
    row("jit", "", "the translator", |_| Err(Failure::new("the guest's code is interpreted: there is no translator"))),
    row("kvm", "", "whether KVM is used", machine::kvm),
    row("lapic", "[ID]", "the local APIC of the chosen processor, or that of an identification", interrupts::local),
    slow("mem", "", "runs of mapped memory, and who may do what there", paging::runs),
    row("memdev", "", "the memory backends", memory_info::memdev),
    row("memory-devices", "", "the memory modules", memory_info::modules),
    row("memory_size_summary", "", "how much memory the guest has", memory_info::sizes),
    row("mice", "", "the mice", input::mice),
    row("migrate", "", "how the migration stands", migration::info),
    row("migrate_capabilities", "", "the capabilities of migrations", migration::show_capabilities),
    row("migrate_parameters", "", "what migrations go by", migration::show_parameters),
    row("mtree", "[-f]", "what is mapped into memory and at ports; -f: what of it answers", mtree::info),
    row("name", "", "the guest's name", machine::name),
    row("network", "", "the network", |_| Ok(String::new())),
    row("numa", "", "the nodes of processors and memory", memory_info::numa),
    row("pci", "", "the PCI buses and what is on them", pci::info),
    row("pic", "", "the interrupt controllers", interrupts::controllers),
    row("qdm", "", "the drivers of devices", objects::drivers),
    row("qom-tree", "[PATH]", "the objects of the machine, or those below one", objects::tree).completes(&[Path]),
    row("qtree", "[-b]", "the buses and what is on them; -b: without properties", device_tree::info),
    row(
        "registers",
        "[-a] [NUMBER]",
        "the registers of the chosen processor, of another one, or with -a of all",
        registers::info,
    ),
    row("roms", "", "what was loaded, and what firmware may fetch", machine::roms),
    row("snapshots", "", "the snapshots in the disks", snapshots::info),
    row("spice", "", "the Spice server", |_| Ok("Server: disabled\r\n".to_owned())),
    row("status", "", "whether the machine runs", machine::status),
    slow("tlb", "", "mapped pages, with the entries that map them", paging::entries),
    row("tpm", "", "the trusted platform module", |_| Ok(String::new())),
    row("trace-events", "[NAME]", "the trace events, and whether they are written", trace::show).completes(&[Event]),
    row("usb", "", "the USB devices", |_| Err(Failure::new("USB support not enabled"))),
    row("uuid", "", "the guest's identifier", machine::uuid),
    row("version", "", "the program's version", |_| Ok(version::text() + "\r\n")),
    row("vm-generation-id", "", "the identifier of the machine's generation", machine::generation_id),
    row("vnc", "", "the VNC server", |_| Ok("None\r\n".to_owned())),
];
