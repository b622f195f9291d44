//! The processors of a machine: a set that grows and shrinks while the machine runs.

mod hotplug;
pub(crate) mod object;
mod processor;

use std::{io, sync::Arc, thread};

use parking_lot::Mutex;
use rhea_x86::engine::Vcpu;

pub use hotplug::ProcessorPlace;
pub(crate) use hotplug::Removable;
pub(crate) use object::{PlaceSettings, model_of, object, types};
pub use processor::Processor;

/// Called on the thread of a processor that shut down, with its number.
pub type OnShutdown = Arc<dyn Fn(usize) + Send + Sync>;

/// A processor that is there.
struct Running {
    processor: Arc<Processor>,
    thread: thread::JoinHandle<()>,
}

struct State {
    /// By rising number, which need not be dense.
    list: Vec<Running>,
    /// How many want all processors to stand still, those included that come later.
    holds: u32,
}

/// All processors of a machine.
pub struct Processors {
    state: Mutex<State>,
    on_shutdown: OnShutdown,
}

impl Processors {
    /// No processor yet. Those that come stand still until [`release`](Self::release) is called.
    pub fn new(on_shutdown: OnShutdown) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { list: Vec::new(), holds: 1 }), on_shutdown })
    }

    /// Those that are there, by number.
    pub fn list(&self) -> Vec<Arc<Processor>> {
        self.state.lock().list.iter().map(|running| Arc::clone(&running.processor)).collect()
    }

    /// How many are there.
    pub fn count(&self) -> usize {
        self.state.lock().list.len()
    }

    /// The one of number `index`, if it is there.
    pub fn get(&self, index: usize) -> Option<Arc<Processor>> {
        let state = self.state.lock();
        state
            .list
            .iter()
            .find(|running| running.processor.index() == index)
            .map(|running| Arc::clone(&running.processor))
    }

    /// Starts a processor, which runs `vcpu`; the others go on meanwhile. Its number is free.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn insert(&self, processor: &Arc<Processor>, mut vcpu: Box<Vcpu>) -> io::Result<()> {
        let mut state = self.state.lock();
        processor.pause(state.holds);
        let (own, on_shutdown) = (Arc::clone(processor), Arc::clone(&self.on_shutdown));
        let name = format!("CPU {}/TCG", processor.index());
        let thread = thread::Builder::new().name(name).spawn(move || own.run(&mut vcpu, &*on_shutdown))?;
        let at = state.list.partition_point(|running| running.processor.index() < processor.index());
        state.list.insert(at, Running { processor: Arc::clone(processor), thread });
        Ok(())
    }

    /// Ends the processor of number `index` and waits for its thread; the others go on meanwhile.
    pub fn remove(&self, index: usize) -> Option<Arc<Processor>> {
        let running = {
            let mut state = self.state.lock();
            let at = state.list.iter().position(|running| running.processor.index() == index)?;
            state.list.remove(at)
        };
        running.processor.quit();
        Some(join(running))
    }

    /// Has all processors look up RAM anew. When this returns, none of them holds what is not mapped any more.
    pub fn memory_changed(&self) {
        for processor in self.list() {
            processor.with(Vcpu::memory_changed);
        }
    }

    /// Has all processors give up the ways to write memory that nobody looks at. What they write after this has returned
    /// is noted in its [`Ram`](rhea_core::Ram) anew.
    pub fn give_up_ways_to_write(&self) {
        let list = self.list();
        // All are asked before one is waited for.
        let answers: Vec<_> = list
            .iter()
            .filter_map(|processor| processor.begin(|vcpu| vcpu.state_mut().drop_write_translations()))
            .collect();
        for answer in answers {
            // One that has ended writes no more.
            let _ = answer.recv();
        }
    }

    /// Makes all processors stand still until the guard is dropped.
    pub fn pause(&self) -> Paused<'_> {
        self.hold();
        Paused { processors: self }
    }

    /// Like [`pause`](Self::pause), until [`release`](Self::release).
    pub fn hold(&self) {
        let list = {
            let mut state = self.state.lock();
            state.holds += 1;
            for running in &state.list {
                running.processor.pause(1);
            }
            state.list.iter().map(|running| Arc::clone(&running.processor)).collect::<Vec<_>>()
        };
        for processor in list {
            processor.wait_until_paused();
        }
    }

    /// Takes back one [`hold`](Self::hold).
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.holds = state.holds.saturating_sub(1);
        for running in &state.list {
            running.processor.resume();
        }
    }

    /// Ends all threads and waits for them.
    pub fn quit(&self) {
        let list = std::mem::take(&mut self.state.lock().list);
        for running in &list {
            running.processor.quit();
        }
        for running in list {
            join(running);
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.quit();
    }
}

fn join(running: Running) -> Arc<Processor> {
    if running.thread.join().is_err() {
        tracing::error!("the thread of processor {} panicked", running.processor.index());
    }
    running.processor
}

/// Proof that all processors stand still.
pub struct Paused<'a> {
    processors: &'a Processors,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.processors.release();
    }
}

#[cfg(test)]
mod tests;
