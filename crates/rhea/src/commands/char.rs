//! Character backends: `char.json`.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rhea_api::char::{
    ChardevBackend, ChardevBackendInfo, ChardevCommon, ChardevInfo, ChardevReturn, ChardevSocket, DataFormat, Handler,
    SocketAddressLegacy,
};
use rhea_backends::char::{Address, CharDevices, CharError, Definition, Log, Options};
use rhea_core::object::is_well_formed_id;
use rhea_qmp::{Error, reply::Later};

use super::Commands;

/// Bytes of a ring buffer of which nothing is said.
const RING_SIZE: i64 = 65536;

impl Handler for Commands<'_> {
    fn query_chardev(&mut self) -> Result<Vec<ChardevInfo>, Error> {
        let listed = self.context.chars.list().into_iter();
        Ok(listed.map(|row| ChardevInfo { label: row.id, filename: row.filename, frontend_open: row.used }).collect())
    }

    fn query_chardev_backends(&mut self) -> Result<Vec<ChardevBackendInfo>, Error> {
        Ok(CharDevices::kinds().iter().map(|&name| ChardevBackendInfo { name: name.to_owned() }).collect())
    }

    fn ringbuf_write(&mut self, device: String, data: String, format: Option<DataFormat>) -> Result<(), Error> {
        let bytes = match format.unwrap_or(DataFormat::Utf8) {
            DataFormat::Utf8 => data.into_bytes(),
            DataFormat::Base64 => STANDARD.decode(&data).map_err(|_| Error::generic("'data' is not in base64"))?,
        };
        self.context.chars.ring_write(&device, &bytes).map_err(Error::generic)
    }

    fn ringbuf_read(&mut self, device: String, size: i64, format: Option<DataFormat>) -> Result<String, Error> {
        let most = usize::try_from(size).ok().filter(|&most| most > 0);
        let most = most.ok_or_else(|| Error::generic("size must be greater than zero"))?;
        let chars = &self.context.chars;
        match format.unwrap_or(DataFormat::Utf8) {
            DataFormat::Utf8 => chars.ring_read_text(&device, most),
            DataFormat::Base64 => chars.ring_read(&device, most).map(|bytes| STANDARD.encode(bytes)),
        }
        .map_err(Error::generic)
    }

    fn chardev_add(&mut self, id: String, backend: ChardevBackend) -> Result<Later<ChardevReturn>, Error> {
        if !is_well_formed_id(&id) {
            return Err(Error::generic("Parameter 'id' expects an identifier"));
        }
        let failed = |error: Error| Error::generic(format_args!("Failed to add chardev '{id}': {error}"));
        let (definition, passed) = self.definition(backend).map_err(failed)?;
        let chars = Arc::clone(&self.context.chars);
        // To connect, and to wait for a client, may take long.
        Ok(Box::new(move || {
            let device = chars.add(&id, &definition, passed).map_err(Error::generic)?;
            Ok(ChardevReturn { pty: device.pty() })
        }))
    }

    fn chardev_remove(&mut self, id: String) -> Result<(), Error> {
        self.context.chars.remove(&id).map_err(Error::generic)
    }

    fn chardev_send_break(&mut self, id: String) -> Result<(), Error> {
        self.context.chars.find(&id).map(|device| device.send_break()).map_err(|error: CharError| Error::generic(error))
    }
}

impl Commands<'_> {
    /// What a client says of a backend, and the socket that it has passed for it.
    fn definition(&self, backend: ChardevBackend) -> Result<(Definition, Option<OwnedFd>), Error> {
        let mut passed = None;
        let (options, logfile, logappend) = match backend {
            ChardevBackend::File(wrapper) => {
                let file = wrapper.data;
                let input = file.r#in.map(PathBuf::from);
                let options = Options::File { input, output: file.out.into(), append: file.append.unwrap_or(false) };
                (options, file.logfile, file.logappend)
            }
            ChardevBackend::Pipe(wrapper) => {
                let pipe = wrapper.data;
                (Options::Pipe { path: pipe.device.into() }, pipe.logfile, pipe.logappend)
            }
            ChardevBackend::Socket(wrapper) => {
                let socket = wrapper.data;
                let (logfile, logappend) = (socket.logfile.clone(), socket.logappend);
                (self.socket(socket, &mut passed)?, logfile, logappend)
            }
            ChardevBackend::Pty(wrapper) => common(Options::Pty, wrapper.data),
            ChardevBackend::Null(wrapper) => common(Options::Null, wrapper.data),
            ChardevBackend::Mux(wrapper) => {
                let mux = wrapper.data;
                (Options::Mux { over: mux.chardev }, mux.logfile, mux.logappend)
            }
            ChardevBackend::Stdio(wrapper) => {
                let stdio = wrapper.data;
                (Options::Stdio { signal: stdio.signal.unwrap_or(true) }, stdio.logfile, stdio.logappend)
            }
            ChardevBackend::Ringbuf(wrapper) | ChardevBackend::Memory(wrapper) => {
                let ring = wrapper.data;
                // What is no size is no power of two either.
                let size = usize::try_from(ring.size.unwrap_or(RING_SIZE)).unwrap_or(0);
                (Options::Ring { size }, ring.logfile, ring.logappend)
            }
        };
        let log = logfile.map(|path| Log { path: path.into(), append: logappend.unwrap_or(false) });
        Ok((Definition { options, log, mux: false }, passed))
    }

    fn socket(&self, socket: ChardevSocket, passed: &mut Option<OwnedFd>) -> Result<Options, Error> {
        let server = socket.server.unwrap_or(true);
        if socket.nodelay == Some(false) {
            return Err(Error::generic("'nodelay' can only be true"));
        }
        if !server && socket.wait.is_some() {
            return Err(Error::generic("'wait' option is incompatible with socket in client connect mode"));
        }
        let reconnect = match (socket.reconnect, socket.reconnect_ms) {
            (Some(_), Some(_)) => {
                return Err(Error::generic("'reconnect' and 'reconnect-ms' are mutually exclusive"));
            }
            (Some(seconds), None) => u64::try_from(seconds).map(Duration::from_secs),
            (None, milliseconds) => u64::try_from(milliseconds.unwrap_or(0)).map(Duration::from_millis),
        };
        let reconnect = reconnect.map_err(|_| Error::generic("'reconnect' cannot be negative"))?;
        let reconnect = Some(reconnect).filter(|pause| !pause.is_zero());
        if server && reconnect.is_some() {
            let text = "'reconnect' option is incompatible with socket in server listen mode";
            return Err(Error::generic(text));
        }
        let address = match socket.addr {
            SocketAddressLegacy::Inet(wrapper) => {
                let port = wrapper.data.port;
                let number = port.parse().map_err(|_| Error::generic(format_args!("'{port}' is no number of a port")));
                Address::Tcp { host: wrapper.data.host, port: number? }
            }
            SocketAddressLegacy::Unix(wrapper) => Address::Unix(wrapper.data.path.into()),
            SocketAddressLegacy::Fd(wrapper) => {
                if reconnect.is_some() {
                    return Err(Error::generic("'reconnect' option is incompatible with 'fd'"));
                }
                let name = wrapper.data.str;
                if !name.starts_with(|first: char| first.is_ascii_digit()) {
                    *passed = Some(self.named(&name)?);
                }
                Address::Descriptor(name)
            }
        };
        Ok(Options::Socket { address, server, wait: socket.wait.unwrap_or(false), reconnect })
    }
}

fn common(options: Options, common: ChardevCommon) -> (Options, Option<String>, Option<bool>) {
    (options, common.logfile, common.logappend)
}
