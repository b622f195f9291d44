//! ACPI: `acpi.json`.

use rhea_api::acpi::{ACPIOSTInfo, Handler};
use rhea_qmp::Error;

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn query_acpi_ospm_status(&mut self) -> Result<Vec<ACPIOSTInfo>, Error> {
        self.machine().slot_reports().map_err(failed)
    }
}
