//! What the program takes of its host at the start, and the rights that it gives up once everything is open.

use std::{ffi::CString, path::Path};

use anyhow::{Context as _, anyhow};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};
use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{chdir, chroot},
    thread::set_name,
};

use crate::{
    options::{HostSettings, LockMemory, RunAs},
    sandbox,
};

/// The longest name that the host keeps of a process.
const LONGEST_NAME: usize = 15;

/// Does what is to be done before there is memory of the guest.
///
/// # Errors
/// Memory cannot be held.
pub fn take(settings: &HostSettings) -> anyhow::Result<()> {
    if let Some(lock) = settings.lock_memory {
        let later = match lock {
            LockMemory::Now => MlockAllFlags::empty(),
            LockMemory::WhenUsed => MlockAllFlags::ONFAULT,
        };
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | later).context("locking memory failed")?;
    }
    if let Some(name) = &settings.process {
        let kept: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(LONGEST_NAME).collect();
        set_name(&CString::new(kept).unwrap_or_default()).context("-name process")?;
    }
    Ok(())
}

/// Gives up what is not needed from here on, in all threads.
///
/// # Errors
/// The host refuses, or lacks what it takes; nothing must run then.
pub fn give_up(settings: &HostSettings) -> anyhow::Result<()> {
    // Who somebody is, is known only while the host's files are there.
    let user = settings.run_as.as_ref().map(Identity::of).transpose()?;
    if let Some(directory) = &settings.root {
        change_root(directory).with_context(|| format!("-run-with chroot={}", directory.display()))?;
    }
    if let Some(user) = user {
        user.assume().context("-run-with user")?;
    }
    match settings.sandbox {
        Some(asked) => sandbox::enter(asked).context("-sandbox"),
        None => Ok(()),
    }
}

fn change_root(directory: &Path) -> anyhow::Result<()> {
    chroot(directory)?;
    Ok(chdir("/")?)
}

/// A user of the host.
struct Identity {
    user: Uid,
    group: Gid,
    /// By this name they have further groups.
    name: Option<CString>,
}

impl Identity {
    fn of(who: &RunAs) -> anyhow::Result<Self> {
        match who {
            RunAs::Ids { user, group } => {
                Ok(Self { user: Uid::from_raw(*user), group: Gid::from_raw(*group), name: None })
            }
            RunAs::Named(name) => {
                let found = User::from_name(name).with_context(|| format!("-run-with user={name}"))?;
                let found = found.ok_or_else(|| anyhow!("-run-with: user '{name}' does not exist"))?;
                Ok(Self { user: found.uid, group: found.gid, name: Some(CString::new(found.name)?) })
            }
        }
    }

    fn assume(self) -> anyhow::Result<()> {
        match &self.name {
            Some(name) => initgroups(name, self.group)?,
            None => setgroups(&[self.group])?,
        }
        setgid(self.group)?;
        Ok(setuid(self.user)?)
    }
}
