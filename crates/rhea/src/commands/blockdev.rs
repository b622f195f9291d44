//! Nodes with the bytes of disks: `blockdev.json`.

use rhea_api::blockdev::{BlockdevOptions, Handler};
use rhea_qmp::Error;
use serde_json::Value;

use super::Commands;

impl Handler for Commands<'_> {
    fn blockdev_add(&mut self, arguments: BlockdevOptions) -> Result<(), Error> {
        let options = serde_json::to_value(arguments).map_err(Error::generic)?;
        let Value::Object(options) = options else { return Err(Error::generic("Parameter 'driver' is missing")) };
        self.machine().blocks().add(&options).map_err(Error::generic)
    }

    fn blockdev_del(&mut self, node_name: String) -> Result<(), Error> {
        self.machine().blocks().remove(&node_name).map_err(Error::generic)
    }
}
