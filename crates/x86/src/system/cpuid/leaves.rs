//! From a model to its leaves: what CPUID answers on such a processor at a place of the machine.

use super::{
    CpuModel, CpuidTable, EXTENDED, HYPERVISOR, Leaf, Topology, components,
    features::{Feature, Source, WORDS},
    models::Caches,
};

/// Bits of leaf 1's EDX that AMD's leaf 8000_0001H repeats.
const REPEATED: u32 = 0x0183_f3ff;

/// Leaf 5: MONITOR watches a line; MWAIT has extensions, among them that interrupts end it although they are masked; one
/// kind each of the states C0 and C1.
const MONITOR: Leaf = Leaf { eax: LINE, ebx: LINE, ecx: 3, edx: 0x11 };

/// One cache, as CPUID tells of it.
#[derive(Clone, Copy)]
struct Cache {
    level: u32,
    /// 1 for data, 2 for instructions, 3 for both.
    kind: u32,
    kib: u32,
    ways: u32,
}

/// Bytes of a line of each cache.
const LINE: u32 = 64;

impl Cache {
    const fn new(level: u32, kind: u32, kib: u32, ways: u32) -> Self {
        Self { level, kind, kib, ways }
    }

    /// As leaf 4 and AMD's 8000_001DH tell of it; who shares it is added later.
    fn leaf(self) -> Leaf {
        let sets = self.kib * 1024 / (self.ways * LINE);
        // EAX bit 8: it needs no initialization.
        Leaf {
            eax: 1 << 8 | self.level << 5 | self.kind,
            ebx: (self.ways - 1) << 22 | (LINE - 1),
            ecx: sets - 1,
            edx: 0,
        }
    }

    /// As AMD's leaf 8000_0005H tells of the first level.
    fn first_level(self) -> u32 {
        self.kib << 24 | self.ways << 16 | 1 << 8 | LINE
    }

    /// As AMD's leaf 8000_0006H tells of it, with the size in units of `unit` KiB at bit `shift`.
    fn upper_level(self, unit: u32, shift: u32) -> u32 {
        // APM vol. 3 E.4.4: how many ways, in four bits.
        let ways = match self.ways {
            8 => 6,
            16 => 8,
            ways => ways,
        };
        (self.kib / unit) << shift | ways << 12 | 1 << 8 | LINE
    }
}

/// Data and instructions of the first level, second level, third level.
fn caches(model: &CpuModel, amd: bool) -> [Cache; 4] {
    match (model.caches(), amd) {
        (Caches::Zen, _) => {
            [Cache::new(1, 1, 32, 8), Cache::new(1, 2, 64, 4), Cache::new(2, 3, 512, 8), Cache::new(3, 3, 8192, 16)]
        }
        (Caches::Usual, true) => {
            [Cache::new(1, 1, 64, 2), Cache::new(1, 2, 64, 2), Cache::new(2, 3, 512, 16), Cache::new(3, 3, 16384, 16)]
        }
        (Caches::Usual, false) => {
            [Cache::new(1, 1, 32, 8), Cache::new(1, 2, 32, 8), Cache::new(2, 3, 4096, 16), Cache::new(3, 3, 16384, 16)]
        }
    }
}

impl CpuModel {
    /// What CPUID answers on a processor of this model.
    pub fn table(&self, topology: Topology) -> CpuidTable {
        let mut table = CpuidTable::default();
        let (level, extended) = (self.level(), self.extended_level());
        let signature = self.signature();
        let vendor = self.identity.vendor.as_bytes();
        table.set(0, 0, first(level, vendor));
        // EBX: a cache line is 8 units of 8 bytes.
        table.set(1, 0, Leaf { eax: signature, ebx: 8 << 8, ..Leaf::default() });
        table.set(EXTENDED, 0, first(extended, vendor));
        table.set(EXTENDED | 1, 0, Leaf { eax: signature, ..Leaf::default() });
        for (i, part) in name(self.identity.model_id.as_bytes()).into_iter().enumerate() {
            table.set(EXTENDED | (2 + i as u32), 0, part);
        }
        table.set(EXTENDED | 8, 0, Leaf { eax: self.linear_bits() << 8 | self.physical_bits(), ..Leaf::default() });
        self.offer_features(&mut table);
        self.describe_caches(&mut table);
        if table.has(Feature::MONITOR) {
            table.set(5, 0, MONITOR);
        }
        if self.flag("tcg-cpuid") {
            table.set(HYPERVISOR, 0, hypervisor(HYPERVISOR | 0x10, *b"RheaRheaRhea"));
            let clocks = Leaf { eax: topology.tsc_khz, ebx: topology.apic_khz, ..Leaf::default() };
            table.set(HYPERVISOR | 0x10, 0, clocks);
        }
        components::describe(&mut table);
        table.place(topology.apic_id, topology.package);
        if !self.flag("cpuid-0xb") {
            table.forget(0xb);
        }
        table.end_at(level, extended);
        table
    }

    /// Leaf 1's EAX: the fields of family and model, and what is beyond them.
    fn signature(&self) -> u32 {
        let identity = &self.identity;
        let (base, beyond) =
            if identity.family < 15 { (identity.family, 0) } else { (15, (identity.family - 15) & 0xff) };
        beyond << 20
            | (identity.model >> 4 & 15) << 16
            | base << 8
            | (identity.model & 15) << 4
            | identity.stepping & 15
    }

    fn linear_bits(&self) -> u32 {
        match (self.is_64_bit(), self.available().has(Feature::LA57)) {
            (false, _) => 32,
            (true, false) => 48,
            (true, true) => 57,
        }
    }

    fn offer_features(&self, table: &mut CpuidTable) {
        let available = self.available();
        for feature in available.iter() {
            table.set_feature(feature, true);
        }
        // The counter never changes its rate, and guests are told so unless somebody chose otherwise. Managers see only
        // what was chosen: to them it means that the guest must not move to another host.
        let hidden = self.chosen.has(Feature::INVTSC) && !available.has(Feature::INVTSC);
        table.set_feature(Feature::INVTSC, available.has(Feature::TSC) && !hidden);
        if table.is_amd() {
            let (repeated, own) = (table.get(1, 0).edx & REPEATED, table.get(EXTENDED | 1, 0));
            table.set(EXTENDED | 1, 0, Leaf { edx: own.edx | repeated, ..own });
        }
        // Leaf 7 tells its last sub-leaf.
        let last = WORDS.iter().filter_map(|word| match word.source {
            Source::Cpuid { function: 7, index, .. } if table.word(word.source) != 0 => index,
            _ => None,
        });
        let last = match self.number("level-func7") as u32 {
            u32::MAX => last.max().unwrap_or(0),
            fixed => fixed,
        };
        table.set(7, 0, Leaf { eax: last, ..table.get(7, 0) });
    }

    fn describe_caches(&self, table: &mut CpuidTable) {
        let amd = table.is_amd();
        let third = self.flag("l3-cache");
        let all = caches(self, amd);
        let [data, instructions, second, last] = all;
        let leaves = || (0..).zip(all.into_iter().take(if third { 4 } else { 3 }));
        let own = if third { last.upper_level(512, 18) } else { 0 };
        if amd {
            // TLBs of 255 entries, and of 512 in four ways.
            let tlb = 0x01ff_01ff;
            let (ecx, edx) = (data.first_level(), instructions.first_level());
            table.set(EXTENDED | 5, 0, Leaf { eax: tlb, ebx: tlb, ecx, edx });
            let ecx = second.upper_level(1, 16);
            table.set(EXTENDED | 6, 0, Leaf { eax: 0, ebx: 0x4200_4200, ecx, edx: own });
            if table.has(Feature::TOPOEXT) {
                for (index, cache) in leaves() {
                    table.set(EXTENDED | 0x1d, index, cache.leaf());
                }
            }
        } else {
            // SDM vol. 2 table 3-12: data 32 KiB, instructions 32 KiB, second level 2 MiB, third level 16 MiB.
            let ecx = if third { 0x4d } else { 0 };
            table.set(2, 0, Leaf { eax: 1, ebx: 0, ecx, edx: 0x2c_307d });
            for (index, cache) in leaves() {
                table.set(4, index, cache.leaf());
            }
            table.set(EXTENDED | 6, 0, Leaf { ecx: second.upper_level(1, 16) & !0xf00, ..Leaf::default() });
        }
    }
}

/// A range's first leaf: its last function, and a vendor in EBX, EDX, ECX.
fn first(last: u32, vendor: &[u8]) -> Leaf {
    let mut text = [0; 12];
    for (to, from) in text.iter_mut().zip(vendor) {
        *to = *from;
    }
    Leaf { eax: last, ebx: quarter(&text, 0), edx: quarter(&text, 1), ecx: quarter(&text, 2) }
}

/// The hypervisor's first leaf has its signature in EBX, ECX, EDX.
fn hypervisor(last: u32, text: [u8; 12]) -> Leaf {
    Leaf { eax: last, ebx: quarter(&text, 0), ecx: quarter(&text, 1), edx: quarter(&text, 2) }
}

fn quarter(text: &[u8; 12], number: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&text[4 * number..4 * number + 4]);
    u32::from_le_bytes(bytes)
}

/// The three leaves of a processor's name.
fn name(text: &[u8]) -> [Leaf; 3] {
    let mut words = [0_u32; 12];
    for (i, &byte) in text.iter().take(48).enumerate() {
        words[i / 4] |= u32::from(byte) << (8 * (i % 4));
    }
    [0, 4, 8].map(|i| Leaf { eax: words[i], ebx: words[i + 1], ecx: words[i + 2], edx: words[i + 3] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::cpuid::Package;

    fn place(cores: u32) -> Topology {
        Topology { apic_id: 1, package: Package::new(cores, 1), tsc_khz: 2_000_000, apic_khz: 1_000_000 }
    }

    fn table(name: &str) -> CpuidTable {
        CpuModel::named(name).unwrap().table(place(1))
    }

    fn feature(name: &str) -> Feature {
        Feature::named(name).unwrap()
    }

    #[test]
    fn qemu64_has_the_names_that_guests_know() {
        let table = table("qemu64");
        assert_eq!(table.vendor(), "AuthenticAMD");
        assert_eq!(table.get(1, 0).eax, 0x0006_0fb1);
        assert_eq!(table.model_id(), "QEMU Virtual CPU version 2.5+");
        let first = table.get(HYPERVISOR, 0);
        assert_eq!([first.ebx, first.ecx, first.edx].map(u32::to_le_bytes), [*b"Rhea"; 3]);
        assert_eq!((table.get(0, 0).eax, table.get(EXTENDED, 0).eax), (0xd, EXTENDED | 0xa));
        assert_eq!(table.physical_bits(), 40);
    }

    #[test]
    fn what_a_64_bit_kernel_requires_is_offered_by_all_that_have_64_bits() {
        // Linux: required-features.h of x86-64.
        let required = "fpu pse msr pae cx8 pge cmov fxsr sse sse2 lm nx";
        for name in CpuModel::names() {
            let (model, table) = (CpuModel::named(name).unwrap(), table(name));
            let fit = required.split(' ').all(|name| table.has(feature(name)));
            assert_eq!(fit, model.is_64_bit(), "{name}");
        }
        let table = table("qemu64");
        assert_eq!(table.get(EXTENDED | 1, 0).edx & REPEATED, table.get(1, 0).edx & REPEATED);
    }

    #[test]
    fn no_model_tells_of_what_the_engine_lacks() {
        for name in CpuModel::names() {
            let (model, table) = (CpuModel::named(name).unwrap(), table(name));
            for feature in Feature::all().filter(|&feature| !model.available().has(feature)) {
                let own = [Feature::INVTSC, Feature::HTT, Feature::CMP_LEGACY].contains(&feature);
                assert!(own || !table.has(feature), "{name} has {feature}");
            }
        }
    }

    #[test]
    fn intel_and_amd_tell_of_caches_in_their_own_ways() {
        let (intel, amd, zen) = (table("Nehalem"), table("Opteron_G3"), table("EPYC"));
        let sizes = |table: &CpuidTable, function: u32| {
            let size = |leaf: Leaf| (leaf.ebx >> 22) + 1;
            (0..5)
                .map(|i| table.get(function, i))
                .take_while(|leaf| leaf.eax & 31 != 0)
                .map(|leaf| size(leaf) * (leaf.ecx + 1) / 16)
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&intel, 4), [32, 32, 4096, 16384]);
        assert_eq!(sizes(&amd, 4), [0_u32; 0]);
        assert_eq!(sizes(&zen, EXTENDED | 0x1d), [32, 64, 512, 8192]);
        assert_eq!(amd.get(EXTENDED | 6, 0).ecx >> 16, 512);
        let mut model = CpuModel::named("Nehalem").unwrap();
        model.set_word("l3-cache", "off").unwrap();
        assert_eq!(sizes(&model.table(place(1)), 4), [32, 32, 4096]);
    }

    #[test]
    fn what_is_set_is_what_the_guest_sees() {
        let mut model = CpuModel::default();
        for (name, word) in [
            ("vendor", "GenuineIntel"),
            ("family", "6"),
            ("model", "0x5e"),
            ("stepping", "3"),
            ("model-id", "Some processor of 48 bytes, which is the longest"),
            ("hypervisor", "off"),
            ("tcg-cpuid", "off"),
            ("phys-bits", "46"),
            ("cpuid-0xb", "off"),
            ("smep", "on"),
            ("cx16", "off"),
        ] {
            model.set_word(name, word).unwrap();
        }
        let table = model.table(place(2));
        assert_eq!((table.vendor().as_str(), table.get(1, 0).eax), ("GenuineIntel", 0x506e3));
        assert_eq!(table.model_id().len(), 48);
        assert!(!table.has(Feature::HYPERVISOR) && table.has(Feature::SMEP) && !table.has(feature("cx16")));
        assert_eq!(
            (table.physical_bits(), table.get(HYPERVISOR, 0), table.get(0xb, 0)),
            (46, Leaf::default(), Leaf::default())
        );
    }

    #[test]
    fn nothing_is_beyond_the_last_leaf() {
        let small = table("486");
        assert_eq!((small.get(0, 0).eax, small.get(EXTENDED, 0)), (1, Leaf::default()));
        assert!(small.leaves().iter().all(|(function, ..)| *function <= 1 || function >> 28 == 4));
        let mut model = CpuModel::named("Nehalem").unwrap();
        model.set_word("level", "2").unwrap();
        let table = model.table(place(1));
        assert_eq!((table.get(2, 0).eax, table.get(4, 0), table.get(4, 1)), (1, Leaf::default(), Leaf::default()));
        model.set_word("level", "0xffffffff").unwrap();
        model.set_word("xlevel", "0x80000004").unwrap();
        let table = model.table(place(1));
        assert_eq!((table.get(EXTENDED, 0).eax, table.get(EXTENDED | 8, 0)), (EXTENDED | 4, Leaf::default()));
    }

    #[test]
    fn the_steady_counter_is_told_of_unless_switched_off() {
        let mut model = CpuModel::default();
        assert!(model.table(place(1)).has(Feature::INVTSC) && model.get("invtsc") == Some(false.into()));
        model.set_word("invtsc", "off").unwrap();
        assert!(!model.table(place(1)).has(Feature::INVTSC));
        model.set_word("invtsc", "on").unwrap();
        assert!(model.table(place(1)).has(Feature::INVTSC) && model.unavailable().is_empty());
    }
}
