//! Which instructions a processor has: from the features that its CPUID tells of to the decoder's codes. SDM vol. 2 and
//! APM vol. 3, "CPUID feature flag" of each instruction.

use iced_x86::{Code, CpuidFeature, DecoderOptions, Mnemonic};

use super::{CpuidTable, Feature};

/// How a processor comes to the instructions that the decoder knows by one of its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All processors have them: they are older than CPUID.
    Always,
    /// Those from the sixth family on do, and no bit tells of it.
    SixthFamily,
    /// CPUID tells of them by this name.
    As(&'static str),
    /// No processor that can be described here has them.
    Never,
}

/// How CPUID tells of the instructions that the decoder knows by `feature`.
pub fn told_as(feature: CpuidFeature) -> Told {
    use CpuidFeature as F;
    Told::As(match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 => return Told::Always,
        F::FPU | F::FPU287 | F::FPU387 | F::RDPMC | F::CPUID | F::PAUSE => return Told::Always,
        F::MULTIBYTENOP => return Told::SixthFamily,
        F::X64 => "lm",
        F::MSR => "msr",
        F::TSC => "tsc",
        F::CX8 => "cx8",
        F::CMOV => "cmov",
        F::SEP => "sep",
        F::SYSCALL => "syscall",
        F::CLFSH => "clflush",
        F::MMX => "mmx",
        F::FXSR => "fxsr",
        F::SSE => "sse",
        F::SSE2 => "sse2",
        F::SSE3 => "pni",
        F::CMPXCHG16B => "cx16",
        F::POPCNT => "popcnt",
        F::FSGSBASE => "fsgsbase",
        F::RDTSCP => "rdtscp",
        F::PREFETCHW => "3dnowprefetch",
        F::WBNOINVD => "wbnoinvd",
        F::SSSE3 => "ssse3",
        F::SSE4_1 => "sse4.1",
        F::SSE4_2 => "sse4.2",
        F::SSE4A => "sse4a",
        F::AES => "aes",
        F::PCLMULQDQ => "pclmulqdq",
        F::MOVBE => "movbe",
        F::XSAVE => "xsave",
        F::XSAVEOPT => "xsaveopt",
        F::XSAVEC => "xsavec",
        F::XSAVES => "xsaves",
        F::RDRAND => "rdrand",
        F::RDSEED => "rdseed",
        F::AVX => "avx",
        F::AVX2 => "avx2",
        F::AVX_VNNI => "avx-vnni",
        F::AVX_IFMA => "avx-ifma",
        F::BMI1 => "bmi1",
        F::BMI2 => "bmi2",
        F::FMA => "fma",
        F::FMA4 => "fma4",
        F::F16C => "f16c",
        F::LZCNT => "abm",
        F::TBM => "tbm",
        F::ADX => "adx",
        F::CMPCCXADD => "cmpccxadd",
        F::SHA => "sha-ni",
        F::GFNI => "gfni",
        F::VAES => "vaes",
        F::VPCLMULQDQ => "vpclmulqdq",
        F::SMAP => "smap",
        F::INVPCID => "invpcid",
        F::PKU => "pku",
        F::CLFLUSHOPT => "clflushopt",
        F::CLWB => "clwb",
        F::CLZERO => "clzero",
        F::MONITOR => "monitor",
        F::RDPID => "rdpid",
        F::MOVDIRI => "movdiri",
        F::MOVDIR64B => "movdir64b",
        F::SERIALIZE => "serialize",
        F::WAITPKG => "waitpkg",
        F::RTM => "rtm",
        F::HLE => "hle",
        F::VMX => "vmx",
        F::SMX => "smx",
        F::SVM => "svm",
        F::SKINIT => "skinit",
        F::D3NOW => "3dnow",
        F::D3NOWEXT => "3dnowext",
        _ => return Told::Never,
    })
}

/// Whether processors without its feature take an instruction for one that does nothing, as all from the sixth family on
/// do in the opcodes that are reserved for hints.
fn is_hint(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Endbr32
            | M::Endbr64
            | M::Rdsspd
            | M::Rdsspq
            | M::Cldemote
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchit0
            | M::Prefetchit1
    )
}

/// Whether an instruction asks for the line of a cache, with a byte of opcodes that every 64-bit processor has.
fn is_prefetch(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Prefetch | Mnemonic::Prefetchw | Mnemonic::Prefetchwt1)
}

/// The instructions that a processor has.
#[derive(Clone, Debug)]
pub(crate) struct Instructions {
    /// A bit for each of the decoder's codes.
    codes: Vec<u64>,
    /// How the decoder reads the bytes of those that are others on a processor without their feature.
    options: u32,
}

impl Instructions {
    /// Everything that the decoder knows: to try instructions that no model offers yet.
    pub(crate) fn every() -> Self {
        Self { codes: vec![u64::MAX; Code::values().len().div_ceil(64)], options: DecoderOptions::NONE }
    }

    /// What a processor has that CPUID describes like this.
    pub(crate) fn of(table: &CpuidTable) -> Self {
        let named = |name| Feature::named(name).is_some_and(|feature| table.has(feature));
        let sixth_family = table.family() >= 6;
        let offered: Vec<bool> = CpuidFeature::values()
            .map(|feature| match told_as(feature) {
                Told::Always => true,
                Told::SixthFamily => sixth_family,
                Told::As(name) => named(name),
                Told::Never => false,
            })
            .collect();
        let prefetches = named("3dnowprefetch") || named("lm") || named("3dnow");
        let mut codes = vec![0; Code::values().len().div_ceil(64)];
        for code in Code::values() {
            let (mnemonic, features) = (code.mnemonic(), code.cpuid_features());
            let has = features.iter().all(|&feature| offered.get(feature as usize).copied().unwrap_or(false))
                || sixth_family && is_hint(mnemonic)
                || prefetches && is_prefetch(mnemonic);
            if has && let Some(word) = codes.get_mut(code as usize / 64) {
                *word |= 1 << (code as usize % 64);
            }
        }
        let mut options = DecoderOptions::NONE;
        for (name, option) in [
            // TZCNT is BSF with a prefix that means nothing, LZCNT is BSR, WBNOINVD is WBINVD.
            ("bmi1", DecoderOptions::NO_MPFX_0FBC),
            ("abm", DecoderOptions::NO_MPFX_0FBD),
            ("wbnoinvd", DecoderOptions::NO_WBNOINVD),
            ("lahf-lm", DecoderOptions::NO_LAHF_SAHF_64),
        ] {
            if !named(name) {
                options |= option;
            }
        }
        Self { codes, options }
    }

    /// Whether an instruction is one of them.
    #[inline]
    pub(crate) fn has(&self, code: Code) -> bool {
        self.codes.get(code as usize / 64).is_some_and(|word| word >> (code as usize % 64) & 1 != 0)
    }

    /// How the decoder is to read bytes.
    pub(crate) const fn options(&self) -> u32 {
        self.options
    }
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, Instruction};

    use super::*;
    use crate::system::cpuid::{CpuModel, Package, Topology};

    fn table(name: &str, changes: &[(&str, &str)]) -> CpuidTable {
        let mut model = CpuModel::named(name).unwrap();
        for (property, word) in changes {
            model.set_word(property, word).unwrap();
        }
        model.table(Topology { apic_id: 0, package: Package::new(1, 1), tsc_khz: 1_000_000, apic_khz: 1_000_000 })
    }

    fn decode(instructions: &Instructions, bits: u32, code: &[u8]) -> Instruction {
        Decoder::new(bits, code, instructions.options()).decode()
    }

    #[test]
    fn a_model_has_the_instructions_of_its_features() {
        let (old, new) = (Instructions::of(&table("486", &[])), Instructions::of(&table("qemu64", &[])));
        for (code, in_old, in_new) in [
            (&[0x0f, 0xc8][..], true, true),          // bswap eax
            (&[0x0f, 0xa2], true, true),              // cpuid
            (&[0xd9, 0xe8], true, true),              // fld1
            (&[0x0f, 0x31], false, true),             // rdtsc
            (&[0x0f, 0x40, 0xc0], false, true),       // cmovo eax, eax
            (&[0x0f, 0x1f, 0xc0], false, true),       // nop eax
            (&[0x0f, 0x18, 0x00], false, true),       // prefetchnta [eax]
            (&[0x0f, 0x0d, 0x08], false, true),       // prefetchw [eax]
            (&[0xf3, 0x0f, 0x1e, 0xfb], false, true), // endbr32
            (&[0x0f, 0x6f, 0xc0], false, true),       // movq mm0, mm0
            (&[0x0f, 0x01, 0xf9], false, false),      // rdtscp
            (&[0xf3, 0x90], true, true),              // pause
        ] {
            let instruction = decode(&new, 32, code);
            assert!(!instruction.is_invalid());
            assert_eq!(old.has(instruction.code()), in_old, "486: {:?}", instruction.code());
            assert_eq!(new.has(instruction.code()), in_new, "qemu64: {:?}", instruction.code());
        }
    }

    #[test]
    fn what_a_prefix_makes_another_instruction_is_the_old_one_without_the_feature() {
        let none = Instructions::of(&table("486", &[]));
        let every = Instructions::every();
        for (code, old, new) in [
            (&[0xf3, 0x0f, 0xbc, 0xc0][..], Mnemonic::Bsf, Mnemonic::Tzcnt),
            (&[0xf3, 0x0f, 0xbd, 0xc0], Mnemonic::Bsr, Mnemonic::Lzcnt),
            (&[0xf3, 0x0f, 0x09], Mnemonic::Wbinvd, Mnemonic::Wbnoinvd),
        ] {
            assert_eq!(decode(&none, 32, code).mnemonic(), old);
            assert!(none.has(decode(&none, 32, code).code()));
            assert_eq!(decode(&every, 32, code).mnemonic(), new);
        }
        let without = Instructions::of(&table("qemu64", &[("lahf-lm", "off")]));
        assert!(decode(&without, 64, &[0x9f]).is_invalid() && !decode(&without, 32, &[0x9f]).is_invalid());
        let with = Instructions::of(&table("qemu64", &[]));
        assert_eq!(
            with.has(decode(&with, 64, &[0x9f]).code()),
            table("qemu64", &[]).has(Feature::named("lahf-lm").unwrap())
        );
    }
}
