//! What Xen's tools need to move a guest's devices: `xen.json`.

use rhea_api::xen::Handler;
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn xen_set_global_dirty_log(&mut self, enable: bool) -> Result<(), Error> {
        self.machine().set_global_dirty_log(enable);
        Ok(())
    }
}
