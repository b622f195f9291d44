//! A running program that is spoken to in commands and waited for: what tests are written with that are no transcripts.
//! Whatever does not go as it should is a failed test.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed unwrap is a failed test")]

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};

use crate::{guest::Console, monitor::Monitor, process::Machine, transcript::Guest};

/// How long anything may take: the machine that runs the tests may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A machine, its monitor and its console.
#[derive(Debug)]
pub struct Here {
    machine: Machine,
    monitor: Monitor,
    console: Option<Console>,
    events: VecDeque<Value>,
}

impl Here {
    /// Starts the program, and opens the session.
    pub fn start(arguments: &[String], guest: Guest) -> Self {
        let (machine, connections) = Machine::start(arguments, guest).unwrap();
        let console = connections.console.map(|stream| Console::new(stream).unwrap());
        let mut this = Self { machine, monitor: Monitor::new(connections.monitor), console, events: VecDeque::new() };
        this.monitor.receive(PATIENCE).unwrap();
        this.execute("qmp_capabilities", &json!({}));
        this
    }

    /// Executes a command; what it returns.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        self.monitor.send(&json!({ "execute": command, "arguments": arguments }).to_string()).unwrap();
        loop {
            let message = self.monitor.receive(PATIENCE).unwrap();
            if message.get("event").is_some() {
                self.events.push_back(message);
                continue;
            }
            assert!(message.get("error").is_none(), "{command} {arguments}: {message}");
            return message["return"].clone();
        }
    }

    /// Waits until the migration has ended; how.
    pub fn end_of_migration(&mut self) -> String {
        loop {
            let event = self.event("MIGRATION");
            let status = event["data"]["status"].as_str().unwrap_or_default();
            if ["completed", "failed", "cancelled"].contains(&status) {
                return status.to_owned();
            }
        }
    }

    /// Begins to send the machine; what happens is told by events.
    pub fn send(&mut self, uri: &str) {
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.execute("migrate-set-capabilities", &events);
        self.execute("migrate", &json!({ "uri": uri }));
    }

    /// Sends the machine; how that ended.
    pub fn migrate(&mut self, uri: &str) -> String {
        self.send(uri);
        self.end_of_migration()
    }

    /// The run state.
    pub fn status(&mut self) -> String {
        self.execute("query-status", &json!({}))["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the machine runs that was to come: what is typed before that is for nobody.
    pub fn runs(&mut self) {
        if self.status() == "running" {
            return;
        }
        self.event("RESUME");
    }

    /// Waits for an event.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.monitor.receive(PATIENCE).unwrap(),
            };
            if event["event"] == name {
                return event;
            }
        }
    }

    /// What a command of the monitor for people prints.
    pub fn human(&mut self, line: &str) -> String {
        let printed = self.execute("human-monitor-command", &json!({ "command-line": line }));
        printed.as_str().unwrap().to_owned()
    }

    /// Ends the program, which ends in order.
    pub fn quit(mut self) {
        self.execute("quit", &json!({}));
        assert!(self.machine.wait(PATIENCE).unwrap().success());
    }

    /// The console.
    pub fn console(&mut self) -> &mut Console {
        self.console.as_mut().unwrap()
    }
}
