//! What `-D`, `-d` and `-trace` come to.

use std::path::PathBuf;

use rhea_core::{files, trace};

use super::keyval::{KeyValues, OptionError};

/// A trace event, or several by a pattern, that is switched at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSwitch {
    /// Name or pattern.
    pub name: String,
    /// On or off.
    pub enable: bool,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Where it goes; to the standard error if nothing is said.
    pub file: Option<PathBuf>,
    /// Where trace events go, if not there.
    pub trace_file: Option<PathBuf>,
    /// What is switched at the start, in order.
    pub switches: Vec<TraceSwitch>,
}

impl LogSettings {
    /// `NAME` is on, `-NAME` is off.
    fn switch(&mut self, text: &str) {
        let (name, enable) = text.strip_prefix('-').map_or((text, true), |name| (name, false));
        self.switches.push(TraceSwitch { name: name.to_owned(), enable });
    }

    /// `-trace`.
    pub(super) fn trace(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        if let Some(file) = parameters.get("file") {
            self.trace_file = Some(file.into());
        }
        if let Some(path) = parameters.get("events") {
            let bytes = files::read(path)
                .map_err(|error| parameters.error(format!("Could not open '{path}': {}", files::reason(&error))))?;
            let text = String::from_utf8_lossy(&bytes);
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).for_each(|line| {
                self.switch(line);
            });
        }
        parameters.all("enable").for_each(|name| self.switch(name));
        Ok(())
    }

    /// `-d`: a list of what is to be logged.
    pub(super) fn items(&mut self, text: &str) -> Result<(), OptionError> {
        for item in text.split(',') {
            let unknown = || OptionError::about("d", format!("there is no log item '{item}'; '-d help' lists them"));
            self.switch(item.strip_prefix("trace:").ok_or_else(unknown)?);
        }
        Ok(())
    }
}

/// What `-d help` prints.
pub fn items_help() -> String {
    "Log items (comma separated):\ntrace:PATTERN   enable trace events; '-trace help' lists them\n".to_owned()
}

/// What `-trace help` prints.
pub fn trace_help() -> String {
    trace::EVENTS.iter().map(|event| format!("{}\n", event.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;

    fn log(arguments: &[&str]) -> Result<LogSettings, OptionError> {
        parse(&arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).map(|settings| settings.log)
    }

    #[test]
    fn events_are_switched_in_order_from_options_and_files() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("events");
        std::fs::write(&list, "# comment\n pci_*\n\n-pci_cfg_read\n").unwrap();
        let events = format!("cpu_in,events={},file=/t", list.display());
        let all =
            log(&["-D", "/l", "-trace", &events, "-d", "trace:apic_*,trace:-cpu_in", "-trace", "enable=x"]).unwrap();
        assert_eq!((all.file, all.trace_file), (Some("/l".into()), Some("/t".into())));
        let switches: Vec<(&str, bool)> = all.switches.iter().map(|switch| (&*switch.name, switch.enable)).collect();
        let expected = [
            ("pci_*", true),
            ("pci_cfg_read", false),
            ("cpu_in", true),
            ("apic_*", true),
            ("cpu_in", false),
            ("x", true),
        ];
        assert_eq!(switches, expected);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (arguments, said) in [
            (["-d", "in_asm"], "no log item 'in_asm'"),
            (["-trace", "events=/nowhere/x"], "Could not open '/nowhere/x': No such file or directory"),
            (["-trace", "a,b=c"], "invalid parameter 'b'"),
        ] {
            let error = log(&arguments).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
