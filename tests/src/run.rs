//! Goes through a transcript with a live machine, and says where it first went another way.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::guest::Console;
use crate::monitor::{Monitor, MonitorError};
use crate::pattern::Pattern;
use crate::process::Machine;
use crate::transcript::{Action, Header, Passed, Transcript};

/// How long Linux may take to boot to its shell, on a slow and busy host.
const BOOT: Duration = Duration::from_secs(240);

/// Runs the transcript in a file. The error is the text for whoever reads the test's outcome.
pub fn run(path: &Path) -> Result<(), String> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    let transcript = Transcript::parse(&text).map_err(|error| format!("{place}: {error}"))?;
    hold(&transcript, &place)
}

/// Holds the conversation of a transcript that was read from the file `place`.
pub fn hold(transcript: &Transcript, place: &str) -> Result<(), String> {
    let header = &transcript.header;
    let (machine, connections) =
        Machine::start_prepared(&header.prepare, &header.machine, header.guest).map_err(|error| error.to_string())?;
    let console = connections.console.map(Console::new).transpose().map_err(|error| error.to_string())?;
    let names = vec![("DIR".to_owned(), machine.directory().to_string_lossy().into_owned())];
    let mut conversation = Conversation {
        header: &transcript.header,
        machine,
        monitor: Monitor::new(connections.monitor),
        console,
        names,
        has_shell: false,
        has_ended: false,
        passed: None,
        kept: Vec::new(),
    };
    conversation.hold(transcript, place).map_err(|fault| conversation.report(&fault))
}

struct Conversation<'a> {
    header: &'a Header,
    machine: Machine,
    monitor: Monitor,
    console: Option<Console>,
    /// What `@NAME@` stands for: the directory of the run, and lines that were kept.
    names: Vec<(String, String)>,
    /// Whether the guest's shell has been taken over since the machine last booted.
    has_shell: bool,
    has_ended: bool,
    /// What goes along with the next text that is sent.
    passed: Option<OwnedFd>,
    /// Our ends of sockets that were passed: they stay open to the end.
    kept: Vec<OwnedFd>,
}

impl Conversation<'_> {
    fn hold(&mut self, transcript: &Transcript, place: &str) -> Result<(), String> {
        if self.header.negotiate {
            self.negotiate().map_err(|fault| format!("{place}: negotiation: {fault}"))?;
        }
        for step in &transcript.steps {
            self.act(&step.action).map_err(|fault| format!("{place}:{}: {fault}", step.line))?;
        }
        if !self.has_ended {
            self.close().map_err(|fault| format!("{place}: at the end: {fault}"))?;
        }
        Ok(())
    }

    fn negotiate(&mut self) -> Result<(), String> {
        let greeting = self.receive()?;
        if greeting.get("QMP").is_none() {
            return Err(format!("expected the greeting, got {greeting}"));
        }
        self.send(r#"{"execute": "qmp_capabilities"}"#)?;
        let reply = self.receive()?;
        if reply == serde_json::json!({"return": {}}) { Ok(()) } else { Err(format!("expected success, got {reply}")) }
    }

    /// Every transcript ends with a machine that is alive and has nothing more to say than was written.
    fn close(&mut self) -> Result<(), String> {
        self.send(r#"{"execute": "query-name", "id": "rhea-last"}"#)?;
        let last = self.next_but_ignored(None)?;
        if last.get("id").is_none_or(|id| id != "rhea-last") {
            return Err(format!("unexpected {last}"));
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let timeout = self.header.timeout;
        match action {
            Action::Send(text) => {
                let text = self.fill(text);
                match self.passed.take() {
                    None => self.send(&text),
                    Some(descriptor) => {
                        self.monitor.send_with(&text, descriptor.as_fd()).map_err(|error| error.to_string())
                    }
                }
            }
            Action::Pass(what) => {
                self.passed = Some(self.open(what).map_err(|error| error.to_string())?);
                Ok(())
            }
            Action::Reply(pattern) => {
                let message = self.next_but_ignored(None)?;
                self.check(pattern, &message)
            }
            Action::Event(pattern) => {
                let message = self.next_but_ignored(pattern.fixed_string("event"))?;
                let event = without_timestamp(message)?;
                self.check(pattern, &event)
            }
            Action::Guest(run) => {
                self.boot_once()?;
                let run = run.map(|text| self.fill(text));
                let output = self.console()?.run(&run.command, timeout).map_err(|error| error.to_string())?;
                self.names.extend(run.check(&output.lines)?);
                Ok(())
            }
            Action::Host(run) => {
                let run = run.map(|text| self.fill(text));
                let printed = self.host(&run.command)?;
                self.names.extend(run.check(&printed)?);
                Ok(())
            }
            Action::Console(text) => {
                self.console()?.wait_for(text, BOOT.max(timeout)).map(drop).map_err(|error| error.to_string())
            }
            Action::Type(line) => {
                if self.header.guest.has_shell() {
                    self.boot_once()?;
                }
                self.console()?.type_line(line).map_err(|error| error.to_string())
            }
            Action::Boot => {
                self.has_shell = false;
                self.boot_once()
            }
            Action::Exit(status) => self.exit(*status),
        }
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.monitor.send(text).map_err(|error| error.to_string())
    }

    fn open(&mut self, what: &Passed) -> io::Result<OwnedFd> {
        let mut options = OpenOptions::new();
        let path = match what {
            Passed::Socket => {
                let (theirs, ours) = UnixStream::pair()?;
                self.kept.push(ours.into());
                return Ok(theirs.into());
            }
            Passed::Read(path) => {
                options.read(true);
                path
            }
            Passed::Write(path) => {
                options.write(true).create(true);
                path
            }
            Passed::ReadWrite(path) => {
                options.read(true).write(true).create(true);
                path
            }
        };
        Ok(options.open(self.machine.directory().join(self.fill(path)))?.into())
    }

    fn receive(&mut self) -> Result<Value, String> {
        self.monitor.receive(self.header.timeout).map_err(|error| error.to_string())
    }

    /// The next message, past events that are to be ignored unless one of them is the one `wanted`.
    fn next_but_ignored(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        loop {
            let message = self.receive()?;
            let name = message.get("event").and_then(Value::as_str);
            let ignored = name
                .is_some_and(|name| Some(name) != wanted && self.header.ignore.iter().any(|ignored| ignored == name));
            if !ignored {
                return Ok(message);
            }
        }
    }

    fn check(&self, pattern: &Pattern, message: &Value) -> Result<(), String> {
        let expected = self
            .names
            .iter()
            .fold(pattern.clone(), |pattern, (name, value)| pattern.substitute(&format!("@{name}@"), value));
        expected.check(message).map_err(|mismatch| format!("{mismatch}\nthe message was {message}"))
    }

    fn boot_once(&mut self) -> Result<(), String> {
        if !self.has_shell {
            self.console()?.wait_for_shell(BOOT).map_err(|error| error.to_string())?;
            self.has_shell = true;
        }
        Ok(())
    }

    fn console(&mut self) -> Result<&mut Console, String> {
        self.console
            .as_mut()
            .ok_or_else(|| "this machine has no console: say 'guest linux' or 'guest embedded'".to_owned())
    }

    fn host(&self, command: &str) -> Result<Vec<String>, String> {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(self.machine.directory())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let printed = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&printed).lines().map(str::to_owned).collect())
    }

    fn exit(&mut self, expected: i32) -> Result<(), String> {
        let rest = match self.monitor.receive_to_end(self.header.timeout) {
            Ok(rest) => rest,
            Err(MonitorError::Silent(patience)) => {
                return Err(format!("the connection did not end within {patience:?}"));
            }
            Err(error) => return Err(error.to_string()),
        };
        if let Some(message) = rest.first() {
            return Err(format!("unexpected {message}"));
        }
        let status = self.machine.wait(self.header.timeout).map_err(|error| error.to_string())?;
        self.has_ended = true;
        // Who was ended by a signal has the status that shells give it.
        if status.code().or_else(|| status.signal().map(|signal| 128 + signal)) == Some(expected) {
            Ok(())
        } else {
            Err(format!("expected exit status {expected}, got {status}"))
        }
    }

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
    }

    /// The fault, with what the machine itself said last.
    fn report(&self, fault: &str) -> String {
        let mut report = fault.to_owned();
        let console = self.console.as_ref().map(Console::log).unwrap_or_default();
        for (source, text) in [("the program printed", self.machine.said()), ("the console showed last", console)] {
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            if !last.is_empty() {
                report.push_str(&format!("\n--- {source}:\n{}", last.join("\n")));
            }
        }
        if self.header.guest.has_shell() && !self.has_shell {
            report.push_str("\n--- the guest's shell was not reached");
        }
        report
    }
}

/// An event without its time, which must be there and well formed.
fn without_timestamp(mut event: Value) -> Result<Value, String> {
    let timestamp = event.as_object_mut().and_then(|members| members.shift_remove("timestamp"));
    let part = |name: &str| timestamp.as_ref().and_then(|timestamp| timestamp.get(name)).and_then(Value::as_u64);
    match (part("seconds"), part("microseconds")) {
        (Some(_), Some(0..1_000_000)) => Ok(event),
        _ if event.get("event").is_none() => Err(format!("expected an event, got {event}")),
        _ => Err(format!("an event without a proper time: {event} at {timestamp:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_needs_a_proper_time() {
        let event = |timestamp: Value| without_timestamp(json!({"event": "STOP", "timestamp": timestamp}));
        assert_eq!(event(json!({"seconds": 1, "microseconds": 999_999})), Ok(json!({"event": "STOP"})));
        assert!(event(json!({"seconds": 1, "microseconds": 1_000_000})).is_err());
        assert!(event(json!({"seconds": 1.0, "microseconds": 0})).is_err());
        assert!(without_timestamp(json!({"event": "STOP"})).is_err());
        assert!(without_timestamp(json!({"return": {}})).is_err());
    }
}
