//! Where a machine is sent to or comes from, as clients write it.

use std::{os::fd::OwnedFd, path::PathBuf};

/// Where to, or where from.
#[derive(Debug)]
pub enum Address {
    /// A file, from byte `offset` on.
    File {
        /// Its name.
        path: PathBuf,
        /// Where in it.
        offset: u64,
    },
    /// A shell's command: its standard input or output.
    Command(String),
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Name or number; empty for all of this host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A descriptor that somebody has opened: a connected socket, a pipe or a file.
    Descriptor(OwnedFd),
}

impl Address {
    /// Reads an address; `named` takes the descriptor of a name.
    ///
    /// # Errors
    /// It cannot be one, and why.
    pub fn parse(text: &str, named: impl FnOnce(&str) -> Result<OwnedFd, String>) -> Result<Self, String> {
        let unknown = || format!("unknown migration protocol: {text}");
        let (protocol, rest) = text.split_once(':').ok_or_else(unknown)?;
        match protocol {
            "file" => file(rest),
            "exec" => Ok(Self::Command(rest.to_owned())),
            "unix" if rest.is_empty() => Err("a unix socket needs a path".to_owned()),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" => tcp(rest),
            "fd" => named(rest).map(Self::Descriptor),
            _ => Err(unknown()),
        }
    }
}

fn file(text: &str) -> Result<Address, String> {
    let (path, offset) = match text.rsplit_once(",offset=") {
        Some((path, offset)) => {
            let parsed = match offset.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => offset.parse(),
            };
            let inside = parsed.ok().filter(|offset| i64::try_from(*offset).is_ok());
            (path, inside.ok_or_else(|| format!("file URI has bad offset {offset}"))?)
        }
        None => (text, 0),
    };
    if path.is_empty() {
        return Err("file URI is missing a path".to_owned());
    }
    Ok(Address::File { path: PathBuf::from(path), offset })
}

fn tcp(text: &str) -> Result<Address, String> {
    let wrong = || format!("'{text}' is no address: it must have the form HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    // More of an address than its port is not there.
    let port = port.split(',').next().unwrap_or_default();
    Ok(Address::Tcp { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let parsed = Address::parse(text, |name| Err(format!("no '{name}'")))?;
        Ok(format!("{parsed:?}"))
    }

    #[test]
    fn addresses_of_every_kind_are_read() {
        for (text, expected) in [
            ("file:/tmp/a,b", r#"File { path: "/tmp/a,b", offset: 0 }"#),
            ("file:/tmp/a,offset=4096", r#"File { path: "/tmp/a", offset: 4096 }"#),
            ("file:a,offset=0x10", r#"File { path: "a", offset: 16 }"#),
            ("exec:cat > 'a:b'", r#"Command("cat > 'a:b'")"#),
            ("unix:/run/m", r#"Unix("/run/m")"#),
            ("tcp:localhost:4446", r#"Tcp { host: "localhost", port: 4446 }"#),
            ("tcp::4446", r#"Tcp { host: "", port: 4446 }"#),
            ("tcp:[::1]:4446", r#"Tcp { host: "::1", port: 4446 }"#),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_that_names_it() {
        for (text, expected) in [
            ("", "unknown migration protocol: "),
            ("nonsense", "unknown migration protocol: nonsense"),
            ("rdma:host:1", "unknown migration protocol: rdma:host:1"),
            ("file:", "file URI is missing a path"),
            ("file:a,offset=-1", "file URI has bad offset -1"),
            ("file:a,offset=0xffffffffffffffff", "file URI has bad offset 0xffffffffffffffff"),
            ("unix:", "a unix socket needs a path"),
            ("tcp:1", "'1' is no address: it must have the form HOST:PORT"),
            ("tcp:host:99999", "'host:99999' is no address: it must have the form HOST:PORT"),
            ("tcp:::1:80", "'::1:80' is no address: it must have the form HOST:PORT"),
            ("tcp:[::1:80", "'[::1:80' is no address: it must have the form HOST:PORT"),
            ("fd:m", "no 'm'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }
}
