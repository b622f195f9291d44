//! Handler traits, the dispatch of commands to them, events, and the tables of both.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::types::{read_names, reads};
use super::{Generator, naming};
use crate::schema::{Arguments, Command, Definition, Event, Kind, TypeRef};

impl Generator<'_> {
    fn present_commands(&self) -> impl Iterator<Item = (&Definition, &Command)> {
        self.schema.commands().filter(|(definition, _)| self.is_present(definition))
    }

    fn present_events(&self) -> impl Iterator<Item = (&Definition, &Event)> {
        self.schema.events().filter(|(definition, _)| self.is_present(definition))
    }

    /// The names and flags of commands and events.
    pub(super) fn tables(&self) -> TokenStream {
        let mut commands: Vec<_> = self.present_commands().collect();
        commands.sort_by_key(|(definition, _)| definition.name.as_str());
        let rows = commands.iter().map(|(definition, command)| {
            let name = definition.name.as_str();
            let Command { allow_oob, allow_preconfig, coroutine, success_response, .. } = command;
            quote! {
                CommandInfoRow {
                    name: #name,
                    allow_oob: #allow_oob,
                    allow_preconfig: #allow_preconfig,
                    coroutine: #coroutine,
                    success_response: #success_response,
                },
            }
        });
        let events = self.present_events().map(|(definition, _)| definition.name.as_str());
        let missing = self.missing.iter().map(String::as_str);
        quote! {
            /// What a session must know of a command before it runs it.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct CommandInfoRow {
                /// The command's name.
                pub name: &'static str,
                /// Whether it may run out of band.
                pub allow_oob: bool,
                /// Whether it may run before the machine exists.
                pub allow_preconfig: bool,
                /// Whether it takes long, and so works off the monitor's thread.
                pub coroutine: bool,
                /// Whether its success is answered at all.
                pub success_response: bool,
            }

            /// The commands that have a handler, by name in ascending order.
            pub const COMMANDS: &[CommandInfoRow] = &[#(#rows)*];

            /// The events that are sent, in the schema's order.
            pub const EVENTS: &[&str] = &[#(#events),*];

            /// What the schema holds and no handler answers or sends yet.
            pub const MISSING: &[&str] = &[#(#missing),*];

            /// The row of the command `name`.
            pub fn command(name: &str) -> ::std::option::Option<&'static CommandInfoRow> {
                let at = COMMANDS.binary_search_by(|row| row.name.cmp(name)).ok()?;
                COMMANDS.get(at)
            }
        }
    }

    /// The trait with a method for each command among `definitions`, if there is one.
    pub(super) fn handler(&self, definitions: &[&Definition]) -> Option<TokenStream> {
        let methods: Vec<TokenStream> = definitions
            .iter()
            .filter(|definition| self.is_present(definition))
            .filter_map(|definition| match &definition.kind {
                Kind::Command(command) => Some(self.method(definition, command)),
                _ => None,
            })
            .collect();
        if methods.is_empty() {
            return None;
        }
        Some(quote! {
            /// Answers this module's commands, one method a command.
            pub trait Handler {
                #(#methods)*
            }
        })
    }

    fn method(&self, definition: &Definition, command: &Command) -> TokenStream {
        let name = naming::field(&definition.name);
        let otherwise = format!("The command `{}`.", definition.name);
        let doc = naming::definition_docs(definition.doc.as_ref(), &otherwise);
        let root = quote!(super::);
        let arguments = if !command.generated {
            quote!(arguments: ::serde_json::Map<::std::string::String, ::serde_json::Value>)
        } else {
            match &command.arguments {
                Arguments::Named { name, boxed: true } => {
                    let kind = self.rust_type(&TypeRef::Named(name.clone()), &root);
                    quote!(arguments: #kind)
                }
                spread => {
                    let members = self.schema.argument_members(spread);
                    let names = naming::fields(&members);
                    let kinds = members.iter().map(|member| self.member_type(&definition.name, member, &root));
                    quote!(#(#names: #kinds),*)
                }
            }
        };
        let returns = match &command.returns {
            None => quote!(()),
            Some(_) if !command.generated => quote!(::serde_json::Value),
            Some(returns) => self.rust_type(returns, &root),
        };
        let returns = if command.coroutine { quote!(::rhea_qmp::reply::Later<#returns>) } else { returns };
        quote! {
            #doc
            fn #name(&mut self, #arguments) -> ::std::result::Result<#returns, ::rhea_qmp::Error>;
        }
    }

    /// The one trait that is all handlers, and the function that finds the right method.
    pub(super) fn dispatch(&self, with_handlers: &[Ident]) -> TokenStream {
        let arms: TokenStream =
            self.present_commands().map(|(definition, command)| self.arm(definition, command)).collect();
        quote! {
            /// Answers every command: implemented for whatever implements each module's handler.
            pub trait Handlers: #(#with_handlers::Handler)+* {}

            impl<T: ?Sized #(+ #with_handlers::Handler)*> Handlers for T {}

            /// What a command has come to.
            pub enum Outcome {
                /// It is done, with this result.
                Done(::serde_json::Value),
                /// Its work is still to do, off the monitor's thread.
                Later(::rhea_qmp::reply::Later<::serde_json::Value>),
            }

            /// Reads the arguments of `command` and has its handler answer.
            pub fn dispatch<H: Handlers + ?Sized>(
                handlers: &mut H,
                command: &str,
                arguments: ::serde_json::Map<::std::string::String, ::serde_json::Value>,
            ) -> ::std::result::Result<Outcome, ::rhea_qmp::Error> {
                match command {
                    #arms
                    _ => ::std::result::Result::Err(::rhea_qmp::Error::command_not_found(command)),
                }
            }

            /// The result of a command that returns nothing.
            #[allow(dead_code)]
            fn nothing() -> ::serde_json::Value {
                ::serde_json::Value::Object(::serde_json::Map::new())
            }

            /// A result as JSON.
            #[allow(dead_code)]
            fn json<T: ::serde::Serialize>(value: T) -> ::std::result::Result<::serde_json::Value, ::rhea_qmp::Error> {
                ::serde_json::to_value(value).map_err(::rhea_qmp::Error::generic)
            }
        }
    }

    fn arm(&self, definition: &Definition, command: &Command) -> TokenStream {
        let wire = definition.name.as_str();
        let module = self.module_of(definition);
        let method = naming::field(&definition.name);
        let (reading, given) = if !command.generated {
            (TokenStream::new(), vec![format_ident!("arguments")])
        } else {
            match &command.arguments {
                Arguments::Named { boxed: true, .. } => (
                    quote! {
                        let arguments = ::rhea_qmp::arguments::whole(
                            ::serde_json::Value::Object(arguments),
                            &::rhea_qmp::arguments::Path::Root,
                        )?;
                    },
                    vec![format_ident!("arguments")],
                ),
                spread => {
                    let members = self.schema.argument_members(spread);
                    let reads = reads(&members);
                    let mutable = if members.is_empty() { TokenStream::new() } else { quote!(mut) };
                    let reading = quote! {
                        let #mutable members = ::rhea_qmp::arguments::Members::of_arguments(arguments);
                        #reads
                        members.finish()?;
                    };
                    (reading, read_names(&members))
                }
            }
        };
        let call = quote!(#module::Handler::#method(handlers, #(#given),*)?);
        let answer = match (command.coroutine, &command.returns, command.generated) {
            (false, None, _) => quote! {
                #call;
                ::std::result::Result::Ok(Outcome::Done(nothing()))
            },
            (false, Some(_), true) => quote!(::std::result::Result::Ok(Outcome::Done(json(#call)?))),
            (false, Some(_), false) => quote!(::std::result::Result::Ok(Outcome::Done(#call))),
            (true, None, _) => quote! {
                let later = #call;
                ::std::result::Result::Ok(Outcome::Later(::std::boxed::Box::new(move || {
                    later()?;
                    ::std::result::Result::Ok(nothing())
                })))
            },
            (true, Some(_), true) => quote! {
                let later = #call;
                ::std::result::Result::Ok(Outcome::Later(::std::boxed::Box::new(move || json(later()?))))
            },
            (true, Some(_), false) => quote!(::std::result::Result::Ok(Outcome::Later(#call))),
        };
        quote! {
            #wire => {
                #reading
                #answer
            }
        }
    }

    /// The events, each with its data.
    pub(super) fn events(&self) -> TokenStream {
        let root = quote!(self::);
        let mut variants = TokenStream::new();
        let mut names = TokenStream::new();
        let mut data = TokenStream::new();
        let identifiers = naming::variants_of(self.present_events().map(|(definition, _)| definition.name.as_str()));
        for ((definition, event), variant) in self.present_events().zip(identifiers) {
            let wire = definition.name.as_str();
            let otherwise = format!("The event `{wire}`.");
            let doc = naming::definition_docs(definition.doc.as_ref(), &otherwise);
            match &event.arguments {
                Arguments::Named { name, .. } => {
                    let kind = self.rust_type(&TypeRef::Named(name.clone()), &root);
                    variants.extend(quote!(#doc #variant(#kind),));
                    names.extend(quote!(Self::#variant(_) => #wire,));
                    data.extend(quote!(Self::#variant(data) => ::serde_json::to_value(data).ok(),));
                }
                Arguments::Inline(members) if !members.is_empty() => {
                    let members: Vec<_> = members.iter().collect();
                    let field_definitions = self.field_definitions(definition, &members, &root, &TokenStream::new());
                    let fields = naming::fields(&members);
                    let read = read_names(&members);
                    let inserts = members.iter().zip(&read).map(|(member, variable)| {
                        let name = member.name.as_str();
                        let insert = quote!(data.insert(#name.into(), ::serde_json::to_value(#variable).ok()?););
                        if member.optional {
                            quote!(if let ::std::option::Option::Some(#variable) = #variable { #insert })
                        } else {
                            insert
                        }
                    });
                    variants.extend(quote!(#doc #variant { #field_definitions },));
                    names.extend(quote!(Self::#variant { .. } => #wire,));
                    data.extend(quote! {
                        Self::#variant { #(#fields: #read),* } => {
                            let mut data = ::serde_json::Map::new();
                            #(#inserts)*
                            ::std::option::Option::Some(::serde_json::Value::Object(data))
                        }
                    });
                }
                _ => {
                    variants.extend(quote!(#doc #variant,));
                    names.extend(quote!(Self::#variant => #wire,));
                    data.extend(quote!(Self::#variant => ::std::option::Option::None,));
                }
            }
        }
        // An enumeration without variants can only be matched itself, not by reference.
        let receiver = if variants.is_empty() { quote!(*self) } else { quote!(self) };
        quote! {
            /// What the server tells by itself.
            #[derive(Clone, Debug, PartialEq)]
            pub enum Event { #variants }

            impl Event {
                /// The event's name on the wire.
                pub fn name(&self) -> &'static str {
                    match *self { #names }
                }

                /// What it tells, if it tells more than its name.
                pub fn data(&self) -> ::std::option::Option<::serde_json::Value> {
                    match #receiver { #data }
                }
            }
        }
    }
}
