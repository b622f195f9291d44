//! What `-bios`, `-L`, `-option-rom` and `-boot` come to: firmware, found among the host's files, and how it boots.

use std::path::{Path, PathBuf};

use rhea_core::files;
use rhea_machine::firmware::{BootDevice, BootOptions, Firmware, OptionRom};

use super::keyval::{KeyValues, OptionError};

/// Directories in which hosts keep firmware.
const USUAL: [&str; 3] = ["/usr/share/rhea", "/usr/share/seabios", "/usr/share/qemu"];
/// The most devices of an order: firmware has no room for more.
const MOST_DEVICES: usize = 3;

/// What the command line says of firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareSettings {
    /// `-bios`.
    pub file: Option<String>,
    /// `-L`, in order.
    pub directories: Vec<PathBuf>,
    /// `-option-rom`, in order: the file, and its place in the order of what is tried, -1 for none.
    pub option_roms: Vec<(String, i32)>,
    /// `-boot`.
    pub boot: BootOptions,
}

impl FirmwareSettings {
    /// Takes the parameters of `-boot`.
    ///
    /// # Errors
    /// A device that there is not, one given twice, or a time that is none.
    pub(super) fn boot(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let devices = |key: &str| parameters.get(key).map(|letters| order(parameters, letters)).transpose();
        if let Some(order) = devices("order")? {
            self.boot.order = order;
        }
        if let Some(once) = devices("once")? {
            self.boot.once = Some(once);
        }
        self.boot.menu = parameters.given_flag("menu").unwrap_or(self.boot.menu);
        self.boot.strict = parameters.given_flag("strict").unwrap_or(self.boot.strict);
        if let Some(time) = parameters.number("splash-time") {
            let wrong = |_| parameters.error("splash-time is invalid, it should be a value between 0 and 65535");
            self.boot.splash_time = Some(u16::try_from(time).map_err(wrong)?);
        }
        if let Some(text) = parameters.get("reboot-timeout") {
            let time = text.parse().ok().filter(|time| (-1..=0xffff).contains(time));
            let wrong = || parameters.error("reboot timeout is invalid, it should be a value between -1 and 65535");
            self.boot.reboot_timeout = Some(time.ok_or_else(wrong)?);
        }
        Ok(())
    }

    /// Takes the parameters of `-option-rom`.
    ///
    /// # Errors
    /// No file, or a place that is none.
    pub(super) fn option_rom(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let file = parameters.get("romfile").ok_or_else(|| parameters.error("Option ROM file is not specified"))?;
        let index = parameters.number("bootindex").map_or(Ok(-1), i32::try_from);
        let index = index.map_err(|_| parameters.error("parameter 'bootindex' expects a number up to 2147483647"))?;
        self.option_roms.push((file.to_owned(), index));
        Ok(())
    }

    /// The directories in which firmware is looked for, in order.
    fn places(&self) -> Vec<PathBuf> {
        let program = std::env::current_exe().ok();
        let beside = program.as_deref().and_then(Path::parent).map(Path::to_owned);
        self.directories.iter().cloned().chain(beside).chain(USUAL.map(PathBuf::from)).collect()
    }

    /// What `-L help` prints.
    pub(super) fn directories_help(&self) -> String {
        self.places().iter().map(|place| format!("{}\n", place.display())).collect()
    }

    /// Where the file called `name` is: there, or in one of the directories.
    fn find(&self, name: &str) -> PathBuf {
        let given = PathBuf::from(name);
        if files::is_passed(&given) || given.is_file() {
            return given;
        }
        let mut places = self.places().into_iter().map(|place| place.join(name));
        places.find(|path| path.is_file()).unwrap_or(given)
    }

    fn read(&self, name: &str, what: &str) -> anyhow::Result<Vec<u8>> {
        let failed = |error| anyhow::anyhow!("could not load {what} '{name}': {}", files::reason(&error));
        files::read(self.find(name)).map_err(failed)
    }

    /// Reads the firmware, if there is to be one, with its option ROMs.
    ///
    /// # Errors
    /// A file that cannot be read, or whose contents are none.
    pub fn load(&self, uuid: [u8; 16]) -> anyhow::Result<Option<Firmware>> {
        let Some(name) = &self.file else { return Ok(None) };
        let mut firmware = Firmware::new(name.clone(), self.read(name, "PC BIOS")?)?;
        for (path, boot_index) in &self.option_roms {
            let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (image, boot_index) = (self.read(path, "option ROM")?, *boot_index);
            firmware.option_roms.push(OptionRom { name, image, boot_index });
        }
        (firmware.boot, firmware.uuid) = (self.boot.clone(), uuid);
        Ok(Some(firmware))
    }
}

/// Devices by their letters.
fn order(parameters: &KeyValues, letters: &str) -> Result<Vec<BootDevice>, OptionError> {
    let mut seen = Vec::new();
    let mut order = Vec::new();
    for letter in letters.chars() {
        let device = BootDevice::of(letter);
        let device = device.ok_or_else(|| parameters.error(format!("Invalid boot device '{letter}'")))?;
        if seen.contains(&letter) {
            return Err(parameters.error(format!("Boot device '{letter}' was given twice")));
        }
        seen.push(letter);
        order.push(device);
    }
    if order.len() > MOST_DEVICES {
        return Err(parameters.error("Too many boot devices for PC"));
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::table::option;

    fn boot(text: &str) -> Result<BootOptions, String> {
        let mut settings = FirmwareSettings::default();
        let parameters = KeyValues::parse(option("boot").unwrap(), text).map_err(|error| error.0)?;
        settings.boot(&parameters).map_err(|error| error.0)?;
        Ok(settings.boot)
    }

    #[test]
    fn the_order_is_letters_of_devices_each_once() {
        assert_eq!(boot("dc").unwrap().order, [BootDevice::Cd, BootDevice::Disk]);
        let all = boot("order=c,once=n,menu=on,splash-time=500,reboot-timeout=-1,strict=on").unwrap();
        assert_eq!((all.once, all.menu, all.strict), (Some(vec![BootDevice::Network]), true, true));
        assert_eq!((all.splash_time, all.reboot_timeout), (Some(500), Some(-1)));
        for (bad, reason) in [
            ("x", "-boot: Invalid boot device 'x'"),
            ("cc", "-boot: Boot device 'c' was given twice"),
            ("acdn", "-boot: Too many boot devices for PC"),
            ("splash-time=65536", "-boot: splash-time is invalid, it should be a value between 0 and 65535"),
            ("reboot-timeout=-2", "-boot: reboot timeout is invalid, it should be a value between -1 and 65535"),
        ] {
            assert_eq!(boot(bad), Err(reason.to_owned()), "{bad}");
        }
    }

    #[test]
    fn an_option_rom_has_a_place_in_the_order_if_it_is_given_one() {
        let roms = |texts: &[&str]| {
            let mut settings = FirmwareSettings::default();
            for text in texts {
                let parameters = KeyValues::parse(option("option-rom").unwrap(), text).map_err(|error| error.0)?;
                settings.option_rom(&parameters).map_err(|error| error.0)?;
            }
            Ok::<_, String>(settings.option_roms)
        };
        let expected = [("a,b.rom".to_owned(), -1), ("c.rom".to_owned(), 3)];
        assert_eq!(roms(&["a,,b.rom", "romfile=c.rom,bootindex=3"]).unwrap(), expected);
        assert_eq!(roms(&["bootindex=3"]).unwrap_err(), "-option-rom: Option ROM file is not specified");
        assert!(roms(&["c.rom,bootindex=2147483648"]).is_err() && roms(&["c.rom,bootindex=-2"]).is_err());
    }

    #[test]
    fn firmware_is_found_in_the_directories_given_before_the_usual_ones() {
        let directory = std::env::temp_dir().join(format!("rhea-firmware-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("own.bin"), vec![0x90; 0x1_0000]).unwrap();
        std::fs::write(directory.join("odd.bin"), b"odd").unwrap();
        let load = |name: &str| {
            let (file, directories) = (Some(name.to_owned()), vec!["/nowhere".into(), directory.clone()]);
            FirmwareSettings { file, directories, ..Default::default() }.load([0; 16])
        };
        assert_eq!(load("own.bin").unwrap().unwrap().image, vec![0x90; 0x1_0000]);
        let error = |name| load(name).unwrap_err().to_string();
        assert_eq!(error("odd.bin"), "could not load PC BIOS 'odd.bin': 3 bytes are no multiple of 64 KiB up to 8 MiB");
        assert_eq!(error("none.bin"), "could not load PC BIOS 'none.bin': No such file or directory");
        assert!(FirmwareSettings::default().load([0; 16]).unwrap().is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
