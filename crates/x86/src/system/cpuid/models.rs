//! The processor models by name: who made them, how they identify themselves, and which features they have.
//!
//! What real processors of these names have is in the vendors' manuals (SDM vol. 2 CPUID, APM vol. 3 appendix E, AMD's
//! PPRs); which of it each name stands for is common knowledge of managers and was taken from what QEMU 10.0.2 answers
//! them. A model is told as the one it is closest to, and what differs.

use super::features::{Feature, FeatureSet};

/// Who made a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    Amd,
    Hygon,
    Centaur,
}

impl Vendor {
    /// As leaf 0 spells it.
    pub(super) const fn signature(self) -> &'static str {
        match self {
            Self::Intel => "GenuineIntel",
            Self::Amd => "AuthenticAMD",
            Self::Hygon => "HygonGenuine",
            Self::Centaur => "CentaurHauls",
        }
    }
}

/// Which caches a model tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caches {
    /// Those that every processor of the vendor could have.
    Usual,
    /// Those of AMD's Zen.
    Zen,
}

/// A model of [`MODELS`].
#[derive(Debug)]
pub(super) struct Row {
    /// Its name, with its version.
    pub name: &'static str,
    /// The model that it is told as a change of; empty for the first of all.
    from: &'static str,
    pub vendor: Vendor,
    /// Family, model and stepping.
    pub signature: (u32, u32, u32),
    /// Last basic and extended leaf.
    pub levels: (u32, u32),
    /// Its full name.
    pub id: &'static str,
    pub caches: Caches,
    /// Features that it has beyond `from`, and with a minus those that it lacks.
    changes: &'static str,
}

const fn row(
    name: &'static str,
    from: &'static str,
    vendor: Vendor,
    signature: (u32, u32, u32),
    levels: (u32, u32),
) -> Row {
    Row { name, from, vendor, signature, levels, id: "", caches: Caches::Usual, changes: "" }
}

impl Row {
    const fn called(self, id: &'static str) -> Self {
        Self { id, ..self }
    }

    const fn caches(self, caches: Caches) -> Self {
        Self { caches, ..self }
    }

    const fn with(self, changes: &'static str) -> Self {
        Self { changes, ..self }
    }

    /// All its features.
    pub(super) fn features(&self) -> FeatureSet {
        let from = MODELS.iter().take_while(|row| row.name != self.name).find(|row| row.name == self.from);
        let mut features = from.map_or(FeatureSet::EMPTY, Self::features);
        for change in self.changes.split(' ') {
            let (name, present) = change.strip_prefix('-').map_or((change, true), |name| (name, false));
            if let Some(feature) = Feature::named(name) {
                features.set(feature, present);
            }
        }
        features
    }
}

/// Names of models that are second names, besides those without a version, which mean the first version.
pub(super) const ALIASES: [(&str, &str); 17] = [
    ("Broadwell-IBRS", "Broadwell-v3"),
    ("Broadwell-noTSX", "Broadwell-v2"),
    ("Broadwell-noTSX-IBRS", "Broadwell-v4"),
    ("Cascadelake-Server-noTSX", "Cascadelake-Server-v3"),
    ("EPYC-IBPB", "EPYC-v2"),
    ("Haswell-IBRS", "Haswell-v3"),
    ("Haswell-noTSX", "Haswell-v2"),
    ("Haswell-noTSX-IBRS", "Haswell-v4"),
    ("Icelake-Server-noTSX", "Icelake-Server-v2"),
    ("IvyBridge-IBRS", "IvyBridge-v2"),
    ("Nehalem-IBRS", "Nehalem-v2"),
    ("SandyBridge-IBRS", "SandyBridge-v2"),
    ("Skylake-Client-IBRS", "Skylake-Client-v2"),
    ("Skylake-Client-noTSX-IBRS", "Skylake-Client-v3"),
    ("Skylake-Server-IBRS", "Skylake-Server-v2"),
    ("Skylake-Server-noTSX-IBRS", "Skylake-Server-v3"),
    ("Westmere-IBRS", "Westmere-v2"),
];

/// The model that `name` means.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    let name = canonical(name);
    MODELS.iter().find(|row| row.name == name || row.name.strip_suffix("-v1") == Some(name))
}

fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name)
}

/// All names that mean a row of [`MODELS`], each with the name of the row if it is another.
pub(super) fn names() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let own = MODELS.iter().map(|row| (row.name, None));
    let first = MODELS.iter().filter_map(|row| Some((row.name.strip_suffix("-v1")?, Some(row.name))));
    own.chain(first).chain(ALIASES.into_iter().map(|(alias, name)| (alias, Some(name))))
}

/// All models.
pub(super) static MODELS: [Row; 90] = [
    row("486-v1", "", Vendor::Intel, (4, 8, 0), (0x1, 0x0)).with("fpu pse"),
    row("pentium-v1", "486-v1", Vendor::Intel, (5, 4, 3), (0x1, 0x0)).with("de tsc msr mce cx8 apic mmx"),
    row("pentium2-v1", "pentium-v1", Vendor::Intel, (6, 5, 2), (0x2, 0x0))
        .with("pae sep mtrr pge mca cmov pat pse36 fxsr"),
    row("qemu32-v1", "pentium2-v1", Vendor::Intel, (6, 6, 3), (0x4, 0x8000_0004))
        .called("QEMU Virtual CPU version 2.5+")
        .with("sse sse2 pni -mtrr -mca -pse36"),
    row("pentium3-v1", "pentium2-v1", Vendor::Intel, (6, 7, 3), (0x3, 0x0)).with("sse"),
    row("kvm32-v1", "pentium3-v1", Vendor::Intel, (15, 6, 1), (0x5, 0x8000_0008))
        .called("Common 32-bit KVM processor")
        .with("clflush sse2 pni"),
    row("coreduo-v1", "kvm32-v1", Vendor::Intel, (6, 14, 8), (0xa, 0x8000_0008))
        .called("Genuine Intel(R) CPU           T2600  @ 2.16GHz")
        .with("acpi ss monitor nx -pse36"),
    row("kvm64-v1", "kvm32-v1", Vendor::Intel, (15, 6, 1), (0xd, 0x8000_0008))
        .called("Common KVM processor")
        .with("cx16 syscall nx lm"),
    row("Conroe-v1", "kvm64-v1", Vendor::Intel, (6, 15, 3), (0xa, 0x8000_0008))
        .called("Intel Celeron_4x0 (Conroe/Merom Class Core 2)")
        .with("ssse3 lahf-lm -cx16"),
    row("n270-v1", "coreduo-v1", Vendor::Intel, (6, 28, 2), (0xa, 0x8000_0008))
        .called("Intel(R) Atom(TM) CPU N270   @ 1.60GHz")
        .with("ssse3 movbe lahf-lm"),
    row("Penryn-v1", "Conroe-v1", Vendor::Intel, (6, 23, 3), (0xa, 0x8000_0008))
        .called("Intel Core 2 Duo P9xxx (Penryn Class Core 2)")
        .with("cx16 sse4.1"),
    row("Nehalem-v1", "Penryn-v1", Vendor::Intel, (6, 26, 3), (0xb, 0x8000_0008))
        .called("Intel Core i7 9xx (Nehalem Class Core i7)")
        .with("sse4.2 popcnt"),
    row("Nehalem-v2", "Nehalem-v1", Vendor::Intel, (6, 26, 3), (0xb, 0x8000_0008))
        .called("Intel Core i7 9xx (Nehalem Core i7, IBRS update)")
        .with("spec-ctrl"),
    row("core2duo-v1", "Penryn-v1", Vendor::Intel, (6, 15, 11), (0xa, 0x8000_0008))
        .called("Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz")
        .with("acpi ss monitor -sse4.1"),
    row("Westmere-v1", "Nehalem-v1", Vendor::Intel, (6, 44, 1), (0xb, 0x8000_0008))
        .called("Westmere E56xx/L56xx/X56xx (Nehalem-C)")
        .with("pclmulqdq aes arat"),
    row("Westmere-v2", "Westmere-v1", Vendor::Intel, (6, 44, 1), (0xb, 0x8000_0008))
        .called("Westmere E56xx/L56xx/X56xx (IBRS update)")
        .with("spec-ctrl"),
    row("SandyBridge-v1", "Westmere-v1", Vendor::Intel, (6, 42, 1), (0xd, 0x8000_0008))
        .called("Intel Xeon E312xx (Sandy Bridge)")
        .with("x2apic tsc-deadline xsave avx rdtscp xsaveopt"),
    row("SandyBridge-v2", "SandyBridge-v1", Vendor::Intel, (6, 42, 1), (0xd, 0x8000_0008))
        .called("Intel Xeon E312xx (Sandy Bridge, IBRS update)")
        .with("spec-ctrl"),
    row("IvyBridge-v1", "SandyBridge-v1", Vendor::Intel, (6, 58, 9), (0xd, 0x8000_0008))
        .called("Intel Xeon E3-12xx v2 (Ivy Bridge)")
        .with("f16c rdrand fsgsbase smep erms"),
    row("IvyBridge-v2", "IvyBridge-v1", Vendor::Intel, (6, 58, 9), (0xd, 0x8000_0008))
        .called("Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)")
        .with("spec-ctrl"),
    row("Haswell-v1", "IvyBridge-v1", Vendor::Intel, (6, 60, 4), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Haswell)")
        .with("fma pcid movbe bmi1 hle avx2 bmi2 invpcid rtm abm"),
    row("Haswell-v2", "Haswell-v1", Vendor::Intel, (6, 60, 1), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Haswell, no TSX)")
        .with("-hle -rtm"),
    row("Haswell-v3", "Haswell-v1", Vendor::Intel, (6, 60, 4), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Haswell, IBRS)")
        .with("spec-ctrl"),
    row("Haswell-v4", "Haswell-v2", Vendor::Intel, (6, 60, 1), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Haswell, no TSX, IBRS)")
        .with("spec-ctrl"),
    row("Broadwell-v1", "Haswell-v1", Vendor::Intel, (6, 61, 2), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Broadwell)")
        .with("rdseed adx smap 3dnowprefetch"),
    row("Broadwell-v2", "Broadwell-v1", Vendor::Intel, (6, 61, 2), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Broadwell, no TSX)")
        .with("-hle -rtm"),
    row("Broadwell-v3", "Broadwell-v1", Vendor::Intel, (6, 61, 2), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Broadwell, IBRS)")
        .with("spec-ctrl"),
    row("Broadwell-v4", "Broadwell-v2", Vendor::Intel, (6, 61, 2), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Broadwell, no TSX, IBRS)")
        .with("spec-ctrl"),
    row("Denverton-v1", "IvyBridge-v2", Vendor::Intel, (6, 95, 1), (0x15, 0x8000_0008))
        .called("Intel Atom Processor (Denverton)")
        .with(
            "monitor movbe mpx rdseed smap clflushopt sha-ni arch-capabilities ssbd pdpe1gb 3dnowprefetch \
            xsavec xgetbv1 rdctl-no skip-l1dfl-vmentry -avx -f16c",
        ),
    row("Denverton-v2", "Denverton-v1", Vendor::Intel, (6, 95, 1), (0x15, 0x8000_0008))
        .called("Intel Atom Processor (Denverton)")
        .with("-monitor -mpx"),
    row("Denverton-v3", "Denverton-v2", Vendor::Intel, (6, 95, 1), (0x15, 0x8000_0008))
        .called("Intel Atom Processor (Denverton)")
        .with("xsaves"),
    row("Skylake-Client-v1", "Broadwell-v1", Vendor::Intel, (6, 94, 3), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Skylake)")
        .with("xsavec xgetbv1"),
    row("Skylake-Client-v2", "Skylake-Client-v1", Vendor::Intel, (6, 94, 3), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Skylake, IBRS)")
        .with("spec-ctrl"),
    row("Skylake-Client-v3", "Skylake-Client-v2", Vendor::Intel, (6, 94, 3), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Skylake, IBRS, no TSX)")
        .with("-hle -rtm"),
    row("Skylake-Client-v4", "Skylake-Client-v3", Vendor::Intel, (6, 94, 3), (0xd, 0x8000_0008))
        .called("Intel Core Processor (Skylake, IBRS, no TSX)")
        .with("xsaves"),
    row("KnightsMill-v1", "Broadwell-v2", Vendor::Intel, (6, 133, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Phi Processor (Knights Mill)")
        .with(
            "ss avx512f avx512pf avx512er avx512cd avx512-vpopcntdq avx512-4vnniw avx512-4fmaps pdpe1gb -pcid \
            -invpcid -smap",
        ),
    row("Snowridge-v1", "Denverton-v1", Vendor::Intel, (6, 134, 1), (0x1b, 0x8000_0008))
        .called("Intel Atom Processor (SnowRidge)")
        .with(
            "clwb umip gfni cldemote movdiri movdir64b core-capability split-lock-detect -rdctl-no \
            -skip-l1dfl-vmentry",
        ),
    row("Snowridge-v2", "Snowridge-v1", Vendor::Intel, (6, 134, 1), (0x1b, 0x8000_0008))
        .called("Intel Atom Processor (Snowridge, no MPX)")
        .with("-mpx"),
    row("Snowridge-v3", "Snowridge-v2", Vendor::Intel, (6, 134, 1), (0x1b, 0x8000_0008))
        .called("Intel Atom Processor (Snowridge, no MPX)")
        .with("xsaves"),
    row("Snowridge-v4", "Snowridge-v3", Vendor::Intel, (6, 134, 1), (0x1b, 0x8000_0008))
        .called("Intel Atom Processor (Snowridge, no MPX)")
        .with("-core-capability -split-lock-detect"),
    row("Skylake-Server-v1", "Skylake-Client-v1", Vendor::Intel, (6, 85, 4), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Skylake)")
        .with("avx512f avx512dq clflushopt clwb avx512cd avx512bw avx512vl pku pdpe1gb"),
    row("Skylake-Server-v2", "Skylake-Server-v1", Vendor::Intel, (6, 85, 4), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Skylake, IBRS)")
        .with("spec-ctrl -clflushopt"),
    row("Skylake-Server-v3", "Skylake-Server-v2", Vendor::Intel, (6, 85, 4), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Skylake, IBRS, no TSX)")
        .with("-hle -rtm"),
    row("Skylake-Server-v4", "Skylake-Server-v3", Vendor::Intel, (6, 85, 4), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Skylake, IBRS, no TSX)"),
    row("Skylake-Server-v5", "Skylake-Server-v4", Vendor::Intel, (6, 85, 4), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Skylake, IBRS, no TSX)")
        .with("xsaves"),
    row("Cascadelake-Server-v1", "Skylake-Server-v2", Vendor::Intel, (6, 85, 6), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cascadelake)")
        .with("clflushopt avx512vnni ssbd"),
    row("Cascadelake-Server-v2", "Cascadelake-Server-v1", Vendor::Intel, (6, 85, 6), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cascadelake)")
        .with("arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no"),
    row("Cascadelake-Server-v3", "Cascadelake-Server-v2", Vendor::Intel, (6, 85, 6), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cascadelake)")
        .with("-hle -rtm"),
    row("Cascadelake-Server-v4", "Cascadelake-Server-v3", Vendor::Intel, (6, 85, 6), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cascadelake)"),
    row("Cascadelake-Server-v5", "Cascadelake-Server-v4", Vendor::Intel, (6, 85, 6), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cascadelake)")
        .with("xsaves"),
    row("YongFeng-v1", "Broadwell-v4", Vendor::Centaur, (7, 11, 3), (0x1f, 0x8000_0008))
        .called("Zhaoxin YongFeng Processor")
        .with(
            "acpi ss monitor sha-ni umip pku rdpid arch-capabilities pdpe1gb invtsc xstore xstore-en xcrypt \
            xcrypt-en ace2 phe phe-en pmm pmm-en rdctl-no skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no \
            -erms -arat",
        ),
    row("YongFeng-v2", "YongFeng-v1", Vendor::Centaur, (7, 91, 3), (0x1f, 0x8000_0008))
        .called("Zhaoxin YongFeng Processor"),
    row("Icelake-Server-v1", "Cascadelake-Server-v1", Vendor::Intel, (6, 134, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("avx512vbmi umip avx512vbmi2 gfni vaes vpclmulqdq avx512bitalg avx512-vpopcntdq la57 wbnoinvd"),
    row("Icelake-Server-v2", "Icelake-Server-v1", Vendor::Intel, (6, 134, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("-hle -rtm"),
    row("Icelake-Server-v3", "Icelake-Server-v2", Vendor::Intel, (6, 134, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no"),
    row("Icelake-Server-v4", "Icelake-Server-v3", Vendor::Intel, (6, 106, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("avx512ifma sha-ni rdpid fsrm"),
    row("Icelake-Server-v5", "Icelake-Server-v4", Vendor::Intel, (6, 106, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("xsaves"),
    row("Icelake-Server-v6", "Icelake-Server-v5", Vendor::Intel, (6, 106, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)"),
    row("Icelake-Server-v7", "Icelake-Server-v6", Vendor::Intel, (6, 106, 0), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Icelake)")
        .with("hle rtm"),
    row("Cooperlake-v1", "Cascadelake-Server-v2", Vendor::Intel, (6, 85, 10), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cooperlake)")
        .with("stibp avx512-bf16 pschange-mc-no taa-no"),
    row("Cooperlake-v2", "Cooperlake-v1", Vendor::Intel, (6, 85, 10), (0xd, 0x8000_0008))
        .called("Intel Xeon Processor (Cooperlake)")
        .with("xsaves"),
    row("SierraForest-v1", "Icelake-Server-v6", Vendor::Intel, (6, 175, 0), (0x23, 0x8000_0008))
        .called("Intel Xeon Processor (SierraForest)")
        .with(
            "bus-lock-detect serialize avx-vnni cmpccxadd fsrs avx-ifma avx-vnni-int8 avx-ne-convert mcdt-no \
            sbdr-ssdp-no fbsdp-no psdp-no pbrsb-no -avx512f -avx512dq -avx512ifma -avx512cd -avx512bw \
            -avx512vl -avx512vbmi -avx512vbmi2 -avx512vnni -avx512bitalg -avx512-vpopcntdq -la57 -taa-no",
        ),
    row("SierraForest-v2", "SierraForest-v1", Vendor::Intel, (6, 175, 3), (0x23, 0x8000_0008))
        .called("Intel Xeon Processor (SierraForest)")
        .with(
            "ss tsc-adjust cldemote movdiri movdir64b lam intel-psfd ipred-ctrl rrsba-ctrl bhi-ctrl gds-no \
            rfds-no",
        ),
    row("SapphireRapids-v1", "Icelake-Server-v7", Vendor::Intel, (6, 143, 4), (0x20, 0x8000_0008))
        .called("Intel Xeon Processor (SapphireRapids)")
        .with(
            "bus-lock-detect serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 avx-vnni avx512-bf16 \
            fzrm fsrs fsrc xfd",
        ),
    row("SapphireRapids-v2", "SapphireRapids-v1", Vendor::Intel, (6, 143, 4), (0x20, 0x8000_0008))
        .called("Intel Xeon Processor (SapphireRapids)")
        .with("sbdr-ssdp-no fbsdp-no psdp-no"),
    row("SapphireRapids-v3", "SapphireRapids-v2", Vendor::Intel, (6, 143, 4), (0x20, 0x8000_0008))
        .called("Intel Xeon Processor (SapphireRapids)")
        .with("ss tsc-adjust cldemote movdiri movdir64b"),
    row("ClearwaterForest-v1", "SierraForest-v2", Vendor::Intel, (6, 221, 0), (0x23, 0x8000_0008))
        .called("Intel Xeon Processor (ClearwaterForest)")
        .with("sha512 sm3 sm4 avx-vnni-int16 prefetchiti ddpd-u bhi-no"),
    row("GraniteRapids-v1", "SapphireRapids-v2", Vendor::Intel, (6, 173, 0), (0x20, 0x8000_0008))
        .called("Intel Xeon Processor (GraniteRapids)")
        .with("amx-fp16 prefetchiti mcdt-no pbrsb-no"),
    row("GraniteRapids-v2", "SapphireRapids-v3", Vendor::Intel, (6, 173, 1), (0x24, 0x8000_0008))
        .called("Intel Xeon Processor (GraniteRapids)")
        .with("amx-fp16 prefetchiti avx10 mcdt-no avx10-128 avx10-256 avx10-512 pbrsb-no"),
    row("athlon-v1", "", Vendor::Amd, (6, 2, 3), (0x2, 0x8000_0008)).called("QEMU Virtual CPU version 2.5+").with(
        "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse sse2 mmxext \
            3dnowext 3dnow",
    ),
    row("Opteron_G1-v1", "athlon-v1", Vendor::Amd, (15, 6, 1), (0x5, 0x8000_0008))
        .called("AMD Opteron 240 (Gen 1 Class Opteron)")
        .with("clflush pni syscall nx lm -mmxext -3dnowext -3dnow"),
    row("qemu64-v1", "Opteron_G1-v1", Vendor::Amd, (15, 107, 1), (0xd, 0x8000_000a))
        .called("QEMU Virtual CPU version 2.5+")
        .with("cx16 lahf-lm"),
    row("Opteron_G2-v1", "qemu64-v1", Vendor::Amd, (15, 6, 1), (0x5, 0x8000_000a))
        .called("AMD Opteron 22xx (Gen 2 Class Opteron)")
        .with("svm"),
    row("Opteron_G3-v1", "Opteron_G2-v1", Vendor::Amd, (16, 2, 3), (0x5, 0x8000_000a))
        .called("AMD Opteron 23xx (Gen 3 Class Opteron)")
        .with("monitor popcnt rdtscp abm sse4a misalignsse"),
    row("phenom-v1", "Opteron_G3-v1", Vendor::Amd, (16, 2, 3), (0x5, 0x8000_001a))
        .called("AMD Phenom(tm) 9550 Quad-Core Processor")
        .with("mmxext fxsr-opt pdpe1gb 3dnowext 3dnow npt -misalignsse"),
    row("Opteron_G4-v1", "Opteron_G3-v1", Vendor::Amd, (21, 1, 2), (0xd, 0x8000_001a))
        .called("AMD Opteron 62xx class CPU")
        .with(
            "pclmulqdq ssse3 sse4.1 sse4.2 aes xsave avx pdpe1gb 3dnowprefetch xop fma4 npt nrip-save \
            -monitor",
        ),
    row("Opteron_G5-v1", "Opteron_G4-v1", Vendor::Amd, (21, 2, 0), (0xd, 0x8000_001a))
        .called("AMD Opteron 63xx class CPU")
        .with("fma f16c tbm"),
    row("Dhyana-v1", "Opteron_G5-v1", Vendor::Hygon, (24, 0, 1), (0xd, 0x8000_001e))
        .called("Hygon Dhyana Processor")
        .caches(Caches::Zen)
        .with(
            "monitor movbe rdrand fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt mmxext fxsr-opt \
            cr8legacy osvw topoext ibpb xsaveopt xsavec xgetbv1 arat -pclmulqdq -aes -xop -fma4 -tbm",
        ),
    row("Dhyana-v2", "Dhyana-v1", Vendor::Hygon, (24, 0, 1), (0xd, 0x8000_001e))
        .called("Hygon Dhyana Processor")
        .caches(Caches::Zen)
        .with("xsaves"),
    row("EPYC-v1", "Dhyana-v1", Vendor::Amd, (23, 1, 2), (0xd, 0x8000_001e))
        .called("AMD EPYC Processor")
        .caches(Caches::Zen)
        .with("pclmulqdq aes sha-ni -ibpb"),
    row("EPYC-v2", "EPYC-v1", Vendor::Amd, (23, 1, 2), (0xd, 0x8000_001e))
        .called("AMD EPYC Processor (with IBPB)")
        .caches(Caches::Zen)
        .with("ibpb"),
    row("EPYC-v3", "EPYC-v2", Vendor::Amd, (23, 1, 2), (0xd, 0x8000_001e))
        .called("AMD EPYC Processor")
        .caches(Caches::Zen)
        .with("perfctr-core clzero xsaveerptr xsaves"),
    row("EPYC-v4", "EPYC-v3", Vendor::Amd, (23, 1, 2), (0xd, 0x8000_001e))
        .called("AMD EPYC-v4 Processor")
        .caches(Caches::Zen),
    row("EPYC-Rome-v1", "EPYC-v4", Vendor::Amd, (23, 49, 0), (0xd, 0x8000_001e))
        .called("AMD EPYC-Rome Processor")
        .caches(Caches::Zen)
        .with("clwb umip rdpid wbnoinvd amd-stibp"),
    row("EPYC-Rome-v2", "EPYC-Rome-v1", Vendor::Amd, (23, 49, 0), (0xd, 0x8000_001e))
        .called("AMD EPYC-Rome Processor")
        .caches(Caches::Zen)
        .with("ibrs amd-ssbd"),
    row("EPYC-Rome-v3", "EPYC-Rome-v2", Vendor::Amd, (23, 49, 0), (0xd, 0x8000_001e))
        .called("AMD EPYC-Rome-v3 Processor")
        .caches(Caches::Zen),
    row("EPYC-Rome-v4", "EPYC-Rome-v3", Vendor::Amd, (23, 49, 0), (0xd, 0x8000_001e))
        .called("AMD EPYC-Rome-v4 Processor (no XSAVES)")
        .caches(Caches::Zen)
        .with("-xsaves"),
    row("EPYC-Milan-v1", "EPYC-Rome-v3", Vendor::Amd, (25, 1, 1), (0xd, 0x8000_001e))
        .called("AMD EPYC-Milan Processor")
        .caches(Caches::Zen)
        .with("pcid erms invpcid pku fsrm svme-addr-chk"),
    row("EPYC-Milan-v2", "EPYC-Milan-v1", Vendor::Amd, (25, 1, 1), (0xd, 0x8000_0021))
        .called("AMD EPYC-Milan-v2 Processor")
        .caches(Caches::Zen)
        .with(
            "vaes vpclmulqdq stibp-always-on amd-psfd no-nested-data-bp lfence-always-serializing \
            null-sel-clr-base",
        ),
    row("EPYC-Genoa-v1", "EPYC-Milan-v2", Vendor::Amd, (25, 17, 0), (0xd, 0x8000_0022))
        .called("AMD EPYC-Genoa Processor")
        .caches(Caches::Zen)
        .with(
            "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 gfni avx512vnni \
            avx512bitalg avx512-vpopcntdq la57 avx512-bf16 auto-ibrs vnmi",
        ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_names_of_one_model_each() {
        let all: Vec<&str> = names().map(|(name, _)| name).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(all.len(), 151);
        for (name, row) in names() {
            assert_eq!(find(name).map(|row| row.name), Some(row.unwrap_or(name)));
        }
        assert!(find("").is_none() && find("Nehalem-v9").is_none());
    }

    #[test]
    fn rows_build_on_rows_above_them_and_name_features() {
        let mut above = BTreeSet::from([""]);
        for row in &MODELS {
            assert!(above.insert(row.name));
            assert!(above.contains(row.from) && row.from != row.name, "{}", row.name);
            for change in row.changes.split(' ').filter(|change| !change.is_empty()) {
                let name = change.trim_start_matches('-');
                assert_eq!(Feature::named(name).map(Feature::name), Some(name), "{}", row.name);
            }
            assert!(row.id.len() <= 48 && row.signature.1 < 256 && row.signature.2 < 16);
        }
    }

    #[test]
    fn models_have_what_such_processors_have() {
        let has = |model: &str, feature: &str| find(model).unwrap().features().has(Feature::named(feature).unwrap());
        for (model, there, missing) in [
            ("486", "fpu", "tsc"),
            ("pentium3", "sse", "sse2"),
            ("Penryn", "sse4.1", "sse4.2"),
            ("Nehalem", "sse4.2", "aes"),
            ("Nehalem-IBRS", "spec-ctrl", "aes"),
            ("Haswell", "rtm", "adx"),
            ("Haswell-noTSX", "avx2", "rtm"),
            ("Skylake-Server", "avx512f", "avx512vnni"),
            ("Opteron_G5", "fma4", "avx2"),
            ("EPYC", "sha-ni", "ibpb"),
            ("EPYC-IBPB", "ibpb", "clwb"),
            ("EPYC-Genoa", "avx512f", "rtm"),
            ("qemu64", "cx16", "svm"),
        ] {
            assert!(has(model, there) && !has(model, missing), "{model}");
        }
    }
}
