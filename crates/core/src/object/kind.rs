//! What properties hold: how each kind is called, shown and read.

use serde_json::Value;

use super::PropertyError;

/// Why a value does not become a property's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// It is of another JSON type than this.
    Type(&'static str),
    /// It is not what this says.
    Range(&'static str),
    /// It is none of the words.
    Word,
}

/// A Rust type that a property can have.
pub trait PropertyKind: Sized {
    /// What managers call the kind.
    const NAME: &'static str;

    /// The value as managers see it.
    fn to_value(&self) -> Value;

    /// The value that `value` stands for.
    ///
    /// # Errors
    /// None of this kind.
    fn from_value(value: &Value) -> Result<Self, Unsuitable>;

    /// The value that a word of a command line stands for.
    fn from_text(text: &str) -> Option<Self>;
}

/// Reads the value of property `name`.
///
/// # Errors
/// The value is none of the property's kind.
pub fn read_value<T: PropertyKind>(name: &str, value: &Value) -> Result<T, PropertyError> {
    T::from_value(value).map_err(|unsuitable| {
        let name = name.to_owned();
        match unsuitable {
            Unsuitable::Type(expected) => PropertyError::Type { name, expected },
            Unsuitable::Range(expected) => PropertyError::Range { name, expected: expected.to_owned() },
            Unsuitable::Word => {
                PropertyError::Word { name, value: value.as_str().map_or_else(|| value.to_string(), str::to_owned) }
            }
        }
    })
}

impl PropertyKind for bool {
    const NAME: &'static str = "bool";

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        value.as_bool().ok_or(Unsuitable::Type("boolean"))
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "on" | "yes" | "true" | "y" => Some(true),
            "off" | "no" | "false" | "n" => Some(false),
            _ => None,
        }
    }
}

impl PropertyKind for String {
    const NAME: &'static str = "str";

    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        value.as_str().map(str::to_owned).ok_or(Unsuitable::Type("string"))
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// A number, decimal or with `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Integers that are read from JSON by `$as` and from text by `$parse`.
macro_rules! integers {
    ($as:ident, $parse:expr; $($kind:ty => $name:literal),*) => {$(
        impl PropertyKind for $kind {
            const NAME: &'static str = $name;

            fn to_value(&self) -> Value {
                Value::from(*self)
            }

            fn from_value(value: &Value) -> Result<Self, Unsuitable> {
                let Value::Number(number) = value else { return Err(Unsuitable::Type("integer")) };
                if number.is_f64() {
                    return Err(Unsuitable::Type("integer"));
                }
                number.$as().and_then(|number| Self::try_from(number).ok()).ok_or(Unsuitable::Range($name))
            }

            fn from_text(text: &str) -> Option<Self> {
                Self::try_from($parse(text)?).ok()
            }
        }
    )*};
}

integers!(as_u64, number; u8 => "uint8", u16 => "uint16", u32 => "uint32", u64 => "uint64");
integers!(as_i64, |text: &str| text.parse::<i64>().ok(); i32 => "int32", i64 => "int64");

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl PropertyKind for Size {
    const NAME: &'static str = "size";

    fn to_value(&self) -> Value {
        Value::from(self.0)
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        u64::from_value(value).map(Self).map_err(|unsuitable| match unsuitable {
            Unsuitable::Range(_) => Unsuitable::Range("a size"),
            other => other,
        })
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::in_units(text, 1)
    }
}

impl Size {
    /// What `text` says: digits, perhaps with a point, and a suffix; without one it counts units of `unit` bytes.
    pub fn in_units(text: &str, unit: u64) -> Option<Self> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(split);
        let unit = match suffix {
            "" => unit,
            "b" | "B" => 1,
            "k" | "K" => 1 << 10,
            "m" | "M" => 1 << 20,
            "g" | "G" => 1 << 30,
            "t" | "T" => 1 << 40,
            "p" | "P" => 1 << 50,
            "e" | "E" => 1 << 60,
            _ => return None,
        };
        let Some((whole, fraction)) = digits.split_once('.') else {
            return digits.parse::<u64>().ok()?.checked_mul(unit).map(Self);
        };
        let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
        let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / u128::from(scale);
        whole.checked_add(u64::try_from(part).ok()?).map(Self)
    }
}

/// A property that need not be given. Unset, it shows as the empty value of its kind.
impl<T: PropertyKind + Default> PropertyKind for Option<T> {
    const NAME: &'static str = T::NAME;

    fn to_value(&self) -> Value {
        self.as_ref().map_or_else(|| T::default().to_value(), T::to_value)
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        T::from_value(value).map(Some)
    }

    fn from_text(text: &str) -> Option<Self> {
        T::from_text(text).map(Some)
    }
}

/// Small numbers in order, each once. A word of a command line names them singly or as ranges, with colons or commas
/// between: `0-3:5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub std::collections::BTreeSet<u16>);

impl PropertyKind for Numbers {
    const NAME: &'static str = "uint16List";

    fn to_value(&self) -> Value {
        self.0.iter().copied().collect()
    }

    fn from_value(value: &Value) -> Result<Self, Unsuitable> {
        let values = value.as_array().ok_or(Unsuitable::Type("array"))?;
        values.iter().map(u16::from_value).collect::<Result<_, _>>().map(Self)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut all = Self::default();
        for part in text.split([':', ',']) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (u16::from_text(first)?, u16::from_text(last)?);
            if first > last {
                return None;
            }
            all.0.extend(first..=last);
        }
        Some(all)
    }
}

/// Makes an enumeration whose values managers know by words: `property_words! { /// ... pub enum Format: "Format" { Raw = "raw" } }`.
/// The first one is the default.
#[macro_export]
macro_rules! property_words {
    ($(#[$outer:meta])* $vis:vis enum $name:ident: $kind:literal {
        $(#[$first_meta:meta])* $first:ident = $first_word:literal
        $(, $(#[$meta:meta])* $variant:ident = $word:literal)* $(,)?
    }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        $vis enum $name { $(#[$first_meta])* #[default] $first $(, $(#[$meta])* $variant)* }

        impl $crate::object::PropertyKind for $name {
            const NAME: &'static str = $kind;

            fn to_value(&self) -> $crate::object::Value {
                $crate::object::Value::from(match self { Self::$first => $first_word $(, Self::$variant => $word)* })
            }

            fn from_value(value: &$crate::object::Value) -> Result<Self, $crate::object::Unsuitable> {
                let word = value.as_str().ok_or($crate::object::Unsuitable::Type("string"))?;
                Self::from_text(word).ok_or($crate::object::Unsuitable::Word)
            }

            fn from_text(text: &str) -> Option<Self> {
                match text { $first_word => Some(Self::$first), $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

/// Makes a property that names another object, by its id or its path: `property_link! { /// ... pub struct Rng: "link<rng-backend>" }`.
/// Empty, it names none. Once the object is in use, a link of the tree by the property's name shows where it leads.
#[macro_export]
macro_rules! property_link {
    ($(#[$outer:meta])* $vis:vis struct $name:ident: $kind:literal) => {
        $(#[$outer])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        $vis struct $name(pub String);

        impl $crate::object::PropertyKind for $name {
            const NAME: &'static str = $kind;

            fn to_value(&self) -> $crate::object::Value {
                $crate::object::Value::from(self.0.as_str())
            }

            fn from_value(value: &$crate::object::Value) -> Result<Self, $crate::object::Unsuitable> {
                <String as $crate::object::PropertyKind>::from_value(value).map(Self)
            }

            fn from_text(text: &str) -> Option<Self> {
                Some(Self(text.to_owned()))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_held_to_their_width_and_are_never_doubles() {
        assert_eq!(u8::from_value(&json!(255)), Ok(255));
        assert_eq!(u8::from_value(&json!(256)), Err(Unsuitable::Range("uint8")));
        assert_eq!(u8::from_value(&json!(-1)), Err(Unsuitable::Range("uint8")));
        assert_eq!(u64::from_value(&json!(1.0)), Err(Unsuitable::Type("integer")));
        assert_eq!(i64::from_value(&json!(u64::MAX)), Err(Unsuitable::Range("int64")));
        assert_eq!(Size::from_value(&json!(-1)), Err(Unsuitable::Range("a size")));
        assert_eq!(Size::from_value(&json!("1M")), Err(Unsuitable::Type("integer")));
    }

    #[test]
    fn words_of_a_command_line_never_wrap() {
        assert_eq!(Size::from_text("64M"), Some(Size(64 << 20)));
        assert_eq!(Size::from_text("1.5k"), Some(Size(1536)));
        assert_eq!(Size::in_units("2", 1 << 20), Some(Size(2 << 20)));
        assert_eq!(Size::from_text("16E"), None);
        assert_eq!(Size::from_text("M"), None);
        assert_eq!(u16::from_text("0x3f8"), Some(0x3f8));
        assert_eq!(u16::from_text("65536"), None);
        assert_eq!(bool::from_text("maybe"), None);
        assert_eq!(Numbers::from_text("0-2:7,9"), Some(Numbers([0, 1, 2, 7, 9].into())));
        for bad in ["", "3-1", "1-", "-1", "1-70000", "a"] {
            assert_eq!(Numbers::from_text(bad), None, "{bad}");
        }
    }
}
