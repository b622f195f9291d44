//! `info qtree`: buses and the devices on them, with their properties.

use std::{collections::HashMap, fmt::Write as _};

use rhea_core::object::{NodeId, Tree, TypeInfo, Value};
use rhea_machine::types;

use super::table::{Call, Printed};

/// A bus of the tree; the topmost one is nowhere in it.
type Bus = Option<NodeId>;

struct Devices<'a> {
    tree: &'a Tree,
    /// By the bus on which they are.
    on: HashMap<Bus, Vec<NodeId>>,
    brief: bool,
}

/// `info qtree [-b]`: with -b, without properties.
pub(super) fn info(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let brief = line.options("b")?.has('b');
    line.end()?;
    let tree = call.context.machine.objects().tree();
    let mut devices = Devices { tree, on: HashMap::new(), brief };
    let all = tree.all();
    let is = |info: &'static TypeInfo, base: &str| types().implements(info, base);
    let first_bus = |kind: &str| all.iter().find(|(_, _, object)| object.info().name == kind).map(|(node, ..)| *node);
    let (isa, pci) = (first_bus("ISA"), first_bus("PCI"));
    for (node, _, object) in &all {
        let info = object.info();
        if !is(info, "device") {
            continue;
        }
        let linked = tree.get(*node, "parent_bus").ok();
        let linked = linked.as_ref().and_then(Value::as_str).and_then(|path| tree.resolve(path).ok());
        let bus = match linked {
            Some(bus) => Some(bus),
            None if is(info, "isa-device") => isa,
            None if is(info, "pci-device") => pci,
            None if is(info, "sys-bus-device") => None,
            // Processors and the like are on no bus.
            None => continue,
        };
        devices.on.entry(bus).or_default().push(*node);
    }
    let mut text = "bus: main-system-bus\r\n  type System\r\n".to_owned();
    devices.bus(&mut text, None, 2);
    Ok(text)
}

// Writing to a string does not fail. The tree is as deep as buses are nested, which hotplug bounds; a bus is shown once.

impl Devices<'_> {
    fn bus(&mut self, text: &mut String, bus: Bus, indent: usize) {
        for node in self.on.remove(&bus).unwrap_or_default() {
            let Some(object) = self.tree.object(node) else { continue };
            let info = object.info();
            let path = self.tree.path(node);
            let id = path.strip_prefix("/machine/peripheral/").unwrap_or_default();
            let _ = write!(text, "{:indent$}dev: {}, id \"{id}\"\r\n", "", info.name);
            if !self.brief {
                self.properties(text, node, info, indent + 2);
            }
            for (name, child) in self.tree.children(node) {
                let Some(inner) = self.tree.object(child) else { continue };
                let inner = inner.info();
                if types().implements(inner, "bus") {
                    let _ = write!(text, "{:1$}bus: {name}\r\n", "", indent + 2);
                    let _ = write!(text, "{:1$}type {2}\r\n", "", indent + 4, inner.name);
                    self.bus(text, Some(child), indent + 4);
                }
            }
        }
    }

    fn properties(&self, text: &mut String, node: NodeId, info: &'static TypeInfo, indent: usize) {
        for property in types().settable(info, "device") {
            let Ok(value) = self.tree.get(node, property.name) else { continue };
            let _ = write!(text, "{:indent$}{} = ", "", property.name);
            let _ = match value {
                Value::Number(number) => match number.as_i64() {
                    Some(value) => write!(text, "{value} (0x{value:x})\r\n"),
                    None => write!(text, "{number}\r\n"),
                },
                other => write!(text, "{other}\r\n"),
            };
        }
    }
}
