//! Rust code from a schema: types, handler traits, dispatch, events and tables, one module a schema file.
//!
//! The code names `rhea_qmp`, `serde` and `serde_json` by absolute paths, so it stands in any module of any crate that
//! depends on them.

mod dispatch;
mod naming;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::introspect::introspect;
use crate::schema::{Arguments, Definition, Item, Kind, Schema, TypeRef};

/// Generated Rust.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The code, formatted.
    pub code: String,
}

/// Why no code came out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GenerateError {
    /// The list of what has no handler yet names something else.
    #[error("the list of missing handlers names '{0}', which is neither a command nor an event of the schema")]
    Unknown(String),
    /// The code does not parse: a defect of the generator.
    #[error("the generated code is no Rust: {0}")]
    Syntax(String),
}

/// Rust code for `schema`, without the commands and events in `missing` and the types that only they use.
pub fn generate(schema: &Schema, missing: &BTreeSet<String>) -> Result<Generated, GenerateError> {
    let unknown = |name: &&String| {
        !matches!(schema.get(name).map(|definition| &definition.kind), Some(Kind::Command(_) | Kind::Event(_)))
    };
    if let Some(name) = missing.iter().find(unknown) {
        return Err(GenerateError::Unknown(name.clone()));
    }
    let generator = Generator::new(schema, missing);
    let tokens = generator.tokens();
    let file = syn::parse2(tokens).map_err(|error| GenerateError::Syntax(error.to_string()))?;
    Ok(Generated { code: prettyplease::unparse(&file) })
}

struct Generator<'a> {
    schema: &'a Schema,
    missing: &'a BTreeSet<String>,
    /// Types that get code.
    kept: BTreeSet<String>,
    /// The Rust module of each schema module.
    modules: Vec<proc_macro2::Ident>,
    /// Types that a value of each type holds in itself, not in a list.
    inside: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Generator<'a> {
    fn new(schema: &'a Schema, missing: &'a BTreeSet<String>) -> Self {
        let modules = schema.modules.iter().map(|module| naming::field(&module.name)).collect();
        let mut generator = Self { schema, missing, kept: BTreeSet::new(), modules, inside: BTreeMap::new() };
        generator.kept = generator.kept_types();
        generator.inside = generator.containment();
        generator
    }

    /// Every type but those that only missing commands and events lead to.
    fn kept_types(&self) -> BTreeSet<String> {
        let roots = |missing: bool| {
            self.schema
                .definitions()
                .filter(move |definition| matches!(definition.kind, Kind::Command(_) | Kind::Event(_)))
                .filter(move |definition| self.missing.contains(&definition.name) == missing)
        };
        let mut reached_by_any = self.reached(roots(true));
        reached_by_any.extend(self.reached(roots(false)));
        // Types that no command leads to are for the program itself, such as those of command-line options.
        let own = self.schema.definitions().filter(|definition| !reached_by_any.contains(&definition.name));
        let is_type = |name: &String| {
            !matches!(
                self.schema.get(name).map(|definition| &definition.kind),
                None | Some(Kind::Command(_) | Kind::Event(_))
            )
        };
        self.reached(own.chain(roots(false))).into_iter().filter(is_type).collect()
    }

    /// The definitions given, and all types they lead to.
    fn reached<'d>(&self, roots: impl Iterator<Item = &'d Definition>) -> BTreeSet<String> {
        let mut left: Vec<String> = roots.map(|definition| definition.name.clone()).collect();
        let mut reached = BTreeSet::new();
        while let Some(name) = left.pop() {
            let Some(definition) = self.schema.get(&name) else { continue };
            if !reached.insert(name) {
                continue;
            }
            for used in self.schema.uses(definition) {
                if let TypeRef::Named(name) = used.element() {
                    left.push(name.clone());
                }
            }
            if let Kind::Command(crate::schema::Command { arguments: Arguments::Named { name, .. }, .. })
            | Kind::Event(crate::schema::Event { arguments: Arguments::Named { name, .. } }) = &definition.kind
            {
                left.push(name.clone());
            }
        }
        reached
    }

    fn containment(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut inside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for definition in self.schema.definitions() {
            let mut seen = BTreeSet::new();
            let mut left = vec![definition];
            while let Some(next) = left.pop() {
                for used in self.schema.uses(next) {
                    if let TypeRef::Named(name) = used
                        && seen.insert(name.clone())
                        && let Some(used) = self.schema.get(name)
                    {
                        left.push(used);
                    }
                }
            }
            inside.insert(definition.name.clone(), seen);
        }
        inside
    }

    /// Whether a member of type `held` in `owner` must stand behind a pointer, lest a value holds itself.
    fn is_boxed(&self, owner: &str, held: &TypeRef) -> bool {
        match held {
            TypeRef::Named(name) => name == owner || self.inside.get(name).is_some_and(|inside| inside.contains(owner)),
            _ => false,
        }
    }

    /// Whether the command or event has a handler.
    fn is_present(&self, definition: &Definition) -> bool {
        !self.missing.contains(&definition.name)
    }

    fn module_of(&self, definition: &Definition) -> proc_macro2::Ident {
        self.modules.get(definition.module).cloned().unwrap_or_else(|| format_ident!("schema"))
    }

    fn tokens(&self) -> TokenStream {
        let mut modules = TokenStream::new();
        let mut with_handlers = Vec::new();
        for (number, module) in self.schema.modules.iter().enumerate() {
            let definitions: Vec<&Definition> =
                self.schema.definitions().filter(|definition| definition.module == number).collect();
            let types: TokenStream = definitions
                .iter()
                .filter(|definition| self.kept.contains(&definition.name))
                .map(|definition| self.type_definition(definition))
                .collect();
            let handler = self.handler(&definitions);
            if types.is_empty() && handler.is_none() {
                continue;
            }
            let Some(name) = self.modules.get(number) else { continue };
            if handler.is_some() {
                with_handlers.push(name.clone());
            }
            let doc = naming::docs(&module_doc(module));
            modules.extend(quote! {
                #doc
                pub mod #name {
                    #types
                    #handler
                }
            });
        }
        let tables = self.tables();
        let dispatch = self.dispatch(&with_handlers);
        let events = self.events();
        let introspection = introspect(&self.present_schema()).to_string();
        quote! {
            #tables
            #dispatch
            #events

            /// The reply of `query-qmp-schema`, as JSON text.
            pub const INTROSPECTION: &str = #introspection;

            #modules
        }
    }

    /// The schema without what is missing.
    fn present_schema(&self) -> Schema {
        let definitions: Vec<Definition> =
            self.schema.definitions().filter(|definition| self.is_present(definition)).cloned().collect();
        let index = definitions.iter().enumerate().map(|(at, definition)| (definition.name.clone(), at)).collect();
        Schema { modules: self.schema.modules.clone(), definitions, index }
    }
}

/// What a generated module says of itself: the first heading of its file.
fn module_doc(module: &crate::schema::Module) -> String {
    let heading = module.items.iter().find_map(|item| match item {
        Item::Text(doc) => doc.text.lines().find_map(|line| line.strip_prefix("= ")),
        _ => None,
    });
    let file = module.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match heading {
        Some(heading) => format!("{heading} (`{file}`)."),
        None => format!("What `{file}` defines."),
    }
}
