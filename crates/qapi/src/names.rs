//! The rules for names: which are well formed, and which case suits what.

/// Whether `name` is well formed: an optional `__domain_` prefix, an optional `x-`, then letters, digits, `-` and `_`.
///
/// Members of enumerations may start with a digit.
pub(crate) fn is_valid(name: &str, digit_first: bool) -> bool {
    let stem = stem(name);
    stem.starts_with(|c: char| c.is_ascii_alphabetic() || (digit_first && c.is_ascii_digit()))
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && (!name.starts_with('_') || stem.len() < name.len())
}

/// The name without its `__domain_` and `x-` prefixes.
pub(crate) fn stem(name: &str) -> &str {
    let mut stem = name;
    if let Some(vendor) = name.strip_prefix("__")
        && let Some((domain, rest)) = vendor.split_once('_')
        && !domain.is_empty()
        && domain.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
    {
        stem = rest;
    }
    stem.strip_prefix("x-").unwrap_or(stem)
}

/// The name with everything but letters and digits as `_`: names alike in this form cannot stand together.
pub(crate) fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Whether the name is kept for generated code.
pub(crate) fn is_reserved(name: &str) -> bool {
    plain(name).starts_with("q_")
}

/// Whether a member of that name would clash with generated code.
pub(crate) fn is_reserved_member(name: &str) -> bool {
    let plain = plain(name);
    plain == "u" || plain.starts_with("has_") || plain.starts_with("q_")
}

/// `lower-case`, with `_` where `underscore` says so.
pub(crate) fn is_lower(name: &str, underscore: bool) -> bool {
    let stem = stem(name);
    !stem.contains(|c: char| c.is_ascii_uppercase()) && (underscore || !stem.contains('_'))
}

/// `UPPER_CASE`.
pub(crate) fn is_upper(name: &str) -> bool {
    !stem(name).contains(|c: char| c.is_ascii_lowercase() || c == '-')
}

/// `CamelCase`.
pub(crate) fn is_camel(name: &str) -> bool {
    let stem = stem(name);
    stem.starts_with(|c: char| c.is_ascii_uppercase())
        && stem.chars().all(|c| c.is_ascii_alphanumeric())
        && stem.contains(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_first() {
        for name in ["a", "query-status", "x-colo", "__com.example_thing", "__org.x-y_x-z", "CPU", "a_b"] {
            assert!(is_valid(name, false), "{name}");
        }
        for name in ["", "1st", "-a", "_a", "a b", "a.b", "__x", "x-", "é", "*a", "__com.example_"] {
            assert!(!is_valid(name, false), "{name}");
        }
        assert!(is_valid("4k", true));
    }

    #[test]
    fn prefixes_do_not_count_for_the_case() {
        assert!(is_lower("__Org.Example_x-fast", false));
        assert!(!is_lower("device_add", false));
        assert!(is_lower("device_add", true));
        assert!(is_upper("ACPI_DEVICE_OST"));
        assert!(!is_upper("Acpi"));
        assert!(is_camel("PCDIMMDeviceInfo"));
        assert!(!is_camel("ABC"));
        assert!(!is_camel("cpuInfo"));
    }

    #[test]
    fn generated_code_keeps_its_names() {
        assert!(is_reserved("q_obj"));
        assert!(is_reserved("q-empty"));
        assert!(is_reserved_member("has-arg"));
        assert!(is_reserved_member("u"));
        assert!(!is_reserved_member("unit"));
    }
}
