//! Small bare guests of our own, assembled from Rust.
//!
//! Their source is beside this folder, in `bare/`, `loader/` and, of those that test, in `programs/`; the build assembles it,
//! so that a program that carries a guest needs
//! no assembler and no file.

/// A program for a machine without any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its bytes.
    pub bytes: &'static [u8],
    /// The guest physical address that they are for.
    pub address: u64,
    /// Its first instruction.
    pub entry: u64,
    /// How many bytes from `address` it uses, its stack and variables included.
    pub uses: u64,
}

/// The guest that runs where no kernel is given: it shows what it finds in the machine on the first serial port, and
/// then sends back each line that it reads there, until the line is `poweroff` or `reset`.
///
/// It is to be entered in 64-bit mode with the first 4 GiB mapped to themselves, flat segments and interrupts off, and
/// with the address of a page of Linux boot parameters in RSI: e820 table, and root pointer of the ACPI tables.
pub const fn default_guest() -> Image {
    Image {
        bytes: BARE,
        address: layout::LOAD_ADDRESS,
        entry: layout::LOAD_ADDRESS,
        uses: layout::END - layout::LOAD_ADDRESS,
    }
}

/// A bare program that tests the machine from inside, to be started as a multiboot kernel with the device `isa-debug-exit`.
/// It ends with status 1 if all is right.
#[derive(Clone, Copy, Debug)]
pub struct TestProgram {
    /// Its name.
    pub name: &'static str,
    /// The image, with a multiboot header.
    pub image: &'static [u8],
}

/// All of them.
pub const TEST_PROGRAMS: &[TestProgram] = include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// An option ROM by which firmware starts the Linux kernel that the fw_cfg device offers, through its 16-bit entry.
pub const fn linux_loader() -> &'static [u8] {
    LINUX_LOADER
}

const LINUX_LOADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linux.bin"));

/// An option ROM by which firmware starts the multiboot program that the fw_cfg device offers.
pub const fn multiboot_loader() -> &'static [u8] {
    MULTIBOOT_LOADER
}

const MULTIBOOT_LOADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/multiboot.bin"));

#[path = "../bare/layout.rs"]
mod layout;

const BARE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bare.bin"));

const _: () = assert!(BARE.len() as u64 <= layout::STACK_BOTTOM - layout::LOAD_ADDRESS, "the stack needs its room");

#[cfg(test)]
mod tests {
    use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Mnemonic};

    use super::*;

    #[test]
    fn the_image_is_small() {
        let guest = default_guest();
        assert!(guest.bytes.len() < 8 * 1024, "{} bytes", guest.bytes.len());
        assert!(guest.address + guest.uses >= layout::VARIABLES);
    }

    #[test]
    fn it_starts_with_interrupts_off_and_with_a_stack_before_its_first_call() {
        let guest = default_guest();
        let mut decoder = Decoder::with_ip(64, guest.bytes, guest.entry, DecoderOptions::NONE);
        assert_eq!(decoder.decode().code(), Code::Cli);
        let before_call: Vec<_> =
            decoder.iter().take_while(|instruction| instruction.flow_control() != FlowControl::Call).collect();
        assert!(before_call.iter().any(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov && instruction.immediate64() == layout::STACK_TOP
        }));
        assert!(before_call.iter().all(|instruction| !instruction.is_invalid()));
    }

    #[test]
    fn the_loaders_are_option_roms_with_bootstrap_entries() {
        for (rom, blocks, name) in [(linux_loader(), 1, "Linux"), (multiboot_loader(), 2, "Multiboot")] {
            let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
            assert_eq!((&rom[..3], rom.len(), sum(rom)), (&[0x55, 0xaa, blocks][..], 512 * usize::from(blocks), 0));
            let word = |at: usize| usize::from(u16::from_le_bytes([rom[at], rom[at + 1]]));
            let header = word(0x1a);
            assert_eq!((&rom[header..header + 4], sum(&rom[header..header + 32])), (&b"$PnP"[..], 0));
            assert!(rom[word(header + 0x10)..].starts_with(name.as_bytes()));
            let entry = word(header + 0x1a);
            let mut decoder = Decoder::with_ip(16, &rom[entry..], entry as u64, DecoderOptions::NONE);
            assert_eq!(decoder.decode().code(), Code::Cli);
            // Firmware calls the third byte, and gets its turn back.
            let mut decoder = Decoder::with_ip(16, &rom[3..], 3, DecoderOptions::NONE);
            assert_eq!(decoder.decode().mnemonic(), Mnemonic::Retf);
        }
    }

    #[test]
    fn it_carries_what_it_says() {
        let text = String::from_utf8_lossy(default_guest().bytes);
        for part in ["Rhea: bare guest\r\n", "poweroff\0", "reset\0", "usable\0"] {
            assert!(text.contains(part), "{part:?}");
        }
    }
}
