//! Types of objects: each builds on a parent, and adds properties to the parent's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{PropertyError, PropertyKind};

/// When a property can be read and set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Shown, never set.
    ReadOnly,
    /// Set before the object is in use, and shown.
    Start,
    /// Set at any time, and shown.
    Live,
    /// Set before the object is in use, and never shown.
    WriteOnly,
}

/// A property of a type.
#[derive(Clone, Copy, Debug)]
pub struct PropertyInfo {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it holds unless set, if that is the same for all objects.
    pub default: Option<fn() -> Value>,
    /// When it can be read and set.
    pub access: Access,
    /// The value that a word of a command line stands for.
    pub from_text: fn(&str) -> Option<Value>,
}

impl PropertyInfo {
    /// A property that holds a `T`, set before the object is in use.
    pub const fn of<T: PropertyKind>(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: T::NAME,
            description,
            default: None,
            access: Access::Start,
            from_text: |text| T::from_text(text).map(|value| value.to_value()),
        }
    }

    /// The same, but never set.
    pub const fn read_only(self) -> Self {
        Self { access: Access::ReadOnly, ..self }
    }
}

/// A type of objects.
#[derive(Debug)]
pub struct TypeInfo {
    /// Its name.
    pub name: &'static str,
    /// What it is, where somebody wrote that down.
    pub description: &'static str,
    /// The type it builds on; none for the root of all.
    pub parent: Option<&'static str>,
    /// Whether it exists only for others to build on.
    pub is_abstract: bool,
    /// What it offers besides, by name.
    pub interfaces: &'static [&'static str],
    /// The properties that it adds to its parent's.
    pub properties: &'static [PropertyInfo],
}

impl TypeInfo {
    /// An abstract type without properties of its own.
    pub const fn abstract_type(name: &'static str, parent: &'static str) -> Self {
        Self { name, description: "", parent: Some(parent), is_abstract: true, interfaces: &[], properties: &[] }
    }

    /// A concrete type without properties of its own.
    pub const fn plain(name: &'static str, parent: &'static str) -> Self {
        Self { is_abstract: false, ..Self::abstract_type(name, parent) }
    }

    /// The same with properties.
    pub const fn with(self, properties: &'static [PropertyInfo]) -> Self {
        Self { properties, ..self }
    }

    /// A concrete type that is as `other` in all but its name.
    pub const fn like(name: &'static str, other: &Self) -> Self {
        Self { name, ..*other }
    }

    /// Its own property `name`, not one of its parents'.
    pub fn property(&self, name: &str) -> Option<&'static PropertyInfo> {
        self.properties.iter().find(|property| property.name == name)
    }

    /// The error about a property that it does not have.
    pub fn no_property(&self, name: &str) -> PropertyError {
        PropertyError::NotFound { object: self.name.to_owned(), name: name.to_owned() }
    }

    /// The error about a property that cannot be set, or not any more.
    pub fn not_writable(&self, name: &str) -> PropertyError {
        PropertyError::NotWritable { object: self.name, name: name.to_owned() }
    }
}

/// Objects that only hold others.
pub(super) const CONTAINER: &TypeInfo = &TypeInfo::plain("container", "object");

/// The types that everything builds on.
pub const BASE_TYPES: &[&TypeInfo] = &[
    &TypeInfo {
        name: "object",
        description: "",
        parent: None,
        is_abstract: true,
        interfaces: &[],
        properties: &[PropertyInfo {
            kind: "string",
            ..PropertyInfo::of::<String>("type", "name of the object's type").read_only()
        }],
    },
    CONTAINER,
    &TypeInfo::abstract_type("interface", "object"),
    &TypeInfo::abstract_type("user-creatable", "interface"),
    &TypeInfo::abstract_type("hotplug-handler", "interface"),
    &TypeInfo::abstract_type("device", "object").with(&[
        PropertyInfo::of::<bool>("realized", "whether the device is in operation").read_only(),
        PropertyInfo::of::<bool>("hotpluggable", "whether its kind can come and go while the machine runs").read_only(),
        PropertyInfo::of::<bool>("hotplugged", "whether it came while the machine ran").read_only(),
    ]),
    &TypeInfo::abstract_type("bus", "object"),
    &TypeInfo::abstract_type("sys-bus-device", "device"),
    &TypeInfo::abstract_type("isa-device", "device"),
    &TypeInfo::abstract_type("pci-device", "device"),
    &TypeInfo::abstract_type("cpu", "device"),
    &TypeInfo::abstract_type("machine", "object"),
    &TypeInfo::abstract_type("accel", "object"),
];

/// Whether `id` may name an object: a letter, then letters, digits, dashes, dots and underscores.
pub fn is_well_formed_id(id: &str) -> bool {
    let mut bytes = id.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

/// All types of a program, by name.
#[derive(Debug)]
pub struct Registry {
    types: BTreeMap<&'static str, &'static TypeInfo>,
}

impl Registry {
    /// The types of all `lists`. Lists are part of the program: what is wrong with them is found by the tests that call
    /// [`faults`](Self::faults).
    pub fn new(lists: &[&[&'static TypeInfo]]) -> Self {
        Self { types: lists.iter().flat_map(|list| list.iter()).map(|info| (info.name, *info)).collect() }
    }

    /// The type `name`.
    pub fn get(&self, name: &str) -> Option<&'static TypeInfo> {
        self.types.get(name).copied()
    }

    /// All types, by name.
    pub fn all(&self) -> impl Iterator<Item = &'static TypeInfo> + '_ {
        self.types.values().copied()
    }

    /// A type and those it builds on, itself first.
    pub fn chain(&self, info: &'static TypeInfo) -> impl Iterator<Item = &'static TypeInfo> + '_ {
        // No chain is longer than there are types, even if the lists were circular.
        std::iter::successors(Some(info), |info| self.get(info.parent?)).take(self.types.len())
    }

    /// Whether `info` is `name`, builds on it, or offers it.
    pub fn implements(&self, info: &'static TypeInfo, name: &str) -> bool {
        self.chain(info).any(|info| {
            info.name == name
                || info.interfaces.iter().any(|offered| {
                    self.get(offered).is_some_and(|offered| self.chain(offered).any(|base| base.name == name))
                })
        })
    }

    /// All properties of a type: those of the most general type first.
    pub fn properties(&self, info: &'static TypeInfo) -> Vec<&'static PropertyInfo> {
        let mut chain: Vec<_> = self.chain(info).collect();
        chain.reverse();
        chain.into_iter().flat_map(|info| info.properties).collect()
    }

    /// The property `name` of a type or of one it builds on.
    pub fn property(&self, info: &'static TypeInfo, name: &str) -> Option<&'static PropertyInfo> {
        self.chain(info).find_map(|info| info.property(name))
    }

    /// The properties of a type that can be set, without those of the type `base` and of what that builds on.
    pub fn settable(&self, info: &'static TypeInfo, base: &str) -> Vec<&'static PropertyInfo> {
        let mut chain: Vec<_> = self.chain(info).take_while(|info| info.name != base).collect();
        chain.reverse();
        let all = chain.into_iter().flat_map(|info| info.properties);
        all.filter(|property| property.access != Access::ReadOnly).collect()
    }

    /// What is wrong with the types, in words: a parent that is not there, a name that is used twice.
    pub fn faults(&self, lists: &[&[&'static TypeInfo]]) -> Vec<String> {
        let mut faults = Vec::new();
        let count = lists.iter().map(|list| list.len()).sum::<usize>();
        if count != self.types.len() {
            faults.push(format!("{count} types in the lists, {} names", self.types.len()));
        }
        for info in self.all() {
            if self.chain(info).last().is_none_or(|root| root.name != "object" || root.parent.is_some()) {
                faults.push(format!("'{}' does not go back to 'object'", info.name));
            }
            for name in info.parent.iter().chain(info.interfaces) {
                match self.get(name) {
                    None => faults.push(format!("'{}' builds on '{name}', which is not there", info.name)),
                    Some(parent) if !parent.is_abstract && info.is_abstract => {
                        faults.push(format!("abstract '{}' builds on concrete '{name}'", info.name));
                    }
                    Some(_) => {}
                }
            }
            let properties = self.properties(info);
            for (i, property) in properties.iter().enumerate() {
                if properties[..i].iter().any(|other| other.name == property.name) {
                    faults.push(format!("'{}' has '{}' twice", info.name, property.name));
                }
                if property.description.is_empty() {
                    faults.push(format!("'{}.{}' says not what it is for", info.name, property.name));
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_types_are_sound() {
        let lists = [BASE_TYPES];
        assert_eq!(Registry::new(&lists).faults(&lists), Vec::<String>::new());
    }

    #[test]
    fn faults_are_found() {
        static LOST: TypeInfo = TypeInfo::plain("lost", "nowhere");
        static TWICE: TypeInfo = TypeInfo::plain("device", "object");
        static ROUND: TypeInfo = TypeInfo::plain("round", "round");
        let lists: [&[&TypeInfo]; 2] = [BASE_TYPES, &[&LOST, &TWICE, &ROUND]];
        let faults = Registry::new(&lists).faults(&lists);
        for word in ["'nowhere'", "names", "'round' does not"] {
            assert!(faults.iter().any(|fault| fault.contains(word)), "{word}: {faults:?}");
        }
    }

    #[test]
    fn ids_begin_with_a_letter() {
        for good in ["a", "net0", "x.y-z_1"] {
            assert!(is_well_formed_id(good), "{good}");
        }
        for bad in ["", "0a", "-a", "a/b", "a b", "\u{e4}", "a\0"] {
            assert!(!is_well_formed_id(bad), "{bad}");
        }
    }
}
