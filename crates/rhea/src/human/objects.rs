//! The tree of objects, for people: `info qom-tree`, and the commands of `object.json`.

use std::fmt::Write as _;

use rhea_api::{iothread, object::Handler};
use rhea_core::object::{NodeId, Tree};
use rhea_hmp::LineError;
use serde_json::Value;

use super::table::{Call, Failure, Printed};
use crate::options;

/// `info qom-tree [PATH]`: an object and all below it, `/machine` if none is named.
pub(super) fn tree(call: &Call<'_>) -> Printed {
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
pub(super) fn list(call: &Call<'_>) -> Printed {
    if call.arguments.is_empty() {
        return Ok("/\r\n".to_owned());
    }
    let mut text = String::new();
    for property in Handler::qom_list(&mut call.commands(), call.arguments.to_owned())? {
        let _ = write!(text, "{} ({})\r\n", property.name, property.r#type);
    }
    Ok(text)
}

/// `object_add`: as the option.
pub(super) fn add(call: &Call<'_>) -> Printed {
    let config = options::object("object", call.arguments).map_err(Failure::new)?;
    call.context.machine.objects().create(&config).map_err(Failure::new)?;
    Ok(String::new())
}

/// `object_del ID`.
pub(super) fn delete(call: &Call<'_>) -> Printed {
    Handler::object_del(&mut call.commands(), call.only_word()?)?;
    Ok(String::new())
}

/// `device_add`: as the option.
pub(super) fn add_device(call: &Call<'_>) -> Printed {
    if let Some(text) = options::device_help(call.arguments) {
        return Ok(text.replace('\n', "\r\n"));
    }
    let config = options::device("device", call.arguments).map_err(Failure::new)?;
    call.context.machine.device_add(config).map_err(Failure::new)?;
    Ok(String::new())
}

/// `info qdm`.
pub(super) fn drivers(call: &Call<'_>) -> Printed {
    call.no_words()?;
    Ok(options::device_help("help").unwrap_or_default().replace('\n', "\r\n"))
}

/// `device_del ID`.
pub(super) fn delete_device(call: &Call<'_>) -> Printed {
    let id = call.only_word()?;
    let machine = &call.context.machine;
    if let Some(node) = machine.device_del(&id).map_err(Failure::new)? {
        machine.finish_removal(node);
    }
    Ok(String::new())
}

/// `info iothreads`.
pub(super) fn iothreads(call: &Call<'_>) -> Printed {
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
pub(super) fn get(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (path, property) = (line.need("string")?, line.need("string")?);
    line.end()?;
    let value = Handler::qom_get(&mut call.commands(), path, property)?;
    Ok(format!("{value:#}").replace('\n', "\r\n") + "\r\n")
}

/// `qom-set [-j] PATH PROPERTY VALUE`: the value is a word as on the command line, or JSON.
pub(super) fn set(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let as_json = line.options("j")?.has('j');
    let (path, property) = (line.need("string")?, line.need("string")?);
    let text = line.rest();
    if text.is_empty() {
        return Err(LineError::Missing("string").into());
    }
    let mut commands = call.commands();
    let json = || serde_json::from_str(text);
    let value = if as_json {
        json().map_err(|error| Failure::new(format_args!("JSON parse error, {error}")))?
    } else {
        let node = commands.node(&path)?;
        let info = commands.tree().object(node).map(|object| object.info());
        let known = info.and_then(|info| commands.tree().types().property(info, &property));
        let value = known.and_then(|known| (known.from_text)(text)).or_else(|| json().ok());
        value.unwrap_or_else(|| Value::from(text))
    };
    Handler::qom_set(&mut commands, path, property, value)?;
    Ok(String::new())
}
