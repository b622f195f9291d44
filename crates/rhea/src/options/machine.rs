//! `-machine` and `-accel`: the board, what it has, and what runs the guest.

use rhea_machine::{Accelerator, BoardKind};

use super::{
    keyval::{KeyValues, OptionError},
    settings::{Said, Settings},
};

/// Machines by all their names.
const BOARDS: [(&str, BoardKind); 3] =
    [("pc", BoardKind::Pc), ("pc-i440fx-10.0", BoardKind::Pc), ("none", BoardKind::None)];

/// Parts that the board does not have: they can be told to be off.
const ABSENT: [&str; 8] = ["usb", "graphics", "vmport", "smm", "smbus", "sata", "pcie", "ioapic2"];

/// Parts that the board always has: they can be told to be on.
const PRESENT: [&str; 4] = ["pit", "pic", "i8042", "rtc"];

impl Settings {
    pub(super) fn machine(&mut self, parameters: &KeyValues, said: &mut Said) -> Result<(), OptionError> {
        if let Some(name) = parameters.get("type") {
            let known = BOARDS.iter().find(|(known, _)| *known == name);
            self.board = known
                .ok_or_else(|| {
                    parameters.error(format!("unsupported machine type '{name}'; '-machine help' lists them"))
                })?
                .1;
        }
        if let Some(accelerators) = parameters.get("accel") {
            said.accelerators.extend(accelerators.split(':').map(str::to_owned));
        }
        if let Some(backend) = parameters.get("memory-backend") {
            self.memory.config.backend = Some(backend.to_owned());
        }
        self.memory.config.merge = parameters.given_flag("mem-merge").unwrap_or(self.memory.config.merge);
        self.memory.config.dump = parameters.given_flag("dump-guest-core").unwrap_or(self.memory.config.dump);
        self.smbios.entry_point(parameters)?;
        if let Some(file) = parameters.get("firmware") {
            self.firmware.file = Some(file.to_owned());
        }
        for (property, kept) in [("kernel", &mut self.kernel), ("initrd", &mut self.initrd)] {
            if let Some(file) = parameters.get(property) {
                *kept = Some(file.into());
            }
        }
        if let Some(line) = parameters.get("append") {
            self.append = Some(line.to_owned());
        }
        for (property, hidden) in [("acpi", &mut self.hidden.acpi), ("hpet", &mut self.hidden.hpet)] {
            *hidden = parameters.given_flag(property).map_or(*hidden, |there| !there);
        }
        for property in ABSENT {
            if parameters.given_flag(property) == Some(true) {
                return Err(parameters.error(format!("'{property}=on' is not supported yet")));
            }
        }
        for property in PRESENT {
            if parameters.given_flag(property) == Some(false) {
                return Err(parameters.error(format!("'{property}=off' is not supported yet")));
            }
        }
        Ok(())
    }

    pub(super) fn accelerator(&mut self, parameters: &KeyValues, said: &mut Said) -> Result<(), OptionError> {
        said.accelerators.push(parameters.require("accel")?.to_owned());
        match parameters.or_default("thread").unwrap_or_default() {
            "multi" => Ok(()),
            other => Err(parameters.error(format!("'thread={other}' is not there; 'multi' is"))),
        }
    }
}

/// What `-machine help` prints.
pub fn help() -> String {
    "Supported machines are:\n\
     none                 machine with nothing\n\
     pc                   Standard PC (440FX + PIIX) (alias of pc-i440fx-10.0)\n\
     pc-i440fx-10.0       Standard PC (440FX + PIIX) (default)\n"
        .to_owned()
}

/// The first usable one of `names`; KVM never is.
///
/// # Errors
/// There are names, and none can be.
pub(super) fn choose_accelerator(names: &[String]) -> Result<Accelerator, OptionError> {
    let usable = names.iter().find_map(|name| match name.as_str() {
        "tcg" => Some(Accelerator::Tcg),
        "qtest" => Some(Accelerator::Qtest),
        _ => None,
    });
    match usable {
        Some(accelerator) => Ok(accelerator),
        None if names.is_empty() => Ok(Accelerator::default()),
        None => {
            let reason = format!("no usable accelerator in '{}'; there are 'tcg' and 'qtest'", names.join(":"));
            Err(OptionError::about("accel", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;

    fn settings(line: &str) -> Result<Settings, OptionError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn parts_that_a_guest_need_not_find_are_hidden() {
        let hidden = |line: &str| {
            let hidden = settings(line).unwrap().hidden;
            (hidden.acpi, hidden.hpet)
        };
        assert_eq!(hidden("-machine pc"), (false, false));
        assert_eq!(hidden("-machine pc,acpi=off,hpet=off"), (true, true));
        assert_eq!(hidden("-machine pc,hpet=off -machine hpet=on,acpi=auto"), (false, false));
        assert_eq!(hidden("-no-acpi -no-hpet"), (true, true));
    }

    #[test]
    fn what_is_not_there_can_be_off_and_what_is_there_can_be_on() {
        let line = "-machine pc,usb=off,vmport=off,smm=auto,smbus=off,pit=on,pic=on,i8042=on,graphics=off,sata=off";
        assert!(settings(line).is_ok());
        for (line, reason) in [
            ("-machine vmport=on", "-machine: 'vmport=on' is not supported yet"),
            ("-machine smm=on", "-machine: 'smm=on' is not supported yet"),
            ("-machine pit=off", "-machine: 'pit=off' is not supported yet"),
            ("-machine smm=maybe", "-machine: parameter 'smm' expects 'on', 'off' or 'auto', not 'maybe'"),
        ] {
            assert_eq!(settings(line).unwrap_err().0, reason);
        }
    }

    #[test]
    fn hardware_that_runs_guests_itself_is_passed_over_or_refused() {
        let accelerator = |line: &str| settings(line).map(|settings| settings.accelerator);
        assert_eq!(accelerator("-machine pc,accel=kvm:tcg"), Ok(Accelerator::Tcg));
        assert_eq!(accelerator("-enable-kvm -accel tcg"), Ok(Accelerator::Tcg));
        for line in ["-enable-kvm", "-accel kvm", "-machine accel=kvm"] {
            let reason = "-accel: no usable accelerator in 'kvm'; there are 'tcg' and 'qtest'";
            assert_eq!(accelerator(line).unwrap_err().0, reason, "{line}");
        }
    }
}
