//! The interrupt controllers of Arm machines, which these machines do not have: `gic.json`.

use rhea_api::gic::{GICCapability, Handler};
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn query_gic_capabilities(&mut self) -> Result<Vec<GICCapability>, Error> {
        Err(Error::generic("An x86 machine has no GIC: its interrupt controllers are APICs"))
    }
}
