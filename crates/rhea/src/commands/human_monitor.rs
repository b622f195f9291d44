//! The monitor for people, for programs: `human-monitor.json`.

use std::cell::Cell;

use rhea_api::human_monitor::Handler;
use rhea_qmp::Error;
use serde_json::Value;

use super::Commands;
use crate::human::{self, Answer};

impl Handler for Commands<'_> {
    fn human_monitor_command(&mut self, command_line: String, cpu_index: Option<i64>) -> Result<String, Error> {
        let processor = match cpu_index {
            Some(index) => self.processor(index)?,
            None => 0,
        };
        match human::run(self.context, self.session, &Cell::new(processor), &[], &command_line) {
            Answer::Printed(text) => Ok(text),
            Answer::Later(unfinished) => {
                let (work, after) = unfinished.into_parts();
                self.after_answer = after;
                self.instead = Some(Box::new(move || Ok(Value::String(work()))));
                Ok(String::new())
            }
        }
    }
}
