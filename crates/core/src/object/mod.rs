//! The object model: types with properties, and the one tree in which every object of a machine has its place.
//!
//! A type comes from `#[derive(Object)]` on a struct, or is an abstract one that others build on. Each crate names its
//! types in one list, and a [`Registry`] is made from those lists. A [`Tree`] holds the objects; values are read from
//! the objects themselves whenever somebody asks.

mod kind;
mod tree;
mod types;

use std::any::Any;

pub use kind::{Numbers, PropertyKind, Size, Unsuitable, read_value};
/// The derive, which stands beside the trait of the same name.
pub use rhea_object_derive::Object;
pub use serde_json::Value;
pub use tree::{DeviceState, ListedProperty, NodeId, PathError, Tree, TreeError};
pub use types::{Access, BASE_TYPES, PropertyInfo, Registry, TypeInfo, is_well_formed_id};

/// A Rust type that is a type of objects.
pub trait Typed {
    /// What is known of the type.
    const INFO: &'static TypeInfo;
}

/// An object of the tree.
pub trait Object: Any + Send + Sync {
    /// Its type.
    fn info(&self) -> &'static TypeInfo;

    /// What the property `name` holds now; `None` if its own type has no such property that can be read.
    fn get(&self, name: &str) -> Option<Value>;

    /// Changes a property that its type says can be changed now.
    ///
    /// # Errors
    /// It refuses the value.
    fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
        let _ = value;
        Err(self.info().not_writable(name))
    }

    /// Whether somebody outside of the tree holds it to use it.
    fn in_use(&self) -> bool {
        false
    }
}

/// What an object is made from: a struct of properties only.
pub trait Settings: Typed + Sized {
    /// Every property at its default.
    fn defaults() -> Self;

    /// What a property holds.
    fn get(&self, name: &str) -> Option<Value>;

    /// Sets a property.
    ///
    /// # Errors
    /// There is no such property, or it does not take the value.
    fn assign(&mut self, name: &str, value: &Value) -> Result<(), PropertyError>;

    /// Defaults, changed by what was given. The same name given twice is set twice.
    ///
    /// # Errors
    /// As for [`assign`](Self::assign); what cannot be set is an error too.
    fn given(properties: &[(String, Value)]) -> Result<Self, PropertyError> {
        let mut settings = Self::defaults();
        for (name, value) in properties {
            match Self::INFO.property(name) {
                None => return Err(Self::INFO.no_property(name)),
                Some(property) if property.access == Access::ReadOnly => return Err(Self::INFO.not_writable(name)),
                Some(_) => settings.assign(name, value)?,
            }
        }
        Ok(settings)
    }
}

/// An object whose properties stay as they were given.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<S>(pub S);

impl<S: Settings + Send + Sync + 'static> Object for Fixed<S> {
    fn info(&self) -> &'static TypeInfo {
        S::INFO
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.0.get(name)
    }
}

/// Why a property could not be read or set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The type has no such property.
    #[error("Property '{object}.{name}' not found")]
    NotFound {
        /// The object's type.
        object: String,
        /// The property.
        name: String,
    },
    /// It is never shown.
    #[error("Property '{object}.{name}' is not readable")]
    NotReadable {
        /// The object's type.
        object: &'static str,
        /// The property.
        name: String,
    },
    /// It cannot be set, or not any more.
    #[error("Property '{object}.{name}' is not writable")]
    NotWritable {
        /// The object's type.
        object: &'static str,
        /// The property.
        name: String,
    },
    /// A value of another kind.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    Type {
        /// The property.
        name: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A value of the right kind that does not fit.
    #[error("Parameter '{name}' expects {expected}")]
    Range {
        /// The property.
        name: String,
        /// What it takes.
        expected: String,
    },
    /// A word that is none of those it takes.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Word {
        /// The property.
        name: String,
        /// The word.
        value: String,
    },
    /// It must be given.
    #[error("Parameter '{0}' is missing")]
    Missing(&'static str),
    /// The object has a reason of its own.
    #[error("{0}")]
    Refused(String),
}
