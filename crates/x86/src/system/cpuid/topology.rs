//! How processors are numbered, and how CPUID tells of it: threads in cores in packages.
//!
//! Sources: Intel SDM vol. 3A § 9.9 (numbering), vol. 2A CPUID leaves 1, 4, 0BH and 1FH; AMD APM vol. 3 appendix E.4,
//! leaves 8000_0008H, 8000_001DH and 8000_001EH.

use super::{CpuidTable, EXTENDED, Leaf, features::Feature};

/// What a package holds. The identifications of its processors have a field each for core and thread, wide enough for a
/// power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    cores: u32,
    threads: u32,
}

/// Where a processor sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The package.
    pub package: u32,
    /// The core in it.
    pub core: u32,
    /// The thread of that.
    pub thread: u32,
}

/// Bits that tell `count` things apart.
const fn bits(count: u32) -> u32 {
    u32::BITS - (count - 1).leading_zeros()
}

impl Package {
    /// The most that is told apart of either.
    const MOST: u32 = 1 << 12;

    /// A package of `cores` with `threads` each; at least one of both.
    pub const fn new(cores: u32, threads: u32) -> Self {
        const fn within(count: u32) -> u32 {
            if count == 0 {
                1
            } else if count > Package::MOST {
                Package::MOST
            } else {
                count
            }
        }
        Self { cores: within(cores), threads: within(threads) }
    }

    /// Processors in it.
    pub const fn processors(self) -> u32 {
        self.cores * self.threads
    }

    const fn thread_bits(self) -> u32 {
        bits(self.threads)
    }

    /// Bits of an identification below the package's number.
    const fn bits(self) -> u32 {
        bits(self.threads) + bits(self.cores)
    }

    /// The identification of the processor at `seat`; `None` if there is no such core or thread, or if it has more than
    /// 32 bits.
    pub fn apic_id(self, seat: Seat) -> Option<u32> {
        if seat.core >= self.cores || seat.thread >= self.threads {
            return None;
        }
        let package = u32::try_from(u64::from(seat.package) << self.bits()).ok()?;
        Some(package | seat.core << self.thread_bits() | seat.thread)
    }

    /// Where an identification belongs, whether or not there is such a core or thread.
    pub const fn seat(self, apic_id: u32) -> Seat {
        Seat {
            package: apic_id >> self.bits(),
            core: mask(apic_id >> self.thread_bits(), bits(self.cores)),
            thread: mask(apic_id, self.thread_bits()),
        }
    }
}

const fn mask(value: u32, bits: u32) -> u32 {
    value & ((1 << bits) - 1)
}

impl CpuidTable {
    /// Says everywhere which processor of which package this is.
    pub(super) fn place(&mut self, apic_id: u8, package: Package) {
        let id = u32::from(apic_id);
        let processors = package.processors();
        // Leaf 1 counts to 255 only.
        let count = processors.min(255);
        let first = self.get(1, 0);
        self.set(1, 0, Leaf { ebx: first.ebx & 0xffff | id << 24 | count << 16, ..first });
        self.set_feature(Feature::HTT, processors > 1);
        self.share_caches(package);
        self.list_levels(id, package);

        if self.is_amd() {
            self.set_feature(Feature::CMP_LEGACY, processors > 1);
            // ECX: processors less one, and the bits that tell them apart.
            let sizes = self.get(EXTENDED | 8, 0);
            let ecx = if processors > 1 { package.bits() << 12 | (count - 1) } else { 0 };
            self.set(EXTENDED | 8, 0, Leaf { ecx, ..sizes });
        }
        if self.has(Feature::TOPOEXT) {
            // EBX: threads of a core less one, and the core. ECX: the node, one a package.
            let seat = package.seat(id);
            let ebx = (package.threads - 1) << 8 | seat.core & 0xff;
            self.set(EXTENDED | 0x1e, 0, Leaf { eax: id, ebx, ecx: seat.package & 0xff, edx: 0 });
        }
    }

    /// Leaf 4, and AMD's of the same shape: first and second level caches are a core's, the third is the package's.
    fn share_caches(&mut self, package: Package) {
        for function in [4, EXTENDED | 0x1d] {
            for index in 0..8 {
                let leaf = self.get(function, index);
                // EAX: type in bits 4:0, none ends the list; level in bits 7:5; identifications that share the cache
                // less one in bits 25:14. Intel adds those of cores in the package less one in bits 31:26.
                if leaf.eax & 0x1f == 0 {
                    break;
                }
                let sharing = if leaf.eax >> 5 & 7 < 3 { package.thread_bits() } else { package.bits() };
                let sharing = (1 << sharing.min(12)) - 1;
                let cores = if function == 4 { ((1_u32 << bits(package.cores).min(6)) - 1) << 26 } else { 0 };
                self.set(function, index, Leaf { eax: leaf.eax & 0x3fff | sharing << 14 | cores, ..leaf });
            }
        }
    }

    /// Leaf 0BH: the levels, each with the bits of the identification that are below it, and the processors in it.
    fn list_levels(&mut self, id: u32, package: Package) {
        const THREADS: u32 = 1 << 8;
        const CORES: u32 = 2 << 8;
        let levels = [(package.thread_bits(), package.threads, THREADS), (package.bits(), package.processors(), CORES)];
        for (index, (shift, processors, kind)) in (0..).zip(levels) {
            self.set(0xb, index, Leaf { eax: shift, ebx: processors, ecx: kind | index, edx: id });
        }
    }

    /// An index above the last that a leaf has: no cache, no level, nothing; leaf 0BH still says who asks.
    pub(super) fn beyond(&self, function: u32, index: u32) -> Leaf {
        match function {
            0xb | 0x1f => Leaf { ecx: index & 0xff, edx: self.get(function, 0).edx, ..Leaf::default() },
            _ => Leaf::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::system::cpuid::{CpuModel, Topology};

    fn table(apic_id: u8, cores: u32, threads: u32) -> CpuidTable {
        let package = Package::new(cores, threads);
        CpuModel::default().table(Topology { apic_id, package, tsc_khz: 1, apic_khz: 1 })
    }

    #[test]
    fn cores_are_told_where_amd_tells_them() {
        let one = table(1, 1, 1);
        assert!(!one.has(Feature::HTT) && !one.has(Feature::CMP_LEGACY));
        assert_eq!(one.get(EXTENDED | 8, 0).ecx, 0);
        let four = table(1, 4, 1);
        assert!(four.has(Feature::HTT) && four.has(Feature::CMP_LEGACY));
        assert_eq!(four.get(1, 0).ebx >> 16, 0x0104);
        assert_eq!(four.get(EXTENDED | 8, 0).ecx, 0x2003);
        assert_eq!(table(0, 3, 2).get(EXTENDED | 8, 0).ecx, 0x3005);
        assert_eq!(table(0, 200, 2).get(1, 0).ebx >> 16 & 0xff, 255);
    }

    #[test]
    fn levels_are_told_in_leaf_11() {
        let table = table(0b10_1101, 5, 2);
        let leaves = [0, 1, 2, 300].map(|index| table.get(0xb, index));
        assert_eq!(leaves.map(|leaf| leaf.edx), [0b10_1101; 4]);
        assert_eq!(leaves.map(|leaf| (leaf.eax, leaf.ebx)), [(1, 2), (4, 10), (0, 0), (0, 0)]);
        assert_eq!(leaves.map(|leaf| leaf.ecx), [0x100, 0x201, 2, 300 & 0xff]);
    }

    #[test]
    fn caches_are_shared_by_a_core_or_a_package() {
        let mut table = table(0, 4, 2);
        for (index, level) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            table.set(4, index, Leaf { eax: level << 5 | 1, ..Leaf::default() });
        }
        table.place(0, Package::new(4, 2));
        let shared = [0, 1, 2, 3, 4].map(|index| table.get(4, index).eax >> 14);
        assert_eq!(shared, [0x3001, 0x3001, 0x3001, 0x3007, 0]);
    }

    proptest! {
        #[test]
        fn identifications_lead_back_to_their_seats(
            cores in 1u32..300, threads in 1u32..20, package in 0u32..1000, core in 0u32..300, thread in 0u32..20,
        ) {
            let seat = Seat { package, core, thread };
            let layout = Package::new(cores, threads);
            match layout.apic_id(seat) {
                Some(id) => prop_assert_eq!(layout.seat(id), seat),
                None => prop_assert!(core >= cores || thread >= threads),
            }
        }

        #[test]
        fn next_numbers_are_larger_ones(cores in 1u32..40, threads in 1u32..10) {
            let layout = Package::new(cores, threads);
            let seats = (0..2).flat_map(|package| {
                (0..cores).flat_map(move |core| (0..threads).map(move |thread| Seat { package, core, thread }))
            });
            let ids: Vec<u32> = seats.map(|seat| layout.apic_id(seat).unwrap()).collect();
            prop_assert!(ids.is_sorted_by(|a, b| a < b));
        }
    }
}
