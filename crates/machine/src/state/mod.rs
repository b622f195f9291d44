//! Saved state of a whole machine: what is written, in which order, and how it comes back.
//!
//! A saved machine is a [stream](stream) of frames: first what machine it is, so that another one is refused before
//! anything has changed; then pages of its memory, if they belong to it; then its [parts](parts), of which the last says
//! how the machine goes on. Memory comes before the parts so that it can be copied while the machine still runs.

mod contents;
pub(crate) mod error;
mod files;
pub(crate) mod part;
pub mod parts;
pub(crate) mod ram;
mod run;
pub mod stream;
#[cfg(test)]
mod tests;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rhea_core::Ram;
use serde::{Deserialize, Serialize};

use self::{
    contents::{decode, encode},
    parts::Incoming,
    stream::{Kind, StateReader, StateWriter},
};
pub use self::{error::StateError, run::GoesOn};
use crate::{hold::Hold, machine::Machine};

/// A block of RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// What it is called.
    pub name: String,
    /// Where the machine has its first byte.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

/// What machine it is: where two differ, the state of one is nothing to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The program that saved it.
    pub program: String,
    /// The board.
    pub machine: String,
    /// Its memory, by address.
    pub ram: Vec<Block>,
    /// The numbers of its processors.
    pub processors: Vec<u64>,
}

impl Description {
    /// What `machine` is.
    pub fn of(machine: &Machine) -> Self {
        let block = |(base, ram): (u64, Arc<Ram>)| Block { name: ram.name().to_owned(), base, size: ram.len() };
        let ram = ram::placed_blocks(machine).into_iter().map(block).collect();
        let list = machine.processors().list();
        Self {
            program: format!("rhea {}", env!("CARGO_PKG_VERSION")),
            machine: machine.config().board.name().to_owned(),
            ram,
            processors: list.iter().map(|processor| processor.index() as u64).collect(),
        }
    }

    /// Whether a state of this machine can be one of `machine`.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn check(&self, machine: &Machine) -> Result<(), StateError> {
        let Self { program: _, machine: board, ram, processors } = Self::of(machine);
        let differs = |what: String| Err(StateError::OtherMachine(what));
        if self.machine != board {
            return differs(format!("it is of a machine '{}', and this is a '{board}'", self.machine));
        }
        if self.processors != processors {
            let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let (there, here) = (list(&self.processors), list(&processors));
            return differs(format!("it has the processors {there}, and this machine {here}: see -smp and -device"));
        }
        for Block { name, base, size } in &self.ram {
            match ram.iter().find(|block| block.base == *base) {
                Some(here) if here.size == *size => {}
                Some(here) => {
                    let here = here.size;
                    return differs(format!("its memory '{name}' has {size} bytes, and this machine's {here}: see -m"));
                }
                None => {
                    return differs(format!(
                        "it has memory '{name}' at address {base:#x}, which this machine does not: see -m and -device pc-dimm"
                    ));
                }
            }
        }
        if let Some(more) = ram.iter().find(|block| self.ram.iter().all(|there| there.base != block.base)) {
            return differs(format!("this machine has memory '{}', which it does not know", more.name));
        }
        Ok(())
    }
}

impl Hold {
    /// Says first what machine it is.
    ///
    /// # Errors
    /// What the host says.
    pub fn write_description<W: Write>(&self, writer: &mut StateWriter<W>) -> Result<(), StateError> {
        writer.frame(Kind::Machine, &encode(&Description::of(self.machine()))?)?;
        Ok(())
    }

    /// Saves the machine, which stands, but for its memory.
    ///
    /// # Errors
    /// A part that cannot be saved, or what the host says.
    pub fn save_devices<W: Write>(&self, out: W) -> Result<W, StateError> {
        let mut writer = StateWriter::new(out)?;
        self.write_description(&mut writer)?;
        self.write_parts(&mut writer)?;
        Ok(writer.finish()?)
    }

    /// Loads what [`save_devices`](Self::save_devices) wrote into the machine, which stands; how the machine goes on is
    /// for the caller to decide.
    ///
    /// # Errors
    /// A state that is damaged or not of this machine, which then keeps the one that it had.
    pub fn load_devices(&self, input: impl Read) -> Result<GoesOn, StateError> {
        self.load(input, |pages| match pages {
            Some(_) => Err(StateError::Order("it holds memory, and only devices were asked for")),
            None => Ok(()),
        })
    }

    /// Loads a saved machine whose pages of memory go to `pages`, frame by frame; nothing goes there once all have come.
    ///
    /// # Errors
    /// A state that is damaged or not of this machine. The machine then keeps the state that it had, but not the memory.
    pub fn load(
        &self,
        input: impl Read,
        pages: impl FnMut(Option<&[u8]>) -> Result<(), StateError>,
    ) -> Result<GoesOn, StateError> {
        self.load_parts(&self.read(input, pages)?)
    }

    /// Reads a saved machine to its end, and says whether the machine, which stands, can be given its state, as far as that
    /// can be known. Nothing changes.
    ///
    /// # Errors
    /// A state that is damaged or not of this machine.
    pub fn check(&self, input: impl Read) -> Result<(), StateError> {
        self.check_parts(&self.read(input, |_| Ok(()))?)
    }

    /// The parts in a saved machine, whose pages of memory go to `pages`.
    fn read(
        &self,
        input: impl Read,
        mut pages: impl FnMut(Option<&[u8]>) -> Result<(), StateError>,
    ) -> Result<Incoming, StateError> {
        let mut reader = StateReader::new(input)?;
        match reader.next()? {
            Some((Kind::Machine, payload)) => decode::<Description>(payload)?.check(self.machine())?,
            _ => return Err(StateError::Order("it does not say first what machine it is of")),
        }
        let mut incoming = Incoming::default();
        while let Some((kind, payload)) = reader.next()? {
            match kind {
                Kind::Pages if incoming.is_empty() => pages(Some(payload))?,
                Kind::Part => incoming.push(payload)?,
                Kind::Pages | Kind::Machine | Kind::End => {
                    return Err(StateError::Order("its frames are not in their order"));
                }
            }
        }
        pages(None)?;
        Ok(incoming)
    }
}
