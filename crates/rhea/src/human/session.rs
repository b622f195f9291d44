//! One conversation of the monitor for people.

use std::cell::Cell;

use rhea_hmp::editor::{Editor, Typed};
use rhea_qmp::SessionHandle;

use super::table::{Answer, Unfinished};
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

/// What typing led to.
pub enum Step {
    /// All of it is done.
    Done,
    /// A command takes long: it is to be run elsewhere, and what it prints is to be given to [`Session::finish`], before
    /// the rest is taken.
    Wait(Unfinished),
    /// The conversation ended.
    End,
}

impl Session {
    /// What is printed first.
    pub fn greeting(&self) -> String {
        format!("{} monitor - type 'help' for more information\r\n{PROMPT}", version::text())
    }

    /// Takes bytes, up to the first command that takes long; appends what is to be printed.
    pub fn take(&mut self, context: &Context, bytes: &mut &[u8], printed: &mut String) -> Step {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            match self.editor.take(byte, PROMPT, &|line| super::complete::complete(context, line), printed) {
                None => {}
                Some(Typed::End) => return Step::End,
                Some(Typed::Line(line)) => {
                    // One that has left meanwhile is nobody's choice.
                    if context.machine.processors().get(self.processor.get()).is_none() {
                        self.processor.set(0);
                    }
                    let history = self.editor.history();
                    match super::run(context, &self.handle, &self.processor, &history, &line) {
                        Answer::Printed(text) => self.finish(&text, printed),
                        Answer::Later(unfinished) => return Step::Wait(unfinished),
                    }
                }
            }
        }
        Step::Done
    }

    /// A command has printed `text`; the next one may come.
    pub fn finish(&self, text: &str, printed: &mut String) {
        printed.push_str(text);
        printed.push_str(PROMPT);
    }
}
