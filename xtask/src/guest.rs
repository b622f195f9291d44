//! The guests of tests and benchmarks: Debian's kernels of 64 and 32 bits, each with an initial RAM disk around busybox,
//! the memory tester memtest86+, and SeaBIOS.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use anyhow::Context;
use cpio::{NewcBuilder, newc::ModeFileType, write_cpio};

use crate::{
    packages::{Source, find, unpack},
    target,
};

/// All guests.
pub struct Guests {
    /// Linux of 64 bits.
    pub linux: Guest,
    /// Linux of 32 bits.
    pub linux_32: Guest,
    /// The memory tester, of 64 and of 32 bits.
    pub memtest: [PathBuf; 2],
    /// Firmware: SeaBIOS.
    pub firmware: PathBuf,
}

impl Guests {
    /// The variables by which tests find them.
    pub fn environment(&self) -> [(&'static str, &Path); 7] {
        [
            ("RHEA_TEST_KERNEL", &self.linux.kernel),
            ("RHEA_TEST_INITRD", &self.linux.initrd),
            ("RHEA_TEST_KERNEL_32", &self.linux_32.kernel),
            ("RHEA_TEST_INITRD_32", &self.linux_32.initrd),
            ("RHEA_TEST_MEMTEST", &self.memtest[0]),
            ("RHEA_TEST_MEMTEST_32", &self.memtest[1]),
            ("RHEA_TEST_FIRMWARE", &self.firmware),
        ]
    }
}

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

/// Fetches and builds all guests that are not there yet.
pub fn fetch_all() -> anyhow::Result<Guests> {
    Ok(Guests { linux: fetch()?, linux_32: fetch_32()?, memtest: fetch_memtest()?, firmware: fetch_firmware()? })
}

/// Fetches and builds Linux of 64 bits.
pub fn fetch() -> anyhow::Result<Guest> {
    linux("cloud-amd64", ["vmlinuz", "initrd", "recipe"], "packages", || Ok(Source::Host))
}

fn fetch_32() -> anyhow::Result<Guest> {
    let source = || Source::i386(&directory().join("apt-i386"));
    linux("686-pae", ["vmlinuz-32", "initrd-32", "recipe-32"], "packages-i386", source)
}

/// Linux with a kernel of this flavour, in files of these names.
fn linux(
    flavour: &str,
    [kernel, initrd, made_by]: [&str; 3],
    packages: &str,
    source: impl FnOnce() -> anyhow::Result<Source>,
) -> anyhow::Result<Guest> {
    let directory = directory();
    let guest = Guest { kernel: directory.join(kernel), initrd: directory.join(initrd) };
    let recipe = format!("{INIT}{VIRTIO}{POWER_BUTTON}{MODULES:?}{VIRTIO_MODULES:?}");
    let made_by = directory.join(made_by);
    if guest.kernel.exists() && guest.initrd.exists() && fs::read_to_string(&made_by).is_ok_and(|text| text == recipe) {
        return Ok(guest);
    }
    let source = source()?;
    let packages = directory.join(packages);
    let tree = directory.join(format!("tree-{flavour}"));
    for package in [source.kernel_package(flavour)?.as_str(), "busybox-static"] {
        unpack(&source.download(package, &packages)?, &tree)?;
    }
    let boot = find(&tree.join("boot"), "vmlinuz-")?;
    let modules = find(&tree.join("lib/modules"), "")?.join("kernel");
    fs::copy(boot, &guest.kernel)?;
    build_initrd(&tree, &modules, &guest.initrd)?;
    fs::remove_dir_all(&tree)?;
    fs::write(made_by, recipe)?;
    Ok(guest)
}

/// Firmware.
fn fetch_firmware() -> anyhow::Result<PathBuf> {
    let directory = directory();
    let file = directory.join("bios-256k.bin");
    if !file.exists() {
        let tree = directory.join("tree-seabios");
        unpack(&Source::Host.download("seabios", &directory.join("packages"))?, &tree)?;
        let from = tree.join("usr/share/seabios/bios-256k.bin");
        fs::copy(&from, &file).with_context(|| format!("the package seabios has no {}", from.display()))?;
        fs::remove_dir_all(&tree)?;
    }
    Ok(file)
}

/// The memory tester.
fn fetch_memtest() -> anyhow::Result<[PathBuf; 2]> {
    let directory = directory();
    let names = ["memtest86+x64.bin", "memtest86+ia32.bin"];
    let files = names.map(|name| directory.join(name));
    if files.iter().all(|file| file.exists()) {
        return Ok(files);
    }
    let tree = directory.join("tree-memtest");
    unpack(&Source::Host.download("memtest86+", &directory.join("packages"))?, &tree)?;
    for (name, file) in names.iter().zip(&files) {
        let from = tree.join("boot").join(name);
        fs::copy(&from, file).with_context(|| format!("the package memtest86+ has no {}", from.display()))?;
    }
    fs::remove_dir_all(&tree)?;
    Ok(files)
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
