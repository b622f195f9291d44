//! The shape of the tables of commands: what a row says, how a line finds its row, and what running it comes to.

use std::{cell::Cell, fmt};

use rhea_core::trace;
use rhea_hmp::{Line, LineError};
use rhea_qmp::{AfterAnswer, Error, SessionHandle, reply::Later};

use super::{commands::COMMANDS, complete::Words, subjects::SUBJECTS};
use crate::commands::{Commands, Context};

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not written as it must be.
    Usage(LineError),
    /// It could not be done.
    Command(Error),
}

impl From<LineError> for Failure {
    fn from(error: LineError) -> Self {
        Self::Usage(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Command(error)
    }
}

impl Failure {
    /// A failure of the command itself.
    pub(super) fn new(text: impl fmt::Display) -> Self {
        Self::Command(Error::generic(text))
    }
}

/// What a command prints.
pub(super) type Printed = Result<String, Failure>;

/// The rest of a command that takes long.
pub(super) struct Work {
    job: Later<String>,
    /// What is left for after the answer.
    after: Option<AfterAnswer>,
}

impl Work {
    /// The rest of `commands`' command, whose result is printed by `show`.
    pub(super) fn new<T: 'static>(commands: Commands<'_>, job: Later<T>, show: fn(T) -> String) -> Self {
        Self { job: Box::new(move || job().map(show)), after: commands.into_rest() }
    }
}

/// How a command runs.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// At once, on the monitor's thread.
    Now(fn(&Call<'_>) -> Printed),
    /// The checks at once; the rest on a thread of its own, for which only this conversation waits.
    Later(fn(&Call<'_>) -> Result<Work, Failure>),
}

/// A command, or a subject of `info`.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its name, and further ones behind a bar: `cont|c`.
    pub(super) names: &'static str,
    pub(super) arguments: &'static str,
    pub(super) help: &'static str,
    pub(super) run: Run,
    /// What completes its arguments, in turn, options left out.
    pub(super) words: &'static [Words],
}

/// A command that is done at once.
pub(super) const fn row(
    names: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&Call<'_>) -> Printed,
) -> Row {
    Row { names, arguments, help, run: Run::Now(run), words: &[] }
}

/// A command that may take long.
pub(super) const fn slow(
    names: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&Call<'_>) -> Result<Work, Failure>,
) -> Row {
    Row { names, arguments, help, run: Run::Later(run), words: &[] }
}

impl Row {
    /// The same, with words that complete its arguments.
    pub(super) const fn completes(self, words: &'static [Words]) -> Self {
        Self { words, ..self }
    }

    /// Each of its names.
    pub(super) fn each_name(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.names.split('|')
    }

    /// Its line in the help.
    fn line(&self, prefix: &str) -> String {
        format!("{prefix}{} {} -- {}\r\n", self.names, self.arguments, self.help)
    }
}

/// The row of that name.
pub(super) fn find(rows: &'static [Row], name: &str) -> Option<&'static Row> {
    rows.iter().find(|row| row.each_name().any(|known| known == name))
}

/// One command as it was typed.
pub(super) struct Call<'a> {
    pub(super) context: &'a Context,
    session: &'a SessionHandle,
    /// The processor that commands about one speak of.
    pub(super) processor: usize,
    /// Where those that come later find theirs.
    pub(super) chosen: &'a Cell<usize>,
    pub(super) arguments: &'a str,
    /// The lines that were typed before, the newest first; nothing where a program asks.
    pub(super) history: &'a [String],
}

impl<'a> Call<'a> {
    /// The handlers of the schema's commands.
    pub(super) fn commands(&self) -> Commands<'_> {
        Commands::new(self.context, self.session)
    }

    /// Its arguments.
    pub(super) fn line(&self) -> Line<'a> {
        Line::new(self.arguments)
    }

    /// The value of the next expression of `line`, which may speak of the processor's registers.
    pub(super) fn number(&self, line: &mut Line<'_>) -> Result<u64, Failure> {
        let registers = &mut |name: &str| super::registers::value(self, name);
        Ok(line.number(registers)?)
    }

    /// As [`number`](Self::number), for what may be left out.
    pub(super) fn number_if_any(&self, line: &mut Line<'_>) -> Result<Option<u64>, Failure> {
        if line.is_empty() { Ok(None) } else { self.number(line).map(Some) }
    }

    /// Its only argument, a word.
    pub(super) fn only_word(&self) -> Result<String, Failure> {
        let mut line = self.line();
        let word = line.need("string")?;
        line.end()?;
        Ok(word)
    }

    /// It has no arguments.
    pub(super) fn no_words(&self) -> Result<(), Failure> {
        Ok(self.line().end()?)
    }
}

/// What a line comes to.
pub enum Answer {
    /// It is done, and prints this.
    Printed(String),
    /// It takes long.
    Later(Unfinished),
}

/// The work of such a command, which gives what is printed.
pub type Job = Box<dyn FnOnce() -> String + Send>;

/// A line whose command takes long.
pub struct Unfinished {
    work: Work,
    name: String,
}

impl Unfinished {
    /// The work, which gives what is printed, and what is left for after that.
    pub fn into_parts(self) -> (Job, Option<AfterAnswer>) {
        let Self { work: Work { job, after }, name } = self;
        (Box::new(move || print(job().map_err(Failure::from), &name)), after)
    }
}

/// What is printed of a result.
fn print(result: Printed, name: &str) -> String {
    match result {
        Ok(text) => text,
        Err(Failure::Command(error)) => format!("Error: {}\r\n", error.desc),
        Err(Failure::Usage(error)) => {
            let subject = if matches!(error, LineError::Missing(_) | LineError::TooMuch | LineError::Option(_)) {
                format!("{}: ", name.strip_prefix("info ").unwrap_or(name))
            } else {
                String::new()
            };
            format!("{subject}{error}\r\nTry \"help {name}\" for more information\r\n")
        }
    }
}

/// Runs one line. Failures are text too. `chosen` is the number of the processor that commands about one speak of.
pub fn run(context: &Context, session: &SessionHandle, chosen: &Cell<usize>, history: &[String], line: &str) -> Answer {
    trace!(HANDLE_HMP_COMMAND, "line: {line}");
    let line = line.trim();
    // A format may follow its command without a space: x/4xw.
    let split = line.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(line.len());
    let (name, mut arguments) = line.split_at(split);
    if name.is_empty() {
        return Answer::Printed(String::new());
    }
    arguments = arguments.trim_start();
    let mut name = name.to_owned();
    let mut row = find(COMMANDS, &name);
    if name == "info" && !arguments.is_empty() {
        let (subject, rest) = arguments.split_once(char::is_whitespace).unwrap_or((arguments, ""));
        (name, arguments) = (format!("info {subject}"), rest.trim_start());
        row = find(SUBJECTS, subject);
    }
    let Some(row) = row else { return Answer::Printed(format!("unknown command: '{name}'\r\n")) };
    let call = Call { context, session, processor: chosen.get(), chosen, arguments, history };
    match row.run {
        Run::Now(run) => Answer::Printed(print(run(&call), &name)),
        Run::Later(run) => match run(&call) {
            Ok(work) => Answer::Later(Unfinished { work, name }),
            Err(failure) => Answer::Printed(print(Err(failure), &name)),
        },
    }
}

/// What `help` says of `name`: of all commands, of one, of all subjects of `info` or of one.
pub(super) fn help(name: &str) -> String {
    let name = name.trim();
    let lines = |rows: &'static [Row], prefix: &str, wanted: Option<&str>| -> String {
        let wanted = |row: &&Row| wanted.is_none_or(|wanted| row.each_name().any(|name| name == wanted));
        rows.iter().filter(wanted).map(|row| row.line(prefix)).collect()
    };
    let text = match name.split_once(char::is_whitespace) {
        Some(("info", subject)) => lines(SUBJECTS, "info ", Some(subject.trim())),
        _ if name == "info" => lines(SUBJECTS, "info ", None),
        _ => lines(COMMANDS, "", Some(name).filter(|name| !name.is_empty())),
    };
    if text.is_empty() { format!("unknown command: '{name}'\r\n") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        for rows in [COMMANDS, SUBJECTS] {
            let mut names: Vec<&str> = rows.iter().flat_map(Row::each_name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }

    #[test]
    fn help_speaks_of_all_of_one_and_of_subjects() {
        assert!(help("").contains("cont|c  -- "), "{}", help(""));
        assert!(help("c").starts_with("cont|c  -- "));
        assert!(help("info").contains("info registers [-a] "), "{}", help("info"));
        assert!(help("info status").starts_with("info status  -- "));
        assert_eq!(help("levitate"), "unknown command: 'levitate'\r\n");
    }
}
