//! The monitor for people: its commands, and what they print. Each renders the reply of the command of the schema, so
//! that there is one source of truth.

mod block;
mod dump;
mod examine;
mod memory_info;
mod objects;
mod pci;
mod readline;
mod registers;
mod session;

use std::{cell::Cell, fmt::Write as _};

use rhea_api::{char, control, cpu, machine, memory, run_state, run_state::RunState};
use rhea_qmp::{Error, SessionHandle};

use crate::{
    commands::{Commands, Context},
    version,
};

pub use session::Session;

type Run = fn(&Call<'_>) -> Result<String, Error>;

/// One command as it was typed.
struct Call<'a> {
    context: &'a Context,
    session: &'a SessionHandle,
    /// The processor that commands about one speak of.
    processor: usize,
    /// Where those that come later find theirs.
    chosen: &'a Cell<usize>,
    arguments: &'a str,
}

impl Call<'_> {
    fn commands(&self) -> Commands<'_> {
        Commands::new(self.context, self.session)
    }
}

struct Row {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: Run,
}

const fn row(name: &'static str, arguments: &'static str, help: &'static str, run: Run) -> Row {
    Row { name, arguments, help, run }
}

/// The commands, by name.
const COMMANDS: &[Row] = &[
    row("block_resize", "NAME SIZE", "change the size of a disk", block::resize),
    row("chardev-remove", "ID", "close a character backend", |call| {
        nothing(char::Handler::chardev_remove(&mut call.commands(), call.arguments.to_owned()))
    }),
    row("chardev-send-break", "ID", "have the user of a character backend see a break", |call| {
        nothing(char::Handler::chardev_send_break(&mut call.commands(), call.arguments.to_owned()))
    }),
    row("cont", "", "let the machine go on", |call| nothing(run_state::Handler::cont(&mut call.commands()))),
    row("c", "", "the same as cont", |call| nothing(run_state::Handler::cont(&mut call.commands()))),
    row("balloon", "MEGABYTES", "ask the guest to leave itself so much memory", |call| {
        let megabytes = call.arguments.parse::<i64>().ok().and_then(|value| value.checked_mul(1 << 20));
        let size = megabytes.ok_or_else(|| Error::generic("balloon needs a number of megabytes"))?;
        nothing(memory::Handler::balloon(&mut call.commands(), size))
    }),
    row("cpu", "NUMBER", "choose the processor that commands about one speak of", |call| {
        let number = call.arguments.parse().ok();
        let known = number.filter(|&number| call.context.machine.processors().get(number).is_some());
        call.chosen.set(known.ok_or_else(|| Error::generic("cpu needs the number of a processor"))?);
        Ok(String::new())
    }),
    row("cpu-add", "NUMBER", "add the processor of this number", |call| {
        let number = call.arguments.parse().map_err(|_| Error::generic("cpu-add needs a number"))?;
        nothing(cpu::Handler::cpu_add(&mut call.commands(), number))
    }),
    row("device_add", "DRIVER[,PROPERTY=VALUE]...", "add a device; 'device_add help' lists them", objects::add_device),
    row("device_del", "ID", "have a device leave the machine", objects::delete_device),
    row(
        "dump-guest-memory",
        "[-p] [-d] [-z|-l|-s] [-R] FILE [BEGIN LENGTH]",
        "write memory to a file: -p as mapped, -d in the background, -z -l -s compressed by zlib, LZO, Snappy, -R not flattened",
        dump::write,
    ),
    row("help", "[COMMAND]", "say what commands there are", |call| Ok(help(call.arguments))),
    row("?", "[COMMAND]", "the same as help", |call| Ok(help(call.arguments))),
    row("info", "SUBJECT", "show something; 'help info' lists the subjects", info),
    row("nmi", "", "send a non-maskable interrupt", |call| {
        nothing(run_state::Handler::inject_nmi(&mut call.commands()))
    }),
    row("object_add", "TYPE,id=ID[,PROPERTY=VALUE]...", "make an object that is no device", objects::add),
    row("object_del", "ID", "remove an object that is no device", objects::delete),
    row("qom-get", "PATH PROPERTY", "show a property of an object", objects::get),
    row("qom-list", "[PATH]", "list the properties of an object", objects::list),
    row("qom-set", "PATH PROPERTY VALUE", "change a property of an object", objects::set),
    row("quit", "", "end the machine and the program", |call| nothing(control::Handler::quit(&mut call.commands()))),
    row("q", "", "the same as quit", |call| nothing(control::Handler::quit(&mut call.commands()))),
    row("ringbuf_read", "ID SIZE", "take bytes out of a ring buffer", ringbuf_read),
    row("ringbuf_write", "ID TEXT", "append to a ring buffer", |call| {
        let (id, text) = call.arguments.split_once(' ').unwrap_or((call.arguments, ""));
        nothing(char::Handler::ringbuf_write(&mut call.commands(), id.to_owned(), text.to_owned(), None))
    }),
    row("stop", "", "stop the machine", |call| nothing(run_state::Handler::stop(&mut call.commands()))),
    row("s", "", "the same as stop", |call| nothing(run_state::Handler::stop(&mut call.commands()))),
    row("system_powerdown", "", "press the power button", |call| {
        nothing(run_state::Handler::system_powerdown(&mut call.commands()))
    }),
    row("system_reset", "", "reset the machine", |call| {
        nothing(run_state::Handler::system_reset(&mut call.commands()))
    }),
    row("system_wakeup", "", "wake a suspended guest", |call| {
        nothing(run_state::Handler::system_wakeup(&mut call.commands()))
    }),
    row("x", "/FORMAT ADDRESS", "show virtual memory: count, format (x d u o c i) and size (b h w g)", |call| {
        examine::run(call.context, call.processor, call.arguments, examine::Memory::Virtual)
    }),
    row("xp", "/FORMAT ADDRESS", "show physical memory, in the same way", |call| {
        examine::run(call.context, call.processor, call.arguments, examine::Memory::Physical)
    }),
];

/// What `info` shows, by name.
const SUBJECTS: &[Row] = &[
    row("balloon", "", "what the balloon leaves the guest", |call| {
        let actual = memory::Handler::query_balloon(&mut call.commands())?.actual;
        Ok(format!("balloon: actual={}\r\n", actual >> 20))
    }),
    row("block", "[-n] [-v] [NAME]", "the disks, or with -n the block nodes", block::info),
    row("blockstats", "", "what was done with disks", block::statistics),
    row("chardev", "", "the character backends", info_chardev),
    row("cpus", "", "the processors", info_cpus),
    row("dump", "", "how the latest dump stands", dump::info),
    row("hotpluggable-cpus", "", "the places for processors", info_hotpluggable_cpus),
    row("iothreads", "", "the I/O threads", objects::iothreads),
    row("kvm", "", "whether KVM is used", |call| {
        let info = machine::Handler::query_kvm(&mut call.commands())?;
        Ok(format!("kvm support: {}\r\n", if info.enabled { "enabled" } else { "disabled" }))
    }),
    row("memdev", "", "the memory backends", memory_info::memdev),
    row("memory-devices", "", "the memory modules", memory_info::modules),
    row("memory_size_summary", "", "how much memory the guest has", memory_info::sizes),
    row("name", "", "the guest's name", |call| {
        Ok(machine::Handler::query_name(&mut call.commands())?.name.map_or_else(String::new, |name| name + "\r\n"))
    }),
    row("numa", "", "the nodes of processors and memory", memory_info::numa),
    row("pci", "", "the PCI buses and what is on them", pci::info),
    row("qom-tree", "[PATH]", "the objects of the machine, or those below one", objects::tree),
    row("registers", "[-a]", "a processor's registers, or all processors'", registers::info),
    row("status", "", "whether the machine runs", info_status),
    row("uuid", "", "the guest's identifier", |call| {
        Ok(machine::Handler::query_uuid(&mut call.commands())?.uuid + "\r\n")
    }),
    row("version", "", "the program's version", |_| Ok(version::text() + "\r\n")),
];

fn nothing(result: Result<(), Error>) -> Result<String, Error> {
    result.map(|()| String::new())
}

/// Runs one line and gives what is printed. Errors are text too. `chosen` is the number of the processor that commands
/// about one speak of.
pub fn run(context: &Context, session: &SessionHandle, chosen: &Cell<usize>, line: &str) -> String {
    let line = line.trim();
    // A format may follow its command without a space: x/4xw.
    let split = line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len());
    let (name, arguments) = line.split_at(split);
    if name.is_empty() {
        return String::new();
    }
    let Some(command) = COMMANDS.iter().find(|row| row.name == name) else {
        return format!("unknown command: '{name}'\r\n");
    };
    let call = Call { context, session, processor: chosen.get(), chosen, arguments: arguments.trim() };
    (command.run)(&call).unwrap_or_else(|error| format!("Error: {}\r\n", error.desc))
}

/// Words that could stand where `line` ends: its completions.
pub fn complete(line: &str) -> Vec<String> {
    let (rows, word) = match line.split_once(' ') {
        None => (COMMANDS, line),
        Some(("info", word)) => (SUBJECTS, word),
        Some(("help" | "?", word)) => (COMMANDS, word),
        Some(_) => return Vec::new(),
    };
    rows.iter().filter(|row| row.name.starts_with(word)).map(|row| row.name.to_owned()).collect()
}

fn help(name: &str) -> String {
    let (rows, prefix, filter) = match name.split_once(' ') {
        Some(("info", subject)) => (SUBJECTS, "info ", Some(subject)),
        _ if name == "info" => (SUBJECTS, "info ", None),
        _ => (COMMANDS, "", Some(name).filter(|name| !name.is_empty())),
    };
    let mut text = String::new();
    for row in rows.iter().filter(|row| filter.is_none_or(|filter| row.name == filter)) {
        let space = if row.arguments.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(text, "{prefix}{}{space}{} -- {}\r\n", row.name, row.arguments, row.help);
    }
    if text.is_empty() { format!("unknown command: '{name}'\r\n") } else { text }
}

fn info(call: &Call<'_>) -> Result<String, Error> {
    let (subject, arguments) = call.arguments.split_once(' ').unwrap_or((call.arguments, ""));
    match SUBJECTS.iter().find(|row| row.name == subject) {
        Some(row) => (row.run)(&Call { arguments: arguments.trim(), ..*call }),
        None if subject.is_empty() => Ok(help("info")),
        None => Ok(format!("unknown command: 'info {subject}'\r\n")),
    }
}

fn info_status(call: &Call<'_>) -> Result<String, Error> {
    let info = run_state::Handler::query_status(&mut call.commands())?;
    let mut text = format!("VM status: {}", if info.running { "running" } else { "paused" });
    if !matches!(info.status, RunState::Running | RunState::Paused) {
        // Writing to a string does not fail.
        let _ = write!(text, " ({})", info.status.as_str());
    }
    Ok(text + "\r\n")
}

fn ringbuf_read(call: &Call<'_>) -> Result<String, Error> {
    let (id, size) = call.arguments.split_once(' ').unwrap_or((call.arguments, ""));
    let size = size.trim().parse().map_err(|_| Error::generic("ringbuf_read takes an id and a number of bytes"))?;
    let text = char::Handler::ringbuf_read(&mut call.commands(), id.to_owned(), size, None)?;
    Ok(text.replace('\n', "\r\n") + "\r\n")
}

fn info_chardev(call: &Call<'_>) -> Result<String, Error> {
    let mut text = String::new();
    for info in char::Handler::query_chardev(&mut call.commands())? {
        let _ = write!(text, "{}: filename={}\r\n", info.label, info.filename);
    }
    Ok(text)
}

fn info_cpus(call: &Call<'_>) -> Result<String, Error> {
    let mut text = String::new();
    for info in cpu::Handler::query_cpus_fast(&mut call.commands())? {
        let mark = if info.cpu_index == call.processor as i64 { '*' } else { ' ' };
        let _ = write!(text, "{mark} CPU #{}: thread_id={}\r\n", info.cpu_index, info.thread_id);
    }
    Ok(text)
}

fn info_hotpluggable_cpus(call: &Call<'_>) -> Result<String, Error> {
    let mut text = "Hotpluggable CPUs:\r\n".to_owned();
    for place in cpu::Handler::query_hotpluggable_cpus(&mut call.commands())? {
        let _ = write!(text, "  type: \"{}\"\r\n  vcpus_count: \"{}\"\r\n", place.r#type, place.vcpus_count);
        if let Some(path) = place.qom_path {
            let _ = write!(text, "  qom_path: \"{path}\"\r\n");
        }
        text.push_str("  CPUInstance Properties:\r\n");
        let parts = [
            ("node-id", place.props.node_id),
            ("socket-id", place.props.socket_id),
            ("core-id", place.props.core_id),
            ("thread-id", place.props.thread_id),
        ];
        for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            let _ = write!(text, "    {name}: \"{value}\"\r\n");
        }
    }
    Ok(text)
}
