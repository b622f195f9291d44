//! How fast the processor runs three small loops, in guest instructions a second: `cargo run --release --example instruction_speed`.
//! Names of loops as arguments run those alone.

use std::time::Instant;

use rhea_x86::engine::testing::{DATA, Machine, Stop};

/// A loop: its name, its code, and how often RCX lets it run.
type Loop = (&'static str, &'static [u8], u64);

const LOOPS: [Loop; 5] = [
    // Arithmetic on registers, as a hash function does it.
    (
        "integer",
        &[
            0x48, 0x01, 0xc8, // again: add rax, rcx
            0x48, 0x89, 0xc2, // mov rdx, rax
            0x48, 0xc1, 0xea, 0x07, // shr rdx, 7
            0x48, 0x31, 0xd0, // xor rax, rdx
            0x8d, 0x5c, 0x83, 0x11, // lea ebx, [rbx + 4*rax + 17]
            0x48, 0x85, 0xdb, // test rbx, rbx
            0x74, 0x03, // jz skip
            0x48, 0xff, 0xc3, // inc rbx
            0x48, 0xff, 0xc9, // skip: dec rcx
            0x75, 0xe2, // jnz again
        ],
        20_000_000,
    ),
    // Loads, a store and a read-modify-write in one page.
    (
        "memory",
        &[
            0x89, 0xc8, // again: mov eax, ecx
            0x25, 0xf8, 0x07, 0x00, 0x00, // and eax, 0x7f8
            0x48, 0x8b, 0x14, 0x06, // mov rdx, [rsi + rax]
            0x48, 0x01, 0xca, // add rdx, rcx
            0x48, 0x89, 0x14, 0x06, // mov [rsi + rax], rdx
            0x48, 0x03, 0x5e, 0x10, // add rbx, [rsi + 16]
            0x48, 0xff, 0x86, 0x00, 0x08, 0x00, 0x00, // inc qword [rsi + 0x800]
            0x0f, 0xb6, 0x3e, // movzx edi, byte [rsi]
            0x48, 0xff, 0xc9, // dec rcx
            0x75, 0xdb, // jnz again
        ],
        20_000_000,
    ),
    // Calls, returns, pushes and pops.
    (
        "call",
        &[
            0xe8, 0x05, 0x00, 0x00, 0x00, // again: call function
            0xff, 0xc9, // dec ecx
            0x75, 0xf7, // jnz again
            0xf4, // hlt
            0x55, // function: push rbp
            0x48, 0x89, 0xe5, // mov rbp, rsp
            0xff, 0xc0, // inc eax
            0x5d, // pop rbp
            0xc3, // ret
        ],
        20_000_000,
    ),
    // Conditional jumps that go either way, each block short.
    (
        "branch",
        &[
            0x69, 0xc0, 0x0d, 0x66, 0x19, 0x00, // again: imul eax, eax, 1664525
            0x05, 0x5f, 0xf3, 0x6e, 0x3c, // add eax, 1013904223
            0x85, 0xc0, // test eax, eax
            0x78, 0x04, // js one
            0xff, 0xc3, // inc ebx
            0xeb, 0x02, // jmp two
            0xff, 0xcb, // one: dec ebx
            0xa9, 0x00, 0x00, 0x01, 0x00, // two: test eax, 0x10000
            0x75, 0x02, // jnz three
            0xff, 0xc3, // inc ebx
            0xff, 0xc9, // three: dec ecx
            0x75, 0xde, // jnz again
        ],
        20_000_000,
    ),
    // A page at a time by string instructions.
    (
        "string",
        &[
            0x51, // again: push rcx
            0x48, 0x8d, 0xbe, 0x00, 0x00, 0x10, 0x00, // lea rdi, [rsi + 0x100000]
            0xb9, 0x00, 0x02, 0x00, 0x00, // mov ecx, 512
            0x56, // push rsi
            0xf3, 0x48, 0xa5, // rep movsq
            0x5e, // pop rsi
            0x59, // pop rcx
            0xff, 0xc9, // dec ecx
            0x75, 0xe9, // jnz again
        ],
        200_000,
    ),
];

/// Code that runs once: what finding, decoding and keeping a block costs.
fn cold() {
    const BLOCKS: usize = 60_000;
    // mov rax, [rsi + 8]; add rax, rcx; cmp rax, rbx; lea rdx, [rax + 4]; test edx, edx; jmp to the next
    let block =
        [0x48, 0x8b, 0x46, 0x08, 0x48, 0x01, 0xc8, 0x48, 0x39, 0xd8, 0x48, 0x8d, 0x50, 0x04, 0x85, 0xd2, 0xeb, 0x00];
    let mut machine = Machine::new(&[0xff, 0xe0], 64); // jmp rax
    let mut code = block.repeat(BLOCKS);
    code.push(0xf4);
    machine.memory.write(1 << 20, &code);
    machine.cpu().gpr[0] = 1 << 20;
    let start = Instant::now();
    let stop = machine.run();
    let took = start.elapsed().as_secs_f64();
    println!("cold     {:7.1} ns a block of 6 instructions ({stop:?})", took * 1e9 / BLOCKS as f64);
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if wanted("cold") {
        cold();
    }
    for (name, code, times) in LOOPS {
        if !wanted(name) {
            continue;
        }
        let mut machine = Machine::new(code, 64);
        let cpu = machine.cpu();
        cpu.gpr[1] = times;
        cpu.gpr[6] = DATA;
        let start = Instant::now();
        let stop = machine.run();
        let took = start.elapsed().as_secs_f64();
        if stop != Stop::Halted {
            println!("{name:8} stopped at {:#x}: {stop:?}", machine.cpu().rip);
            continue;
        }
        let count = machine.vcpu.instructions() as f64;
        println!("{name:8} {:7.1} M instructions/s, {:5.2} ns each", count / took / 1e6, took * 1e9 / count);
    }
}
