//! The session and the program: `control.json`.

use rhea_api::control::{CommandInfo, EventInfo, Handler, QMPCapability, VersionInfo, VersionTriple};
use rhea_api::run_state::ShutdownCause;
use rhea_qmp::{Error, ErrorClass};

use super::Commands;
use crate::version;

impl Handler for Commands<'_> {
    fn qmp_capabilities(&mut self, _: Option<Vec<QMPCapability>>) -> Result<(), Error> {
        // The session takes the first one itself; one that comes here comes too late.
        let desc = "Capabilities negotiation is already complete, command ignored";
        Err(Error::new(ErrorClass::CommandNotFound, desc))
    }

    fn query_version(&mut self) -> Result<VersionInfo, Error> {
        let (major, minor, micro) = version::COMPATIBLE;
        Ok(VersionInfo { qemu: VersionTriple { major, minor, micro }, package: version::PACKAGE.to_owned() })
    }

    fn query_commands(&mut self) -> Result<Vec<CommandInfo>, Error> {
        Ok(rhea_api::COMMANDS.iter().map(|row| CommandInfo { name: row.name.to_owned() }).collect())
    }

    fn query_events(&mut self) -> Result<Vec<EventInfo>, Error> {
        Ok(rhea_api::EVENTS.iter().map(|&name| EventInfo { name: name.to_owned() }).collect())
    }

    fn quit(&mut self) -> Result<(), Error> {
        self.machine().quit(ShutdownCause::HostQmpQuit);
        Ok(())
    }
}
