//! Direct boot of a Linux bzImage by its 64-bit protocol, or by the 32-bit one where it has no other, and its parts for a
//! loader that takes the 16-bit one. Linux `Documentation/arch/x86/boot.rst` (cited as boot.rst) and `zero-page.rst`.

use rhea_core::memory::AddressSpace;

use super::{
    Entry, LoadError, MemoryMap,
    parameters::{self, put},
    start,
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
    pub const HEAP_END_PTR: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE_KERNEL: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
}

/// The oldest protocol that is spoken: before, the command line was elsewhere.
const OLDEST: u16 = 0x202;
/// Protocols from which on fields of the header are there.
mod since {
    pub const INITRD_ADDR_MAX: u16 = 0x203;
    pub const RELOCATABLE: u16 = 0x205;
    pub const CMDLINE_SIZE: u16 = 0x206;
    pub const PREF_ADDRESS: u16 = 0x20a;
    pub const XLOADFLAGS: u16 = 0x20c;
}
/// LOADFLAGS: the protected-mode part goes to 1 MiB; without it, below 640 KiB.
const LOADED_HIGH: u8 = 1;
/// LOADFLAGS: the kernel's setup may use the memory behind it, up to HEAP_END_PTR.
const CAN_USE_HEAP: u8 = 0x80;
/// XLOADFLAGS: there is a 64-bit entry, 512 bytes behind the 32-bit one.
const KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// Where a kernel goes that does not say.
const USUAL_ADDRESS: u64 = 0x10_0000;
/// The last byte that an initial RAM disk may take if the kernel does not say.
const USUAL_INITRD_MAX: u32 = 0x37ff_ffff;

/// Offset in the boot parameters of the high half of the RAM disk's address.
const EXT_RAMDISK_IMAGE: usize = 0xc0;

/// What a loader that starts a kernel by its 16-bit entry puts where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Boot sector and setup, told of the rest, for [`SETUP_ADDRESS`](Self::SETUP_ADDRESS).
    pub setup: Vec<u8>,
    /// What runs in protected mode, for [`KERNEL_ADDRESS`](Self::KERNEL_ADDRESS).
    pub kernel: Vec<u8>,
    /// The command line with its final zero, for [`COMMAND_LINE_ADDRESS`](Self::COMMAND_LINE_ADDRESS).
    pub command_line: Vec<u8>,
    /// The initial RAM disk and its address.
    pub initrd: Option<(u32, Vec<u8>)>,
}

impl Offer {
    /// A segment for the setup, its heap and the loader's stack.
    pub const SETUP_ADDRESS: u32 = 0x1_0000;
    /// Behind that segment.
    pub const COMMAND_LINE_ADDRESS: u32 = 0x2_0000;
    /// Where kernels since 1996 are put: above the first megabyte.
    pub const KERNEL_ADDRESS: u32 = 0x10_0000;
    /// Where the heap ends in its segment, less 512 as the field wants it; the loader's stack is behind.
    const HEAP_END: u16 = 0xdc00;
    /// What firmware may keep for itself at the end of memory below 4 GiB.
    const KEPT: u64 = 1 << 20;
}

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
    /// The image is no bzImage, is cut or too old, or the command line is too long for it.
    pub fn new(image: Vec<u8>, initrd: Option<Vec<u8>>, command_line: &str) -> Result<Self, LoadError> {
        let bad = |reason: &str| LoadError::Kernel(reason.to_owned());
        if !Self::is_bzimage(&image) {
            return Err(bad("it is not a Linux bzImage"));
        }
        let kernel = Self { image, initrd, command_line: command_line.as_bytes().to_vec() };
        if kernel.version() < OLDEST {
            return Err(bad("its boot protocol is older than 2.02; a kernel of version 2.4 or later is needed"));
        }
        if kernel.image.get(header::LOADFLAGS).is_none_or(|flags| flags & LOADED_HIGH == 0) {
            return Err(bad("it is a zImage, which runs below 640 KiB; a bzImage is needed"));
        }
        let limit = kernel.dword(header::CMDLINE_SIZE, since::CMDLINE_SIZE).unwrap_or(255) as usize;
        let limit = limit.min(COMMAND_LINE_LIMIT - 1);
        if command_line.len() > limit {
            return Err(LoadError::CommandLine { length: command_line.len(), limit });
        }
        if kernel.protected_part().is_none() {
            return Err(bad("it is cut off"));
        }
        Ok(kernel)
    }

    fn version(&self) -> u16 {
        read(&self.image, header::VERSION).map(u16::from_le_bytes).unwrap_or_default()
    }

    /// A field of four bytes that is there from protocol `since` on.
    fn dword(&self, at: usize, since: u16) -> Option<u32> {
        (self.version() >= since).then(|| read(&self.image, at).map(u32::from_le_bytes))?
    }

    /// Whether there is a 64-bit entry.
    fn has_long_entry(&self) -> bool {
        let flags = read(&self.image, header::XLOADFLAGS).map(u16::from_le_bytes).unwrap_or_default();
        self.version() >= since::XLOADFLAGS && flags & KERNEL_64 != 0
    }

    /// The part that runs in protected and long mode: what follows the boot sector and the setup sectors.
    fn protected_part(&self) -> Option<&[u8]> {
        let sectors = match self.image.get(header::SETUP_SECTS)? {
            0 => 4,
            n => usize::from(*n),
        };
        self.image.get((sectors + 1) * 512..).filter(|part| part.len() > 0x200)
    }

    /// Where the kernel goes, and how many bytes it takes there until it has found out about memory.
    fn place(&self, length: u64, map: &MemoryMap) -> Result<(u64, u64), LoadError> {
        let preferred = (self.version() >= since::PREF_ADDRESS)
            .then(|| read(&self.image, header::PREF_ADDRESS).map(u64::from_le_bytes))
            .flatten();
        let alignment = u64::from(self.dword(header::KERNEL_ALIGNMENT, since::RELOCATABLE).unwrap_or(0)).max(4096);
        let relocatable = self.version() >= since::RELOCATABLE
            && self.image.get(header::RELOCATABLE_KERNEL).is_some_and(|flag| *flag != 0);
        let size = u64::from(self.dword(header::INIT_SIZE, since::PREF_ADDRESS).unwrap_or(0)).max(length);
        let fits = |at: u64| at.checked_add(size).is_some_and(|end| map.usable_below_4g(at, end));
        let (preferred, lowest) = (preferred.unwrap_or(USUAL_ADDRESS), alignment.max(USUAL_ADDRESS));
        if fits(preferred) {
            Ok((preferred, size))
        } else if relocatable && fits(lowest) {
            Ok((lowest, size))
        } else {
            Err(LoadError::Memory { what: "the kernel", needs: size })
        }
    }

    /// The parts for a loader that starts the kernel by its 16-bit entry, after firmware.
    ///
    /// # Errors
    /// The guest has too little memory for the kernel or the initial RAM disk.
    pub fn offer(&self, map: &MemoryMap) -> Result<Offer, LoadError> {
        let kernel = self.protected_part().unwrap_or_default();
        // Unpacked, it lies where it prefers to be, or above where it is put.
        let start = u64::from(Offer::KERNEL_ADDRESS);
        let (unpacked, size) = self.place(kernel.len() as u64, map)?;
        let end = unpacked.max(start).saturating_add(size);
        if !map.usable_below_4g(start, end) {
            return Err(LoadError::Memory { what: "the kernel", needs: size });
        }
        let mut setup = self.image.get(..self.image.len() - kernel.len()).unwrap_or_default().to_vec();
        let mut tell = |at: usize, bytes: &[u8]| {
            if let Some(field) = setup.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        let mut initrd = None;
        if let Some(disk) = &self.initrd {
            let highest = self.dword(header::INITRD_ADDR_MAX, since::INITRD_ADDR_MAX).unwrap_or(USUAL_INITRD_MAX);
            let limit = (u64::from(highest) + 1).min(map.below_4g().saturating_sub(Offer::KEPT));
            let length = disk.len() as u64;
            let at = map.highest_below(limit, length).filter(|&at| at >= end);
            let at = at.ok_or(LoadError::Memory { what: "the initial RAM disk", needs: length })? as u32;
            tell(header::RAMDISK_IMAGE, &at.to_le_bytes());
            tell(header::RAMDISK_SIZE, &(length as u32).to_le_bytes());
            initrd = Some((at, disk.clone()));
        }
        tell(header::TYPE_OF_LOADER, &[0xff]);
        // Loaded high, and with a heap.
        tell(header::LOADFLAGS, &[LOADED_HIGH | CAN_USE_HEAP]);
        tell(header::HEAP_END_PTR, &Offer::HEAP_END.to_le_bytes());
        tell(header::CMD_LINE_PTR, &Offer::COMMAND_LINE_ADDRESS.to_le_bytes());
        let mut command_line = self.command_line.clone();
        command_line.push(0);
        Ok(Offer { setup, kernel: kernel.to_vec(), command_line, initrd })
    }

    /// Copies everything into guest memory; gives where and how to start.
    ///
    /// # Errors
    /// The guest has too little memory for the kernel or the initial RAM disk.
    pub fn load(&self, memory: &AddressSpace, map: &MemoryMap, root_pointer: u64) -> Result<Entry, LoadError> {
        let part = self.protected_part().unwrap_or_default();
        let (kernel, size) = self.place(part.len() as u64, map)?;
        memory.write(kernel, part);

        let mut page = parameters::page(map, root_pointer);
        let header_end =
            (header::MAGIC + usize::from(self.image.get(header::JUMP_LENGTH).copied().unwrap_or(0))).min(0x290);
        if let Some(header) = self.image.get(header::START..header_end) {
            put(&mut page, header::START, header);
        }
        put(&mut page, header::TYPE_OF_LOADER, &[0xff]);
        // The kernel is loaded high, and what it prints early may be seen.
        put(&mut page, header::LOADFLAGS, &[LOADED_HIGH]);
        put(&mut page, header::CMD_LINE_PTR, &(COMMAND_LINE as u32).to_le_bytes());
        if let Some(initrd) = &self.initrd {
            let highest = self.dword(header::INITRD_ADDR_MAX, since::INITRD_ADDR_MAX).unwrap_or(USUAL_INITRD_MAX);
            let at = map
                .highest_below(u64::from(highest) + 1, initrd.len() as u64)
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
        if self.has_long_entry() {
            return Ok(Entry::Long { rip: kernel + ENTRY_64, rsi: parameters::ADDRESS });
        }
        // boot.rst, "32-bit Boot Protocol". What fits below 4 GiB has an address of 32 bits.
        start::write_protected_descriptors(memory);
        Ok(Entry::Protected { eip: kernel as u32, esi: parameters::ADDRESS as u32 })
    }
}

#[cfg(test)]
mod tests {
    use rhea_core::{Ram, Width, memory::Target};

    use super::*;
    use crate::boot::MemoryMap;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 512 * 2 + 0x1000];
        image[header::SETUP_SECTS] = 1;
        image[header::BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
        image[header::JUMP_LENGTH] = 0x6a;
        image[header::MAGIC..][..4].copy_from_slice(b"HdrS");
        image[header::VERSION..][..2].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[header::LOADFLAGS] = LOADED_HIGH;
        image[header::XLOADFLAGS] = 1;
        image[header::INITRD_ADDR_MAX..][..4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
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
    fn a_kernel_without_a_64_bit_entry_starts_where_it_is_loaded_with_flat_segments() {
        let mut image = image();
        image[header::XLOADFLAGS] = 0;
        let memory = memory(64 << 20);
        let kernel = Kernel::new(image, None, "").unwrap();
        let entry = kernel.load(&memory, &MemoryMap::new(64 << 20, 0, 0), 0).unwrap();
        assert_eq!(entry, Entry::Protected { eip: 0x100_0000, esi: parameters::ADDRESS as u32 });
        // Selectors 0x10 and 0x18: flat 32-bit code and data.
        assert_eq!(memory.read_value(start::GDT + 0x10, Width::Qword), 0x00cf_9b00_0000_ffff);
        assert_eq!(memory.read_value(start::GDT + 0x18, Width::Qword), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn an_old_kernel_goes_where_all_went_and_its_newer_fields_are_not_read() {
        let mut image = image();
        image[header::VERSION..][..2].copy_from_slice(&0x202_u16.to_le_bytes());
        image[header::INITRD_ADDR_MAX..][..4].fill(0);
        image[header::CMDLINE_SIZE..][..4].fill(0);
        let memory = memory(64 << 20);
        assert!(matches!(
            Kernel::new(image.clone(), None, &"x".repeat(256)),
            Err(LoadError::CommandLine { limit: 255, .. })
        ));
        let kernel = Kernel::new(image.clone(), Some(vec![7; 5000]), "root=/dev/ram0").unwrap();
        let entry = kernel.load(&memory, &MemoryMap::new(64 << 20, 0, 0), 0).unwrap();
        assert_eq!(entry, Entry::Protected { eip: 0x10_0000, esi: parameters::ADDRESS as u32 });
        image[header::VERSION] = 1;
        assert!(matches!(Kernel::new(image.clone(), None, ""), Err(LoadError::Kernel(_))));
        image[header::VERSION] = 2;
        image[header::LOADFLAGS] = 0;
        assert!(matches!(Kernel::new(image, None, ""), Err(LoadError::Kernel(_))));
    }

    #[test]
    fn a_ram_disk_ends_where_the_kernel_wants_it() {
        let mut image = image();
        image[header::INITRD_ADDR_MAX..][..4].copy_from_slice(&0x01ff_ffff_u32.to_le_bytes());
        let memory = memory(64 << 20);
        let kernel = Kernel::new(image, Some(vec![7; 0x1000]), "").unwrap();
        kernel.load(&memory, &MemoryMap::new(64 << 20, 0, 0), 0).unwrap();
        let at = memory.read_value(parameters::ADDRESS + header::RAMDISK_IMAGE as u64, Width::Dword);
        assert_eq!(at, 0x01ff_f000);
    }

    #[test]
    fn the_parts_for_a_16_bit_start_tell_of_each_other() {
        let disk = vec![7; 5000];
        let kernel = Kernel::new(image(), Some(disk.clone()), "quiet").unwrap();
        let map = MemoryMap::new(64 << 20, 0, 0);
        let offer = kernel.offer(&map).unwrap();
        assert_eq!((offer.setup.len(), offer.kernel.len()), (1024, 0x1000));
        assert_eq!(offer.command_line, b"quiet\0");
        let word = |at: usize| u32::from_le_bytes(offer.setup[at..at + 4].try_into().unwrap());
        let (at, contents) = offer.initrd.clone().unwrap();
        assert_eq!((contents, word(header::RAMDISK_IMAGE), word(header::RAMDISK_SIZE)), (disk, at, 5000));
        // Above the kernel where it unpacks itself, and below what firmware keeps.
        assert!(at >= 0x110_0000 && u64::from(at) + 5000 <= (63 << 20), "{at:#x}");
        assert_eq!(word(header::CMD_LINE_PTR), Offer::COMMAND_LINE_ADDRESS);
        assert_eq!(offer.setup[header::LOADFLAGS], LOADED_HIGH | CAN_USE_HEAP);
        assert!(matches!(kernel.offer(&MemoryMap::new(16 << 20, 0, 0)), Err(LoadError::Memory { .. })));
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
