//! The tree of objects, for people: `info qom-tree`, and the commands of `object.json`.

use std::fmt::Write as _;

use rhea_api::{iothread, object::Handler};
use rhea_core::object::{NodeId, Tree};
use rhea_qmp::Error;
use serde_json::Value;

use super::Call;
use crate::options;

/// `info qom-tree [PATH]`: an object and all below it, `/machine` if none is named.
pub(super) fn tree(call: &Call<'_>) -> Result<String, Error> {
    let path = if call.arguments.is_empty() { "/machine" } else { call.arguments };
    let commands = call.commands();
    let (tree, top) = (commands.tree(), commands.node(path)?);
    let mut text = String::new();
    let name = tree.path(top);
    show(&mut text, tree, name.trim_start_matches('/'), top, 0);
    Ok(text)
}

fn show(text: &mut String, tree: &Tree, name: &str, node: NodeId, depth: usize) {
    let Some(object) = tree.object(node) else { return };
    // Writing to a string does not fail.
    let _ = write!(text, "{:1$}/{name} ({2})\r\n", "", 2 * depth, object.info().name);
    for (name, child) in tree.children(node) {
        show(text, tree, &name, child, depth + 1);
    }
}

/// `qom-list [PATH]`.
pub(super) fn list(call: &Call<'_>) -> Result<String, Error> {
    if call.arguments.is_empty() {
        return Ok("/\r\n".to_owned());
    }
    let mut text = String::new();
    for property in Handler::qom_list(&mut call.commands(), call.arguments.to_owned())? {
        let _ = write!(text, "{} ({})\r\n", property.name, property.r#type);
    }
    Ok(text)
}

fn words<'a, const N: usize>(call: &Call<'a>, names: [&str; N]) -> Result<[&'a str; N], Error> {
    let mut words = call.arguments.splitn(N, char::is_whitespace).map(str::trim);
    let mut taken = [""; N];
    for (slot, name) in taken.iter_mut().zip(names) {
        *slot = words
            .next()
            .filter(|word| !word.is_empty())
            .ok_or_else(|| Error::generic(format!("Parameter '{name}' is missing")))?;
    }
    Ok(taken)
}

/// `object_add`: as the option.
pub(super) fn add(call: &Call<'_>) -> Result<String, Error> {
    let config = options::object("object", call.arguments).map_err(Error::generic)?;
    call.context.machine.objects().create(&config).map_err(Error::generic)?;
    Ok(String::new())
}

/// `object_del ID`.
pub(super) fn delete(call: &Call<'_>) -> Result<String, Error> {
    let [id] = words(call, ["id"])?;
    Handler::object_del(&mut call.commands(), id.to_owned())?;
    Ok(String::new())
}

/// `device_add`: as the option.
pub(super) fn add_device(call: &Call<'_>) -> Result<String, Error> {
    if let Some(text) = options::device_help(call.arguments) {
        return Ok(text.replace('\n', "\r\n"));
    }
    let config = options::device("device", call.arguments).map_err(Error::generic)?;
    call.context.machine.device_add(config).map_err(Error::generic)?;
    Ok(String::new())
}

/// `device_del ID`.
pub(super) fn delete_device(call: &Call<'_>) -> Result<String, Error> {
    let [id] = words(call, ["id"])?;
    let machine = &call.context.machine;
    if let Some(node) = machine.device_del(id).map_err(Error::generic)? {
        machine.finish_removal(node);
    }
    Ok(String::new())
}

/// `info iothreads`.
pub(super) fn iothreads(call: &Call<'_>) -> Result<String, Error> {
    let mut text = String::new();
    for thread in iothread::Handler::query_iothreads(&mut call.commands())? {
        let _ = write!(
            text,
            "{}:\r\n  thread_id={}\r\n  poll-max-ns={}\r\n  poll-grow={}\r\n  poll-shrink={}\r\n",
            thread.id, thread.thread_id, thread.poll_max_ns, thread.poll_grow, thread.poll_shrink
        );
    }
    Ok(text)
}

/// `qom-get PATH PROPERTY`: the value as JSON.
pub(super) fn get(call: &Call<'_>) -> Result<String, Error> {
    let [path, property] = words(call, ["path", "property"])?;
    let value = Handler::qom_get(&mut call.commands(), path.to_owned(), property.to_owned())?;
    Ok(format!("{value}\r\n"))
}

/// `qom-set PATH PROPERTY VALUE`: the value is a word as on the command line, or JSON.
pub(super) fn set(call: &Call<'_>) -> Result<String, Error> {
    let [path, property, text] = words(call, ["path", "property", "value"])?;
    let mut commands = call.commands();
    let node = commands.node(path)?;
    let info = commands.tree().object(node).map(|object| object.info());
    let known = info.and_then(|info| commands.tree().types().property(info, property));
    let value = known.and_then(|known| (known.from_text)(text)).or_else(|| serde_json::from_str(text).ok());
    let value = value.unwrap_or_else(|| Value::from(text));
    Handler::qom_set(&mut commands, path.to_owned(), property.to_owned(), value)?;
    Ok(String::new())
}
