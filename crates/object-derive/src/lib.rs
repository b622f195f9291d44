//! `#[derive(Object)]`: makes a struct's type, parent, properties, defaults and descriptions known to the object model.
//!
//! On the struct: `#[object(type = "isa-serial", parent = "isa-device")]`, with `interfaces = ["user-creatable"]` where
//! it offers some, and `abstract` where it exists only for others to build on. On each field that is a property: `#[property]`, with any of
//! - `name = "x"`: where the field's name with dashes is not it
//! - `default = EXPRESSION`: what it holds unless set
//! - `live`: may be changed while the object is in use
//! - `write_only`: is taken at the start and never shown
//! - `read_only`: is shown and cannot be set
//!
//! Doc comments are the descriptions. The struct itself becomes an `Object` whose fields are read live; with the word
//! `settings` it becomes `Settings` instead: what an object is made from and keeps inside, all fields being properties.

use proc_macro::TokenStream;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Expr, ExprLit, Field, Fields, Ident, Lit, LitStr, Token, bracketed,
    parse_macro_input, punctuated::Punctuated, spanned::Spanned,
};

/// See the crate's documentation.
#[proc_macro_derive(Object, attributes(object, property))]
pub fn derive_object(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

#[derive(Default)]
struct TypeAttribute {
    name: Option<LitStr>,
    parent: Option<LitStr>,
    interfaces: Vec<LitStr>,
    is_abstract: bool,
    settings: bool,
}

impl TypeAttribute {
    fn read(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut read = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("object")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("type") {
                    read.name = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("parent") {
                    read.parent = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("interfaces") {
                    let list;
                    let value = meta.value()?;
                    bracketed!(list in value);
                    read.interfaces = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?.into_iter().collect();
                } else if meta.path.is_ident("abstract") {
                    read.is_abstract = true;
                } else if meta.path.is_ident("settings") {
                    read.settings = true;
                } else {
                    return Err(meta.error("there are type, parent, interfaces, abstract and settings"));
                }
                Ok(())
            })?;
        }
        Ok(read)
    }
}

struct Property<'a> {
    field: &'a Ident,
    kind: &'a syn::Type,
    name: String,
    default: Option<Expr>,
    access: Ident,
    description: String,
}

impl<'a> Property<'a> {
    fn read(field: &'a Field) -> syn::Result<Option<Self>> {
        let Some(attribute) = field.attrs.iter().find(|attribute| attribute.path().is_ident("property")) else {
            return Ok(None);
        };
        let Some(ident) = &field.ident else {
            return Err(syn::Error::new(field.span(), "a property is a field with a name"));
        };
        let mut property = Self {
            field: ident,
            kind: &field.ty,
            name: ident.to_string().trim_start_matches("r#").replace('_', "-"),
            default: None,
            access: Ident::new("Start", ident.span()),
            description: documentation(&field.attrs),
        };
        if !matches!(attribute.meta, syn::Meta::Path(_)) {
            attribute.parse_nested_meta(|meta| {
                let mut access = |word: &str| property.access = Ident::new(word, ident.span());
                if meta.path.is_ident("name") {
                    property.name = meta.value()?.parse::<LitStr>()?.value();
                } else if meta.path.is_ident("default") {
                    property.default = Some(meta.value()?.parse()?);
                } else if meta.path.is_ident("live") {
                    access("Live");
                } else if meta.path.is_ident("write_only") {
                    access("WriteOnly");
                } else if meta.path.is_ident("read_only") {
                    access("ReadOnly");
                } else {
                    return Err(meta.error("there are name, default, live, write_only and read_only"));
                }
                Ok(())
            })?;
        }
        Ok(Some(property))
    }

    /// The default as a value of the field's type.
    fn default_value(&self) -> proc_macro2::TokenStream {
        let kind = self.kind;
        match &self.default {
            None => quote!(<#kind as ::core::default::Default>::default()),
            Some(text @ Expr::Lit(ExprLit { lit: Lit::Str(_), .. })) => {
                quote!(<#kind as ::core::convert::From<&str>>::from(#text))
            }
            Some(expression) => quote!({ let value: #kind = #expression; value }),
        }
    }

    fn info(&self) -> proc_macro2::TokenStream {
        let Self { kind, name, access, description, .. } = self;
        let default = match &self.default {
            None => quote!(::core::option::Option::None),
            Some(_) => {
                let value = self.default_value();
                quote!(::core::option::Option::Some(|| ::rhea_core::object::PropertyKind::to_value(&#value)))
            }
        };
        quote! {
            ::rhea_core::object::PropertyInfo {
                default: #default,
                access: ::rhea_core::object::Access::#access,
                ..::rhea_core::object::PropertyInfo::of::<#kind>(#name, #description)
            }
        }
    }
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let TypeAttribute { name, parent, interfaces, is_abstract, settings } = TypeAttribute::read(&input.attrs)?;
    let missing = |what| syn::Error::new(input.ident.span(), format!("#[object({what} = \"...\")] is missing"));
    let name = name.ok_or_else(|| missing("type"))?;
    let parent = parent.ok_or_else(|| missing("parent"))?;
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new(input.span(), "an object is a struct"));
    };
    let fields: Vec<&Field> = match &data.fields {
        Fields::Named(fields) => fields.named.iter().collect(),
        Fields::Unit => Vec::new(),
        Fields::Unnamed(_) => return Err(syn::Error::new(input.span(), "the fields of an object have names")),
    };
    let properties =
        fields.iter().filter_map(|field| Property::read(field).transpose()).collect::<Result<Vec<_>, _>>()?;
    if settings && properties.len() != fields.len() {
        return Err(syn::Error::new(input.span(), "all fields of settings are properties"));
    }

    let ident = &input.ident;
    let description = documentation(&input.attrs);
    let infos = properties.iter().map(Property::info);
    let shown: Vec<&Property> = properties.iter().filter(|property| property.access != "WriteOnly").collect();
    let shown_names = shown.iter().map(|property| &property.name);
    let shown_fields = shown.iter().map(|property| property.field);
    let get = quote! {
        match name {
            #(#shown_names => ::core::option::Option::Some(
                ::rhea_core::object::PropertyKind::to_value(&self.#shown_fields)
            ),)*
            _ => ::core::option::Option::None,
        }
    };
    let implementation = if settings {
        let names = properties.iter().map(|property| &property.name);
        let assigned = properties.iter().map(|property| property.field);
        let all = properties.iter().map(|property| property.field);
        let defaults = properties.iter().map(Property::default_value);
        quote! {
            impl ::rhea_core::object::Settings for #ident {
                fn defaults() -> Self {
                    Self { #(#all: #defaults),* }
                }

                fn get(&self, name: &str) -> ::core::option::Option<::rhea_core::object::Value> {
                    #get
                }

                fn assign(
                    &mut self,
                    name: &str,
                    value: &::rhea_core::object::Value,
                ) -> ::core::result::Result<(), ::rhea_core::object::PropertyError> {
                    match name {
                        #(#names => {
                            self.#assigned = ::rhea_core::object::read_value(name, value)?;
                            ::core::result::Result::Ok(())
                        })*
                        _ => ::core::result::Result::Err(
                            <Self as ::rhea_core::object::Typed>::INFO.no_property(name)
                        ),
                    }
                }
            }
        }
    } else {
        quote! {
            impl ::rhea_core::object::Object for #ident {
                fn info(&self) -> &'static ::rhea_core::object::TypeInfo {
                    <Self as ::rhea_core::object::Typed>::INFO
                }

                fn get(&self, name: &str) -> ::core::option::Option<::rhea_core::object::Value> {
                    #get
                }
            }
        }
    };
    Ok(quote! {
        impl ::rhea_core::object::Typed for #ident {
            const INFO: &'static ::rhea_core::object::TypeInfo = &::rhea_core::object::TypeInfo {
                name: #name,
                description: #description,
                parent: ::core::option::Option::Some(#parent),
                is_abstract: #is_abstract,
                interfaces: &[#(#interfaces),*],
                properties: &[#(#infos),*],
            };
        }

        #implementation
    })
}

/// The doc comment as one line.
fn documentation(attributes: &[Attribute]) -> String {
    let lines =
        attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| match &attribute
            .meta
            .require_name_value()
            .ok()?
            .value
        {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        });
    let text = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.trim_end_matches('.').to_owned()
}
