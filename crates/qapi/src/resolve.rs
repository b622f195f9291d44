//! Rules between definitions: types exist, bases end, unions decide, alternates can be told apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::fault::Fault;
use crate::loader::Pragmas;
use crate::names;
use crate::schema::{
    Alternate, Arguments, Branch, Builtin, Command, Condition, Definition, Feature, Item, Kind, Member, Module, Schema,
    TypeRef, Union, UnionBase,
};
use crate::source::Position;

/// Checks a schema whose definitions are each well formed.
pub(crate) fn check(schema: &Schema, pragmas: &Pragmas, faults: &mut Vec<Fault>) {
    let resolver = Resolver { schema, pragmas };
    for definition in schema.definitions().filter(|definition| !definition.implicit) {
        let before = faults.len();
        resolver.types_exist(definition, faults);
        // What follows assumes that named types exist and bases end.
        if faults.len() == before && !resolver.endless_base(definition, faults) {
            resolver.definition(definition, faults);
        }
    }
    for name in pragmas.command_returns.iter().chain(&pragmas.command_names).chain(&pragmas.documentation) {
        // A name that is not here is harmless: lists are shared between schemas. One of the wrong case is not.
        if let Some(near) = schema.definitions().find(|near| near.name != *name && near.name.eq_ignore_ascii_case(name))
            && schema.get(name).is_none()
        {
            faults
                .push(Fault::at(&near.position, format!("a pragma names '{name}', which is written '{}'", near.name)));
        }
    }
}

struct Resolver<'a> {
    schema: &'a Schema,
    pragmas: &'a Pragmas,
}

impl Resolver<'_> {
    fn kind(&self, name: &str) -> Option<&Kind> {
        self.schema.get(name).map(|definition| &definition.kind)
    }

    fn type_exists(&self, kind: &TypeRef, position: &Position, faults: &mut Vec<Fault>) {
        let TypeRef::Named(name) = kind.element() else { return };
        match self.kind(name) {
            Some(Kind::Command(_) | Kind::Event(_)) => {
                faults.push(Fault::at(position, format!("'{name}' is no type")));
            }
            Some(_) => {}
            None => {
                let fault = Fault::at(position, format!("there is no type '{name}'"));
                let near = self.schema.definitions().find(|near| {
                    near.name.eq_ignore_ascii_case(name) && !matches!(near.kind, Kind::Command(_) | Kind::Event(_))
                });
                faults.push(match near {
                    Some(near) => fault.hint(format!("did you mean '{}'?", near.name)),
                    None => fault.hint("define it, or include the file that does"),
                });
            }
        }
    }

    fn types_exist(&self, definition: &Definition, faults: &mut Vec<Fault>) {
        let members = |members: &[Member], faults: &mut Vec<Fault>| {
            for member in members {
                self.type_exists(&member.kind, &member.position, faults);
            }
        };
        let base_exists = |name: &str, faults: &mut Vec<Fault>| {
            let kind = Builtin::named(name).map_or_else(|| TypeRef::Named(name.to_owned()), TypeRef::Builtin);
            self.type_exists(&kind, definition.place("base"), faults);
        };
        match &definition.kind {
            Kind::Enum(_) => {}
            Kind::Struct(structure) => {
                if let Some(base) = &structure.base {
                    base_exists(base, faults);
                }
                members(&structure.members, faults);
            }
            Kind::Union(union) => {
                match &union.base {
                    UnionBase::Named(name) => base_exists(name, faults),
                    UnionBase::Inline(inline) => members(inline, faults),
                }
                for branch in &union.branches {
                    self.type_exists(&branch.kind, &branch.position, faults);
                }
            }
            Kind::Alternate(alternate) => {
                for branch in &alternate.branches {
                    self.type_exists(&branch.kind, &branch.position, faults);
                }
            }
            Kind::Command(command) => {
                self.arguments_exist(&command.arguments, definition.place("data"), faults);
                if let Some(returns) = &command.returns {
                    self.type_exists(returns, definition.place("returns"), faults);
                }
            }
            Kind::Event(event) => self.arguments_exist(&event.arguments, definition.place("data"), faults),
        }
    }

    fn arguments_exist(&self, arguments: &Arguments, position: &Position, faults: &mut Vec<Fault>) {
        match arguments {
            Arguments::None => {}
            Arguments::Inline(members) => {
                for member in members {
                    self.type_exists(&member.kind, &member.position, faults);
                }
            }
            Arguments::Named { name, boxed } => match (self.kind(name), boxed) {
                (Some(Kind::Struct(_)), _) | (Some(Kind::Union(_)), true) => {}
                (Some(Kind::Union(_)), false) => faults
                    .push(Fault::at(position, format!("the data is the union '{name}'")).hint("add 'boxed': true")),
                (None, _) if Builtin::named(name).is_none() => {
                    self.type_exists(&TypeRef::Named(name.clone()), position, faults);
                }
                _ => faults.push(Fault::at(position, format!("the data is '{name}', which is no struct"))),
            },
        }
    }

    /// Whether following bases from `definition` comes back to one already seen.
    fn endless_base(&self, definition: &Definition, faults: &mut Vec<Fault>) -> bool {
        let mut seen = BTreeSet::new();
        let mut current = definition;
        loop {
            if !seen.insert(current.name.as_str()) {
                faults.push(Fault::at(definition.place("base"), format!("'{}' is its own base", current.name)));
                return true;
            }
            let base = match &current.kind {
                Kind::Struct(structure) => structure.base.as_deref(),
                Kind::Union(Union { base: UnionBase::Named(name), .. }) => Some(name.as_str()),
                _ => None,
            };
            match base.and_then(|base| self.schema.get(base)) {
                Some(base) => current = base,
                None => return false,
            }
        }
    }

    fn definition(&self, definition: &Definition, faults: &mut Vec<Fault>) {
        if !matches!(definition.kind, Kind::Command(_) | Kind::Event(_)) {
            for feature in definition.features.iter().filter(|feature| is_warning(&feature.name)) {
                let message = format!("the feature '{}' of a type", feature.name);
                faults.push(Fault::at(&feature.position, message).hint("put it on the commands, events and members"));
            }
        }
        match &definition.kind {
            Kind::Enum(_) => {}
            Kind::Struct(structure) => {
                if let Some(base) = &structure.base
                    && !matches!(self.kind(base), Some(Kind::Struct(_)))
                {
                    faults.push(Fault::at(definition.place("base"), format!("the base '{base}' is no struct")));
                    return;
                }
                let inherited = structure.base.as_deref().map(|base| self.schema.members_of(base)).unwrap_or_default();
                for member in &structure.members {
                    clash(&inherited, member, "a member of the base", faults);
                }
            }
            Kind::Union(union) => self.union(definition, union, faults),
            Kind::Alternate(alternate) => self.alternate(alternate, faults),
            Kind::Command(command) => self.command(definition, command, faults),
            Kind::Event(_) => {}
        }
    }

    fn union(&self, definition: &Definition, union: &Union, faults: &mut Vec<Fault>) {
        let position = definition.place("discriminator");
        if union.simple {
            return;
        }
        if let UnionBase::Named(name) = &union.base
            && !matches!(self.kind(name), Some(Kind::Struct(_)))
        {
            faults.push(Fault::at(definition.place("base"), format!("the base '{name}' is no struct")));
            return;
        }
        let base = self.schema.base_members(union);
        let Some(member) = base.iter().find(|member| member.name == union.discriminator) else {
            faults.push(
                Fault::at(position, format!("the discriminator '{}' is no member of the base", union.discriminator))
                    .hint("its members are always there, and one of them decides"),
            );
            return;
        };
        let enumeration = match &member.kind {
            TypeRef::Named(name) => self.schema.enumeration(name).map(|enumeration| (name, enumeration)),
            _ => None,
        };
        let Some((enum_name, enumeration)) = enumeration else {
            faults.push(Fault::at(position, format!("the discriminator '{}' is no enum", union.discriminator)));
            return;
        };
        if member.optional {
            faults.push(Fault::at(position, format!("the discriminator '{}' is optional", union.discriminator)));
        }
        if member.condition.is_some() {
            faults.push(Fault::at(position, format!("the discriminator '{}' has a condition", union.discriminator)));
        }
        for branch in &union.branches {
            if !enumeration.members.iter().any(|value| value.name == branch.name) {
                let values: Vec<&str> = enumeration.members.iter().map(|value| value.name.as_str()).collect();
                faults.push(
                    Fault::at(&branch.position, format!("the branch '{}' is no value of '{enum_name}'", branch.name))
                        .hint(format!("its values are {}", values.join(", "))),
                );
            }
            match &branch.kind {
                TypeRef::Named(name) if matches!(self.kind(name), Some(Kind::Struct(_) | Kind::Union(_))) => {
                    for member in self.schema.members_of(name) {
                        if let Some(first) = base.iter().find(|first| alike(first, member)) {
                            faults.push(Fault::at(
                                &branch.position,
                                format!("the member '{}' of '{name}' clashes with '{}'", member.name, first.name),
                            ));
                        }
                    }
                }
                other => faults.push(
                    Fault::at(
                        &branch.position,
                        format!("the branch '{}' is '{other}', which is no struct", branch.name),
                    )
                    .hint("a branch brings members: name a struct"),
                ),
            }
        }
        if self.pragmas.first_form {
            for value in &enumeration.members {
                if !union.branches.iter().any(|branch| branch.name == value.name) {
                    faults.push(
                        Fault::at(
                            position,
                            format!("the union '{}' lacks the branch '{}'", definition.name, value.name),
                        )
                        .hint("name a struct without members if the value brings none"),
                    );
                }
            }
        }
    }

    fn alternate(&self, alternate: &Alternate, faults: &mut Vec<Fault>) {
        let mut taken: BTreeMap<&'static str, &Branch> = BTreeMap::new();
        for branch in &alternate.branches {
            let mut conflicts = Vec::new();
            let json = match &branch.kind {
                TypeRef::Array(_) => "array",
                TypeRef::Builtin(Builtin::Any) => {
                    faults.push(
                        Fault::at(&branch.position, "'any' in an alternate").hint("nothing could be told from it"),
                    );
                    continue;
                }
                TypeRef::Builtin(builtin) => match builtin.json_type() {
                    "int" => "number",
                    other => other,
                },
                TypeRef::Named(name) => match self.kind(name) {
                    Some(Kind::Enum(enumeration)) => {
                        // On a command line, these words would read as the other type.
                        if enumeration.members.iter().any(|member| matches!(member.name.as_str(), "on" | "off")) {
                            conflicts.push("boolean");
                        }
                        if enumeration
                            .members
                            .iter()
                            .any(|member| member.name.starts_with(|c: char| c.is_ascii_digit()))
                        {
                            conflicts.push("number");
                        }
                        "string"
                    }
                    Some(Kind::Alternate(_)) => {
                        let message = format!("the alternate '{name}' in an alternate");
                        faults.push(Fault::at(&branch.position, message).hint("name its branches here"));
                        continue;
                    }
                    _ => "object",
                },
            };
            if branch.kind == TypeRef::Builtin(Builtin::Str) {
                conflicts.extend(["number", "boolean"]);
            }
            conflicts.push(json);
            if let Some(first) = conflicts.iter().find_map(|json| taken.get(json)) {
                faults.push(Fault::at(
                    &branch.position,
                    format!("the branch '{}' can't be told from '{}'", branch.name, first.name),
                ));
            }
            for json in conflicts {
                taken.entry(json).or_insert(branch);
            }
        }
    }

    fn command(&self, definition: &Definition, command: &Command, faults: &mut Vec<Fault>) {
        let Some(returns) = &command.returns else { return };
        if self.pragmas.command_returns.contains(&definition.name) {
            return;
        }
        let object = matches!(
            returns.element(),
            TypeRef::Named(name) if matches!(self.kind(name), Some(Kind::Struct(_) | Kind::Union(_)))
        );
        if !object {
            faults.push(
                Fault::at(
                    definition.place("returns"),
                    format!("the command '{}' returns '{returns}', which can't grow", definition.name),
                )
                .hint("return a struct or a list of them, or list it in the pragma command-returns-exceptions"),
            );
        }
    }
}

/// Whether a feature warns of its owner, which only what stands in messages itself can.
fn is_warning(feature: &str) -> bool {
    matches!(feature, "deprecated" | "unstable")
}

fn alike(one: &Member, other: &Member) -> bool {
    names::plain(&one.name) == names::plain(&other.name)
}

fn clash(members: &[&Member], member: &Member, what: &str, faults: &mut Vec<Fault>) {
    if let Some(first) = members.iter().find(|first| alike(first, member)) {
        faults.push(Fault::at(
            &member.position,
            format!("the member '{}' clashes with '{}', {what}", member.name, first.name),
        ));
    }
}

impl Schema {
    /// The schema as it is where exactly `symbols` are defined: whatever has a condition that does not hold is gone.
    pub fn configured(&self, symbols: &BTreeSet<String>) -> Result<Self, Vec<Fault>> {
        let here = |condition: &Option<Condition>| condition.as_ref().is_none_or(|condition| condition.holds(symbols));
        let features = |features: &mut Vec<Feature>| features.retain(|feature| here(&feature.condition));
        let members = |members: &mut Vec<Member>| {
            members.retain(|member| here(&member.condition));
            for member in members {
                features(&mut member.features);
            }
        };
        let arguments = |arguments: &mut Arguments| {
            if let Arguments::Inline(inline) = arguments {
                members(inline);
            }
        };
        let mut kept = Vec::new();
        for definition in self.definitions().filter(|definition| here(&definition.condition)) {
            let mut definition = definition.clone();
            features(&mut definition.features);
            match &mut definition.kind {
                Kind::Enum(enumeration) => {
                    enumeration.members.retain(|member| here(&member.condition));
                    for member in &mut enumeration.members {
                        features(&mut member.features);
                    }
                }
                Kind::Struct(structure) => members(&mut structure.members),
                Kind::Union(union) => {
                    if let UnionBase::Inline(inline) = &mut union.base {
                        members(inline);
                    }
                    union.branches.retain(|branch| here(&branch.condition));
                }
                Kind::Alternate(alternate) => alternate.branches.retain(|branch| here(&branch.condition)),
                Kind::Command(command) => arguments(&mut command.arguments),
                Kind::Event(event) => arguments(&mut event.arguments),
            }
            kept.push(definition);
        }
        let index = kept.iter().enumerate().map(|(at, definition)| (definition.name.clone(), at)).collect();
        let schema = Self { modules: self.modules.clone(), definitions: kept, index };
        schema.without_missing()
    }

    /// The schema with its item lists cut to what is defined, or what now lacks its type.
    fn without_missing(mut self) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let pragmas = Pragmas::default();
        let resolver = Resolver { schema: &self, pragmas: &pragmas };
        for definition in self.definitions() {
            let before = faults.len();
            resolver.types_exist(definition, &mut faults);
            if let (Kind::Union(union), true) = (&definition.kind, faults.len() == before) {
                resolver.union(definition, union, &mut faults);
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let defined: BTreeSet<&str> = self.definitions.iter().map(|definition| definition.name.as_str()).collect();
        let keep = |module: &Module| -> Vec<Item> {
            let stays = |item: &&Item| match item {
                Item::Definition(name) => defined.contains(name.as_str()),
                _ => true,
            };
            module.items.iter().filter(stays).cloned().collect()
        };
        let items: Vec<Vec<Item>> = self.modules.iter().map(keep).collect();
        for (module, items) in self.modules.iter_mut().zip(items) {
            module.items = items;
        }
        Ok(self)
    }
}
