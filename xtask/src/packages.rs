//! Debian's packages: fetched by apt-get into a directory of ours, and unpacked without being installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::run;

/// Where apt-get gets packages from.
pub enum Source {
    /// As the host is set up, for its own architecture.
    Host,
    /// The same place, for the 32-bit architecture: apt's configuration in this file.
    I386(PathBuf),
}

/// What helps if apt knows too little.
const ADVICE: &str = "run 'apt-get update' as root first, with Debian's package source configured";

impl Source {
    /// Packages of the 32-bit architecture, by lists and a configuration of their own in `directory`: the host's
    /// architectures stay as they are.
    pub fn i386(directory: &Path) -> anyhow::Result<Self> {
        // The lists that the host uses of Debian's own packages.
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
            .args(["Created-By: Packages", "Origin: Debian", "Component: main"])
            .output()
            .context("could not start apt-get: 32-bit guests come from Debian's packages")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed = if Path::new(KEYS).exists() { format!(" signed-by={KEYS}") } else { String::new() };
        let mut lines: Vec<String> = listed.lines().map(|line| format!("deb [arch=i386{signed}] {line}\n")).collect();
        lines.sort();
        lines.dedup();
        if lines.is_empty() {
            bail!("apt has no list of Debian's packages, from which 32-bit guests come: {ADVICE}");
        }
        for part in ["state/lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("sources.list"), lines.concat())?;
        fs::write(directory.join("status"), "")?;
        let at = directory.display();
        let configuration = format!(
            "APT::Architecture \"i386\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"i386\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"{at}/empty\";\n\
             Dir::Etc::parts \"{at}/empty\";\nDir::Etc::preferencesparts \"{at}/empty\";\n"
        );
        let file = directory.join("apt.conf");
        fs::write(&file, configuration)?;
        let source = Self::I386(file);
        // A list that cannot be had today may not be needed: what is missing is said when a package is looked for.
        if let Err(error) = run(source.command("apt-get").args(["-qq", "update"])) {
            eprintln!("not all lists of Debian's 32-bit packages could be fetched: {error:#}");
        }
        Ok(source)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        match self {
            // The sandboxed downloader may not enter a target directory below someone's home.
            Self::Host if program == "apt-get" => drop(command.args(["-o", "APT::Sandbox::User=root"])),
            Self::Host => {}
            Self::I386(file) => drop(command.env("APT_CONFIG", file)),
        }
        command
    }

    /// The newest kernel of a flavour: what `linux-image-FLAVOUR` depends on.
    pub fn kernel_package(&self, flavour: &str) -> anyhow::Result<String> {
        let package = format!("linux-image-{flavour}");
        let output = self
            .command("apt-cache")
            .args(["depends", "--important", &package])
            .output()
            .context("could not start apt-cache: the guest's kernel comes from Debian's packages")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
            .map(|rest| format!("linux-image-{rest}"))
            .with_context(|| match self {
                Self::Host => format!("apt does not know {package}: {ADVICE}"),
                Self::I386(_) => format!("no list of Debian's 32-bit packages has {package}: check the network"),
            })
    }

    /// Fetches a package into the directory `to`, unless it is there.
    pub fn download(&self, package: &str, to: &Path) -> anyhow::Result<PathBuf> {
        let prefix = format!("{package}_");
        fs::create_dir_all(to)?;
        if let Ok(path) = find(to, &prefix) {
            return Ok(path);
        }
        eprintln!("fetching {package}");
        run(self.command("apt-get").args(["-qq", "download", package]).current_dir(to)).with_context(|| {
            format!(
                "could not fetch {package}: run 'apt-get update' as root, and check the network and Debian's package source"
            )
        })?;
        find(to, &prefix)
    }
}

/// Unpacks a package into the directory `to`.
pub fn unpack(package: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(to))
}

/// The first entry of `directory`, by name, that starts with `prefix`.
pub fn find(directory: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("could not list {}", directory.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    match found.into_iter().next() {
        Some(path) => Ok(path),
        None => bail!("no {prefix}* in {}", directory.display()),
    }
}
