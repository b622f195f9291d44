//! Tokens to values: the grammar of JSON, with a stack in place of recursion so that input may stop anywhere.
//!
//! A message with a fault in its grammar is read on to its last bracket, its values dropped, and reported once.

use serde_json::{Map, Value};

use super::fault::SyntaxError;

/// The two kinds of brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    Object,
    Array,
}

/// What came of one token.
pub(super) enum Outcome {
    /// The message goes on.
    More,
    /// The message is complete.
    Message(Value),
    /// The message is over, and was none.
    Broken(SyntaxError),
    /// The token has no place here at all: whatever message there was is lost.
    Misplaced(SyntaxError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    SeparatorOrEnd,
}

enum Container {
    Object { members: Map<String, Value>, key: String },
    Array(Vec<Value>),
}

pub(super) struct Builder {
    /// Every open bracket, also those of a message that is known to be broken.
    brackets: Vec<Bracket>,
    /// The open containers; empty once the message is broken.
    containers: Vec<Container>,
    expect: Expect,
    fault: Option<SyntaxError>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { brackets: Vec::new(), containers: Vec::new(), expect: Expect::Value, fault: None }
    }

    /// How many brackets are open.
    pub(super) fn depth(&self) -> usize {
        self.brackets.len()
    }

    /// Forgets the message begun.
    pub(super) fn clear(&mut self) {
        self.brackets.clear();
        self.containers.clear();
        self.expect = Expect::Value;
        self.fault = None;
    }

    /// An opening bracket. The caller has checked the depth.
    pub(super) fn open(&mut self, bracket: Bracket) -> Outcome {
        if !matches!(self.expect, Expect::Value | Expect::ValueOrEnd) {
            self.blame(self.expected());
        }
        self.brackets.push(bracket);
        if self.fault.is_none() {
            let (container, expect) = match bracket {
                Bracket::Object => (Container::Object { members: Map::new(), key: String::new() }, Expect::KeyOrEnd),
                Bracket::Array => (Container::Array(Vec::new()), Expect::ValueOrEnd),
            };
            self.containers.push(container);
            self.expect = expect;
        }
        Outcome::More
    }

    /// A closing bracket.
    pub(super) fn close(&mut self, bracket: Bracket) -> Outcome {
        if self.brackets.pop() != Some(bracket) {
            return Outcome::Misplaced(self.fault.take().unwrap_or(SyntaxError::UnmatchedBracket));
        }
        if !matches!(self.expect, Expect::ValueOrEnd | Expect::KeyOrEnd | Expect::SeparatorOrEnd) {
            self.blame(self.expected());
        }
        match self.containers.pop() {
            Some(Container::Object { members, .. }) => self.put(Value::Object(members)),
            Some(Container::Array(elements)) => self.put(Value::Array(elements)),
            None => self.finish_broken(),
        }
    }

    /// A number or keyword.
    pub(super) fn scalar(&mut self, value: Value) -> Outcome {
        match self.expect {
            Expect::Value | Expect::ValueOrEnd => self.put(value),
            _ => self.broken(self.expected()),
        }
    }

    /// A string: a value or a key.
    pub(super) fn text(&mut self, text: String) -> Outcome {
        match self.expect {
            Expect::Value | Expect::ValueOrEnd => self.put(Value::String(text)),
            Expect::Key | Expect::KeyOrEnd => {
                let Some(Container::Object { members, key }) = self.containers.last_mut() else {
                    return self.broken(SyntaxError::ExpectingValue);
                };
                if members.contains_key(&text) {
                    return self.broken(SyntaxError::duplicate_key(&text));
                }
                *key = text;
                self.expect = Expect::Colon;
                Outcome::More
            }
            _ => self.broken(self.expected()),
        }
    }

    /// `:` between key and value.
    pub(super) fn colon(&mut self) -> Outcome {
        if self.expect != Expect::Colon {
            return self.stray();
        }
        self.expect = Expect::Value;
        Outcome::More
    }

    /// `,` between members or elements.
    pub(super) fn comma(&mut self) -> Outcome {
        if self.expect != Expect::SeparatorOrEnd {
            return self.stray();
        }
        self.expect = match self.containers.last() {
            Some(Container::Object { .. }) => Expect::Key,
            _ => Expect::Value,
        };
        Outcome::More
    }

    /// A token that is faulty in itself, its bounds clear.
    pub(super) fn broken(&mut self, error: SyntaxError) -> Outcome {
        self.blame(error);
        if self.brackets.is_empty() { self.finish_broken() } else { Outcome::More }
    }

    /// `:` or `,` where it has no place.
    fn stray(&mut self) -> Outcome {
        let error = self.expected();
        if self.brackets.is_empty() {
            return Outcome::Misplaced(error);
        }
        self.broken(error)
    }

    fn put(&mut self, value: Value) -> Outcome {
        if self.fault.is_some() {
            return self.finish_broken();
        }
        match self.containers.last_mut() {
            None => {
                self.expect = Expect::Value;
                return Outcome::Message(value);
            }
            Some(Container::Array(elements)) => elements.push(value),
            Some(Container::Object { members, key }) => {
                members.insert(std::mem::take(key), value);
            }
        }
        self.expect = Expect::SeparatorOrEnd;
        Outcome::More
    }

    /// Marks the message as broken; the first fault is the one that counts.
    fn blame(&mut self, error: SyntaxError) {
        if self.fault.is_none() {
            self.fault = Some(error);
            self.containers.clear();
        }
    }

    fn finish_broken(&mut self) -> Outcome {
        if !self.brackets.is_empty() {
            return Outcome::More;
        }
        self.expect = Expect::Value;
        Outcome::Broken(self.fault.take().unwrap_or(SyntaxError::ExpectingValue))
    }

    fn expected(&self) -> SyntaxError {
        match self.expect {
            Expect::Value | Expect::ValueOrEnd => SyntaxError::ExpectingValue,
            Expect::Key | Expect::KeyOrEnd => SyntaxError::ExpectingKey,
            Expect::Colon => SyntaxError::ExpectingColon,
            Expect::SeparatorOrEnd => SyntaxError::ExpectingSeparator,
        }
    }
}
