//! The Linux guest of tests and benchmarks: Debian's cloud kernel, and an initial RAM disk around busybox.
//!
//! The packages are fetched by apt-get and unpacked without being installed.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use cpio::{NewcBuilder, newc::ModeFileType, write_cpio};

use crate::{run, target};

/// A guest's files.
pub struct Guest {
    /// The kernel's bzImage.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

/// Modules that the guest loads, in this order.
const MODULES: [&str; 4] = [
    "drivers/acpi/button.ko",
    "drivers/input/evdev.ko",
    "drivers/misc/pvpanic/pvpanic.ko",
    "drivers/misc/pvpanic/pvpanic-mmio.ko",
];

/// Modules that the guest has and loads, in this order, when it is told `virtio`.
const VIRTIO_MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/char/hw_random/virtio-rng.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/virtio/virtio_balloon.ko",
    "drivers/char/virtio_console.ko",
];

/// Loads the virtio modules; its arguments, such as `force_legacy=1`, are for the transport.
const VIRTIO: &str = r#"#!/bin/busybox sh
for module in /modules/virtio/*.ko; do
    case "$module" in
    *virtio_pci.ko) insmod "$module" "$@" ;;
    *) insmod "$module" ;;
    esac
done
"#;

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod "$module"; done
acpid -l /tmp/acpid.log -p /tmp/acpid.pid
echo "guest: init reached"
export PS1='guest# '
exec setsid cttyhack sh
"#;

const POWER_BUTTON: &str = "#!/bin/busybox sh\necho 'guest: power button'\npoweroff -f\n";

/// Where the guest's files are kept.
pub fn directory() -> PathBuf {
    target().join("guests")
}

/// Fetches and builds what is not there yet.
pub fn fetch() -> anyhow::Result<Guest> {
    let directory = directory();
    let guest = Guest { kernel: directory.join("vmlinuz"), initrd: directory.join("initrd") };
    let recipe = format!("{INIT}{VIRTIO}{POWER_BUTTON}{MODULES:?}{VIRTIO_MODULES:?}");
    let made_by = directory.join("recipe");
    if guest.kernel.exists() && guest.initrd.exists() && fs::read_to_string(&made_by).is_ok_and(|text| text == recipe) {
        return Ok(guest);
    }
    let packages = directory.join("packages");
    fs::create_dir_all(&packages)?;
    let kernel_package = kernel_package()?;
    let tree = directory.join("tree");
    for package in [kernel_package.as_str(), "busybox-static"] {
        unpack(&download(package, &packages)?, &tree)?;
    }
    let boot = find(&tree.join("boot"), "vmlinuz-")?;
    let modules = find(&tree.join("lib/modules"), "")?.join("kernel");
    fs::copy(boot, &guest.kernel)?;
    build_initrd(&tree, &modules, &guest.initrd)?;
    fs::remove_dir_all(&tree)?;
    fs::write(made_by, recipe)?;
    Ok(guest)
}

/// The newest kernel of Debian's cloud flavour: what `linux-image-cloud-amd64` depends on.
fn kernel_package() -> anyhow::Result<String> {
    let advice = "run 'apt-get update' as root first, with Debian's package source configured";
    let output = Command::new("apt-cache")
        .args(["depends", "--important", "linux-image-cloud-amd64"])
        .output()
        .context("could not start apt-cache: the guest's kernel comes from Debian's packages")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|rest| format!("linux-image-{rest}"))
        .with_context(|| format!("apt does not know linux-image-cloud-amd64: {advice}"))
}

fn download(package: &str, to: &Path) -> anyhow::Result<PathBuf> {
    let prefix = format!("{package}_");
    if let Ok(path) = find(to, &prefix) {
        return Ok(path);
    }
    eprintln!("fetching {package}");
    // The sandboxed downloader may not enter a target directory below someone's home.
    let downloaded = run(Command::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(to));
    downloaded.with_context(|| {
        format!(
            "could not fetch {package}: run 'apt-get update' as root, and check the network and Debian's package source"
        )
    })?;
    find(to, &prefix)
}

fn unpack(package: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(to))
}

/// The first entry of `directory`, by name, that starts with `prefix`.
fn find(directory: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
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

fn build_initrd(tree: &Path, modules: &Path, to: &Path) -> anyhow::Result<()> {
    let mut entries: Vec<(NewcBuilder, Cursor<Vec<u8>>)> = Vec::new();
    let mut add = |name: &str, kind: ModeFileType, mode: u32, data: Vec<u8>| {
        let inode = entries.len() as u32 + 1;
        entries.push((NewcBuilder::new(name).ino(inode).mode(mode).set_mode_file_type(kind), Cursor::new(data)));
    };
    for directory in
        ["bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "modules", "modules/virtio", "proc", "sys", "tmp"]
    {
        add(directory, ModeFileType::Directory, 0o755, Vec::new());
    }
    add("init", ModeFileType::Regular, 0o755, INIT.into());
    add("bin/virtio", ModeFileType::Regular, 0o755, VIRTIO.into());
    add("etc/acpi/PWRF/00000080", ModeFileType::Regular, 0o755, POWER_BUTTON.into());
    let busybox = tree.join("bin/busybox");
    let busybox = fs::read(&busybox).with_context(|| format!("could not read {}", busybox.display()))?;
    add("bin/busybox", ModeFileType::Regular, 0o755, busybox);
    let loaded = MODULES.iter().enumerate().map(|(i, module)| ("modules", i, module));
    let on_demand = VIRTIO_MODULES.iter().enumerate().map(|(i, module)| ("modules/virtio", i, module));
    for (directory, i, module) in loaded.chain(on_demand) {
        let path = modules.join(module);
        let data = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        add(&format!("{directory}/{i:02}-{name}"), ModeFileType::Regular, 0o644, data);
    }
    let file = fs::File::create(to).with_context(|| format!("could not create {}", to.display()))?;
    write_cpio(entries.into_iter(), file)?;
    Ok(())
}
