//! What Xen's tools need to move a guest's devices: `xen.json`.

use std::{path::PathBuf, sync::Arc};

use rhea_api::xen::Handler;
use rhea_qmp::{Error, reply::Later};

use super::{Commands, failed};

impl Handler for Commands<'_> {
    fn xen_set_global_dirty_log(&mut self, enable: bool) -> Result<(), Error> {
        self.machine().set_global_dirty_log(enable);
        Ok(())
    }

    fn xen_save_devices_state(&mut self, filename: String, live: Option<bool>) -> Result<Later<()>, Error> {
        let machine = Arc::clone(self.machine());
        let gives_disks_free = live.unwrap_or(true);
        Ok(Box::new(move || machine.save_devices_to(&PathBuf::from(filename), gives_disks_free).map_err(failed)))
    }

    fn xen_load_devices_state(&mut self, filename: String) -> Result<Later<()>, Error> {
        let machine = Arc::clone(self.machine());
        Ok(Box::new(move || machine.load_devices_from(&PathBuf::from(filename)).map_err(failed)))
    }
}
