//! How long memory takes to a file: 512 MiB with 250 MB in them, four pages of noise to one of text.
//!
//! No guest runs: the content is there before the start, as an initial file system or as what a firmware would load, so
//! that both programs have the same to write.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Aim, Program, Row, Session, median};
use crate::guest::Guest;

const TURNS: usize = 5;
const MEMORY: &str = "512";
const CONTENT_PAGES: usize = 61_000;
const PAGE: usize = 4096;

/// What is measured: its name, the command, its arguments without the file, and the aim.
fn works() -> [(&'static str, &'static str, Value, Aim); 3] {
    [
        ("dump, elf", "dump-guest-memory", json!({ "paging": false }), Aim::AtMost(1.0)),
        (
            "dump, kdump-zlib",
            "dump-guest-memory",
            json!({ "paging": false, "format": "kdump-zlib" }),
            Aim::AtMost(1.0 / 3.0),
        ),
        ("pmemsave of all", "pmemsave", json!({ "val": 0, "size": 512 << 20 }), Aim::AtMost(1.0)),
    ]
}

/// Medians in seconds, a row a kind.
pub(super) fn measure(programs: &[Program], guest: &Guest, contents: &Contents) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, command, arguments, aim) in works() {
        let mut times = vec![Vec::new(); programs.len()];
        for _ in 0..TURNS {
            for (program, times) in programs.iter().zip(&mut times) {
                let file = contents.file("written");
                times.push(one(program, &contents.machine(program, guest), command, &arguments, &file)?);
                std::fs::remove_file(file)?;
            }
        }
        rows.push(Row { what, unit: "s", figures: times.into_iter().map(median).collect(), aim });
    }
    Ok(rows)
}

fn one(program: &Program, machine: &[OsString], command: &str, arguments: &Value, file: &Path) -> anyhow::Result<f64> {
    let mut session = Session::start_with(program, machine)?;
    let monitor = &mut session.monitor;
    monitor.negotiate()?;
    let mut arguments = arguments.clone();
    match command {
        "pmemsave" => arguments["filename"] = json!(file),
        _ => arguments["protocol"] = json!(format!("file:{}", file.display())),
    }
    let text = json!({ "execute": command, "arguments": arguments }).to_string();
    let start = Instant::now();
    monitor.send(&text)?;
    monitor.answer()?;
    let elapsed = start.elapsed().as_secs_f64();
    ensure!(monitor.line.contains("\"return\""), "{}: {}", program.name, monitor.line);
    session.quit()?;
    Ok(elapsed)
}

/// What the guest's memory holds, as a file.
pub(super) struct Contents {
    directory: TempDir,
}

impl Contents {
    pub(super) fn new() -> anyhow::Result<Self> {
        let contents = Self { directory: tempfile::tempdir()? };
        write_content(&contents.file("content"))?;
        Ok(contents)
    }

    /// A file beside them.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Arguments for a machine that has them in its memory.
    pub(super) fn machine(&self, program: &Program, guest: &Guest) -> Vec<OsString> {
        let content = self.file("content");
        let mut machine: Vec<OsString> = vec!["-m".into(), MEMORY.into()];
        if program.loads_initrd {
            machine.extend(["-kernel".into(), guest.kernel.clone().into()]);
            machine.extend(["-initrd".into(), content.into()]);
        } else {
            let loader = format!("loader,file={},addr=0x8000000,force-raw=on", content.display());
            machine.extend(["-device".into(), loader.into()]);
        }
        machine
    }
}

fn write_content(path: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path).context("no room for the content")?);
    let mut state = 1_u64;
    let mut page = Vec::with_capacity(PAGE);
    for number in 0..CONTENT_PAGES {
        page.clear();
        while page.len() < PAGE {
            // Xorshift: noise enough for any compressor.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if number % 5 == 0 {
                write!(page, "page {number} says the same again and again, but for {} of it; ", state % 1000)?;
            } else {
                page.extend_from_slice(&state.to_le_bytes());
            }
        }
        file.write_all(&page[..PAGE])?;
    }
    Ok(file.flush()?)
}
