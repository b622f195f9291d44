//! The table of options: what parses the command line also prints the help and answers query-command-line-options.

use std::fmt::{self, Write as _};

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// One word, shown in help by this name.
    Word(&'static str),
    /// Parameters, shown in help by this text.
    Parameters(&'static str),
    /// A driver or a type and its properties, which depend on it; shown in help by this text.
    Properties(&'static str),
    /// What a serial port or monitor is connected to: a backend in short form.
    Device,
}

/// Kinds of parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Any text.
    String,
    /// `on` or `off`.
    Boolean,
    /// `on`, `off` or `auto`.
    Switch,
    /// A number.
    Number,
    /// A number of bytes with a suffix.
    Size,
}

/// A parameter of an option.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: ParameterKind,
    /// What it is for.
    pub help: &'static str,
    /// What it is when not given, if that is fixed.
    pub default: Option<&'static str>,
}

impl Parameter {
    const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// Its name, without the dash.
    pub name: &'static str,
    /// What follows.
    pub argument: Argument,
    /// What it is for.
    pub help: &'static str,
    /// The parameter that a first word without `=` is the value of.
    pub implied: Option<&'static str>,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

impl OptionRow {
    /// The parameter `name`.
    pub fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// What managers call its parameters as a whole; `None` if it takes none.
    pub fn group(&self) -> Option<&'static str> {
        matches!(self.argument, Argument::Parameters(_) | Argument::Properties(_))
            .then(|| GROUPS.iter().find(|(option, _)| *option == self.name).map_or(self.name, |(_, group)| group))
    }

    /// What is printed instead of starting anything, if `text` asks for the parameters: it is `help`, or ends in it.
    pub fn parameters_help(&self, text: &str) -> Option<String> {
        let asks = matches!(text, "help" | "?") || text.ends_with(",help") || text.ends_with(",?");
        if !asks || !matches!(self.argument, Argument::Parameters(_)) {
            return None;
        }
        let lines: String = self.parameters.iter().map(|parameter| format!("  {parameter}\n")).collect();
        Some(format!("{} options:\n{lines}", self.group().unwrap_or(self.name)))
    }

    /// What may be given, for an error message.
    pub fn choices(&self) -> String {
        let names: Vec<_> = self.parameters.iter().map(|parameter| parameter.name).collect();
        if names.is_empty() { String::new() } else { format!("; known are {}", names.join(", ")) }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Text => "str",
            Boolean => "bool (on/off)",
            Switch => "on/off/auto",
            Number => "num",
            Size => "size",
        };
        write!(f, "{}=<{kind}> - {}", self.name, self.help)?;
        match self.default {
            Some(default) => write!(f, " (default: {default})"),
            None => Ok(()),
        }
    }
}

/// What managers call the parameters of an option, where that is not the option's name.
const GROUPS: [(&str, &str); 4] = [("smp", "smp-opts"), ("m", "memory"), ("acpitable", "acpi"), ("boot", "boot-opts")];

const fn parameter(name: &'static str, kind: ParameterKind, help: &'static str) -> Parameter {
    Parameter { name, kind, help, default: None }
}

const fn flag(name: &'static str, help: &'static str) -> OptionRow {
    OptionRow { name, argument: Argument::None, help, implied: None, parameters: &[] }
}

const fn word(name: &'static str, argument: &'static str, help: &'static str) -> OptionRow {
    OptionRow { name, argument: Argument::Word(argument), help, implied: None, parameters: &[] }
}

const fn device(name: &'static str, help: &'static str) -> OptionRow {
    OptionRow { name, argument: Argument::Device, help, implied: None, parameters: &[] }
}

use ParameterKind::{Boolean, Number, Size, String as Text, Switch};

/// All options, in the order of the help.
pub const OPTIONS: &[OptionRow] = &[
    flag("help", "print this help"),
    flag("version", "print the version"),
    OptionRow {
        name: "machine",
        argument: Argument::Parameters("[type=]NAME[,PROPERTY=VALUE]..."),
        help: "choose the machine; '-machine help' lists them",
        implied: Some("type"),
        parameters: &[
            parameter("type", Text, "the machine's name").or("pc"),
            parameter("accel", Text, "accelerators to try, with colons between"),
            parameter("usb", Boolean, "a USB controller").or("off"),
            parameter("acpi", Switch, "ACPI tables").or("on"),
            parameter("hpet", Boolean, "the high precision event timer").or("on"),
            parameter("dump-guest-core", Boolean, "guest memory in core files of this program").or("on"),
            parameter("mem-merge", Boolean, "whether the host may merge pages of guest memory").or("on"),
            parameter("memory-backend", Text, "id of the object that is the guest's memory"),
            parameter("graphics", Boolean, "a graphical console; firmware uses the first serial port").or("off"),
            parameter("vmport", Switch, "the port of VMware's tools; it is not there").or("off"),
            parameter("smm", Switch, "system management mode; it is not there").or("auto"),
            parameter("smbus", Boolean, "a system management bus; it is not there").or("off"),
            parameter("sata", Boolean, "a SATA controller; it is not there").or("off"),
            parameter("pcie", Boolean, "PCI Express; it is not there").or("off"),
            parameter("ioapic2", Boolean, "a second I/O APIC; it is not there").or("off"),
            parameter("pit", Boolean, "the interval timer; always there").or("on"),
            parameter("pic", Boolean, "the interrupt controllers of a PC; always there").or("on"),
            parameter("i8042", Boolean, "the keyboard controller; always there").or("on"),
            parameter("rtc", Boolean, "the clock of date and time; always there").or("on"),
            parameter("firmware", Text, "the same as -bios"),
            parameter("kernel", Text, "the same as -kernel"),
            parameter("initrd", Text, "the same as -initrd"),
            parameter("append", Text, "the same as -append"),
            parameter("smbios-entry-point-type", Text, "how the guest finds SMBIOS tables: '32', '64' or 'auto'").or("auto"),
        ],
    },
    OptionRow {
        name: "accel",
        argument: Argument::Parameters("[accel=]NAME[,PROPERTY=VALUE]..."),
        help: "choose what runs the guest: 'tcg', the software processor, or 'qtest', nothing; the first of several that can be",
        implied: Some("accel"),
        parameters: &[
            parameter("accel", Text, "the accelerator's name").or("tcg"),
            parameter("thread", Text, "one thread a processor: 'multi'").or("multi"),
            parameter("tb-size", Number, "accepted and ignored: size of a translation cache in MiB"),
        ],
    },
    OptionRow {
        name: "cpu",
        argument: Argument::Word("MODEL[,+FEATURE][,-FEATURE][,PROPERTY=VALUE]..."),
        help: "choose the processor model and its features; '-cpu help' lists them",
        implied: None,
        parameters: &[],
    },
    OptionRow {
        name: "smp",
        argument: Argument::Parameters("[cpus=]N[,maxcpus=N][,sockets=N][,cores=N][,threads=N]"),
        help: "number of processors, and how they are grouped",
        implied: Some("cpus"),
        parameters: &[
            parameter("cpus", Number, "processors at the start"),
            parameter("maxcpus", Number, "most processors, with those added later"),
            parameter("sockets", Number, "sockets"),
            parameter("drawers", Number, "drawers; 1").or("1"),
            parameter("books", Number, "books in a drawer; 1").or("1"),
            parameter("dies", Number, "dies in a socket; 1").or("1"),
            parameter("clusters", Number, "clusters in a die; 1").or("1"),
            parameter("modules", Number, "modules in a cluster; 1").or("1"),
            parameter("cores", Number, "cores in a socket"),
            parameter("threads", Number, "threads in a core"),
        ],
    },
    OptionRow {
        name: "m",
        argument: Argument::Parameters("[size=]MEGABYTES[,slots=N,maxmem=SIZE]"),
        help: "memory of the guest; 128 MiB if not given",
        implied: Some("size"),
        parameters: &[
            parameter("size", Text, "memory at the start, in MiB or with a suffix").or("128"),
            parameter("slots", Number, "slots for memory added later").or("0"),
            parameter("maxmem", Size, "most memory, with what is added later"),
        ],
    },
    word("mem-path", "PATH", "put the guest's memory into this file, or into one in this directory"),
    flag("mem-prealloc", "take all of the guest's memory from the host at once"),
    OptionRow {
        name: "overcommit",
        argument: Argument::Parameters("[mem-lock=on|off|on-fault][,cpu-pm=on|off]"),
        help: "whether the host's memory and processors may be promised to others too",
        implied: None,
        parameters: &[
            parameter("mem-lock", Text, "'on' holds all memory of the program in RAM, 'on-fault' each page once it was used").or("off"),
            parameter("cpu-pm", Boolean, "accepted and ignored: a processor that waits never keeps the host's busy").or("off"),
        ],
    },
    OptionRow {
        name: "numa",
        argument: Argument::Parameters("node|dist|cpu[,PARAMETER=VALUE]..."),
        help: "lay out a node, the distance between two, or the node of some processors",
        implied: Some("type"),
        parameters: &[
            parameter("type", Text, "'node', 'dist' or 'cpu'"),
            parameter("nodeid", Number, "of a node: its number"),
            parameter("cpus", Text, "of a node: a processor in it, or FIRST-LAST; may be given several times"),
            parameter("mem", Text, "of a node: its memory, in MiB or with a suffix"),
            parameter("memdev", Text, "of a node: id of the object that is its memory"),
            parameter("initiator", Number, "of a node: refused, since no such table is there"),
            parameter("src", Number, "of a distance: node from which memory is reached"),
            parameter("dst", Number, "of a distance: node in which it lies"),
            parameter("val", Number, "of a distance: how far that is, 10 to 255"),
            parameter("node-id", Number, "of processors: their node"),
            parameter("socket-id", Number, "of processors: their socket"),
            parameter("die-id", Number, "of processors: their die; 0"),
            parameter("core-id", Number, "of processors: their core"),
            parameter("thread-id", Number, "of processors: their thread"),
        ],
    },
    OptionRow {
        name: "acpitable",
        argument: Argument::Parameters("[sig=SIG][,FIELD=VALUE]...,file|data=FILE[:FILE]..."),
        help: "give the guest an ACPI table of these files; may be given several times",
        implied: None,
        parameters: &[
            parameter("sig", Text, "signature: 4 characters"),
            parameter("rev", Number, "revision of the table"),
            parameter("oem_id", Text, "maker: 6 characters"),
            parameter("oem_table_id", Text, "maker's name for the table: 8 characters"),
            parameter("oem_rev", Number, "maker's revision"),
            parameter("asl_compiler_id", Text, "tool that made the table: 4 characters"),
            parameter("asl_compiler_rev", Number, "revision of the tool"),
            parameter("file", Text, "files that begin with a header, with colons between"),
            parameter("data", Text, "files that are what follows a header, with colons between"),
        ],
    },
    OptionRow {
        name: "smbios",
        argument: Argument::Parameters("type=N[,FIELD=VALUE]... or file=FILE"),
        help: "tell the guest what its machine is, by SMBIOS; may be given several times",
        implied: None,
        parameters: &[
            parameter("type", Number, "0 firmware, 1 system, 2 board, 3 chassis, 4 processors, 11 strings, 17 memory"),
            parameter("file", Text, "a whole structure, in the place of those of its type"),
            parameter("manufacturer", Text, "of 1, 2, 3, 4, 17: who made it"),
            parameter("product", Text, "of 1, 2: what it is called"),
            parameter("version", Text, "of 0, 1, 2, 3, 4: its version"),
            parameter("serial", Text, "of 1, 2, 3, 4, 17: serial number"),
            parameter("asset", Text, "of 2, 3, 4, 17: asset tag"),
            parameter("sku", Text, "of 1, 3: stock keeping unit"),
            parameter("part", Text, "of 4, 17: part number"),
            parameter("family", Text, "of 1: family"),
            parameter("uuid", Text, "of 1: the same as -uuid"),
            parameter("location", Text, "of 2: where in the chassis it is"),
            parameter("vendor", Text, "of 0: who made it"),
            parameter("date", Text, "of 0: when it was released: month/day/year"),
            parameter("release", Text, "of 0: its release: MAJOR.MINOR, each up to 255"),
            parameter("uefi", Boolean, "of 0: whether it is UEFI").or("off"),
            parameter("sock_pfx", Text, "of 4: what sockets are called, before their number").or("CPU"),
            parameter("max-speed", Number, "of 4: highest speed in MHz").or("2000"),
            parameter("current-speed", Number, "of 4: speed at the start in MHz").or("2000"),
            parameter("processor-id", Number, "of 4: identification; what CPUID tells if not given"),
            parameter("processor-family", Number, "of 4: number of the family").or("1"),
            parameter("value", Text, "of 11: a string; may be given several times"),
            parameter("path", Text, "of 11: a file that is a string; may be given several times"),
            parameter("loc_pfx", Text, "of 17: what memory is called, before its number").or("DIMM"),
            parameter("bank", Text, "of 17: the bank that it is in"),
            parameter("speed", Number, "of 17: speed in millions of transfers a second").or("0"),
        ],
    },
    word("bios", "FILE", "run this firmware, which then boots; a file, or a name to look for in directories of firmware"),
    word("L", "DIR", "look for firmware in this directory too; may be given several times; 'help' lists the directories"),
    OptionRow {
        name: "option-rom",
        argument: Argument::Parameters("[romfile=]FILE[,bootindex=N]"),
        help: "let the firmware run this option ROM too; may be given several times",
        implied: Some("romfile"),
        parameters: &[
            parameter("romfile", Text, "the option ROM"),
            parameter("bootindex", Number, "its place in the order in which the firmware tries to boot"),
        ],
    },
    OptionRow {
        name: "boot",
        argument: Argument::Parameters("[order=]DEVICES[,once=DEVICES][,menu=on|off][,PARAMETER=VALUE]..."),
        help: "how firmware boots; DEVICES are letters: 'a' a floppy disk, 'c' a hard disk, 'd' a CD, 'n' the network",
        implied: Some("order"),
        parameters: &[
            parameter("order", Text, "devices in the order in which they are tried"),
            parameter("once", Text, "the same for the first boot alone"),
            parameter("menu", Boolean, "whether the firmware offers a menu").or("off"),
            parameter("splash-time", Number, "milliseconds for which it does"),
            parameter("reboot-timeout", Text, "milliseconds after which a boot that failed is tried again; -1 for never"),
            parameter("strict", Boolean, "whether nothing is tried that has no place in the order").or("off"),
        ],
    },
    word("kernel", "FILE", "start this kernel: Linux (bzImage) or multiboot"),
    word("initrd", "FILE", "with this initial RAM disk"),
    word("append", "TEXT", "and this kernel command line"),
    device("serial", "connect a serial port; may be given several times"),
    device("debugcon", "connect a debug console at port 0xe9"),
    OptionRow {
        name: "chardev",
        argument: Argument::Parameters("BACKEND,id=ID[,PROPERTY=VALUE]..."),
        help: "make a character backend: null, stdio, file, pipe, pty, socket, ringbuf or mux",
        implied: Some("backend"),
        parameters: &[
            parameter("backend", Text, "null, stdio, file, pipe, pty, socket, ringbuf (or memory) or mux"),
            parameter("id", Text, "the name by which it is used"),
            parameter("path", Text, "file, pipe, or unix socket"),
            parameter("input-path", Text, "file that input comes from"),
            parameter("append", Boolean, "write behind what the file holds").or("off"),
            parameter("signal", Boolean, "whether the terminal's interrupt key ends the program").or("on"),
            parameter("host", Text, "TCP host"),
            parameter("port", Number, "TCP port"),
            parameter("fd", Number, "inherited descriptor"),
            parameter("reconnect", Number, "seconds after which a client without connection tries again"),
            parameter("reconnect-ms", Number, "the same in milliseconds"),
            parameter("server", Boolean, "listen").or("off"),
            parameter("wait", Boolean, "wait for the first client before the machine starts").or("on"),
            parameter("delay", Boolean, "accepted and ignored: Nagle's algorithm is always off"),
            parameter("mux", Boolean, "several users, with Ctrl-a c to choose one").or("off"),
            parameter("chardev", Text, "id of the backend that a mux shares"),
            parameter("size", Size, "bytes that a ringbuf holds: a power of two").or("65536"),
            parameter("logfile", Text, "file that a copy of all output goes to"),
            parameter("logappend", Boolean, "keep what the log holds").or("off"),
        ],
    },
    OptionRow {
        name: "mon",
        argument: Argument::Parameters("[chardev=]ID[,mode=readline|control][,pretty=on|off]"),
        help: "make a monitor on a character backend",
        implied: Some("chardev"),
        parameters: &[
            parameter("chardev", Text, "the backend's id"),
            parameter("id", Text, "the monitor's name"),
            parameter("mode", Text, "'control' is QMP, 'readline' is for people").or("readline"),
            parameter("pretty", Boolean, "replies in several lines; only 'off' is there").or("off"),
        ],
    },
    OptionRow {
        name: "drive",
        argument: Argument::Parameters("[file=]FILE[,format=raw|qcow2][,if=virtio|none][,id=ID][,PROPERTY=VALUE]..."),
        help: "make a disk of an image file",
        implied: Some("file"),
        parameters: &[
            parameter("file", Text, "the image"),
            parameter("format", Text, "'raw' or 'qcow2'; what the file looks like if not given"),
            parameter("if", Text, "'virtio' makes the device too, 'none' leaves it to -device").or("ide"),
            parameter("id", Text, "the name by which it is used"),
            parameter("index", Number, "accepted and ignored: disks come in the order of the options"),
            parameter("media", Text, "'disk'").or("disk"),
            parameter("readonly", Boolean, "whether it must not be written").or("off"),
            parameter("read-only", Boolean, "the same as readonly").or("off"),
            parameter("cache", Text, "'none', 'writeback', 'writethrough', 'directsync' or 'unsafe'").or("writeback"),
            parameter("aio", Text, "accepted and ignored: how the host is asked"),
            parameter("discard", Text, "'unmap' gives room back, 'ignore' does not"),
            parameter("detect-zeroes", Text, "'off', 'on' or 'unmap': what becomes of zeros that are written"),
            parameter("snapshot", Boolean, "only 'off' is there").or("off"),
            parameter("serial", Text, "what the disk says it is"),
            parameter("file.locking", Text, "'off' lets others have the file open"),
            parameter("group", Text, "the group of limits that the disk is in; the same as throttling.group"),
            parameter("throttling.group", Text, "the group of limits that the disk is in"),
            parameter("throttling.bps-total", Number, "bytes a second"),
            parameter("throttling.bps-total-max", Number, "bytes a second in a burst"),
            parameter("throttling.bps-total-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.bps-read", Number, "bytes read a second"),
            parameter("throttling.bps-read-max", Number, "bytes read a second in a burst"),
            parameter("throttling.bps-read-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.bps-write", Number, "bytes written a second"),
            parameter("throttling.bps-write-max", Number, "bytes written a second in a burst"),
            parameter("throttling.bps-write-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.iops-total", Number, "operations a second"),
            parameter("throttling.iops-total-max", Number, "operations a second in a burst"),
            parameter("throttling.iops-total-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.iops-read", Number, "reads a second"),
            parameter("throttling.iops-read-max", Number, "reads a second in a burst"),
            parameter("throttling.iops-read-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.iops-write", Number, "writes a second"),
            parameter("throttling.iops-write-max", Number, "writes a second in a burst"),
            parameter("throttling.iops-write-max-length", Number, "seconds that such a burst lasts"),
            parameter("throttling.iops-size", Number, "bytes that count as one operation"),
            parameter("bps", Number, "the same as throttling.bps-total"),
            parameter("bps_max", Number, "the same as throttling.bps-total-max"),
            parameter("bps_rd", Number, "the same as throttling.bps-read"),
            parameter("bps_rd_max", Number, "the same as throttling.bps-read-max"),
            parameter("bps_wr", Number, "the same as throttling.bps-write"),
            parameter("bps_wr_max", Number, "the same as throttling.bps-write-max"),
            parameter("iops", Number, "the same as throttling.iops-total"),
            parameter("iops_max", Number, "the same as throttling.iops-total-max"),
            parameter("iops_rd", Number, "the same as throttling.iops-read"),
            parameter("iops_rd_max", Number, "the same as throttling.iops-read-max"),
            parameter("iops_wr", Number, "the same as throttling.iops-write"),
            parameter("iops_wr_max", Number, "the same as throttling.iops-write-max"),
            parameter("iops_size", Number, "the same as throttling.iops-size"),
        ],
    },
    OptionRow {
        name: "blockdev",
        argument: Argument::Properties("[driver=]DRIVER,node-name=NAME[,PROPERTY=VALUE]... or JSON"),
        help: "make a block node, by the options of the command blockdev-add",
        implied: None,
        parameters: &[],
    },
    OptionRow {
        name: "device",
        argument: Argument::Properties("DRIVER[,PROPERTY=VALUE]... or JSON"),
        help: "make a device; '-device help' lists them, '-device DRIVER,help' its properties",
        implied: None,
        parameters: &[],
    },
    OptionRow {
        name: "object",
        argument: Argument::Properties("TYPE,id=ID[,PROPERTY=VALUE]... or JSON"),
        help: "make an object that is no device; '-object help' lists them, '-object TYPE,help' its properties",
        implied: None,
        parameters: &[],
    },
    device("qmp", "make a QMP monitor"),
    device("monitor", "make a monitor for people"),
    device("qtest", "let a test drive the machine from outside by a text protocol"),
    word("qtest-log", "FILE", "write down what the test says and hears"),
    word("display", "TYPE", "choose the display; there is 'none'"),
    word("vga", "TYPE", "choose the display adapter; there is 'none'"),
    word("audio", "TYPE", "choose the sound output; there is 'none'"),
    word("audiodev", "[driver=]none,id=ID or JSON", "make a sound backend; there is 'none'"),
    word("net", "TYPE", "make a network; there is 'none'"),
    word("nic", "TYPE", "make a network adapter and its network; there is 'none'"),
    word("parallel", "DEVICE", "connect a parallel port; there is 'none'"),
    flag("nographic", "serial port and monitor share the terminal; Ctrl-a h tells how"),
    flag("nodefaults", "no default serial port and monitor"),
    flag("no-user-config", "accepted: no configuration files are read but those of -readconfig"),
    word("readconfig", "FILE", "read options from this file too"),
    OptionRow {
        name: "name",
        argument: Argument::Parameters("[guest=]NAME[,process=NAME][,debug-threads=on|off]"),
        help: "name of the guest",
        implied: Some("guest"),
        parameters: &[
            parameter("guest", Text, "the guest's name"),
            parameter("process", Text, "the process's name, 15 bytes of it"),
            parameter("debug-threads", Boolean, "threads have names; they always do"),
        ],
    },
    OptionRow {
        name: "rtc",
        argument: Argument::Parameters("[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew]"),
        help: "the clock of date and time",
        implied: None,
        parameters: &[
            parameter(
                "base",
                Text,
                "what it shows at the start: 'utc', 'localtime', 2006-06-17 or 2006-06-17T16:01:21",
            ).or("utc"),
            parameter(
                "clock",
                Text,
                "what it follows: 'host', also when that is set; 'rt', the host's time that is never set; 'vm', the machine's time, which stops with it",
            ).or("host"),
            parameter(
                "driftfix",
                Text,
                "what becomes of its lost interrupts: 'none', or 'slew', which catches up with them",
            ).or("none"),
        ],
    },
    OptionRow {
        name: "global",
        argument: Argument::Parameters("DRIVER.PROPERTY=VALUE or driver=DRIVER,property=PROPERTY,value=VALUE"),
        help: "set a property of all devices of a kind, or of those that build on it; '-device DRIVER,help' lists properties",
        implied: None,
        parameters: &[
            parameter("driver", Text, "the kind of device"),
            parameter("property", Text, "the property's name"),
            parameter("value", Text, "what it is to hold"),
        ],
    },
    word("uuid", "UUID", "identifier of the guest"),
    flag("enable-kvm", "the same as -accel kvm, which is not there"),
    flag("usb", "the same as -machine usb=on, which is not there"),
    flag("no-acpi", "the same as -machine acpi=off"),
    flag("no-hpet", "the same as -machine hpet=off"),
    flag("S", "do not start the processors: wait for 'cont'"),
    word("incoming", "URI|defer", "wait for another machine, and go on as that: tcp:, unix:, exec:, fd: or file:"),
    flag("no-reboot", "end instead of a reset"),
    flag("no-shutdown", "stop instead of the end when the guest powers off"),
    OptionRow {
        name: "action",
        argument: Argument::Parameters("EVENT=ACTION[,EVENT=ACTION]..."),
        help: "choose what is done when the guest resets, powers off, panics or does not tend its watchdog",
        implied: None,
        parameters: &[
            parameter("reboot", Text, "'reset', or 'shutdown' to end the machine").or("reset"),
            parameter("shutdown", Text, "'poweroff', or 'pause' to leave the machine there, stopped").or("poweroff"),
            parameter("panic", Text, "'shutdown', 'pause' to leave the machine there, or 'none' to let it run").or("shutdown"),
            parameter("watchdog", Text, "reset, shutdown, poweroff, pause, debug, none or inject-nmi").or("reset"),
        ],
    },
    word("watchdog-action", "ACTION", "the same as -action watchdog=ACTION"),
    flag("daemonize", "go into the background once everything is set up"),
    OptionRow {
        name: "run-with",
        argument: Argument::Parameters("[user=NAME|UID:GID][,chroot=DIR]"),
        help: "give up rights once everything is open",
        implied: None,
        parameters: &[
            parameter("user", Text, "go on as this user of the host; for root only"),
            parameter("chroot", Text, "go on with this directory as the root; for root only"),
            parameter("async-teardown", Boolean, "only 'off' is there").or("off"),
        ],
    },
    OptionRow {
        name: "sandbox",
        argument: Argument::Parameters("on|off[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny][,resourcecontrol=allow|deny]"),
        help: "give up system calls before the guest runs: those that change the host, and others by choice",
        implied: Some("enable"),
        parameters: &[
            parameter("enable", Boolean, "whether to").or("off"),
            parameter("obsolete", Text, "those that are there for old programs").or("deny"),
            parameter("elevateprivileges", Text, "those that change the user; programs that are started never gain rights").or("allow"),
            parameter("spawn", Text, "those that start other programs").or("allow"),
            parameter("resourcecontrol", Text, "those that change when and where threads run").or("allow"),
        ],
    },
    OptionRow {
        name: "msg",
        argument: Argument::Parameters("[timestamp=on|off][,guest-name=on|off]"),
        help: "what stands before messages on the standard error",
        implied: None,
        parameters: &[
            parameter("timestamp", Boolean, "the time").or("off"),
            parameter("guest-name", Boolean, "the guest's name, if it has one").or("off"),
        ],
    },
    OptionRow {
        name: "add-fd",
        argument: Argument::Parameters("fd=FD,set=N[,opaque=NOTE]"),
        help: "put an inherited descriptor into a set, which is opened as /dev/fdset/N",
        implied: None,
        parameters: &[
            parameter("fd", Number, "number of the descriptor"),
            parameter("set", Number, "number of the set"),
            parameter("opaque", Text, "a note, returned by query-fdsets"),
        ],
    },
    OptionRow {
        name: "trace",
        argument: Argument::Parameters("[enable=]PATTERN[,events=FILE][,file=FILE]"),
        help: "write trace events to the log; '-trace help' lists them",
        implied: Some("enable"),
        parameters: &[
            parameter("enable", Text, "name or pattern of events that are written; with '-' in front, that are not"),
            parameter("events", Text, "file with such names or patterns, one a line"),
            parameter("file", Text, "where they are written; to the log if not given"),
        ],
    },
    word("d", "ITEM[,ITEM]...", "write more to the log: trace:PATTERN, as -trace"),
    word("D", "FILE", "write the log to this file; to the standard error if not given"),
    word("pidfile", "FILE", "write the process's number there"),
    word("loadvm", "NAME", "go on from this snapshot in the machine's disks"),
];

/// Short names of options.
const SHORT: [(&str, &str); 2] = [("h", "help"), ("M", "machine")];

/// The option `name`, without dashes; or the one that it is short for.
pub fn option(name: &str) -> Option<&'static OptionRow> {
    let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    OPTIONS.iter().find(|row| row.name == name)
}

/// The text of `-help`.
pub fn help(program: &str) -> String {
    let mut text = format!(
        "usage: {program} [OPTION]...\n       {program} shell SOCKET\n       {program} schema check|introspect|doc|diff ...\n\n\
         A machine emulator. Without options it runs a small guest of its own on this terminal.\n\n"
    );
    for row in OPTIONS {
        let argument = match row.argument {
            Argument::None => "",
            Argument::Word(shown) | Argument::Parameters(shown) | Argument::Properties(shown) => shown,
            Argument::Device => "DEVICE",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "-{} {argument}\n        {}", row.name, row.help);
        for parameter in row.parameters {
            let _ = writeln!(text, "          {parameter}");
        }
    }
    text.push_str(
        "\nDEVICE is one of: stdio, null, none, pty, file:PATH, pipe:PATH, unix:PATH[,server=on][,wait=off],\n\
         tcp:HOST:PORT[,server=on][,wait=off], chardev:ID; with mon: in front, serial port and monitor share it\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::keyval;

    #[test]
    fn names_are_unique_and_implied_parameters_exist() {
        for (i, row) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS.iter().take(i).all(|other| other.name != row.name), "{}", row.name);
            if let Some(implied) = row.implied {
                assert!(row.parameter(implied).is_some(), "{}", row.name);
            }
            assert_eq!(matches!(row.argument, Argument::Parameters(_)), !row.parameters.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn defaults_are_of_their_kind() {
        for row in OPTIONS {
            for parameter in row.parameters {
                let Some(default) = parameter.default else { continue };
                let fits = match parameter.kind {
                    Text => true,
                    Boolean => keyval::boolean(default).is_some(),
                    Switch => default == "auto" || keyval::boolean(default).is_some(),
                    Number => keyval::number(default).is_some(),
                    Size => keyval::size(default, 1).is_some(),
                };
                assert!(fits, "-{} {}", row.name, parameter.name);
            }
        }
    }

    #[test]
    fn parameters_are_explained_to_who_asks() {
        let memory = option("m").unwrap();
        let text = memory.parameters_help("help").unwrap();
        assert!(text.starts_with("memory options:\n  size=<str> - ") && text.contains("maxmem=<size>"), "{text}");
        assert!(text.contains("(default: 128)"), "{text}");
        let chardev = option("chardev").unwrap();
        assert_eq!(chardev.parameters_help("socket,help"), chardev.parameters_help("?"));
        assert_eq!(memory.parameters_help("64"), None);
        assert_eq!(option("device").unwrap().parameters_help("help"), None);
    }

    #[test]
    fn the_help_names_every_option() {
        let help = help("rhea");
        for row in OPTIONS {
            assert!(help.contains(&format!("\n-{} ", row.name)), "{}", row.name);
        }
    }
}
