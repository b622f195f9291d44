//! `-chardev`: a character backend, and its id.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rhea_backends::char::{Address, CharDevices, Definition, Log, Options as CharOptions};

use super::{
    keyval::{self, KeyValues, OptionError},
    table,
    typed::check_id,
};

/// Reads `BACKEND,id=ID,NAME=VALUE`, as `-chardev` and the monitor for people take it.
///
/// # Errors
/// An unknown backend or parameter, or a value that is none of its kind.
pub fn chardev(text: &str) -> Result<(String, Definition), OptionError> {
    let row = table::option("chardev").ok_or_else(|| OptionError::about("chardev", "no backends"))?;
    backend_of(&KeyValues::parse(row, text)?)
}

/// What a character backend is, and its id.
pub(super) fn backend_of(parameters: &KeyValues) -> Result<(String, Definition), OptionError> {
    let id = parameters.require("id")?.to_owned();
    check_id(&id).map_err(|reason| parameters.error(reason))?;
    let path = || parameters.require("path").map(PathBuf::from);
    let options = match parameters.require("backend")? {
        "null" => CharOptions::Null,
        "stdio" => CharOptions::Stdio { signal: parameters.flag("signal") },
        "pty" => CharOptions::Pty,
        "file" => CharOptions::File {
            input: parameters.get("input-path").map(PathBuf::from),
            output: path()?,
            append: parameters.flag("append"),
        },
        "pipe" => CharOptions::Pipe { path: path()? },
        "socket" => socket(parameters)?,
        "ringbuf" | "memory" => {
            let size = parameters.or_default("size").and_then(|text| keyval::size(text, 1));
            let size = size.and_then(|size| usize::try_from(size).ok());
            CharOptions::Ring { size: size.ok_or_else(|| parameters.error("a ringbuf that large is not possible"))? }
        }
        "mux" => CharOptions::Mux { over: parameters.require("chardev")?.to_owned() },
        other => {
            let kinds = CharDevices::kinds().join(", ");
            return Err(parameters.error(format!("there is no backend '{other}'; there are {kinds}")));
        }
    };
    let log = parameters.get("logfile");
    let log = log.map(|path| Log { path: path.into(), append: parameters.flag("logappend") });
    Ok((id, Definition { options, log, mux: parameters.flag("mux") }))
}

fn socket(parameters: &KeyValues) -> Result<CharOptions, OptionError> {
    let server = parameters.flag("server");
    let address = match (parameters.get("path"), parameters.number("fd"), parameters.number("port")) {
        (Some(path), None, None) => {
            if path.len() > 107 {
                return Err(parameters.error(format!("path '{path}' is longer than the 107 bytes that sockets take")));
            }
            Address::Unix(Path::new(path).to_owned())
        }
        (None, Some(fd), None) => Address::Descriptor(fd.to_string()),
        (None, None, Some(port)) => Address::Tcp {
            host: parameters.get("host").unwrap_or_default().to_owned(),
            port: u16::try_from(port).map_err(|_| parameters.error("ports go up to 65535"))?,
        },
        _ => return Err(parameters.error("a socket needs one of 'path', 'port' and 'fd'")),
    };
    let reconnect = match (parameters.number("reconnect"), parameters.number("reconnect-ms")) {
        (Some(_), Some(_)) => {
            return Err(parameters.error("'reconnect' and 'reconnect-ms' are mutually exclusive"));
        }
        (Some(seconds), None) => Some(Duration::from_secs(seconds)),
        (None, milliseconds) => milliseconds.map(Duration::from_millis),
    };
    let reconnect = reconnect.filter(|pause| !pause.is_zero());
    if reconnect.is_some() && (server || matches!(address, Address::Descriptor(_))) {
        return Err(parameters.error("'reconnect' is for clients with an address"));
    }
    Ok(CharOptions::Socket { address, server, wait: server && parameters.flag("wait"), reconnect })
}
