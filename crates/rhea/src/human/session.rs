//! One conversation of the monitor for people.

use std::cell::Cell;

use rhea_qmp::SessionHandle;

use super::readline::{Editor, Typed};
use crate::{commands::Context, version};

const PROMPT: &str = "(rhea) ";

/// A conversation: takes what is typed, gives what is to be printed. It knows no stream.
pub struct Session {
    editor: Editor,
    handle: SessionHandle,
    /// The processor that was chosen.
    processor: Cell<usize>,
}

impl Default for Session {
    fn default() -> Self {
        Self { editor: Editor::default(), handle: SessionHandle::detached(), processor: Cell::default() }
    }
}

impl Session {
    /// What is printed first.
    pub fn greeting(&self) -> String {
        format!("{} monitor - type 'help' for more information\r\n{PROMPT}", version::text())
    }

    /// Takes bytes; gives what is to be printed, and whether the conversation ended.
    pub fn take(&mut self, context: &Context, bytes: &[u8]) -> (String, bool) {
        let mut printed = String::new();
        for &byte in bytes {
            match self.editor.take(byte, PROMPT, &super::complete, &mut printed) {
                None => {}
                Some(Typed::End) => return (printed, true),
                Some(Typed::Line(line)) => {
                    // One that has left meanwhile is nobody's choice.
                    if context.machine.processors().get(self.processor.get()).is_none() {
                        self.processor.set(0);
                    }
                    printed.push_str(&super::run(context, &self.handle, &self.processor, &line));
                    printed.push_str(PROMPT);
                }
            }
        }
        (printed, false)
    }
}
