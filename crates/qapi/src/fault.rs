//! What is wrong with a schema: one message, the place it is about, and a way out.

use std::fmt;
use std::path::PathBuf;

use crate::source::Position;

/// A fault in a schema file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The file it is in.
    pub file: PathBuf,
    /// The line, from 1; 0 if the fault is about the file as a whole.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are meant.
    pub width: usize,
    /// The line as it stands in the file.
    pub source_line: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The include directives that led here, nearest first.
    pub included_from: Vec<(PathBuf, usize)>,
}

impl Fault {
    /// A fault at `position`.
    pub(crate) fn at(position: &Position, message: impl Into<String>) -> Self {
        Self {
            file: position.path().to_owned(),
            line: position.line(),
            column: position.column(),
            width: position.width(),
            source_line: position.line_text().to_owned(),
            message: message.into(),
            hint: None,
            included_from: position.source().included_from.clone(),
        }
    }

    /// A fault of a file that could not be read.
    pub(crate) fn of_file(file: PathBuf, message: impl Into<String>) -> Self {
        Self {
            file,
            line: 0,
            column: 0,
            width: 0,
            source_line: String::new(),
            message: message.into(),
            hint: None,
            included_from: Vec::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file.display(), self.message)?;
        } else {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            // Tabs stay tabs, so that the caret stands under its character.
            let lead: String = self
                .source_line
                .chars()
                .take(self.column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            writeln!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{number} | {}", self.source_line)?;
            write!(f, "{margin} | {lead}{}", "^".repeat(self.width.max(1)))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        for (file, line) in &self.included_from {
            write!(f, "\n  included from {}:{line}", file.display())?;
        }
        Ok(())
    }
}
