//! `rhea shell`: talks to a QMP monitor by hand, or line by line from a script.
//!
//! A thread of its own receives and prints, so that events show when they come; this one reads lines and waits for the
//! answer to each.

mod editor;
mod screen;

use std::{
    fmt::Display,
    io::{self, BufRead, IsTerminal},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use rhea_qmp::client::{
    Client, ClientError, Message, Receiver, Sender, Transport,
    line::{self, LineError},
    schema::Schema,
};
use serde_json::Value;

use self::screen::Screen;

const USAGE: &str = "\
usage: rhea shell SOCKET

SOCKET is the path of a unix socket, or HOST:PORT. Lines are commands with arguments, such as

  memsave val=0x1000 size=4096 filename=/tmp/page

or messages in JSON. On a terminal, Tab completes. From elsewhere lines are run in order, each after the answer to the
one before; blank lines and those that begin with '#' are passed over, and the status is 1 if anything failed.";

/// How long a monitor may take for its greeting.
const GREETING: Duration = Duration::from_secs(10);

/// Runs the shell on the monitor that `arguments` name.
///
/// # Errors
/// There is no monitor to talk to.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let address = match arguments {
        [help] if matches!(help.as_str(), "-h" | "-help" | "--help") => {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        [address] => Address::read(address),
        [] => bail!("shell: which SOCKET? Give a path, or HOST:PORT"),
        [_, other, ..] => bail!("shell: '{other}' is too much; one SOCKET is all it takes"),
    };
    match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).with_context(|| format!("could not connect to '{path}'"))?;
            stream.set_read_timeout(Some(GREETING))?;
            talk(stream, UnixStream::try_clone)
        }
        Address::Tcp(address) => {
            let stream = connect_tcp(address).with_context(|| format!("could not connect to '{address}'"))?;
            talk(stream, TcpStream::try_clone)
        }
    }
}

/// Where a monitor listens.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    Unix(&'a str),
    Tcp(&'a str),
}

impl<'a> Address<'a> {
    /// A path has slashes, or exists, or at least no port number at its end.
    fn read(text: &'a str) -> Self {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::Unix(path);
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            return Self::Tcp(address);
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() || text.contains('/') || Path::new(text).exists() {
            return Self::Unix(text);
        }
        Self::Tcp(text)
    }
}

fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    // A port alone means this host.
    let local = format!("localhost{address}");
    let addresses = if address.starts_with(':') { local.to_socket_addrs()? } else { address.to_socket_addrs()? };
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(addresses.as_slice())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GREETING))?;
    Ok(stream)
}

fn talk<S: Transport + Send + 'static>(
    stream: S,
    duplicate: impl FnOnce(&S) -> io::Result<S>,
) -> anyhow::Result<ExitCode> {
    let mut client = Client::new(stream).map_err(|error| match error {
        ClientError::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            anyhow::anyhow!("no greeting came: this is no QMP monitor, or it is busy with another client")
        }
        // The text tells its cause already.
        error => anyhow::anyhow!("{error}"),
    })?;
    // A monitor that cannot describe itself can be talked to all the same, without completion.
    let schema = match client.execute("query-qmp-schema", Value::Null) {
        Ok(answer) => Arc::new(Schema::from_json(&answer)),
        Err(ClientError::Command(_)) => Arc::default(),
        Err(error) => bail!("{error}"),
    };
    let greeting = introduce(&client);
    let early = client.take_events();
    let (sender, receiver) = client.split(|stream| {
        let mut second = duplicate(stream)?;
        // Both handles are of one socket: from here on the monitor may be silent for as long as it likes.
        second.limit_reads(None)?;
        Ok(second)
    })?;

    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let (editor, screen) = if terminal {
        let (editor, screen) = editor::Editor::new(Arc::clone(&schema));
        (Some(editor), screen)
    } else {
        (None, Screen::new(None))
    };
    let screen = Arc::new(screen);
    if terminal {
        screen.say(&greeting);
    }
    for event in &early {
        screen.event(event);
    }
    let (outcomes, answers) = mpsc::channel();
    let printer = Arc::clone(&screen);
    thread::Builder::new()
        .name("receiver".to_owned())
        .spawn(move || receive(receiver, &printer, &outcomes))
        .context("could not start the receiving thread")?;
    let mut conversation = Conversation { sender, schema, screen, answers };
    match editor {
        Some(editor) => editor.run(&mut conversation),
        None => Ok(conversation.script(io::stdin().lock())),
    }
}

/// Whom we talk to.
fn introduce<S: Transport>(client: &Client<S>) -> String {
    let version = client.greeting().get("version");
    let part = |name: &str| version?.get("qemu")?.get(name)?.as_u64();
    let number = |name| part(name).map_or_else(|| "?".to_owned(), |number| number.to_string());
    let package = version.and_then(|version| version.get("package")?.as_str()).unwrap_or_default();
    let package = if package.is_empty() { String::new() } else { format!(" ({})", screen::harmless(package)) };
    format!(
        "Connected to a monitor of version {}.{}.{}{package}. Tab completes, Ctrl-D leaves.",
        number("major"),
        number("minor"),
        number("micro"),
    )
}

/// How a command went.
#[derive(Debug)]
enum Outcome {
    Done,
    Failed,
    /// There will be no more answers, and why.
    Ended(String),
}

/// Prints what comes until the connection ends, and tells how commands went.
fn receive<S: Transport>(mut receiver: Receiver<S>, screen: &Screen, outcomes: &mpsc::Sender<Outcome>) {
    loop {
        let outcome = match receiver.receive(None) {
            Ok(Message::Event(event)) => {
                screen.event(&event);
                continue;
            }
            Ok(Message::Return { value, .. }) => {
                screen.value(&value);
                Outcome::Done
            }
            Ok(Message::Error { error, .. }) => {
                screen.fault(&error);
                Outcome::Failed
            }
            Ok(Message::Greeting(_)) => {
                screen.complain(&"the monitor sent a second greeting");
                continue;
            }
            Err(error) => {
                screen.end(&error);
                // Nobody may be waiting any more.
                let _ = outcomes.send(Outcome::Ended(error.to_string()));
                return;
            }
        };
        if outcomes.send(outcome).is_err() {
            return;
        }
    }
}

/// The side that gives commands.
struct Conversation<S> {
    sender: Sender<S>,
    schema: Arc<Schema>,
    screen: Arc<Screen>,
    answers: mpsc::Receiver<Outcome>,
}

impl<S: Transport> Conversation<S> {
    /// Runs the command on a line and waits for its answer; a blank line is done at once.
    fn run_line(&mut self, text: &str) -> Outcome {
        let text = text.trim();
        if text.starts_with('#') {
            return Outcome::Done;
        }
        let message = match line::parse(text, &self.schema) {
            Ok(Some(message)) => message,
            Ok(None) => return Outcome::Done,
            Err(error) => return self.refuse(&error),
        };
        match self.sender.send(&message) {
            // A connection that broke is told of by the receiver, after what came before that.
            Ok(()) | Err(_) => self.answers.recv().unwrap_or_else(|error| Outcome::Ended(error.to_string())),
        }
    }

    fn refuse(&self, error: &LineError) -> Outcome {
        self.screen.complain(error as &dyn Display);
        Outcome::Failed
    }

    /// Runs every line; what fails does not keep the rest from being run.
    fn script(&mut self, mut input: impl BufRead) -> ExitCode {
        let mut status = ExitCode::SUCCESS;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match input.read_until(b'\n', &mut bytes) {
                Ok(0) => return status,
                Ok(_) => {}
                Err(error) => {
                    self.screen.complain(&error);
                    return ExitCode::FAILURE;
                }
            }
            match self.run_line(&String::from_utf8_lossy(&bytes)) {
                Outcome::Done => {}
                Outcome::Failed => status = ExitCode::FAILURE,
                Outcome::Ended(why) => {
                    self.screen.complain(&why);
                    return ExitCode::FAILURE;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_a_port_number_are_tcp_and_all_else_is_a_path() {
        assert_eq!(Address::read("/run/vm/qmp.sock"), Address::Unix("/run/vm/qmp.sock"));
        assert_eq!(Address::read("qmp.sock"), Address::Unix("qmp.sock"));
        assert_eq!(Address::read("localhost:4444"), Address::Tcp("localhost:4444"));
        assert_eq!(Address::read("[::1]:4444"), Address::Tcp("[::1]:4444"));
        assert_eq!(Address::read(":4444"), Address::Tcp(":4444"));
        assert_eq!(Address::read("/run/pci:0000:00"), Address::Unix("/run/pci:0000:00"));
        assert_eq!(Address::read("host:65536"), Address::Unix("host:65536"));
        assert_eq!(Address::read("unix:host:1"), Address::Unix("host:1"));
        assert_eq!(Address::read("tcp:host:1"), Address::Tcp("host:1"));
    }
}
