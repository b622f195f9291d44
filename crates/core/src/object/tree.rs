//! The tree of objects: who is below whom, who refers to whom, and how paths lead there.
//!
//! An absolute path starts with a slash at the root. Any other is partial: it may start at every object, and must lead
//! to one object only. Each part of a path is the name of a child or of a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::RwLock;
use serde_json::Value;

use super::{Access, Object, PropertyError, PropertyInfo, Registry, TypeInfo, types::CONTAINER};

/// Where an object is in its tree. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// What a machine knows of a device beyond what the device itself does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// Whether its kind can come and go while the machine runs.
    pub hotpluggable: bool,
    /// Whether it came while the machine ran.
    pub hotplugged: bool,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No object has it.
    #[error("Device '{0}' not found")]
    NotFound(String),
    /// It is partial, and fits several objects.
    #[error("Path '{0}' is ambiguous")]
    Ambiguous(String),
}

/// Why the tree stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The name is taken.
    #[error("attempt to add duplicate property '{name}' to object (type '{parent}')")]
    Duplicate {
        /// The name.
        name: String,
        /// Type of the object that has it already.
        parent: &'static str,
    },
    /// Somebody refers to the object.
    #[error("object '{0}' is in use, can not be deleted")]
    InUse(String),
    /// The object is not there any more.
    #[error("the object is gone")]
    Gone,
}

/// A property as it is listed of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedProperty {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: String,
    /// What it is for, where that is known.
    pub description: Option<&'static str>,
    /// What it holds unless set, where that is known.
    pub default: Option<Value>,
}

impl From<&PropertyInfo> for ListedProperty {
    fn from(property: &PropertyInfo) -> Self {
        Self {
            name: property.name.to_owned(),
            kind: property.kind.to_owned(),
            description: Some(property.description),
            default: property.default.map(|default| default()),
        }
    }
}

struct Link {
    name: String,
    kind: &'static str,
    target: Option<NodeId>,
}

struct Node {
    name: String,
    parent: Option<NodeId>,
    object: Arc<dyn Object>,
    device: Option<DeviceState>,
    children: Vec<NodeId>,
    links: Vec<Link>,
}

struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    next: u64,
}

/// The root and other objects that only hold others.
struct Container;

impl Object for Container {
    fn info(&self) -> &'static TypeInfo {
        CONTAINER
    }

    fn get(&self, _: &str) -> Option<Value> {
        None
    }
}

const ROOT: NodeId = NodeId(0);

/// The tree.
pub struct Tree {
    types: &'static Registry,
    nodes: RwLock<Nodes>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree({} objects)", self.nodes.read().nodes.len())
    }
}

impl Tree {
    /// A tree with nothing but its root, for objects of `types`.
    pub fn new(types: &'static Registry) -> Self {
        let root = Node {
            name: String::new(),
            parent: None,
            object: Arc::new(Container),
            device: None,
            children: Vec::new(),
            links: Vec::new(),
        };
        Self { types, nodes: RwLock::new(Nodes { nodes: BTreeMap::from([(ROOT, root)]), next: 1 }) }
    }

    /// The types that objects have.
    pub fn types(&self) -> &'static Registry {
        self.types
    }

    /// The object that all others are below.
    pub const fn root(&self) -> NodeId {
        ROOT
    }

    /// Puts `object` below `parent` as `name`.
    ///
    /// # Errors
    /// The name is taken, or the parent gone.
    pub fn add(&self, parent: NodeId, name: &str, object: Arc<dyn Object>) -> Result<NodeId, TreeError> {
        self.nodes.write().add(self.types, parent, name.to_owned(), object)
    }

    /// Puts an object below `parent` that only holds others.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn add_container(&self, parent: NodeId, name: &str) -> Result<NodeId, TreeError> {
        self.add(parent, name, Arc::new(Container))
    }

    /// Puts a device below `parent` as `device[N]`, with the first number that is free.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn add_numbered(&self, parent: NodeId, object: Arc<dyn Object>) -> Result<NodeId, TreeError> {
        let mut nodes = self.nodes.write();
        let taken: BTreeSet<&str> = nodes.names(parent).ok_or(TreeError::Gone)?;
        let name = (0..=taken.len()).map(|number| format!("device[{number}]")).find(|name| !taken.contains(&**name));
        nodes.add(self.types, parent, name.ok_or(TreeError::Gone)?, object)
    }

    /// Says that the object is a device in operation.
    pub fn set_device(&self, node: NodeId, state: DeviceState) {
        if let Some(node) = self.nodes.write().nodes.get_mut(&node) {
            node.device = Some(state);
        }
    }

    /// Makes `name` of `from` refer to `target`, an object of type `kind` or one that builds on it; whoever is referred
    /// to is in use.
    ///
    /// # Errors
    /// The name is taken by something else, or one of the two is gone.
    pub fn link(&self, from: NodeId, name: &str, kind: &'static str, target: Option<NodeId>) -> Result<(), TreeError> {
        let mut nodes = self.nodes.write();
        if target.is_some_and(|target| !nodes.nodes.contains_key(&target)) {
            return Err(TreeError::Gone);
        }
        let known = nodes.nodes.get(&from).ok_or(TreeError::Gone)?.links.iter().position(|link| link.name == name);
        if known.is_none() {
            nodes.check_free_for_link(self.types, from, name)?;
        }
        let links = &mut nodes.nodes.get_mut(&from).ok_or(TreeError::Gone)?.links;
        match known.and_then(|at| links.get_mut(at)) {
            Some(link) => link.target = target,
            None => links.push(Link { name: name.to_owned(), kind, target }),
        }
        Ok(())
    }

    /// Whether a link of another object leads to this one.
    pub fn is_linked(&self, node: NodeId) -> bool {
        let nodes = self.nodes.read();
        nodes.nodes.values().any(|other| other.links.iter().any(|link| link.target == Some(node)))
    }

    /// Takes an object, and all below it, out of the tree.
    ///
    /// # Errors
    /// Somebody outside refers to one of them, or uses one.
    pub fn remove(&self, node: NodeId) -> Result<Arc<dyn Object>, TreeError> {
        let mut nodes = self.nodes.write();
        let below = nodes.below(node);
        let top = nodes.nodes.get(&node).ok_or(TreeError::Gone)?;
        let used =
            nodes.nodes.iter().filter(|(id, _)| !below.contains(id)).any(|(_, other)| {
                other.links.iter().any(|link| link.target.is_some_and(|target| below.contains(&target)))
            });
        let held = below.iter().filter_map(|id| nodes.nodes.get(id)).any(|below| below.object.in_use());
        if used || held {
            return Err(TreeError::InUse(top.name.clone()));
        }
        let (object, parent) = (Arc::clone(&top.object), top.parent);
        if let Some(parent) = parent.and_then(|parent| nodes.nodes.get_mut(&parent)) {
            parent.children.retain(|child| *child != node);
        }
        nodes.nodes.retain(|id, _| !below.contains(id));
        Ok(object)
    }

    /// All objects with their names, in the order in which they came.
    pub fn all(&self) -> Vec<(NodeId, String, Arc<dyn Object>)> {
        let nodes = self.nodes.read();
        nodes.nodes.iter().map(|(id, node)| (*id, node.name.clone(), Arc::clone(&node.object))).collect()
    }

    /// The object itself.
    pub fn object(&self, node: NodeId) -> Option<Arc<dyn Object>> {
        self.nodes.read().nodes.get(&node).map(|node| Arc::clone(&node.object))
    }

    /// What the machine knows of a device.
    pub fn device(&self, node: NodeId) -> Option<DeviceState> {
        self.nodes.read().nodes.get(&node)?.device
    }

    /// The child `name` of `parent`.
    pub fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        self.nodes.read().child(parent, name)
    }

    /// The objects right below `parent`, by name, in the order in which they came.
    pub fn children(&self, parent: NodeId) -> Vec<(String, NodeId)> {
        let nodes = self.nodes.read();
        let children = nodes.nodes.get(&parent).map(|node| node.children.as_slice()).unwrap_or_default();
        children.iter().filter_map(|id| Some((nodes.nodes.get(id)?.name.clone(), *id))).collect()
    }

    /// The absolute path of an object.
    pub fn path(&self, node: NodeId) -> String {
        self.nodes.read().path(node)
    }

    /// Where `path` leads.
    ///
    /// # Errors
    /// Nowhere, or to several objects.
    pub fn resolve(&self, path: &str) -> Result<NodeId, PathError> {
        let nodes = self.nodes.read();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if path.starts_with('/') {
            return nodes.walk(ROOT, &parts).ok_or_else(|| PathError::NotFound(path.to_owned()));
        }
        let mut found = None;
        for &start in nodes.nodes.keys() {
            match (nodes.walk(start, &parts), found) {
                (Some(node), Some(other)) if node != other => return Err(PathError::Ambiguous(path.to_owned())),
                (Some(node), _) => found = Some(node),
                (None, _) => {}
            }
        }
        found.ok_or_else(|| PathError::NotFound(path.to_owned()))
    }

    /// The properties of an object: of its types, then children and links.
    pub fn list(&self, node: NodeId) -> Option<Vec<ListedProperty>> {
        let nodes = self.nodes.read();
        let node = nodes.nodes.get(&node)?;
        let own = self.types.properties(node.object.info()).into_iter().map(ListedProperty::from);
        let plain =
            |name: &str, kind: String| ListedProperty { name: name.to_owned(), kind, description: None, default: None };
        let children = node.children.iter().filter_map(|child| {
            let child = nodes.nodes.get(child)?;
            Some(plain(&child.name, format!("child<{}>", child.object.info().name)))
        });
        let info = node.object.info();
        let links = node.links.iter().filter(|link| self.types.property(info, &link.name).is_none());
        let links = links.map(|link| plain(&link.name, format!("link<{}>", link.kind)));
        Some(own.chain(children).chain(links).collect())
    }

    /// What a property of an object holds now. Children and links are paths, links to nothing an empty one.
    ///
    /// # Errors
    /// There is no such property, or it is never shown.
    pub fn get(&self, node: NodeId, name: &str) -> Result<Value, PropertyError> {
        let gone = || PropertyError::NotFound { object: "object".to_owned(), name: name.to_owned() };
        let (object, device) = {
            let nodes = self.nodes.read();
            if let Some(child) = nodes.child(node, name) {
                return Ok(Value::String(nodes.path(child)));
            }
            let node = nodes.nodes.get(&node).ok_or_else(gone)?;
            if let Some(link) = node.links.iter().find(|link| link.name == name) {
                return Ok(Value::String(link.target.map_or_else(String::new, |target| nodes.path(target))));
            }
            (Arc::clone(&node.object), node.device)
        };
        // The object may take locks of its own to answer: ours is let go.
        let info = object.info();
        let property = self.types.property(info, name).ok_or_else(|| info.no_property(name))?;
        if property.access == Access::WriteOnly {
            return Err(PropertyError::NotReadable { object: info.name, name: name.to_owned() });
        }
        let state = device.unwrap_or_default();
        match name {
            "type" => Ok(Value::from(info.name)),
            "realized" if self.types.implements(info, "device") => Ok(Value::Bool(device.is_some())),
            "hotpluggable" if self.types.implements(info, "device") => Ok(Value::Bool(state.hotpluggable)),
            "hotplugged" if self.types.implements(info, "device") => Ok(Value::Bool(state.hotplugged)),
            _ => object.get(name).ok_or_else(|| info.no_property(name)),
        }
    }

    /// Changes a property of an object.
    ///
    /// # Errors
    /// There is no such property, it cannot be changed now, or it refuses the value.
    pub fn set(&self, node: NodeId, name: &str, value: &Value) -> Result<(), PropertyError> {
        let object = {
            let nodes = self.nodes.read();
            let found = nodes.nodes.get(&node);
            let Some(found) = found else {
                return Err(PropertyError::NotFound { object: "object".to_owned(), name: name.to_owned() });
            };
            if nodes.child(node, name).is_some() || found.links.iter().any(|link| link.name == name) {
                return Err(found.object.info().not_writable(name));
            }
            Arc::clone(&found.object)
        };
        let info = object.info();
        let property = self.types.property(info, name).ok_or_else(|| info.no_property(name))?;
        if property.access != Access::Live {
            return Err(info.not_writable(name));
        }
        object.set(name, value)
    }
}

impl Nodes {
    fn names(&self, parent: NodeId) -> Option<BTreeSet<&str>> {
        let node = self.nodes.get(&parent)?;
        let children = node.children.iter().filter_map(|child| Some(self.nodes.get(child)?.name.as_str()));
        Some(children.chain(node.links.iter().map(|link| link.name.as_str())).collect())
    }

    /// Whether `name` is free for a child or link of `parent`.
    fn check_free(&self, types: &Registry, parent: NodeId, name: &str) -> Result<(), TreeError> {
        let info = self.nodes.get(&parent).ok_or(TreeError::Gone)?.object.info();
        let taken = self.names(parent).is_some_and(|names| names.contains(name));
        if taken || types.property(info, name).is_some() {
            return Err(TreeError::Duplicate { name: name.to_owned(), parent: info.name });
        }
        Ok(())
    }

    /// Whether `name` is free for a link of `parent`: one that a property of its type speaks of is.
    fn check_free_for_link(&self, types: &Registry, parent: NodeId, name: &str) -> Result<(), TreeError> {
        let info = self.nodes.get(&parent).ok_or(TreeError::Gone)?.object.info();
        if types.property(info, name).is_some_and(|property| property.kind.starts_with("link<")) {
            return Ok(());
        }
        self.check_free(types, parent, name)
    }

    fn add(
        &mut self,
        types: &Registry,
        parent: NodeId,
        name: String,
        object: Arc<dyn Object>,
    ) -> Result<NodeId, TreeError> {
        self.check_free(types, parent, &name)?;
        let id = NodeId(self.next);
        self.next += 1;
        self.nodes.get_mut(&parent).ok_or(TreeError::Gone)?.children.push(id);
        let node = Node { name, parent: Some(parent), object, device: None, children: Vec::new(), links: Vec::new() };
        self.nodes.insert(id, node);
        Ok(id)
    }

    fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let children = &self.nodes.get(&parent)?.children;
        children.iter().copied().find(|child| self.nodes.get(child).is_some_and(|child| child.name == name))
    }

    /// The object and all below it.
    fn below(&self, top: NodeId) -> BTreeSet<NodeId> {
        let mut below = BTreeSet::new();
        let mut rest = vec![top];
        while let Some(id) = rest.pop() {
            if below.insert(id)
                && let Some(node) = self.nodes.get(&id)
            {
                rest.extend(&node.children);
            }
        }
        below
    }

    fn walk(&self, start: NodeId, parts: &[&str]) -> Option<NodeId> {
        parts.iter().try_fold(start, |at, part| {
            self.child(at, part).or_else(|| self.nodes.get(&at)?.links.iter().find(|link| link.name == *part)?.target)
        })
    }

    fn path(&self, node: NodeId) -> String {
        let mut names = Vec::new();
        let mut at = self.nodes.get(&node);
        while let Some(node) = at.filter(|node| node.parent.is_some()) {
            names.push(node.name.as_str());
            at = node.parent.and_then(|parent| self.nodes.get(&parent));
        }
        names.push("");
        names.reverse();
        if names.len() == 1 { "/".to_owned() } else { names.join("/") }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::object::{BASE_TYPES, Settings, Typed};

    #[derive(crate::object::Object)]
    #[object(type = "test-lamp", parent = "device", settings)]
    struct LampSettings {
        /// How bright it is.
        #[property(default = 5, live)]
        brightness: u8,
        /// Where it hangs.
        #[property(default = "hall")]
        place_name: String,
        /// Its key.
        #[property(write_only)]
        key: Option<String>,
    }

    struct Lamp(Mutex<LampSettings>);

    impl Object for Lamp {
        fn info(&self) -> &'static TypeInfo {
            LampSettings::INFO
        }

        fn get(&self, name: &str) -> Option<Value> {
            self.0.lock().get(name)
        }

        fn set(&self, name: &str, value: &Value) -> Result<(), PropertyError> {
            self.0.lock().assign(name, value)
        }
    }

    static TYPES: LazyLock<Registry> = LazyLock::new(|| Registry::new(&[BASE_TYPES, &[LampSettings::INFO]]));

    fn lamp() -> Arc<dyn Object> {
        Arc::new(Lamp(Mutex::new(LampSettings::defaults())))
    }

    fn tree() -> Tree {
        let tree = Tree::new(&TYPES);
        let machine = tree.add_container(tree.root(), "machine").unwrap();
        for name in ["unattached", "peripheral-anon"] {
            let parent = tree.add_container(machine, name).unwrap();
            tree.add_numbered(parent, lamp()).unwrap();
        }
        tree
    }

    #[test]
    fn the_derive_tells_names_kinds_defaults_and_descriptions() {
        let tree = tree();
        let lamp = tree.resolve("/machine/unattached/device[0]").unwrap();
        let list = tree.list(lamp).unwrap();
        let shown: Vec<_> = list.iter().map(|row| (row.name.as_str(), row.kind.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("type", "string"),
                ("realized", "bool"),
                ("hotpluggable", "bool"),
                ("hotplugged", "bool"),
                ("brightness", "uint8"),
                ("place-name", "str"),
                ("key", "str")
            ]
        );
        assert_eq!(list[4].description, Some("How bright it is"));
        assert_eq!((&list[4].default, &list[5].default), (&Some(json!(5)), &Some(json!("hall"))));
        assert_eq!(list[6].default, None);
    }

    #[test]
    fn values_are_live_and_access_is_kept() {
        let tree = tree();
        let lamp = tree.resolve("unattached/device[0]").unwrap();
        tree.set(lamp, "brightness", &json!(9)).unwrap();
        assert_eq!(tree.get(lamp, "brightness"), Ok(json!(9)));
        assert_eq!(tree.get(lamp, "realized"), Ok(json!(false)));
        tree.set_device(lamp, DeviceState::default());
        assert_eq!(tree.get(lamp, "realized"), Ok(json!(true)));
        let text = |result: Result<(), PropertyError>| result.unwrap_err().to_string();
        assert_eq!(text(tree.set(lamp, "brightness", &json!(256))), "Parameter 'brightness' expects uint8");
        assert_eq!(text(tree.set(lamp, "place-name", &json!("x"))), "Property 'test-lamp.place-name' is not writable");
        assert_eq!(text(tree.set(lamp, "type", &json!("x"))), "Property 'test-lamp.type' is not writable");
        assert_eq!(text(tree.set(lamp, "colour", &json!(1))), "Property 'test-lamp.colour' not found");
        assert_eq!(tree.get(lamp, "key").unwrap_err().to_string(), "Property 'test-lamp.key' is not readable");
        assert_eq!(tree.get(lamp, "colour").unwrap_err().to_string(), "Property 'test-lamp.colour' not found");
    }

    #[test]
    fn a_partial_path_must_lead_to_one_object() {
        let tree = tree();
        assert_eq!(tree.resolve("device[0]"), Err(PathError::Ambiguous("device[0]".into())));
        assert_eq!(tree.resolve("device[1]"), Err(PathError::NotFound("device[1]".into())));
        assert_eq!(tree.resolve(""), Err(PathError::Ambiguous("".into())));
        assert_eq!(tree.resolve("/"), Ok(tree.root()));
        let lamp = tree.resolve("unattached/device[0]").unwrap();
        assert_eq!(tree.path(lamp), "/machine/unattached/device[0]");
        // A link is another way to the same object, and makes no path ambiguous.
        let machine = tree.resolve("/machine").unwrap();
        tree.link(machine, "favourite", "device", Some(lamp)).unwrap();
        assert_eq!(tree.resolve("favourite"), Ok(lamp));
        assert_eq!(tree.resolve("/machine/favourite"), Ok(lamp));
        assert_eq!(tree.get(machine, "favourite"), Ok(json!("/machine/unattached/device[0]")));
        assert_eq!(tree.get(machine, "unattached"), Ok(json!("/machine/unattached")));
    }

    #[test]
    fn what_is_referred_to_stays_and_numbers_are_used_again() {
        let tree = tree();
        let machine = tree.resolve("/machine").unwrap();
        let parent = tree.resolve("unattached").unwrap();
        let first = tree.resolve("unattached/device[0]").unwrap();
        tree.link(machine, "favourite", "device", Some(first)).unwrap();
        assert_eq!(tree.remove(first).err(), Some(TreeError::InUse("device[0]".into())));
        assert_eq!(tree.remove(parent).err(), Some(TreeError::InUse("unattached".into())));
        tree.link(machine, "favourite", "device", None).unwrap();
        assert_eq!(tree.get(machine, "favourite"), Ok(json!("")));
        assert!(tree.remove(first).is_ok());
        assert_eq!(tree.remove(first).err(), Some(TreeError::Gone));
        let again = tree.add_numbered(parent, lamp()).unwrap();
        assert_eq!(tree.path(again), "/machine/unattached/device[0]");
        assert_ne!(again, first);
    }

    #[test]
    fn names_of_children_links_and_properties_are_one() {
        let tree = tree();
        let lamp_at = tree.resolve("unattached/device[0]").unwrap();
        let taken = TreeError::Duplicate { name: "brightness".into(), parent: "test-lamp" };
        assert_eq!(tree.add(lamp_at, "brightness", lamp()), Err(taken));
        tree.add(lamp_at, "shade", lamp()).unwrap();
        assert!(tree.link(lamp_at, "shade", "device", None).is_err());
    }

    /// A tree in which each new object goes below one that is there, under one of few names.
    fn grown(places: &[(usize, usize)]) -> (Tree, Vec<NodeId>) {
        let tree = Tree::new(&TYPES);
        let mut nodes = vec![tree.root()];
        for (parent, name) in places {
            let parent = nodes[parent % nodes.len()];
            if let Ok(node) = tree.add_container(parent, ["a", "b", "c"][name % 3]) {
                nodes.push(node);
            }
        }
        (tree, nodes)
    }

    proptest! {
        #[test]
        fn every_object_is_found_by_its_path(places in prop::collection::vec((0usize..50, 0usize..3), 0..40)) {
            let (tree, nodes) = grown(&places);
            for node in nodes {
                prop_assert_eq!(tree.resolve(&tree.path(node)), Ok(node));
            }
        }

        #[test]
        fn a_partial_path_leads_to_the_only_object_whose_path_ends_so(
            places in prop::collection::vec((0usize..50, 0usize..3), 0..40),
            parts in prop::collection::vec(0usize..3, 1..4),
        ) {
            let (tree, nodes) = grown(&places);
            let path = parts.iter().map(|part| ["a", "b", "c"][*part]).collect::<Vec<_>>().join("/");
            let fitting: Vec<_> =
                nodes.into_iter().filter(|node| tree.path(*node).ends_with(&format!("/{path}"))).collect();
            let expected = match fitting[..] {
                [] => Err(PathError::NotFound(path.clone())),
                [only] => Ok(only),
                _ => Err(PathError::Ambiguous(path.clone())),
            };
            prop_assert_eq!(tree.resolve(&path), expected);
        }

        #[test]
        fn no_path_panics(path in "[a-c/\\[\\]0 ]{0,20}", places in prop::collection::vec((0usize..50, 0usize..3), 0..10)) {
            let (tree, _) = grown(&places);
            let _ = tree.resolve(&path);
        }
    }
}
