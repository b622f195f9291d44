//! The configuration channel: selector at port 0x510, data at 0x511, DMA address at 0x514.

use rhea_tests::qtest::TestMachine;

fn item(machine: &mut TestMachine, key: u16, length: usize) -> Vec<u8> {
    machine.outw(0x510, key);
    (0..length).map(|_| machine.inb(0x511)).collect()
}

#[test]
fn the_signature_says_what_it_is() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!(item(&mut machine, 0, 6), *b"QEMU\0\0");
    // Traditional interface and DMA.
    assert_eq!(item(&mut machine, 1, 4), [3, 0, 0, 0]);
}

#[test]
fn memory_and_processors_are_told() {
    let mut machine = TestMachine::start(&["-m", "256", "-smp", "2"]);
    assert_eq!(item(&mut machine, 3, 8), (256_u64 << 20).to_le_bytes());
    assert_eq!(item(&mut machine, 5, 2), [2, 0]);
}

#[test]
fn dma_copies_an_item_to_memory() {
    let mut machine = TestMachine::start(&[]);
    assert_eq!((machine.inl(0x514), machine.inl(0x518)), (u32::from_ne_bytes(*b"QEMU"), u32::from_ne_bytes(*b" CFG")));
    // Select item 0 and read four bytes to 0x200000; the descriptor is big-endian, and so is its address.
    let mut descriptor = Vec::from(0x0000_000a_u32.to_be_bytes());
    descriptor.extend(4_u32.to_be_bytes());
    descriptor.extend(0x20_0000_u64.to_be_bytes());
    machine.write(0x10_0000, &descriptor);
    machine.outl(0x514, 0);
    machine.outl(0x518, 0x10_0000_u32.swap_bytes());
    assert_eq!(machine.read(0x20_0000, 5), *b"QEMU\0");
    // Control reads zero when it is done.
    assert_eq!(machine.readl(0x10_0000), 0);
}
