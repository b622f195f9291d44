//! Rust names and documentation for what a schema names.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

use crate::doc::{Doc, SectionKind};
use crate::schema::{Enum, Member};

/// A name for a variant or type: `kdump-zlib` becomes `KdumpZlib`.
pub(super) fn camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        // Two numbers side by side stay apart: x86_64.
        if out.ends_with(|c: char| c.is_ascii_digit()) && word.starts_with(|c: char| c.is_ascii_digit()) {
            out.push('_');
        }
        let shouted = !word.contains(|c: char| c.is_ascii_lowercase());
        let mut characters = word.chars();
        out.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        out.extend(characters.map(|c| if shouted { c.to_ascii_lowercase() } else { c }));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// A name for a field, argument, method or module: `cpu-index` becomes `cpu_index`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before = '_';
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
        } else {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// `name` as a Rust identifier.
pub(super) fn identifier(name: &str) -> Ident {
    if syn::parse_str::<Ident>(name).is_ok() {
        return Ident::new(name, Span::call_site());
    }
    match name {
        "self" | "Self" | "super" | "crate" | "_" | "" => Ident::new(&format!("{name}_"), Span::call_site()),
        _ => Ident::new_raw(name, Span::call_site()),
    }
}

/// The identifier of a field, argument, method or module.
pub(super) fn field(name: &str) -> Ident {
    identifier(&snake(name))
}

/// The identifier of a type.
pub(super) fn type_name(name: &str) -> Ident {
    // Type names are CamelCase already; only a prefix or a lower case of the language's first form needs care.
    if name.chars().all(|c| c.is_ascii_alphanumeric()) && name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return identifier(name);
    }
    identifier(&camel(name))
}

/// Identifiers for `names`, each unlike the others.
fn distinct<'n>(names: impl Iterator<Item = &'n str>, rust: fn(&str) -> String) -> Vec<Ident> {
    let mut taken: Vec<String> = Vec::new();
    for name in names {
        let mut name = rust(name);
        while taken.contains(&name) {
            name.push('_');
        }
        taken.push(name);
    }
    taken.iter().map(|name| identifier(name)).collect()
}

/// Variants for `names`, each unlike the others.
pub(super) fn variants_of<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Ident> {
    distinct(names, camel)
}

/// The variants of an enumeration.
pub(super) fn variants(enumeration: &Enum) -> Vec<Ident> {
    distinct(enumeration.members.iter().map(|member| member.name.as_str()), camel)
}

/// The fields of an object.
pub(super) fn fields(members: &[&Member]) -> Vec<Ident> {
    distinct(members.iter().map(|member| member.name.as_str()), snake)
}

/// `text` as documentation attributes.
pub(super) fn docs(text: &str) -> TokenStream {
    let lines = text.lines().map(|line| {
        // Indented text would be a code block, and its content a test.
        let line = format!(" {}", ticked(line.trim()));
        let line = line.trim_end();
        quote!(#[doc = #line])
    });
    lines.collect()
}

/// A definition's documentation.
pub(super) fn definition_docs(doc: Option<&Doc>, otherwise: &str) -> TokenStream {
    let Some(doc) = doc else { return docs(otherwise) };
    let mut text = if doc.text.is_empty() { otherwise.to_owned() } else { doc.text.clone() };
    for section in &doc.sections {
        let tag = match section.kind {
            SectionKind::Returns => "Returns: ",
            SectionKind::Errors => "Errors:\n",
            SectionKind::Since => "Since: ",
            SectionKind::Note => "Note: ",
            SectionKind::Plain => "",
            SectionKind::Example | SectionKind::Todo => continue,
        };
        text.push_str(&format!("\n\n{tag}{}", section.text));
    }
    docs(&text)
}

/// `@name` as `` `name` ``.
fn ticked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let after = &after[1..];
        let length = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(after.len());
        match after.get(..length) {
            Some(name) if !name.is_empty() && !before.ends_with(|c: char| c.is_ascii_alphanumeric()) => {
                out.push_str(&format!("`{name}`"));
            }
            Some(name) => out.push_str(&format!("@{name}")),
            None => out.push('@'),
        }
        rest = after.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_camel_case() {
        let cases = [
            ("kdump-zlib", "KdumpZlib"),
            ("ACPI_DEVICE_OST", "AcpiDeviceOst"),
            ("EAX", "Eax"),
            ("x86_64", "X86_64"),
            ("x86-64-v2", "X86_64V2"),
            ("4k", "_4k"),
            ("guestPanic", "GuestPanic"),
        ];
        for (name, expected) in cases {
            assert_eq!(camel(name), expected);
        }
    }

    #[test]
    fn words_become_snake_case() {
        let cases =
            [("cpu-index", "cpu_index"), ("UUID", "uuid"), ("__com.x_y-z", "com_x_y_z"), ("backendId", "backend_id")];
        for (name, expected) in cases {
            assert_eq!(snake(name), expected);
        }
        assert_eq!(field("type").to_string(), "r#type");
        assert_eq!(field("self").to_string(), "self_");
    }

    #[test]
    fn names_in_text_are_ticked() {
        assert_eq!(ticked("see @cpu-index, not a@b"), "see `cpu-index`, not a@b");
        assert_eq!(ticked("@"), "@");
    }
}
