//! What the shell prints: answers laid out for reading, events, and errors; in colour on a terminal.
//!
//! Two threads print. While a line is being edited everything goes through the editor, which puts it above its line.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError},
    },
};

use nu_ansi_term::{Color, Style};
use rhea_qmp::{Error, Event, client::line};
use serde_json::Value;

/// Columns of a terminal that does not tell how many it has.
const WIDTH: usize = 100;

/// The shell's output.
pub struct Screen {
    state: Mutex<State>,
    editor: Option<EditorLink>,
    colour: bool,
    /// Whether errors go to the standard error: where no one reads along.
    split: bool,
}

/// How the editor is reached.
pub struct EditorLink {
    /// Lines to put above the one that is edited.
    pub lines: SyncSender<String>,
    /// Set when there is nobody left to talk to.
    pub ended: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// Whether a line is being edited now.
    editing: bool,
    /// What the editor had no room for.
    late: Vec<String>,
}

impl Screen {
    /// Output around an editor, or of a script.
    pub fn new(editor: Option<EditorLink>) -> Self {
        let colour = editor.is_some() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let split = !(io::stdout().is_terminal() && io::stderr().is_terminal());
        Self { state: Mutex::default(), editor, colour, split }
    }

    /// Whether there are colours.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// From now on a line is edited.
    pub fn begin_editing(&self) {
        self.lock().editing = true;
    }

    /// The line is done.
    pub fn end_editing(&self) {
        let mut state = self.lock();
        state.editing = false;
        for text in state.late.drain(..) {
            put(&mut io::stdout().lock(), &text);
        }
    }

    /// Prints a plain line.
    pub fn say(&self, text: &str) {
        self.print(text.to_owned(), false);
    }

    /// Prints a command's result.
    pub fn value(&self, value: &Value) {
        match value {
            // Texts for people, as the human monitor answers, are shown as they were meant.
            Value::String(text) if text.contains('\n') => self.print(harmless(text.trim_end()), false),
            _ => self.print(self.json(value), false),
        }
    }

    /// Prints a command's error.
    pub fn fault(&self, error: &Error) {
        let class = format!("{:?}", error.class);
        let text = format!("{} {}: {}", self.paint(Color::Red.bold(), "error"), class, harmless(&error.desc));
        self.print(text, self.split);
    }

    /// Prints an event.
    pub fn event(&self, event: &Event) {
        let name = self.paint(Color::Yellow.bold(), &harmless(&event.name));
        let head = format!("{} {name}", self.paint(Color::Yellow.normal(), "event"));
        let text = match &event.data {
            Some(data) => format!("{head} {}", self.json(data)),
            None => head,
        };
        self.print(text, false);
    }

    /// Prints what is wrong on our own side.
    pub fn complain(&self, what: &dyn Display) {
        let text = format!("{} {}", self.paint(Color::Red.bold(), "error:"), harmless(&what.to_string()));
        self.print(text, self.split);
    }

    /// Ends the editor, and prints why there is no more to come. A script learns it when it wants more.
    pub fn end(&self, why: &dyn Display) {
        if let Some(editor) = &self.editor {
            self.print(harmless(&why.to_string()), self.split);
            editor.ended.store(true, Ordering::Release);
        }
    }

    fn print(&self, text: String, is_error: bool) {
        let mut state = self.lock();
        match &self.editor {
            Some(editor) if state.editing => {
                // Lines wait for their turn behind those that did not fit.
                if !state.late.is_empty() {
                    state.late.push(text);
                } else if let Err(full) = editor.lines.try_send(text) {
                    let (TrySendError::Full(text) | TrySendError::Disconnected(text)) = full;
                    state.late.push(text);
                }
            }
            _ if is_error => put(&mut io::stderr().lock(), &text),
            _ => put(&mut io::stdout().lock(), &text),
        }
    }

    fn json(&self, value: &Value) -> String {
        let width = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let text = harmless(&line::pretty(value, if width == 0 { WIDTH } else { width }));
        if self.colour { colour_json(&text) } else { text }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { style.paint(text).to_string() } else { text.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints a line; nobody can be told if that fails.
fn put(output: &mut dyn Write, text: &str) {
    let _ = output.write_all(format!("{text}\n").as_bytes()).and_then(|()| output.flush());
}

/// `text` without what would make a terminal do more than show it: guests have a say in what monitors answer.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            '\r' => {}
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// JSON with its parts in colours: names, strings, and other values.
fn colour_json(text: &str) -> String {
    let (name, string, plain) = (Color::Cyan.normal(), Color::Green.normal(), Color::Purple.normal());
    let mut shown = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (style, length) = match first {
            '"' => {
                let length = string_length(rest);
                let is_name = rest.get(length..).is_some_and(|after| after.starts_with(':'));
                (Some(if is_name { name } else { string }), length)
            }
            '-' | '0'..='9' | 'a'..='z' => {
                let end = rest.find(|next: char| matches!(next, ',' | ']' | '}') || next.is_whitespace());
                (Some(plain), end.unwrap_or(rest.len()))
            }
            _ => (None, first.len_utf8()),
        };
        let (part, after) = rest.split_at(length);
        match style {
            Some(style) => shown.push_str(&style.paint(part).to_string()),
            None => shown.push_str(part),
        }
        rest = after;
    }
    shown
}

/// How long the string is that `text` begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_oneof, proptest};

    use super::*;

    /// Removes colours again.
    fn strip(text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, after)| after);
        }
        plain + rest
    }

    #[test]
    fn names_and_values_have_their_own_colours() {
        let shown = colour_json(r#"{"a\"": [1, "b"], "c": null}"#);
        let painted = |style: Style, text: &str| style.paint(text).to_string();
        assert!(shown.contains(&painted(Color::Cyan.normal(), r#""a\"""#)), "{shown:?}");
        assert!(shown.contains(&painted(Color::Green.normal(), r#""b""#)), "{shown:?}");
        assert!(shown.contains(&painted(Color::Purple.normal(), "1")), "{shown:?}");
        assert!(shown.contains(&painted(Color::Purple.normal(), "null")), "{shown:?}");
    }

    #[test]
    fn escape_sequences_are_shown_and_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{9b}d"), "a\\u{1b}[2Jb\n\tc\\u{9b}d");
    }

    #[test]
    fn lines_come_in_order_when_the_editor_has_no_room() {
        let (lines, printed) = std::sync::mpsc::sync_channel(2);
        let screen = Screen::new(Some(EditorLink { lines, ended: Arc::default() }));
        screen.begin_editing();
        for text in ["one", "two", "three"] {
            screen.say(text);
        }
        assert_eq!(printed.recv().as_deref(), Ok("one"));
        screen.say("four");
        assert_eq!(printed.try_iter().collect::<Vec<_>>(), ["two"]);
        assert_eq!(screen.lock().late, ["three", "four"]);
        screen.end_editing();
        assert!(screen.lock().late.is_empty());
    }

    proptest! {
        #[test]
        fn colours_change_no_text(
            words in prop::collection::vec(prop_oneof!["[\\[\\]{}:, \"\\\\a1-]{0,6}", "\\PC{0,4}"], 0..8),
            number in any::<i64>(),
        ) {
            let text = harmless(&format!("{}{number}", words.concat()));
            assert_eq!(strip(&colour_json(&text)), text);
        }
    }
}
