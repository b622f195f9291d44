//! Snapshots for people: `savevm`, `loadvm`, `delvm` and `info snapshots`.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use chrono::{Local, TimeZone as _};
use rhea_backends::block::Snapshot;
use rhea_machine::{Machine, MachineError, SnapshotChoice, jobs::Progress};
use rhea_qmp::Error;

use super::table::{Call, Failure, Printed, Work};

fn work(call: &Call<'_>, job: impl FnOnce(&Arc<Machine>) -> Result<(), MachineError> + Send + 'static) -> Work {
    let machine = Arc::clone(&call.context.machine);
    let job = Box::new(move || job(&machine).map_err(Error::generic));
    Work::new(call.commands(), job, |()| String::new())
}

/// `savevm [NAME]`: one of the same name is replaced.
pub(super) fn save(call: &Call<'_>) -> Result<Work, Failure> {
    let mut line = call.line();
    let name = line.word()?.unwrap_or_else(|| Local::now().format("vm-%Y%m%d%H%M%S").to_string());
    line.end()?;
    let choice = SnapshotChoice::of_all(name);
    Ok(work(call, move |machine| machine.save_snapshot(&choice, true, &Progress::default())))
}

/// `loadvm NAME`.
pub(super) fn load(call: &Call<'_>) -> Result<Work, Failure> {
    let choice = SnapshotChoice::of_all(call.only_word()?);
    Ok(work(call, move |machine| machine.load_snapshot(&choice)))
}

/// `delvm NAME`.
pub(super) fn delete(call: &Call<'_>) -> Result<Work, Failure> {
    let choice = SnapshotChoice::of_all(call.only_word()?);
    Ok(work(call, move |machine| machine.delete_snapshot(&choice)))
}

/// `info snapshots`.
pub(super) fn info(call: &Call<'_>) -> Printed {
    call.no_words()?;
    let mut disks = call.context.machine.blocks().writable();
    disks.retain(|(_, node)| node.takes_snapshots());
    let listed: Vec<(String, Vec<Snapshot>)> = disks.into_iter().map(|(name, node)| (name, node.snapshots())).collect();
    let Some((_, of_machine)) = listed.first() else {
        return Ok("no block device can store vmstate for snapshot\r\n".to_owned());
    };
    if listed.iter().all(|(_, snapshots)| snapshots.is_empty()) {
        return Ok("There is no snapshot available.\r\n".to_owned());
    }
    let on_all = |name: &str| listed.iter().all(|(_, snapshots)| snapshots.iter().any(|other| other.name == name));
    let is_whole =
        |name: &str| on_all(name) && of_machine.iter().any(|snapshot| snapshot.name == name && snapshot.state_size > 0);
    let mut text = "List of snapshots present on all disks:\r\n".to_owned();
    let whole: Vec<&Snapshot> = of_machine.iter().filter(|snapshot| is_whole(&snapshot.name)).collect();
    if whole.is_empty() {
        text.push_str("None\r\n");
    } else {
        table(&mut text, &whole, false);
    }
    for (name, snapshots) in &listed {
        let partial: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| !is_whole(&snapshot.name)).collect();
        if !partial.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(text, "\r\nList of partial (non-loadable) snapshots on '{name}':\r\n");
            table(&mut text, &partial, true);
        }
    }
    Ok(text)
}

/// Names of snapshots, to complete words.
pub(super) fn names(machine: &Machine) -> Vec<String> {
    let disks = machine.blocks().writable();
    disks.iter().flat_map(|(_, node)| node.snapshots()).map(|snapshot| snapshot.name).collect()
}

fn table(text: &mut String, snapshots: &[&Snapshot], with_ids: bool) {
    let mut line = |id: &str, tag: &str, size: &str, date: &str, clock: &str, count: &str| {
        let _ = write!(text, "{id:<7} {tag:<16} {size:>8} {date:>19} {clock:>15} {count:>10}\r\n");
    };
    line("ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for snapshot in snapshots {
        let date = Local.timestamp_opt(snapshot.seconds.into(), 0).single();
        let date = date.map_or_else(|| "--".to_owned(), |date| date.format("%Y-%m-%d %H:%M:%S").to_string());
        let clock = Duration::from_nanos(snapshot.clock);
        let seconds = clock.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let clock = format!("{hours:04}:{minutes:02}:{:02}.{:03}", seconds % 60, clock.subsec_millis());
        let count = snapshot.instructions.map_or_else(|| "--".to_owned(), |count| count.to_string());
        let id = if with_ids { snapshot.id.as_str() } else { "--" };
        line(id, &snapshot.name, &size(snapshot.state_size), &date, &clock, &count);
    }
}

/// Bytes, in a unit that leaves three digits.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024.0, next);
    }
    let digits = if value >= 100.0 || unit == "B" {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (715_900, "699 KiB"),
            (3_000_001, "2.86 MiB"),
            (10 << 20, "10 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
