//! Rhea, a machine emulator managed over QMP.

mod commands;
mod daemon;
mod human;
mod logging;
mod messages;
mod monitor;
mod options;
mod rights;
mod run;
mod sandbox;
mod schema;
mod shell;
mod test_port;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    rhea_core::files::record_inherited();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("schema") => schema::run(&arguments[1..]),
        Some("shell") => shell::run(&arguments[1..]),
        _ => run::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        messages::error(&error);
        ExitCode::FAILURE
    })
}
