//! The clock of date and time: `clock.json`.

use rhea_api::clock::Handler;
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn rtc_reset_reinjection(&mut self) -> Result<(), Error> {
        self.machine().reset_reinjection();
        Ok(())
    }
}
