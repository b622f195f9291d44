//! What `-m`, `-numa`, `-mem-path` and `-mem-prealloc` come to.

use std::ops::RangeInclusive;

use rhea_machine::{MemoryConfig, numa::NumaOption};

use super::{
    keyval::{self, KeyValues, OptionError},
    table::option,
};

/// The guest's memory as options lay it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySettings {
    /// Bytes at the start; the default if nothing was said.
    pub size: Option<u64>,
    /// Where it comes from, and how it can grow.
    pub config: MemoryConfig,
    /// Its nodes.
    pub numa: Vec<NumaOption>,
}

/// Bytes of memory of which nothing is said: what the table says.
fn default_size() -> u64 {
    let parameter = option("m").and_then(|row| row.parameter("size"));
    parameter.and_then(|parameter| keyval::size(parameter.default?, 1 << 20)).unwrap_or_default()
}

impl MemorySettings {
    /// What a command line without such options comes to.
    pub fn new() -> Self {
        Self { size: None, config: MemoryConfig::default(), numa: Vec::new() }
    }

    /// Bytes at the start; 0 for those of the backend that is all of it.
    pub fn bytes(&self) -> u64 {
        self.size.unwrap_or_else(|| if self.config.backend.is_some() { 0 } else { default_size() })
    }

    /// `-m`.
    pub(super) fn size(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        if let Some(text) = parameters.get("size") {
            let size = keyval::size(text, 1 << 20)
                .ok_or_else(|| parameters.error(format!("'{text}' is no size, such as 512M (suffixes k, M, G, T)")))?;
            if size == 0 {
                return Err(parameters.error("a machine needs memory"));
            }
            // Whole pages, as a machine has them; 8 KiB as others round it.
            let whole = size.checked_next_multiple_of(8192);
            self.size = Some(whole.ok_or_else(|| parameters.error("more memory than an address can name"))?);
        }
        let slots = parameters.number("slots");
        let maximum = parameters.get("maxmem").and_then(|text| keyval::size(text, 1));
        if slots.is_some() && maximum.is_none() {
            return Err(parameters.error("slots specified but no max-size"));
        }
        self.config.slots = u32::try_from(slots.unwrap_or(0)).unwrap_or(u32::MAX);
        self.config.maximum = maximum.unwrap_or(0);
        Ok(())
    }

    /// `-numa`.
    pub(super) fn numa(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let allowed: &[&str] = match parameters.require("type")? {
            "node" => &["type", "nodeid", "cpus", "mem", "memdev", "initiator"],
            "dist" => &["type", "src", "dst", "val"],
            "cpu" => &["type", "node-id", "socket-id", "die-id", "core-id", "thread-id"],
            other => return Err(parameters.error(format!("Parameter 'type' does not accept value '{other}'"))),
        };
        if let Some(key) = parameters.keys().find(|key| !allowed.contains(key)) {
            return Err(parameters.error(format!("Invalid parameter '{key}'")));
        }
        let option = match allowed[1] {
            "nodeid" => node(parameters)?,
            "src" => NumaOption::Distance {
                from: mandatory(parameters, "src", "uint16")?,
                to: mandatory(parameters, "dst", "uint16")?,
                value: mandatory(parameters, "val", "uint8")?,
            },
            _ => {
                if parameters.number("die-id").is_some_and(|die| die != 0) {
                    return Err(parameters.error("no match found: there is no processor at this place"));
                }
                NumaOption::Processors {
                    node: optional(parameters, "node-id", "uint16")?
                        .ok_or_else(|| parameters.error("Missing mandatory node-id property"))?,
                    socket: optional(parameters, "socket-id", "uint32")?,
                    core: optional(parameters, "core-id", "uint32")?,
                    thread: optional(parameters, "thread-id", "uint32")?,
                }
            }
        };
        self.numa.push(option);
        Ok(())
    }
}

fn optional<T: TryFrom<u64>>(parameters: &KeyValues, key: &str, kind: &str) -> Result<Option<T>, OptionError> {
    let number = parameters.number(key);
    let converted = number.map(|number| T::try_from(number));
    converted.transpose().map_err(|_| parameters.error(format!("Parameter '{key}' expects {kind}")))
}

fn mandatory<T: TryFrom<u64>>(parameters: &KeyValues, key: &str, kind: &str) -> Result<T, OptionError> {
    optional(parameters, key, kind)?.ok_or_else(|| parameters.error(format!("Parameter '{key}' is missing")))
}

fn node(parameters: &KeyValues) -> Result<NumaOption, OptionError> {
    if parameters.get("initiator").is_some() {
        let reason = "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled: 'initiator' cannot be used";
        return Err(parameters.error(reason));
    }
    let processors = parameters
        .all("cpus")
        .map(|text| range(text).ok_or_else(|| parameters.error("Parameter 'cpus' expects a uint64 value or range")));
    let size = parameters.get("mem").map(|text| {
        // Without a suffix, in MiB.
        keyval::size(text, 1 << 20).ok_or_else(|| parameters.error(format!("'{text}' is no size, such as 512M")))
    });
    Ok(NumaOption::Node {
        id: optional(parameters, "nodeid", "uint16")?,
        processors: processors.collect::<Result<_, _>>()?,
        size: size.transpose()?,
        backend: parameters.get("memdev").map(str::to_owned),
    })
}

/// A number, or the first and the last with a dash between.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| keyval::number(text).and_then(|number| u16::try_from(number).ok());
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;

    fn memory(line: &str) -> Result<MemorySettings, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&words).map(|settings| settings.memory).map_err(|error| error.0)
    }

    #[test]
    fn memory_grows_into_slots() {
        let grown = memory("-m 64,slots=2,maxmem=1G").unwrap();
        assert_eq!((grown.bytes(), grown.config.slots, grown.config.maximum), (64 << 20, 2, 1 << 30));
        assert_eq!(memory("-m 4097k").unwrap().bytes(), 4104 << 10);
        assert_eq!(memory("-S").unwrap().bytes(), 128 << 20);
        assert_eq!(memory("-machine pc,memory-backend=m0").unwrap().bytes(), 0);
        assert_eq!(memory("-m 64,slots=2").unwrap_err(), "-m: slots specified but no max-size");
        for bad in ["-m 0", "-m 16E", "-m 64,slots=x,maxmem=1G", "-m 64,maxmem=much"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_distances_and_processors_are_read() {
        let line = "-numa node,nodeid=1,cpus=0-1,cpus=3,mem=32 -numa dist,src=0,dst=1,val=15 \
                    -numa cpu,node-id=1,socket-id=0";
        let [node, distance, processors] = &memory(line).unwrap().numa[..] else { panic!() };
        let wanted =
            NumaOption::Node { id: Some(1), processors: vec![0..=1, 3..=3], size: Some(32 << 20), backend: None };
        assert_eq!(*node, wanted);
        assert_eq!(*distance, NumaOption::Distance { from: 0, to: 1, value: 15 });
        let wanted = NumaOption::Processors { node: 1, socket: Some(0), core: None, thread: None };
        assert_eq!(*processors, wanted);
        for (bad, reason) in [
            ("foo", "Parameter 'type' does not accept value 'foo'"),
            ("node,val=1", "Invalid parameter 'val'"),
            ("node,cpus=3-1", "Parameter 'cpus' expects a uint64 value or range"),
            ("node,cpus=0-70000", "Parameter 'cpus' expects a uint64 value or range"),
            ("node,nodeid=70000", "Parameter 'nodeid' expects uint16"),
            ("node,initiator=0", "HMAT"),
            ("dist,src=0,dst=1", "Parameter 'val' is missing"),
            ("dist,src=0,dst=1,val=256", "Parameter 'val' expects uint8"),
            ("cpu,socket-id=0", "Missing mandatory node-id property"),
            ("cpu,node-id=0,die-id=1", "no match found"),
            ("nodeid=0", "'type' is missing"),
        ] {
            let error = memory(&format!("-numa {bad}")).unwrap_err();
            assert!(error.starts_with("-numa: ") && error.contains(reason), "{bad}: {error}");
        }
    }
}
