//! How soon a monitor answers while another has a long command running.

use std::time::Instant;

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use super::{Aim, Monitor, Program, QUERY_STATUS, Row, Session, dumps::Contents};
use crate::guest::Guest;

/// Runs of each command; the answers of all count.
const TURNS: usize = 5;

/// What runs meanwhile: its name, the command, its arguments without the file, the argument that names the file, and the
/// question for its status.
fn works() -> [(&'static str, &'static str, Value, &'static str, &'static str); 3] {
    let dump = |format| json!({ "paging": false, "detach": true, "format": format });
    [
        ("p99 in dump, elf", "dump-guest-memory", dump("elf"), "protocol", "query-dump"),
        ("p99 in dump, kdump-zlib", "dump-guest-memory", dump("kdump-zlib"), "protocol", "query-dump"),
        ("p99 in migrate, file", "migrate", json!({}), "uri", "query-migrate"),
    ]
}

/// The 99th percentiles of the time to an answer, in milliseconds, a row a kind.
pub(super) fn measure(programs: &[Program], guest: &Guest, contents: &Contents) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, command, arguments, place, status) in works() {
        let mut times = vec![Vec::new(); programs.len()];
        for _ in 0..TURNS {
            for (program, times) in programs.iter().zip(&mut times) {
                let machine = contents.machine(program, guest);
                let (mut session, [mut other]) = Session::start_watched(program, &machine, ["other"])?;
                session.monitor.negotiate()?;
                other.negotiate()?;
                let file = contents.file("written");
                let mut arguments = arguments.clone();
                arguments[place] = json!(format!("file:{}", file.display()));
                session.monitor.send(&json!({ "execute": command, "arguments": arguments }).to_string())?;
                ask_until_ended(&mut other, status, times)?;
                let answer = session.monitor.answer()?;
                ensure!(answer.contains("\"return\""), "{}: {answer}", program.name);
                session.quit()?;
                std::fs::remove_file(file)?;
            }
        }
        let figures = times.into_iter().map(percentile_99).collect();
        rows.push(Row { what, unit: "ms", figures, aim: Aim::Within(5.0) });
    }
    Ok(rows)
}

/// Asks for the machine's status, one answer after the other, until what runs has ended.
fn ask_until_ended(monitor: &mut Monitor, status: &str, times: &mut Vec<f64>) -> anyhow::Result<()> {
    let question = json!({ "execute": status }).to_string();
    loop {
        for _ in 0..10 {
            let start = Instant::now();
            monitor.send(QUERY_STATUS)?;
            monitor.answer()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        monitor.send(&question)?;
        let answer: Value = serde_json::from_str(monitor.answer()?)?;
        match answer.pointer("/return/status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("none" | "active" | "setup" | "device") => {}
            _ => bail!("it did not go well: {answer}"),
        }
    }
}

fn percentile_99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
