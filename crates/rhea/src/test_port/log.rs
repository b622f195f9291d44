//! The log of a test port: each line that comes and goes, with the seconds since the client came.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::Instant,
};

use anyhow::Context as _;
use rhea_core::files::{self, Access};

/// The log, or none.
pub(super) struct Log {
    file: Option<BufWriter<File>>,
    since: Instant,
}

impl Log {
    /// Opens the log; `none` and no path at all mean that there is none.
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let path = path.filter(|path| path.as_os_str() != "none");
        let file = path
            .map(|path| {
                files::open(path, Access::Replace)
                    .with_context(|| format!("-qtest-log: Could not open '{}'", path.display()))
            })
            .transpose()?;
        Ok(Self { file: file.map(BufWriter::new), since: Instant::now() })
    }

    /// A client came.
    pub(super) fn opened(&mut self) {
        self.since = Instant::now();
        self.write('I', "OPENED");
        self.flush();
    }

    /// It went.
    pub(super) fn closed(&mut self) {
        self.write('I', "CLOSED");
        self.flush();
    }

    /// A request came.
    pub(super) fn received(&mut self, line: &str) {
        self.write('R', line);
    }

    /// Lines were sent.
    pub(super) fn sent(&mut self, text: &str) {
        if self.file.is_some() {
            for line in text.lines() {
                self.write('S', line);
            }
            self.flush();
        }
    }

    fn write(&mut self, kind: char, line: &str) {
        let since = self.since.elapsed().as_secs_f64();
        self.attempt(|file| writeln!(file, "[{kind} +{since:.6}] {line}"));
    }

    fn flush(&mut self) {
        self.attempt(BufWriter::flush);
    }

    /// A log that cannot be written is given up; the test goes on.
    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
        if let Some(Err(error)) = self.file.as_mut().map(write) {
            tracing::warn!("-qtest-log: {error}");
            self.file = None;
        }
    }
}
