//! Line editing over any stream: echo, cursor keys, history and completion, in VT100 sequences.

use std::collections::VecDeque;

/// Lines remembered.
const HISTORY: usize = 64;
/// The longest line.
const LONGEST: usize = 4096;

/// What typing led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line was ended.
    Line(String),
    /// The end of input was typed on an empty line.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Started,
    Sequence(u16),
}

/// An editor of lines.
#[derive(Debug, Default)]
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    escape: Escape,
    history: VecDeque<String>,
    /// Which remembered line is shown, counted from the newest; 0 is the one being typed.
    shown: usize,
    /// The bytes of a character that is not complete yet.
    partial: Vec<u8>,
    last_return: bool,
}

impl Editor {
    /// The lines that were typed, the newest first.
    pub fn history(&self) -> Vec<String> {
        self.history.iter().cloned().collect()
    }

    /// Takes one byte; what is to be echoed is appended to `echo`.
    pub fn take(
        &mut self,
        byte: u8,
        prompt: &str,
        complete: &dyn Fn(&str) -> Vec<String>,
        echo: &mut String,
    ) -> Option<Typed> {
        let after_return = std::mem::replace(&mut self.last_return, byte == b'\r');
        match self.escape {
            Escape::Started => {
                self.escape = if matches!(byte, b'[' | b'O') { Escape::Sequence(0) } else { Escape::None };
                return None;
            }
            Escape::Sequence(number) => {
                self.sequence(number, byte, prompt, echo);
                return None;
            }
            Escape::None => {}
        }
        match byte {
            // CR LF is one end of line.
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                echo.push_str("\r\n");
                return Some(Typed::Line(self.finish()));
            }
            0x01 => self.move_to(0, prompt, echo),
            0x02 => self.move_to(self.cursor.saturating_sub(1), prompt, echo),
            0x03 | 0x15 => self.replace(Vec::new(), prompt, echo),
            0x04 if self.line.is_empty() => return Some(Typed::End),
            0x04 => self.delete(prompt, echo),
            0x05 => self.move_to(self.line.len(), prompt, echo),
            0x06 => self.move_to((self.cursor + 1).min(self.line.len()), prompt, echo),
            0x08 | 0x7f if self.cursor > 0 => {
                self.cursor -= 1;
                self.delete(prompt, echo);
            }
            b'\t' => self.complete(prompt, complete, echo),
            0x0b => {
                self.line.truncate(self.cursor);
                self.redraw(prompt, echo);
            }
            0x0e => self.recall(self.shown.saturating_sub(1), prompt, echo),
            0x10 => self.recall(self.shown + 1, prompt, echo),
            0x17 => self.delete_word(prompt, echo),
            0x1b => self.escape = Escape::Started,
            0..0x20 | 0x7f => {}
            _ => self.insert_byte(byte, prompt, echo),
        }
        None
    }

    fn sequence(&mut self, number: u16, byte: u8, prompt: &str, echo: &mut String) {
        self.escape = Escape::None;
        match byte {
            b'0'..=b'9' => self.escape = Escape::Sequence((number % 1000) * 10 + u16::from(byte - b'0')),
            b'A' => self.recall(self.shown + 1, prompt, echo),
            b'B' => self.recall(self.shown.saturating_sub(1), prompt, echo),
            b'C' => self.move_to((self.cursor + 1).min(self.line.len()), prompt, echo),
            b'D' => self.move_to(self.cursor.saturating_sub(1), prompt, echo),
            b'H' => self.move_to(0, prompt, echo),
            b'F' => self.move_to(self.line.len(), prompt, echo),
            b'~' => match number {
                1 | 7 => self.move_to(0, prompt, echo),
                3 => self.delete(prompt, echo),
                4 | 8 => self.move_to(self.line.len(), prompt, echo),
                _ => {}
            },
            _ => {}
        }
    }

    fn insert_byte(&mut self, byte: u8, prompt: &str, echo: &mut String) {
        self.partial.push(byte);
        let character = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.chars().next(),
            // More bytes may still make a character of it.
            Err(error) if error.error_len().is_none() => return,
            Err(_) => None,
        };
        self.partial.clear();
        if let Some(character) = character
            && self.line.len() < LONGEST
        {
            self.line.insert(self.cursor, character);
            self.cursor += 1;
            if self.cursor == self.line.len() {
                echo.push(character);
            } else {
                self.redraw(prompt, echo);
            }
        }
    }

    fn finish(&mut self) -> String {
        let line: String = self.line.drain(..).collect();
        (self.cursor, self.shown) = (0, 0);
        self.partial.clear();
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.push_front(line.clone());
            self.history.truncate(HISTORY);
        }
        line
    }

    fn replace(&mut self, line: Vec<char>, prompt: &str, echo: &mut String) {
        self.cursor = line.len();
        self.line = line;
        self.redraw(prompt, echo);
    }

    fn delete(&mut self, prompt: &str, echo: &mut String) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
            self.redraw(prompt, echo);
        }
    }

    fn delete_word(&mut self, prompt: &str, echo: &mut String) {
        let before = &self.line[..self.cursor];
        let trimmed = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
        let start = before[..trimmed].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1);
        self.line.drain(start..self.cursor);
        self.cursor = start;
        self.redraw(prompt, echo);
    }

    fn move_to(&mut self, cursor: usize, prompt: &str, echo: &mut String) {
        self.cursor = cursor;
        self.redraw(prompt, echo);
    }

    fn recall(&mut self, which: usize, prompt: &str, echo: &mut String) {
        if which == 0 {
            self.shown = 0;
            self.replace(Vec::new(), prompt, echo);
        } else if let Some(line) = self.history.get(which - 1) {
            self.shown = which;
            self.replace(line.chars().collect(), prompt, echo);
        }
    }

    fn complete(&mut self, prompt: &str, complete: &dyn Fn(&str) -> Vec<String>, echo: &mut String) {
        let before: String = self.line[..self.cursor].iter().collect();
        let word_start = before.rfind(' ').map_or(0, |at| at + 1);
        let candidates = complete(&before);
        let Some(first) = candidates.first() else { return };
        // As far as all candidates agree.
        let mut common: &str = first;
        for candidate in &candidates {
            let agree = common.char_indices().zip(candidate.chars()).take_while(|((_, a), b)| a == b).last();
            common = &common[..agree.map_or(0, |((at, c), _)| at + c.len_utf8())];
        }
        let mut text = before[..word_start].to_owned() + common;
        if candidates.len() == 1 {
            // What goes on inside of the word has no space behind it.
            if !text.ends_with(['=', ',', '-', '/']) {
                text.push(' ');
            }
        } else if text.len() <= before.len() {
            echo.push_str("\r\n");
            echo.push_str(&candidates.join("  "));
            echo.push_str("\r\n");
            text = before;
        }
        let rest: Vec<char> = self.line[self.cursor..].to_vec();
        let mut line: Vec<char> = text.chars().collect();
        let cursor = line.len();
        line.extend(rest);
        self.replace(line, prompt, echo);
        self.move_to(cursor, prompt, echo);
    }

    /// Prints the line anew, with the cursor where it belongs.
    fn redraw(&self, prompt: &str, echo: &mut String) {
        echo.push('\r');
        echo.push_str(prompt);
        echo.extend(&self.line);
        echo.push_str("\x1b[K");
        let back = self.line.len() - self.cursor;
        if back > 0 {
            echo.push_str(&format!("\x1b[{back}D"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn type_in(editor: &mut Editor, text: &str) -> (Vec<Typed>, String) {
        let mut echo = String::new();
        let complete = |line: &str| {
            ["info", "inject"].iter().filter(|word| word.starts_with(line)).map(|word| (*word).to_owned()).collect()
        };
        let typed = text.bytes().filter_map(|byte| editor.take(byte, "> ", &complete, &mut echo)).collect();
        (typed, echo)
    }

    fn line(text: &str) -> Typed {
        Typed::Line(text.to_owned())
    }

    #[test]
    fn keys_move_delete_and_recall() {
        let mut editor = Editor::default();
        assert_eq!(type_in(&mut editor, "stpo\x7f\x7fop\r").0, [line("stop")]);
        assert_eq!(type_in(&mut editor, "ont\x01c\r\n").0, [line("cont")]);
        assert_eq!(type_in(&mut editor, "\x1b[A\x1b[A\r").0, [line("stop")]);
        assert_eq!(type_in(&mut editor, "a b\x17c\r").0, [line("a c")]);
        assert_eq!(type_in(&mut editor, "\x04").0, [Typed::End]);
    }

    #[test]
    fn completion_goes_as_far_as_candidates_agree_then_lists_them() {
        let mut editor = Editor::default();
        assert_eq!(type_in(&mut editor, "i\t").1, "i\r> in\x1b[K\r> in\x1b[K");
        assert!(type_in(&mut editor, "\t").1.contains("info  inject"));
        assert_eq!(type_in(&mut editor, "f\tx\r").0, [line("info x")]);
    }

    #[test]
    fn characters_of_several_bytes_stay_whole() {
        let mut editor = Editor::default();
        assert_eq!(type_in(&mut editor, "né\x7fö\r").0, [line("nö")]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_editor(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut editor = Editor::default();
            let mut echo = String::new();
            for byte in bytes {
                editor.take(byte, "> ", &|line: &str| vec![line.to_owned() + "x", line.to_owned() + "y"], &mut echo);
            }
        }
    }
}
