//! CPUID as the guest sees it, and the processor models that it describes. SDM vol. 2 CPUID, APM vol. 3 appendix D and E.
//!
//! The time stamp counter's frequency: Linux believes CPUID 15H and 16H of Intel's processors only, and of the
//! hypervisors' leaves only those of vendors whose signature it knows, none of which is ours to use. It measures the
//! counter against the interval timer, the HPET or the ACPI timer instead. Leaf 4000_0010H is there for those who read
//! it whatever the signature.

mod topology;

pub use topology::{Package, Seat};

/// The four registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// Leaves kept in each of the three ranges.
const RANGE: usize = 0x21;
/// First of the hypervisor's leaves.
pub const HYPERVISOR: u32 = 0x4000_0000;
/// Leaves that look at the index in ECX; an index that such a leaf does not have is not index 0.
const INDEXED: [u32; 8] = [4, 7, 0xb, 0xd, 0xf, 0x14, 0x1f, EXTENDED | 0x1d];
/// First of the extended leaves.
pub const EXTENDED: u32 = 0x8000_0000;

/// A feature: the bit by which CPUID tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Leaf 1, EDX.
    Edx(u8),
    /// Leaf 1, ECX.
    Ecx(u8),
    /// Leaf 7, EBX.
    Structured(u8),
    /// Leaf 7, ECX.
    StructuredEcx(u8),
    /// Leaf 8000_0001H, EDX.
    ExtendedEdx(u8),
    /// Leaf 8000_0001H, ECX.
    ExtendedEcx(u8),
}

impl Feature {
    #![allow(missing_docs, reason = "the features' own names")]
    pub const FPU: Self = Self::Edx(0);
    pub const VME: Self = Self::Edx(1);
    pub const DE: Self = Self::Edx(2);
    pub const PSE: Self = Self::Edx(3);
    pub const TSC: Self = Self::Edx(4);
    pub const MSR: Self = Self::Edx(5);
    pub const PAE: Self = Self::Edx(6);
    pub const MCE: Self = Self::Edx(7);
    pub const CX8: Self = Self::Edx(8);
    pub const APIC: Self = Self::Edx(9);
    pub const SEP: Self = Self::Edx(11);
    pub const MTRR: Self = Self::Edx(12);
    pub const PGE: Self = Self::Edx(13);
    pub const MCA: Self = Self::Edx(14);
    pub const CMOV: Self = Self::Edx(15);
    pub const PAT: Self = Self::Edx(16);
    pub const PSE36: Self = Self::Edx(17);
    pub const CLFLUSH: Self = Self::Edx(19);
    pub const MMX: Self = Self::Edx(23);
    pub const FXSR: Self = Self::Edx(24);
    pub const SSE: Self = Self::Edx(25);
    pub const SSE2: Self = Self::Edx(26);
    pub const HTT: Self = Self::Edx(28);
    pub const SSE3: Self = Self::Ecx(0);
    pub const CX16: Self = Self::Ecx(13);
    pub const PCID: Self = Self::Ecx(17);
    pub const X2APIC: Self = Self::Ecx(21);
    pub const POPCNT: Self = Self::Ecx(23);
    pub const TSC_DEADLINE: Self = Self::Ecx(24);
    pub const HYPERVISOR: Self = Self::Ecx(31);
    pub const FSGSBASE: Self = Self::Structured(0);
    pub const SMEP: Self = Self::Structured(7);
    pub const UMIP: Self = Self::StructuredEcx(2);
    pub const SYSCALL: Self = Self::ExtendedEdx(11);
    pub const NX: Self = Self::ExtendedEdx(20);
    pub const FFXSR: Self = Self::ExtendedEdx(25);
    pub const RDTSCP: Self = Self::ExtendedEdx(27);
    pub const LM: Self = Self::ExtendedEdx(29);
    pub const LAHF_LM: Self = Self::ExtendedEcx(0);
    pub const CMP_LEGACY: Self = Self::ExtendedEcx(1);
    pub const TOPOEXT: Self = Self::ExtendedEcx(22);

    /// The features by the names that managers know.
    pub const NAMED: [(&'static str, Self); 43] = [
        ("fpu", Self::FPU),
        ("vme", Self::VME),
        ("de", Self::DE),
        ("pse", Self::PSE),
        ("tsc", Self::TSC),
        ("msr", Self::MSR),
        ("pae", Self::PAE),
        ("mce", Self::MCE),
        ("cx8", Self::CX8),
        ("apic", Self::APIC),
        ("sep", Self::SEP),
        ("mtrr", Self::MTRR),
        ("pge", Self::PGE),
        ("mca", Self::MCA),
        ("cmov", Self::CMOV),
        ("pat", Self::PAT),
        ("pse36", Self::PSE36),
        ("clflush", Self::CLFLUSH),
        ("mmx", Self::MMX),
        ("fxsr", Self::FXSR),
        ("sse", Self::SSE),
        ("sse2", Self::SSE2),
        ("ht", Self::HTT),
        ("sse3", Self::SSE3),
        ("cx16", Self::CX16),
        ("pcid", Self::PCID),
        ("x2apic", Self::X2APIC),
        ("popcnt", Self::POPCNT),
        ("tsc-deadline", Self::TSC_DEADLINE),
        ("hypervisor", Self::HYPERVISOR),
        ("fsgsbase", Self::FSGSBASE),
        ("smep", Self::SMEP),
        ("umip", Self::UMIP),
        ("syscall", Self::SYSCALL),
        ("nx", Self::NX),
        ("fxsr-opt", Self::FFXSR),
        ("rdtscp", Self::RDTSCP),
        ("lm", Self::LM),
        ("lahf-lm", Self::LAHF_LM),
        ("cmp-legacy", Self::CMP_LEGACY),
        ("xsave", Self::Ecx(26)),
        ("avx", Self::Ecx(28)),
        ("avx2", Self::Structured(5)),
    ];
}

/// Where a processor is in the machine, and how fast its clocks are, as its CPUID tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The local APIC's identification.
    pub apic_id: u8,
    /// The package that it is in.
    pub package: Package,
    /// Frequency of the time stamp counter.
    pub tsc_khz: u32,
    /// Frequency of the local APIC's timer before its divider.
    pub apic_khz: u32,
}

/// Leaves by function and index.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    basic: [Leaf; RANGE],
    hypervisor: [Leaf; RANGE],
    extended: [Leaf; RANGE],
    /// Leaves of an index above zero: function, index, leaf.
    indexed: Vec<(u32, u32, Leaf)>,
}

impl Default for CpuidTable {
    fn default() -> Self {
        let empty = [Leaf::default(); RANGE];
        Self { basic: empty, hypervisor: empty, extended: empty, indexed: Vec::new() }
    }
}

impl CpuidTable {
    /// What CPUID returns for `function` and `index`; zeros for what there is not.
    pub fn get(&self, function: u32, index: u32) -> Leaf {
        if index != 0 {
            if let Some((.., leaf)) = self.indexed.iter().find(|entry| (entry.0, entry.1) == (function, index)) {
                return *leaf;
            }
            if INDEXED.contains(&function) {
                return self.beyond(function, index);
            }
        }
        let range = match function & 0xf000_0000 {
            0 => &self.basic,
            HYPERVISOR => &self.hypervisor,
            EXTENDED => &self.extended,
            _ => return Leaf::default(),
        };
        range.get((function & 0x0fff_ffff) as usize).copied().unwrap_or_default()
    }

    /// Sets a leaf. Those beyond 20H of a range are out of reach.
    pub fn set(&mut self, function: u32, index: u32, leaf: Leaf) {
        if index != 0 {
            self.indexed.retain(|entry| (entry.0, entry.1) != (function, index));
            self.indexed.push((function, index, leaf));
            return;
        }
        let range = match function & 0xf000_0000 {
            0 => &mut self.basic,
            HYPERVISOR => &mut self.hypervisor,
            EXTENDED => &mut self.extended,
            _ => return,
        };
        if let Some(slot) = range.get_mut((function & 0x0fff_ffff) as usize) {
            *slot = leaf;
        }
    }

    fn word(&mut self, feature: Feature) -> (&mut u32, u8) {
        match feature {
            Feature::Edx(bit) => (&mut self.basic[1].edx, bit),
            Feature::Ecx(bit) => (&mut self.basic[1].ecx, bit),
            Feature::Structured(bit) => (&mut self.basic[7].ebx, bit),
            Feature::StructuredEcx(bit) => (&mut self.basic[7].ecx, bit),
            Feature::ExtendedEdx(bit) => (&mut self.extended[1].edx, bit),
            Feature::ExtendedEcx(bit) => (&mut self.extended[1].ecx, bit),
        }
    }

    /// Whether a feature is offered.
    pub fn has(&self, feature: Feature) -> bool {
        let (word, bit) = match feature {
            Feature::Edx(bit) => (self.basic[1].edx, bit),
            Feature::Ecx(bit) => (self.basic[1].ecx, bit),
            Feature::Structured(bit) => (self.basic[7].ebx, bit),
            Feature::StructuredEcx(bit) => (self.basic[7].ecx, bit),
            Feature::ExtendedEdx(bit) => (self.extended[1].edx, bit),
            Feature::ExtendedEcx(bit) => (self.extended[1].ecx, bit),
        };
        word >> (bit & 31) & 1 != 0
    }

    /// Offers a feature, or hides it.
    pub fn set_feature(&mut self, feature: Feature, offered: bool) {
        let (word, bit) = self.word(feature);
        let mask = 1 << (bit & 31);
        *word = *word & !mask | if offered { mask } else { 0 };
    }

    /// Whether the model is AMD's, whose processors differ from Intel's in a few instructions.
    pub fn is_amd(&self) -> bool {
        self.basic[0].ebx == u32::from_le_bytes(*b"Auth")
    }

    /// The model `qemu64`: a processor of AMD's family 15 with what every 64-bit system expects, and a little more.
    pub fn qemu64(topology: Topology) -> Self {
        let mut table = Self::default();
        let signature = signature(15, 107, 1);

        table.set(0, 0, vendor(0xd, *b"AuthenticAMD"));
        // EBX: a cache line is 8 units of 8 bytes.
        table.set(1, 0, Leaf { eax: signature, ebx: 8 << 8, ..Leaf::default() });
        table.set(EXTENDED, 0, vendor(EXTENDED | 8, *b"AuthenticAMD"));
        table.set(EXTENDED | 1, 0, Leaf { eax: signature, ..Leaf::default() });
        for feature in QEMU64 {
            table.set_feature(feature, true);
            // AMD's extended leaf repeats most of leaf 1's EDX.
            if let Feature::Edx(bit) = feature
                && 0x0183_f3ff >> bit & 1 != 0
            {
                table.set_feature(Feature::ExtendedEdx(bit), true);
            }
        }

        for (i, part) in name(b"QEMU Virtual CPU version 2.5+").into_iter().enumerate() {
            table.set(EXTENDED | (2 + i as u32), 0, part);
        }
        // First-level TLBs of 255 entries; caches of 64 KiB, two ways, 64-byte lines.
        let (tlb, cache) = (0x01ff_01ff, 64 << 24 | 2 << 16 | 1 << 8 | 64);
        table.set(EXTENDED | 5, 0, Leaf { eax: tlb, ebx: tlb, ecx: cache, edx: cache });
        // Second-level TLBs of 512 entries, four ways; a cache of 512 KiB, 16 ways, 64-byte lines.
        let second = 512 << 16 | 8 << 12 | 1 << 8 | 64;
        table.set(EXTENDED | 6, 0, Leaf { ebx: 0x4200_4200, ecx: second, ..Leaf::default() });
        // The time stamp counter's rate never changes.
        table.set(EXTENDED | 7, 0, Leaf { edx: 1 << 8, ..Leaf::default() });
        // 40 physical and 48 linear address bits.
        table.set(EXTENDED | 8, 0, Leaf { eax: 48 << 8 | 40, ..Leaf::default() });

        table.set(HYPERVISOR, 0, hypervisor(HYPERVISOR | 0x10, *b"RheaRheaRhea"));
        let clocks = Leaf { eax: topology.tsc_khz, ebx: topology.apic_khz, ..Leaf::default() };
        table.set(HYPERVISOR | 0x10, 0, clocks);
        table.place(topology.apic_id, topology.package);
        table
    }
}

/// The features of `qemu64`.
const QEMU64: [Feature; 29] = [
    Feature::FPU,
    Feature::DE,
    Feature::PSE,
    Feature::TSC,
    Feature::MSR,
    Feature::PAE,
    Feature::MCE,
    Feature::CX8,
    Feature::APIC,
    Feature::SEP,
    Feature::MTRR,
    Feature::PGE,
    Feature::MCA,
    Feature::CMOV,
    Feature::PAT,
    Feature::PSE36,
    Feature::CLFLUSH,
    Feature::MMX,
    Feature::FXSR,
    Feature::SSE,
    Feature::SSE2,
    Feature::SSE3,
    Feature::CX16,
    Feature::POPCNT,
    Feature::HYPERVISOR,
    Feature::SYSCALL,
    Feature::NX,
    Feature::LM,
    Feature::LAHF_LM,
];

/// Leaf 1's EAX for a family, model and stepping.
fn signature(family: u32, model: u32, stepping: u32) -> u32 {
    let (base, extended) = if family < 15 { (family, 0) } else { (15, family - 15) };
    extended << 20 | (model >> 4) << 16 | base << 8 | (model & 15) << 4 | stepping
}

fn quarter(text: &[u8; 12], number: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&text[4 * number..4 * number + 4]);
    u32::from_le_bytes(bytes)
}

/// A range's first leaf: its last function, and a vendor in EBX, EDX, ECX.
fn vendor(last: u32, text: [u8; 12]) -> Leaf {
    Leaf { eax: last, ebx: quarter(&text, 0), edx: quarter(&text, 1), ecx: quarter(&text, 2) }
}

/// The hypervisor's first leaf has its signature in EBX, ECX, EDX.
fn hypervisor(last: u32, text: [u8; 12]) -> Leaf {
    Leaf { eax: last, ebx: quarter(&text, 0), ecx: quarter(&text, 1), edx: quarter(&text, 2) }
}

/// The three leaves of a processor's name.
fn name(text: &[u8]) -> [Leaf; 3] {
    let mut words = [0_u32; 12];
    for (i, &byte) in text.iter().take(47).enumerate() {
        words[i / 4] |= u32::from(byte) << (8 * (i % 4));
    }
    [0, 4, 8].map(|i| Leaf { eax: words[i], ebx: words[i + 1], ecx: words[i + 2], edx: words[i + 3] })
}

#[cfg(test)]
mod tests {
    use super::{CpuidTable, EXTENDED, Feature, HYPERVISOR, Leaf, Package, Topology};

    fn table(cores: u8) -> CpuidTable {
        let package = Package::new(cores.into(), 1);
        CpuidTable::qemu64(Topology { apic_id: 1, package, tsc_khz: 2_000_000, apic_khz: 1_000_000 })
    }

    fn text(parts: &[u32]) -> String {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).filter(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn qemu64_has_the_names_that_guests_know() {
        let table = table(1);
        let first = table.get(0, 0);
        assert_eq!(text(&[first.ebx, first.edx, first.ecx]), "AuthenticAMD");
        assert_eq!(table.get(1, 0).eax, 0x0006_0fb1);
        let name: Vec<u32> = (2..5)
            .map(|i| table.get(EXTENDED | i, 0))
            .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
            .collect();
        assert_eq!(text(&name), "QEMU Virtual CPU version 2.5+");
        let first = table.get(HYPERVISOR, 0);
        assert_eq!(text(&[first.ebx, first.ecx, first.edx]), "RheaRheaRhea");
    }

    #[test]
    fn what_a_kernel_requires_is_offered() {
        let table = table(1);
        // Linux: required-features.h of x86-64.
        for feature in [
            Feature::FPU,
            Feature::PSE,
            Feature::MSR,
            Feature::PAE,
            Feature::CX8,
            Feature::PGE,
            Feature::CMOV,
            Feature::FXSR,
            Feature::SSE,
            Feature::SSE2,
            Feature::LM,
            Feature::NX,
        ] {
            assert!(table.has(feature), "{feature:?}");
        }
        assert_eq!(table.get(EXTENDED | 1, 0).edx & 0x0183_f3ff, table.get(1, 0).edx & 0x0183_f3ff);
    }

    #[test]
    fn leaves_that_are_not_there_are_zero() {
        let table = table(1);
        for function in [0x20, 0x21, 0xffff, HYPERVISOR | 1, EXTENDED | 0x1f, 0xc000_0000, u32::MAX] {
            assert_eq!(table.get(function, 0), Leaf::default(), "{function:#x}");
        }
    }

    #[test]
    fn an_index_of_its_own_wins() {
        let mut table = table(1);
        let leaf = Leaf { eax: 7, ..Leaf::default() };
        table.set(4, 2, leaf);
        assert_eq!((table.get(4, 2), table.get(4, 1)), (leaf, Leaf::default()));
        table.set_feature(Feature::SSE3, false);
        assert!(!table.has(Feature::SSE3) && table.has(Feature::CX16));
    }
}
