//! The test port (`-qtest`) as a test holds it: ports, memory, the clock and interrupt lines of a machine on which no
//! guest runs.
//!
//! Every method panics when the machine does not do its part: it is for tests, and names the request that failed.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{monitor::Monitor, process::Machine};

/// How long a reply may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine under test.
#[derive(Debug)]
pub struct TestMachine {
    process: Machine,
    stream: UnixStream,
    received: Vec<u8>,
    monitor: Monitor,
    /// Changes of the lines that are listened to and were not taken yet: line and new level, in their order.
    changes: Vec<(u32, bool)>,
    levels: u64,
}

impl TestMachine {
    /// Starts the program on the machine `pc` with nothing but `arguments`, and negotiates with its monitor.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (process, connections) = Machine::start_under_test(&arguments).unwrap_or_else(|error| panic!("{error}"));
        connections.port.set_read_timeout(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
        let mut machine = Self {
            process,
            stream: connections.port,
            received: Vec::new(),
            monitor: Monitor::new(connections.monitor),
            changes: Vec::new(),
            levels: 0,
        };
        let greeting = machine.message();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        machine.qmp("qmp_capabilities", json!({}));
        machine
    }

    /// The process.
    pub fn process(&mut self) -> &mut Machine {
        &mut self.process
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        self.monitor.receive(PATIENCE).unwrap_or_else(|error| panic!("monitor: {error}; {}", self.process.said()))
    }

    /// Runs a QMP command and gives what it returns; events on the way are dropped.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "it is written in place")]
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.monitor.send(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        loop {
            let mut message = self.message();
            assert!(message.get("error").is_none(), "{text}: {message}");
            if let Some(value) = message.get_mut("return") {
                return value.take();
            }
        }
    }

    /// Waits for an event and gives its data.
    #[track_caller]
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let mut message = self.message();
            if message.get("event").is_some_and(|event| event == name) {
                return message.get_mut("data").map(Value::take).unwrap_or_default();
            }
        }
    }

    /// Sends a line and gives the reply as it is, `OK` or `FAIL` included.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\n"));
        self.reply(line)
    }

    /// Sends text as it is.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .unwrap_or_else(|error| panic!("{text}: {error}; {}", self.process.said()));
    }

    /// The next reply; changes of interrupt lines ahead of it are noted.
    #[track_caller]
    pub fn reply(&mut self, to: &str) -> String {
        loop {
            let line = self.line(to);
            let mut words = line.split(' ');
            if words.next() != Some("IRQ") {
                return line;
            }
            let level = match words.next() {
                Some("raise") => true,
                Some("lower") => false,
                _ => panic!("{to}: {line}"),
            };
            let pin: u32 = words.next().and_then(|pin| pin.parse().ok()).unwrap_or_else(|| panic!("{to}: {line}"));
            assert_ne!(self.levels >> pin & 1 != 0, level, "{to}: {line} is no change");
            self.levels ^= 1 << pin;
            self.changes.push((pin, level));
        }
    }

    #[track_caller]
    fn line(&mut self, to: &str) -> String {
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(searched + end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return String::from_utf8(line).unwrap_or_else(|error| panic!("{to}: {error}"));
            }
            searched = self.received.len();
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("{to}: the test port was closed; {}", self.process.said()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) => panic!("{to}: {error}; {}", self.process.said()),
            }
        }
    }

    /// What follows `OK`.
    #[track_caller]
    pub fn value(&mut self, line: &str) -> String {
        let reply = self.ask(line);
        match reply.strip_prefix("OK") {
            Some(rest) => rest.trim_start().to_owned(),
            None => panic!("{line}: {reply}"),
        }
    }

    #[track_caller]
    fn number(&mut self, line: &str) -> u64 {
        let text = self.value(line);
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.unwrap_or_else(|error| panic!("{line}: {text}: {error}"))
    }

    /// IN, a byte.
    #[track_caller]
    pub fn inb(&mut self, port: u16) -> u8 {
        self.number(&format!("inb {port:#x}")) as u8
    }

    /// IN, a word.
    #[track_caller]
    pub fn inw(&mut self, port: u16) -> u16 {
        self.number(&format!("inw {port:#x}")) as u16
    }

    /// IN, a double word.
    #[track_caller]
    pub fn inl(&mut self, port: u16) -> u32 {
        self.number(&format!("inl {port:#x}")) as u32
    }

    /// OUT, a byte.
    #[track_caller]
    pub fn outb(&mut self, port: u16, value: u8) {
        self.value(&format!("outb {port:#x} {value:#x}"));
    }

    /// OUT, a word.
    #[track_caller]
    pub fn outw(&mut self, port: u16, value: u16) {
        self.value(&format!("outw {port:#x} {value:#x}"));
    }

    /// OUT, a double word.
    #[track_caller]
    pub fn outl(&mut self, port: u16, value: u32) {
        self.value(&format!("outl {port:#x} {value:#x}"));
    }

    /// A double word of memory.
    #[track_caller]
    pub fn readl(&mut self, address: u64) -> u32 {
        self.number(&format!("readl {address:#x}")) as u32
    }

    /// A quad word of memory.
    #[track_caller]
    pub fn readq(&mut self, address: u64) -> u64 {
        self.number(&format!("readq {address:#x}"))
    }

    /// Writes a double word to memory.
    #[track_caller]
    pub fn writel(&mut self, address: u64, value: u32) {
        self.value(&format!("writel {address:#x} {value:#x}"));
    }

    /// Writes a quad word to memory.
    #[track_caller]
    pub fn writeq(&mut self, address: u64, value: u64) {
        self.value(&format!("writeq {address:#x} {value:#x}"));
    }

    /// Bytes of memory.
    #[track_caller]
    pub fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        let text = self.value(&format!("read {address:#x} {length:#x}"));
        let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{text}")).as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_else(|| panic!("{text}")) as u8;
        digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// Writes bytes to memory.
    #[track_caller]
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.value(&format!("write {address:#x} {:#x} 0x{digits}", bytes.len()));
    }

    /// Lets time pass, and says what time it then is.
    #[track_caller]
    pub fn step(&mut self, time: Duration) -> u64 {
        self.number(&format!("clock_step {}", time.as_nanos()))
    }

    /// Goes to the next timer's deadline, and says what time it then is.
    #[track_caller]
    pub fn step_to_next(&mut self) -> u64 {
        self.number("clock_step")
    }

    /// Sets the clock.
    #[track_caller]
    pub fn set_clock(&mut self, nanoseconds: u64) {
        assert_eq!(self.number(&format!("clock_set {nanoseconds}")), nanoseconds);
    }

    /// The machine's time, in nanoseconds.
    #[track_caller]
    pub fn now(&mut self) -> u64 {
        self.step(Duration::ZERO)
    }

    /// Listens to the inputs of the part `path` from now on; what is asserted already is known then.
    #[track_caller]
    pub fn intercept_in(&mut self, path: &str) {
        self.value(&format!("irq_intercept_in {path}"));
        self.changes.clear();
    }

    /// Listens to the outputs of the part `path` from now on; what is asserted already is known then.
    #[track_caller]
    pub fn intercept_out(&mut self, path: &str) {
        self.value(&format!("irq_intercept_out {path}"));
        self.changes.clear();
    }

    /// Whether line `pin` is asserted, of those that are listened to.
    pub fn line_level(&self, pin: u32) -> bool {
        self.levels >> pin & 1 != 0
    }

    /// Takes the changes of lines up to the last reply, in their order.
    pub fn changes(&mut self) -> Vec<(u32, bool)> {
        std::mem::take(&mut self.changes)
    }
}
