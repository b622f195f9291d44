//! Disks for people: `info block` and `info blockstats`, and the commands of `block.json`.

use std::fmt::Write as _;

use rhea_api::block::{BlockDeviceInfo, Handler, ImageInfo};

use super::table::{Call, Failure, Printed};

/// `info block [-n] [-v] [NAME]`.
pub(super) fn info(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let options = line.options("nv")?;
    let (nodes, verbose) = (options.has('n'), options.has('v'));
    let wanted = line.word()?;
    line.end()?;
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let mut parts = Vec::new();
    if nodes {
        for node in Handler::query_named_block_nodes(&mut call.commands(), None)? {
            let name = node.node_name.clone().unwrap_or_default();
            if is_wanted(&name) {
                parts.push(show(&name, None, &node, verbose));
            }
        }
    } else {
        for disk in Handler::query_block(&mut call.commands())? {
            let Some(node) = disk.inserted else { continue };
            let own = node.node_name.as_deref().unwrap_or_default();
            let name = match disk.device.as_str() {
                "" => own.to_owned(),
                device => format!("{device} ({own})"),
            };
            if is_wanted(&disk.device) || is_wanted(own) {
                parts.push(show(&name, disk.qdev.as_deref(), &node, verbose));
            }
        }
    }
    Ok(parts.join("\r\n"))
}

fn show(name: &str, device: Option<&str>, node: &BlockDeviceInfo, verbose: bool) -> String {
    let mut text = String::new();
    let read_only = if node.ro { ", read-only" } else { "" };
    // Writing to a string does not fail.
    let _ = write!(text, "{name}: {} ({}{read_only})\r\n", node.file, node.drv);
    if let Some(device) = device {
        let _ = write!(text, "    Attached to:      {device}\r\n");
    }
    let mut cache = vec![if node.cache.writeback { "writeback" } else { "writethrough" }];
    cache.extend(node.cache.direct.then_some("direct"));
    cache.extend(node.cache.no_flush.then_some("ignore flushes"));
    let _ = write!(text, "    Cache mode:       {}\r\n", cache.join(", "));
    if let Some(backing) = &node.backing_file {
        let _ = write!(text, "    Backing file:     {backing} (chain depth: {})\r\n", node.backing_file_depth);
    }
    if let Some(group) = &node.group {
        let _ = write!(
            text,
            "    I/O throttling:   bps={} bps_rd={} bps_wr={} iops={} iops_rd={} iops_wr={} iops_size={} group={group}\r\n",
            node.bps,
            node.bps_rd,
            node.bps_wr,
            node.iops,
            node.iops_rd,
            node.iops_wr,
            node.iops_size.unwrap_or(0)
        );
    }
    if verbose {
        text.push_str("\r\nImages:\r\n");
        let mut next = Some(&node.image);
        while let Some(image) = next {
            show_image(&mut text, image);
            next = image.backing_image.as_deref();
        }
    }
    text
}

fn show_image(text: &mut String, image: &ImageInfo) {
    let _ = write!(text, "image: {}\r\nfile format: {}\r\n", image.filename, image.format);
    let _ = write!(text, "virtual size: {} bytes\r\n", image.virtual_size);
    let _ = write!(text, "disk size: {} bytes\r\n", image.actual_size.unwrap_or(0));
    if let Some(size) = image.cluster_size {
        let _ = write!(text, "cluster_size: {size}\r\n");
    }
    if let Some(name) = &image.backing_filename {
        let _ = write!(text, "backing file: {name}\r\n");
    }
}

/// `info blockstats`.
pub(super) fn statistics(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for disk in Handler::query_blockstats(&mut call.commands(), None)? {
        let stats = &disk.stats;
        let name = disk.device.filter(|name| !name.is_empty()).or(disk.node_name).unwrap_or_default();
        let _ = write!(
            text,
            "{name}: rd_bytes={} wr_bytes={} rd_operations={} wr_operations={} flush_operations={} \
             wr_total_time_ns={} rd_total_time_ns={} flush_total_time_ns={} rd_merged={} wr_merged={} idle_time_ns={}\r\n",
            stats.rd_bytes,
            stats.wr_bytes,
            stats.rd_operations,
            stats.wr_operations,
            stats.flush_operations,
            stats.wr_total_time_ns,
            stats.rd_total_time_ns,
            stats.flush_total_time_ns,
            stats.rd_merged,
            stats.wr_merged,
            stats.idle_time_ns.unwrap_or(0)
        );
    }
    Ok(text)
}

/// `block_resize NAME SIZE`: SIZE is in megabytes, or has a suffix.
pub(super) fn resize(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (name, size) = (line.need("string")?, line.need("size")?);
    line.end()?;
    let size = crate::options::size(&size, 1 << 20).and_then(|size| i64::try_from(size).ok());
    let size = size.ok_or_else(|| Failure::new("block_resize needs the name of a disk and a size"))?;
    Handler::block_resize(&mut call.commands(), Some(name), None, size)?;
    Ok(String::new())
}
