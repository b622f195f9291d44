//! The entropy device: VIRTIO 1.2 §5.4 (cited as §).

use crate::virtio::{Driver, LINE};

const BUFFER: u64 = 0x20_0000;

#[test]
fn every_buffer_comes_back_full_of_other_bytes() {
    let mut driver = Driver::start("virtio-rng-pci", &[], 0, 1);
    let mut seen = Vec::new();
    for _ in 0..5 {
        driver.offer(0, &[(BUFFER, 64, true)]);
        // §5.4.6.1: the device writes one byte or more.
        let written = driver.served(0) as usize;
        assert!((1..=64).contains(&written));
        let bytes = driver.machine.read(BUFFER, written);
        assert!(!seen.contains(&bytes));
        seen.push(bytes);
    }
}

#[test]
fn the_interrupt_stands_until_its_status_is_read() {
    let mut driver = Driver::start("virtio-rng-pci", &[], 0, 1);
    driver.offer(0, &[(BUFFER, 64, true)]);
    driver.wait_for_interrupt();
    // §4.1.4.5: bit 0 for queues; reading clears.
    assert_eq!(driver.interrupt_status(), 1);
    assert!(!driver.machine.line_level(LINE));
    assert_eq!(driver.interrupt_status(), 0);
}
