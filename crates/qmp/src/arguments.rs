//! Reading a command's arguments: JSON to typed values, with the error texts that clients know.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::Error;

/// Where a value stands among a command's arguments, for error texts: `model.props.sse3`, `cpus[2]`.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The arguments as a whole.
    Root,
    /// A member of an object.
    Member(&'a Path<'a>, &'a str),
    /// An element of a list.
    Element(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The value has the wrong type.
    pub fn invalid_type(&self, expected: &str) -> Error {
        match self {
            Path::Root => Error::generic(format_args!("QMP input member 'arguments' must be an {expected}")),
            _ => Error::generic(format_args!("Invalid parameter type for '{self}', expected: {expected}")),
        }
    }

    /// The value has the right type but cannot be taken.
    pub fn out_of_range(&self, expected: &str) -> Error {
        Error::generic(format_args!("Parameter '{self}' expects {expected}"))
    }

    /// The word is none of those that the parameter takes.
    pub fn unknown_word(&self, word: &str) -> Error {
        Error::generic(format_args!("Parameter '{self}' does not accept value '{word}'"))
    }

    fn missing(&self) -> Error {
        Error::generic(format_args!("Parameter '{self}' is missing"))
    }

    fn unexpected(&self) -> Error {
        Error::generic(format_args!("Parameter '{self}' is unexpected"))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Member(Path::Root, name) => f.write_str(name),
            Path::Member(parent, name) => write!(f, "{parent}.{name}"),
            Path::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A type that can be read from a command's arguments.
pub trait FromArgument: Sized {
    /// Reads `value`, which stands at `path`.
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error>;
}

/// A type whose members stand in an object, alone or beside the members of others.
pub trait FromMembers: Sized {
    /// Takes the type's members out of `members` and leaves the rest.
    fn from_members(members: &mut Members<'_>) -> Result<Self, Error>;
}

/// The members of an object that have not been read yet.
#[derive(Debug)]
pub struct Members<'a> {
    left: Map<String, Value>,
    path: &'a Path<'a>,
}

impl<'a> Members<'a> {
    /// The members of the object `value`, which stands at `path`.
    pub fn of(value: Value, path: &'a Path<'a>) -> Result<Self, Error> {
        match value {
            Value::Object(left) => Ok(Self { left, path }),
            _ => Err(path.invalid_type("object")),
        }
    }

    /// A command's arguments.
    pub fn of_arguments(arguments: Map<String, Value>) -> Self {
        Self { left: arguments, path: &Path::Root }
    }

    /// Reads the member `name`, which must be there.
    pub fn required<T: FromArgument>(&mut self, name: &str) -> Result<T, Error> {
        let path = Path::Member(self.path, name);
        match self.left.shift_remove(name) {
            Some(value) => T::from_argument(value, &path),
            None => Err(path.missing()),
        }
    }

    /// Reads the member `name` if it is there.
    pub fn optional<T: FromArgument>(&mut self, name: &str) -> Result<Option<T>, Error> {
        let path = Path::Member(self.path, name);
        self.left.shift_remove(name).map(|value| T::from_argument(value, &path)).transpose()
    }

    /// Ends the reading: a member that nobody has read is an error.
    pub fn finish(self) -> Result<(), Error> {
        match self.left.keys().next() {
            Some(name) => Err(Path::Member(self.path, name).unexpected()),
            None => Ok(()),
        }
    }
}

/// Reads a whole object, all of whose members belong to `T`.
pub fn whole<T: FromMembers>(value: Value, path: &Path<'_>) -> Result<T, Error> {
    let mut members = Members::of(value, path)?;
    let read = T::from_members(&mut members)?;
    members.finish()?;
    Ok(read)
}

impl FromArgument for String {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(path.invalid_type("string")),
        }
    }
}

impl FromArgument for bool {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        value.as_bool().ok_or_else(|| path.invalid_type("boolean"))
    }
}

impl FromArgument for f64 {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        value.as_f64().ok_or_else(|| path.invalid_type("number"))
    }
}

impl FromArgument for () {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        if value.is_null() { Ok(()) } else { Err(path.invalid_type("null")) }
    }
}

impl FromArgument for Value {
    fn from_argument(value: Value, _path: &Path<'_>) -> Result<Self, Error> {
        Ok(value)
    }
}

impl FromArgument for i64 {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        value.as_i64().ok_or_else(|| path.invalid_type("integer"))
    }
}

impl FromArgument for u64 {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        // Servers name the type here for any value that is none, wherever it goes wrong.
        value.as_u64().ok_or_else(|| path.out_of_range("uint64"))
    }
}

/// Small integers: the wide type is read first, then its range is checked.
macro_rules! small_integer {
    ($($small:ty, $wide:ty, $name:literal;)*) => {$(
        impl FromArgument for $small {
            fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
                if value.is_i64() || value.is_u64() {
                    let small = Self::try_from(<$wide>::from_argument(value, path).unwrap_or(<$wide>::MAX));
                    return small.map_err(|_| path.out_of_range($name));
                }
                // No integer at all: the wide type's error says so.
                Self::try_from(<$wide>::from_argument(value, path)?).map_err(|_| path.out_of_range($name))
            }
        }
    )*};
}

small_integer! {
    i8, i64, "int8_t";
    i16, i64, "int16_t";
    i32, i64, "int32_t";
    u8, u64, "uint8_t";
    u16, u64, "uint16_t";
    u32, u64, "uint32_t";
}

impl<T: FromArgument> FromArgument for Vec<T> {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        let Value::Array(elements) = value else { return Err(path.invalid_type("array")) };
        let read = |(index, element)| T::from_argument(element, &Path::Element(path, index));
        elements.into_iter().enumerate().map(read).collect()
    }
}

impl<T: FromArgument> FromArgument for Box<T> {
    fn from_argument(value: Value, path: &Path<'_>) -> Result<Self, Error> {
        T::from_argument(value, path).map(Self::new)
    }
}

impl<T: FromMembers> FromMembers for Box<T> {
    fn from_members(members: &mut Members<'_>) -> Result<Self, Error> {
        T::from_members(members).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: FromArgument>(value: Value) -> Result<T, String> {
        let arguments = Map::from_iter([("x".to_owned(), value)]);
        let mut members = Members::of_arguments(arguments);
        let read = members.required("x").map_err(|error| error.desc)?;
        members.finish().map_err(|error| error.desc)?;
        Ok(read)
    }

    fn wrong_type<T>(expected: &str) -> Result<T, String> {
        Err(format!("Invalid parameter type for 'x', expected: {expected}"))
    }

    #[test]
    fn each_type_names_what_it_expects() {
        assert_eq!(read::<String>(json!(1)), wrong_type("string"));
        assert_eq!(read::<i64>(json!("1")), wrong_type("integer"));
        assert_eq!(read::<bool>(json!(0)), wrong_type("boolean"));
        assert_eq!(read::<Vec<i64>>(json!({})), wrong_type("array"));
        assert_eq!(read::<f64>(json!(null)), wrong_type("number"));
        assert_eq!(read::<()>(json!(false)), wrong_type("null"));
        assert_eq!(read::<String>(json!("text")), Ok("text".to_owned()));
        assert_eq!(read::<f64>(json!(1)), Ok(1.0));
        assert_eq!(read::<()>(json!(null)), Ok(()));
    }

    #[test]
    fn a_double_is_no_integer_however_whole() {
        assert_eq!(read::<i64>(json!(1.0)), wrong_type("integer"));
        assert_eq!(read::<i8>(json!(1.0)), wrong_type("integer"));
        assert_eq!(read::<u64>(json!(1.0)), Err("Parameter 'x' expects uint64".into()));
    }

    #[test]
    fn an_unsigned_integer_is_named_whatever_stands_there() {
        assert_eq!(read::<u64>(json!("1")), Err("Parameter 'x' expects uint64".into()));
        assert_eq!(read::<u16>(json!([])), Err("Parameter 'x' expects uint64".into()));
        assert_eq!(read::<i16>(json!([])), wrong_type("integer"));
    }

    #[test]
    fn integers_stay_in_their_range() {
        assert_eq!(read::<i64>(json!(i64::MIN)), Ok(i64::MIN));
        assert_eq!(read::<i64>(json!(u64::MAX)), wrong_type("integer"));
        assert_eq!(read::<u64>(json!(u64::MAX)), Ok(u64::MAX));
        assert_eq!(read::<u64>(json!(-1)), Err("Parameter 'x' expects uint64".into()));
        assert_eq!(read::<u16>(json!(65535)), Ok(65535));
        assert_eq!(read::<u16>(json!(65536)), Err("Parameter 'x' expects uint16_t".into()));
        assert_eq!(read::<u32>(json!(-1)), Err("Parameter 'x' expects uint32_t".into()));
        assert_eq!(read::<i8>(json!(-129)), Err("Parameter 'x' expects int8_t".into()));
        assert_eq!(read::<i8>(json!(-128)), Ok(-128));
    }

    #[test]
    fn elements_are_named_by_their_index() {
        let outcome = read::<Vec<Vec<i64>>>(json!([[1], [2, "3"]]));
        assert_eq!(outcome, Err("Invalid parameter type for 'x[1][1]', expected: integer".into()));
    }

    #[test]
    fn nested_members_are_dotted() {
        let outer = Path::Member(&Path::Root, "model");
        let mut members = Members::of(json!({ "props": 1 }), &outer).unwrap();
        assert_eq!(members.required::<i64>("sse3").unwrap_err().desc, "Parameter 'model.sse3' is missing");
        assert_eq!(members.finish().unwrap_err().desc, "Parameter 'model.props' is unexpected");
        assert_eq!(
            Members::of(json!([]), &outer).unwrap_err().desc,
            "Invalid parameter type for 'model', expected: object"
        );
    }

    #[test]
    fn an_absent_member_is_none_but_null_is_a_value() {
        let mut members = Members::of(json!({ "here": null }), &Path::Root).unwrap();
        assert_eq!(members.optional::<i64>("away"), Ok(None));
        let null = members.optional::<i64>("here").unwrap_err();
        assert_eq!(null.desc, "Invalid parameter type for 'here', expected: integer");
    }
}
