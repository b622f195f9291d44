//! What changed from one schema to another, and whether clients of the old one can go on.
//!
//! The same change may be harmless one way and fatal the other: a server may take more than before and may promise
//! more than before, never less. Names of types are invisible to clients, so only what goes over the wire counts.

use std::collections::BTreeSet;
use std::fmt;

use crate::schema::{
    Alternate, Arguments, Builtin, Command, Condition, Definition, Enum, Event, Feature, Kind, Member, Schema, TypeRef,
    Union,
};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What has changed, by its way from a command or event: `query-cpus, return[].props`.
    pub subject: String,
    /// Which way its values go; none for a command or event as a whole.
    pub direction: Option<Direction>,
    /// What has become of it.
    pub what: String,
    /// Whether clients of the old schema notice.
    pub verdict: Verdict,
}

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From client to server.
    Input,
    /// From server to client.
    Output,
}

/// Whether clients of the old schema can go on as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// They can.
    Compatible,
    /// Some of them cannot.
    Breaking,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Compatible => "compatible",
            Verdict::Breaking => "breaking  ",
        };
        write!(f, "{verdict}  {}: {}", self.subject, self.what)
    }
}

/// Every change from `old` to `new`: commands and events in the old schema's order, then what is new.
pub fn diff(old: &Schema, new: &Schema) -> Vec<Change> {
    let mut differ = Differ { old, new, changes: Vec::new(), seen: BTreeSet::new() };
    for definition in old.definitions() {
        differ.definition(definition);
    }
    for definition in new.definitions() {
        let known = old.get(&definition.name).is_some_and(|before| is_same_kind(before, definition));
        if is_visible(definition) && !known {
            let subject = subject_of(definition);
            differ.tell(&subject, None, "is new", Verdict::Compatible);
        }
    }
    differ.changes
}

/// Whether clients meet the definition by its name.
fn is_visible(definition: &Definition) -> bool {
    matches!(definition.kind, Kind::Command(_) | Kind::Event(_))
}

fn is_same_kind(one: &Definition, other: &Definition) -> bool {
    one.kind.keyword() == other.kind.keyword()
}

fn subject_of(definition: &Definition) -> String {
    format!("{} {}", definition.kind.keyword(), definition.name)
}

/// Breaking if the condition holds.
fn breaking_if(breaking: bool) -> Verdict {
    if breaking { Verdict::Breaking } else { Verdict::Compatible }
}

/// The members of an object: those always there, and those that a value of one of them brings.
struct Object<'a> {
    members: Vec<&'a Member>,
    union: Option<&'a Union>,
}

struct Differ<'a> {
    old: &'a Schema,
    new: &'a Schema,
    changes: Vec<Change>,
    /// Pairs of types already compared, each way.
    seen: BTreeSet<(TypeRef, TypeRef, Direction)>,
}

impl<'a> Differ<'a> {
    fn tell(&mut self, subject: &str, direction: Option<Direction>, what: impl Into<String>, verdict: Verdict) {
        self.changes.push(Change { subject: subject.to_owned(), direction, what: what.into(), verdict });
    }

    fn definition(&mut self, before: &'a Definition) {
        if !is_visible(before) {
            return;
        }
        let subject = subject_of(before);
        let Some(after) = self.new.get(&before.name).filter(|after| is_same_kind(before, after)) else {
            self.tell(&subject, None, "is gone", Verdict::Breaking);
            return;
        };
        self.condition(&subject, None, &before.condition, &after.condition);
        self.features(&subject, None, &before.features, &after.features);
        match (&before.kind, &after.kind) {
            (Kind::Command(old), Kind::Command(new)) => self.command(&subject, old, new),
            (Kind::Event(old), Kind::Event(new)) => self.event(&subject, old, new),
            _ => {}
        }
    }

    fn command(&mut self, subject: &str, before: &'a Command, after: &'a Command) {
        for (flag, before, after) in [
            ("allow-oob", before.allow_oob, after.allow_oob),
            ("allow-preconfig", before.allow_preconfig, after.allow_preconfig),
        ] {
            if before != after {
                let what = if after { format!("gains '{flag}'") } else { format!("loses '{flag}'") };
                self.tell(subject, None, what, breaking_if(before));
            }
        }
        if before.success_response != after.success_response {
            let what = if after.success_response { "now answers success" } else { "no longer answers success" };
            self.tell(subject, None, what, Verdict::Breaking);
        }
        let old = self.arguments(self.old, &before.arguments);
        let new = self.arguments(self.new, &after.arguments);
        self.objects(&format!("{subject}, arguments"), Direction::Input, &old, &new);
        let subject = format!("{subject}, return");
        match (&before.returns, &after.returns) {
            (Some(old), Some(new)) => self.types(&subject, Direction::Output, old, new),
            (None, None) => {}
            // A command that returns nothing answers with an empty object.
            (None, Some(new)) => match self.object(self.new, new) {
                Some(new) => {
                    let nothing = Object { members: Vec::new(), union: None };
                    self.objects(&subject, Direction::Output, &nothing, &new);
                }
                None => {
                    let what = format!("is {new} instead of an empty object");
                    self.tell(&subject, Some(Direction::Output), what, Verdict::Breaking);
                }
            },
            (Some(old), None) => {
                self.tell(
                    &subject,
                    Some(Direction::Output),
                    format!("is an empty object instead of {old}"),
                    Verdict::Breaking,
                );
            }
        }
    }

    fn event(&mut self, subject: &str, before: &'a Event, after: &'a Event) {
        let old = self.arguments(self.old, &before.arguments);
        let new = self.arguments(self.new, &after.arguments);
        self.objects(&format!("{subject}, data"), Direction::Output, &old, &new);
    }

    fn arguments(&self, schema: &'a Schema, arguments: &'a Arguments) -> Object<'a> {
        let union = match arguments {
            Arguments::Named { name, .. } => match schema.get(name).map(|definition| &definition.kind) {
                Some(Kind::Union(union)) => Some(union),
                _ => None,
            },
            _ => None,
        };
        Object { members: schema.argument_members(arguments), union }
    }

    fn object(&self, schema: &'a Schema, kind: &TypeRef) -> Option<Object<'a>> {
        let TypeRef::Named(name) = kind else { return None };
        match &schema.get(name)?.kind {
            Kind::Struct(_) => Some(Object { members: schema.members_of(name), union: None }),
            Kind::Union(union) => Some(Object { members: schema.members_of(name), union: Some(union) }),
            _ => None,
        }
    }

    fn condition(
        &mut self,
        subject: &str,
        direction: Option<Direction>,
        before: &Option<Condition>,
        after: &Option<Condition>,
    ) {
        match (before, after) {
            (Some(_), None) => self.tell(subject, direction, "is always there now", Verdict::Compatible),
            (None, Some(condition)) => {
                self.tell(subject, direction, format!("is there only with {condition}"), Verdict::Breaking);
            }
            (Some(before), Some(after)) if before != after => {
                let what = format!("is there with {after} instead of {before}");
                self.tell(subject, direction, what, Verdict::Breaking);
            }
            _ => {}
        }
    }

    fn features(&mut self, subject: &str, direction: Option<Direction>, before: &[Feature], after: &[Feature]) {
        let has = |features: &[Feature], name: &str| features.iter().any(|feature| feature.name == name);
        for feature in before.iter().filter(|feature| !has(after, &feature.name)) {
            // Warnings may go; what clients look for before they use it may not.
            let warning = matches!(feature.name.as_str(), "deprecated" | "unstable");
            let what = format!("loses the feature '{}'", feature.name);
            self.tell(subject, direction, what, breaking_if(!warning));
        }
        for feature in after.iter().filter(|feature| !has(before, &feature.name)) {
            self.tell(subject, direction, format!("gains the feature '{}'", feature.name), Verdict::Compatible);
        }
    }

    fn objects(&mut self, subject: &str, direction: Direction, old: &Object<'a>, new: &Object<'a>) {
        self.members(subject, direction, &old.members, &new.members);
        let tag = |object: &Object<'a>| object.union.map(|union| union.discriminator.as_str());
        if let (Some(before), Some(after)) = (tag(old), tag(new))
            && before != after
        {
            let what = format!("is decided by '{after}' instead of '{before}'");
            self.tell(subject, Some(direction), what, Verdict::Breaking);
            return;
        }
        let values = |schema: &'a Schema, object: &Object<'a>| -> Vec<&'a str> {
            let values = object.union.and_then(|union| schema.discriminator(union));
            values
                .map(|(_, values)| values.members.iter().map(|value| value.name.as_str()).collect())
                .unwrap_or_default()
        };
        let (before, after) = (values(self.old, old), values(self.new, new));
        let common = |value: &&str| match (old.union, new.union) {
            // A value that only one side has is a change of the deciding member, already told.
            (Some(_), Some(_)) => before.contains(value) && after.contains(value),
            _ => true,
        };
        let mut all = before.clone();
        all.extend(after.iter().filter(|value| !before.contains(value)));
        for value in all.into_iter().filter(common) {
            let subject = format!("{subject}<{value}>");
            let branch = |union: Option<&'a Union>| {
                union
                    .and_then(|union| union.branches.iter().find(|branch| branch.name == value))
                    .map(|branch| &branch.kind)
            };
            // A simple union has the branch in its member 'data'; today that is written as a struct of this one member.
            let data = |schema: &'a Schema, union: Option<&'a Union>| match branch(union)? {
                kind if union?.simple => Some(kind),
                kind => match schema.members_of(&kind.to_string()).as_slice() {
                    [member] if member.name == "data" && !member.optional => Some(&member.kind),
                    _ => None,
                },
            };
            let simple = |union: Option<&Union>| union.is_some_and(|union| union.simple);
            if (simple(old.union) || simple(new.union)) && branch(old.union).is_some() && branch(new.union).is_some() {
                match (data(self.old, old.union), data(self.new, new.union)) {
                    (Some(before), Some(after)) => self.types(&format!("{subject}.data"), direction, before, after),
                    _ => self.tell(&subject, Some(direction), "is wrapped differently", Verdict::Breaking),
                }
                continue;
            }
            let nothing = || Object { members: Vec::new(), union: None };
            let before = branch(old.union).and_then(|kind| self.object(self.old, kind)).unwrap_or_else(nothing);
            let after = branch(new.union).and_then(|kind| self.object(self.new, kind)).unwrap_or_else(nothing);
            self.objects(&subject, direction, &before, &after);
        }
    }

    fn members(&mut self, subject: &str, direction: Direction, old: &[&'a Member], new: &[&'a Member]) {
        let way = Some(direction);
        for before in old {
            let subject = format!("{subject}.{}", before.name);
            let Some(after) = new.iter().find(|after| after.name == before.name) else {
                let what = match direction {
                    Direction::Input => "is no longer taken",
                    Direction::Output => "is no longer there",
                };
                self.tell(&subject, way, what, Verdict::Breaking);
                continue;
            };
            match (before.optional, after.optional) {
                (false, true) => {
                    self.tell(&subject, way, "becomes optional", breaking_if(direction == Direction::Output));
                }
                (true, false) => {
                    self.tell(&subject, way, "becomes mandatory", breaking_if(direction == Direction::Input));
                }
                _ => {}
            }
            self.condition(&subject, way, &before.condition, &after.condition);
            self.features(&subject, way, &before.features, &after.features);
            self.types(&subject, direction, &before.kind, &after.kind);
        }
        for after in new.iter().filter(|after| !old.iter().any(|before| before.name == after.name)) {
            let what = if after.optional { "is new and optional" } else { "is new and mandatory" };
            let verdict = breaking_if(direction == Direction::Input && !after.optional);
            self.tell(&format!("{subject}.{}", after.name), way, what, verdict);
        }
    }

    fn types(&mut self, subject: &str, direction: Direction, old: &TypeRef, new: &TypeRef) {
        if let (TypeRef::Array(old), TypeRef::Array(new)) = (old, new) {
            self.types(&format!("{subject}[]"), direction, old, new);
            return;
        }
        if !self.seen.insert((old.clone(), new.clone(), direction)) {
            return;
        }
        if let (Some(old), Some(new)) = (self.object(self.old, old), self.object(self.new, new)) {
            self.objects(subject, direction, &old, &new);
            return;
        }
        if let (Some(old), Some(new)) = (enumeration(self.old, old), enumeration(self.new, new)) {
            self.enumerations(subject, direction, old, new);
            return;
        }
        if let (Some(old), Some(new)) = (alternate(self.old, old), alternate(self.new, new)) {
            self.alternates(subject, direction, old, new);
            return;
        }
        if old == new && matches!(old, TypeRef::Builtin(_)) {
            return;
        }
        let harmless = match direction {
            Direction::Input => self.holds(self.old, old, self.new, new),
            Direction::Output => self.holds(self.new, new, self.old, old),
        };
        let what = format!("is {} instead of {}", name(self.new, new), name(self.old, old));
        self.tell(subject, Some(direction), what, breaking_if(!harmless));
    }

    fn enumerations(&mut self, subject: &str, direction: Direction, old: &Enum, new: &Enum) {
        let way = Some(direction);
        for before in &old.members {
            let subject = format!("{subject}='{}'", before.name);
            match new.members.iter().find(|after| after.name == before.name) {
                Some(after) => {
                    self.condition(&subject, way, &before.condition, &after.condition);
                    self.features(&subject, way, &before.features, &after.features);
                }
                None => match direction {
                    Direction::Input => self.tell(&subject, way, "is no longer taken", Verdict::Breaking),
                    Direction::Output => self.tell(&subject, way, "no longer occurs", Verdict::Compatible),
                },
            }
        }
        for after in new.members.iter().filter(|after| !old.members.iter().any(|before| before.name == after.name)) {
            let subject = format!("{subject}='{}'", after.name);
            match direction {
                Direction::Input => self.tell(&subject, way, "is new", Verdict::Compatible),
                Direction::Output => {
                    self.tell(&subject, way, "is new, and clients may not expect it", Verdict::Breaking);
                }
            }
        }
    }

    fn alternates(&mut self, subject: &str, direction: Direction, old: &'a Alternate, new: &'a Alternate) {
        let (old_schema, new_schema) = (self.old, self.new);
        let mut matched = BTreeSet::new();
        for before in &old.branches {
            let json = json_type(old_schema, &before.kind);
            let after = new.branches.iter().enumerate().find(|(_, after)| json_type(new_schema, &after.kind) == json);
            match after {
                Some((index, after)) => {
                    matched.insert(index);
                    self.types(&format!("{subject}:{json}"), direction, &before.kind, &after.kind);
                }
                None => {
                    let what = format!("is no longer {}", name(old_schema, &before.kind));
                    self.tell(subject, Some(direction), what, breaking_if(direction == Direction::Input));
                }
            }
        }
        for (_, after) in new.branches.iter().enumerate().filter(|(index, _)| !matched.contains(index)) {
            let what = format!("may also be {}", name(new_schema, &after.kind));
            self.tell(subject, Some(direction), what, breaking_if(direction == Direction::Output));
        }
    }

    /// Whether each value of `narrow` is a value of `wide`.
    fn holds(&self, narrow_schema: &'a Schema, narrow: &TypeRef, wide_schema: &'a Schema, wide: &TypeRef) -> bool {
        if let Some(alternate) = alternate(wide_schema, wide) {
            return alternate
                .branches
                .iter()
                .any(|branch| self.holds_exactly(narrow_schema, narrow, wide_schema, &branch.kind));
        }
        match (narrow, wide) {
            (_, TypeRef::Builtin(Builtin::Any)) => true,
            (TypeRef::Builtin(narrow), TypeRef::Builtin(wide)) => match (range(*narrow), range(*wide)) {
                (Some((low, high)), Some((wide_low, wide_high))) => wide_low <= low && high <= wide_high,
                (Some(_), None) => *wide == Builtin::Number,
                _ => narrow == wide,
            },
            (TypeRef::Named(_), TypeRef::Builtin(Builtin::Str)) => enumeration(narrow_schema, narrow).is_some(),
            _ => false,
        }
    }

    /// As [`Self::holds`], where the wide type is a branch of an alternate: whole types must agree.
    fn holds_exactly(
        &self,
        narrow_schema: &'a Schema,
        narrow: &TypeRef,
        wide_schema: &'a Schema,
        wide: &TypeRef,
    ) -> bool {
        if alternate(wide_schema, wide).is_some() {
            return false;
        }
        if self.holds(narrow_schema, narrow, wide_schema, wide) {
            return true;
        }
        if json_type(narrow_schema, narrow) != json_type(wide_schema, wide) {
            return false;
        }
        let mut differ = Differ { old: narrow_schema, new: wide_schema, changes: Vec::new(), seen: BTreeSet::new() };
        differ.types("", Direction::Input, narrow, wide);
        differ.changes.iter().all(|change| change.verdict == Verdict::Compatible)
    }
}

fn enumeration<'a>(schema: &'a Schema, kind: &TypeRef) -> Option<&'a Enum> {
    match kind {
        TypeRef::Named(name) => schema.enumeration(name),
        _ => None,
    }
}

fn alternate<'a>(schema: &'a Schema, kind: &TypeRef) -> Option<&'a Alternate> {
    match kind {
        TypeRef::Named(name) => match &schema.get(name)?.kind {
            Kind::Alternate(alternate) => Some(alternate),
            _ => None,
        },
        _ => None,
    }
}

/// What a value looks like in JSON.
fn json_type(schema: &Schema, kind: &TypeRef) -> &'static str {
    match kind {
        TypeRef::Array(_) => "array",
        TypeRef::Builtin(builtin) => match builtin.json_type() {
            "int" => "number",
            json => json,
        },
        TypeRef::Named(name) if schema.enumeration(name).is_some() => "string",
        TypeRef::Named(_) => "object",
    }
}

/// How a type is called in a change: clients know no names of types.
fn name(schema: &Schema, kind: &TypeRef) -> String {
    match kind {
        TypeRef::Builtin(builtin) => builtin.name().to_owned(),
        TypeRef::Array(element) => format!("a list of {}", name(schema, element)),
        TypeRef::Named(named) => match schema.get(named).map(|definition| &definition.kind) {
            Some(Kind::Enum(_)) => format!("the enum {named}"),
            Some(Kind::Alternate(_)) => format!("the alternate {named}"),
            _ => format!("the object {named}"),
        },
    }
}

/// The values of an integer type.
fn range(builtin: Builtin) -> Option<(i128, i128)> {
    Some(match builtin {
        Builtin::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Builtin::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Builtin::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Builtin::Int | Builtin::Int64 => (i64::MIN.into(), i64::MAX.into()),
        Builtin::Uint8 => (0, u8::MAX.into()),
        Builtin::Uint16 => (0, u16::MAX.into()),
        Builtin::Uint32 => (0, u32::MAX.into()),
        Builtin::Uint64 | Builtin::Size => (0, u64::MAX.into()),
        _ => return None,
    })
}
