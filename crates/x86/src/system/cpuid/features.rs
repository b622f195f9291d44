//! Features of processors: their names, where CPUID or an MSR tells of each, and which of them this engine has.
//! SDM vol. 2 CPUID and vol. 4, APM vol. 3 appendices D and E; names as managers know them.

use std::{
    collections::HashMap,
    ops::{BitAnd, BitOr, Sub},
    sync::LazyLock,
};

/// A register that CPUID returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the registers' own names")]
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Where a processor tells of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A register of a leaf.
    Cpuid {
        /// The leaf.
        function: u32,
        /// The sub-leaf, where the leaf has any.
        index: Option<u32>,
        /// The register.
        register: Register,
    },
    /// A model-specific register.
    Msr(u32),
}

/// Bits that tell of features, up to 64 of them.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Where they are.
    pub source: Source,
    /// Names from bit 0 on, `-` where a bit has none. `@N` goes on at bit N.
    names: &'static str,
}

const fn cpuid(function: u32, index: Option<u32>, register: Register, names: &'static str) -> Word {
    Word { source: Source::Cpuid { function, index, register }, names }
}

const fn msr(number: u32, names: &'static str) -> Word {
    Word { source: Source::Msr(number), names }
}

/// All words, in the order in which managers are told of them.
pub static WORDS: [Word; COUNT] = LIST;

const COUNT: usize = 43;

const LIST: [Word; COUNT] = [
    cpuid(0x24, Some(0), Register::Ebx, "@16 avx10-128 avx10-256 avx10-512"),
    cpuid(0x7, Some(2), Register::Edx, "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"),
    cpuid(
        0x7,
        Some(1),
        Register::Edx,
        "@4 avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti @19 avx10",
    ),
    cpuid(0xd, Some(1), Register::Edx, ""),
    cpuid(0xd, Some(1), Register::Ecx, ""),
    cpuid(
        0x12,
        Some(1),
        Register::Eax,
        "- sgx-debug sgx-mode64 - sgx-provisionkey sgx-tokenkey - sgx-kss - - sgx-aex-notify",
    ),
    cpuid(0x12, Some(0), Register::Ebx, "sgx-exinfo"),
    cpuid(0x12, Some(0), Register::Eax, "sgx1 sgx2 @11 sgx-edeccssa"),
    cpuid(0x14, Some(0), Register::Ecx, "@31 intel-pt-lip"),
    cpuid(0xd, Some(0), Register::Edx, ""),
    cpuid(0xd, Some(0), Register::Eax, ""),
    cpuid(0x6, None, Register::Eax, "- - arat"),
    cpuid(0xd, Some(1), Register::Eax, "xsaveopt xsavec xgetbv1 xsaves xfd"),
    cpuid(
        0x8000_000a,
        None,
        Register::Edx,
        "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - pause-filter - \
        pfthreshold avic - v-vmsave-vmload vgif @25 vnmi - - svme-addr-chk",
    ),
    cpuid(0x4000_0001, None, Register::Edx, "kvm-hint-dedicated"),
    cpuid(
        0x4000_0001,
        None,
        Register::Eax,
        "kvmclock kvm-nopiodelay kvm-mmu - kvm-asyncpf kvm-steal-time kvm-pv-eoi kvm-pv-unhalt - \
        kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-asyncpf-int \
        kvm-msi-ext-dest-id @24 kvmclock-stable-bit",
    ),
    cpuid(
        0xc000_0001,
        None,
        Register::Edx,
        "- - xstore xstore-en - - xcrypt xcrypt-en ace2 ace2-en phe phe-en pmm pmm-en",
    ),
    cpuid(0x8000_0022, None, Register::Eax, "perfmon-v2"),
    cpuid(0x8000_0021, None, Register::Ebx, ""),
    cpuid(
        0x8000_0021,
        None,
        Register::Eax,
        "no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs @24 eraps - - sbpb \
        ibpb-brtype srso-no srso-user-kernel-no",
    ),
    cpuid(
        0x8000_0008,
        None,
        Register::Ebx,
        "clzero - xsaveerptr @9 wbnoinvd - - ibpb - ibrs amd-stibp - stibp-always-on @24 amd-ssbd virt-ssbd \
        amd-no-ssb - amd-psfd",
    ),
    cpuid(0x8000_0007, None, Register::Edx, "@8 invtsc"),
    cpuid(0x8000_0007, None, Register::Ebx, "overflow-recov succor"),
    cpuid(
        0x8000_0001,
        None,
        Register::Ecx,
        "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt \
        - lwp fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb",
    ),
    cpuid(
        0x8000_0001,
        None,
        Register::Edx,
        "@11 syscall @20 nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    ),
    cpuid(
        0x7,
        Some(1),
        Register::Eax,
        "sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc @17 fred lkgs wrmsrns - \
        amx-fp16 - avx-ifma - - lam",
    ),
    cpuid(
        0x7,
        Some(0),
        Register::Edx,
        "- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - \
        tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d \
        arch-capabilities core-capability ssbd",
    ),
    cpuid(
        0x7,
        Some(0),
        Register::Ecx,
        "- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - \
        avx512-vpopcntdq - la57 @22 rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks",
    ),
    cpuid(
        0x7,
        Some(0),
        Register::Ebx,
        "fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm - zero-fcs-fds mpx \
        - avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er \
        avx512cd sha-ni avx512bw avx512vl",
    ),
    cpuid(
        0x1,
        None,
        Register::Ecx,
        "pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 \
        sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor",
    ),
    cpuid(
        0x1,
        None,
        Register::Edx,
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx \
        fxsr sse sse2 ss ht tm ia64 pbe",
    ),
    msr(0xcf, "@5 split-lock-detect"),
    msr(
        0x10a,
        "rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no @13 \
        sbdr-ssdp-no fbsdp-no psdp-no - fb-clear - - bhi-no - - - pbrsb-no - gds-no rfds-no rfds-clear",
    ),
    msr(0x345, "@13 full-width-write"),
    msr(0x480, "@54 vmx-ins-outs vmx-true-ctls vmx-any-errcode - vmx-nested-exception"),
    msr(
        0x485,
        "@5 vmx-store-lma vmx-activity-hlt vmx-activity-shutdown vmx-activity-wait-sipi @29 \
        vmx-vmwrite-vmexit-fields vmx-zero-len-inject",
    ),
    msr(
        0x48b,
        "vmx-apicv-xapic vmx-ept vmx-desc-exit vmx-rdtscp-exit vmx-apicv-x2apic vmx-vpid vmx-wbinvd-exit \
        vmx-unrestricted-guest vmx-apicv-register vmx-apicv-vid vmx-ple vmx-rdrand-exit vmx-invpcid-exit \
        vmx-vmfunc vmx-shadow-vmcs vmx-encls-exit vmx-rdseed-exit vmx-pml - - vmx-xsaves @25 vmx-tsc-scaling \
        vmx-enable-user-wait-pause",
    ),
    msr(
        0x48c,
        "vmx-ept-execonly @6 vmx-page-walk-4 vmx-page-walk-5 @16 vmx-ept-2mb vmx-ept-1gb - - vmx-invept \
        vmx-eptad vmx-ept-advanced-exitinfo - - vmx-invept-single-context vmx-invept-all-context @32 \
        vmx-invvpid @40 vmx-invvpid-single-addr - vmx-invvpid-all-context \
        vmx-invept-single-context-noglobals",
    ),
    msr(0x48d, "vmx-intr-exit - - vmx-nmi-exit - vmx-vnmi vmx-preemption-timer vmx-posted-intr"),
    msr(
        0x48e,
        "- - vmx-vintr-pending vmx-tsc-offset - - - vmx-hlt-exit - vmx-invlpg-exit vmx-mwait-exit \
        vmx-rdpmc-exit vmx-rdtsc-exit - - vmx-cr3-load-noexit vmx-cr3-store-noexit - - vmx-cr8-load-exit \
        vmx-cr8-store-exit vmx-flexpriority vmx-vnmi-pending vmx-movdr-exit vmx-io-exit vmx-io-bitmap - \
        vmx-mtf vmx-msr-bitmap vmx-monitor-exit vmx-pause-exit vmx-secondary-ctls",
    ),
    msr(
        0x48f,
        "- - vmx-exit-nosave-debugctl @12 vmx-exit-load-perf-global-ctrl - - vmx-exit-ack-intr - - \
        vmx-exit-save-pat vmx-exit-load-pat vmx-exit-save-efer vmx-exit-load-efer \
        vmx-exit-save-preemption-timer vmx-exit-clear-bndcfgs - vmx-exit-clear-rtit-ctl - - - \
        vmx-exit-load-pkrs - vmx-exit-secondary-ctls",
    ),
    msr(
        0x490,
        "- - vmx-entry-noload-debugctl @9 vmx-entry-ia32e-mode - - - vmx-entry-load-perf-global-ctrl \
        vmx-entry-load-pat vmx-entry-load-efer vmx-entry-load-bndcfgs - vmx-entry-load-rtit-ctl - - - \
        vmx-entry-load-pkrs vmx-entry-load-fred",
    ),
    msr(0x491, "vmx-eptp-switching"),
];

/// Further names of features.
pub const ALIASES: [(&str, &str); 30] = [
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4_1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("sse4_2", "sse4.2"),
    ("pclmuldq", "pclmulqdq"),
    ("i64", "lm"),
    ("xd", "nx"),
    ("ffxsr", "fxsr-opt"),
    ("ds_cpl", "ds-cpl"),
    ("tsc_adjust", "tsc-adjust"),
    ("fxsr_opt", "fxsr-opt"),
    ("lahf_lm", "lahf-lm"),
    ("cmp_legacy", "cmp-legacy"),
    ("nodeid_msr", "nodeid-msr"),
    ("perfctr_core", "perfctr-core"),
    ("perfctr_nb", "perfctr-nb"),
    ("kvm_nopiodelay", "kvm-nopiodelay"),
    ("kvm_mmu", "kvm-mmu"),
    ("kvm_asyncpf", "kvm-asyncpf"),
    ("kvm_asyncpf_int", "kvm-asyncpf-int"),
    ("kvm_steal_time", "kvm-steal-time"),
    ("kvm_pv_eoi", "kvm-pv-eoi"),
    ("kvm_pv_unhalt", "kvm-pv-unhalt"),
    ("kvm_poll_control", "kvm-poll-control"),
    ("svm_lock", "svm-lock"),
    ("nrip_save", "nrip-save"),
    ("tsc_scale", "tsc-scale"),
    ("vmcb_clean", "vmcb-clean"),
    ("pause_filter", "pause-filter"),
];

/// What the engine decodes and executes, or is by nature: the one list of it. Caches are always coherent (`ss`), the
/// local APIC's timer always runs (`arat`), the time stamp counter never changes its rate (`invtsc`), copies of strings
/// are as fast as they get (`erms`, `fsrm`), and so are fills and comparisons (`fzrm`, `fsrs`, `fsrc`), what is saved of the x87
/// has its last instruction at all times (`xsaveerptr`), and how processors are grouped can be told in AMD's way as well (`topoext`).
/// The extensions of MMX by AMD are a part of SSE.
pub const ENGINE: FeatureSet = FeatureSet::of(
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht pni monitor cx16 \
     x2apic popcnt hypervisor pcid tsc-deadline fsgsbase smep smap invpcid pku pks la57 erms umip fsrm fzrm fsrs fsrc xsaveerptr arat invtsc \
     syscall nx mmxext pdpe1gb rdtscp lm lahf-lm cmp-legacy 3dnowprefetch topoext wbnoinvd \
     xsave xsaveopt xsavec xgetbv1 avx avx2 fma f16c vaes vpclmulqdq \
     ssse3 sse4.1 sse4.2 aes pclmulqdq sha-ni movbe bmi1 bmi2 abm sse4a adx cmpccxadd rdrand rdseed rdpid clflushopt clwb",
);

/// A feature: a bit of one of the [`WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature {
    word: u8,
    bit: u8,
}

impl Feature {
    #![allow(missing_docs, reason = "the features' own names")]
    pub const MONITOR: Self = Self::known("monitor");
    pub const VME: Self = Self::known("vme");
    pub const DE: Self = Self::known("de");
    pub const PSE: Self = Self::known("pse");
    pub const TSC: Self = Self::known("tsc");
    pub const PAE: Self = Self::known("pae");
    pub const MCE: Self = Self::known("mce");
    pub const PGE: Self = Self::known("pge");
    pub const SEP: Self = Self::known("sep");
    pub const MTRR: Self = Self::known("mtrr");
    pub const MCA: Self = Self::known("mca");
    pub const PAT: Self = Self::known("pat");
    pub const FXSR: Self = Self::known("fxsr");
    pub const SSE: Self = Self::known("sse");
    pub const HTT: Self = Self::known("ht");
    pub const APIC: Self = Self::known("apic");
    pub const X2APIC: Self = Self::known("x2apic");
    pub const PCID: Self = Self::known("pcid");
    pub const TSC_DEADLINE: Self = Self::known("tsc-deadline");
    pub const HYPERVISOR: Self = Self::known("hypervisor");
    pub const FSGSBASE: Self = Self::known("fsgsbase");
    pub const SMEP: Self = Self::known("smep");
    pub const SMAP: Self = Self::known("smap");
    pub const UMIP: Self = Self::known("umip");
    pub const PKU: Self = Self::known("pku");
    pub const PKS: Self = Self::known("pks");
    pub const LA57: Self = Self::known("la57");
    pub const ARAT: Self = Self::known("arat");
    pub const INVTSC: Self = Self::known("invtsc");
    pub const SYSCALL: Self = Self::known("syscall");
    pub const NX: Self = Self::known("nx");
    pub const PDPE1GB: Self = Self::known("pdpe1gb");
    pub const RDPID: Self = Self::known("rdpid");
    pub const RDTSCP: Self = Self::known("rdtscp");
    pub const XSAVE: Self = Self::known("xsave");
    pub const XSAVEOPT: Self = Self::known("xsaveopt");
    pub const XSAVEC: Self = Self::known("xsavec");
    pub const XGETBV1: Self = Self::known("xgetbv1");
    pub const AVX: Self = Self::known("avx");
    pub const LM: Self = Self::known("lm");
    pub const CMP_LEGACY: Self = Self::known("cmp-legacy");
    pub const TOPOEXT: Self = Self::known("topoext");

    /// The feature of a name that is in [`WORDS`]; asked for another, the program does not compile.
    const fn known(name: &str) -> Self {
        match find(name.as_bytes(), 0, name.len()) {
            Some(feature) => feature,
            None => panic!("no feature of this name"),
        }
    }

    /// The feature that managers call `name`, which may be one of the [`ALIASES`].
    pub fn named(name: &str) -> Option<Self> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name);
        BY_NAME.get(name).copied()
    }

    /// All features, word by word.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, feature)| *feature)
    }

    /// What managers call it.
    pub fn name(self) -> &'static str {
        let found = NAMES.binary_search_by_key(&self, |(_, feature)| *feature);
        found.ok().and_then(|index| NAMES.get(index)).map_or("", |(name, _)| name)
    }

    /// Where the processor tells of it.
    pub fn source(self) -> Source {
        WORDS[usize::from(self.word) % COUNT].source
    }

    /// Its bit there.
    pub fn bit(self) -> u32 {
        u32::from(self.bit)
    }

    /// The leaf that tells of it, if CPUID does.
    pub(super) fn function(self) -> Option<u32> {
        match self.source() {
            Source::Cpuid { function, .. } => Some(function),
            Source::Msr(_) => None,
        }
    }

    /// Whether KVM is what offers it to its guests.
    pub(super) fn is_kvm(self) -> bool {
        self.function().is_some_and(|function| function >> 28 == 4)
    }
}

impl std::fmt::Display for Feature {
    /// The place and the name, as in `CPUID.01H:ECX.pcid [bit 17]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, bit) = (self.name(), self.bit);
        match self.source() {
            Source::Cpuid { function, register, .. } => {
                let register = format!("{register:?}").to_uppercase();
                write!(f, "CPUID.{function:02X}H:{register}.{name} [bit {bit}]")
            }
            Source::Msr(number) => write!(f, "MSR({number:X}H).{name} [bit {bit}]"),
        }
    }
}

/// Features by name, and names by feature.
static NAMES: LazyLock<Vec<(&'static str, Feature)>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for (word, Word { names: text, .. }) in (0..).zip(&WORDS) {
        let mut bit = 0;
        for name in text.split(' ').filter(|name| !name.is_empty()) {
            match name.strip_prefix('@') {
                Some(number) => bit = number.parse().unwrap_or(bit),
                None => {
                    if name != "-" {
                        names.push((name, Feature { word, bit }));
                    }
                    bit += 1;
                }
            }
        }
    }
    names
});

static BY_NAME: LazyLock<HashMap<&'static str, Feature>> = LazyLock::new(|| NAMES.iter().copied().collect());

/// Finds the feature that `text[start..end]` names.
const fn find(text: &[u8], start: usize, end: usize) -> Option<Feature> {
    let mut word = 0;
    while word < COUNT {
        let names = LIST[word].names.as_bytes();
        let (mut at, mut bit) = (0, 0);
        while at < names.len() {
            let from = at;
            while at < names.len() && names[at] != b' ' {
                at += 1;
            }
            if names[from] == b'@' {
                bit = 0;
                let mut digit = from + 1;
                while digit < at {
                    bit = bit * 10 + names[digit] - b'0';
                    digit += 1;
                }
            } else {
                if equal(names, from, at, text, start, end) {
                    return Some(Feature { word: word as u8, bit });
                }
                bit += 1;
            }
            at += 1;
        }
        word += 1;
    }
    None
}

const fn equal(a: &[u8], from: usize, to: usize, b: &[u8], start: usize, end: usize) -> bool {
    if to - from != end - start {
        return false;
    }
    let mut i = 0;
    while i < to - from {
        if a[from + i] != b[start + i] {
            return false;
        }
        i += 1;
    }
    true
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FeatureSet([u64; COUNT]);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self([0; COUNT]);

    /// The features that `names` lists, with a blank between two; a name that is none does not compile.
    const fn of(names: &str) -> Self {
        let text = names.as_bytes();
        let mut set = [0; COUNT];
        let mut at = 0;
        while at < text.len() {
            let from = at;
            while at < text.len() && text[at] != b' ' {
                at += 1;
            }
            match find(text, from, at) {
                Some(feature) => set[feature.word as usize] |= 1 << feature.bit,
                None => panic!("no feature of this name"),
            }
            at += 1;
        }
        Self(set)
    }

    /// Whether a feature is in it.
    pub fn has(&self, feature: Feature) -> bool {
        self.0[usize::from(feature.word) % COUNT] >> feature.bit & 1 != 0
    }

    /// Puts a feature in, or takes it out.
    pub fn set(&mut self, feature: Feature, present: bool) {
        let word = &mut self.0[usize::from(feature.word) % COUNT];
        let mask = 1 << feature.bit;
        *word = *word & !mask | if present { mask } else { 0 };
    }

    /// Whether there is none in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Whether all of it is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        (*self - *other).is_empty()
    }

    /// What is in it, word by word.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        Feature::all().filter(|feature| self.has(*feature))
    }

    /// The bits of the word of [`WORDS`] at `index`.
    pub fn word(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// The names of what is in it.
    pub fn names(&self) -> Vec<String> {
        self.iter().map(|feature| feature.name().to_owned()).collect()
    }
}

impl std::fmt::Debug for FeatureSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Feature::name)).finish()
    }
}

impl BitAnd for FeatureSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl BitOr for FeatureSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl Sub for FeatureSet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_own_feature() {
        assert!(Feature::all().count() > 370);
        for feature in Feature::all() {
            assert_eq!(Feature::named(feature.name()), Some(feature), "{feature}");
        }
        for (alias, name) in ALIASES {
            assert!(!BY_NAME.contains_key(alias), "{alias} is a name of its own");
            assert_eq!(Feature::named(alias).map(Feature::name), Some(name));
        }
        assert_eq!(Feature::named("wings"), None);
        assert_eq!(Feature::named("-"), None);
    }

    #[test]
    fn features_are_where_the_manuals_have_them() {
        for (name, place) in [
            ("fpu", "CPUID.01H:EDX.fpu [bit 0]"),
            ("pcid", "CPUID.01H:ECX.pcid [bit 17]"),
            ("sse4.2", "CPUID.01H:ECX.sse4.2 [bit 20]"),
            ("avx2", "CPUID.07H:EBX.avx2 [bit 5]"),
            ("umip", "CPUID.07H:ECX.umip [bit 2]"),
            ("ssbd", "CPUID.07H:EDX.ssbd [bit 31]"),
            ("lm", "CPUID.80000001H:EDX.lm [bit 29]"),
            ("topoext", "CPUID.80000001H:ECX.topoext [bit 22]"),
            ("wbnoinvd", "CPUID.80000008H:EBX.wbnoinvd [bit 9]"),
            ("kvmclock", "CPUID.40000001H:EAX.kvmclock [bit 0]"),
            ("rdctl-no", "MSR(10AH).rdctl-no [bit 0]"),
            ("vmx-nested-exception", "MSR(480H).vmx-nested-exception [bit 58]"),
        ] {
            assert_eq!(Feature::named(name).unwrap().to_string(), place);
        }
    }

    #[test]
    fn the_compiler_reads_names_as_the_program_does() {
        assert_eq!(Some(Feature::TOPOEXT), Feature::named("topoext"));
        assert_eq!(Some(Feature::ARAT), Feature::named("arat"));
        assert_eq!(ENGINE.iter().count(), 87);
        assert!(ENGINE.has(Feature::SMEP) && !ENGINE.has(Feature::named("avx512f").unwrap()));
    }

    #[test]
    fn sets_are_sets() {
        let mut set = FeatureSet::EMPTY;
        assert!(set.is_empty() && set.is_subset(&ENGINE) && !ENGINE.is_subset(&set));
        let far = Feature::named("vmx-nested-exception").unwrap();
        set.set(far, true);
        assert_eq!(set.names(), ["vmx-nested-exception"]);
        assert_eq!((set | ENGINE) - ENGINE, set);
        assert!((set & ENGINE).is_empty());
        set.set(far, false);
        assert!(set.is_empty());
    }
}
