//! Where things stand in a schema file: a file's text, and positions in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One schema file, read whole.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// Where this file is included from, nearest first.
    pub(crate) included_from: Vec<(PathBuf, usize)>,
}

/// A stretch of text in a schema file.
#[derive(Clone)]
pub struct Position {
    source: Arc<Source>,
    offset: usize,
    length: usize,
}

impl Position {
    pub(crate) fn new(source: &Arc<Source>, offset: usize, length: usize) -> Self {
        Self { source: Arc::clone(source), offset: offset.min(source.text.len()), length }
    }

    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> usize {
        let before = self.before();
        before[before.rfind('\n').map_or(0, |newline| newline + 1)..].chars().count() + 1
    }

    /// The whole line that the position starts in, without its end.
    pub fn line_text(&self) -> &str {
        let before = self.before();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.source.text[start..].split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// How many characters of the line are meant, at least one.
    pub fn width(&self) -> usize {
        let rest = self.source.text.get(self.offset..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        line.char_indices().take_while(|(at, _)| *at < self.length).count().max(1)
    }

    fn before(&self) -> &str {
        self.source.text.get(..self.offset).unwrap_or_default()
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path().display(), self.line(), self.column())
    }
}
