//! Which instructions both sides have: by the features that CPUID tells of, and by name where the answer is the host's
//! own or where the instruction asks something of the kernel.

use std::sync::{LazyLock, OnceLock};

use iced_x86::{CpuidFeature, Instruction, Mnemonic};
use rhea_x86::system::cpuid::{ENGINE, Feature, FeatureSet, Source, Told, told_as};

/// EBX, EDX and ECX of CPUID's first leaf on Intel's processors: cases are judged by what these do where vendors differ.
pub const INTEL: [u32; 3] = [0x756e_6547, 0x4965_6e69, 0x6c65_746e];

/// Features that the engine does not offer yet, and that are executed all the same.
static ADDED: OnceLock<FeatureSet> = OnceLock::new();

/// Lets cases have features, by their names with commas between, that the engine does not offer yet. To be called before
/// anything else.
///
/// # Errors
/// The name that is none.
pub fn add(names: &str) -> Result<(), String> {
    let mut set = FeatureSet::EMPTY;
    for name in names.split(',') {
        set.set(Feature::named(name).ok_or_else(|| format!("there is no feature '{name}'"))?, true);
    }
    let _ = ADDED.set(set);
    Ok(())
}

/// What the engine has, and what was added.
pub fn engine() -> FeatureSet {
    ENGINE | ADDED.get().copied().unwrap_or(FeatureSet::EMPTY)
}

/// Why an instruction is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// This host's processor does not have it.
    Host,
    /// The engine does not have it.
    Engine,
    /// It calls the kernel, or comes back from it.
    Kernel,
    /// What it gives is this host's own: identification, time, random numbers.
    Own,
    /// Its answer comes from tables and registers of the kernel's.
    System,
    /// It says which of the judging process's own pages may be used.
    Keys,
}

impl LeftOut {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Host => "this host's processor does not have it",
            Self::Engine => "the engine does not have it",
            Self::Kernel => "enters the kernel, whose answer it would be",
            Self::Own => "gives what is this host's own (identification, time, random numbers)",
            Self::System => {
                "gives what is in the kernel's tables and registers, or what the kernel puts in their place"
            }
            Self::Keys => "says which of the judging process's own pages may be used",
        }
    }
}

/// Whether this host's processor has a feature.
fn host_has(feature: Feature) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Source::Cpuid { function, index, register } = feature.source() {
        use rhea_x86::system::cpuid::Register as R;
        let highest = std::arch::x86_64::__cpuid(function & 0x8000_0000).eax;
        if function > highest {
            return false;
        }
        let leaf = std::arch::x86_64::__cpuid_count(function, index.unwrap_or(0));
        let word = match register {
            R::Eax => leaf.eax,
            R::Ebx => leaf.ebx,
            R::Ecx => leaf.ecx,
            R::Edx => leaf.edx,
        };
        return word >> (feature.bit() & 31) & 1 != 0;
    }
    let _ = (feature, Source::Msr(0));
    false
}

/// Whether this host's processor is one of Intel's, which ours is in cases.
pub fn host_is_intel() -> bool {
    // Under a hypervisor CPUID takes its time.
    static ANSWER: LazyLock<bool> = LazyLock::new(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let leaf = std::arch::x86_64::__cpuid(0);
            [leaf.ebx, leaf.edx, leaf.ecx] == INTEL
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    });
    *ANSWER
}

/// Whether an instruction is left out, and why.
pub fn left_out(instruction: &Instruction) -> Option<LeftOut> {
    if instruction.is_invalid() {
        return None;
    }
    for &feature in instruction.cpuid_features() {
        let name = match told_as(feature) {
            Told::Always | Told::SixthFamily => continue,
            // Processors without it take them for NOPs.
            _ if feature == CpuidFeature::CET_IBT => continue,
            Told::As(name) => name,
            Told::Never => return Some(LeftOut::Engine),
        };
        let Some(feature) = Feature::named(name) else { return Some(LeftOut::Engine) };
        if !engine().has(feature) {
            return Some(LeftOut::Engine);
        }
        if !host_has(feature) {
            return Some(LeftOut::Host);
        }
    }
    by_name(instruction)
}

fn by_name(instruction: &Instruction) -> Option<LeftOut> {
    use Mnemonic as M;
    Some(match instruction.mnemonic() {
        M::Syscall | M::Sysenter | M::Vmcall | M::Vmmcall => LeftOut::Kernel,
        M::Cpuid | M::Rdtsc | M::Rdtscp | M::Rdpid | M::Rdrand | M::Rdseed | M::Rdpmc | M::Xgetbv => LeftOut::Own,
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => LeftOut::System,
        // Whether user code may use them is for a register of the kernel's to say.
        M::Monitor | M::Mwait => LeftOut::System,
        M::Rdpkru | M::Wrpkru => LeftOut::Keys,
        _ => return None,
    })
}
