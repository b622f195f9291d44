//! What the program takes of its host and what it gives up there: `-overcommit`, `-run-with`, `-sandbox` and `-msg`.

use std::path::PathBuf;

use super::keyval::{KeyValues, OptionError};

/// When memory of the program is held in the host's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMemory {
    /// All of it, at once.
    Now,
    /// Each page once it was used.
    WhenUsed,
}

/// As whom the program goes on, once everything is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// A user of the host, with their groups.
    Named(String),
    /// A user and a group by number, with no other groups.
    Ids {
        /// The user.
        user: u32,
        /// The group.
        group: u32,
    },
}

/// Which system calls the program gives up, besides those that change the host, which it never needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Those that are there for old programs only.
    pub obsolete: bool,
    /// Becoming another user.
    pub identity: bool,
    /// Starting other programs.
    pub spawn: bool,
    /// Changing when and where its threads run.
    pub scheduling: bool,
}

/// What stands before what the program says on its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// The time.
    pub timestamp: bool,
    /// The guest's name, if it has one.
    pub guest_name: bool,
}

/// All of this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// `-overcommit mem-lock`.
    pub lock_memory: Option<LockMemory>,
    /// `-name process`: what the host's lists of processes call the program.
    pub process: Option<String>,
    /// `-run-with chroot`.
    pub root: Option<PathBuf>,
    /// `-run-with user`.
    pub run_as: Option<RunAs>,
    /// `-sandbox on`.
    pub sandbox: Option<Sandbox>,
    /// `-msg`.
    pub messages: Messages,
}

impl HostSettings {
    /// `-overcommit`.
    pub(super) fn overcommit(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        self.lock_memory = match parameters.get("mem-lock") {
            None => self.lock_memory,
            Some("on") => Some(LockMemory::Now),
            Some("on-fault") => Some(LockMemory::WhenUsed),
            Some("off") => None,
            Some(other) => {
                return Err(
                    parameters.error(format!("parameter 'mem-lock' expects 'on', 'off' or 'on-fault', not '{other}'"))
                );
            }
        };
        Ok(())
    }

    /// `-run-with`.
    pub(super) fn run_with(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        if parameters.flag("async-teardown") {
            return Err(parameters.error("'async-teardown=on' is not supported: memory goes when the program ends"));
        }
        if let Some(directory) = parameters.get("chroot") {
            self.root = Some(directory.into());
        }
        if let Some(text) = parameters.get("user") {
            let ids = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
            self.run_as = Some(match ids {
                // That is no user: the host takes it for "as it is".
                Some((u32::MAX, _) | (_, u32::MAX)) => {
                    return Err(parameters.error(format!("there is no user '{text}'")));
                }
                Some((user, group)) => RunAs::Ids { user, group },
                None => RunAs::Named(text.to_owned()),
            });
        }
        Ok(())
    }

    /// `-sandbox`.
    pub(super) fn sandbox(&mut self, parameters: &KeyValues) -> Result<(), OptionError> {
        let denied = |key: &str, others: &[&str]| match parameters.or_default(key).unwrap_or_default() {
            "allow" => Ok(false),
            "deny" => Ok(true),
            other if others.contains(&other) => Ok(false),
            other => Err(parameters.error(format!("parameter '{key}' does not accept '{other}'"))),
        };
        let asked = Sandbox {
            obsolete: denied("obsolete", &[])?,
            // Whatever is said, no program that is started gains rights: that goes with every filter.
            identity: denied("elevateprivileges", &["children"])?,
            spawn: denied("spawn", &[])?,
            scheduling: denied("resourcecontrol", &[])?,
        };
        self.sandbox = parameters.flag("enable").then_some(asked);
        Ok(())
    }

    /// `-msg`.
    pub(super) fn messages(&mut self, parameters: &KeyValues) {
        let Messages { timestamp, guest_name } = &mut self.messages;
        *timestamp = parameters.given_flag("timestamp").unwrap_or(*timestamp);
        *guest_name = parameters.given_flag("guest-name").unwrap_or(*guest_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;

    fn host(line: &str) -> Result<HostSettings, OptionError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).map(|settings| settings.host)
    }

    #[test]
    fn what_managers_always_write_takes_nothing_and_gives_up_nothing() {
        let line = "-overcommit mem-lock=off -sandbox off -name guest=a,debug-threads=on -run-with async-teardown=off";
        assert_eq!(host(line), Ok(HostSettings::default()));
    }

    #[test]
    fn a_sandbox_gives_up_what_it_is_told() {
        let sandbox = |line: &str| host(line).unwrap().sandbox;
        let asked = |obsolete, identity, spawn, scheduling| Some(Sandbox { obsolete, identity, spawn, scheduling });
        assert_eq!(sandbox("-sandbox on"), asked(true, false, false, false));
        assert_eq!(
            sandbox("-sandbox enable=on,obsolete=allow,elevateprivileges=children"),
            asked(false, false, false, false)
        );
        let all = "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        assert_eq!(sandbox(all), asked(true, true, true, true));
        assert_eq!(sandbox("-sandbox off,spawn=deny"), None);
        let reason = "-sandbox: parameter 'spawn' does not accept 'children'";
        assert_eq!(host("-sandbox on,spawn=children").unwrap_err().0, reason);
    }

    #[test]
    fn users_are_names_or_two_numbers() {
        let run_as = |text: &str| host(&format!("-run-with user={text}")).map(|host| host.run_as);
        assert_eq!(run_as("nobody"), Ok(Some(RunAs::Named("nobody".to_owned()))));
        assert_eq!(run_as("12:34"), Ok(Some(RunAs::Ids { user: 12, group: 34 })));
        assert_eq!(run_as("12:x"), Ok(Some(RunAs::Named("12:x".to_owned()))));
        assert_eq!(run_as("4294967295:1").unwrap_err().0, "-run-with: there is no user '4294967295:1'");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (line, reason) in [
            (
                "-overcommit mem-lock=all",
                "-overcommit: parameter 'mem-lock' expects 'on', 'off' or 'on-fault', not 'all'",
            ),
            ("-overcommit cpu-pm=3", "-overcommit: parameter 'cpu-pm' expects 'on' or 'off', not '3'"),
            (
                "-run-with async-teardown=on",
                "-run-with: 'async-teardown=on' is not supported: memory goes when the program ends",
            ),
            ("-msg timestamp=x", "-msg: parameter 'timestamp' expects 'on' or 'off', not 'x'"),
        ] {
            assert_eq!(host(line).unwrap_err().0, reason);
        }
        let messages = host("-msg timestamp=on -msg guest-name=on").unwrap().messages;
        assert_eq!(messages, Messages { timestamp: true, guest_name: true });
    }
}
