//! The block device: VIRTIO 1.2 §5.2 (cited as §).

use std::{fs, path::PathBuf};

use crate::virtio::Driver;

const HEADER: u64 = 0x20_0000;
const DATA: u64 = 0x20_1000;
const STATUS: u64 = 0x20_3000;
/// Flush (§5.2.3).
const FLUSH: u32 = 1 << 9;
const SECTORS: u64 = 2048;

struct Disk {
    driver: Driver,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let image: Vec<u8> = (0..SECTORS * 512).map(|at| (at / 512) as u8).collect();
        fs::write(&path, image).unwrap();
        let drive = format!("file={},format=raw,if=none,id=d", path.display());
        let driver = Driver::start("virtio-blk-pci,drive=d", &["-drive", &drive], FLUSH, 1);
        Self { driver, path, _directory: directory }
    }

    /// A request of this type; gives its status (§5.2.6).
    fn request(&mut self, kind: u32, sector: u64, length: u32, writable: bool) -> u8 {
        let machine = &mut self.driver.machine;
        machine.writel(HEADER, kind);
        machine.writel(HEADER + 4, 0);
        machine.writeq(HEADER + 8, sector);
        machine.writel(STATUS, 0xff);
        let mut buffers = vec![(HEADER, 16, false)];
        if length > 0 {
            buffers.push((DATA, length, writable));
        }
        buffers.push((STATUS, 1, true));
        self.driver.offer(0, &buffers);
        self.driver.served(0);
        self.driver.machine.readl(STATUS) as u8
    }
}

#[test]
fn the_configuration_tells_the_capacity_in_sectors() {
    let mut disk = Disk::start();
    assert_eq!(u64::from(disk.driver.config_l(0)) | u64::from(disk.driver.config_l(4)) << 32, SECTORS);
    assert_eq!(disk.driver.config(0), 0);
}

#[test]
fn sectors_are_read_from_where_they_are() {
    let mut disk = Disk::start();
    for sector in [0, 1, 100, SECTORS - 2] {
        assert_eq!(disk.request(0, sector, 1024, true), 0);
        let bytes = disk.driver.machine.read(DATA, 1024);
        assert!(bytes[..512].iter().all(|&byte| byte == sector as u8));
        assert!(bytes[512..].iter().all(|&byte| byte == sector as u8 + 1));
    }
}

#[test]
fn what_is_written_and_flushed_is_in_the_file() {
    let mut disk = Disk::start();
    disk.driver.machine.write(DATA, &[0xa5; 512]);
    assert_eq!(disk.request(1, 7, 512, false), 0);
    assert_eq!(disk.request(4, 0, 0, false), 0);
    let image = fs::read(&disk.path).unwrap();
    assert!(image[7 * 512..8 * 512].iter().all(|&byte| byte == 0xa5));
    assert_eq!((image[7 * 512 - 1], image[8 * 512]), (6, 8));
}

#[test]
fn past_the_end_is_an_error_and_an_unknown_request_unsupported() {
    let mut disk = Disk::start();
    // §5.2.6: VIRTIO_BLK_S_IOERR is 1, VIRTIO_BLK_S_UNSUPP is 2.
    assert_eq!(disk.request(0, SECTORS - 1, 1024, true), 1);
    assert_eq!(disk.request(0, u64::MAX, 512, true), 1);
    assert_eq!(disk.request(77, 0, 512, true), 2);
    assert_eq!(disk.request(0, 3, 512, true), 0);
}
