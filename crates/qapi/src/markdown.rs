//! The reference manual: a schema's documentation as Markdown.

use std::fmt::Write;

use crate::doc::{Doc, DocEntry, SectionKind};
use crate::schema::{
    Alternate, Arguments, Branch, Command, Condition, Definition, Enum, Event, Feature, Item, Kind, Member, Module,
    Schema, Struct, TypeRef, Union, UnionBase,
};

/// The reference manual of `schema`, in the order of its files.
pub fn markdown(schema: &Schema) -> String {
    let mut manual = Manual { schema, out: String::new() };
    if !schema.modules.is_empty() {
        manual.module(0);
    }
    manual.out
}

/// A page of the manual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The name of the module that it describes.
    pub module: String,
    /// Its heading.
    pub title: String,
    /// All of it, heading included.
    pub text: String,
}

/// The reference manual of `schema`, a page for each module that describes something, in their order. Links to types lead
/// from one page, `MODULE.md`, to another.
pub fn pages(schema: &Schema) -> Vec<Page> {
    let page = |(number, module): (usize, &Module)| {
        let mut manual = Manual { schema, out: String::new() };
        manual.items(&module.items, |_, _| {});
        let text = manual.out.trim_end();
        let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(&module.name);
        let text = format!("{}\n", across_pages(schema, number, text));
        (!text.trim().is_empty()).then(|| Page { module: module.name.clone(), title: title.to_owned(), text })
    };
    schema.modules.iter().enumerate().filter_map(page).collect()
}

/// Has links to definitions of other modules than `own` lead to their pages.
fn across_pages(schema: &Schema, own: usize, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](#") {
        let name = after.split_once(')').map_or("", |(name, _)| name);
        let other = schema.get(name).filter(|definition| definition.module != own);
        let page = other.and_then(|definition| schema.modules.get(definition.module));
        let page = page.map(|module| format!("{}.md", module.name)).unwrap_or_default();
        out.push_str(before);
        out.push_str(&format!("]({page}#"));
        rest = after;
    }
    out.push_str(rest);
    out
}

struct Manual<'a> {
    schema: &'a Schema,
    out: String,
}

impl Manual<'_> {
    fn module(&mut self, number: usize) {
        let schema = self.schema;
        if let Some(module) = schema.modules.get(number) {
            self.items(&module.items, Self::module);
        }
    }

    /// What stands in a module; `include` does what is to be done with others.
    fn items(&mut self, items: &[Item], include: fn(&mut Self, usize)) {
        for item in items {
            match item {
                Item::Include(included) => include(self, *included),
                Item::Text(doc) => self.free_text(&doc.text),
                Item::Definition(name) => {
                    if let Some(definition) = self.schema.get(name) {
                        self.definition(definition);
                    }
                }
            }
        }
    }

    /// A paragraph and the blank line after it.
    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.out.push_str(text);
            self.out.push_str("\n\n");
        }
    }

    /// A free text: `= Title` and `== Title` are headings.
    fn free_text(&mut self, text: &str) {
        let mut plain = Vec::new();
        for line in text.lines() {
            let heading = line.trim_start_matches('=');
            let level = line.len() - heading.len();
            match heading.strip_prefix(' ') {
                Some(title) if level > 0 => {
                    self.paragraph(&prose(&plain.join("\n")));
                    plain.clear();
                    self.paragraph(&format!("{} {}", "#".repeat(level), title.trim()));
                }
                _ => plain.push(line),
            }
        }
        self.paragraph(&prose(plain.join("\n").trim()));
    }

    fn definition(&mut self, definition: &Definition) {
        let empty = Vec::new();
        let doc = definition.doc.as_ref();
        let (described, features) = doc.map_or((&empty, &empty), |doc| (&doc.members, &doc.features));
        // The anchor is the bare name, so that links need not know how a reader makes anchors of headings.
        self.paragraph(&format!(
            "<a id=\"{0}\"></a>\n\n### {1} ({2})",
            definition.name,
            prose(&definition.name),
            definition.kind.keyword()
        ));
        if let Some(doc) = doc {
            self.paragraph(&prose(&doc.text));
        }
        match &definition.kind {
            Kind::Enum(enumeration) => self.enumeration(enumeration, described),
            Kind::Struct(structure) => self.structure(structure, described),
            Kind::Union(union) => self.union(union, described),
            Kind::Alternate(alternate) => self.alternate(alternate, described),
            Kind::Command(command) => self.command(command, described),
            Kind::Event(Event { arguments }) => self.arguments("Data", arguments, described),
        }
        self.features(&definition.features, features);
        if let Some(condition) = &definition.condition {
            self.paragraph(&format!("**If:** {condition}"));
        }
        if let Some(doc) = doc {
            self.sections(doc);
        }
    }

    fn sections(&mut self, doc: &Doc) {
        for section in &doc.sections {
            let text = prose(&section.text);
            match section.kind {
                SectionKind::Plain => self.paragraph(&text),
                SectionKind::Returns => self.paragraph(&format!("**Returns:** {text}")),
                SectionKind::Errors => self.paragraph(&format!("**Errors:**\n\n{text}")),
                SectionKind::Since => self.paragraph(&format!("**Since:** {text}")),
                SectionKind::Note => self.paragraph(&format!("**Note:** {text}")),
                SectionKind::Todo | SectionKind::Example => {}
            }
        }
        for example in doc.examples() {
            self.paragraph("**Example:**");
            self.paragraph(&prose(&example.title));
            let mut steps = String::new();
            for step in &example.steps {
                let arrow = match step.flow {
                    crate::doc::Flow::Sent => "->",
                    crate::doc::Flow::Received => "<-",
                    crate::doc::Flow::Event => "<=",
                };
                let _ = writeln!(steps, "{arrow} {}", step.text);
            }
            if !steps.is_empty() {
                self.paragraph(&format!("```text\n{steps}```"));
            }
        }
    }

    fn list_end(&mut self, before: usize) {
        if self.out.len() > before {
            self.out.push('\n');
        }
    }

    /// One entry of a list: a head, and what is said about it.
    fn entry(&mut self, head: &str, described: &[DocEntry], name: &str, condition: Option<&Condition>) {
        let text = described.iter().find(|entry| entry.name == name).map(|entry| prose(&entry.text));
        let _ = write!(self.out, "- {head}");
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            // Lines after the first belong to the entry as long as they are indented.
            let _ = write!(self.out, ": {}", text.replace('\n', "\n  "));
        }
        if let Some(condition) = condition {
            let _ = write!(self.out, " (if {condition})");
        }
        self.out.push('\n');
    }

    fn enumeration(&mut self, enumeration: &Enum, described: &[DocEntry]) {
        self.paragraph("**Values:**");
        let before = self.out.len();
        for member in &enumeration.members {
            let head = format!("`{}`{}", member.name, marks(&member.features));
            self.entry(&head, described, &member.name, member.condition.as_ref());
        }
        self.list_end(before);
    }

    fn members(&mut self, members: &[Member], described: &[DocEntry]) {
        let before = self.out.len();
        for member in members {
            let optional = if member.optional { ", optional" } else { "" };
            let kind = type_link(&member.kind);
            let head = format!("`{}` ({kind}{optional}){}", member.name, marks(&member.features));
            self.entry(&head, described, &member.name, member.condition.as_ref());
        }
        self.list_end(before);
    }

    fn structure(&mut self, structure: &Struct, described: &[DocEntry]) {
        if let Some(base) = &structure.base {
            self.paragraph(&format!("Has the members of {}.", link(base)));
        }
        if structure.members.is_empty() {
            return;
        }
        self.paragraph("**Members:**");
        self.members(&structure.members, described);
    }

    fn union(&mut self, union: &Union, described: &[DocEntry]) {
        match &union.base {
            UnionBase::Named(base) => self.paragraph(&format!("Has the members of {}.", link(base))),
            UnionBase::Inline(members) => {
                self.paragraph("**Members:**");
                self.members(members, described);
            }
        }
        let before = self.out.len();
        for Branch { name, kind, condition, .. } in &union.branches {
            let kind = type_link(kind);
            let brings = if union.simple { format!("`data` is {kind}") } else { format!("the members of {kind}") };
            let head = format!("when `{}` is `{name}`, {brings}", union.discriminator);
            self.entry(&head, described, name, condition.as_ref());
        }
        self.list_end(before);
    }

    fn alternate(&mut self, alternate: &Alternate, described: &[DocEntry]) {
        self.paragraph("**One of:**");
        let before = self.out.len();
        for branch in &alternate.branches {
            self.entry(&type_link(&branch.kind), described, &branch.name, branch.condition.as_ref());
        }
        self.list_end(before);
    }

    fn command(&mut self, command: &Command, described: &[DocEntry]) {
        self.arguments("Arguments", &command.arguments, described);
        if let Some(returns) = &command.returns {
            self.paragraph(&format!("**Result:** {}", type_link(returns)));
        }
        let mut notes = Vec::new();
        if command.allow_oob {
            notes.push("may be sent out of band");
        }
        if command.allow_preconfig {
            notes.push("may be sent before the machine exists");
        }
        if !command.success_response {
            notes.push("success is not answered");
        }
        if !notes.is_empty() {
            self.paragraph(&format!("**Also:** {}.", notes.join("; ")));
        }
    }

    fn arguments(&mut self, title: &str, arguments: &Arguments, described: &[DocEntry]) {
        match arguments {
            Arguments::Inline(members) if !members.is_empty() => {
                self.paragraph(&format!("**{title}:**"));
                self.members(members, described);
            }
            Arguments::Named { name, .. } => self.paragraph(&format!("**{title}:** the members of {}", link(name))),
            _ => {}
        }
    }

    fn features(&mut self, features: &[Feature], described: &[DocEntry]) {
        if features.is_empty() && described.is_empty() {
            return;
        }
        self.paragraph("**Features:**");
        let before = self.out.len();
        for entry in described {
            let condition = features.iter().find(|feature| feature.name == entry.name);
            let condition = condition.and_then(|feature| feature.condition.as_ref());
            self.entry(&format!("`{}`", entry.name), described, &entry.name, condition);
        }
        let undescribed = |feature: &&Feature| !described.iter().any(|entry| entry.name == feature.name);
        for feature in features.iter().filter(undescribed) {
            self.entry(&format!("`{}`", feature.name), described, &feature.name, feature.condition.as_ref());
        }
        self.list_end(before);
    }
}

/// Features in brackets after a name.
fn marks(features: &[Feature]) -> String {
    features.iter().map(|feature| format!(" [{}]", feature.name)).collect()
}

fn link(name: &str) -> String {
    format!("[{name}](#{name})")
}

fn type_link(kind: &TypeRef) -> String {
    match kind {
        TypeRef::Builtin(builtin) => builtin.name().to_owned(),
        TypeRef::Named(name) => link(name),
        TypeRef::Array(element) => format!("list of {}", type_link(element)),
    }
}

/// Text with `@name` in code type, and what Markdown would take for markup made harmless.
fn prose(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let length = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(after.len());
        rest = match (c, after.split_at_checked(length)) {
            ('@', Some((name, left))) if !name.is_empty() && !before.is_ascii_alphanumeric() => {
                let _ = write!(out, "`{name}`");
                left
            }
            _ => {
                match c {
                    '<' => out.push_str("&lt;"),
                    '_' | '[' | ']' => {
                        out.push('\\');
                        out.push(c);
                    }
                    _ => out.push(c),
                }
                after
            }
        };
        before = c;
    }
    out
}
