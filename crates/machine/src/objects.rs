//! The objects of a machine: its tree with the places that managers know.

use std::{any::Any, sync::Arc};

use rhea_backends::object::{CREATABLE, CreateError};
use rhea_core::object::{DeviceState, NodeId, Object, Registry, Tree, TreeError, Value, is_well_formed_id};

fn downcast<T: Object>(object: Arc<dyn Object>) -> Option<Arc<T>> {
    (object as Arc<dyn Any + Send + Sync>).downcast().ok()
}

/// An object to be made with the machine or later.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectConfig {
    /// Its type.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Properties to set, in order.
    pub properties: Vec<(String, Value)>,
}

/// Why an object was not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A type that is not there, or of which nobody makes objects.
    #[error("Parameter 'qom-type' does not accept value '{0}'")]
    Type(String),
    /// An id that is none.
    #[error("Parameter 'id' expects an identifier")]
    Id,
    /// No object has this id.
    #[error("object '{0}' not found")]
    NotFound(String),
    /// The tree stays as it is.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The object cannot be.
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// The tree of a machine, and the places in it that have a meaning.
#[derive(Debug)]
pub struct Objects {
    tree: Tree,
    machine: NodeId,
    peripheral: NodeId,
    anonymous: NodeId,
    unattached: NodeId,
    user: NodeId,
    chardevs: NodeId,
}

impl Objects {
    /// The tree of a machine that has nothing yet, which tells of itself by `machine`.
    ///
    /// # Errors
    /// None: the names are all different.
    pub fn new(types: &'static Registry, machine: Arc<dyn Object>) -> Result<Self, TreeError> {
        let tree = Tree::new(types);
        let machine = tree.add(tree.root(), "machine", machine)?;
        let peripheral = tree.add_container(machine, "peripheral")?;
        let anonymous = tree.add_container(machine, "peripheral-anon")?;
        let unattached = tree.add_container(machine, "unattached")?;
        let user = tree.add_container(tree.root(), "objects")?;
        let chardevs = tree.add_container(tree.root(), "chardevs")?;
        tree.add_container(tree.root(), "backend")?;
        Ok(Self { tree, machine, peripheral, anonymous, unattached, user, chardevs })
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// `/machine`.
    pub fn machine(&self) -> NodeId {
        self.machine
    }

    /// `/objects`: what was made with object-add.
    pub fn user(&self) -> NodeId {
        self.user
    }

    /// `/chardevs`: the character backends.
    pub fn chardevs(&self) -> NodeId {
        self.chardevs
    }

    /// Adds a device that belongs to the board.
    ///
    /// # Errors
    /// None, as long as `/machine/unattached` is there.
    pub fn attach(&self, device: Arc<dyn Object>) -> Result<NodeId, TreeError> {
        let node = self.tree.add_numbered(self.unattached, device)?;
        self.tree.set_device(node, DeviceState::default());
        Ok(node)
    }

    /// Adds a part of the board as child `name` of another object.
    ///
    /// # Errors
    /// The name is taken.
    pub fn attach_to(&self, parent: NodeId, name: &str, device: Arc<dyn Object>) -> Result<NodeId, TreeError> {
        let node = self.tree.add(parent, name, device)?;
        self.tree.set_device(node, DeviceState::default());
        Ok(node)
    }

    /// Adds a device that somebody asked for: in `/machine/peripheral` by its id, or in `/machine/peripheral-anon`. It is
    /// in operation once the tree is told so.
    ///
    /// # Errors
    /// The id is taken.
    pub fn plug(&self, id: Option<&str>, device: Arc<dyn Object>) -> Result<NodeId, TreeError> {
        match id {
            Some(id) => self.tree.add(self.peripheral, id, device),
            None => self.tree.add_numbered(self.anonymous, device),
        }
    }

    /// The device `id` of `/machine/peripheral`.
    pub fn peripheral(&self, id: &str) -> Option<NodeId> {
        self.tree.child(self.peripheral, id)
    }

    /// The id by which somebody asked for a device; none for the board's own.
    pub fn device_id(&self, node: NodeId) -> Option<String> {
        self.tree.children(self.peripheral).into_iter().find(|(_, child)| *child == node).map(|(id, _)| id)
    }

    /// Makes an object of those that managers make, in `/objects`.
    ///
    /// # Errors
    /// The type cannot be made, the id is taken or none, or the object refuses a property. Then nothing was made.
    pub fn create(&self, config: &ObjectConfig) -> Result<NodeId, ObjectError> {
        let ObjectConfig { kind, id, properties } = config;
        let (_, create) =
            CREATABLE.iter().find(|(info, _)| info.name == kind).ok_or_else(|| ObjectError::Type(kind.clone()))?;
        if !is_well_formed_id(id) {
            return Err(ObjectError::Id);
        }
        if self.tree.child(self.user, id).is_some() {
            return Err(TreeError::Duplicate { name: id.clone(), parent: "container" }.into());
        }
        Ok(self.tree.add(self.user, id, create(id, properties)?)?)
    }

    /// Removes an object that nobody uses.
    ///
    /// # Errors
    /// It is not there, or in use.
    pub fn delete(&self, id: &str) -> Result<(), ObjectError> {
        let node = self.tree.child(self.user, id).ok_or_else(|| ObjectError::NotFound(id.to_owned()))?;
        self.tree.remove(node)?;
        Ok(())
    }

    /// The object `id` of `/objects`, if it is a `T`, and where it is.
    pub fn find<T: Object>(&self, id: &str) -> Option<(NodeId, Arc<T>)> {
        let node = self.tree.child(self.user, id)?;
        Some((node, downcast(self.tree.object(node)?)?))
    }

    /// All objects of `/objects` that are a `T`, with their ids.
    pub fn all<T: Object>(&self) -> Vec<(String, Arc<T>)> {
        let children = self.tree.children(self.user).into_iter();
        children.filter_map(|(id, node)| Some((id, downcast(self.tree.object(node)?)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use rhea_backends::object::{IoThread, MemoryBackend};
    use serde_json::json;

    use super::*;
    use crate::{BoardKind, Config, backends::Backends, board::none, machine::Machine, types::types};

    fn config() -> Config {
        Config { start_stopped: true, ..Config::new(BoardKind::None, 0) }
    }

    fn objects() -> Objects {
        Objects::new(types(), none::object()).unwrap()
    }

    fn wanted(kind: &str, id: &str, properties: &[(&str, Value)]) -> ObjectConfig {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        ObjectConfig { kind: kind.to_owned(), id: id.to_owned(), properties }
    }

    #[test]
    fn a_used_object_stays_and_a_removed_one_gives_its_thread_back() {
        let objects = objects();
        let node = objects.create(&wanted("iothread", "io0", &[])).unwrap();
        let thread = format!("/proc/self/task/{}", objects.find::<IoThread>("io0").unwrap().1.host_thread());
        assert!(std::path::Path::new(&thread).exists());
        assert!(objects.find::<MemoryBackend>("io0").is_none());
        objects.tree().link(objects.machine(), "user", "iothread", Some(node)).unwrap();
        assert_eq!(objects.delete("io0").unwrap_err().to_string(), "object 'io0' is in use, can not be deleted");
        assert_eq!(objects.all::<IoThread>().len(), 1);
        objects.tree().link(objects.machine(), "user", "iothread", None).unwrap();
        objects.delete("io0").unwrap();
        // The kernel takes a moment to forget a thread that was joined.
        let gone = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            !std::path::Path::new(&thread).exists()
        });
        assert!(gone);
        assert_eq!(objects.delete("io0").unwrap_err().to_string(), "object 'io0' not found");
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let objects = objects();
        objects.create(&wanted("rng-builtin", "r0", &[])).unwrap();
        for (bad, reason) in [
            (wanted("rng-builtin", "r0", &[]), "attempt to add duplicate property 'r0' to object (type 'container')"),
            (wanted("rng-builtin", "0r", &[]), "Parameter 'id' expects an identifier"),
            (wanted("device", "d", &[]), "Parameter 'qom-type' does not accept value 'device'"),
            (wanted("iothread", "i", &[("wings", json!(2))]), "Property 'iothread.wings' not found"),
            (wanted("iothread", "i", &[("type", json!("x"))]), "Property 'iothread.type' not found"),
            (
                wanted("rng-random", "r", &[("filename", json!("/nowhere"))]),
                "Could not open '/nowhere': No such file or directory",
            ),
        ] {
            assert_eq!(objects.create(&bad).unwrap_err().to_string(), reason);
        }
        assert_eq!(objects.tree().children(objects.user()).len(), 1);
    }

    #[test]
    fn everything_that_can_be_made_is_a_type_and_offers_to_be_made() {
        for (info, _) in CREATABLE {
            assert!(types().get(info.name).is_some_and(|known| !known.is_abstract), "{}", info.name);
            assert!(types().implements(info, "user-creatable"), "{}", info.name);
        }
    }

    #[test]
    fn a_thousand_rounds_leave_no_thread_descriptor_or_object_behind() {
        let objects = objects();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let threads = || {
            let names = std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
            names.filter(|name| name.starts_with("IO round")).count()
        };
        let before = open();
        for _ in 0..1000 {
            for (kind, properties) in [
                ("iothread", vec![]),
                ("rng-random", vec![]),
                ("memory-backend-ram", vec![("size", json!(1_u64 << 40)), ("reserve", json!(false))]),
                ("memory-backend-memfd", vec![("size", json!(1_u64 << 30))]),
                ("memory-backend-file", vec![("size", json!(1_u64 << 20)), ("mem-path", json!("/tmp"))]),
                ("secret", vec![("data", json!("x"))]),
            ] {
                objects.create(&wanted(kind, "round", &properties)).unwrap();
                objects.delete("round").unwrap();
            }
        }
        assert_eq!(objects.tree().children(objects.user()).len(), 0);
        // Other tests of this process open files too.
        assert!(open() < before + 100, "{} descriptors, {before} before", open());
        let gone = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            threads() == 0
        });
        assert!(gone, "{} threads", threads());
    }

    #[test]
    fn every_property_that_an_object_lists_can_be_read_and_looking_changes_nothing() {
        let config = Config { board: BoardKind::Pc, ram: 64 << 20, ..config() };
        let machine = Machine::new(config, Backends::new().unwrap(), Arc::new(|_| ())).unwrap();
        let tree = machine.objects().tree();
        let look = || {
            let (mut seen, mut rest) = (Vec::new(), vec![tree.root()]);
            while let Some(node) = rest.pop() {
                for property in tree.list(node).unwrap() {
                    let value = tree.get(node, &property.name);
                    assert!(value.is_ok(), "{} of {}: {value:?}", property.name, tree.path(node));
                    seen.push((tree.path(node), property.name, value));
                }
                rest.extend(tree.children(node).into_iter().map(|(_, child)| child));
            }
            seen
        };
        let before = look();
        for info in types().all() {
            assert!(types().chain(info).count() > 0 && types().implements(info, "object"), "{}", info.name);
            for property in types().properties(info) {
                let _ = property.default.map(|default| default());
            }
        }
        assert_eq!(look(), before);
        assert!(before.len() > 100);
        // The processors' threads end when the machine does.
        machine.processors().quit();
    }
}
