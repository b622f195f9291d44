//! The process that executes cases on the host's processor.
//!
//! Linux does most of it: a case ends in a fault, the signal's handler finds all registers in the frame that the kernel
//! made, puts those of the next case in their place, and returns into it. What the frame does not hold (segment
//! registers, bases, ID and NT) is loaded by the handler itself. System calls are shut off first, so that no case can do
//! more than spoil this process.

use std::{
    arch::{asm, naked_asm},
    cell::UnsafeCell,
    io,
    mem::{self, offset_of},
    ptr,
};

use super::shared::{CHANGED_WORDS, CodePage, Shared};
use crate::{
    layout::{self, CODE, DATA, FILLER, PAGE, READ_ONLY, STACK, WORDS},
    segments::DESCRIPTORS,
};

/// Bits of RFLAGS that a return from a signal does not load, and that user code can set: ID and NT.
const LOADED_BY_HAND: u64 = 1 << 21 | 1 << 14;
/// RF, which the processor sets in what it saves at a fault.
const RESUME: u64 = 1 << 16;
/// Bits of `uc_flags`: the frame has SS, and the return is to load it.
const RESTORE_SS: u64 = 6;
/// Where the frame's vector state has its header, and the state of the x87 and SSE.
const XSTATE_BV: usize = 512;
const XMM: usize = 160;
const MXCSR: usize = 24;
const X87: usize = 32;
/// Bytes of the stack of handlers.
const HANDLER_STACK: usize = 1 << 18;

/// What the handler works with; there is one thread.
struct Context {
    shared: *mut Shared,
    /// Where the frame has the high halves of YMM registers; 0 if the host has none.
    ymm_offset: usize,
    /// A case runs.
    running: bool,
    /// What to go back to after the batch.
    home: [i64; 23],
    home_fs_base: u64,
    background: [u64; WORDS],
}

struct Static(UnsafeCell<Context>);
// SAFETY: the process has one thread; the handler does not interrupt itself, since signals are blocked in it.
unsafe impl Sync for Static {}

static CONTEXT: Static = Static(UnsafeCell::new(Context {
    shared: ptr::null_mut(),
    ymm_offset: 0,
    running: false,
    home: [0; 23],
    home_fs_base: 0,
    background: [0; WORDS],
}));

/// What the kernel calls. The case may have left AC set, under which compiled code does not run. The handler gives the
/// bits of RFLAGS that are loaded by hand.
#[unsafe(naked)]
extern "C" fn entry() {
    naked_asm!(
        "pushfq",
        "and qword ptr [rsp], {keep}",
        "popfq",
        "cld",
        "sub rsp, 8",
        "call {handler}",
        "mov [rsp], rax",
        "popfq",
        "ret",
        keep = const -0x4_4401_i32,
        handler = sym handler,
    )
}

/// Stores a finished case, and prepares the next or the way home.
extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, frame: *mut libc::ucontext_t) -> u64 {
    // SAFETY: the kernel gives a frame that is ours until the handler returns; `CONTEXT` is used by one thread, and
    // `run` set it up before the first signal. Nothing here uses storage of a thread, whose base the case may have moved.
    unsafe {
        let context = &mut *CONTEXT.0.get();
        let frame = &mut *frame;
        let shared = &mut *context.shared;
        if context.running {
            store(context, shared, frame);
            shared.done += 1;
        } else {
            context.running = true;
            context.home = frame.uc_mcontext.gregs;
            // Past the UD2 of two bytes.
            context.home[libc::REG_RIP as usize] += 2;
            context.home_fs_base = read_fs_base();
        }
        frame.uc_flags |= RESTORE_SS;
        let full = shared.changed_count as usize > CHANGED_WORDS - WORDS;
        if shared.done < shared.count && !full {
            load(context, shared, frame)
        } else {
            context.running = false;
            frame.uc_mcontext.gregs = context.home;
            let state = frame.uc_mcontext.fpregs.cast::<u8>();
            put(state, XSTATE_BV, get::<u64>(state, XSTATE_BV) & !7);
            put(state, MXCSR, 0x1f80_u32);
            set_data_segments(0, 0, 0, 0);
            asm!("wrfsbase {}", in(reg) context.home_fs_base, options(nostack, preserves_flags));
            context.home[libc::REG_EFL as usize] as u64 & 0x8d5 | 2
        }
    }
}

fn read_fs_base() -> u64 {
    let base;
    // SAFETY: reads a register.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
    base
}

/// # Safety
/// The value is in the frame's state.
unsafe fn get<T>(state: *const u8, at: usize) -> T {
    // SAFETY: by the caller.
    unsafe { state.add(at).cast::<T>().read_unaligned() }
}

/// # Safety
/// The value is in the frame's state.
unsafe fn put<T>(state: *mut u8, at: usize, value: T) {
    // SAFETY: by the caller.
    unsafe { state.add(at).cast::<T>().write_unaligned(value) }
}

/// # Safety
/// The selectors are null or of data segments. The bases of FS and GS are lost.
unsafe fn set_data_segments(es: u16, ds: u16, fs: u16, gs: u16) {
    // SAFETY: compiled 64-bit code does not depend on ES and DS; on FS it does in functions of the library, which are not
    // called before its base is back.
    unsafe {
        asm!(
            "mov es, {es:x}", "mov ds, {ds:x}", "mov fs, {fs:x}", "mov gs, {gs:x}",
            es = in(reg) es, ds = in(reg) ds, fs = in(reg) fs, gs = in(reg) gs,
            options(nostack, preserves_flags),
        );
    }
}

const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Takes what the case came to out of the frame and of memory, and makes memory what it was.
///
/// # Safety
/// As in [`handler`].
unsafe fn store(context: &Context, shared: &mut Shared, frame: &libc::ucontext_t) {
    let general = &frame.uc_mcontext.gregs;
    let output = &mut shared.outputs[shared.done as usize];
    let registers = &mut output.registers;
    for (to, from) in registers.gpr.iter_mut().zip(REGISTERS) {
        *to = general[from as usize] as u64;
    }
    registers.rip = general[libc::REG_RIP as usize] as u64;
    registers.rflags = general[libc::REG_EFL as usize] as u64 & !RESUME;
    output.vector = general[libc::REG_TRAPNO as usize] as u32;
    output.error = general[libc::REG_ERR as usize] as u32;
    output.cr2 = general[libc::REG_CR2 as usize] as u64;
    let code_and_stack = general[libc::REG_CSGSFS as usize] as u64;
    let (es, ds, fs, gs): (u64, u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            "mov {es:r}, es", "mov {ds:r}, ds", "mov {fs:r}, fs", "mov {gs:r}, gs",
            "rdfsbase {fs_base}", "rdgsbase {gs_base}",
            es = out(reg) es, ds = out(reg) ds, fs = out(reg) fs, gs = out(reg) gs,
            fs_base = out(reg) registers.fs_base, gs_base = out(reg) registers.gs_base,
            options(nomem, nostack, preserves_flags),
        );
    }
    registers.selectors =
        [es as u16, code_and_stack as u16, (code_and_stack >> 48) as u16, ds as u16, fs as u16, gs as u16];
    let state = frame.uc_mcontext.fpregs.cast::<u8>().cast_const();
    // SAFETY: the kernel saved all of the state there.
    unsafe {
        registers.control = get(state, 0);
        registers.status = get(state, 2);
        registers.valid = u16::from(get::<u8>(state, 4));
        registers.mxcsr = get(state, MXCSR);
        let top = usize::from(registers.status >> 11 & 7);
        let present: u64 = get(state, XSTATE_BV);
        for i in 0..8 {
            registers.x87[(top + i) & 7] = get::<u128>(state, X87 + 16 * i) & ((1 << 80) - 1);
        }
        for (i, register) in registers.vector.iter_mut().enumerate() {
            register[0] = if present & 2 != 0 { get(state, XMM + 16 * i) } else { 0 };
            let high = present & 4 != 0 && context.ymm_offset != 0;
            register[1] = if high { get(state, context.ymm_offset + 16 * i) } else { 0 };
        }
        if present & 1 == 0 {
            (registers.control, registers.status, registers.valid, registers.x87) = (0x37f, 0, 0, [0; 8]);
        }
    }
    output.changed = shared.changed_count;
    for (word, background) in context.background.iter().enumerate() {
        let at = layout::address_of(word) as *mut u64;
        // SAFETY: these pages are ours, mapped to be read and written.
        let value = unsafe { at.read_volatile() };
        if value != *background {
            let entry = &mut shared.changed[shared.changed_count as usize % CHANGED_WORDS];
            (entry.word, entry.value) = (word as u32, value);
            shared.changed_count += 1;
            // SAFETY: as above.
            unsafe { at.write_volatile(*background) };
        }
    }
    output.count = shared.changed_count - output.changed;
}

/// Puts the next case in place. Gives the bits of RFLAGS that are loaded by hand.
///
/// # Safety
/// As in [`handler`].
unsafe fn load(context: &Context, shared: &mut Shared, frame: &mut libc::ucontext_t) -> u64 {
    let input = &shared.inputs[shared.done as usize];
    let registers = &input.registers;
    shared.code.0.fill(FILLER);
    for (to, from) in shared.code.0[input.code_offset as usize % 4096..]
        .iter_mut()
        .zip(&input.code[..input.code_length as usize % 17])
    {
        *to = *from;
    }
    for patch in &input.patches {
        for i in 0..patch.count {
            let at = layout::address_of((patch.word + i) as usize % WORDS) as *mut u64;
            let value = shared.patches[(patch.from + i) as usize % shared.patches.len()];
            // SAFETY: these pages are ours, mapped to be read and written.
            unsafe { at.write_volatile(value) };
        }
    }
    let general = &mut frame.uc_mcontext.gregs;
    for (from, to) in registers.gpr.iter().zip(REGISTERS) {
        general[to as usize] = *from as i64;
    }
    general[libc::REG_RIP as usize] = registers.rip as i64;
    general[libc::REG_EFL as usize] = registers.rflags as i64;
    let [es, cs, ss, ds, fs, gs] = registers.selectors;
    general[libc::REG_CSGSFS as usize] = (u64::from(cs) | u64::from(ss) << 48) as i64;
    let state = frame.uc_mcontext.fpregs.cast::<u8>();
    // SAFETY: the kernel made room for all of the state there.
    unsafe {
        put(state, 0, registers.control);
        put(state, 2, registers.status);
        put(state, 4, registers.valid as u8);
        put(state, 6, 0_u16);
        put(state, 8, 0_u64);
        put(state, 16, 0_u64);
        put(state, MXCSR, registers.mxcsr);
        let top = usize::from(registers.status >> 11 & 7);
        for i in 0..8 {
            put(state, X87 + 16 * i, registers.x87[(top + i) & 7]);
        }
        for (i, register) in registers.vector.iter().enumerate() {
            put(state, XMM + 16 * i, register[0]);
            if context.ymm_offset != 0 {
                put(state, context.ymm_offset + 16 * i, register[1]);
            }
        }
        let parts = if context.ymm_offset != 0 { 7 } else { 3 };
        put(state, XSTATE_BV, get::<u64>(state, XSTATE_BV) | parts);
        set_data_segments(es, ds, fs, gs);
        if fs == 0 {
            asm!("wrfsbase {}", in(reg) registers.fs_base, options(nostack, preserves_flags));
        }
        if gs == 0 {
            asm!("wrgsbase {}", in(reg) registers.gs_base, options(nostack, preserves_flags));
        }
    }
    registers.rflags & LOADED_BY_HAND | 2
}

/// Maps `length` bytes at a fixed address.
fn map_at(address: u64, length: u64, protection: i32, file: Option<(i32, i64)>) -> io::Result<()> {
    let (descriptor, offset) = file.unwrap_or((-1, 0));
    let kind = if file.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
    let flags = kind | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    // SAFETY: the address is free, or the call fails.
    let at = unsafe { libc::mmap(address as *mut _, length as usize, protection, flags, descriptor, offset) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Fills pages with the background.
fn fill(address: u64, length: u64) {
    for at in (address..address + length).step_by(8) {
        // SAFETY: the pages are mapped, and ours.
        unsafe { (at as *mut u64).write_volatile(layout::background(at)) };
    }
}

/// Makes the local descriptor table.
fn set_local_descriptors() -> io::Result<()> {
    const MODIFY_LDT_WRITE: i32 = 0x11;
    for descriptor in DESCRIPTORS.iter().filter(|descriptor| descriptor.local()) {
        let attributes = u32::from(descriptor.attributes);
        // struct user_desc of asm/ldt.h: number, base, limit, then bits: the size, code and expand-down or conforming as they
        // are in the type, what is the opposite of writable or readable, the granularity, and absent.
        let opposite = |bit: u32| !attributes >> bit & 1;
        let bits = (attributes >> 14 & 1)
            | (attributes >> 2 & 3) << 1
            | opposite(1) << 3
            | (attributes >> 15 & 1) << 4
            | opposite(7) << 5;
        let description = [u32::from(descriptor.selector >> 3), descriptor.base, descriptor.limit, bits];
        // SAFETY: the structure is what the system call expects.
        let result = unsafe {
            libc::syscall(libc::SYS_modify_ldt, MODIFY_LDT_WRITE, description.as_ptr(), size_of_val(&description))
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where the high halves of YMM registers are saved, if the host has them (SDM vol. 1 § 13.5.3).
fn ymm_offset() -> usize {
    if !std::arch::is_x86_feature_detected!("avx") {
        return 0;
    }
    std::arch::x86_64::__cpuid_count(0xd, 2).ebx as usize
}

/// Executes batches of the memory `descriptor`, one for each byte that comes in, each answered by a byte. Returns when
/// there are no more.
///
/// # Errors
/// What the kernel says to the preparations.
pub fn run(descriptor: i32) -> io::Result<()> {
    let length = size_of::<Shared>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let shared = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, descriptor, 0) };
    if shared == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let code = offset_of!(Shared, code) as i64;
    map_at(CODE, size_of::<CodePage>() as u64, libc::PROT_READ | libc::PROT_EXEC, Some((descriptor, code)))?;
    for (address, length) in [(DATA, 2 * PAGE), (STACK, PAGE), (READ_ONLY, PAGE)] {
        map_at(address, length, protection, None)?;
        fill(address, length);
    }
    // SAFETY: the page is ours.
    unsafe { libc::mprotect(READ_ONLY as *mut _, PAGE as usize, libc::PROT_READ) };
    set_local_descriptors()?;
    // SAFETY: there is one thread, and no signal has come yet.
    unsafe {
        let context = &mut *CONTEXT.0.get();
        context.shared = shared.cast();
        context.ymm_offset = ymm_offset();
        for (word, value) in context.background.iter_mut().enumerate() {
            *value = layout::background(layout::address_of(word));
        }
        let stack = libc::mmap(
            ptr::null_mut(),
            HANDLER_STACK,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        );
        let stack = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: HANDLER_STACK };
        libc::sigaltstack(&raw const stack, ptr::null_mut());
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = entry as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // From here on: read, write, exit and the return from signals.
        if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut byte = 0_u8;
    // SAFETY: plain system calls on a byte of ours; UD2 raises the signal whose handler runs the batch.
    unsafe {
        while libc::read(0, (&raw mut byte).cast(), 1) == 1 {
            asm!("ud2", clobber_abi("sysv64"));
            libc::write(1, (&raw const byte).cast(), 1);
        }
        // The library would end all threads of the process, which is not allowed here.
        libc::syscall(libc::SYS_exit, 0);
    }
    Ok(())
}
