//! PCI configuration by mechanism 1: PCI 2.1 §3.7.4 (cited as §). Host bridge 82441FX, ISA bridge and power management
//! of 82371.

use rhea_tests::qtest::TestMachine;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

fn read(machine: &mut TestMachine, slot: u32, function: u32, register: u32) -> u32 {
    machine.outl(ADDRESS, 1 << 31 | slot << 11 | function << 8 | register & 0xfc);
    machine.inl(DATA)
}

#[test]
fn functions_are_found_where_the_chips_have_them() {
    let mut machine = TestMachine::start(&[]);
    for (slot, function, identity, class) in
        [(0, 0, 0x1237_8086, 0x0600), (1, 0, 0x7000_8086, 0x0601), (1, 3, 0x7113_8086, 0x0680)]
    {
        assert_eq!(read(&mut machine, slot, function, 0), identity);
        assert_eq!(read(&mut machine, slot, function, 8) >> 16, class);
    }
    // §6.2.1: bit 7 of the header type says that there are more functions.
    assert_eq!(read(&mut machine, 1, 0, 0xc) >> 16 & 0xff, 0x80);
}

#[test]
fn where_there_is_no_function_all_bits_are_ones() {
    let mut machine = TestMachine::start(&[]);
    for (slot, function) in [(1, 7), (30, 0), (31, 7)] {
        assert_eq!(read(&mut machine, slot, function, 0), 0xffff_ffff);
    }
    // §3.7.4.1: without the enable bit there is no configuration cycle.
    machine.outl(ADDRESS, 0);
    assert_eq!(machine.inl(DATA), 0xffff_ffff);
}

#[test]
fn the_address_is_written_as_a_double_word_only() {
    let mut machine = TestMachine::start(&[]);
    machine.outl(ADDRESS, 1 << 31 | 1 << 11);
    machine.outb(ADDRESS, 8);
    machine.outw(ADDRESS, 0x10);
    assert_eq!(machine.inl(ADDRESS), 1 << 31 | 1 << 11);
    // Reserved bits read zero.
    machine.outl(ADDRESS, 0xffff_ffff);
    assert_eq!(machine.inl(ADDRESS) & 0x7f00_0003, 0);
}

#[test]
fn data_is_reached_by_bytes_and_words() {
    let mut machine = TestMachine::start(&[]);
    machine.outl(ADDRESS, 1 << 31 | 1 << 11);
    assert_eq!((machine.inb(DATA), machine.inb(DATA + 1), machine.inw(DATA + 2)), (0x86, 0x80, 0x7000));
    // Identity is read only.
    machine.outl(DATA, 0);
    assert_eq!(machine.inl(DATA), 0x7000_8086);
    // Interrupt line is kept, in a byte of its own (§6.2.4); function 3 has it.
    machine.outl(ADDRESS, 1 << 31 | 1 << 11 | 3 << 8 | 0x3c);
    let pin = machine.inb(DATA + 1);
    machine.outb(DATA, 11);
    assert_eq!((machine.inb(DATA), machine.inb(DATA + 1)), (11, pin));
}

#[test]
fn power_management_moves_with_its_base() {
    let mut machine = TestMachine::start(&[]);
    // PIIX4 §7.1.26: PMBASE.
    machine.outl(ADDRESS, 1 << 31 | 1 << 11 | 3 << 8 | 0x40);
    machine.outl(DATA, 0xb001);
    machine.outw(0xb004, 1 << 10);
    assert_eq!((machine.inw(0xb004), machine.inw(0x604)), (1 << 10, 0xffff));
}
