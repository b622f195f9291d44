//! What TAB completes: commands and subjects, and the names that their arguments speak of.

use rhea_api::{char, object};
use rhea_core::{
    object::{NodeId, Tree},
    trace,
};
use rhea_devices::input::keys;
use rhea_machine::{
    devices::{device_type, device_types},
    types,
};
use rhea_qmp::SessionHandle;

use super::{
    commands::COMMANDS,
    snapshots,
    subjects::SUBJECTS,
    table::{Row, find},
};
use crate::commands::{Commands, Context};

/// What an argument is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// A command of the monitor.
    Command,
    /// A driver with its properties: `DRIVER,NAME=VALUE`.
    Driver,
    /// A type of objects with its properties.
    ObjectType,
    /// The id of a device.
    Device,
    /// The id of an object that somebody made.
    Object,
    /// A path in the tree of objects.
    Path,
    /// A property of the object that the path before it leads to.
    Property,
    /// A character backend.
    Chardev,
    /// A drive or block node.
    Block,
    /// A snapshot in a disk.
    Snapshot,
    /// A trace event.
    Event,
    /// Keys, with dashes between them.
    Keys,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// Words that could stand where `line` ends.
pub(super) fn complete(context: &Context, line: &str) -> Vec<String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let last = if line.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let names =
        |rows: &'static [Row], word: &str| starting(word, rows.iter().flat_map(Row::each_name).map(str::to_owned));
    let row = match words.as_slice() {
        [] => return names(COMMANDS, last),
        ["info"] | ["help" | "?", "info"] => return names(SUBJECTS, last),
        ["info", subject, ..] => find(SUBJECTS, subject),
        [name, ..] => find(COMMANDS, name),
    };
    let before = words.len() - if words[0] == "info" { 2 } else { 1 };
    let options = words.iter().skip(1).filter(|word| word.starts_with('-')).count();
    let Some(&kind) = row.and_then(|row| row.words.get(before.saturating_sub(options))) else { return Vec::new() };
    candidates(context, kind, last, words.last().copied().unwrap_or_default())
}

/// Those of `names` that begin with `word`, in order.
fn starting(word: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = names.filter(|name| name.starts_with(word)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn candidates(context: &Context, kind: Words, word: &str, before: &str) -> Vec<String> {
    let objects = context.machine.objects();
    let tree = objects.tree();
    let session = SessionHandle::detached();
    let mut commands = Commands::new(context, &session);
    match kind {
        Words::Event => starting(word, trace::EVENTS.iter().map(|event| event.name().to_owned())),
        Words::Command => starting(word, COMMANDS.iter().flat_map(Row::each_name).map(str::to_owned)),
        Words::Driver => {
            let drivers =
                device_types().flat_map(|(info, aliases)| [info.name].into_iter().chain(aliases.iter().copied()));
            with_properties(word, drivers.map(str::to_owned), |name| {
                let info = device_type(name)?;
                Some(types().settable(info, "device").into_iter().map(|property| property.name).collect())
            })
        }
        Words::ObjectType => {
            let made = types().all().filter(|info| !info.is_abstract && types().implements(info, "user-creatable"));
            with_properties(word, made.map(|info| info.name.to_owned()), |name| {
                let info = types().get(name)?;
                Some(info.properties.iter().map(|property| property.name).chain(["id"]).collect())
            })
        }
        Words::Device => {
            let of = |parent: &str| children(tree, parent);
            starting(word, of("/machine/peripheral").into_iter())
        }
        Words::Object => starting(word, children(tree, "/objects").into_iter()),
        Words::Path => {
            let (parent, _) = word.rsplit_once('/').unwrap_or_default();
            let top = if parent.is_empty() { "/" } else { parent };
            starting(word, children(tree, top).into_iter().map(|name| format!("{parent}/{name}")))
        }
        Words::Property => {
            let list = object::Handler::qom_list(&mut commands, before.to_owned()).unwrap_or_default();
            let inner = list.into_iter().filter(|property| !property.r#type.starts_with("child<"));
            starting(word, inner.map(|property| property.name))
        }
        Words::Chardev => {
            let list = char::Handler::query_chardev(&mut commands).unwrap_or_default();
            starting(word, list.into_iter().map(|info| info.label))
        }
        Words::Block => {
            let disks = rhea_api::block::Handler::query_block(&mut commands).unwrap_or_default();
            let nodes = rhea_api::block::Handler::query_named_block_nodes(&mut commands, None).unwrap_or_default();
            let disks = disks.into_iter().map(|disk| disk.device).filter(|name| !name.is_empty());
            starting(word, disks.chain(nodes.into_iter().filter_map(|node| node.node_name)))
        }
        Words::Snapshot => starting(word, snapshots::names(&context.machine).into_iter()),
        Words::Keys => {
            let last = word.rsplit('-').next().unwrap_or_default();
            let held = word.strip_suffix(last).unwrap_or_default();
            let names = keys::KEYS.iter().filter(|(name, _)| name.starts_with(last));
            starting(word, names.map(|(name, _)| format!("{held}{name}")))
        }
        Words::Choice(words) => starting(word, words.iter().map(|&word| word.to_owned())),
    }
}

fn children(tree: &Tree, path: &str) -> Vec<String> {
    let node: Option<NodeId> = tree.resolve(path).ok();
    node.map(|node| tree.children(node).into_iter().map(|(name, _)| name).collect()).unwrap_or_default()
}

/// A type, or behind its comma the names of its properties.
fn with_properties(
    word: &str,
    names: impl Iterator<Item = String>,
    properties: impl Fn(&str) -> Option<Vec<&'static str>>,
) -> Vec<String> {
    let Some((given, property)) = word.rsplit_once(',') else { return starting(word, names) };
    let name = given.split(',').next().unwrap_or_default();
    let known = properties(name).unwrap_or_default();
    let known = known.into_iter().filter(|known| known.starts_with(property));
    starting(word, known.map(|known| format!("{given},{known}=")))
}
