//! What `-smbios` comes to: words for the tables by which a guest knows its machine, and whole structures out of files.

use anyhow::Context as _;
use rhea_core::{files, object::PropertyKind as _};
use rhea_machine::smbios::{BiosNames, EntryPoint, GivenStructure, Names, Smbios};
use uuid::Uuid;

use super::keyval::{KeyValues, OptionError, number};

/// What can be said of a structure, by its type.
const FIELDS: [(u8, &[&str]); 7] = [
    (0, &["vendor", "version", "date", "release", "uefi"]),
    (1, &["manufacturer", "product", "version", "serial", "uuid", "sku", "family"]),
    (2, &["manufacturer", "product", "version", "serial", "asset", "location"]),
    (3, &["manufacturer", "version", "serial", "asset", "sku"]),
    (
        4,
        &[
            "sock_pfx",
            "manufacturer",
            "version",
            "serial",
            "asset",
            "part",
            "max-speed",
            "current-speed",
            "processor-id",
            "processor-family",
        ],
    ),
    (11, &["value", "path"]),
    (17, &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed"]),
];

/// The largest file that a string comes from.
const LARGEST_TEXT: u64 = 0xffff;

/// Where a string comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Value(String),
    File(String),
}

/// What the command line says of SMBIOS tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmbiosSettings {
    /// What needs no file.
    pub tables: Smbios,
    /// Strings of type 11, in order.
    strings: Vec<Text>,
    /// Files with a structure each, in order.
    files: Vec<String>,
    /// Types of which something was said.
    said: Vec<u8>,
}

impl SmbiosSettings {
    /// Takes the parameters of `-smbios`; gives the machine's identifier if they say it.
    ///
    /// # Errors
    /// No type and no file, what a type does not have, or a value that is none.
    pub(super) fn take(&mut self, parameters: &KeyValues) -> Result<Option<Uuid>, OptionError> {
        if let Some(file) = parameters.get("file") {
            if let Some(other) = parameters.keys().find(|key| *key != "file") {
                return Err(parameters.error(format!("invalid parameter '{other}': a file is a whole structure")));
            }
            self.files.push(file.to_owned());
            return Ok(None);
        }
        let kind = parameters.number("type").ok_or_else(|| parameters.error("Must specify type= or file="))?;
        let row = FIELDS.iter().find(|(known, _)| u64::from(*known) == kind);
        let unknown = || parameters.error(format!("Don't know how to build fields for SMBIOS type {kind}"));
        let &(kind, fields) = row.ok_or_else(unknown)?;
        if let Some(key) = parameters.keys().find(|key| *key != "type" && !fields.contains(key)) {
            let fields = fields.join(", ");
            return Err(parameters.error(format!("invalid parameter '{key}' for type {kind}; known are {fields}")));
        }
        self.said.push(kind);
        match kind {
            0 => self.bios(parameters)?,
            1 => {
                fill(&mut self.tables.system, parameters);
                let wrong = |_| parameters.error("Invalid UUID");
                return parameters.get("uuid").map(|text| Uuid::parse_str(text).map_err(wrong)).transpose();
            }
            2 => fill(self.tables.board.get_or_insert_default(), parameters),
            3 => fill(&mut self.tables.chassis, parameters),
            4 => self.processor(parameters)?,
            11 => {
                let values = parameters.all("value").map(|text| Text::Value(text.to_owned()));
                self.strings.extend(values.chain(parameters.all("path").map(|path| Text::File(path.to_owned()))));
            }
            _ => {
                let memory = &mut self.tables.memory;
                fill(&mut memory.names, parameters);
                replace(&mut memory.names.location, parameters, "bank");
                replace(&mut memory.locator_prefix, parameters, "loc_pfx");
                memory.speed = speed(parameters, "speed")?.or(memory.speed);
            }
        }
        Ok(None)
    }

    /// Takes the parameter of `-machine` that is about the tables.
    ///
    /// # Errors
    /// An entry point that there is not.
    pub(super) fn entry_point(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        const NAME: &str = "smbios-entry-point-type";
        let Some(word) = parameters.get(NAME) else { return Ok(()) };
        let wrong = || parameters.error(format!("Parameter '{NAME}' does not accept value '{word}'"));
        self.tables.entry_point = EntryPoint::from_text(word).ok_or_else(wrong)?;
        Ok(())
    }

    fn bios(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let bios: &mut BiosNames = self.tables.bios.get_or_insert_default();
        replace(&mut bios.vendor, parameters, "vendor");
        replace(&mut bios.version, parameters, "version");
        replace(&mut bios.date, parameters, "date");
        bios.uefi = parameters.given_flag("uefi").unwrap_or(bios.uefi);
        if let Some(text) = parameters.get("release") {
            let numbers =
                text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
            bios.release = Some(numbers.ok_or_else(|| parameters.error("Invalid release"))?);
        }
        Ok(())
    }

    fn processor(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let processor = &mut self.tables.processor;
        fill(&mut processor.names, parameters);
        replace(&mut processor.socket_prefix, parameters, "sock_pfx");
        processor.max_speed = speed(parameters, "max-speed")?.or(processor.max_speed);
        processor.current_speed = speed(parameters, "current-speed")?.or(processor.current_speed);
        processor.id = parameters.number("processor-id").or(processor.id);
        if let Some(family) = parameters.number("processor-family") {
            let wrong = |_| parameters.error("parameter 'processor-family' expects a number up to 65535");
            processor.family = Some(u16::try_from(family).map_err(wrong)?);
        }
        Ok(())
    }

    /// Reads what is in files.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, or a structure of which something was said as well.
    pub fn load(&self, uuid: Uuid) -> anyhow::Result<Smbios> {
        let mut tables = Smbios { uuid: uuid.into_bytes(), ..self.tables.clone() };
        for text in &self.strings {
            tables.oem_strings.push(match text {
                Text::Value(text) => text.clone(),
                Text::File(path) => contents(path).context("-smbios type=11")?,
            });
        }
        for file in &self.files {
            let structure = GivenStructure::read(file).context("-smbios")?;
            let kind = structure.kind();
            anyhow::ensure!(
                !self.said.contains(&kind),
                "-smbios: can't load type {kind} struct, fields already specified!"
            );
            tables.given.push(structure);
        }
        Ok(tables)
    }
}

/// A string out of a file, without the end of its line.
fn contents(path: &str) -> anyhow::Result<String> {
    use std::io::Read as _;
    let failed = |error| anyhow::anyhow!("Could not open '{path}': {}", files::reason(&error));
    let mut text = String::new();
    let file = files::open(path, files::Access::Read).map_err(failed)?;
    file.take(LARGEST_TEXT + 1).read_to_string(&mut text).map_err(failed)?;
    anyhow::ensure!(text.len() as u64 <= LARGEST_TEXT, "'{path}' is longer than {LARGEST_TEXT} bytes");
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

fn replace(field: &mut Option<String>, parameters: &KeyValues, key: &str) {
    if let Some(text) = parameters.get(key) {
        *field = Some(text.to_owned());
    }
}

/// Replaces those names that were given.
fn fill(names: &mut Names, parameters: &KeyValues) {
    let Names { manufacturer, product, version, serial, asset, sku, family, location, part } = names;
    for (field, key) in [
        (manufacturer, "manufacturer"),
        (product, "product"),
        (version, "version"),
        (serial, "serial"),
        (asset, "asset"),
        (sku, "sku"),
        (family, "family"),
        (location, "location"),
        (part, "part"),
    ] {
        replace(field, parameters, key);
    }
}

fn speed(parameters: &KeyValues, key: &str) -> Result<Option<u16>, OptionError> {
    let wrong = |_| parameters.error(format!("SMBIOS {key} is too large (> 65535)"));
    parameters.get(key).and_then(number).map(u16::try_from).transpose().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::table::option;

    fn settings(texts: &[&str]) -> Result<(SmbiosSettings, Option<Uuid>), String> {
        let (mut settings, mut uuid) = (SmbiosSettings::default(), None);
        for text in texts {
            let parameters = KeyValues::parse(option("smbios").unwrap(), text).map_err(|error| error.0)?;
            uuid = settings.take(&parameters).map_err(|error| error.0)?.or(uuid);
        }
        Ok((settings, uuid))
    }

    #[test]
    fn what_is_said_later_of_a_type_joins_what_was_said_before() {
        let (settings, uuid) = settings(&[
            "type=1,manufacturer=Me,,too,serial=ds=nocloud;s=http://x/",
            "type=1,manufacturer=Other,uuid=3f0a2d4c-8b1e-4c57-9a6d-5e21c0b7f894",
            "type=0,release=7.12,uefi=on",
            "type=4,sock_pfx=Socket,max-speed=3000,processor-family=0x102",
            "type=17,bank=B,speed=2400",
            "type=11,value=a,value=b",
            "type=11,value=c",
        ])
        .unwrap();
        let Smbios { system, bios, processor, memory, board, .. } = &settings.tables;
        assert_eq!(system.manufacturer.as_deref(), Some("Other"));
        assert_eq!(system.serial.as_deref(), Some("ds=nocloud;s=http://x/"));
        assert_eq!(uuid.unwrap().to_string(), "3f0a2d4c-8b1e-4c57-9a6d-5e21c0b7f894");
        let bios = bios.as_ref().unwrap();
        assert_eq!((bios.release, bios.uefi, board), (Some((7, 12)), true, &None));
        assert_eq!((processor.max_speed, processor.current_speed, processor.family), (Some(3000), None, Some(0x102)));
        assert_eq!((memory.names.location.as_deref(), memory.speed), (Some("B"), Some(2400)));
        assert_eq!(settings.load(Uuid::nil()).unwrap().oem_strings, ["a", "b", "c"]);
    }

    #[test]
    fn what_cannot_be_is_one_line_that_says_so() {
        for (text, reason) in [
            ("serial=x", "-smbios: Must specify type= or file="),
            ("type=77", "-smbios: Don't know how to build fields for SMBIOS type 77"),
            ("type=1,frog=3", "-smbios: invalid parameter 'frog'"),
            ("type=3,product=x", "-smbios: invalid parameter 'product' for type 3; known are manufacturer, version"),
            ("type=0,release=x", "-smbios: Invalid release"),
            ("type=0,release=1.256", "-smbios: Invalid release"),
            ("type=1,uuid=x", "-smbios: Invalid UUID"),
            ("type=4,max-speed=65536", "-smbios: SMBIOS max-speed is too large (> 65535)"),
            ("type=17,speed=fast", "-smbios: parameter 'speed' expects a number"),
            ("file=/a,type=1", "-smbios: invalid parameter 'type'"),
        ] {
            let error = settings(&[text]).unwrap_err();
            assert!(error.starts_with(reason), "{text}: {error}");
        }
    }

    #[test]
    fn files_hold_strings_and_structures_of_which_nothing_else_is_said() {
        let directory = std::env::temp_dir().join(format!("rhea-smbios-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        std::fs::write(path("text"), "from a file\n").unwrap();
        std::fs::write(path("cut"), b"\x02\x08\x00\x02").unwrap();
        std::fs::write(path("board"), b"\x02\x05\x00\x02\x01mine\0\0").unwrap();
        let load = |texts: &[String]| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            settings(&texts).unwrap().0.load(Uuid::nil()).map_err(|error| format!("{error:#}"))
        };
        let (text, board) = (format!("type=11,path={}", path("text")), format!("file={}", path("board")));
        let tables = load(&[text, board.clone()]).unwrap();
        assert_eq!((tables.oem_strings.as_slice(), tables.given[0].kind()), (&["from a file".to_owned()][..], 2));
        let error = load(&[board, "type=2,serial=x".to_owned()]).unwrap_err();
        assert_eq!(error, "-smbios: can't load type 2 struct, fields already specified!");
        for (file, reason) in [("cut", "it is shorter than it says"), ("none", "No such file or directory")] {
            let error = load(&[format!("file={}", path(file))]).unwrap_err();
            assert_eq!(error, format!("-smbios: Cannot read SMBIOS file {}: {reason}", path(file)));
        }
        let error = load(&[format!("type=11,path={}", path("none"))]).unwrap_err();
        assert!(error.ends_with("none': No such file or directory"), "{error}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
