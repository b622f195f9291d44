//! The memory balloon: VIRTIO 1.2 §5.5 (cited as §).

use serde_json::json;

use crate::virtio::Driver;

const BUFFER: u64 = 0x20_0000;
const MIB: u64 = 1 << 20;

#[test]
fn the_manager_asks_and_the_driver_tells_how_far_it_came() {
    let mut driver = Driver::start("virtio-balloon-pci", &["-m", "256"], 0, 2);
    assert_eq!(driver.config_l(0), 0);
    driver.machine.qmp("balloon", json!({ "value": 192 * MIB }));
    driver.wait_for_interrupt();
    // §4.1.4.5: bit 1 for the configuration; §5.5.4: pages wanted, then pages there.
    assert_eq!(driver.interrupt_status() & 2, 2);
    assert_eq!(driver.config_l(0), 16384);
    driver.set_config_l(4, 8192);
    let data = driver.machine.event("BALLOON_CHANGE");
    assert_eq!(data["actual"], json!(224 * MIB));
    assert_eq!(driver.machine.qmp("query-balloon", json!({}))["actual"], json!(224 * MIB));
}

#[test]
fn a_page_in_the_balloon_has_lost_what_it_held() {
    let mut driver = Driver::start("virtio-balloon-pci", &["-m", "256"], 0, 2);
    let page = 64 * MIB;
    driver.machine.write(page, &[0x77; 32]);
    driver.machine.write(page + 4096, &[0x78; 32]);
    // §5.5.6.1: page numbers of 32 bits on the first queue.
    driver.machine.writel(BUFFER, (page / 4096) as u32);
    driver.offer(0, &[(BUFFER, 4, false)]);
    driver.served(0);
    assert_eq!(driver.machine.read(page, 32), [0; 32]);
    assert_eq!(driver.machine.read(page + 4096, 32), [0x78; 32]);
    driver.offer(1, &[(BUFFER, 4, false)]);
    driver.served(1);
}
