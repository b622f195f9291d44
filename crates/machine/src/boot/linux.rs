//! Direct boot of a Linux bzImage by its 64-bit protocol. Linux `Documentation/arch/x86/boot.rst` and `zero-page.rst`.

use rhea_core::memory::AddressSpace;

use super::{
    Entry, LoadError, MemoryMap,
    parameters::{self, put},
};

/// Where the command line goes; it may fill the rest up to the extended BIOS data area.
const COMMAND_LINE: u64 = 0x9_1000;
const COMMAND_LINE_LIMIT: usize = 0xe000;

/// Offsets in the setup header, counted from the start of the file as from the start of the boot parameters.
mod header {
    pub const START: usize = 0x1f1;
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const JUMP_LENGTH: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE_KERNEL: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
}

/// Offset in the boot parameters of the high half of the RAM disk's address.
const EXT_RAMDISK_IMAGE: usize = 0xc0;

/// A kernel with what it is to be started with, read from files and checked.
#[derive(Clone, Debug)]
pub struct Kernel {
    image: Vec<u8>,
    initrd: Option<Vec<u8>>,
    command_line: Vec<u8>,
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Kernel {
    /// Whether `image` looks like a bzImage.
    pub fn is_bzimage(image: &[u8]) -> bool {
        read(image, header::MAGIC) == Some(*b"HdrS") && read(image, header::BOOT_FLAG) == Some([0x55, 0xaa])
    }

    /// Takes a bzImage.
    ///
    /// # Errors
    /// The image is no bzImage, is cut, too old, has no 64-bit entry, or the command line is too long for it.
    pub fn new(image: Vec<u8>, initrd: Option<Vec<u8>>, command_line: &str) -> Result<Self, LoadError> {
        let bad = |reason: &str| LoadError::Kernel(reason.to_owned());
        if !Self::is_bzimage(&image) {
            return Err(bad("it is not a Linux bzImage"));
        }
        let word = |at| read(&image, at).map(u16::from_le_bytes).unwrap_or_default();
        if word(header::VERSION) < 0x20c {
            return Err(bad("its boot protocol is older than 2.12; a kernel of version 3.8 or later is needed"));
        }
        if word(header::XLOADFLAGS) & 1 == 0 {
            return Err(bad("it has no 64-bit entry point"));
        }
        let limit = read(&image, header::CMDLINE_SIZE).map(u32::from_le_bytes).unwrap_or(255) as usize;
        let limit = limit.min(COMMAND_LINE_LIMIT - 1);
        if command_line.len() > limit {
            return Err(LoadError::CommandLine { length: command_line.len(), limit });
        }
        let kernel = Self { image, initrd, command_line: command_line.as_bytes().to_vec() };
        if kernel.protected_part().is_none() {
            return Err(bad("it is cut off"));
        }
        Ok(kernel)
    }

    /// The part that runs in protected and long mode: what follows the boot sector and the setup sectors.
    fn protected_part(&self) -> Option<&[u8]> {
        let sectors = match self.image.get(header::SETUP_SECTS)? {
            0 => 4,
            n => usize::from(*n),
        };
        self.image.get((sectors + 1) * 512..).filter(|part| part.len() > 0x200)
    }

    fn u32_at(&self, at: usize) -> u32 {
        read(&self.image, at).map(u32::from_le_bytes).unwrap_or_default()
    }

    /// Copies everything into guest memory; gives where and how to start.
    ///
    /// # Errors
    /// The guest has too little memory for the kernel or the initial RAM disk.
    pub fn load(&self, memory: &AddressSpace, map: &MemoryMap, root_pointer: u64) -> Result<Entry, LoadError> {
        let part = self.protected_part().unwrap_or_default();
        let preferred = read(&self.image, header::PREF_ADDRESS).map(u64::from_le_bytes).unwrap_or(0x10_0000);
        let alignment = u64::from(self.u32_at(header::KERNEL_ALIGNMENT)).max(4096);
        let relocatable = self.image.get(header::RELOCATABLE_KERNEL).is_some_and(|flag| *flag != 0);
        let size = u64::from(self.u32_at(header::INIT_SIZE)).max(part.len() as u64);
        let fits = |at: u64| at.checked_add(size).is_some_and(|end| map.usable_below_4g(at, end));
        let kernel = if fits(preferred) {
            preferred
        } else if relocatable && fits(alignment.max(0x10_0000)) {
            alignment.max(0x10_0000)
        } else {
            return Err(LoadError::Memory { what: "the kernel", needs: size });
        };
        memory.write(kernel, part);

        let mut page = parameters::page(map, root_pointer);
        let header_end =
            (header::MAGIC + usize::from(self.image.get(header::JUMP_LENGTH).copied().unwrap_or(0))).min(0x290);
        if let Some(header) = self.image.get(header::START..header_end) {
            put(&mut page, header::START, header);
        }
        put(&mut page, header::TYPE_OF_LOADER, &[0xff]);
        // The kernel is loaded high, and what it prints early may be seen.
        put(&mut page, header::LOADFLAGS, &[1]);
        put(&mut page, header::CMD_LINE_PTR, &(COMMAND_LINE as u32).to_le_bytes());
        if let Some(initrd) = &self.initrd {
            let highest = u64::from(self.u32_at(header::INITRD_ADDR_MAX)).max(0x37ff_ffff);
            let at = map
                .highest_below(highest.saturating_add(1), initrd.len() as u64)
                .filter(|&at| at >= kernel + size)
                .ok_or(LoadError::Memory { what: "the initial RAM disk", needs: initrd.len() as u64 })?;
            memory.write(at, initrd);
            put(&mut page, header::RAMDISK_IMAGE, &(at as u32).to_le_bytes());
            put(&mut page, header::RAMDISK_SIZE, &(initrd.len() as u32).to_le_bytes());
            put(&mut page, EXT_RAMDISK_IMAGE, &((at >> 32) as u32).to_le_bytes());
        }
        memory.write(parameters::ADDRESS, &page);
        let mut command_line = self.command_line.clone();
        command_line.push(0);
        memory.write(COMMAND_LINE, &command_line);
        Ok(Entry::Long { rip: kernel + 0x200, rsi: parameters::ADDRESS })
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::{Ram, memory::Target};

    use super::*;
    use crate::boot::MemoryMap;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 512 * 2 + 0x1000];
        image[header::SETUP_SECTS] = 1;
        image[header::BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
        image[header::JUMP_LENGTH] = 0x6a;
        image[header::MAGIC..][..4].copy_from_slice(b"HdrS");
        image[header::VERSION..][..2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[header::XLOADFLAGS] = 1;
        image[header::CMDLINE_SIZE..][..4].copy_from_slice(&2047_u32.to_le_bytes());
        image[header::INIT_SIZE..][..4].copy_from_slice(&0x10_0000_u32.to_le_bytes());
        image[header::PREF_ADDRESS..][..8].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        image[1024..].fill(0x90);
        image
    }

    fn memory(size: u64) -> AddressSpace {
        let space = AddressSpace::new();
        let ram = Ram::new("test", size).unwrap();
        space.map(0, size, 0, Target::Ram { ram, offset: 0, writable: true });
        space
    }

    #[test]
    fn the_kernel_finds_its_parameters_command_line_and_ram_disk() {
        const SIZE: u64 = 64 << 20;
        let kernel = Kernel::new(image(), Some(vec![7; 5000]), "console=ttyS0").unwrap();
        let memory = memory(SIZE);
        let entry = kernel.load(&memory, &MemoryMap::new(SIZE, 0, 0), 0xf_0000).unwrap();
        let Entry::Long { rip, rsi } = entry else { panic!("64-bit entry") };
        assert_eq!(rip, 0x100_0200);
        let mut page = vec![0; 4096];
        memory.read(rsi, &mut page);
        assert!(page[0x1e8] >= 3);
        let at = u32::from_le_bytes(page[header::CMD_LINE_PTR..][..4].try_into().unwrap());
        let mut line = [0; 14];
        memory.read(u64::from(at), &mut line);
        assert_eq!(&line, b"console=ttyS0\0");
        let disk = u32::from_le_bytes(page[header::RAMDISK_IMAGE..][..4].try_into().unwrap());
        let mut data = vec![0; 5000];
        memory.read(u64::from(disk), &mut data);
        assert_eq!(data, vec![7; 5000]);
        assert_eq!(disk % 4096, 0);
    }

    #[test]
    fn what_does_not_fit_or_is_no_kernel_is_an_error_that_says_so() {
        assert!(matches!(Kernel::new(vec![0; 4096], None, ""), Err(LoadError::Kernel(_))));
        assert!(matches!(Kernel::new(image()[..1030].to_vec(), None, ""), Err(LoadError::Kernel(_))));
        assert!(matches!(Kernel::new(image(), None, &"x".repeat(3000)), Err(LoadError::CommandLine { .. })));
        let kernel = Kernel::new(image(), None, "").unwrap();
        let small = kernel.load(&memory(1 << 20), &MemoryMap::new(1 << 20, 0, 0), 0);
        assert!(matches!(small, Err(LoadError::Memory { .. })), "{small:?}");
        let disk = Kernel::new(image(), Some(vec![0; 40 << 20]), "").unwrap();
        assert!(disk.load(&memory(32 << 20), &MemoryMap::new(32 << 20, 0, 0), 0).is_err());
    }
}
