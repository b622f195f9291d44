//! A checked schema: definitions by module, as the rest of this crate reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::doc::Doc;
use crate::fault::Fault;
use crate::source::Position;

/// A whole schema: the root file and everything it includes.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The files, the root first, then in the order of their first inclusion.
    pub modules: Vec<Module>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) index: BTreeMap<String, usize>,
}

/// One schema file.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file's name without folder and ending: `run-state`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What stands in it, in order.
    pub items: Vec<Item>,
}

/// One thing in a schema file.
#[derive(Clone, Debug)]
pub enum Item {
    /// The definition of that name.
    Definition(String),
    /// A text between definitions.
    Text(Doc),
    /// The module of that number, included here for the first time.
    Include(usize),
}

/// A named definition.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name on the wire or, for types, in the schema.
    pub name: String,
    /// Where the definition starts.
    pub position: Position,
    /// Which of [`Schema::modules`] it is in.
    pub module: usize,
    /// Its documentation.
    pub doc: Option<Doc>,
    /// When it is there.
    pub condition: Option<Condition>,
    /// What clients may probe for.
    pub features: Vec<Feature>,
    /// Whether the language made it, not the schema's author.
    pub implicit: bool,
    /// What it defines.
    pub kind: Kind,
    /// Where the values of its keys stand.
    pub(crate) places: Vec<(String, Position)>,
}

impl Definition {
    /// Where the value of `key` stands, or the definition's name if there is none.
    pub(crate) fn place(&self, key: &str) -> &Position {
        self.places.iter().find(|(name, _)| name == key).map_or(&self.position, |(_, position)| position)
    }
}

/// What a definition defines.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A set of words.
    Enum(Enum),
    /// A set of members.
    Struct(Struct),
    /// Members, some of which depend on the value of one.
    Union(Union),
    /// One of several types, told apart by their JSON.
    Alternate(Alternate),
    /// What a client may ask for.
    Command(Command),
    /// What a server tells by itself.
    Event(Event),
}

impl Kind {
    /// The keyword that defines it.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Enum(_) => "enum",
            Self::Struct(_) => "struct",
            Self::Union(_) => "union",
            Self::Alternate(_) => "alternate",
            Self::Command(_) => "command",
            Self::Event(_) => "event",
        }
    }
}

/// A set of words.
#[derive(Clone, Debug)]
pub struct Enum {
    /// The words.
    pub members: Vec<EnumMember>,
}

/// One word of an enumeration.
#[derive(Clone, Debug)]
pub struct EnumMember {
    /// The word.
    pub name: String,
    /// When it is there.
    pub condition: Option<Condition>,
    /// What clients may probe for.
    pub features: Vec<Feature>,
    /// Where it is named.
    pub position: Position,
}

/// A set of members.
#[derive(Clone, Debug)]
pub struct Struct {
    /// The struct whose members it has too.
    pub base: Option<String>,
    /// Its own members.
    pub members: Vec<Member>,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, without the `*` of an optional one.
    pub name: String,
    /// Whether it may be absent.
    pub optional: bool,
    /// What it holds.
    pub kind: TypeRef,
    /// When it is there.
    pub condition: Option<Condition>,
    /// What clients may probe for.
    pub features: Vec<Feature>,
    /// Where it is named.
    pub position: Position,
}

/// Members, some of which depend on the value of one.
#[derive(Clone, Debug)]
pub struct Union {
    /// The members that are always there.
    pub base: UnionBase,
    /// The member whose value decides.
    pub discriminator: String,
    /// Whether each branch is wrapped in a member `data` (the simple unions of the language's first form).
    pub simple: bool,
    /// The members that a value brings. A value without a branch brings none.
    pub branches: Vec<Branch>,
}

/// Where a union's own members are written.
#[derive(Clone, Debug)]
pub enum UnionBase {
    /// In a struct of that name.
    Named(String),
    /// In the union itself.
    Inline(Vec<Member>),
}

/// One branch of a union or alternate.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The value of the discriminator; for alternates, a name for people.
    pub name: String,
    /// What it holds.
    pub kind: TypeRef,
    /// When it is there.
    pub condition: Option<Condition>,
    /// Where it is named.
    pub position: Position,
}

/// One of several types, told apart by their JSON.
#[derive(Clone, Debug)]
pub struct Alternate {
    /// The types.
    pub branches: Vec<Branch>,
}

/// What a client may ask for.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it takes.
    pub arguments: Arguments,
    /// What it returns; without it, an empty object.
    pub returns: Option<TypeRef>,
    /// Whether its arguments are read and checked by generated code.
    pub generated: bool,
    /// Whether success is answered at all.
    pub success_response: bool,
    /// Whether it may run out of band.
    pub allow_oob: bool,
    /// Whether it may run before the machine exists.
    pub allow_preconfig: bool,
    /// Whether it takes long, and so works off the monitor's thread.
    pub coroutine: bool,
}

/// What a server tells by itself.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it tells.
    pub arguments: Arguments,
}

/// The members of a command's arguments or an event's data.
#[derive(Clone, Debug)]
pub enum Arguments {
    /// None.
    None,
    /// Written in place.
    Inline(Vec<Member>),
    /// Those of a type; `boxed` if handlers take them as one value.
    Named {
        /// The type.
        name: String,
        /// Whether handlers take them as one value.
        boxed: bool,
    },
}

/// What clients may probe for.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// When it is there.
    pub condition: Option<Condition>,
    /// Where it is named.
    pub position: Position,
}

/// When something is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// When that symbol is defined.
    Symbol(String),
    /// When all hold.
    All(Vec<Self>),
    /// When one holds.
    Any(Vec<Self>),
    /// When it does not hold.
    Not(Box<Self>),
}

impl Condition {
    /// Whether it holds where exactly `symbols` are defined.
    pub fn holds(&self, symbols: &BTreeSet<String>) -> bool {
        match self {
            Self::Symbol(symbol) => symbols.contains(symbol),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(symbols)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(symbols)),
            Self::Not(condition) => !condition.holds(symbols),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |f: &mut std::fmt::Formatter<'_>, conditions: &[Self], word: &str| {
            write!(f, "(")?;
            for (index, condition) in conditions.iter().enumerate() {
                let separator = if index == 0 { "" } else { word };
                write!(f, "{separator}{condition}")?;
            }
            write!(f, ")")
        };
        match self {
            Self::Symbol(symbol) => f.write_str(symbol),
            Self::All(conditions) => list(f, conditions, " and "),
            Self::Any(conditions) => list(f, conditions, " or "),
            Self::Not(condition) => write!(f, "not {condition}"),
        }
    }
}

/// A type, as members name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TypeRef {
    /// One of the language's own.
    Builtin(Builtin),
    /// One that the schema defines.
    Named(String),
    /// A list.
    Array(Box<Self>),
}

impl TypeRef {
    /// The type itself, or what it is a list of.
    pub fn element(&self) -> &Self {
        match self {
            Self::Array(element) => element.element(),
            other => other,
        }
    }
}

impl std::fmt::Display for TypeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Builtin(builtin) => f.write_str(builtin.name()),
            Self::Named(name) => f.write_str(name),
            Self::Array(element) => write!(f, "[{element}]"),
        }
    }
}

/// The types of the language itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// `str`
    Str,
    /// `number`
    Number,
    /// `int`
    Int,
    /// `int8`
    Int8,
    /// `int16`
    Int16,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `uint8`
    Uint8,
    /// `uint16`
    Uint16,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// `size`: a number of bytes
    Size,
    /// `bool`
    Bool,
    /// `null`
    Null,
    /// `any`
    Any,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Str,
        Self::Number,
        Self::Int,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Size,
        Self::Bool,
        Self::Null,
        Self::Any,
    ];

    /// The builtin type of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Its name in the schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Number => "number",
            Self::Int => "int",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Size => "size",
            Self::Bool => "bool",
            Self::Null => "null",
            Self::Any => "any",
        }
    }

    /// What it is in JSON, as introspection says it.
    pub fn json_type(self) -> &'static str {
        match self {
            Self::Str => "string",
            Self::Number => "number",
            Self::Bool => "boolean",
            Self::Null => "null",
            Self::Any => "value",
            _ => "int",
        }
    }
}

impl Schema {
    /// Reads, checks and resolves the schema whose root is `path`.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        crate::loader::load(path).and_then(crate::check::check)
    }

    /// All definitions, module by module, in the order of the files.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.iter()
    }

    /// The definition of that name.
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.index.get(name).and_then(|index| self.definitions.get(*index))
    }

    /// The command of that name.
    pub fn command(&self, name: &str) -> Option<&Command> {
        match &self.get(name)?.kind {
            Kind::Command(command) => Some(command),
            _ => None,
        }
    }

    /// The enumeration of that name.
    pub fn enumeration(&self, name: &str) -> Option<&Enum> {
        match &self.get(name)?.kind {
            Kind::Enum(enumeration) => Some(enumeration),
            _ => None,
        }
    }

    /// The commands, in the order of the files.
    pub fn commands(&self) -> impl Iterator<Item = (&Definition, &Command)> {
        self.definitions.iter().filter_map(|definition| match &definition.kind {
            Kind::Command(command) => Some((definition, command)),
            _ => None,
        })
    }

    /// The events, in the order of the files.
    pub fn events(&self) -> impl Iterator<Item = (&Definition, &Event)> {
        self.definitions.iter().filter_map(|definition| match &definition.kind {
            Kind::Event(event) => Some((definition, event)),
            _ => None,
        })
    }

    /// The members of a struct, or the members that a union has in every case: bases first.
    pub fn members_of(&self, name: &str) -> Vec<&Member> {
        match self.get(name).map(|definition| &definition.kind) {
            Some(Kind::Struct(structure)) => {
                let mut members = structure.base.as_deref().map(|base| self.members_of(base)).unwrap_or_default();
                members.extend(&structure.members);
                members
            }
            Some(Kind::Union(union)) => self.base_members(union),
            _ => Vec::new(),
        }
    }

    /// The members that `union` has in every case.
    pub fn base_members<'a>(&'a self, union: &'a Union) -> Vec<&'a Member> {
        match &union.base {
            UnionBase::Named(name) => self.members_of(name),
            UnionBase::Inline(members) => members.iter().collect(),
        }
    }

    /// The enumeration that decides in `union`.
    pub fn discriminator<'a>(&'a self, union: &'a Union) -> Option<(&'a str, &'a Enum)> {
        let member = self.base_members(union).into_iter().find(|member| member.name == union.discriminator)?;
        match &member.kind {
            TypeRef::Named(name) => self.get(name).and_then(|definition| match &definition.kind {
                Kind::Enum(enumeration) => Some((definition.name.as_str(), enumeration)),
                _ => None,
            }),
            _ => None,
        }
    }

    /// The members of a command's arguments or an event's data.
    pub fn argument_members<'a>(&'a self, arguments: &'a Arguments) -> Vec<&'a Member> {
        match arguments {
            Arguments::None => Vec::new(),
            Arguments::Inline(members) => members.iter().collect(),
            Arguments::Named { name, .. } => self.members_of(name),
        }
    }

    /// The types that a definition names itself.
    pub fn uses<'a>(&'a self, definition: &'a Definition) -> Vec<&'a TypeRef> {
        fn of<'a>(members: &'a [Member], uses: &mut Vec<&'a TypeRef>) {
            uses.extend(members.iter().map(|member| &member.kind));
        }
        let mut uses = Vec::new();
        match &definition.kind {
            Kind::Enum(_) => {}
            Kind::Struct(structure) => {
                if let Some(base) = &structure.base {
                    uses.extend(self.get(base).map(|base| self.uses(base)).unwrap_or_default());
                }
                of(&structure.members, &mut uses);
            }
            Kind::Union(union) => {
                uses.extend(self.base_members(union).into_iter().map(|member| &member.kind));
                uses.extend(union.branches.iter().map(|branch| &branch.kind));
            }
            Kind::Alternate(alternate) => uses.extend(alternate.branches.iter().map(|branch| &branch.kind)),
            Kind::Command(command) => {
                uses.extend(self.argument_members(&command.arguments).into_iter().map(|member| &member.kind));
                uses.extend(self.argument_branches(&command.arguments));
                uses.extend(command.returns.as_ref());
            }
            Kind::Event(event) => {
                uses.extend(self.argument_members(&event.arguments).into_iter().map(|member| &member.kind));
                uses.extend(self.argument_branches(&event.arguments));
            }
        }
        uses
    }

    fn argument_branches<'a>(&'a self, arguments: &'a Arguments) -> Vec<&'a TypeRef> {
        match arguments {
            Arguments::Named { name, .. } => match self.get(name).map(|definition| &definition.kind) {
                Some(Kind::Union(union)) => union.branches.iter().map(|branch| &branch.kind).collect(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}
