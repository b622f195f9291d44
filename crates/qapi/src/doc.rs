//! Documentation comments: a text about a definition, cut into members, features, sections and examples.

use std::sync::Arc;

use crate::fault::Fault;
use crate::lexer::DocLine;
use crate::names;
use crate::source::{Position, Source};

/// The documentation of a definition, or a free text between definitions.
#[derive(Clone, Debug)]
pub struct Doc {
    /// Where it starts.
    pub position: Position,
    /// The definition it is about; none for a free text.
    pub symbol: Option<DocEntry>,
    /// What it says before all else.
    pub text: String,
    /// What it says about members.
    pub members: Vec<DocEntry>,
    /// What it says about features.
    pub features: Vec<DocEntry>,
    /// The rest, in order.
    pub sections: Vec<Section>,
    /// Faults by today's rules only; the language of 2017 took them.
    pub(crate) modern_faults: Vec<Fault>,
}

/// A named piece of documentation.
#[derive(Clone, Debug)]
pub struct DocEntry {
    /// The member, feature or definition.
    pub name: String,
    /// Where it is named.
    pub position: Position,
    /// What is said about it.
    pub text: String,
}

/// A tagged section, or plain text that follows one.
#[derive(Clone, Debug)]
pub struct Section {
    /// Which section.
    pub kind: SectionKind,
    /// Where it starts.
    pub position: Position,
    /// What it says, without the tag.
    pub text: String,
    /// Where each line of `text` starts.
    lines: Vec<Position>,
}

/// Which section of a documentation comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Text without a tag.
    Plain,
    /// What a command returns.
    Returns,
    /// How a command fails.
    Errors,
    /// The version that brought the definition.
    Since,
    /// A remark.
    Note,
    /// A dialogue between client and server.
    Example,
    /// What is still missing; not for readers of the manual.
    Todo,
}

impl SectionKind {
    fn tag(self) -> &'static str {
        match self {
            Self::Plain => "text",
            Self::Returns => "Returns",
            Self::Errors => "Errors",
            Self::Since => "Since",
            Self::Note => "Note",
            Self::Example => "Example",
            Self::Todo => "TODO",
        }
    }
}

/// An example: what a client sends, and what it gets.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it starts.
    pub position: Position,
    /// What is said before the first step.
    pub title: String,
    /// The messages, in order.
    pub steps: Vec<Step>,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// `->`: from client to server.
    Sent,
    /// `<-`: from server to client.
    Received,
    /// `<=`: an event that the client waits for.
    Event,
}

/// One message of an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which way it goes.
    pub flow: Flow,
    /// The message, on as many lines as it was written.
    pub text: String,
    /// The line in the file, from 1.
    pub line: usize,
}

impl Step {
    /// The message as JSON.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_str(&self.text)
    }
}

/// What a line in a documentation block starts.
#[derive(Clone, Copy)]
enum Start<'a> {
    Member { name: &'a str, text: &'a str },
    Section { kind: SectionKind, text: &'a str, directive: bool },
    Features { text: &'a str },
}

impl Doc {
    pub(crate) fn parse(source: &Arc<Source>, position: Position, lines: &[DocLine]) -> Result<Self, Fault> {
        let mut doc = Self {
            position,
            symbol: None,
            text: String::new(),
            members: Vec::new(),
            features: Vec::new(),
            sections: Vec::new(),
            modern_faults: Vec::new(),
        };
        let at = |line: &DocLine| Position::new(source, line.offset, line.text.len());
        let first = lines.iter().position(|line| !line.text.trim().is_empty()).unwrap_or(lines.len());
        let mut lines = lines.get(first..).unwrap_or_default();
        if let Some((line, rest)) = lines.split_first()
            && let Some(symbol) = line.text.strip_prefix('@')
        {
            let Some(name) = symbol.strip_suffix(':') else {
                return Err(Fault::at(&at(line), "a line that starts with '@' ends with ':'")
                    .hint("'# @name:' alone on the first line says what the documentation is about"));
            };
            if !names::is_valid(name, false) {
                return Err(Fault::at(&at(line), format!("'{name}' is no name of a definition")));
            }
            doc.symbol = Some(DocEntry { name: name.to_owned(), position: at(line), text: String::new() });
            lines = rest;
        }
        if doc.symbol.is_none() {
            for line in lines {
                if let Some(Start::Member { name, .. }) = start_of(&line.text) {
                    return Err(Fault::at(
                        &at(line),
                        format!("'@{name}:' in documentation that belongs to no definition"),
                    )
                    .hint("the first line of a definition's documentation is '# @name:'"));
                }
            }
            for line in lines.iter().skip(1).filter(|line| is_heading(&line.text)) {
                doc.modern_faults.push(
                    Fault::at(&at(line), "a heading that is not the first line of its comment")
                        .hint("close the comment before it and open another one"),
                );
            }
            doc.text = joined(lines.iter().map(|line| line.text.as_str()));
            return Ok(doc);
        }
        Builder { doc, source, target: Target::Text, indent: None, blank: false, in_features: None, tagged: None }
            .run(lines)
    }

    /// The examples, cut into steps.
    pub fn examples(&self) -> Vec<Example> {
        self.sections.iter().filter(|section| section.kind == SectionKind::Example).map(Section::example).collect()
    }

    /// The section of `kind`, if there is one.
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }
}

impl Section {
    fn example(&self) -> Example {
        let mut example = Example { position: self.position.clone(), title: String::new(), steps: Vec::new() };
        for (line, position) in self.text.lines().zip(&self.lines) {
            let text = line.trim_start();
            let message = [("->", Flow::Sent), ("<-", Flow::Received), ("<=", Flow::Event)]
                .into_iter()
                .find_map(|(arrow, flow)| text.strip_prefix(arrow).map(|message| (flow, message)));
            match (message, example.steps.last_mut()) {
                (Some((flow, message)), _) => {
                    example.steps.push(Step { flow, text: message.trim().to_owned(), line: position.line() });
                }
                (None, Some(step)) => {
                    step.text.push('\n');
                    step.text.push_str(line);
                }
                (None, None) => {
                    example.title.push_str(text.strip_prefix(":title:").unwrap_or(text).trim_start());
                    example.title.push('\n');
                }
            }
        }
        example.title.truncate(example.title.trim_end().len());
        for step in &mut example.steps {
            step.text.truncate(step.text.trim_end().len());
        }
        example
    }
}

/// Where the next line of text goes.
#[derive(Clone, Copy)]
enum Target {
    Text,
    Member,
    Feature,
    Section,
    /// Text between `Features:` and the first feature.
    FeatureHead,
}

struct Builder<'a> {
    doc: Doc,
    source: &'a Arc<Source>,
    target: Target,
    /// How far the lines after the first are indented, once known.
    indent: Option<usize>,
    blank: bool,
    in_features: Option<Position>,
    /// The tag of the first tagged section.
    tagged: Option<&'static str>,
}

impl Builder<'_> {
    fn run(mut self, lines: &[DocLine]) -> Result<Doc, Fault> {
        for line in lines {
            let position = Position::new(self.source, line.offset, line.text.len());
            match start_of(&line.text) {
                Some(start) => self.start(start, position)?,
                None => self.text_line(&line.text, position)?,
            }
        }
        if let Some(position) = &self.in_features {
            return Err(Fault::at(position, "'Features:' without a feature").hint("'# @feature: text' lines follow it"));
        }
        let doc = &mut self.doc;
        doc.text = joined(doc.text.lines());
        for entry in doc.members.iter_mut().chain(&mut doc.features) {
            entry.text = joined(entry.text.lines());
        }
        for section in &mut doc.sections {
            // Leading blank lines go, and their positions with them.
            let blank = section.text.lines().take_while(|line| line.trim().is_empty()).count();
            section.lines.drain(..blank.min(section.lines.len()));
            section.text = joined(section.text.lines());
            if section.text.is_empty() && section.kind != SectionKind::Plain {
                return Err(Fault::at(&section.position, format!("no text after '{}:'", section.kind.tag())));
            }
        }
        doc.sections.retain(|section| !section.text.is_empty());
        Ok(self.doc)
    }

    fn start(&mut self, start: Start<'_>, position: Position) -> Result<(), Fault> {
        self.indent = None;
        self.blank = false;
        match start {
            Start::Member { name, text } => {
                if !names::is_valid(name, true) {
                    return Err(Fault::at(&position, format!("'{name}' is no name of a member")));
                }
                let featuring = matches!(self.target, Target::FeatureHead | Target::Feature);
                let entry = DocEntry { name: name.to_owned(), position: position.clone(), text: text.to_owned() };
                let (entries, what) =
                    if featuring { (&mut self.doc.features, "feature") } else { (&mut self.doc.members, "member") };
                if let Some(first) = entries.iter().find(|entry| entry.name == name) {
                    return Err(Fault::at(&position, format!("the {what} '{name}' is described a second time"))
                        .hint(format!("the first time is in line {}", first.position.line())));
                }
                if let Some(tag) = self.tagged
                    && !featuring
                {
                    return Err(Fault::at(&position, format!("'@{name}:' after the section '{tag}:'"))
                        .hint("members come first, then 'Features:', then the other sections"));
                }
                entries.push(entry);
                self.target = if featuring { Target::Feature } else { Target::Member };
                self.in_features = None;
            }
            Start::Features { text } => {
                if !text.is_empty() {
                    return Err(
                        Fault::at(&position, "text after 'Features:'").hint("'# @feature: text' lines follow it")
                    );
                }
                if matches!(self.target, Target::FeatureHead) || !self.doc.features.is_empty() {
                    return Err(Fault::at(&position, "the section 'Features:' a second time"));
                }
                self.target = Target::FeatureHead;
                self.in_features = Some(position);
            }
            Start::Section { kind, text, directive } => {
                let single =
                    matches!(kind, SectionKind::Returns | SectionKind::Errors | SectionKind::Since | SectionKind::Todo);
                if let Some(first) = self.doc.section(kind).filter(|_| single) {
                    return Err(Fault::at(&position, format!("the section '{}:' a second time", kind.tag()))
                        .hint(format!("the first one is in line {}", first.position.line())));
                }
                // Plain text and directives may stand anywhere; a tag ends the members.
                if !directive {
                    self.tagged.get_or_insert(kind.tag());
                }
                self.push_section(kind, text, position);
            }
        }
        Ok(())
    }

    fn push_section(&mut self, kind: SectionKind, text: &str, position: Position) {
        self.doc.sections.push(Section {
            kind,
            position: position.clone(),
            text: text.to_owned(),
            lines: vec![position],
        });
        self.target = Target::Section;
    }

    fn text_line(&mut self, text: &str, position: Position) -> Result<(), Fault> {
        let bare = text.trim();
        if is_heading(text) {
            return Err(Fault::at(&position, "a heading in the documentation of a definition")
                .hint("headings stand in comments of their own"));
        }
        if bare.is_empty() {
            self.blank = true;
            self.append("", position);
            return Ok(());
        }
        let indent = text.len() - text.trim_start().len();
        let open_ended = matches!(
            (self.target, self.doc.sections.last().map(|section| section.kind)),
            (Target::Text, _)
                | (Target::Section, Some(SectionKind::Plain | SectionKind::Note | SectionKind::Example))
                | (Target::Section, Some(SectionKind::Todo))
        );
        if let Target::FeatureHead = self.target {
            return Err(Fault::at(&position, "text between 'Features:' and the first feature")
                .hint("'# @feature: text' lines follow it"));
        }
        if !open_ended {
            if indent == 0 && self.blank {
                // An unindented paragraph ends the section before it.
                self.blank = false;
                self.indent = None;
                self.push_section(SectionKind::Plain, text, position);
                return Ok(());
            }
            match self.indent {
                None => self.indent = Some(indent),
                Some(expected) if indent < expected && !self.blank => {
                    self.doc.modern_faults.push(
                        Fault::at(&position, "this line stands further left than the one before")
                            .hint(format!("indent it by {expected} spaces, or leave a blank line before it")),
                    );
                }
                Some(_) => {}
            }
        }
        self.blank = false;
        self.append(text, position);
        Ok(())
    }

    fn append(&mut self, text: &str, position: Position) {
        let into = match self.target {
            Target::Text | Target::FeatureHead => Some(&mut self.doc.text),
            Target::Member => self.doc.members.last_mut().map(|entry| &mut entry.text),
            Target::Feature => self.doc.features.last_mut().map(|entry| &mut entry.text),
            Target::Section => self.doc.sections.last_mut().map(|section| {
                section.lines.push(position);
                &mut section.text
            }),
        };
        if let Some(into) = into {
            into.push('\n');
            into.push_str(text);
        }
    }
}

/// What a line starts, if it starts something.
fn start_of(line: &str) -> Option<Start<'_>> {
    if let Some(rest) = line.strip_prefix('@') {
        let (name, text) = rest.split_once(':')?;
        if name.contains(char::is_whitespace) {
            return None;
        }
        return Some(Start::Member { name, text: text.trim() });
    }
    if line.trim_end() == ".. qmp-example::" {
        return Some(Start::Section { kind: SectionKind::Example, text: "", directive: true });
    }
    let (tag, text) = line.split_once(':')?;
    let text = text.strip_prefix(':').unwrap_or(text);
    if !(text.is_empty() || text.starts_with(' ')) {
        return None;
    }
    let text = text.trim();
    let kind = match tag {
        "Features" => return Some(Start::Features { text }),
        "Returns" => SectionKind::Returns,
        "Errors" => SectionKind::Errors,
        "Since" => SectionKind::Since,
        "Note" | "Notes" => SectionKind::Note,
        "Example" | "Examples" => SectionKind::Example,
        "TODO" => SectionKind::Todo,
        "Details" => SectionKind::Plain,
        _ => return None,
    };
    Some(Start::Section { kind, text, directive: false })
}

/// Whether a line is a heading: `= Title`, `== Title`.
fn is_heading(line: &str) -> bool {
    line.starts_with('=') && line.trim_start_matches('=').starts_with(' ')
}

/// Lines without the blank ones at both ends, and without the indentation that all but the first share.
fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.skip_while(|line| line.trim().is_empty()).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines.iter().skip(1).filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let line = if index == 0 { line.trim_start() } else { line.get(shared.min(indent(line))..).unwrap_or(line) };
        if index > 0 {
            text.push('\n');
        }
        text.push_str(line.trim_end());
    }
    text.truncate(text.trim_end().len());
    text
}
