//! Migration for people: `migrate` and what goes with it.

use std::fmt::Write as _;

use rhea_api::migration::{Handler, MigrationCapability, MigrationCapabilityStatus, MigrationStatus, SocketAddress};
use rhea_qmp::Error;
use serde_json::{Map, Value, json};

use super::table::{Call, Failure, Printed, Work};

/// Numbers of these are in mebibytes when they have no suffix.
const BANDWIDTHS: [&str; 2] = ["max-bandwidth", "avail-switchover-bandwidth"];

/// `migrate [-d] URI`: with -d nobody waits for the end.
pub(super) fn migrate(call: &Call<'_>) -> Result<Work, Failure> {
    let mut line = call.line();
    let detach = line.options("d")?.has('d');
    // A command of the shell has words of its own.
    let uri = line.rest().trim();
    if uri.is_empty() {
        return Err(Failure::new("migrate needs to know where to"));
    }
    let commands = call.commands();
    let departure = commands.departure(Some(uri), None)?;
    let machine = std::sync::Arc::clone(&call.context.machine);
    let job = move || {
        if detach {
            departure.start();
            return Ok(());
        }
        departure.run();
        match machine.migration().standing().and_then(|standing| standing.error) {
            Some(reason) => Err(Error::generic(reason)),
            None => Ok(()),
        }
    };
    Ok(Work::new(commands, Box::new(job), |()| String::new()))
}

/// `migrate_cancel`
pub(super) fn cancel(call: &Call<'_>) -> Printed {
    call.no_words()?;
    call.commands().migrate_cancel()?;
    Ok(String::new())
}

/// `migrate_continue STATE`
pub(super) fn go_on(call: &Call<'_>) -> Printed {
    let word = call.only_word()?;
    let state = MigrationStatus::named(&word).ok_or_else(|| invalid(&word))?;
    call.commands().migrate_continue(state)?;
    Ok(String::new())
}

/// `migrate_incoming URI`
pub(super) fn incoming(call: &Call<'_>) -> Printed {
    let uri = call.line().rest().trim().to_owned();
    call.commands().migrate_incoming(Some(uri), None)?;
    Ok(String::new())
}

fn invalid(word: &str) -> Failure {
    Failure::new(format_args!("invalid parameter value: {word}"))
}

fn switch(word: &str) -> Result<bool, Failure> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Failure::new(format_args!("'{word}' is neither 'on' nor 'off'"))),
    }
}

/// `migrate_set_capability NAME on|off`
pub(super) fn set_capability(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (name, state) = (line.need("string")?, line.need("string")?);
    line.end()?;
    let capability = MigrationCapability::named(&name).ok_or_else(|| invalid(&name))?;
    let state = switch(&state)?;
    call.commands().migrate_set_capabilities(vec![MigrationCapabilityStatus { capability, state }])?;
    Ok(String::new())
}

/// A number with a suffix, in bytes; without one in units of `unit` bytes.
fn size(word: &str, unit: u64) -> Option<u64> {
    let (digits, unit) = match word.char_indices().last()? {
        (at, letter) if letter.is_ascii_alphabetic() => {
            let power = "BKMGT".find(letter.to_ascii_uppercase())?;
            (word.get(..at)?, 1_u64 << (10 * power))
        }
        _ => (word, unit),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// `migrate_set_parameter NAME VALUE`
pub(super) fn set_parameter(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let (name, word) = (line.need("string")?, line.need("string")?);
    line.end()?;
    let known = parameters(call)?;
    let value = match known.get(&name) {
        None => return Err(invalid(&name)),
        Some(Value::Bool(_)) => json!(switch(&word)?),
        Some(Value::Number(_)) => {
            let unit = if BANDWIDTHS.contains(&name.as_str()) { 1 << 20 } else { 1 };
            json!(size(&word, unit).ok_or_else(|| Failure::new(format_args!("'{word}' is no number")))?)
        }
        Some(_) => json!(word),
    };
    let wanted = Map::from_iter([(name, value)]);
    rhea_api::dispatch(&mut call.commands(), "migrate-set-parameters", wanted)?;
    Ok(String::new())
}

fn parameters(call: &Call<'_>) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(call.commands().query_migrate_parameters()?) {
        Ok(Value::Object(parameters)) => Ok(parameters),
        _ => Ok(Map::new()),
    }
}

/// `info migrate_parameters`
pub(super) fn show_parameters(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for (name, value) in parameters(call)? {
        let shown = match (name.as_str(), value) {
            (_, Value::Bool(on)) => if on { "on" } else { "off" }.to_owned(),
            (_, Value::String(word)) if word.is_empty() => "''".to_owned(),
            (_, Value::String(word)) => word,
            ("downtime-limit", value) => format!("{value} ms"),
            (name, value) if BANDWIDTHS.contains(&name) => format!("{value} bytes/second"),
            (_, value) => value.to_string(),
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{name}: {shown}\r\n");
    }
    Ok(text)
}

/// `info migrate_capabilities`
pub(super) fn show_capabilities(call: &Call<'_>) -> Printed {
    let show = |status: MigrationCapabilityStatus| {
        format!("{}: {}\r\n", status.capability, if status.state { "on" } else { "off" })
    };
    Ok(call.commands().query_migrate_capabilities()?.into_iter().map(show).collect())
}

/// `info migrate`
pub(super) fn info(call: &Call<'_>) -> Printed {
    let info = call.commands().query_migrate()?;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = write!(text, "{name}: {value}\r\n");
    };
    if let Some(status) = info.status {
        line("Migration status", status.to_string());
    }
    if let Some(reason) = info.error_desc {
        line("error", reason);
    }
    for (name, time) in [
        ("total time", info.total_time),
        ("expected downtime", info.expected_downtime),
        ("downtime", info.downtime),
        ("setup", info.setup_time),
    ] {
        if let Some(time) = time {
            line(name, format!("{time} ms"));
        }
    }
    if let Some(ram) = info.ram {
        line("transferred ram", format!("{} kbytes", ram.transferred >> 10));
        line("throughput", format!("{:.2} mbps", ram.mbps));
        line("remaining ram", format!("{} kbytes", ram.remaining >> 10));
        line("total ram", format!("{} kbytes", ram.total >> 10));
        line("duplicate", format!("{} pages", ram.duplicate));
        line("normal", format!("{} pages", ram.normal));
        line("dirty sync count", ram.dirty_sync_count.to_string());
    }
    for address in info.socket_address.into_iter().flatten() {
        line(
            "socket address",
            match address {
                SocketAddress::Inet(at) => format!("tcp:{}:{}", at.host, at.port),
                SocketAddress::Unix(at) => format!("unix:{}", at.path),
                SocketAddress::Fd(at) => format!("fd:{}", at.str),
            },
        );
    }
    Ok(text)
}
