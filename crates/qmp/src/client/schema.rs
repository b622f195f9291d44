//! What a server can do, from its answer to `query-qmp-schema`: for completion, and to read typed-in arguments.
//!
//! Source: QAPI introspection: objects, enums, arrays, alternates and builtin types that refer to each other by name.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// One member of an object type.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub kind: String,
    /// Whether it may be left out.
    pub optional: bool,
}

/// A type of the schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A plain JSON type: `string`, `int`, `number`, `boolean`, `null` or `value`.
    Builtin(String),
    /// One of these words.
    Enum(Vec<String>),
    /// Any number of elements of the named type.
    Array(String),
    /// Members, and more of them that depend on the value of one, the tag.
    Object {
        /// The members that are always there.
        members: Vec<Member>,
        /// The member that decides.
        tag: Option<String>,
        /// The type that adds its members, by the tag's value.
        variants: BTreeMap<String, String>,
    },
    /// One of the named types, told apart by its JSON type.
    Alternate(Vec<String>),
}

/// Commands and their types.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    commands: BTreeMap<String, String>,
    events: BTreeMap<String, String>,
    types: HashMap<String, Kind>,
}

/// How deep a dotted path is followed.
const DEEPEST_PATH: usize = 32;

impl Schema {
    /// Reads the result of `query-qmp-schema`. What is not understood is left out: completion then offers less.
    pub fn from_json(schema: &Value) -> Self {
        let mut read = Self::default();
        for entry in schema.as_array().into_iter().flatten() {
            let Some(name) = text(entry, "name") else { continue };
            let Some(meta) = text(entry, "meta-type") else { continue };
            let kind = match meta.as_str() {
                "command" => {
                    read.commands.insert(name, text(entry, "arg-type").unwrap_or_default());
                    continue;
                }
                "event" => {
                    read.events.insert(name, text(entry, "arg-type").unwrap_or_default());
                    continue;
                }
                "builtin" => text(entry, "json-type").map(Kind::Builtin),
                "enum" => Some(Kind::Enum(enum_values(entry))),
                "array" => text(entry, "element-type").map(Kind::Array),
                "object" => Some(object(entry)),
                "alternate" => {
                    Some(Kind::Alternate(list(entry, "members").filter_map(|member| text(member, "type")).collect()))
                }
                _ => None,
            };
            if let Some(kind) = kind {
                read.types.insert(name, kind);
            }
        }
        read
    }

    /// All commands, in alphabetical order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// All events, in alphabetical order.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// Whether there is such a command.
    pub fn has_command(&self, command: &str) -> bool {
        self.commands.contains_key(command)
    }

    /// The type of that name.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        self.types.get(name)
    }

    /// The members that the arguments of `command` may have at `path`, given what `given` says of tags: those of
    /// `props.` for example. Names in `given` are dotted paths.
    pub fn members(&self, command: &str, path: &[&str], given: &[(String, String)]) -> Vec<Member> {
        let Some(mut kind) = self.commands.get(command).and_then(|name| self.kind(name)) else { return Vec::new() };
        let mut prefix = String::new();
        for step in path.iter().take(DEEPEST_PATH) {
            let members = self.members_of(kind, &prefix, given);
            let Some(next) = members.iter().find(|member| member.name == *step) else { return Vec::new() };
            let Some(next) = self.kind(&next.kind) else { return Vec::new() };
            kind = next;
            prefix = format!("{prefix}{step}.");
        }
        self.members_of(kind, &prefix, given)
    }

    /// The type of the argument of `command` at `path`.
    pub fn argument(&self, command: &str, path: &[&str], given: &[(String, String)]) -> Option<&Kind> {
        let (last, parents) = path.split_last()?;
        let members = self.members(command, parents, given);
        let member = members.iter().find(|member| member.name == *last)?;
        self.kind(&member.kind)
    }

    fn members_of(&self, kind: &Kind, prefix: &str, given: &[(String, String)]) -> Vec<Member> {
        match kind {
            Kind::Object { members, tag, variants } => {
                let mut all = members.clone();
                let tag = tag.as_ref().map(|tag| format!("{prefix}{tag}"));
                let value = given.iter().find(|(name, _)| Some(name) == tag.as_ref()).map(|(_, value)| value);
                if let Some(Kind::Object { members, .. }) =
                    value.and_then(|value| variants.get(value)).and_then(|name| self.kind(name))
                {
                    all.extend(members.iter().cloned());
                }
                all
            }
            Kind::Alternate(kinds) => {
                let objects = kinds.iter().filter_map(|name| self.kind(name));
                let mut objects = objects.filter(|kind| matches!(kind, Kind::Object { .. }));
                objects.next().map(|kind| self.members_of(kind, prefix, given)).unwrap_or_default()
            }
            Kind::Builtin(_) | Kind::Enum(_) | Kind::Array(_) => Vec::new(),
        }
    }
}

fn text(entry: &Value, member: &str) -> Option<String> {
    entry.get(member)?.as_str().map(str::to_owned)
}

fn list<'a>(entry: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    entry.get(member).and_then(Value::as_array).into_iter().flatten()
}

/// The words of an enum, in the form with `members` (today's) or `values` (the older).
fn enum_values(entry: &Value) -> Vec<String> {
    let today: Vec<String> = list(entry, "members").filter_map(|member| text(member, "name")).collect();
    if today.is_empty() {
        return list(entry, "values").filter_map(Value::as_str).map(str::to_owned).collect();
    }
    today
}

fn object(entry: &Value) -> Kind {
    let members = list(entry, "members").filter_map(|member| {
        let optional = member.get("default").is_some();
        Some(Member { name: text(member, "name")?, kind: text(member, "type")?, optional })
    });
    let variants = list(entry, "variants").filter_map(|variant| Some((text(variant, "case")?, text(variant, "type")?)));
    Kind::Object { members: members.collect(), tag: text(entry, "tag"), variants: variants.collect() }
}
