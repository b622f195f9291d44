//! Reads definitions out of parsed files: which keys each may have, and what form their values take.

use std::collections::BTreeMap;

use crate::doc_check;
use crate::fault::Fault;
use crate::loader::{Loaded, LoadedItem, Pragmas};
use crate::names;
use crate::parser::{Entry, Node, Value};
use crate::resolve;
use crate::schema::{
    Alternate, Arguments, Branch, Builtin, Command, Condition, Definition, Enum, EnumMember, Event, Feature, Item,
    Kind, Member, Module, Schema, Struct, TypeRef, Union, UnionBase,
};
use crate::source::Position;

/// Checks what was loaded and makes a schema of it.
pub(crate) fn check(loaded: Loaded) -> Result<Schema, Vec<Fault>> {
    let Loaded { modules, pragmas } = loaded;
    let mut schema = Schema { modules: Vec::new(), definitions: Vec::new(), index: BTreeMap::new() };
    let mut checker = Checker { pragmas: &pragmas, faults: Vec::new() };
    for (number, module) in modules.into_iter().enumerate() {
        let mut items = Vec::new();
        for item in module.items {
            match item {
                LoadedItem::Text(doc) => items.push(Item::Text(doc)),
                LoadedItem::Include(included) => items.push(Item::Include(included)),
                LoadedItem::Expression { entries, position, doc } => {
                    let Some(mut definition) = checker.definition(&entries, &position) else { continue };
                    definition.module = number;
                    definition.doc = doc;
                    items.push(Item::Definition(definition.name.clone()));
                    if let Some(kind) = checker.implicit_enum(&definition) {
                        checker.add(&mut schema, kind);
                    }
                    checker.add(&mut schema, definition);
                }
            }
        }
        schema.modules.push(Module { name: module.name, path: module.path, items });
    }
    let mut faults = checker.faults;
    resolve::check(&schema, &pragmas, &mut faults);
    doc_check::check(&schema, &pragmas, &mut faults);
    if faults.is_empty() {
        return Ok(schema);
    }
    Err(faults)
}

/// Which keys a definition has, and what they are for.
struct Form {
    keyword: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const FORMS: [Form; 6] = [
    Form { keyword: "enum", required: &["data"], optional: &["prefix", "if", "features"] },
    Form { keyword: "struct", required: &["data"], optional: &["base", "if", "features"] },
    Form { keyword: "union", required: &["data"], optional: &["base", "discriminator", "if", "features"] },
    Form { keyword: "alternate", required: &["data"], optional: &["if", "features"] },
    Form {
        keyword: "command",
        required: &[],
        optional: &[
            "data",
            "returns",
            "boxed",
            "gen",
            "success-response",
            "allow-oob",
            "allow-preconfig",
            "coroutine",
            "if",
            "features",
        ],
    },
    Form { keyword: "event", required: &[], optional: &["data", "boxed", "if", "features"] },
];

struct Checker<'a> {
    pragmas: &'a Pragmas,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, position: &Position, message: impl Into<String>) {
        self.faults.push(Fault::at(position, message));
    }

    fn fault_hint(&mut self, position: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.push(Fault::at(position, message).hint(hint));
    }

    fn add(&mut self, schema: &mut Schema, definition: Definition) {
        if let Some(first) = schema.get(&definition.name) {
            let hint = if first.implicit {
                "the simple union of nearly that name makes it by itself".to_owned()
            } else {
                format!("the first one is at {}:{}", first.position.path().display(), first.position.line())
            };
            self.fault_hint(&definition.position, format!("'{}' is defined a second time", definition.name), hint);
            return;
        }
        // Names that differ in '-' and '_' only would be one name in code.
        let alike = |other: &&Definition| {
            names::plain(&other.name) == names::plain(&definition.name)
                && other.kind.keyword() == definition.kind.keyword()
        };
        if let Some(first) = schema.definitions().find(alike) {
            let message = format!("the {} '{}' clashes with '{}'", first.kind.keyword(), definition.name, first.name);
            self.fault(&definition.position, message);
            return;
        }
        schema.index.insert(definition.name.clone(), schema.definitions.len());
        schema.definitions.push(definition);
    }

    /// The enumeration that a simple union brings along.
    fn implicit_enum(&self, definition: &Definition) -> Option<Definition> {
        let Kind::Union(union) = &definition.kind else { return None };
        if !union.simple {
            return None;
        }
        let members = union
            .branches
            .iter()
            .map(|branch| EnumMember {
                name: branch.name.clone(),
                condition: branch.condition.clone(),
                features: Vec::new(),
                position: branch.position.clone(),
            })
            .collect();
        Some(Definition {
            name: format!("{}Kind", definition.name),
            position: definition.position.clone(),
            module: definition.module,
            doc: None,
            condition: definition.condition.clone(),
            features: Vec::new(),
            implicit: true,
            kind: Kind::Enum(Enum { members }),
            places: Vec::new(),
        })
    }

    fn definition(&mut self, entries: &[Entry], position: &Position) -> Option<Definition> {
        let keyword = entries.iter().find_map(|entry| FORMS.iter().find(|form| form.keyword == entry.key));
        let Some(form) = keyword else {
            self.fault_hint(
                position,
                "this defines nothing",
                "one of the keys is enum, struct, union, alternate, command, event, include or pragma",
            );
            return None;
        };
        let mut whole = true;
        for entry in entries {
            let key = entry.key.as_str();
            if key != form.keyword && !form.required.contains(&key) && !form.optional.contains(&key) {
                let mut known: Vec<&str> = form.required.iter().chain(form.optional).copied().collect();
                known.sort_unstable();
                self.fault_hint(
                    &entry.position,
                    format!("'{}' has no key '{key}'", form.keyword),
                    format!("its keys are {}", known.join(", ")),
                );
                whole = false;
            }
        }
        for key in form.required {
            if !entries.iter().any(|entry| entry.key == *key) {
                self.fault(position, format!("'{}' lacks the key '{key}'", form.keyword));
                whole = false;
            }
        }
        let get = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let name_node = get(form.keyword)?;
        let Some(name) = name_node.text().map(str::to_owned) else {
            self.fault(&name_node.position, format!("'{}' takes a name", form.keyword));
            return None;
        };
        self.definition_name(&name, form.keyword, &name_node.position);
        if !whole {
            return None;
        }
        let condition = self.condition(get("if"));
        let features = self.features(get("features"));
        let data = get("data");
        let kind = match form.keyword {
            "enum" => Kind::Enum(self.enumeration(&name, data?, get("prefix"))?),
            "struct" => Kind::Struct(self.structure(&name, data?, get("base"))?),
            "union" => Kind::Union(self.union(&name, data?, get("base"), get("discriminator"), &name_node.position)?),
            "alternate" => Kind::Alternate(self.alternate(data?)?),
            "command" => Kind::Command(self.command(&name, entries)?),
            _ => Kind::Event(Event { arguments: self.arguments(&name, data, boxed(entries))? }),
        };
        if form.keyword == "event" {
            self.flag(get("boxed"), "boxed", true);
        }
        let position = name_node.position.clone();
        let places = entries.iter().map(|entry| (entry.key.clone(), entry.value.position.clone())).collect();
        Some(Definition { name, position, module: 0, doc: None, condition, features, implicit: false, kind, places })
    }

    fn definition_name(&mut self, name: &str, keyword: &str, position: &Position) {
        if !names::is_valid(name, false) {
            self.fault_hint(
                position,
                format!("'{name}' is no name for {}", article(keyword)),
                "a letter, then letters, digits, '-' and '_'; prefixes are 'x-' and '__domain_'",
            );
            return;
        }
        if names::is_reserved(name) {
            self.fault_hint(position, format!("the name '{name}' is reserved"), "generated code keeps 'q_'");
        }
        if Builtin::named(name).is_some() || name == "QType" {
            self.fault(position, format!("'{name}' is a type of the language itself"));
            return;
        }
        match keyword {
            "event" => {
                if !names::is_upper(name) {
                    self.fault_hint(
                        position,
                        format!("the event '{name}' is not in upper case"),
                        "events are named LIKE_THIS",
                    );
                }
            }
            "command" => {
                let excepted = self.pragmas.command_names.contains(name);
                let underscore = excepted || self.pragmas.first_form;
                if !excepted && !names::is_lower(name, underscore) {
                    self.fault_hint(
                        position,
                        format!("the command '{name}' is not in lower case with '-'"),
                        "name it like-this, or list it in the pragma command-name-exceptions",
                    );
                }
            }
            _ => {
                if !self.pragmas.first_form && !names::is_camel(name) {
                    self.fault_hint(position, format!("the type '{name}' is not in CamelCase"), "name it LikeThis");
                }
                // Simple unions make types that end in "Kind"; today's schemas use the ending themselves.
                for (ending, reserved) in [("List", true), ("Kind", self.pragmas.first_form)] {
                    if reserved && name.ends_with(ending) {
                        let message = format!("the type '{name}' ends in '{ending}'");
                        self.fault_hint(position, message, "implicit types are named so");
                    }
                }
            }
        }
    }

    fn member_name(&mut self, name: &str, owner: &str, what: &str, position: &Position) {
        let digit = what == "enum member" || what == "branch";
        if !names::is_valid(name, digit) {
            self.fault_hint(
                position,
                format!("'{name}' is no name for {}", article(what)),
                "a letter, then letters, digits, '-' and '_'; prefixes are 'x-' and '__domain_'",
            );
            return;
        }
        if names::is_reserved(name) || (what == "member" && names::is_reserved_member(name)) {
            self.fault_hint(
                position,
                format!("the name '{name}' is reserved"),
                "generated code keeps 'u', 'has_' and 'q_'",
            );
        }
        let excepted = self.pragmas.member_names.contains(owner)
            || self.pragmas.member_names.contains(&format!("q_obj_{owner}-base"))
            || self.pragmas.member_names.contains(&format!("q_obj_{owner}-arg"));
        if !excepted && !names::is_lower(name, self.pragmas.first_form) {
            self.fault_hint(
                position,
                format!("the {what} '{name}' is not in lower case with '-'"),
                format!("name it like-this, or list '{owner}' in the pragma member-name-exceptions"),
            );
        }
    }

    fn condition(&mut self, node: Option<&Node>) -> Option<Condition> {
        self.condition_within(node?)
    }

    fn condition_within(&mut self, node: &Node) -> Option<Condition> {
        let conditions = |checker: &mut Self, nodes: &[Node]| -> Option<Vec<Condition>> {
            if nodes.is_empty() {
                checker.fault(&node.position, "a condition of nothing");
                return None;
            }
            nodes.iter().map(|node| checker.condition_within(node)).collect()
        };
        match &node.value {
            Value::Text(symbol) => {
                // The first conditions of the language were C expressions such as `defined(CONFIG_X)`.
                let bare = symbol.strip_prefix("defined(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(symbol);
                let well_formed = bare.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !well_formed {
                    self.fault_hint(
                        &node.position,
                        format!("'{symbol}' is no symbol"),
                        "a condition is a symbol such as 'CONFIG_X', or {'all': [...]}, {'any': [...]}, {'not': ...}",
                    );
                    return None;
                }
                Some(Condition::Symbol(bare.to_owned()))
            }
            Value::List(nodes) => conditions(self, nodes).map(Condition::All),
            Value::Object(entries) => {
                let [entry] = entries.as_slice() else {
                    self.fault(&node.position, "a condition has one key: 'all', 'any' or 'not'");
                    return None;
                };
                match (entry.key.as_str(), &entry.value.value) {
                    ("all", Value::List(nodes)) => conditions(self, nodes).map(Condition::All),
                    ("any", Value::List(nodes)) => conditions(self, nodes).map(Condition::Any),
                    ("not", _) => self.condition_within(&entry.value).map(|inner| Condition::Not(Box::new(inner))),
                    ("all" | "any", _) => {
                        self.fault(&entry.value.position, format!("'{}' takes a list of conditions", entry.key));
                        None
                    }
                    _ => {
                        self.fault(&entry.position, "a condition has one key: 'all', 'any' or 'not'");
                        None
                    }
                }
            }
            Value::Flag(_) => {
                self.fault(&node.position, "a condition is a symbol, not a truth value");
                None
            }
        }
    }

    fn features(&mut self, node: Option<&Node>) -> Vec<Feature> {
        let Some(node) = node else { return Vec::new() };
        let Some(nodes) = node.list() else {
            self.fault(&node.position, "'features' takes a list");
            return Vec::new();
        };
        let mut features: Vec<Feature> = Vec::new();
        for node in nodes {
            let Some((name, entries)) = self.named(node, &["if"]) else { continue };
            let condition = self.condition(entries.iter().find(|entry| entry.key == "if").map(|entry| &entry.value));
            if !names::is_valid(&name, false) || !names::is_lower(&name, false) {
                self.fault_hint(&node.position, format!("'{name}' is no name for a feature"), "name it like-this");
            }
            if features.iter().any(|feature| feature.name == name) {
                self.fault(&node.position, format!("the feature '{name}' a second time"));
                continue;
            }
            features.push(Feature { name, condition, position: node.position.clone() });
        }
        features
    }

    /// `'name'` or `{'name': 'name', ...}`.
    fn named<'n>(&mut self, node: &'n Node, keys: &[&str]) -> Option<(String, &'n [Entry])> {
        if let Some(name) = node.text() {
            return Some((name.to_owned(), &[]));
        }
        let Some(entries) = node.object() else {
            self.fault(&node.position, "expected a name, or an object with the key 'name'");
            return None;
        };
        for entry in entries {
            if entry.key != "name" && !keys.contains(&entry.key.as_str()) {
                self.fault_hint(
                    &entry.position,
                    format!("no key '{}' here", entry.key),
                    format!("the keys are name, {}", keys.join(", ")),
                );
            }
        }
        let name = entries.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.text());
        match name {
            Some(name) => Some((name.to_owned(), entries)),
            None => {
                self.fault(&node.position, "the key 'name' is missing");
                None
            }
        }
    }

    fn enumeration(&mut self, name: &str, data: &Node, prefix: Option<&Node>) -> Option<Enum> {
        if let Some(prefix) = prefix.filter(|prefix| prefix.text().is_none()) {
            self.fault(&prefix.position, "'prefix' takes a string");
        }
        let Some(nodes) = data.list() else {
            self.fault(&data.position, "the data of an enum is a list of names");
            return None;
        };
        let mut members: Vec<EnumMember> = Vec::new();
        for node in nodes {
            let Some((member, entries)) = self.named(node, &["if", "features"]) else { continue };
            let get = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
            let condition = self.condition(get("if"));
            let features = self.features(get("features"));
            self.member_name(&member, name, "enum member", &node.position);
            let alike = names::plain(&member).to_ascii_uppercase();
            if let Some(first) = members.iter().find(|first| names::plain(&first.name).to_ascii_uppercase() == alike) {
                let message = format!("the enum member '{member}' clashes with '{}'", first.name);
                self.fault(&node.position, message);
                continue;
            }
            members.push(EnumMember { name: member, condition, features, position: node.position.clone() });
        }
        Some(Enum { members })
    }

    fn structure(&mut self, name: &str, data: &Node, base: Option<&Node>) -> Option<Struct> {
        let base = match base {
            None => None,
            Some(node) => match node.text() {
                Some(base) => Some(base.to_owned()),
                None => {
                    self.fault(&node.position, "the base of a struct is the name of a struct");
                    None
                }
            },
        };
        let Some(entries) = data.object() else {
            self.fault(&data.position, "the data of a struct is an object of members");
            return None;
        };
        Some(Struct { base, members: self.members(name, entries) })
    }

    fn members(&mut self, owner: &str, entries: &[Entry]) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        for entry in entries {
            let (name, optional) = match entry.key.strip_prefix('*') {
                Some(name) => (name, true),
                None => (entry.key.as_str(), false),
            };
            self.member_name(name, owner, "member", &entry.position);
            let Some((kind, condition, features)) = self.typed(&entry.value) else { continue };
            if let Some(first) = members.iter().find(|first| names::plain(&first.name) == names::plain(name)) {
                let message = format!("the member '{name}' clashes with '{}'", first.name);
                self.fault(&entry.position, message);
                continue;
            }
            let position = entry.position.clone();
            members.push(Member { name: name.to_owned(), optional, kind, condition, features, position });
        }
        members
    }

    /// `TYPE` or `{'type': TYPE, 'if': ..., 'features': ...}`.
    fn typed(&mut self, node: &Node) -> Option<(TypeRef, Option<Condition>, Vec<Feature>)> {
        let Some(entries) = node.object() else {
            return Some((self.type_reference(node)?, None, Vec::new()));
        };
        let get = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        for entry in entries {
            if !["type", "if", "features"].contains(&entry.key.as_str()) {
                let message = format!("no key '{}' here", entry.key);
                self.fault_hint(&entry.position, message, "a member's keys are type, if, features");
                return None;
            }
        }
        let Some(kind) = get("type") else {
            self.fault_hint(&node.position, "the key 'type' is missing", "members do not nest: name a struct");
            return None;
        };
        let kind = self.type_reference(kind)?;
        Some((kind, self.condition(get("if")), self.features(get("features"))))
    }

    fn type_reference(&mut self, node: &Node) -> Option<TypeRef> {
        let named = |name: &str| match Builtin::named(name) {
            Some(builtin) => TypeRef::Builtin(builtin),
            None => TypeRef::Named(name.to_owned()),
        };
        match &node.value {
            Value::Text(name) => Some(named(name)),
            Value::List(nodes) => match nodes.as_slice() {
                [element] if element.text().is_some() => {
                    Some(TypeRef::Array(Box::new(named(element.text().unwrap_or_default()))))
                }
                _ => {
                    self.fault_hint(&node.position, "a list type names one type", "write ['TYPE']");
                    None
                }
            },
            _ => {
                self.fault_hint(&node.position, "expected a type", "a name, or a name in brackets for a list");
                None
            }
        }
    }

    fn union(
        &mut self,
        name: &str,
        data: &Node,
        base: Option<&Node>,
        discriminator: Option<&Node>,
        position: &Position,
    ) -> Option<Union> {
        let Some(entries) = data.object() else {
            self.fault(&data.position, "the data of a union is an object of branches");
            return None;
        };
        let branches = self.branches(name, entries)?;
        if branches.is_empty() {
            self.fault(&data.position, format!("the union '{name}' has no branch"));
            return None;
        }
        match (base, discriminator) {
            (None, None) => {
                let kind = Member {
                    name: "type".into(),
                    optional: false,
                    kind: TypeRef::Named(format!("{name}Kind")),
                    condition: None,
                    features: Vec::new(),
                    position: position.clone(),
                };
                Some(Union {
                    base: UnionBase::Inline(vec![kind]),
                    discriminator: "type".into(),
                    simple: true,
                    branches,
                })
            }
            (Some(base), None) => {
                self.fault_hint(
                    &base.position,
                    format!("the union '{name}' has a base but no discriminator"),
                    "the key 'discriminator' names the member of the base that decides",
                );
                None
            }
            (None, Some(discriminator)) => {
                self.fault_hint(
                    &discriminator.position,
                    format!("the union '{name}' has a discriminator but no base"),
                    "the key 'base' names or holds the members that are always there",
                );
                None
            }
            (Some(base), Some(discriminator)) => {
                let base = match &base.value {
                    Value::Text(struct_name) => UnionBase::Named(struct_name.clone()),
                    Value::Object(entries) => UnionBase::Inline(self.members(name, entries)),
                    _ => {
                        self.fault(&base.position, "the base of a union is a struct's name or an object of members");
                        return None;
                    }
                };
                let Some(discriminator) = discriminator.text() else {
                    self.fault(&discriminator.position, "'discriminator' takes the name of a member");
                    return None;
                };
                Some(Union { base, discriminator: discriminator.to_owned(), simple: false, branches })
            }
        }
    }

    fn branches(&mut self, owner: &str, entries: &[Entry]) -> Option<Vec<Branch>> {
        let mut branches: Vec<Branch> = Vec::new();
        for entry in entries {
            self.member_name(&entry.key, owner, "branch", &entry.position);
            let (kind, condition, features) = self.typed(&entry.value)?;
            if let Some(feature) = features.first() {
                self.fault(&feature.position, "a branch has no features");
            }
            if let Some(first) = branches.iter().find(|first| names::plain(&first.name) == names::plain(&entry.key)) {
                let message = format!("the branch '{}' clashes with '{}'", entry.key, first.name);
                self.fault(&entry.position, message);
                continue;
            }
            branches.push(Branch { name: entry.key.clone(), kind, condition, position: entry.position.clone() });
        }
        Some(branches)
    }

    fn alternate(&mut self, data: &Node) -> Option<Alternate> {
        let Some(entries) = data.object().filter(|entries| !entries.is_empty()) else {
            self.fault(&data.position, "the data of an alternate is an object of at least one type");
            return None;
        };
        // Branch names never reach the wire, so their case is free.
        let mut branches = Vec::new();
        for entry in entries {
            if !names::is_valid(&entry.key, true) {
                self.fault(&entry.position, format!("'{}' is no name for a branch", entry.key));
            }
            let (kind, condition, _) = self.typed(&entry.value)?;
            branches.push(Branch { name: entry.key.clone(), kind, condition, position: entry.position.clone() });
        }
        Some(Alternate { branches })
    }

    /// A flag that is only ever written with the value that differs from its default.
    fn flag(&mut self, node: Option<&Node>, key: &str, expected: bool) -> bool {
        match node.map(|node| (&node.value, &node.position)) {
            None => !expected,
            Some((Value::Flag(flag), _)) if *flag == expected => expected,
            Some((_, position)) => {
                self.fault_hint(
                    position,
                    format!("'{key}' is {expected} or absent"),
                    format!("leave it out for {}", !expected),
                );
                expected
            }
        }
    }

    fn command(&mut self, name: &str, entries: &[Entry]) -> Option<Command> {
        let find = |key: &str| entries.iter().find(|entry| entry.key == key);
        let get = |key: &str| find(key).map(|entry| &entry.value);
        self.flag(get("boxed"), "boxed", true);
        let allow_oob = self.flag(get("allow-oob"), "allow-oob", true);
        let coroutine = self.flag(get("coroutine"), "coroutine", true);
        if let Some(entry) = find("coroutine").filter(|_| allow_oob && coroutine) {
            self.fault(&entry.position, "'coroutine' beside 'allow-oob'");
        }
        let returns = match get("returns") {
            Some(node) => Some(self.type_reference(node)?),
            None => None,
        };
        Some(Command {
            arguments: self.arguments(name, get("data"), boxed(entries))?,
            returns,
            generated: self.flag(get("gen"), "gen", false),
            success_response: self.flag(get("success-response"), "success-response", false),
            allow_oob,
            allow_preconfig: self.flag(get("allow-preconfig"), "allow-preconfig", true),
            coroutine,
        })
    }

    fn arguments(&mut self, owner: &str, data: Option<&Node>, boxed: Option<&Position>) -> Option<Arguments> {
        match data.map(|node| (&node.value, node)) {
            None => {
                if let Some(boxed) = boxed {
                    self.fault(boxed, "'boxed' without 'data'");
                }
                Some(Arguments::None)
            }
            Some((Value::Text(name), _)) => Some(Arguments::Named { name: name.clone(), boxed: boxed.is_some() }),
            Some((Value::Object(_), node)) if boxed.is_some() => {
                self.fault(&node.position, "'boxed' with members in place: name a type");
                None
            }
            Some((Value::Object(entries), _)) => Some(Arguments::Inline(self.members(owner, entries))),
            Some((_, node)) => {
                self.fault(&node.position, "'data' is an object of members or the name of a type");
                None
            }
        }
    }
}

/// Where `'boxed': true` stands, if it does.
fn boxed(entries: &[Entry]) -> Option<&Position> {
    let entry = entries.iter().find(|entry| entry.key == "boxed")?;
    matches!(entry.value.value, Value::Flag(true)).then_some(&entry.position)
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}
