//! Whether every instruction that the processor's model has is executed by some family.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction};

use crate::{
    decode::{Form, lower},
    engine::testing::{CODE, Machine},
    op::{Handler, Op},
    state::CpuState,
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

/// What the model `qemu64` has of what the decoder knows, and what every processor takes for a NOP.
fn offered(feature: CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::INTEL8086
            | CpuidFeature::INTEL186
            | CpuidFeature::INTEL286
            | CpuidFeature::INTEL386
            | CpuidFeature::INTEL486
            | CpuidFeature::FPU
            | CpuidFeature::FPU287
            | CpuidFeature::FPU387
            | CpuidFeature::X64
            | CpuidFeature::MSR
            | CpuidFeature::TSC
            | CpuidFeature::RDPMC
            | CpuidFeature::CPUID
            | CpuidFeature::CX8
            | CpuidFeature::CMOV
            | CpuidFeature::SEP
            | CpuidFeature::SYSCALL
            | CpuidFeature::CLFSH
            | CpuidFeature::MMX
            | CpuidFeature::FXSR
            | CpuidFeature::SSE
            | CpuidFeature::SSE2
            | CpuidFeature::SSE3
            | CpuidFeature::CMPXCHG16B
            | CpuidFeature::POPCNT
            | CpuidFeature::MULTIBYTENOP
            | CpuidFeature::PAUSE
            | CpuidFeature::CET_IBT
    )
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
fn every_instruction_of_the_model_has_a_handler() {
    for bits in [16, 32, 64] {
        assert_eq!(missing(bits), BTreeSet::new(), "{bits}-bit code");
    }
}
