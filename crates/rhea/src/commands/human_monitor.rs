//! The monitor for people, for programs: `human-monitor.json`.

use std::cell::Cell;

use rhea_api::human_monitor::Handler;
use rhea_qmp::Error;

use super::Commands;
use crate::human;

impl Handler for Commands<'_> {
    fn human_monitor_command(&mut self, command_line: String, cpu_index: Option<i64>) -> Result<String, Error> {
        let processor = match cpu_index {
            Some(index) => self.processor(index)?,
            None => 0,
        };
        Ok(human::run(self.context, self.session, &Cell::new(processor), &command_line))
    }
}
