//! Whether every instruction that the engine offers is executed by some family, and which ones that the decoder knows are
//! not.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Code, CpuidFeature, EncodingKind, Instruction, OpCodeInfo, OpCodeOperandKind, OpKind, Register, RoundingControl,
};

use crate::{
    decode::{FAMILIES, lower},
    engine::{Mode, testing::Machine},
    op::Op,
    state::CpuState,
    system::cpuid::{
        ENGINE, Feature,
        instructions::{Told, told_as},
    },
    trap::{Exception, Trap},
};

extern "C" fn undefined(cpu: &mut CpuState, _: &Op) -> Result<(), Trap> {
    Err(cpu.raise(Exception::INVALID_OPCODE))
}

/// Whether the engine offers what the decoder knows as `feature`.
fn offered(feature: CpuidFeature) -> bool {
    match told_as(feature) {
        Told::Always | Told::SixthFamily => true,
        Told::As(name) => Feature::named(name).is_some_and(|feature| ENGINE.has(feature)),
        Told::Never => false,
    }
}

/// Features that bring no instruction: they are in control registers, in MSRs, in page tables or in how CPUID answers.
const WITHOUT_INSTRUCTIONS: &str = "fpu vme de pse pae mce apic mtrr pge mca pat pse36 ss ht x2apic hypervisor smep erms \
    umip fsrm arat invtsc nx mmxext pdpe1gb lahf-lm cmp-legacy topoext pcid la57 pks fzrm fsrs fsrc xsaveerptr tsc-deadline tsc-adjust xgetbv1";

#[test]
fn every_feature_of_the_engine_is_known_to_have_instructions_or_not() {
    let told = |feature| match told_as(feature) {
        Told::As(name) => Some(name),
        _ => None,
    };
    let with: BTreeSet<&str> = CpuidFeature::values().filter_map(told).collect();
    for feature in ENGINE.iter() {
        let without = WITHOUT_INSTRUCTIONS.split_whitespace().any(|name| name == feature.name());
        assert!(with.contains(feature.name()) != without, "{feature}");
    }
}

#[test]
fn instructions_are_told_of_by_features_that_there_are() {
    for feature in CpuidFeature::values() {
        if let Told::As(name) = told_as(feature) {
            assert!(Feature::named(name).is_some(), "{feature:?} as {name}");
        }
    }
}

/// Sets operand `number` to one of `kind`: memory where both are possible and `memory` says so.
fn set_operand(instruction: &mut Instruction, number: u32, kind: OpCodeOperandKind, memory: bool, bits: u8) {
    let name = format!("{kind:?}");
    let or_memory = name.contains("_or_mem");
    let register = match name.split('_').next().unwrap_or("") {
        "r8" => Register::CL,
        "r16" => Register::CX,
        "r32" => Register::ECX,
        "r64" => Register::RCX,
        "mm" => Register::MM1,
        "xmm" | "xmmp3" => Register::XMM1,
        "ymm" => Register::YMM1,
        "cr" => Register::CR0,
        "dr" => Register::DR1,
        "tr" => Register::TR3,
        "bnd" => Register::BND1,
        "seg" if name == "seg_reg" => Register::DS,
        "es" if name == "es" => Register::ES,
        "cs" => Register::CS,
        "ss" => Register::SS,
        "ds" => Register::DS,
        "fs" => Register::FS,
        "gs" => Register::GS,
        "al" => Register::AL,
        "cl" => Register::CL,
        "ax" => Register::AX,
        "dx" => Register::DX,
        "eax" => Register::EAX,
        "rax" => Register::RAX,
        "st0" => Register::ST0,
        "sti" => Register::ST1,
        _ => Register::None,
    };
    if register != Register::None && !(or_memory && memory) {
        instruction.set_op_kind(number, OpKind::Register);
        instruction.set_op_register(number, register);
        return;
    }
    let kind = match (name.as_str(), bits) {
        ("seg_rSI", 16) => OpKind::MemorySegSI,
        ("seg_rSI", 32) => OpKind::MemorySegESI,
        ("seg_rSI", _) => OpKind::MemorySegRSI,
        ("seg_rDI", 16) => OpKind::MemorySegDI,
        ("seg_rDI", 32) => OpKind::MemorySegEDI,
        ("seg_rDI", _) => OpKind::MemorySegRDI,
        ("es_rDI", 16) => OpKind::MemoryESDI,
        ("es_rDI", 32) => OpKind::MemoryESEDI,
        ("es_rDI", _) => OpKind::MemoryESRDI,
        ("farbr2_2", _) => OpKind::FarBranch16,
        ("farbr4_2", _) => OpKind::FarBranch32,
        ("imm8sex16", _) => OpKind::Immediate8to16,
        ("imm8sex32", _) => OpKind::Immediate8to32,
        ("imm8sex64", _) => OpKind::Immediate8to64,
        ("imm16", _) => OpKind::Immediate16,
        ("imm32", _) => OpKind::Immediate32,
        ("imm32sex64", _) => OpKind::Immediate32to64,
        ("imm64", _) => OpKind::Immediate64,
        (name, _) if name.starts_with("imm8") && number > 0 && has_immediate(instruction, number) => {
            OpKind::Immediate8_2nd
        }
        (name, _) if name.starts_with("imm") => OpKind::Immediate8,
        (name, 64) if name.starts_with("br") || name.starts_with("xbegin") => OpKind::NearBranch64,
        (name, 32) if name.starts_with("br") || name.starts_with("xbegin") => OpKind::NearBranch32,
        (name, _) if name.starts_with("br") || name.starts_with("xbegin") => OpKind::NearBranch16,
        _ => {
            let base = match (bits, name.contains("rBX")) {
                (16, _) => Register::BX,
                (32, true) => Register::EBX,
                (_, true) => Register::RBX,
                (32, _) => Register::ESI,
                _ => Register::RSI,
            };
            instruction.set_memory_base(base);
            instruction.set_memory_displ_size(1);
            if name.contains("vsib") {
                let narrow = name.ends_with('x');
                instruction.set_memory_index(if narrow { Register::XMM2 } else { Register::YMM2 });
            }
            OpKind::Memory
        }
    };
    instruction.set_op_kind(number, kind);
}

fn has_immediate(instruction: &Instruction, before: u32) -> bool {
    (0..before).any(|i| matches!(instruction.op_kind(i), OpKind::Immediate8 | OpKind::Immediate16))
}

/// The instruction of a code with some operands, as the decoder gives it in `bits`-bit code.
fn instruction(info: &OpCodeInfo, memory: bool, bits: u8) -> Instruction {
    let mut instruction = Instruction::default();
    instruction.set_code(info.code());
    instruction.set_rounding_control(RoundingControl::None);
    for (number, &kind) in (0..).zip(info.op_kinds()) {
        set_operand(&mut instruction, number, kind, memory, bits);
    }
    instruction
}

/// Whether the decoder, as it is built here, gives a code in `bits`-bit code.
fn is_decoded(info: &OpCodeInfo, bits: u8) -> bool {
    let in_mode = match bits {
        16 => info.mode16(),
        32 => info.mode32(),
        _ => info.mode64(),
    };
    // Those with a WAIT in front are two instructions to it.
    in_mode
        && info.is_instruction()
        && !info.fwait()
        && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
        && !info.code().cpuid_features().contains(&CpuidFeature::KNC)
}

/// The codes of `bits`-bit code that no family executes.
fn without_handler(bits: u8) -> Vec<Code> {
    let mode = Machine::new(&[], bits).cpu().mode();
    let mut known = 0;
    let missing = Code::values().filter(|code| {
        let info = code.op_code();
        if !is_decoded(info, bits) {
            return false;
        }
        known += 1;
        [false, true].into_iter().any(|memory| {
            let instruction = instruction(info, memory, bits);
            let (mut op, mut form) = lower(&instruction, bits, undefined);
            // Real mode has no VEX, 16-bit code of protected mode has.
            form.mode = mode | Mode::PROTECTED;
            !FAMILIES.iter().any(|family| family(&instruction, &form, &mut op).is_some())
        })
    });
    let missing = missing.collect();
    assert!(known > 1500, "the decoder knows {known} codes of {bits}-bit code");
    missing
}

#[test]
fn every_instruction_that_the_engine_offers_has_a_handler() {
    for bits in [16, 32, 64] {
        let missing: Vec<_> = without_handler(bits)
            .into_iter()
            .filter(|code| code.cpuid_features().iter().all(|&feature| offered(feature)))
            .collect();
        assert!(missing.is_empty(), "{bits}-bit code: {missing:?}");
    }
}

/// Prints them: `cargo test -p rhea-x86 what_the_decoder_knows -- --nocapture`.
#[test]
fn what_the_decoder_knows_and_the_engine_does_not_is_of_no_feature_that_is_offered() {
    let mut by_feature: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for bits in [16, 32, 64] {
        for code in without_handler(bits) {
            let features: Vec<_> = code.cpuid_features().iter().map(|feature| format!("{feature:?}")).collect();
            by_feature.entry(features.join(" and ")).or_default().insert(format!("{code:?}"));
        }
    }
    let count: usize = by_feature.values().map(BTreeSet::len).sum();
    println!("{count} instructions that the decoder knows and the engine does not, by what brings them:");
    for (features, codes) in &by_feature {
        println!("{features} ({}): {}", codes.len(), codes.iter().cloned().collect::<Vec<_>>().join(" "));
    }
    for code in ["Vmxoff", "Rsm"] {
        assert!(by_feature.values().any(|codes| codes.contains(code)), "{code} is executed");
    }
    assert!(!by_feature.values().any(|codes| codes.contains("Nopw") || codes.contains("Cpuid")));
}
