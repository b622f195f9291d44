//! The guest's serial console: waits for its shell, runs commands there, and returns what they print.
//!
//! Nothing sleeps: each wait ends with a text that was seen, or fails at its deadline. Texts to wait for are computed by the
//! guest (`$((6*7))`), so that the echo of what was typed cannot be taken for them.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How a shell asks for a command: `~ # `, `/ # ` or a bare `# `, at the end of all that was printed.
const PROMPT: &str = "# ";

/// What busybox's shell prints behind its prompt to ask a terminal where its cursor is.
const ASK_TERMINAL: &str = "\u{1b}[6n";

/// Takes the terminal out of the way: no echo, no line editing, no prompt.
const SETTLE: &str =
    "stty -echo; echo \"rhea-ready-$((6*7))\"; while IFS= read -r rhea; do eval \"$rhea\"; rhea_status=$?; done\n";
const SETTLED: &str = "rhea-ready-42";

/// The two ends of the serial console that matter: what is typed and what was printed.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    printed: Arc<Printed>,
    /// Up to where the text has been looked at.
    seen: usize,
}

/// What a command in the guest did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// The lines it printed.
    pub lines: Vec<String>,
}

/// Why the console did not show what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// It was not there in time.
    #[error("the console did not show {what} within {patience:?}")]
    Silent {
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
    },
    /// The program closed the console.
    #[error("the console ended before it showed {0}")]
    Ended(String),
    /// The socket failed.
    #[error("the console's socket: {0}")]
    Socket(#[from] io::Error),
}

#[derive(Debug, Default)]
struct Printed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    ended: bool,
}

impl Printed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Reads the console from now on, in a thread of its own, so that the guest never waits for us.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let printed = Arc::new(Printed::default());
        let (source, sink) = (stream.try_clone()?, Arc::clone(&printed));
        thread::Builder::new().name("console".to_owned()).spawn(move || collect(source, &sink))?;
        Ok(Self { stream, printed, seen: 0 })
    }

    /// All that was printed so far.
    pub fn log(&self) -> String {
        self.printed.lock().text.clone()
    }

    /// Waits until `text` is printed, and returns what came before it since the last wait.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<String, ConsoleError> {
        self.wait(&format!("{text:?}"), patience, |unseen| unseen.find(text).map(|start| (start, start + text.len())))
    }

    /// Waits for the shell's prompt and takes the shell over.
    pub fn wait_for_shell(&mut self, patience: Duration) -> Result<(), ConsoleError> {
        self.wait("a shell's prompt", patience, |unseen| {
            let line_start = unseen.rfind('\n').map_or(0, |end| end + 1);
            let asks = unseen[line_start..].trim_end_matches(ASK_TERMINAL).ends_with(PROMPT);
            asks.then_some((line_start, unseen.len()))
        })?;
        self.stream.write_all(SETTLE.as_bytes())?;
        self.wait_for(SETTLED, patience)?;
        self.wait_for("\n", patience)?;
        Ok(())
    }

    /// Types a line and waits for nothing.
    pub fn type_line(&mut self, line: &str) -> Result<(), ConsoleError> {
        Ok(self.stream.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Runs a command in the guest's shell, which must have been taken over.
    pub fn run(&mut self, command: &str, patience: Duration) -> Result<Output, ConsoleError> {
        self.type_line(&format!("{command}\necho \"rhea-done-$rhea_status-\""))?;
        let printed = self.wait_for("rhea-done-", patience)?;
        let status = self.wait_for("-", patience)?;
        self.wait_for("\n", patience)?;
        let lines = printed.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect();
        Ok(Output { status: status.parse().unwrap_or(-1), lines })
    }

    fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        find: impl Fn(&str) -> Option<(usize, usize)>,
    ) -> Result<String, ConsoleError> {
        let deadline = Instant::now() + patience;
        let mut state = self.printed.lock();
        loop {
            let unseen = &state.text[self.seen..];
            if let Some((start, end)) = find(unseen) {
                let before = unseen[..start].to_owned();
                self.seen += end;
                return Ok(before);
            }
            if state.ended {
                return Err(ConsoleError::Ended(what.to_owned()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConsoleError::Silent { what: what.to_owned(), patience });
            }
            state = self.printed.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn collect(mut source: UnixStream, sink: &Printed) {
    let mut bytes = [0; 4096];
    loop {
        let result = source.read(&mut bytes);
        let mut state = sink.lock();
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => {
                state.ended = true;
                sink.changed.notify_all();
                return;
            }
            // A console is ASCII; what is not must not get in the way of finding texts.
            Ok(count) => {
                let printed = bytes[..count].iter().map(|byte| if byte.is_ascii() { *byte as char } else { '?' });
                state.text.extend(printed);
            }
        }
        sink.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// A shell that echoes what is typed until it is taken over, and then answers each command with `answer`.
    fn shell(stream: UnixStream, answer: &'static str) {
        thread::spawn(move || {
            let mut output = stream.try_clone().unwrap();
            output.write_all(b"booting # not a prompt\r\n~ # \x1b[6n").unwrap();
            let mut lines = BufReader::new(stream).lines();
            let settle = lines.next().unwrap().unwrap();
            output.write_all(format!("{settle}\r\nrhea-ready-42\r\n").as_bytes()).unwrap();
            while let Some(Ok(_)) = lines.next() {
                lines.next().unwrap().unwrap();
                output.write_all(answer.as_bytes()).unwrap();
            }
        });
    }

    #[test]
    fn a_command_returns_its_lines_and_status() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        shell(theirs, "one\r\ntwo\r\nrhea-done-3-\r\n");
        let mut console = Console::new(ours).unwrap();
        console.wait_for_shell(SOON).unwrap();
        let expected = Output { status: 3, lines: vec!["one".to_owned(), "two".to_owned()] };
        assert_eq!(console.run("any", SOON).unwrap(), expected);
        assert_eq!(console.run("again", SOON).unwrap(), expected);
    }

    #[test]
    fn a_real_shell_is_taken_over_and_keeps_its_variables() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", "printf '~ # '; exec sh"])
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut console = Console::new(ours).unwrap();
        console.wait_for_shell(SOON).unwrap();
        assert_eq!(console.run("kept='a  b'; false", SOON).unwrap(), Output { status: 1, lines: vec![] });
        let lines = vec!["a  b".to_owned(), "no newline".to_owned()];
        assert_eq!(console.run("echo \"$kept\"; printf 'no newline'", SOON).unwrap(), Output { status: 0, lines });
        console.type_line("exit").unwrap();
        assert!(shell.wait().unwrap().success());
    }

    #[test]
    fn a_prompt_in_the_middle_of_a_line_is_none() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut console = Console::new(ours).unwrap();
        theirs.write_all(b"1 # 2\r\n").unwrap();
        assert!(matches!(console.wait_for_shell(Duration::from_millis(50)), Err(ConsoleError::Silent { .. })));
    }

    #[test]
    fn a_console_that_ends_says_so() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut console = Console::new(ours).unwrap();
        drop(theirs);
        assert!(matches!(console.wait_for("login", SOON), Err(ConsoleError::Ended(_))));
    }

    #[test]
    fn waits_return_what_came_before_and_go_on_behind_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut console = Console::new(ours).unwrap();
        theirs.write_all(b"a=1;b=2;").unwrap();
        assert_eq!(console.wait_for(";", SOON).unwrap(), "a=1");
        assert_eq!(console.wait_for(";", SOON).unwrap(), "b=2");
    }
}
