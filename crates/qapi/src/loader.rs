//! Reads a schema's files: follows includes, each file once, and gathers pragmas.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::doc::Doc;
use crate::fault::Fault;
use crate::parser::{self, Entry, Node, TopLevel, Value};
use crate::source::{Position, Source};

/// How deep files may include files.
const MAX_INCLUDE_DEPTH: usize = 32;

/// A schema's files, not yet checked.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) modules: Vec<LoadedModule>,
    pub(crate) pragmas: Pragmas,
}

/// One file.
#[derive(Debug)]
pub(crate) struct LoadedModule {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) items: Vec<LoadedItem>,
}

/// One thing in a file.
#[derive(Debug)]
pub(crate) enum LoadedItem {
    Expression { entries: Vec<Entry>, position: Position, doc: Option<Doc> },
    Text(Doc),
    Include(usize),
}

/// What a schema's pragmas ask for. They hold for all its files.
#[derive(Debug, Default)]
pub(crate) struct Pragmas {
    pub(crate) doc_required: bool,
    /// Whether pragmas of the language's first form are used, and so its laxer rules hold.
    pub(crate) first_form: bool,
    /// Commands whose names may hold `_` and capitals.
    pub(crate) command_names: BTreeSet<String>,
    /// Commands that may return something other than objects.
    pub(crate) command_returns: BTreeSet<String>,
    /// Definitions whose members need no documentation.
    pub(crate) documentation: BTreeSet<String>,
    /// Definitions whose members may have capitals and `_`.
    pub(crate) member_names: BTreeSet<String>,
}

/// Reads the schema whose root is `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, Vec<Fault>> {
    let mut loader = Loader { loaded: Loaded::default(), faults: Vec::new(), known: Vec::new() };
    match std::fs::read(path) {
        Ok(bytes) => {
            let mut stack = Vec::new();
            loader.file(path, bytes, Vec::new(), &mut stack);
        }
        Err(reason) => loader.faults.push(Fault::of_file(path.to_owned(), format!("cannot read the schema: {reason}"))),
    }
    if loader.faults.is_empty() { Ok(loader.loaded) } else { Err(loader.faults) }
}

struct Loader {
    loaded: Loaded,
    faults: Vec<Fault>,
    /// Files already read, by their real path; the index is that of the module.
    known: Vec<PathBuf>,
}

impl Loader {
    fn file(
        &mut self,
        path: &Path,
        bytes: Vec<u8>,
        included_from: Vec<(PathBuf, usize)>,
        stack: &mut Vec<PathBuf>,
    ) -> usize {
        let real = real_path(path);
        let number = self.loaded.modules.len();
        self.known.push(real.clone());
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = match path.parent().and_then(Path::file_name) {
            Some(folder) if self.loaded.modules.iter().any(|module| module.name == stem) => {
                format!("{}-{stem}", folder.to_string_lossy())
            }
            _ => stem,
        };
        self.loaded.modules.push(LoadedModule { name, path: path.to_owned(), items: Vec::new() });
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => {
                self.faults.push(Fault::of_file(path.to_owned(), "the file is not UTF-8 text"));
                return number;
            }
        };
        let source = Arc::new(Source { path: path.to_owned(), text, included_from });
        let items = match parser::parse(&source) {
            Ok(items) => items,
            Err(fault) => {
                self.faults.push(fault);
                return number;
            }
        };
        stack.push(real);
        for item in items {
            let item = match item {
                TopLevel::Doc(doc) => Some(LoadedItem::Text(doc)),
                TopLevel::Expression { entries, position, doc } => self.expression(path, entries, position, doc, stack),
            };
            if let (Some(item), Some(module)) = (item, self.loaded.modules.get_mut(number)) {
                module.items.push(item);
            }
        }
        stack.pop();
        number
    }

    fn expression(
        &mut self,
        path: &Path,
        entries: Vec<Entry>,
        position: Position,
        doc: Option<Doc>,
        stack: &mut Vec<PathBuf>,
    ) -> Option<LoadedItem> {
        let directive = entries.iter().find(|entry| entry.key == "include" || entry.key == "pragma");
        let Some(directive) = directive else {
            return Some(LoadedItem::Expression { entries, position, doc });
        };
        if let Some(symbol) = doc.and_then(|doc| doc.symbol) {
            self.faults.push(
                Fault::at(&symbol.position, format!("documentation of '{}' before '{}'", symbol.name, directive.key))
                    .hint("the definition follows its documentation directly"),
            );
        }
        if let Some(other) = entries.iter().find(|entry| entry.key != directive.key) {
            self.faults.push(Fault::at(&other.position, format!("'{}' beside '{}'", other.key, directive.key)));
            return None;
        }
        if directive.key == "pragma" {
            self.pragma(&directive.value);
            return None;
        }
        let Some(name) = directive.value.text() else {
            self.faults.push(Fault::at(&directive.value.position, "'include' takes the name of a file"));
            return None;
        };
        let at = &directive.value.position;
        let file = path.parent().unwrap_or(Path::new("")).join(name);
        let real = real_path(&file);
        if stack.contains(&real) {
            self.faults.push(
                Fault::at(at, format!("'{name}' includes itself"))
                    .hint("a file that is being read cannot be read again"),
            );
            return None;
        }
        if self.known.contains(&real) {
            return None;
        }
        if stack.len() >= MAX_INCLUDE_DEPTH {
            self.faults.push(Fault::at(at, format!("files included more than {MAX_INCLUDE_DEPTH} deep")));
            return None;
        }
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.faults.push(
                    Fault::at(at, format!("cannot read '{}': {reason}", file.display()))
                        .hint("the name is relative to the file with the include"),
                );
                return None;
            }
        };
        let mut included_from = vec![(at.path().to_owned(), at.line())];
        included_from.extend(at.source().included_from.iter().cloned());
        Some(LoadedItem::Include(self.file(&file, bytes, included_from, stack)))
    }

    fn pragma(&mut self, node: &Node) {
        let Some(entries) = node.object() else {
            self.faults.push(Fault::at(&node.position, "'pragma' takes an object"));
            return;
        };
        for entry in entries {
            let pragmas = &mut self.loaded.pragmas;
            let (lists, first_form): (Vec<&mut BTreeSet<String>>, bool) = match entry.key.as_str() {
                "doc-required" => {
                    match entry.value.value {
                        Value::Flag(required) => pragmas.doc_required = required,
                        _ => self.faults.push(Fault::at(&entry.value.position, "'doc-required' takes true or false")),
                    }
                    continue;
                }
                "returns-whitelist" => (vec![&mut pragmas.command_returns], true),
                "name-case-whitelist" => (vec![&mut pragmas.member_names, &mut pragmas.command_names], true),
                "command-name-exceptions" => (vec![&mut pragmas.command_names], false),
                "command-returns-exceptions" => (vec![&mut pragmas.command_returns], false),
                "documentation-exceptions" => (vec![&mut pragmas.documentation], false),
                "member-name-exceptions" => (vec![&mut pragmas.member_names], false),
                unknown => {
                    self.faults.push(Fault::at(&entry.position, format!("there is no pragma '{unknown}'")).hint(
                        "doc-required, command-name-exceptions, command-returns-exceptions, \
                             documentation-exceptions, member-name-exceptions, returns-whitelist, name-case-whitelist",
                    ));
                    continue;
                }
            };
            let names: Option<Vec<String>> =
                entry.value.list().and_then(|nodes| nodes.iter().map(|node| node.text().map(str::to_owned)).collect());
            match names {
                Some(names) => {
                    for list in lists {
                        list.extend(names.iter().cloned());
                    }
                    pragmas.first_form |= first_form;
                }
                None => {
                    let message = format!("'{}' takes a list of names", entry.key);
                    self.faults.push(Fault::at(&entry.value.position, message));
                }
            }
        }
    }
}

/// The file's one true name, so that it is known again under another.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
