//! The program's log: trouble that nobody was waiting for an answer about, and trace events that are switched on.

use std::{fs::File, io, path::Path, sync::Mutex};

use anyhow::Context as _;
use rhea_core::trace;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::Targets,
    fmt::{self, writer::BoxMakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::options::{LogSettings, TraceSwitch};

/// Starts the log and switches on what is wanted from the start.
///
/// # Errors
/// A file that cannot be written.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let LogSettings { file, trace_file, switches } = settings;
    let to = |file: Option<&Path>| match file {
        None => Ok(BoxMakeWriter::new(io::stderr)),
        Some(path) => {
            let opened = File::options().append(true).create(true).open(path);
            let file = opened.with_context(|| format!("could not write the log '{}'", path.display()))?;
            anyhow::Ok(BoxMakeWriter::new(Mutex::new(file)))
        }
    };
    let asked = EnvFilter::try_from_env("RHEA_LOG").unwrap_or_else(|_| "warn".into());
    // They are switched by themselves.
    let asked = asked.add_directive(format!("{}=off", trace::TARGET).parse().context("the log's filter")?);
    let log = fmt::layer().with_writer(to(file.as_deref())?).with_filter(asked);
    let traced = Targets::new().with_target(trace::TARGET, LevelFilter::INFO);
    let traces = fmt::layer().with_level(false).with_target(false);
    let traces = traces.with_writer(to(trace_file.as_deref().or(file.as_deref()))?).with_filter(traced);
    tracing_subscriber::registry().with(log).with(traces).init();
    for TraceSwitch { name, enable } in switches {
        let events: Vec<_> = trace::matching(name).collect();
        if events.is_empty() {
            tracing::warn!("trace event '{name}' does not exist");
        }
        for event in events {
            event.set_enabled(*enable);
        }
    }
    Ok(())
}
