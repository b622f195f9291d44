//! Reads transcript files: a header that says which machine to start, then steps from top to bottom.
//!
//! Source: the format as explained in `tests/qmp/README.md`.

use std::time::Duration;

use crate::pattern::{Pattern, like, matches_stars};

/// A conversation with a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// Which machine, and how to begin.
    pub header: Header,
    /// What is said and expected, in order.
    pub steps: Vec<Step>,
}

/// What stands above the first step.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Arguments of the program, in which `@DIR@` is not replaced yet.
    pub machine: Vec<String>,
    /// Commands for a shell of the host, in the directory of the run, before the machine starts.
    pub prepare: Vec<String>,
    /// What runs in the machine.
    pub guest: Guest,
    /// Whether the session is opened before the first step.
    pub negotiate: bool,
    /// Events that may come at any time and are not looked at.
    pub ignore: Vec<String>,
    /// How long a message or a guest's command may take.
    pub timeout: Duration,
}

/// What runs in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Debian's kernel with a shell on the serial console.
    Linux,
    /// The same of 32 bits.
    Linux32,
    /// The memory tester memtest86+, of 64 bits.
    Memtest,
    /// The same of 32 bits.
    Memtest32,
    /// The guest that the program carries within itself.
    Embedded,
    /// Debian's SeaBIOS, whose console is the serial one.
    Firmware,
    /// Nothing.
    None,
}

impl Guest {
    /// All guests, by the names that headers give them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("linux", Self::Linux),
        ("linux32", Self::Linux32),
        ("memtest", Self::Memtest),
        ("memtest32", Self::Memtest32),
        ("embedded", Self::Embedded),
        ("firmware", Self::Firmware),
        ("none", Self::None),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, guest)| *guest == self).map_or("none", |(name, _)| name)
    }

    /// Whether it has a shell on its console.
    pub const fn has_shell(self) -> bool {
        matches!(self, Self::Linux | Self::Linux32)
    }
}

/// One step and where it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Line of the file, from 1.
    pub line: usize,
    /// What to do.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Sends this text to the monitor.
    Send(String),
    /// The next message of the monitor is a reply (or the greeting) that looks so.
    Reply(Pattern),
    /// The next message of the monitor is an event that looks so.
    Event(Pattern),
    /// The shell of the guest runs a command, which prints this.
    Guest(Run),
    /// A shell of the host runs a command in the directory of the run, which prints this.
    Host(Run),
    /// The guest prints this text on its console.
    Console(String),
    /// A descriptor goes along with the next text that is sent.
    Pass(Passed),
    /// Types a line on the guest's console and waits for nothing.
    Type(String),
    /// The guest boots until its shell asks for a command.
    Boot,
    /// The program ends with this exit status.
    Exit(i32),
}

/// A descriptor to pass to the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A file, opened for reading.
    Read(String),
    /// A file, opened for writing and made if it is not there.
    Write(String),
    /// A file, opened for both and made if it is not there.
    ReadWrite(String),
    /// One end of a pair of connected sockets.
    Socket,
}

impl Passed {
    fn parse(text: &str) -> Option<Self> {
        let (how, path) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let path = path.trim().to_owned();
        match (how, path.is_empty()) {
            ("read", false) => Some(Self::Read(path)),
            ("write", false) => Some(Self::Write(path)),
            ("readwrite", false) => Some(Self::ReadWrite(path)),
            ("socket", true) => Some(Self::Socket),
            _ => None,
        }
    }
}

/// A command and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command, for a shell.
    pub command: String,
    /// Lines it prints.
    pub output: Vec<String>,
}

/// A line of a file that is no transcript.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct TranscriptError {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Transcript {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, TranscriptError> {
        let mut header = Header {
            machine: Vec::new(),
            prepare: Vec::new(),
            guest: Guest::None,
            negotiate: true,
            // A guest's system sets its clock when it likes.
            ignore: vec!["RTC_CHANGE".to_owned()],
            timeout: Duration::from_secs(30),
        };
        let mut steps = Vec::new();
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
        while let Some((line, text)) = lines.next() {
            let fault = |message: String| TranscriptError { line, message };
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let rest = rest.trim();
            let mut message = || {
                let mut message = rest.to_owned();
                while let Some((_, more)) =
                    lines.next_if(|(_, next)| next.starts_with(char::is_whitespace) && !next.trim().is_empty())
                {
                    message.push('\n');
                    message.push_str(more);
                }
                message
            };
            let action = match word {
                "machine" | "prepare" | "guest" | "negotiate" | "ignore" | "timeout" if !steps.is_empty() => {
                    return Err(fault(format!("'{word}' belongs above the first step")));
                }
                "machine" => {
                    header.machine.extend(split_words(rest).map_err(fault)?);
                    continue;
                }
                "prepare" => {
                    header.prepare.push(rest.to_owned());
                    continue;
                }
                "guest" => {
                    let guest = Guest::ALL.iter().find(|(name, _)| *name == rest);
                    let names = Guest::ALL.map(|(name, _)| name).join(", ");
                    let (_, guest) =
                        guest.ok_or_else(|| fault(format!("the guest is one of {names}, not '{rest}'")))?;
                    header.guest = *guest;
                    continue;
                }
                "negotiate" => {
                    header.negotiate = match rest {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(fault(format!("negotiate takes yes or no, not '{rest}'"))),
                    };
                    continue;
                }
                "ignore" => {
                    header.ignore.extend(rest.split_whitespace().map(str::to_owned));
                    continue;
                }
                "timeout" => {
                    let seconds = rest.parse().map_err(|_| fault(format!("timeout takes seconds, not '{rest}'")))?;
                    header.timeout = Duration::from_secs(seconds);
                    continue;
                }
                "->" => Action::Send(message()),
                "<-" => Action::Reply(Pattern::parse(&message()).map_err(|error| fault(error.to_string()))?),
                "<=" => {
                    let pattern = Pattern::parse(&message()).map_err(|error| fault(error.to_string()))?;
                    if pattern.fixed_string("event").is_none() {
                        return Err(fault("an event has a member 'event' with its name".to_owned()));
                    }
                    Action::Event(pattern)
                }
                "guest$" | "host$" => {
                    let mut output = Vec::new();
                    while let Some((_, more)) = lines.next_if(|(_, next)| !next.trim().is_empty() && !begins_step(next))
                    {
                        output.push(more.to_owned());
                    }
                    let run = Run { command: rest.to_owned(), output };
                    if word == "guest$" { Action::Guest(run) } else { Action::Host(run) }
                }
                "console" => Action::Console(rest.to_owned()),
                "type" => Action::Type(rest.to_owned()),
                "boot" => Action::Boot,
                "pass" => Action::Pass(Passed::parse(rest).ok_or_else(|| {
                    fault(format!("pass takes 'read FILE', 'write FILE', 'readwrite FILE' or 'socket', not '{rest}'"))
                })?),
                "exit" => Action::Exit(rest.parse().map_err(|_| fault(format!("exit takes a status, not '{rest}'")))?),
                _ => return Err(fault(format!("a line cannot begin with '{word}'"))),
            };
            let needs_linux = matches!(action, Action::Guest(_) | Action::Boot);
            if needs_linux && !header.guest.has_shell() {
                return Err(fault(format!("'{word}' needs 'guest linux' above the first step")));
            }
            steps.push(Step { line, action });
        }
        if steps.is_empty() {
            return Err(TranscriptError { line: 1, message: "nothing is said".to_owned() });
        }
        Ok(Self { header, steps })
    }
}

impl Run {
    /// Whether the lines that were printed are those expected; if not, what differs. Lines to be kept are returned by name.
    ///
    /// A line `...` stands for any number of lines, `*like TEXT*` is a pattern with stars, and `*save NAME*` keeps the line.
    pub fn check(&self, printed: &[String]) -> Result<Vec<(String, String)>, String> {
        match_lines(&self.output, printed)
            .ok_or_else(|| format!("expected the output\n{}\ngot\n{}", indent(&self.output), indent(printed)))
    }

    /// The same with `change` applied to command and output.
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self { command: change(&self.command), output: self.output.iter().map(|line| change(line)).collect() }
    }
}

fn match_lines(expected: &[String], printed: &[String]) -> Option<Vec<(String, String)>> {
    let Some((line, rest)) = expected.split_first() else { return printed.is_empty().then(Vec::new) };
    if line.trim() == "..." {
        return (0..=printed.len()).find_map(|skipped| match_lines(rest, &printed[skipped..]));
    }
    let (first, remaining) = printed.split_first()?;
    if let Some(name) = line.strip_prefix("*save ").and_then(|rest| rest.strip_suffix('*')) {
        let mut kept = match_lines(rest, remaining)?;
        kept.push((name.to_owned(), first.clone()));
        return Some(kept);
    }
    let same = like(line).map_or(line == first, |pattern| matches_stars(pattern, first));
    if same { match_lines(rest, remaining) } else { None }
}

fn indent(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn begins_step(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    !line.starts_with(char::is_whitespace)
        && (matches!(word, "->" | "<-" | "<=" | "guest$" | "host$" | "console" | "type" | "boot" | "pass" | "exit")
            || line.starts_with('#'))
}

/// Splits arguments at spaces; quotes of either kind hold a word together.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in text.chars() {
        match quote {
            Some(end) if character == end => quote = None,
            Some(_) => word.get_or_insert_default().push(character),
            None if character == '"' || character == '\'' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    match quote {
        Some(quote) => Err(format!("a {quote} is not closed")),
        None => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STOP: &str = r#"# Freezes and thaws.
machine  -machine pc -m 256 -append "a 'b' c"
guest    linux
ignore   POWERDOWN

-> { "execute": "stop",
     "id": 7 }
<= { "event": "STOP" }
<- { "return": {}, "id": 7 }

guest$ uname -m; echo more
x86_64
more

exit 0
"#;

    #[test]
    fn a_transcript_is_header_and_steps() {
        let transcript = Transcript::parse(STOP).unwrap();
        assert_eq!(transcript.header.machine, ["-machine", "pc", "-m", "256", "-append", "a 'b' c"]);
        assert_eq!(transcript.header.guest, Guest::Linux);
        assert_eq!(transcript.header.ignore, ["RTC_CHANGE", "POWERDOWN"]);
        let lines: Vec<usize> = transcript.steps.iter().map(|step| step.line).collect();
        assert_eq!(lines, [6, 8, 9, 11, 15]);
        assert_eq!(transcript.steps[0].action, Action::Send("{ \"execute\": \"stop\",\n     \"id\": 7 }".to_owned()));
        let run =
            Run { command: "uname -m; echo more".to_owned(), output: vec!["x86_64".to_owned(), "more".to_owned()] };
        assert_eq!(transcript.steps[3].action, Action::Guest(run));
        assert_eq!(transcript.steps[4].action, Action::Exit(0));
    }

    #[test]
    fn what_is_sent_need_not_be_json() {
        let transcript = Transcript::parse("-> {'execute': nonsense\n<- { \"error\": \"*any*\" }\n").unwrap();
        assert_eq!(transcript.steps[0].action, Action::Send("{'execute': nonsense".to_owned()));
    }

    #[test]
    fn faults_name_their_line() {
        let fault = |text: &str| Transcript::parse(text).unwrap_err().to_string();
        assert_eq!(fault("# only a comment\n"), "line 1: nothing is said");
        assert_eq!(fault("-> {}\nmachine -S\n"), "line 2: 'machine' belongs above the first step");
        assert_eq!(fault("\n=> {}\n"), "line 2: a line cannot begin with '=>'");
        assert_eq!(
            fault("guest windows\n"),
            "line 1: the guest is one of linux, linux32, memtest, memtest32, embedded, firmware, none, not 'windows'"
        );
        assert_eq!(fault("guest$ uname\n"), "line 1: 'guest$' needs 'guest linux' above the first step");
        assert_eq!(fault("machine -name 'x\n-> {}\n"), "line 1: a ' is not closed");
        assert_eq!(fault("<= { \"data\": {} }\n"), "line 1: an event has a member 'event' with its name");
        assert!(fault("<- { return }\n").starts_with("line 1: not a JSON pattern: "));
    }

    #[test]
    fn output_may_vary_where_the_transcript_says_so() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let run = Run { command: String::new(), output: lines("first\n...\n*like NMI * received*\n...") };
        assert_eq!(run.check(&lines("first\nNMI 1 received")), Ok(Vec::new()));
        assert_eq!(run.check(&lines("first\nx\ny\nNMI 1 received\nz")), Ok(Vec::new()));
        assert!(run.check(&lines("x\nNMI 1 received")).is_err());
        assert!(run.check(&lines("first\nNMI lost")).is_err());
    }

    #[test]
    fn a_line_can_be_kept_for_later() {
        let run = Run { command: String::new(), output: vec!["...".to_owned(), "*save ADDRESS*".to_owned()] };
        let printed = ["noise".to_owned(), "-42".to_owned()];
        assert_eq!(run.check(&printed), Ok(vec![("ADDRESS".to_owned(), "-42".to_owned())]));
        assert!(run.check(&[]).is_err());
    }

    proptest! {
        #[test]
        fn reading_any_text_never_panics(text in "(->|<-|<=|guest\\$|host\\$|machine|[ {}\"'a.\n]){0,40}") {
            let _ = Transcript::parse(&text);
        }
    }
}
