//! Lines that people type: `memsave val=0 size=16 filename=/tmp/x`, or a message in JSON; their completion, and
//! answers laid out for reading.

use serde_json::{Map, Value};

use super::schema::{Kind, Schema};
use crate::json::Decoder;

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// JSON that is broken off or wrong.
    #[error("{0}")]
    Json(String),
    /// A word that is no `name=value`.
    #[error("'{0}' is not of the form name=value")]
    NotAnArgument(String),
    /// The same argument twice, or both an argument and parts of it.
    #[error("argument '{0}' is given twice")]
    Twice(String),
    /// A quote or bracket without its end.
    #[error("a quote or bracket is not closed")]
    Unclosed,
}

/// The message that `line` stands for; `None` for a blank line. `schema` decides whether `1` is a number or a string.
pub fn parse(line: &str, schema: &Schema) -> Result<Option<Value>, LineError> {
    let line = line.trim();
    if line.starts_with('{') {
        return parse_json(line).map(Some);
    }
    let (words, closed) = split(line);
    if !closed {
        return Err(LineError::Unclosed);
    }
    let Some((command, rest)) = words.split_first() else { return Ok(None) };
    let mut given = Vec::new();
    for word in rest {
        let argument = word.text.split_once('=').filter(|(name, _)| !name.is_empty());
        let (name, value) = argument.ok_or_else(|| LineError::NotAnArgument(word.text.to_owned()))?;
        given.push((name.to_owned(), value.to_owned()));
    }
    let mut arguments = Map::new();
    for (name, value) in &given {
        let path: Vec<&str> = name.split('.').collect();
        let value = read_value(value, schema.argument(command.text, &path, &given));
        insert(&mut arguments, &path, value).ok_or_else(|| LineError::Twice(name.clone()))?;
    }
    let mut message = Map::new();
    message.insert("execute".to_owned(), Value::from(command.text));
    if !arguments.is_empty() {
        message.insert("arguments".to_owned(), Value::Object(arguments));
    }
    Ok(Some(Value::Object(message)))
}

fn parse_json(line: &str) -> Result<Value, LineError> {
    let mut decoder = Decoder::new();
    let mut input = line.as_bytes();
    let value = match decoder.next(&mut input) {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(LineError::Json(error.to_string())),
        None => return Err(LineError::Unclosed),
    };
    if !input.is_empty() {
        return Err(LineError::Json("there is more after the end of the message".to_owned()));
    }
    Ok(value)
}

/// Puts `value` at `path`; `None` if something is there already.
fn insert(arguments: &mut Map<String, Value>, path: &[&str], value: Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        return match arguments.insert((*first).to_owned(), value) {
            None => Some(()),
            Some(_) => None,
        };
    }
    let inner = arguments.entry(*first).or_insert_with(|| Value::Object(Map::new()));
    insert(inner.as_object_mut()?, rest, value)
}

fn read_value(text: &str, kind: Option<&Kind>) -> Value {
    let plain = unquote(text);
    let string = || Value::from(plain.unwrap_or(text));
    match kind {
        Some(Kind::Enum(_)) => string(),
        Some(Kind::Builtin(json)) if json == "string" => string(),
        _ if plain.is_some() => string(),
        Some(Kind::Builtin(json)) if json == "boolean" => match text {
            "true" | "on" | "yes" => Value::Bool(true),
            "false" | "off" | "no" => Value::Bool(false),
            _ => string(),
        },
        _ => hexadecimal(text).or_else(|| parse_value(text)).unwrap_or_else(string),
    }
}

/// What is between the quotes, if `text` is quoted as a whole.
fn unquote(text: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn hexadecimal(text: &str) -> Option<Value> {
    let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, 16).ok().map(Value::from)
}

/// `text` as one JSON value.
fn parse_value(text: &str) -> Option<Value> {
    let mut decoder = Decoder::new();
    // Numbers and words end at a space.
    let padded = format!("{text} ");
    let mut input = padded.as_bytes();
    let value = decoder.next(&mut input)?.ok()?;
    input.iter().all(|byte| *byte == b' ').then_some(value)
}

/// A word of a line and where it begins.
struct Word<'a> {
    start: usize,
    text: &'a str,
}

/// The words of `line`, cut at white space outside quotes and brackets; and whether those are all closed.
fn split(line: &str) -> (Vec<Word<'_>>, bool) {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut depth = 0usize;
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        if start.is_none() && !character.is_whitespace() {
            start = Some(at);
        }
        if std::mem::take(&mut escaped) {
            continue;
        }
        match character {
            '\\' if quote.is_some() => escaped = true,
            _ if quote == Some(character) => quote = None,
            _ if quote.is_some() => {}
            // An apostrophe inside a word is just that.
            '"' | '\'' if depth > 0 || line[..at].ends_with('=') => quote = Some(character),
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            _ if character.is_whitespace() && depth == 0 => {
                if let Some(start) = start.take() {
                    words.push(Word { start, text: &line[start..at] });
                }
            }
            _ => {}
        }
    }
    if let Some(start) = start {
        words.push(Word { start, text: &line[start..] });
    }
    (words, quote.is_none() && depth == 0)
}

/// What may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Where the text to replace begins; it ends at the cursor.
    pub start: usize,
    /// What to put there.
    pub candidates: Vec<Candidate>,
}

/// One way to go on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The text to put in.
    pub text: String,
    /// A word or two about it.
    pub note: String,
}

/// How `line` may go on at `cursor`, a position in bytes: commands, then arguments that are not given yet, then
/// values of enums and booleans.
pub fn complete(schema: &Schema, line: &str, cursor: usize) -> Completion {
    let before = line.get(..cursor).unwrap_or(line);
    if before.trim_start().starts_with('{') {
        return complete_json(schema, before);
    }
    let (mut words, _) = split(before);
    let current = match words.last() {
        Some(word) if word.start + word.text.len() == before.len() => words.pop(),
        _ => None,
    };
    let current = current.unwrap_or(Word { start: before.len(), text: "" });
    let Some((command, earlier)) = words.split_first() else {
        return complete_command(schema, current.start, current.text);
    };
    let given: Vec<(String, String)> = earlier
        .iter()
        .filter_map(|word| word.text.split_once('='))
        .map(|(name, value)| (name.to_owned(), unquote(value).unwrap_or(value).to_owned()))
        .collect();
    match current.text.split_once('=') {
        Some((name, value)) => {
            let path: Vec<&str> = name.split('.').collect();
            let start = current.start + name.len() + 1;
            let words = schema.argument(command.text, &path, &given).map(values).unwrap_or_default();
            let matching = words.into_iter().filter(|word| word.starts_with(value));
            Completion { start, candidates: matching.map(|text| Candidate { text, note: String::new() }).collect() }
        }
        None => complete_argument(schema, command.text, &current, &given),
    }
}

fn complete_command(schema: &Schema, start: usize, prefix: &str) -> Completion {
    let matching = schema.commands().filter(|command| command.starts_with(prefix));
    let candidates = matching.map(|text| Candidate { text: text.to_owned(), note: String::new() });
    Completion { start, candidates: candidates.collect() }
}

fn complete_argument(schema: &Schema, command: &str, current: &Word<'_>, given: &[(String, String)]) -> Completion {
    let mut path: Vec<&str> = current.text.split('.').collect();
    let prefix = path.pop().unwrap_or_default();
    let start = current.start + current.text.len() - prefix.len();
    let parents = path.iter().map(|step| format!("{step}.")).collect::<String>();
    let mut candidates: Vec<Candidate> = schema
        .members(command, &path, given)
        .into_iter()
        .filter(|member| member.name.starts_with(prefix))
        .filter(|member| !given.iter().any(|(name, _)| *name == format!("{parents}{}", member.name)))
        .map(|member| {
            let nested = matches!(schema.kind(&member.kind), Some(Kind::Object { .. }));
            let end = if nested { '.' } else { '=' };
            let note = schema.kind(&member.kind).map(describe).unwrap_or_default();
            let note = if member.optional { format!("{note}, optional") } else { note };
            Candidate { text: format!("{}{end}", member.name), note }
        })
        .collect();
    candidates.sort();
    Completion { start, candidates }
}

/// In JSON, the command's name is completed and nothing else.
fn complete_json(schema: &Schema, before: &str) -> Completion {
    let nothing = Completion { start: before.len(), candidates: Vec::new() };
    let Some(quote) = before.rfind(['"', '\'']) else { return nothing };
    let Some(verb) = before[..quote].trim_end().strip_suffix(':') else { return nothing };
    let verb = verb.trim_end().trim_end_matches(['"', '\'']);
    if !verb.ends_with("execute") && !verb.ends_with("exec-oob") {
        return nothing;
    }
    complete_command(schema, quote + 1, &before[quote + 1..])
}

/// The words that a value of this type can be.
fn values(kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Enum(values) => values.clone(),
        Kind::Builtin(json) if json == "boolean" => vec!["false".to_owned(), "true".to_owned()],
        _ => Vec::new(),
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Builtin(json) => json.clone(),
        Kind::Enum(values) => {
            const SHOWN: usize = 4;
            let more = if values.len() > SHOWN { "|..." } else { "" };
            format!("{}{more}", values.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("|"))
        }
        Kind::Array(_) => "array".to_owned(),
        Kind::Object { .. } => "object".to_owned(),
        Kind::Alternate(_) => "alternate".to_owned(),
    }
}

/// `value` laid out for people: what fits into `width` columns on one line, the rest a member a line.
pub fn pretty(value: &Value, width: usize) -> String {
    let mut out = String::new();
    lay_out(&mut out, value, 0, width);
    out
}

/// Spaces a level.
const INDENT: usize = 2;

fn lay_out(out: &mut String, value: &Value, indent: usize, width: usize) {
    let flat = crate::json::to_string(value);
    let column = out.len() - out.rfind('\n').map_or(0, |newline| newline + 1);
    let (open, close, entries): (char, char, Vec<(Option<&String>, &Value)>) = match value {
        Value::Object(members) if column + flat.len() > width => {
            ('{', '}', members.iter().map(|(name, value)| (Some(name), value)).collect())
        }
        Value::Array(elements) if column + flat.len() > width => {
            ('[', ']', elements.iter().map(|value| (None, value)).collect())
        }
        _ => return out.push_str(&flat),
    };
    out.push(open);
    let last = entries.len().saturating_sub(1);
    for (index, (name, value)) in entries.into_iter().enumerate() {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent + INDENT));
        if let Some(name) = name {
            out.push_str(&crate::json::to_string(name));
            out.push_str(": ");
        }
        lay_out(out, value, indent + INDENT, width);
        if index != last {
            out.push(',');
        }
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    out.push(close);
}
