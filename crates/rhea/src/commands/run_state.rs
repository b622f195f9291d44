//! Running, stopping and ending the machine: `run-state.json`.

use rhea_api::run_state::{Handler, RunState, ShutdownCause, StatusInfo};
use rhea_devices::acpi::pm::WakeCause;
use rhea_qmp::Error;

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn query_status(&mut self) -> Result<StatusInfo, Error> {
        let status = self.machine().state();
        Ok(StatusInfo { running: status == RunState::Running, status })
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.machine().stop().map_err(failed)
    }

    fn cont(&mut self) -> Result<(), Error> {
        self.machine().cont().map_err(failed)
    }

    fn system_reset(&mut self) -> Result<(), Error> {
        self.machine().reset(ShutdownCause::HostQmpSystemReset).map_err(failed)
    }

    fn system_powerdown(&mut self) -> Result<(), Error> {
        self.machine().power_down();
        Ok(())
    }

    fn system_wakeup(&mut self) -> Result<(), Error> {
        self.machine().wake_up(WakeCause::Other).map_err(failed)
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.machine().inject_nmi().map_err(failed)
    }
}
