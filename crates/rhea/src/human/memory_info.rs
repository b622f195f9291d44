//! The guest's memory, for people: `info memdev`, `info memory-devices`, `info memory_size_summary`, `info numa`.

use std::fmt::Write as _;

use rhea_api::{
    cpu,
    memory::{Handler, MemoryDeviceInfo},
};

use super::table::{Call, Printed};

// Writing to a string does not fail.

/// `info memdev`.
pub(super) fn memdev(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for backend in Handler::query_memdev(&mut call.commands())? {
        let _ = write!(
            text,
            "memory backend: {}\r\n  size:  {}\r\n  merge: {}\r\n  dump: {}\r\n  prealloc: {}\r\n  share: {}\r\n  \
             reserve: {}\r\n  policy: {}\r\n  host nodes: {}\r\n",
            backend.id.unwrap_or_default(),
            backend.size,
            backend.merge,
            backend.dump,
            backend.prealloc,
            backend.share.unwrap_or_default(),
            backend.reserve.unwrap_or_default(),
            backend.policy.as_str(),
            backend.host_nodes.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
        );
    }
    Ok(text + "\r\n")
}

/// `info memory-devices`.
pub(super) fn modules(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for MemoryDeviceInfo::Dimm(module) in Handler::query_memory_devices(&mut call.commands())? {
        let module = module.data;
        let _ = write!(
            text,
            "Memory device [dimm]: \"{}\"\r\n  addr: 0x{:x}\r\n  slot: {}\r\n  node: {}\r\n  size: {}\r\n  memdev: \
             {}\r\n  hotplugged: {}\r\n  hotpluggable: {}\r\n",
            module.id.unwrap_or_default(),
            module.addr,
            module.slot,
            module.node,
            module.size,
            module.memdev,
            module.hotplugged,
            module.hotpluggable,
        );
    }
    Ok(text)
}

/// `info memory_size_summary`.
pub(super) fn sizes(call: &Call<'_>) -> Printed {
    let sizes = Handler::query_memory_size_summary(&mut call.commands())?;
    let plugged = sizes.plugged_memory.unwrap_or_default();
    Ok(format!("base memory: {}\r\nplugged memory: {plugged}\r\n", sizes.base_memory))
}

/// `info numa`: a node's size is that of its modules too.
pub(super) fn numa(call: &Call<'_>) -> Printed {
    let machine = &call.context.machine;
    let nodes = machine.numa().nodes();
    let processors = cpu::Handler::query_cpus_fast(&mut call.commands())?;
    let modules = Handler::query_memory_devices(&mut call.commands())?;
    let mut text = format!("{} nodes\r\n", nodes.len());
    for (node, number) in nodes.iter().zip(0_i64..) {
        let inside = processors.iter().filter(|info| info.props.as_ref().and_then(|at| at.node_id) == Some(number));
        let inside: String = inside.map(|info| format!(" {}", info.cpu_index)).collect();
        let plugged = modules.iter().map(|MemoryDeviceInfo::Dimm(module)| &module.data);
        let plugged: i64 = plugged.filter(|module| module.node == number).map(|module| module.size).sum();
        let size = node.memory.saturating_add_signed(plugged);
        let _ = write!(
            text,
            "node {number} cpus:{inside}\r\nnode {number} size: {} MB\r\nnode {number} plugged: {} MB\r\n",
            size >> 20,
            plugged >> 20
        );
    }
    Ok(text)
}
