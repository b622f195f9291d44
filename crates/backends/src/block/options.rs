//! What a node is to be: the options of `blockdev-add`, `-blockdev` and `-drive`, read from their JSON form.
//!
//! On a command line all values are text, so that text is taken where it says a number or a truth value.

use std::path::PathBuf;

use rhea_core::object::{PropertyKind as _, Size, is_well_formed_id};
use serde_json::{Map, Value};

use super::BlockError;

/// The most nodes above each other.
pub const MOST_LAYERS: usize = 64;

/// A node to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What all nodes have.
    pub settings: NodeSettings,
    /// What is its own.
    pub driver: DriverSpec,
}

/// What all nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// Whether it must not be written.
    pub read_only: bool,
    /// Whether it may become read-only if it cannot be written.
    pub auto_read_only: bool,
    /// Whether to go past the host's cache.
    pub direct: bool,
    /// Whether a flush may leave data in the host's cache: what survives the program, but not the host.
    pub no_flush: bool,
    /// Whether room that is discarded is given back.
    pub unmap: bool,
    /// What becomes of writes of zeros.
    pub detect_zeroes: DetectZeroes,
}

/// What becomes of writes of zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// They are written.
    #[default]
    Off,
    /// They are made a write-zeroes.
    On,
    /// They are made a write-zeroes that may give room back.
    Unmap,
}

impl DetectZeroes {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Unmap => "unmap",
        }
    }
}

/// What a driver needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverSpec {
    /// A file, or a block device, of the host.
    File {
        /// Which.
        path: PathBuf,
        /// Whether others are kept from it.
        locking: bool,
        /// Whether it is called a device.
        device: bool,
    },
    /// Zeros, and nothing that is kept.
    Null {
        /// Bytes.
        size: u64,
        /// Its name: `null-co` or `null-aio`.
        name: &'static str,
    },
    /// The bytes of another node, or a part of them.
    Raw {
        /// The other.
        file: Child,
        /// First byte.
        offset: u64,
        /// Bytes, if not all that there are.
        size: Option<u64>,
    },
    /// The bytes of another node, not faster than the limits of a group.
    Throttle {
        /// The group.
        group: String,
        /// The other.
        file: Child,
    },
    /// An image in QEMU's format.
    Qcow2 {
        /// What it is in.
        file: Child,
        /// What it stands on.
        backing: Backing,
    },
}

/// What a node stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// A node that there is.
    Name(String),
    /// One of its own.
    Own(Box<NodeSpec>),
}

/// What an image takes for what is not written in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Zeros.
    None,
    /// What the image says.
    Image,
    /// A node.
    Node(Child),
}

impl NodeSpec {
    /// Reads options.
    ///
    /// # Errors
    /// What is missing, unknown or cannot be.
    pub fn read(options: &Map<String, Value>) -> Result<Self, BlockError> {
        Self::read_below(options, "", None, 0)
    }

    /// Reads what a node stands on: it takes what is not said after `above`.
    fn read_below(
        options: &Map<String, Value>,
        prefix: &str,
        above: Option<&NodeSettings>,
        depth: usize,
    ) -> Result<Self, BlockError> {
        if depth >= MOST_LAYERS {
            return Err(BlockError::TooDeep);
        }
        let mut fields = Fields { left: options.clone(), prefix };
        let driver = fields.text("driver")?.ok_or_else(|| BlockError::Missing(format!("{prefix}driver")))?;
        let name = fields.text("node-name")?;
        if let Some(name) = &name
            && (!is_well_formed_id(name) || name.len() > 31)
        {
            return Err(BlockError::Name(name.clone()));
        }
        let protocol = ["file", "host_device", "null-co", "null-aio"].contains(&driver.as_str());
        let settings = fields.settings(above, protocol)?;
        let driver = match driver.as_str() {
            "file" | "host_device" => DriverSpec::File {
                path: fields.text("filename")?.ok_or_else(|| BlockError::Missing(format!("{prefix}filename")))?.into(),
                locking: match fields.text("locking")?.as_deref() {
                    None | Some("auto" | "on") => true,
                    Some("off") => false,
                    Some(other) => return Err(fields.refuse("locking", other)),
                },
                device: driver == "host_device",
            },
            "null-co" | "null-aio" => {
                // How long it takes, and whether a read writes zeros, is of no concern: it is at once, and it does.
                fields.number("latency-ns")?;
                fields.flag("read-zeroes")?;
                let name = if driver == "null-co" { "null-co" } else { "null-aio" };
                DriverSpec::Null { size: fields.number("size")?.unwrap_or(1 << 30), name }
            }
            "raw" => DriverSpec::Raw {
                offset: fields.number("offset")?.unwrap_or(0),
                size: fields.number("size")?,
                file: fields.child("file", &settings, depth)?,
            },
            "throttle" => {
                let group = fields.text("throttle-group")?;
                let group = group.ok_or_else(|| BlockError::Missing(format!("{prefix}throttle-group")))?;
                DriverSpec::Throttle { group, file: fields.child("file", &settings, depth)? }
            }
            "qcow2" => {
                fields.forbid("lazy-refcounts")?;
                fields.forbid("encrypt")?;
                fields.forbid("data-file")?;
                for hint in ["cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size"] {
                    // How much of the tables is remembered is the program's choice.
                    fields.number(hint)?;
                }
                fields.number("cache-clean-interval")?;
                fields.flag("pass-discard-request")?;
                fields.flag("pass-discard-snapshot")?;
                fields.flag("pass-discard-other")?;
                fields.flag("discard-no-unref")?;
                fields.text("overlap-check")?;
                let file = fields.child("file", &settings, depth)?;
                let below = NodeSettings { read_only: true, ..settings };
                let backing = match fields.left.shift_remove("backing") {
                    None => Backing::Image,
                    Some(Value::Null) => Backing::None,
                    Some(Value::String(name)) if name.is_empty() => Backing::None,
                    Some(value) => Backing::Node(fields.read_child("backing", value, &below, depth)?),
                };
                DriverSpec::Qcow2 { file, backing }
            }
            other => return Err(BlockError::Driver(other.to_owned())),
        };
        fields.end()?;
        Ok(Self { name, settings, driver })
    }

    /// The driver's name.
    pub const fn driver_name(&self) -> &'static str {
        match &self.driver {
            DriverSpec::File { device: false, .. } => "file",
            DriverSpec::File { device: true, .. } => "host_device",
            DriverSpec::Null { name, .. } => name,
            DriverSpec::Raw { .. } => "raw",
            DriverSpec::Throttle { .. } => "throttle",
            DriverSpec::Qcow2 { .. } => "qcow2",
        }
    }
}

/// Options that were not looked at yet.
struct Fields<'a> {
    left: Map<String, Value>,
    prefix: &'a str,
}

impl Fields<'_> {
    fn wrong(&self, name: &str, expected: &'static str) -> BlockError {
        BlockError::Type { name: format!("{}{name}", self.prefix), expected }
    }

    fn refuse(&self, name: &str, value: &str) -> BlockError {
        BlockError::Value { name: format!("{}{name}", self.prefix), value: value.to_owned() }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, BlockError> {
        match self.left.shift_remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "string")),
        }
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, BlockError> {
        match self.left.shift_remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) => match text.as_str() {
                "on" | "true" | "yes" | "y" => Ok(Some(true)),
                "off" | "false" | "no" | "n" => Ok(Some(false)),
                _ => Err(self.wrong(name, "boolean")),
            },
            Some(_) => Err(self.wrong(name, "boolean")),
        }
    }

    /// A number of bytes or of things.
    fn number(&mut self, name: &str) -> Result<Option<u64>, BlockError> {
        match self.left.shift_remove(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(|| self.wrong(name, "uint64")),
            Some(Value::String(text)) => {
                Size::from_text(&text).map(|Size(size)| Some(size)).ok_or_else(|| self.wrong(name, "uint64"))
            }
            Some(_) => Err(self.wrong(name, "integer")),
        }
    }

    /// An option that only may say no.
    fn forbid(&mut self, name: &str) -> Result<(), BlockError> {
        match self.left.shift_remove(name) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(Value::String(text)) if text == "off" => Ok(()),
            Some(_) => Err(BlockError::Options(format!("'{}{name}' is not supported", self.prefix))),
        }
    }

    fn settings(&mut self, above: Option<&NodeSettings>, protocol: bool) -> Result<NodeSettings, BlockError> {
        let mut cache = match self.left.shift_remove("cache") {
            None => Map::new(),
            Some(Value::Object(cache)) => cache,
            Some(_) => return Err(self.wrong("cache", "object")),
        };
        let prefix = format!("{}cache.", self.prefix);
        let mut cache = Fields { left: std::mem::take(&mut cache), prefix: &prefix };
        let (direct, no_flush) = (cache.flag("direct")?, cache.flag("no-flush")?);
        cache.end()?;
        // How the host is asked, and what it is asked for besides, makes no difference to what is read and written.
        match self.text("aio")?.as_deref() {
            None | Some("threads" | "native" | "io_uring") => {}
            Some(other) => return Err(self.refuse("aio", other)),
        }
        self.flag("drop-cache")?;
        self.flag("force-share")?;
        let unmap = match self.text("discard")?.as_deref() {
            // What a format gives up is given up by the file in it.
            None => protocol && above.is_some(),
            Some("ignore" | "off") => false,
            Some("unmap" | "on") => true,
            Some(other) => return Err(self.refuse("discard", other)),
        };
        let detect_zeroes = match self.text("detect-zeroes")?.as_deref() {
            None | Some("off") => DetectZeroes::Off,
            Some("on") => DetectZeroes::On,
            Some("unmap") if !unmap => {
                return Err(BlockError::Options(
                    "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap".into(),
                ));
            }
            Some("unmap") => DetectZeroes::Unmap,
            Some(other) => return Err(self.refuse("detect-zeroes", other)),
        };
        Ok(NodeSettings {
            read_only: self.flag("read-only")?.unwrap_or_else(|| above.is_some_and(|above| above.read_only)),
            auto_read_only: self
                .flag("auto-read-only")?
                .unwrap_or_else(|| above.is_some_and(|above| above.auto_read_only)),
            direct: direct.unwrap_or_else(|| above.is_some_and(|above| above.direct)),
            no_flush: no_flush.unwrap_or_else(|| above.is_some_and(|above| above.no_flush)),
            unmap,
            detect_zeroes,
        })
    }

    fn child(&mut self, name: &str, above: &NodeSettings, depth: usize) -> Result<Child, BlockError> {
        let value = self.left.shift_remove(name);
        let value = value.ok_or_else(|| BlockError::Missing(format!("{}{name}", self.prefix)))?;
        self.read_child(name, value, above, depth)
    }

    fn read_child(&self, name: &str, value: Value, above: &NodeSettings, depth: usize) -> Result<Child, BlockError> {
        match value {
            Value::String(name) => Ok(Child::Name(name)),
            Value::Object(options) => {
                let prefix = format!("{}{name}.", self.prefix);
                Ok(Child::Own(Box::new(NodeSpec::read_below(&options, &prefix, Some(above), depth + 1)?)))
            }
            _ => Err(self.wrong(name, "BlockdevRef")),
        }
    }

    fn end(self) -> Result<(), BlockError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(BlockError::Unexpected(format!("{}{name}", self.prefix))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "for json! in place")]
    fn read(options: Value) -> Result<NodeSpec, BlockError> {
        NodeSpec::read(options.as_object().unwrap())
    }

    #[test]
    fn what_is_below_takes_after_what_is_above() {
        let spec = read(json!({
            "driver": "qcow2", "node-name": "q", "read-only": "on", "cache": { "direct": true }, "backing": null,
            "file": { "driver": "file", "filename": "/a", "locking": "off" }
        }))
        .unwrap();
        let DriverSpec::Qcow2 { file: Child::Own(file), backing: Backing::None } = spec.driver else { panic!() };
        assert!(file.settings.read_only && file.settings.direct && file.settings.unmap && !spec.settings.unmap);
        assert_eq!(file.driver, DriverSpec::File { path: "/a".into(), locking: false, device: false });
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (options, said) in [
            (json!({}), "Parameter 'driver' is missing"),
            (json!({ "driver": "file" }), "Parameter 'filename' is missing"),
            (json!({ "driver": "raw", "file": { "driver": "file" } }), "Parameter 'file.filename' is missing"),
            (
                json!({ "driver": "raw", "file": { "driver": "file", "filename": 1 } }),
                "'file.filename', expected: string",
            ),
            (json!({ "driver": "raw", "file": 5 }), "'file', expected: BlockdevRef"),
            (json!({ "driver": "raw", "file": "f", "wings": 2 }), "Parameter 'wings' is unexpected"),
            (json!({ "driver": "raw", "file": "f", "cache": { "wings": 2 } }), "Parameter 'cache.wings' is unexpected"),
            (json!({ "driver": "raw", "file": "f", "node-name": "1" }), "Invalid node-name: '1'"),
            (json!({ "driver": "raw", "file": "f", "offset": -1 }), "'offset', expected: uint64"),
            (json!({ "driver": "raw", "file": "f", "discard": "x" }), "'discard' does not accept value 'x'"),
            (json!({ "driver": "raw", "file": "f", "detect-zeroes": "unmap" }), "is not allowed without"),
            (json!({ "driver": "qcow2", "file": "f", "lazy-refcounts": true }), "'lazy-refcounts' is not supported"),
            (json!({ "driver": "throttle", "file": "f" }), "Parameter 'throttle-group' is missing"),
            (json!({ "driver": "nbd" }), "Driver 'nbd' is not supported"),
        ] {
            let error = read(options).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let mut deep = json!("f");
        for _ in 0..200 {
            deep = json!({ "driver": "raw", "file": deep });
        }
        assert!(matches!(read(deep), Err(BlockError::TooDeep)));
    }

    proptest! {
        #[test]
        fn no_options_panic(
            driver in prop::sample::select(vec!["file", "raw", "qcow2", "null-co", "x"]),
            key in prop::sample::select(vec!["file", "size", "cache", "node-name", "read-only", "backing", "discard"]),
            text in ".{0,40}", number in any::<i64>(), kind in 0..4,
        ) {
            let value = match kind {
                0 => json!(text),
                1 => json!(number),
                2 => json!({ text: number }),
                _ => json!([text]),
            };
            let _ = read(json!({ "driver": driver, "filename": "/a", "file": "f", key: value }));
        }
    }
}
