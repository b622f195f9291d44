//! Instructions, MSRs and bits of control registers that are not there: each gives the fault that hardware gives.
//! SDM vol. 2 appendix A, vol. 3 § 2.5, 6.15 and 9.4; APM vol. 3 appendix A.

use iced_x86::{IcedError, code_asm::*};

use super::{
    Done,
    layout::selector,
    program::{Program, fault, fault_at, no_fault},
};

/// Bytes that are no instruction in 64-bit code.
const INVALID: &[(&str, &[u8])] = &[
    ("UD0", &[0x0f, 0xff, 0xc0]),
    ("UD1", &[0x0f, 0xb9, 0xc0]),
    ("UD2", &[0x0f, 0x0b]),
    ("PUSH ES", &[0x06]),
    ("POP ES", &[0x07]),
    ("PUSH CS", &[0x0e]),
    ("PUSH SS", &[0x16]),
    ("PUSH DS", &[0x1e]),
    ("POP DS", &[0x1f]),
    ("DAA", &[0x27]),
    ("DAS", &[0x2f]),
    ("AAA", &[0x37]),
    ("AAS", &[0x3f]),
    ("PUSHA", &[0x60]),
    ("POPA", &[0x61]),
    ("opcode 82", &[0x82, 0xc0, 0x01]),
    ("CALL ptr16:32", &[0x9a, 0, 0, 0, 0, 0, 0]),
    ("INTO", &[0xce]),
    ("AAM", &[0xd4, 0x0a]),
    ("AAD", &[0xd5, 0x0a]),
    ("SALC", &[0xd6]),
    ("JMP ptr16:32", &[0xea, 0, 0, 0, 0, 0, 0]),
    ("0F 04", &[0x0f, 0x04]),
    ("0F 0A", &[0x0f, 0x0a]),
    ("0F 0C", &[0x0f, 0x0c]),
    ("0F 25", &[0x0f, 0x25, 0xc0]),
    ("0F 27", &[0x0f, 0x27, 0xc0]),
    ("0F 36", &[0x0f, 0x36]),
    ("0F 39", &[0x0f, 0x39]),
    ("0F A6", &[0x0f, 0xa6, 0xc0]),
    ("0F A7", &[0x0f, 0xa7, 0xc0]),
    ("0F D6 without prefix", &[0x0f, 0xd6, 0xc0]),
    ("LEA of a register", &[0x8d, 0xc0]),
    ("LOCK MOV", &[0xf0, 0x89, 0x00]),
    ("LOCK ADD to a register", &[0xf0, 0x01, 0xc0]),
    ("LOCK CMP", &[0xf0, 0x39, 0x00]),
    ("LOCK NOP", &[0xf0, 0x90]),
    ("CMPXCHG8B of a register", &[0x0f, 0xc7, 0xc8]),
    ("group 4, 2", &[0xfe, 0xd0]),
    ("group 4, 7", &[0xfe, 0xf8]),
    ("group 5, 7", &[0xff, 0xf8]),
    ("far JMP of a register", &[0xff, 0xe8]),
    ("group 8, 0", &[0x0f, 0xba, 0xc0, 0x01]),
    ("group 8, 3", &[0x0f, 0xba, 0xd8, 0x01]),
    ("group 11, 1", &[0xc6, 0xc8, 0x00]),
    ("group 1A, 1", &[0x8f, 0xc8]),
    ("MOV to CS", &[0x8e, 0xc8]),
    ("MOV from segment register 6", &[0x8c, 0xf0]),
    ("MOV to segment register 7", &[0x8e, 0xf8]),
    ("MOV from CR1", &[0x0f, 0x20, 0xc8]),
    ("MOV from CR5", &[0x0f, 0x20, 0xe8]),
    ("MOV to CR6", &[0x0f, 0x22, 0xf0]),
    ("MOV to CR7", &[0x0f, 0x22, 0xf8]),
    ("MOV from CR9", &[0x44, 0x0f, 0x20, 0xc8]),
    ("MOV from DR8", &[0x44, 0x0f, 0x21, 0xc0]),
    ("LGDT of a register", &[0x0f, 0x01, 0xd7]),
    ("SGDT of a register 5", &[0x0f, 0x01, 0xc5]),
    ("VMCALL", &[0x0f, 0x01, 0xc1]),
    ("VMLAUNCH", &[0x0f, 0x01, 0xc2]),
    ("VMXOFF", &[0x0f, 0x01, 0xc4]),
    ("VMREAD", &[0x0f, 0x78, 0xc0]),
    ("VMPTRLD", &[0x0f, 0xc7, 0x33]),
    ("SKINIT", &[0x0f, 0x01, 0xde]),
    ("ENCLS", &[0x0f, 0x01, 0xcf]),
    ("GETSEC", &[0x0f, 0x37]),
    ("RSM outside of SMM", &[0x0f, 0xaa]),
    ("FCMOV, DA E8", &[0xda, 0xe8]),
    ("x87 D9 D1", &[0xd9, 0xd1]),
    ("x87 DB E6", &[0xdb, 0xe6]),
    ("x87 DF FC", &[0xdf, 0xfc]),
    ("EVEX", &[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0]),
    ("VEX before CR4.OSXSAVE is set", &[0xc5, 0xf8, 0x58, 0xc0]),
    ("VEX with a prefix of operand size", &[0x66, 0xc5, 0xf8, 0x58, 0xc0]),
    ("XGETBV before CR4.OSXSAVE is set", &[0x0f, 0x01, 0xd0]),
    ("XSAVE before CR4.OSXSAVE is set", &[0x0f, 0xae, 0x23]),
    ("RDFSBASE before CR4.FSGSBASE is set", &[0xf3, 0x0f, 0xae, 0xc0]),
    ("RDPKRU before CR4.PKE is set", &[0x0f, 0x01, 0xee]),
    ("XOP", &[0x8f, 0xe8, 0x78, 0xc2, 0xc0, 0x00]),
    ("MOVNTI of a register", &[0x0f, 0xc3, 0xc0]),
    ("MOVMSKPS of memory", &[0x0f, 0x50, 0x03]),
    ("group 14, 0", &[0x0f, 0x73, 0xc0, 0x01]),
    ("group 9, 0", &[0x0f, 0xc7, 0x03]),
    ("group 7, memory 5", &[0x0f, 0x01, 0x2b]),
    ("LSS of a register", &[0x0f, 0xb2, 0xc0]),
    ("BOUND, which is EVEX now", &[0x62, 0x03]),
];

/// MSRs that no processor of ours has.
const NO_MSR: &[u32] = &[
    0x05,
    0x3d,
    0x100,
    0x4ff,
    0xfff,
    0x1234_5678,
    0x4b56_4dff,
    0xbfff_ffff,
    0xc000_0079,
    0xc000_ffff,
    0xdead_beef,
    0xffff_ffff,
];

pub fn write() -> Result<Vec<u8>, IcedError> {
    let mut p = Program::new(64)?;
    // Operands in memory are at RBX, which is the stack.
    for (name, bytes) in INVALID {
        let at = p.label();
        p.case(&format!("#UD: {name}"), fault_at(6, 0, at), |p| {
            p.a.lea(rbx, ptr(rsp - 256))?;
            p.here(at)?;
            p.a.db(bytes)
        })?;
    }
    for &msr in NO_MSR {
        let at = p.label();
        p.case(&format!("#GP: RDMSR {msr:#x}"), fault_at(13, 0, at), |p| {
            p.a.mov(ecx, msr)?;
            p.here(at)?;
            p.a.rdmsr()
        })?;
        p.case(&format!("#GP: WRMSR {msr:#x}"), fault(13, 0), |p| p.write_msr(msr, 0))?;
    }
    values(&mut p)?;
    control(&mut p)?;
    length(&mut p)?;
    p.end()
}

/// MSRs that are there, and what they do not take.
fn values(p: &mut Program) -> Done {
    let cases: [(&str, u32, u64); 9] = [
        ("LSTAR that is not canonical", 0xc000_0082, 1 << 56),
        ("FS base that is not canonical", 0xc000_0100, 1 << 60),
        ("kernel GS base that is not canonical", 0xc000_0102, u64::MAX >> 1),
        ("SYSENTER_EIP that is not canonical", 0x176, 1 << 63),
        ("reserved bits of EFER", 0xc000_0080, 1 << 63 | 0xd01),
        ("a memory type that PAT does not know", 0x277, 2),
        ("a memory type beyond those of PAT", 0x277, 0x0800_0000_0000_0000),
        ("reserved bits of the local APIC's base", 0x1b, 1 << 63 | 0xfee0_0900),
        ("MTRR capabilities, which are read only", 0xfe, 0x508),
    ];
    for (name, msr, value) in cases {
        p.case(&format!("#GP: WRMSR of {name}"), fault(13, 0), |p| p.write_msr(msr, value))?;
    }
    p.case("#GP: EFER.LME while paging is on", fault(13, 0), |p| {
        p.read_msr(0xc000_0080)?;
        p.a.and(eax, !0x100)?;
        p.a.wrmsr()
    })?;
    p.case("WRMSR of what was read", vec![no_fault()], |p| {
        for msr in [0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0084, 0x174, 0x277, 0x1b] {
            p.read_msr(msr)?;
            p.a.wrmsr()?;
        }
        Ok(())
    })
}

/// Bits of control and debug registers.
fn control(p: &mut Program) -> Done {
    let cr0_cases: [(&str, u64, u64); 4] = [
        ("#GP: CR0.PG without CR0.PE", 1, 0),
        ("#GP: CR0.NW without CR0.CD", 0, 1 << 29),
        ("#GP: the upper half of CR0", 0, 1 << 32),
        ("#GP: CR0.PG off in 64-bit mode", 1 << 31, 0),
    ];
    for (name, clear, set) in cr0_cases {
        p.case(name, fault(13, 0), |p| {
            p.a.mov(rax, cr0)?;
            p.a.mov(rcx, !clear)?;
            p.a.and(rax, rcx)?;
            p.a.mov(rcx, set)?;
            p.a.or(rax, rcx)?;
            p.a.mov(cr0, rax)
        })?;
    }
    for bit in [15, 19, 25, 31, 32, 63] {
        p.case(&format!("#GP: reserved bit {bit} of CR4"), fault(13, 0), |p| {
            p.a.mov(rax, cr4)?;
            p.a.bts(rax, bit)?;
            p.a.mov(cr4, rax)
        })?;
    }
    p.case("#GP: CR4.PAE off in 64-bit mode", fault(13, 0), |p| {
        p.a.mov(rax, cr4)?;
        p.a.btr(rax, 5)?;
        p.a.mov(cr4, rax)
    })?;
    p.case("#GP: reserved bits of CR3", fault(13, 0), |p| {
        p.a.mov(rax, cr3)?;
        p.a.bts(rax, 60)?;
        p.a.mov(cr3, rax)
    })?;
    p.case("#GP: reserved bits of CR8", fault(13, 0), |p| {
        p.a.mov(eax, 16)?;
        p.a.mov(cr8, rax)
    })?;
    for (name, register) in [("DR6", dr6), ("DR7", dr7)] {
        p.case(&format!("#GP: the upper half of {name}"), fault(13, 0), |p| {
            p.a.mov(rax, 1_u64 << 32)?;
            p.a.mov(register, rax)
        })?;
    }
    p.case("DR4 is DR6 unless CR4.DE is set", vec![no_fault()], |p| p.a.db(&[0x0f, 0x21, 0xe0]))?;
    p.case("#UD: DR4 once CR4.DE is set", fault(6, 0), |p| {
        p.a.mov(rax, cr4)?;
        p.a.bts(rax, 3)?;
        p.a.mov(cr4, rax)?;
        p.a.db(&[0x0f, 0x21, 0xe0])
    })?;
    p.case("#GP: LDMXCSR of reserved bits", fault(13, 0), |p| {
        p.a.mov(dword_ptr(rsp - 8), 0x1_1f80)?;
        p.a.ldmxcsr(dword_ptr(rsp - 8))
    })?;
    let user = p.user(64, |a| {
        a.mov(rax, cr0)?;
        a.int(0x20)
    })?;
    p.case("#GP: MOV from CR0 at level 3", fault(13, 0), |p| p.enter_user(selector::USER_CODE_64, user, 2))
}

/// Instructions that are too long.
fn length(p: &mut Program) -> Done {
    p.case("15 bytes are an instruction", vec![no_fault()], |p| {
        let mut bytes = vec![0x66; 14];
        bytes.push(0x90);
        p.a.db(&bytes)
    })?;
    let at = p.label();
    p.case("#GP: 16 bytes are too long", fault_at(13, 0, at), |p| {
        let mut bytes = vec![0x66; 15];
        bytes.push(0x90);
        p.here(at)?;
        p.a.db(&bytes)
    })
}
