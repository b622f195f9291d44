//! One conversation of the monitor for people.

use rhea_qmp::SessionHandle;

use super::readline::{Editor, Typed};
use crate::{commands::Context, version};

const PROMPT: &str = "(rhea) ";

/// A conversation: takes what is typed, gives what is to be printed. It knows no stream.
pub struct Session {
    editor: Editor,
    handle: SessionHandle,
}

impl Default for Session {
    fn default() -> Self {
        Self { editor: Editor::default(), handle: SessionHandle::detached() }
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
                    printed.push_str(&super::run(context, &self.handle, 0, &line));
                    printed.push_str(PROMPT);
                }
            }
        }
        (printed, false)
    }
}
