//! The native side: a process of its own executes cases, batch after batch, and is started anew when one kills it or
//! holds it up.

pub mod child;
mod shared;

use std::{
    io::{self, Write},
    mem::{offset_of, size_of},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    ptr,
    time::Duration,
};

pub use self::shared::BATCH;
use self::shared::{CodePage, Input, PATCH_WORDS, Shared, WordPatch};
use crate::{
    case::{Case, Outcome, PATCHES, Registers},
    layout::{self, CODE},
};

/// The argument with which the program is started to be the child.
pub const CHILD_ARGUMENT: &str = "--execute-cases";

/// What came of a case natively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Native {
    /// It ended in an exception, as all do.
    Ended(Box<Outcome>),
    /// It killed the process, or kept it busy for too long.
    Lost(String),
}

/// The process that executes cases, and what is shared with it.
pub struct Host {
    program: PathBuf,
    memory: OwnedFd,
    shared: *mut Shared,
    child: Child,
    patience: Duration,
    /// Cases of the running batch.
    count: usize,
}

impl Host {
    /// Starts the process: `program` must call [`child::run`] when it is started with [`CHILD_ARGUMENT`] and the number of
    /// a descriptor.
    ///
    /// # Errors
    /// What the kernel says to the memory or to the process.
    pub fn start(program: PathBuf) -> io::Result<Self> {
        let length = size_of::<Shared>().next_multiple_of(4096);
        // SAFETY: plain system calls; the descriptor is new, and nobody else's.
        let (memory, shared) = unsafe {
            let descriptor = libc::memfd_create(c"rhea-oracle".as_ptr(), 0);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            let memory = OwnedFd::from_raw_fd(descriptor);
            if libc::ftruncate(descriptor, length as libc::off_t) != 0 {
                return Err(io::Error::last_os_error());
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let shared = libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, descriptor, 0);
            if shared == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            (memory, shared.cast())
        };
        let child = spawn(&program, &memory)?;
        Ok(Self { program, memory, shared, child, patience: Duration::from_secs(20), count: 0 })
    }

    /// The process's number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    fn shared(&mut self) -> &mut Shared {
        // SAFETY: mapped for as long as `self` lives, and any bytes are a valid value. The child changes it only between
        // `send` and `wait`, in which nobody asks for this.
        unsafe { &mut *self.shared }
    }

    /// Lets the process begin a batch. Gives how many cases it took: all, unless there are too many of them or of their
    /// patches.
    ///
    /// # Errors
    /// What the kernel says to the message.
    pub fn send(&mut self, cases: &[Case]) -> io::Result<usize> {
        let shared = self.shared();
        let mut count = 0;
        let mut words = 0;
        for case in cases.iter().take(BATCH) {
            let Some(input) = prepare(case, &mut shared.patches, &mut words) else { break };
            shared.inputs[count] = input;
            count += 1;
        }
        (shared.count, shared.done, shared.changed_count) = (count as u32, 0, 0);
        self.count = count;
        let sent = self.child.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(&[1]));
        if sent.is_err() {
            self.restart()?;
            self.child.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(&[1]))?;
        }
        Ok(count)
    }

    /// Waits for the batch. Gives what came of its first cases, at least of one: the rest is to be sent again.
    ///
    /// # Errors
    /// What the kernel says to a process that is started anew.
    pub fn wait(&mut self) -> io::Result<Vec<Native>> {
        let lost = self.answer().err();
        let shared = self.shared();
        let done = shared.done as usize;
        let mut results: Vec<_> = (0..done.min(BATCH)).map(|i| Native::Ended(Box::new(taken(shared, i)))).collect();
        if let Some(lost) = lost {
            self.restart()?;
            if results.len() < self.count {
                results.push(Native::Lost(lost));
            }
        }
        Ok(results)
    }

    /// Waits until the process says that it is done; else why it never will.
    fn answer(&mut self) -> Result<(), String> {
        let Some(pipe) = self.child.stdout.as_mut() else { return Err("no pipe".to_owned()) };
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let patience = self.patience.as_millis() as i32;
        // SAFETY: one structure, ours.
        match unsafe { libc::poll(&raw mut poll, 1, patience) } {
            1 => {}
            0 => return Err(format!("was not done after {} s", self.patience.as_secs())),
            _ => return Err(io::Error::last_os_error().to_string()),
        }
        match io::Read::read(pipe, &mut [0]) {
            Ok(1) => Ok(()),
            _ => Err(match self.child.wait() {
                Ok(status) => format!("the process ended: {status}"),
                Err(error) => error.to_string(),
            }),
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        // It fails only for a process that has ended.
        let _ = self.child.kill();
        self.child.wait()?;
        self.child = spawn(&self.program, &self.memory)?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.shared.cast(), size_of::<Shared>().next_multiple_of(4096)) };
    }
}

fn spawn(program: &PathBuf, memory: &OwnedFd) -> io::Result<Child> {
    // The child inherits the memory: memfd_create was not told to close it.
    let mut command = Command::new(program);
    command.arg(CHILD_ARGUMENT).arg(memory.as_raw_fd().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

/// A case as the child reads it; none when its patches do not fit.
fn prepare(case: &Case, patches: &mut [u64; PATCH_WORDS], words: &mut usize) -> Option<Input> {
    let mut code = [0; 16];
    for (to, from) in code.iter_mut().zip(&case.bytes) {
        *to = *from;
    }
    let mut input = Input {
        registers: case.registers,
        code_offset: (case.start() - CODE) as u32,
        code_length: case.bytes.len() as u32,
        code,
        patches: [WordPatch { word: 0, count: 0, from: 0 }; PATCHES],
    };
    for (slot, patch) in input.patches.iter_mut().zip(&case.patches) {
        let first = layout::word_at(patch.address)?;
        let last = layout::word_at(patch.address + (patch.bytes.len() as u64).saturating_sub(1))?;
        let count = last - first + 1;
        let space = patches.get_mut(*words..*words + count)?;
        for (i, word) in space.iter_mut().enumerate() {
            *word = case.word_before(first + i);
        }
        *slot = WordPatch { word: first as u32, count: count as u32, from: *words as u32 };
        *words += count;
    }
    Some(input)
}

fn taken(shared: &Shared, case: usize) -> Outcome {
    let output = &shared.outputs[case];
    let changed = output.changed as usize..(output.changed + output.count) as usize;
    let memory = shared.changed.get(changed).unwrap_or_default();
    let vector = output.vector as u8;
    let has_code = matches!(vector, 8 | 10..=14 | 17);
    Outcome {
        registers: Registers { ..output.registers },
        vector,
        error: if has_code { output.error } else { 0 },
        cr2: if vector == 14 { output.cr2 } else { 0 },
        memory: memory.iter().map(|changed| (changed.word, changed.value)).collect(),
    }
}

/// The child maps the page of code from its place in the file.
const _: () = assert!(offset_of!(Shared, code) % size_of::<CodePage>() == 0);
