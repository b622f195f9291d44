//! A schema as data: the reply of `query-qmp-schema`.
//!
//! Commands and events come first, then each type they lead to, once. Types bear numbers instead of names, so that no
//! client comes to rely on them; integers of all sizes are `int`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::schema::{Arguments, Builtin, Command, Definition, Event, Feature, Kind, Member, Schema, TypeRef, Union};

/// How types are named in introspection data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By number, as servers answer.
    Masked,
    /// By their names in the schema, for people.
    Kept,
}

/// The reply of `query-qmp-schema` for `schema`.
pub fn introspect(schema: &Schema) -> Value {
    introspect_with(schema, Naming::Masked)
}

/// The reply of `query-qmp-schema` for `schema`, with types named as asked.
pub fn introspect_with(schema: &Schema, naming: Naming) -> Value {
    let mut introspection = Introspection { schema, naming, queue: Vec::new(), numbers: BTreeMap::new() };
    let mut rows = Vec::new();
    for definition in schema.definitions() {
        match &definition.kind {
            Kind::Command(command) => rows.push(introspection.command(definition, command)),
            Kind::Event(event) => rows.push(introspection.event(definition, event)),
            _ => {}
        }
    }
    // The queue grows while it is worked off: types lead to types.
    let mut next = 0;
    while let Some(entry) = introspection.queue.get(next).cloned() {
        rows.push(introspection.entry(&entry));
        next += 1;
    }
    Value::Array(rows)
}

/// A type that gets a row of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Entry<'a> {
    Type(TypeRef),
    /// The object without members.
    Empty,
    /// The members that a command or event writes in place.
    Inline {
        owner: &'a str,
    },
    /// The `data` around a branch of a simple union.
    Wrapper(TypeRef),
}

struct Introspection<'a> {
    schema: &'a Schema,
    naming: Naming,
    queue: Vec<Entry<'a>>,
    numbers: BTreeMap<Entry<'a>, usize>,
}

impl<'a> Introspection<'a> {
    /// The name of a type, which gets its row.
    fn name(&mut self, entry: &Entry<'a>) -> String {
        let known = self.numbers.get(entry).copied();
        // Arrays take part in the queue but not in the numbering: they are named after their element.
        if known.is_none() {
            let number = self.numbers.keys().filter(|entry| is_numbered(entry)).count();
            self.numbers.insert(entry.clone(), number);
            self.queue.push(entry.clone());
        }
        let number = known.or_else(|| self.numbers.get(entry).copied()).unwrap_or_default();
        match (entry, self.naming) {
            (Entry::Type(TypeRef::Builtin(builtin)), _) => builtin.name().to_owned(),
            (Entry::Type(TypeRef::Array(element)), _) => format!("[{}]", self.type_name(element)),
            (_, Naming::Masked) => number.to_string(),
            (Entry::Type(TypeRef::Named(name)), Naming::Kept) => name.clone(),
            (Entry::Empty, Naming::Kept) => "q_empty".to_owned(),
            (Entry::Inline { owner }, Naming::Kept) => format!("q_obj_{owner}-arg"),
            (Entry::Wrapper(wrapped), Naming::Kept) => {
                format!("q_obj_{}-wrapper", wrapped.to_string().trim_matches(['[', ']']))
            }
        }
    }

    fn type_name(&mut self, kind: &TypeRef) -> String {
        self.name(&Entry::Type(plain_integers(kind)))
    }

    fn argument_name(&mut self, owner: &'a str, arguments: &'a Arguments) -> String {
        match arguments {
            Arguments::Inline(members) if !members.is_empty() => self.name(&Entry::Inline { owner }),
            Arguments::Named { name, .. } => self.type_name(&TypeRef::Named(name.clone())),
            _ => self.name(&Entry::Empty),
        }
    }

    fn command(&mut self, definition: &'a Definition, command: &'a Command) -> Value {
        let mut row = row(&definition.name, "command");
        let arguments = self.argument_name(&definition.name, &command.arguments);
        row.insert("arg-type".into(), arguments.into());
        let returns = match &command.returns {
            Some(returns) => self.type_name(returns),
            None => self.name(&Entry::Empty),
        };
        row.insert("ret-type".into(), returns.into());
        if command.allow_oob {
            row.insert("allow-oob".into(), true.into());
        }
        features(&mut row, &definition.features);
        Value::Object(row)
    }

    fn event(&mut self, definition: &'a Definition, event: &'a Event) -> Value {
        let mut row = row(&definition.name, "event");
        let arguments = self.argument_name(&definition.name, &event.arguments);
        row.insert("arg-type".into(), arguments.into());
        features(&mut row, &definition.features);
        Value::Object(row)
    }

    fn entry(&mut self, entry: &Entry<'a>) -> Value {
        let name = self.name(entry);
        match entry {
            Entry::Empty => {
                let mut row = row(&name, "object");
                row.insert("members".into(), json!([]));
                Value::Object(row)
            }
            Entry::Inline { owner } => {
                let mut row = row(&name, "object");
                let arguments = match self.schema.get(owner).map(|definition| &definition.kind) {
                    Some(Kind::Command(Command { arguments, .. }) | Kind::Event(Event { arguments })) => arguments,
                    _ => &Arguments::None,
                };
                let members = self.members(self.schema.argument_members(arguments));
                row.insert("members".into(), members);
                Value::Object(row)
            }
            Entry::Wrapper(wrapped) => {
                let mut row = row(&name, "object");
                let wrapped = self.type_name(wrapped);
                row.insert("members".into(), json!([{ "name": "data", "type": wrapped }]));
                Value::Object(row)
            }
            Entry::Type(TypeRef::Builtin(builtin)) => {
                let mut row = row(&name, "builtin");
                row.insert("json-type".into(), builtin.json_type().into());
                Value::Object(row)
            }
            Entry::Type(TypeRef::Array(element)) => {
                let mut row = row(&name, "array");
                row.insert("element-type".into(), self.type_name(element).into());
                Value::Object(row)
            }
            Entry::Type(TypeRef::Named(type_name)) => self.named(&name, type_name),
        }
    }

    fn named(&mut self, name: &str, type_name: &str) -> Value {
        let schema = self.schema;
        let Some(definition) = schema.get(type_name) else { return Value::Null };
        let mut fields = match &definition.kind {
            Kind::Enum(enumeration) => {
                let mut row = row(name, "enum");
                let members = enumeration.members.iter().map(|member| {
                    let mut fields = Map::new();
                    fields.insert("name".into(), member.name.as_str().into());
                    features(&mut fields, &member.features);
                    Value::Object(fields)
                });
                row.insert("members".into(), members.collect());
                let values = enumeration.members.iter().map(|member| Value::from(member.name.as_str()));
                row.insert("values".into(), values.collect());
                row
            }
            Kind::Struct(_) => {
                let mut row = row(name, "object");
                let members = self.members(schema.members_of(type_name));
                row.insert("members".into(), members);
                row
            }
            Kind::Union(union) => self.union(name, union),
            Kind::Alternate(alternate) => {
                let mut row = row(name, "alternate");
                let members = alternate.branches.iter().map(|branch| json!({ "type": self.type_name(&branch.kind) }));
                let members: Vec<Value> = members.collect();
                row.insert("members".into(), members.into());
                row
            }
            Kind::Command(_) | Kind::Event(_) => return Value::Null,
        };
        features(&mut fields, &definition.features);
        Value::Object(fields)
    }

    fn union(&mut self, name: &str, union: &'a Union) -> Map<String, Value> {
        let mut row = row(name, "object");
        let members = self.members(self.schema.base_members(union));
        row.insert("members".into(), members);
        row.insert("tag".into(), union.discriminator.as_str().into());
        let values = self.schema.discriminator(union).map(|(_, values)| values.members.as_slice()).unwrap_or_default();
        let mut variants = Vec::new();
        for value in values {
            let branch = union.branches.iter().find(|branch| branch.name == value.name);
            let kind = match branch {
                Some(branch) if union.simple => self.name(&Entry::Wrapper(branch.kind.clone())),
                Some(branch) => self.type_name(&branch.kind),
                None => self.name(&Entry::Empty),
            };
            variants.push(json!({ "case": value.name, "type": kind }));
        }
        row.insert("variants".into(), variants.into());
        row
    }

    fn members(&mut self, members: Vec<&Member>) -> Value {
        let rows = members.into_iter().map(|member| {
            let mut fields = Map::new();
            fields.insert("name".into(), member.name.as_str().into());
            fields.insert("type".into(), self.type_name(&member.kind).into());
            if member.optional {
                fields.insert("default".into(), Value::Null);
            }
            features(&mut fields, &member.features);
            Value::Object(fields)
        });
        rows.collect()
    }
}

fn is_numbered(entry: &Entry<'_>) -> bool {
    !matches!(entry, Entry::Type(TypeRef::Builtin(_) | TypeRef::Array(_)))
}

fn row(name: &str, meta_type: &str) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("name".into(), name.into());
    row.insert("meta-type".into(), meta_type.into());
    row
}

fn features(row: &mut Map<String, Value>, features: &[Feature]) {
    if !features.is_empty() {
        let names: Vec<Value> = features.iter().map(|feature| feature.name.as_str().into()).collect();
        row.insert("features".into(), names.into());
    }
}

/// The type as clients see it: a number without a fraction is `int`, whatever its size.
fn plain_integers(kind: &TypeRef) -> TypeRef {
    match kind {
        TypeRef::Builtin(builtin) if builtin.json_type() == "int" => TypeRef::Builtin(Builtin::Int),
        TypeRef::Array(element) => TypeRef::Array(Box::new(plain_integers(element))),
        other => other.clone(),
    }
}
