//! I/O threads: `iothread.json`.

use rhea_api::iothread::{Handler, IOThreadInfo};
use rhea_backends::object::IoThread;
use rhea_qmp::Error;

use super::Commands;

impl Handler for Commands<'_> {
    fn query_iothreads(&mut self) -> Result<Vec<IOThreadInfo>, Error> {
        let threads = self.machine().objects().all::<IoThread>().into_iter();
        let row = |(id, thread): (String, std::sync::Arc<IoThread>)| {
            let settings = thread.settings();
            IOThreadInfo {
                id,
                thread_id: thread.host_thread().into(),
                poll_max_ns: settings.poll_max_ns,
                poll_grow: settings.poll_grow,
                poll_shrink: settings.poll_shrink,
                aio_max_batch: Some(settings.aio_max_batch),
            }
        };
        Ok(threads.map(row).collect())
    }
}
