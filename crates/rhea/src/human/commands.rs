//! The table of commands.

use rhea_api::{char, control, run_state};

use super::{
    addresses, block, chardev,
    complete::Words::{
        Block, Chardev, Choice, Command, Device, Driver, Event, Keys, Object, ObjectType, Path, Property, Snapshot,
    },
    descriptors, dump,
    examine::{self, Memory},
    input, machine, migration, objects, ports, snapshots,
    table::{Failure, Printed, Row, help, row, slow},
    trace,
};

/// Those that only print nothing.
fn nothing(result: Result<(), rhea_qmp::Error>) -> Printed {
    result.map(|()| String::new()).map_err(Failure::from)
}

/// The commands, by name.
pub(super) const COMMANDS: &[Row] = &[
    row("balloon", "MEGABYTES", "ask the guest to leave itself so much memory", machine::balloon),
    row("block_resize", "NAME SIZE", "change the size of a disk", block::resize).completes(&[Block]),
    slow("chardev-add", "BACKEND,id=ID[,PROPERTY=VALUE]...", "open a character backend", chardev::add),
    row("chardev-remove", "ID", "close a character backend", |call| {
        nothing(char::Handler::chardev_remove(&mut call.commands(), call.only_word()?))
    })
    .completes(&[Chardev]),
    row("chardev-send-break", "ID", "have the user of a character backend see a break", |call| {
        nothing(char::Handler::chardev_send_break(&mut call.commands(), call.only_word()?))
    })
    .completes(&[Chardev]),
    row("closefd", "NAME", "close a descriptor that was passed", descriptors::close),
    row("cont|c", "", "let the machine go on", |call| {
        call.no_words()?;
        nothing(run_state::Handler::cont(&mut call.commands()))
    }),
    row("cpu", "NUMBER", "choose the processor that commands about one speak of", machine::choose_processor),
    row("cpu-add", "NUMBER", "add the processor of this number", machine::add_processor),
    slow("delvm", "NAME", "delete a snapshot", snapshots::delete).completes(&[Snapshot]),
    row("device_add", "DRIVER[,PROPERTY=VALUE]...", "add a device; 'device_add help' lists them", objects::add_device)
        .completes(&[Driver]),
    row("device_del", "ID", "have a device leave the machine", objects::delete_device).completes(&[Device]),
    slow(
        "dump-guest-memory",
        "[-p] [-d] [-z|-l|-s] [-R] FILE [BEGIN LENGTH]",
        "write memory to a file: -p as mapped, -d in the background, -z -l -s compressed by zlib, LZO, Snappy, -R not flattened",
        dump::write,
    ),
    row("getfd", "NAME", "give a name to a descriptor that was passed", descriptors::take),
    row("gpa2hva", "ADDRESS", "say where in this program a physical address is", addresses::physical_to_host),
    row("gva2gpa", "ADDRESS", "say which physical address a virtual one is", addresses::virtual_to_physical),
    row("help|?", "[COMMAND]", "say what commands there are", |call| Ok(help(call.arguments))).completes(&[Command]),
    row("i", "/FORMAT PORT", "read an I/O port: size b, h or w", ports::read),
    row("info", "[SUBJECT]", "show something; 'help info' lists the subjects", |_| Ok(help("info"))),
    slow("loadvm", "NAME", "go back to a snapshot", snapshots::load).completes(&[Snapshot]),
    slow("memsave", "ADDRESS SIZE FILE", "write virtual memory to a file", machine::save_virtual),
    slow("migrate", "[-d] URI", "send the machine to somewhere else; -d: do not wait for the end", migration::migrate),
    row("migrate_cancel", "", "call the migration off", migration::cancel),
    row("migrate_continue", "STATE", "let a migration go on that waits", migration::go_on)
        .completes(&[Choice(&["pre-switchover"])]),
    row("migrate_incoming", "URI", "receive a machine, after '-incoming defer'", migration::incoming),
    row("migrate_set_capability", "NAME on|off", "switch a capability of migrations", migration::set_capability)
        .completes(&[Choice(&["events", "late-block-activate", "pause-before-switchover"]), Choice(&["off", "on"])]),
    row("migrate_set_parameter", "NAME VALUE", "change what migrations go by", migration::set_parameter).completes(&[
        Choice(&["avail-switchover-bandwidth", "downtime-limit", "max-bandwidth", "zero-page-detection"]),
    ]),
    row("mouse_button", "STATE", "press buttons: 1 left, 2 middle, 4 right", input::press_buttons),
    row("mouse_move", "RIGHT DOWN [WHEEL]", "move the mouse", input::move_mouse),
    row("nmi", "", "send a non-maskable interrupt", |call| {
        call.no_words()?;
        nothing(run_state::Handler::inject_nmi(&mut call.commands()))
    }),
    row("o", "/FORMAT PORT VALUE", "write to an I/O port: size b, h or w", ports::write),
    row("object_add", "TYPE,id=ID[,PROPERTY=VALUE]...", "make an object that is no device", objects::add)
        .completes(&[ObjectType]),
    row("object_del", "ID", "remove an object that is no device", objects::delete).completes(&[Object]),
    slow("pmemsave", "ADDRESS SIZE FILE", "write physical memory to a file", machine::save_physical),
    row("print|p", "/FORMAT EXPRESSION", "say what an expression comes to, such as $rip + 4 * 0x10", addresses::print),
    row("qom-get", "PATH PROPERTY", "show a property of an object", objects::get).completes(&[Path, Property]),
    row("qom-list", "[PATH]", "list the properties of an object", objects::list).completes(&[Path]),
    row("qom-set", "[-j] PATH PROPERTY VALUE", "change a property of an object; -j: to a value in JSON", objects::set)
        .completes(&[Path, Property]),
    row("quit|q", "", "end the machine and the program", |call| nothing(control::Handler::quit(&mut call.commands()))),
    row("ringbuf_read", "ID SIZE", "take bytes out of a ring buffer", chardev::read_ring).completes(&[Chardev]),
    row("ringbuf_write", "ID TEXT", "append to a ring buffer", chardev::write_ring).completes(&[Chardev]),
    slow("savevm", "[NAME]", "make a snapshot of disks and machine; one of this name is replaced", snapshots::save)
        .completes(&[Snapshot]),
    row("sendkey", "KEY[-KEY]... [MILLISECONDS]", "press keys together, such as ctrl-alt-delete", input::send_key)
        .completes(&[Keys]),
    row("set_link", "NAME on|off", "plug or unplug the cable of a network card", |call| {
        let mut line = call.line();
        let (name, _) = (line.need("string")?, line.need("on|off")?);
        line.end()?;
        // There are no network cards yet.
        Err(rhea_qmp::Error::device_not_found(&name).into())
    }),
    row("stop|s", "", "stop the machine", |call| {
        call.no_words()?;
        nothing(run_state::Handler::stop(&mut call.commands()))
    }),
    slow("sum", "ADDRESS SIZE", "add up physical memory, as BSD's sum does", addresses::checksum),
    row("system_powerdown", "", "press the power button", |call| {
        call.no_words()?;
        nothing(run_state::Handler::system_powerdown(&mut call.commands()))
    }),
    row("system_reset", "", "reset the machine", |call| {
        call.no_words()?;
        nothing(run_state::Handler::system_reset(&mut call.commands()))
    }),
    row("system_wakeup", "", "wake a suspended guest", |call| {
        call.no_words()?;
        nothing(run_state::Handler::system_wakeup(&mut call.commands()))
    }),
    row("trace-event", "NAME on|off", "switch a trace event, or those that fit a pattern", trace::switch)
        .completes(&[Event, Choice(&["off", "on"])]),
    row(
        "watchdog_action",
        "ACTION",
        "say what is done when the guest does not tend its watchdog",
        machine::set_watchdog_action,
    )
    .completes(&[Choice(&["debug", "inject-nmi", "none", "pause", "poweroff", "reset", "shutdown"])]),
    row("x", "/FORMAT ADDRESS", "show virtual memory: count, format (x d u o c i) and size (b h w g)", |call| {
        examine::run(call, Memory::Virtual)
    }),
    row("xp", "/FORMAT ADDRESS", "show physical memory, in the same way", |call| examine::run(call, Memory::Physical)),
];
