//! Disks: `block.json`.

use std::{sync::Arc, time::Duration};

use rhea_api::{
    block::{
        BlockDeviceInfo, BlockDeviceIoStatus, BlockDeviceStats, BlockInfo, BlockStats, BlockdevCacheInfo, Handler,
        ImageInfo, ImageInfoSpecific, SnapshotInfo,
    },
    blockdev::BlockdevDetectZeroesOptions,
};
use rhea_backends::block::{BlockStatistics, DetectZeroes, Disk, Node, Snapshot, ThrottleGroup};
use rhea_qmp::Error;
use serde_json::Value;

use super::Commands;

impl Handler for Commands<'_> {
    fn block_resize(&mut self, device: Option<String>, node_name: Option<String>, size: i64) -> Result<(), Error> {
        let size = u64::try_from(size).map_err(|_| Error::generic("Parameter 'size' expects a >0 size"))?;
        let name = match (device, node_name) {
            (Some(name), None) | (None, Some(name)) => name,
            _ => return Err(Error::generic("Need exactly one of 'device' and 'node-name'")),
        };
        self.machine().blocks().resize(&name, size).map_err(Error::generic)
    }

    fn query_block(&mut self) -> Result<Vec<BlockInfo>, Error> {
        let disks = self.machine().blocks().disks();
        let row = |disk: Disk| BlockInfo {
            inserted: Some(inserted(&disk)),
            device: disk.drive.unwrap_or_default(),
            qdev: disk.usage.as_ref().map(|usage| usage.device()),
            r#type: "unknown".to_owned(),
            removable: false,
            locked: false,
            io_status: disk.usage.map(|_| BlockDeviceIoStatus::Ok),
        };
        Ok(disks.into_iter().map(row).collect())
    }

    fn query_named_block_nodes(&mut self, flat: Option<bool>) -> Result<Vec<BlockDeviceInfo>, Error> {
        let nodes = self.machine().blocks().nodes();
        Ok(nodes.iter().map(|node| node_info(node, flat != Some(true))).collect())
    }

    fn query_blockstats(&mut self, query_nodes: Option<bool>) -> Result<Vec<BlockStats>, Error> {
        let blocks = self.machine().blocks();
        if query_nodes == Some(true) {
            return Ok(blocks.nodes().iter().map(node_statistics).collect());
        }
        let row = |disk: Disk| {
            let counted = disk.usage.as_ref().map(|usage| usage.statistics()).unwrap_or_default();
            BlockStats {
                device: Some(disk.drive.unwrap_or_default()),
                qdev: disk.usage.map(|usage| usage.device()),
                stats: statistics(&counted),
                ..node_statistics(&disk.node)
            }
        };
        Ok(blocks.disks().into_iter().map(row).collect())
    }
}

/// The node of a disk, with what its device says of it.
fn inserted(disk: &Disk) -> BlockDeviceInfo {
    let mut info = node_info(&disk.node, true);
    if let Some(group) = &disk.limits {
        show_limits(&mut info, group);
    }
    if let Some(usage) = &disk.usage {
        info.cache.writeback = usage.write_cache();
    }
    info
}

/// The limits of a group; those of bursts only where there are bursts.
fn show_limits(info: &mut BlockDeviceInfo, group: &ThrottleGroup) {
    let limits = group.limits();
    let value = |name: &str| limits.get(name).map_or(0, number);
    let given = |name: &str| Some(value(name)).filter(|value| *value > 0);
    let seconds = |meter: &str| given(&format!("{meter}-max")).map(|_| value(&format!("{meter}-max-length")));
    info.bps = value("bps-total");
    info.bps_rd = value("bps-read");
    info.bps_wr = value("bps-write");
    info.iops = value("iops-total");
    info.iops_rd = value("iops-read");
    info.iops_wr = value("iops-write");
    info.bps_max = given("bps-total-max");
    info.bps_rd_max = given("bps-read-max");
    info.bps_wr_max = given("bps-write-max");
    info.iops_max = given("iops-total-max");
    info.iops_rd_max = given("iops-read-max");
    info.iops_wr_max = given("iops-write-max");
    info.bps_max_length = seconds("bps-total");
    info.bps_rd_max_length = seconds("bps-read");
    info.bps_wr_max_length = seconds("bps-write");
    info.iops_max_length = seconds("iops-total");
    info.iops_rd_max_length = seconds("iops-read");
    info.iops_wr_max_length = seconds("iops-write");
    info.iops_size = given("iops-size");
    info.group = Some(group.name().to_owned());
}

/// JSON's numbers have a sign.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn snapshot_info(snapshot: &Snapshot) -> SnapshotInfo {
    let clock = Duration::from_nanos(snapshot.clock);
    SnapshotInfo {
        id: snapshot.id.clone(),
        name: snapshot.name.clone(),
        vm_state_size: number(snapshot.state_size),
        date_sec: snapshot.seconds.into(),
        date_nsec: snapshot.nanoseconds.into(),
        vm_clock_sec: number(clock.as_secs()),
        vm_clock_nsec: clock.subsec_nanos().into(),
        icount: snapshot.instructions.map(number),
    }
}

fn image_info(node: &Node, with_backing: bool) -> ImageInfo {
    let details = node.image();
    let specific = details.specific.map(|specific| ImageInfoSpecific {
        r#type: specific.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        data: specific.get("data").cloned().unwrap_or_default(),
    });
    let below = node.backing().filter(|_| with_backing);
    ImageInfo {
        filename: node.filename(),
        format: node.driver().to_owned(),
        dirty_flag: details.dirty,
        actual_size: Some(number(node.allocated())),
        virtual_size: number(node.size()),
        cluster_size: details.cluster_size.map(number),
        backing_filename: details.backing,
        full_backing_filename: details.full_backing,
        backing_filename_format: details.backing_format,
        snapshots: Some(node.snapshots().iter().map(snapshot_info).collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        backing_image: below.map(|below| Box::new(image_info(below, true))),
        format_specific: specific,
    }
}

fn node_info(node: &Arc<Node>, with_backing: bool) -> BlockDeviceInfo {
    let settings = node.settings();
    BlockDeviceInfo {
        file: node.filename(),
        node_name: Some(node.name().to_owned()),
        ro: node.read_only(),
        drv: node.driver().to_owned(),
        backing_file: node.backing().map(|backing| backing.filename()),
        backing_file_depth: node.backing_depth() as i64,
        encrypted: false,
        active: node.is_active(),
        detect_zeroes: match settings.detect_zeroes {
            DetectZeroes::Off => BlockdevDetectZeroesOptions::Off,
            DetectZeroes::On => BlockdevDetectZeroesOptions::On,
            DetectZeroes::Unmap => BlockdevDetectZeroesOptions::Unmap,
        },
        bps: 0,
        bps_rd: 0,
        bps_wr: 0,
        iops: 0,
        iops_rd: 0,
        iops_wr: 0,
        bps_max: None,
        bps_rd_max: None,
        bps_wr_max: None,
        iops_max: None,
        iops_rd_max: None,
        iops_wr_max: None,
        bps_max_length: None,
        bps_rd_max_length: None,
        bps_wr_max_length: None,
        iops_max_length: None,
        iops_rd_max_length: None,
        iops_wr_max_length: None,
        iops_size: None,
        group: None,
        cache: BlockdevCacheInfo { writeback: true, direct: settings.direct, no_flush: settings.no_flush },
        write_threshold: 0,
        image: image_info(node, with_backing),
    }
}

/// A node, of which nothing is counted but how far it was written.
fn node_statistics(node: &Arc<Node>) -> BlockStats {
    let below = |node: Option<&Arc<Node>>| node.map(|node| Box::new(node_statistics(node)));
    BlockStats {
        device: None,
        qdev: None,
        node_name: Some(node.name().to_owned()),
        stats: statistics(&BlockStatistics { highest_write: node.highest_write(), ..BlockStatistics::default() }),
        parent: below(node.below()),
        backing: below(node.backing()),
    }
}

fn statistics(counted: &BlockStatistics) -> BlockDeviceStats {
    let BlockStatistics { read, write, flush, unmap, highest_write, idle } = counted;
    let time = |count: &rhea_backends::block::Count| i64::try_from(count.time.as_nanos()).unwrap_or(i64::MAX);
    BlockDeviceStats {
        rd_bytes: number(read.bytes),
        wr_bytes: number(write.bytes),
        unmap_bytes: number(unmap.bytes),
        rd_operations: number(read.operations),
        wr_operations: number(write.operations),
        flush_operations: number(flush.operations),
        unmap_operations: number(unmap.operations),
        rd_total_time_ns: time(read),
        wr_total_time_ns: time(write),
        flush_total_time_ns: time(flush),
        unmap_total_time_ns: time(unmap),
        wr_highest_offset: number(*highest_write),
        rd_merged: 0,
        wr_merged: 0,
        unmap_merged: 0,
        idle_time_ns: idle.map(|idle| i64::try_from(idle.as_nanos()).unwrap_or(i64::MAX)),
        failed_rd_operations: number(read.failed),
        failed_wr_operations: number(write.failed),
        failed_flush_operations: number(flush.failed),
        failed_unmap_operations: number(unmap.failed),
        invalid_rd_operations: number(read.invalid),
        invalid_wr_operations: number(write.invalid),
        invalid_flush_operations: number(flush.invalid),
        invalid_unmap_operations: number(unmap.invalid),
        account_invalid: true,
        account_failed: true,
        timed_stats: Vec::new(),
    }
}
