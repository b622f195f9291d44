//! `-readconfig`: a file of options. `[GROUP "ID"]` begins an option, `NAME = "VALUE"` is a parameter of it, and `#` a comment.

use rhea_core::files;

use super::{
    keyval::OptionError,
    table::{OPTIONS, OptionRow},
};

/// An option from the file.
#[derive(Debug)]
pub struct Section {
    /// Which one.
    pub row: &'static OptionRow,
    /// Its parameters, as they would stand on the command line.
    pub text: String,
}

/// Reads the file `path`.
///
/// # Errors
/// It cannot be read, or a line is none of those that there are.
pub fn read(path: &str) -> Result<Vec<Section>, OptionError> {
    let bytes = files::read(path).map_err(|error| {
        OptionError::about("readconfig", format!("Could not open '{path}': {}", files::reason(&error)))
    })?;
    sections(&String::from_utf8_lossy(&bytes))
        .map_err(|(line, reason)| OptionError::about("readconfig", format!("{path}:{line}: {reason}")))
}

/// The options in `text`; or the line, counted from 1, that is wrong, and why.
fn sections(text: &str) -> Result<Vec<Section>, (usize, String)> {
    let mut all: Vec<Section> = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        let failed = |reason: String| (index + 1, reason);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let section = begin(header).map_err(failed)?;
            all.push(section);
            continue;
        }
        let (name, value) = parameter(line).ok_or_else(|| failed("parse error".to_owned()))?;
        let section = all.last_mut().ok_or_else(|| failed("no group defined".to_owned()))?;
        add(&mut section.text, name, value);
    }
    Ok(all)
}

/// The option that `GROUP]` or `GROUP "ID"]` begins.
fn begin(header: &str) -> Result<Section, String> {
    let header = header.strip_suffix(']').ok_or("parse error")?.trim();
    let (group, id) = match header.split_once('"') {
        Some((group, id)) => (group.trim_end(), Some(id.strip_suffix('"').ok_or("parse error")?)),
        None => (header, None),
    };
    let row = OPTIONS.iter().find(|row| row.group() == Some(group));
    let row = row.ok_or_else(|| format!("there is no group '{group}'"))?;
    let mut section = Section { row, text: String::new() };
    if let Some(id) = id {
        add(&mut section.text, "id", id);
    }
    Ok(section)
}

/// `NAME = "VALUE"`.
fn parameter(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    let name = name.trim();
    (!name.is_empty() && !name.contains([' ', ',']) && !value.contains('"')).then_some((name, value))
}

fn add(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    *text += &format!("{name}={}", value.replace(',', ",,"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::{CharUse, MonitorMode, Settings, parse, settings::MonitorSettings};

    fn settings(text: &str) -> Result<Settings, OptionError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, text).unwrap();
        parse(&[
            "-readconfig".to_owned(),
            path.display().to_string(),
            "-serial".to_owned(),
            "chardev:console".to_owned(),
        ])
        .map_err(|error| OptionError(error.0.replace(&path.display().to_string(), "FILE")))
    }

    #[test]
    fn a_file_says_what_a_command_line_does() {
        let settings = settings(
            r#"# a guest
            [machine]
            type = "pc"
            accel = "kvm:tcg"
            graphics = "off"

            [smp-opts]
            cpus = "2"
            [memory]
            size = "256M"
            [boot-opts]
            strict = "on"
            [chardev "console"]
            backend = "file"
            path = "/tmp/a,b"
            [chardev "monitor"]
            backend = "null"
            [mon]
            chardev = "monitor"
            mode = "control"
            [object "random"]
            qom-type = "rng-builtin"
            [device "dev-random"]
            driver = "virtio-rng-pci"
            rng = "random"
            bus = "pci.0"
            addr = "00.5"
            [global]
            driver = "PIIX4_PM"
            property = "disable_s3"
            value = "1""#,
        )
        .unwrap();
        assert_eq!((settings.topology.cpus, settings.memory.bytes()), (2, 256 << 20));
        assert_eq!(settings.serials, [CharUse::Backend("console".to_owned())]);
        let shown = format!("{:?}", settings.backends[0]);
        assert!(shown.contains("\"/tmp/a,b\""), "{shown}");
        let monitor = MonitorSettings { backend: "monitor".to_owned(), mode: MonitorMode::Control };
        assert_eq!(settings.monitors, [monitor]);
        assert_eq!(settings.objects[0].id, "random");
        let device = &settings.devices.lines[0];
        assert_eq!((device.driver.as_str(), device.id.as_deref()), ("virtio-rng-pci", Some("dev-random")));
        assert_eq!(settings.devices.globals[0].property, "disable_s3");
    }

    #[test]
    fn what_cannot_be_is_told_with_its_line() {
        for (text, reason) in [
            ("[wings]", "-readconfig: FILE:1: there is no group 'wings'"),
            ("\n[machine", "-readconfig: FILE:2: parse error"),
            ("[device \"x]", "-readconfig: FILE:1: parse error"),
            ("type = \"pc\"", "-readconfig: FILE:1: no group defined"),
            ("[machine]\ntype = pc", "-readconfig: FILE:2: parse error"),
            ("[machine]\n = \"pc\"", "-readconfig: FILE:2: parse error"),
            ("[machine]\nwings = \"2\"", "-machine: invalid parameter 'wings'"),
        ] {
            let error = settings(text).unwrap_err().0;
            assert!(error.starts_with(reason), "{error}");
        }
        let missing = read("/nowhere/x").unwrap_err().0;
        assert_eq!(missing, "-readconfig: Could not open '/nowhere/x': No such file or directory");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]\"= ,#a-z\n]{0,80}") {
            let _ = sections(&text);
        }
    }
}
