//! The tree of objects and their types: `object.json`.

use std::sync::Arc;

use rhea_api::object::{DevicePropertyInfo, Handler, ObjectPropertyInfo, ObjectTypeInfo};
use rhea_core::object::{ListedProperty, NodeId, PathError, PropertyError, PropertyInfo, Tree, TypeInfo};
use rhea_machine::{DeviceConfig, DeviceError, MachineError, objects::ObjectConfig, types};
use rhea_qmp::Error;
use serde_json::{Map, Value};

use super::{Commands, failed};

impl Commands<'_> {
    pub(crate) fn tree(&self) -> &Tree {
        self.machine().objects().tree()
    }

    pub(crate) fn node(&self, path: &str) -> Result<NodeId, Error> {
        self.tree().resolve(path).map_err(|error| match error {
            PathError::NotFound(path) => Error::device_not_found(&path),
            PathError::Ambiguous(_) => Error::generic(error),
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: PropertyError) -> Error {
    Error::generic(error)
}

/// Takes an argument that must be there.
fn word(arguments: &mut Map<String, Value>, name: &str) -> Result<String, Error> {
    match arguments.shift_remove(name) {
        Some(Value::String(text)) => Ok(text),
        None => Err(Error::generic(format!("Parameter '{name}' is missing"))),
        Some(_) => Err(Error::generic(format!("Invalid parameter type for '{name}', expected: string"))),
    }
}

fn find_type(name: &str) -> Result<&'static TypeInfo, Error> {
    types().get(name).ok_or_else(|| Error::device_not_found(name))
}

impl Handler for Commands<'_> {
    fn qom_list(&mut self, path: String) -> Result<Vec<ObjectPropertyInfo>, Error> {
        let node = self.node(&path)?;
        let list = self.tree().list(node).ok_or_else(|| Error::device_not_found(&path))?;
        Ok(list.into_iter().map(listed).collect())
    }

    fn qom_get(&mut self, path: String, property: String) -> Result<Value, Error> {
        let node = self.node(&path)?;
        self.tree().get(node, &property).map_err(refused)
    }

    fn qom_set(&mut self, path: String, property: String, value: Value) -> Result<(), Error> {
        let node = self.node(&path)?;
        self.tree().set(node, &property, &value).map_err(refused)
    }

    fn qom_list_types(
        &mut self,
        implements: Option<String>,
        r#abstract: Option<bool>,
    ) -> Result<Vec<ObjectTypeInfo>, Error> {
        let wanted = |info: &&'static TypeInfo| {
            (!info.is_abstract || r#abstract == Some(true))
                && implements.as_deref().is_none_or(|name| types().implements(info, name))
        };
        let row = |info: &TypeInfo| ObjectTypeInfo {
            name: info.name.to_owned(),
            r#abstract: info.is_abstract.then_some(true),
            parent: info.parent.map(str::to_owned),
        };
        Ok(types().all().filter(wanted).map(row).collect())
    }

    fn qom_list_properties(&mut self, typename: String) -> Result<Vec<ObjectPropertyInfo>, Error> {
        let info = find_type(&typename)?;
        Ok(types().properties(info).into_iter().map(|property| listed(ListedProperty::from(property))).collect())
    }

    fn object_add(&mut self, mut arguments: Map<String, Value>) -> Result<(), Error> {
        let (kind, id) = (word(&mut arguments, "qom-type")?, word(&mut arguments, "id")?);
        let mut properties = match arguments.shift_remove("props") {
            None => Map::new(),
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(Error::generic("Invalid parameter type for 'props', expected: object")),
        };
        for (name, value) in arguments {
            if properties.contains_key(&name) {
                return Err(Error::generic(format!("Parameter '{name}' is given twice")));
            }
            properties.insert(name, value);
        }
        let config = ObjectConfig { kind, id, properties: properties.into_iter().collect() };
        self.machine().objects().create(&config).map_err(Error::generic)?;
        Ok(())
    }

    fn object_del(&mut self, id: String) -> Result<(), Error> {
        self.machine().objects().delete(&id).map_err(Error::generic)
    }

    fn device_add(&mut self, mut arguments: Map<String, Value>) -> Result<(), Error> {
        let driver = word(&mut arguments, "driver")?;
        let id = if arguments.contains_key("id") { Some(word(&mut arguments, "id")?) } else { None };
        let config = DeviceConfig { driver, id, properties: arguments.into_iter().collect() };
        self.machine().device_add(config).map_err(failed)
    }

    fn device_del(&mut self, id: String) -> Result<(), Error> {
        let gone = self.machine().device_del(&id).map_err(|error| match error {
            MachineError::Device(DeviceError::NotFound(name)) => Error::device_not_found(&name),
            other => failed(other),
        })?;
        if let Some(node) = gone {
            let machine = Arc::clone(self.machine());
            self.after_answer(move || machine.finish_removal(node));
        }
        Ok(())
    }

    fn device_list_properties(&mut self, typename: String) -> Result<Vec<DevicePropertyInfo>, Error> {
        let info = find_type(&typename)?;
        if !types().implements(info, "device") {
            return Err(Error::generic("Parameter 'typename' expects a device type"));
        }
        if info.is_abstract {
            return Err(Error::generic("Parameter 'typename' expects a non-abstract device type"));
        }
        Ok(types().settable(info, "device").into_iter().map(device_property).collect())
    }
}

fn listed(property: ListedProperty) -> ObjectPropertyInfo {
    ObjectPropertyInfo {
        name: property.name,
        r#type: property.kind,
        description: property.description.map(str::to_owned),
        default_value: property.default,
    }
}

fn device_property(property: &PropertyInfo) -> DevicePropertyInfo {
    DevicePropertyInfo {
        name: property.name.to_owned(),
        r#type: property.kind.to_owned(),
        description: Some(property.description.to_owned()),
        default_value: property.default.map(|default| default()),
    }
}
