//! Whether every instruction that the processor's model has is executed by some family.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction};

use crate::{
    decode::{Form, lower},
    engine::testing::{CODE, Machine},
    op::{Handler, Op},
    state::CpuState,
    system::cpuid::{ENGINE, Feature},
    trap::{Exception, Trap},
};

type Select = fn(&Instruction, &Form, &mut Op) -> Option<Handler>;

extern "C" fn undefined(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Err(cpu.raise(Exception::INVALID_OPCODE))
}

/// Every instruction of the one- and two-byte opcode maps, once for each of its codes.
fn instructions(bits: u8) -> BTreeMap<u32, Instruction> {
    let mut found = BTreeMap::new();
    let prefixes: [&[u8]; 8] = [&[], &[0x66], &[0xf2], &[0xf3], &[0x48], &[0x66, 0x48], &[0xf3, 0x48], &[0x67]];
    for prefix in prefixes {
        for map in [&[][..], &[0x0f]] {
            for opcode in 0..=255 {
                for modrm in 0..=255 {
                    let mut bytes = [0_u8; 15];
                    let head = [prefix, map, &[opcode, modrm]].concat();
                    bytes[..head.len()].copy_from_slice(&head);
                    let instruction = Decoder::with_ip(u32::from(bits), &bytes, CODE, DecoderOptions::NONE).decode();
                    if !instruction.is_invalid() {
                        found.entry(instruction.code() as u32).or_insert(instruction);
                    }
                }
            }
        }
    }
    found
}

/// The name of the feature that CPUID tells of if a processor has the instructions that the decoder knows by `feature`;
/// nothing for those that are older than CPUID, and for what processors without the feature take for a NOP.
fn told_as(feature: CpuidFeature) -> Option<&'static str> {
    use CpuidFeature as F;
    Some(match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::FPU | F::FPU287 | F::FPU387 => {
            return None;
        }
        F::RDPMC | F::CPUID | F::MULTIBYTENOP | F::PAUSE | F::CET_IBT => return None,
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
        F::RDRAND => "rdrand",
        F::RDSEED => "rdseed",
        F::AVX => "avx",
        F::AVX2 => "avx2",
        F::BMI1 => "bmi1",
        F::BMI2 => "bmi2",
        F::FMA => "fma",
        F::F16C => "f16c",
        F::LZCNT => "abm",
        F::ADX => "adx",
        F::SHA => "sha-ni",
        F::SMAP => "smap",
        F::INVPCID => "invpcid",
        F::CLFLUSHOPT => "clflushopt",
        F::CLWB => "clwb",
        F::CLZERO => "clzero",
        F::MONITOR => "monitor",
        F::RDPID => "rdpid",
        F::VMX => "vmx",
        F::SVM => "svm",
        F::D3NOW => "3dnow",
        // Whoever offers more finds it missing here.
        _ => return Some(""),
    })
}

/// Whether the engine offers what the decoder knows as `feature`.
fn offered(feature: CpuidFeature) -> bool {
    told_as(feature).is_none_or(|name| Feature::named(name).is_some_and(|feature| ENGINE.has(feature)))
}

/// Features that bring no instruction: they are in control registers, in MSRs, in page tables or in how CPUID answers.
const WITHOUT_INSTRUCTIONS: &str = "fpu de pse pae mce apic mtrr pge mca pat pse36 ss ht x2apic hypervisor smep erms umip \
    fsrm arat invtsc nx mmxext pdpe1gb lahf-lm cmp-legacy topoext";

#[test]
fn every_feature_of_the_engine_is_known_to_have_instructions_or_not() {
    let with: BTreeSet<&str> = CpuidFeature::values().filter_map(told_as).filter(|name| !name.is_empty()).collect();
    for feature in ENGINE.iter() {
        let without = WITHOUT_INSTRUCTIONS.split_whitespace().any(|name| name == feature.name());
        assert!(with.contains(feature.name()) != without, "{feature}");
    }
}

fn missing(bits: u8) -> BTreeSet<String> {
    let mode = Machine::new(&[], bits).cpu().mode();
    let families: [Select; 5] = [
        crate::integer::select,
        crate::system::select,
        crate::protection::select,
        crate::simd::select,
        crate::x87::select,
    ];
    let mut missing = BTreeSet::new();
    let instructions = instructions(bits);
    assert!(instructions.len() > 800, "the opcode maps were walked");
    for instruction in instructions.values() {
        let (mut op, mut form) = lower(instruction, bits, undefined);
        form.mode = mode;
        let features = instruction.cpuid_features();
        if features.iter().all(|&feature| offered(feature))
            && !families.iter().any(|family| family(instruction, &form, &mut op).is_some())
        {
            missing.insert(format!("{:?}", instruction.code()));
        }
    }
    missing
}

#[test]
fn every_instruction_that_the_engine_offers_has_a_handler() {
    for bits in [16, 32, 64] {
        assert_eq!(missing(bits), BTreeSet::new(), "{bits}-bit code");
    }
}
