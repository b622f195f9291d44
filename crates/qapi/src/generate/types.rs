//! Rust types: definitions, how they are written as JSON, and how they are read from it.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{Generator, naming};
use crate::schema::{Alternate, Branch, Builtin, Definition, Enum, Kind, Member, TypeRef, Union, UnionBase};

impl Generator<'_> {
    pub(super) fn type_definition(&self, definition: &Definition) -> TokenStream {
        match &definition.kind {
            Kind::Enum(enumeration) => enum_definition(definition, enumeration),
            Kind::Struct(_) => self.struct_definition(definition),
            Kind::Union(union) => self.union_definition(definition, union),
            Kind::Alternate(alternate) => self.alternate_definition(definition, alternate),
            Kind::Command(_) | Kind::Event(_) => TokenStream::new(),
        }
    }

    /// The Rust type for `kind`, as seen from the module `root` stands for.
    pub(super) fn rust_type(&self, kind: &TypeRef, root: &TokenStream) -> TokenStream {
        match kind {
            TypeRef::Builtin(builtin) => match builtin {
                Builtin::Str => quote!(::std::string::String),
                Builtin::Number => quote!(f64),
                Builtin::Int | Builtin::Int64 => quote!(i64),
                Builtin::Int8 => quote!(i8),
                Builtin::Int16 => quote!(i16),
                Builtin::Int32 => quote!(i32),
                Builtin::Uint8 => quote!(u8),
                Builtin::Uint16 => quote!(u16),
                Builtin::Uint32 => quote!(u32),
                Builtin::Uint64 | Builtin::Size => quote!(u64),
                Builtin::Bool => quote!(bool),
                Builtin::Null => quote!(()),
                Builtin::Any => quote!(::serde_json::Value),
            },
            TypeRef::Array(element) => {
                let element = self.rust_type(element, root);
                quote!(::std::vec::Vec<#element>)
            }
            TypeRef::Named(name) => {
                let module = self.schema.get(name).map(|definition| self.module_of(definition));
                let name = naming::type_name(name);
                quote!(#root #module::#name)
            }
        }
    }

    /// The type of a member of `owner`.
    pub(super) fn member_type(&self, owner: &str, member: &Member, root: &TokenStream) -> TokenStream {
        let kind = self.held_type(owner, &member.kind, root);
        if member.optional { quote!(::std::option::Option<#kind>) } else { kind }
    }

    fn held_type(&self, owner: &str, kind: &TypeRef, root: &TokenStream) -> TokenStream {
        let rust = self.rust_type(kind, root);
        if self.is_boxed(owner, kind) { quote!(::std::boxed::Box<#rust>) } else { rust }
    }

    /// Fields for `members` of `owner`, with documentation.
    pub(super) fn field_definitions(
        &self,
        owner: &Definition,
        members: &[&Member],
        root: &TokenStream,
        visibility: &TokenStream,
    ) -> TokenStream {
        let fields = naming::fields(members);
        let definitions = members.iter().zip(fields).map(|(member, field)| {
            let kind = self.member_type(&owner.name, member, root);
            let doc = naming::docs(&self.member_doc(owner, &member.name));
            quote!(#doc #visibility #field: #kind,)
        });
        definitions.collect()
    }

    /// What is said about a member, where it was first defined.
    fn member_doc(&self, owner: &Definition, member: &str) -> String {
        let described = owner.doc.as_ref().and_then(|doc| doc.members.iter().find(|entry| entry.name == member));
        if let Some(entry) = described.filter(|entry| !entry.text.is_empty()) {
            return entry.text.clone();
        }
        let base = match &owner.kind {
            Kind::Struct(structure) => structure.base.as_deref(),
            Kind::Union(Union { base: UnionBase::Named(name), .. }) => Some(name.as_str()),
            _ => None,
        };
        match base.and_then(|base| self.schema.get(base)) {
            Some(base) => self.member_doc(base, member),
            None => format!("The member `{member}`."),
        }
    }

    fn struct_definition(&self, definition: &Definition) -> TokenStream {
        let name = naming::type_name(&definition.name);
        let doc = type_docs(definition);
        let members = self.schema.members_of(&definition.name);
        let fields = self.field_definitions(definition, &members, &quote!(super::), &quote!(pub));
        let writes = writes(&members);
        let reads = reads(&members);
        let names = naming::fields(&members);
        let read = read_names(&members);
        let (map, left) = if members.is_empty() { ("_map", "_members") } else { ("map", "members") };
        let (map, left) = (format_ident!("{map}"), format_ident!("{left}"));
        let reading_and_writing = reading_and_writing(&name);
        quote! {
            #doc
            #[derive(Clone, Debug, PartialEq)]
            pub struct #name { #fields }

            impl #name {
                pub(crate) fn write_members<M: ::serde::ser::SerializeMap>(&self, #map: &mut M)
                    -> ::std::result::Result<(), M::Error>
                {
                    #writes
                    ::std::result::Result::Ok(())
                }
            }

            impl ::rhea_qmp::arguments::FromMembers for #name {
                fn from_members(#left: &mut ::rhea_qmp::arguments::Members<'_>)
                    -> ::std::result::Result<Self, ::rhea_qmp::Error>
                {
                    #reads
                    ::std::result::Result::Ok(Self { #(#names: #read),* })
                }
            }

            #reading_and_writing
        }
    }

    fn union_definition(&self, definition: &Definition, union: &Union) -> TokenStream {
        let base = self.schema.base_members(union);
        let Some((enum_name, values)) = self.schema.discriminator(union) else { return TokenStream::new() };
        let name = naming::type_name(&definition.name);
        let doc = type_docs(definition);
        let variants = naming::variants(values);
        let kind_type = self.rust_type(&TypeRef::Named(enum_name.to_owned()), &quote!(super::));
        let branches: Vec<(Ident, &str, Option<&Branch>)> = variants
            .into_iter()
            .zip(&values.members)
            .map(|(variant, value)| {
                let branch = union.branches.iter().find(|branch| branch.name == value.name);
                (variant, value.name.as_str(), branch)
            })
            .collect();
        let only_discriminator = base.len() == 1;
        let branch_enum = if only_discriminator { name.clone() } else { format_ident!("{name}Branch") };
        let variant_definitions = branches.iter().map(|(variant, value, branch)| {
            let described =
                definition.doc.as_ref().and_then(|doc| doc.members.iter().find(|entry| entry.name == *value));
            let text = match described.filter(|entry| !entry.text.is_empty()) {
                Some(entry) => entry.text.clone(),
                None => format!("`{}` is `{value}`.", union.discriminator),
            };
            let doc = naming::docs(&text);
            match branch {
                Some(branch) => {
                    let held = self.held_type(&definition.name, &branch.kind, &quote!(super::));
                    quote!(#doc #variant(#held),)
                }
                None => quote!(#doc #variant,),
            }
        });
        let variant_definitions: TokenStream = variant_definitions.collect();
        let kinds: TokenStream = branches
            .iter()
            .map(|(variant, _, branch)| match branch {
                Some(_) => quote!(Self::#variant(_) => #kind_type::#variant,),
                None => quote!(Self::#variant => #kind_type::#variant,),
            })
            .collect();
        let branch_writes: TokenStream = branches
            .iter()
            .map(|(variant, _, branch)| match branch {
                Some(_) if union.simple => quote!(Self::#variant(branch) => map.serialize_entry("data", branch),),
                Some(_) => quote!(Self::#variant(branch) => branch.write_members(map),),
                None => quote!(Self::#variant => ::std::result::Result::Ok(()),),
            })
            .collect();
        let branch_reads: TokenStream = branches
            .iter()
            .map(|(variant, _, branch)| match branch {
                Some(_) if union.simple => quote!(#kind_type::#variant => Self::#variant(members.required("data")?),),
                Some(_) => quote! {
                    #kind_type::#variant => Self::#variant(::rhea_qmp::arguments::FromMembers::from_members(members)?),
                },
                None => quote!(#kind_type::#variant => Self::#variant,),
            })
            .collect();
        let discriminator = union.discriminator.as_str();
        let branch_doc = if only_discriminator {
            doc.clone()
        } else {
            naming::docs(&format!("What `{discriminator}` brings to a [`{name}`]."))
        };
        // Without values there is no branch, and nothing to write into.
        let branch_part = quote! {
            #branch_doc
            #[derive(Clone, Debug, PartialEq)]
            pub enum #branch_enum { #variant_definitions }

            impl #branch_enum {
                /// The value that decides.
                pub fn kind(&self) -> #kind_type {
                    match self { #kinds }
                }

                #[allow(unused_variables)]
                fn write_branch<M: ::serde::ser::SerializeMap>(&self, map: &mut M)
                    -> ::std::result::Result<(), M::Error>
                {
                    match self { #branch_writes }
                }

                #[allow(unused_variables)]
                fn read_branch(kind: #kind_type, members: &mut ::rhea_qmp::arguments::Members<'_>)
                    -> ::std::result::Result<Self, ::rhea_qmp::Error>
                {
                    ::std::result::Result::Ok(match kind { #branch_reads })
                }
            }
        };
        let reading_and_writing = reading_and_writing(&name);
        if only_discriminator {
            return quote! {
                #branch_part

                impl #name {
                    pub(crate) fn write_members<M: ::serde::ser::SerializeMap>(&self, map: &mut M)
                        -> ::std::result::Result<(), M::Error>
                    {
                        map.serialize_entry(#discriminator, &self.kind())?;
                        self.write_branch(map)
                    }
                }

                impl ::rhea_qmp::arguments::FromMembers for #name {
                    fn from_members(members: &mut ::rhea_qmp::arguments::Members<'_>)
                        -> ::std::result::Result<Self, ::rhea_qmp::Error>
                    {
                        let kind = members.required(#discriminator)?;
                        Self::read_branch(kind, members)
                    }
                }

                #reading_and_writing
            };
        }
        let fields = naming::fields(&base);
        let field_definitions = base.iter().zip(&fields).map(|(member, field)| {
            let doc = naming::docs(&self.member_doc(definition, &member.name));
            if member.name == union.discriminator {
                return quote!(#doc pub #field: #branch_enum,);
            }
            let kind = self.member_type(&definition.name, member, &quote!(super::));
            quote!(#doc pub #field: #kind,)
        });
        let field_definitions: TokenStream = field_definitions.collect();
        let deciding = base.iter().zip(&fields).find(|(member, _)| member.name == union.discriminator);
        let Some((_, deciding)) = deciding else { return TokenStream::new() };
        let writes: TokenStream = base
            .iter()
            .zip(&fields)
            .map(|(member, field)| {
                if member.name == union.discriminator {
                    return quote!(map.serialize_entry(#discriminator, &self.#field.kind())?;);
                }
                write(member, field)
            })
            .collect();
        let reads = reads(&base);
        let read = read_names(&base);
        let decided = read_name(deciding);
        quote! {
            #doc
            #[derive(Clone, Debug, PartialEq)]
            pub struct #name { #field_definitions }

            #branch_part

            impl #name {
                pub(crate) fn write_members<M: ::serde::ser::SerializeMap>(&self, map: &mut M)
                    -> ::std::result::Result<(), M::Error>
                {
                    #writes
                    self.#deciding.write_branch(map)
                }
            }

            impl ::rhea_qmp::arguments::FromMembers for #name {
                fn from_members(members: &mut ::rhea_qmp::arguments::Members<'_>)
                    -> ::std::result::Result<Self, ::rhea_qmp::Error>
                {
                    #reads
                    let #decided = #branch_enum::read_branch(#decided, members)?;
                    ::std::result::Result::Ok(Self { #(#fields: #read),* })
                }
            }

            #reading_and_writing
        }
    }

    fn alternate_definition(&self, definition: &Definition, alternate: &Alternate) -> TokenStream {
        let name = naming::type_name(&definition.name);
        let doc = type_docs(definition);
        let mut variants = TokenStream::new();
        let mut writes = TokenStream::new();
        let mut reads = TokenStream::new();
        let names = naming::variants_of(alternate.branches.iter().map(|branch| branch.name.as_str()));
        for (branch, variant) in alternate.branches.iter().zip(names) {
            let held = self.held_type(&definition.name, &branch.kind, &quote!(super::));
            let doc = naming::docs(&self.member_doc(definition, &branch.name));
            variants.extend(quote!(#doc #variant(#held),));
            writes.extend(quote!(Self::#variant(value) => ::serde::Serialize::serialize(value, serializer),));
            let pattern = match &branch.kind {
                TypeRef::Array(_) => quote!(Array(_)),
                TypeRef::Builtin(builtin) => match builtin.json_type() {
                    "string" => quote!(String(_)),
                    "boolean" => quote!(Bool(_)),
                    "null" => quote!(Null),
                    _ => quote!(Number(_)),
                },
                TypeRef::Named(named) if self.schema.enumeration(named).is_some() => quote!(String(_)),
                TypeRef::Named(_) => quote!(Object(_)),
            };
            reads.extend(quote! {
                value @ ::serde_json::Value::#pattern =>
                    ::rhea_qmp::arguments::FromArgument::from_argument(value, path).map(Self::#variant),
            });
        }
        let expected = definition.name.as_str();
        quote! {
            #doc
            #[derive(Clone, Debug, PartialEq)]
            pub enum #name { #variants }

            impl ::serde::Serialize for #name {
                fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                    match self { #writes }
                }
            }

            impl ::rhea_qmp::arguments::FromArgument for #name {
                fn from_argument(value: ::serde_json::Value, path: &::rhea_qmp::arguments::Path<'_>)
                    -> ::std::result::Result<Self, ::rhea_qmp::Error>
                {
                    match value {
                        #reads
                        _ => ::std::result::Result::Err(path.invalid_type(#expected)),
                    }
                }
            }
        }
    }
}

fn type_docs(definition: &Definition) -> TokenStream {
    let otherwise = format!("The {} `{}`.", definition.kind.keyword(), definition.name);
    naming::definition_docs(definition.doc.as_ref(), &otherwise)
}

fn enum_definition(definition: &Definition, enumeration: &Enum) -> TokenStream {
    let name = naming::type_name(&definition.name);
    let doc = type_docs(definition);
    let variants = naming::variants(enumeration);
    let words: Vec<&str> = enumeration.members.iter().map(|member| member.name.as_str()).collect();
    let docs = words.iter().map(|word| {
        let described = definition.doc.as_ref().and_then(|doc| doc.members.iter().find(|entry| entry.name == *word));
        match described.filter(|entry| !entry.text.is_empty()) {
            Some(entry) => naming::docs(&entry.text),
            None => naming::docs(&format!("`{word}`")),
        }
    });
    quote! {
        #doc
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum #name { #(#docs #variants,)* }

        impl #name {
            /// Every value, in the schema's order.
            pub const ALL: &'static [Self] = &[#(Self::#variants),*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { #(Self::#variants => #words,)* }
            }

            /// The value that `word` stands for.
            pub fn named(word: &str) -> ::std::option::Option<Self> {
                match word {
                    #(#words => ::std::option::Option::Some(Self::#variants),)*
                    _ => ::std::option::Option::None,
                }
            }
        }

        impl ::std::fmt::Display for #name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::serde::Serialize for #name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl ::rhea_qmp::arguments::FromArgument for #name {
            fn from_argument(value: ::serde_json::Value, path: &::rhea_qmp::arguments::Path<'_>)
                -> ::std::result::Result<Self, ::rhea_qmp::Error>
            {
                let word = <::std::string::String as ::rhea_qmp::arguments::FromArgument>::from_argument(value, path)?;
                Self::named(&word).ok_or_else(|| path.unknown_word(&word))
            }
        }
    }
}

/// A whole object: written with all its members, read with no member left over.
fn reading_and_writing(name: &Ident) -> TokenStream {
    quote! {
        impl ::serde::Serialize for #name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::std::result::Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(::std::option::Option::None)?;
                self.write_members(&mut map)?;
                ::serde::ser::SerializeMap::end(map)
            }
        }

        impl ::rhea_qmp::arguments::FromArgument for #name {
            fn from_argument(value: ::serde_json::Value, path: &::rhea_qmp::arguments::Path<'_>)
                -> ::std::result::Result<Self, ::rhea_qmp::Error>
            {
                ::rhea_qmp::arguments::whole(value, path)
            }
        }
    }
}

fn write(member: &Member, field: &Ident) -> TokenStream {
    let name = member.name.as_str();
    if member.optional {
        return quote! {
            if let ::std::option::Option::Some(value) = &self.#field {
                map.serialize_entry(#name, value)?;
            }
        };
    }
    quote!(map.serialize_entry(#name, &self.#field)?;)
}

fn writes(members: &[&Member]) -> TokenStream {
    members.iter().zip(naming::fields(members)).map(|(member, field)| write(member, &field)).collect()
}

/// Statements that read `members` into the variables that [`read_names`] gives.
pub(super) fn reads(members: &[&Member]) -> TokenStream {
    let statements = members.iter().zip(read_names(members)).map(|(member, variable)| {
        let name = member.name.as_str();
        let how = if member.optional { quote!(optional) } else { quote!(required) };
        quote!(let #variable = members.#how(#name)?;)
    });
    statements.collect()
}

/// The variables that members are read into: no member's name can hide the reader's own.
pub(super) fn read_names(members: &[&Member]) -> Vec<Ident> {
    naming::fields(members).iter().map(read_name).collect()
}

fn read_name(field: &Ident) -> Ident {
    format_ident!("read_{}", field.to_string().trim_start_matches("r#"))
}
