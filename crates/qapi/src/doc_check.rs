//! Rules between a definition and its documentation.

use crate::doc::{Doc, DocEntry, SectionKind};
use crate::fault::Fault;
use crate::loader::Pragmas;
use crate::schema::{Arguments, Command, Definition, Event, Item, Kind, Schema, UnionBase};

/// Checks that documentation and definitions agree.
pub(crate) fn check(schema: &Schema, pragmas: &Pragmas, faults: &mut Vec<Fault>) {
    if !pragmas.first_form {
        free_texts(schema, faults);
    }
    for definition in schema.definitions().filter(|definition| !definition.implicit) {
        match &definition.doc {
            Some(doc) => documented(definition, doc, pragmas, faults),
            None if pragmas.doc_required => faults.push(
                Fault::at(&definition.position, format!("'{}' has no documentation", definition.name))
                    .hint("a comment from '##' to '##' stands before it, and starts with '# @name:'"),
            ),
            None => {}
        }
    }
}

/// Checks the texts between definitions.
fn free_texts(schema: &Schema, faults: &mut Vec<Fault>) {
    for item in schema.modules.iter().flat_map(|module| &module.items) {
        if let Item::Text(doc) = item {
            faults.extend(doc.modern_faults.iter().cloned());
        }
    }
}

/// The names that a definition's documentation may describe.
struct Describable<'a> {
    /// Members of its own.
    members: Vec<&'a str>,
    /// What may be described but need not be.
    optional: Vec<&'a str>,
    features: Vec<&'a str>,
}

fn describable(definition: &Definition) -> Describable<'_> {
    let mut members: Vec<&str> = Vec::new();
    let mut optional: Vec<&str> = Vec::new();
    let mut features: Vec<&str> = definition.features.iter().map(|feature| feature.name.as_str()).collect();
    match &definition.kind {
        Kind::Enum(enumeration) => {
            members.extend(enumeration.members.iter().map(|member| member.name.as_str()));
            features.extend(enumeration.members.iter().flat_map(|m| &m.features).map(|feature| feature.name.as_str()));
        }
        Kind::Struct(structure) => {
            members.extend(structure.members.iter().map(|member| member.name.as_str()));
            features.extend(structure.members.iter().flat_map(|m| &m.features).map(|feature| feature.name.as_str()));
        }
        Kind::Union(union) => {
            if let (UnionBase::Inline(inline), false) = (&union.base, union.simple) {
                members.extend(inline.iter().map(|member| member.name.as_str()));
                features.extend(inline.iter().flat_map(|m| &m.features).map(|feature| feature.name.as_str()));
            }
            optional.extend(union.branches.iter().map(|branch| branch.name.as_str()));
            if union.simple {
                optional.extend(["type", "data"]);
            }
        }
        Kind::Alternate(alternate) => {
            members.extend(alternate.branches.iter().map(|branch| branch.name.as_str()));
        }
        Kind::Command(Command { arguments, .. }) | Kind::Event(Event { arguments }) => {
            if let Arguments::Inline(inline) = arguments {
                members.extend(inline.iter().map(|member| member.name.as_str()));
                features.extend(inline.iter().flat_map(|m| &m.features).map(|feature| feature.name.as_str()));
            }
        }
    }
    Describable { members, optional, features }
}

fn documented(definition: &Definition, doc: &Doc, pragmas: &Pragmas, faults: &mut Vec<Fault>) {
    let Some(symbol) = &doc.symbol else { return };
    let name = &definition.name;
    if symbol.name != *name {
        faults.push(
            Fault::at(
                &symbol.position,
                format!("documentation of '{}' before the definition of '{name}'", symbol.name),
            )
            .hint("the definition follows its documentation directly"),
        );
        return;
    }
    let describable = describable(definition);
    let known = |entry: &DocEntry| {
        describable.members.contains(&entry.name.as_str()) || describable.optional.contains(&entry.name.as_str())
    };
    for entry in doc.members.iter().filter(|entry| !known(entry)) {
        let fault = Fault::at(&entry.position, format!("'{name}' has no member '{}'", entry.name));
        faults.push(if describable.members.is_empty() {
            fault
        } else {
            fault.hint(format!("its members are {}", describable.members.join(", ")))
        });
    }
    for entry in doc.features.iter().filter(|entry| !describable.features.contains(&entry.name.as_str())) {
        faults.push(Fault::at(&entry.position, format!("'{name}' has no feature '{}'", entry.name)));
    }
    let command = match &definition.kind {
        Kind::Command(command) => Some(command),
        _ => None,
    };
    for kind in [SectionKind::Returns, SectionKind::Errors] {
        if let (Some(section), None) = (doc.section(kind), command) {
            faults.push(Fault::at(&section.position, format!("only commands return or fail, and '{name}' is none")));
        }
    }
    if pragmas.first_form {
        return;
    }
    faults.extend(doc.modern_faults.iter().cloned());
    if let (Some(section), Some(command)) = (doc.section(SectionKind::Returns), command)
        && command.returns.is_none()
    {
        faults.push(
            Fault::at(&section.position, format!("the command '{name}' returns nothing"))
                .hint("leave the section 'Returns:' out"),
        );
    }
    let missing = |names: &[&str], described: &[DocEntry]| -> Vec<String> {
        let mut missing: Vec<String> = names
            .iter()
            .filter(|name| !described.iter().any(|entry| entry.name == **name))
            .map(|name| format!("'{name}'"))
            .collect();
        missing.dedup();
        missing
    };
    let features = missing(&describable.features, &doc.features);
    if !features.is_empty() {
        faults.push(
            Fault::at(&symbol.position, format!("no documentation of {} of '{name}'", features.join(", ")))
                .hint("'# Features:' and '# @feature: text' describe them"),
        );
    }
    if pragmas.doc_required && !pragmas.documentation.contains(name) {
        let members = missing(&describable.members, &doc.members);
        if !members.is_empty() {
            faults.push(
                Fault::at(&symbol.position, format!("no documentation of {} of '{name}'", members.join(", "))).hint(
                    "'# @member: text' describes one, or the pragma documentation-exceptions lists the definition",
                ),
            );
        }
    }
}
