//! Tokens to trees: each top-level expression with the documentation that stands before it.

use std::sync::Arc;

use crate::doc::Doc;
use crate::fault::Fault;
use crate::lexer::{Lexer, Token, TokenKind};
use crate::source::{Position, Source};

/// How deep objects and lists may nest. The language itself needs about eight.
const MAX_DEPTH: usize = 64;

/// A value in a schema file.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    List(Vec<Node>),
    Object(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) position: Position,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn object(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Object(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(nodes) => Some(nodes),
            _ => None,
        }
    }
}

/// One thing at the top level of a file.
#[derive(Debug)]
pub(crate) enum TopLevel {
    /// An object, with the documentation right before it.
    Expression { entries: Vec<Entry>, position: Position, doc: Option<Doc> },
    /// Documentation that belongs to no definition.
    Doc(Doc),
}

/// Parses a whole file.
pub(crate) fn parse(source: &Arc<Source>) -> Result<Vec<TopLevel>, Fault> {
    let mut parser = Parser { lexer: Lexer::new(Arc::clone(source)) };
    let mut items = Vec::new();
    let mut pending: Option<Doc> = None;
    loop {
        let token = parser.lexer.next()?;
        match token.kind {
            TokenKind::Doc(lines) => {
                if let Some(doc) = pending.take() {
                    items.push(TopLevel::Doc(homeless(doc)?));
                }
                pending = Some(Doc::parse(source, token.position, &lines)?);
            }
            TokenKind::OpenBrace => {
                let node = parser.object(token.position, 1)?;
                let Value::Object(entries) = node.value else { continue };
                let doc = match pending.take() {
                    Some(doc) if doc.symbol.is_some() => Some(doc),
                    Some(doc) => {
                        items.push(TopLevel::Doc(doc));
                        None
                    }
                    None => None,
                };
                items.push(TopLevel::Expression { entries, position: node.position, doc });
            }
            TokenKind::End => {
                if let Some(doc) = pending {
                    items.push(TopLevel::Doc(homeless(doc)?));
                }
                return Ok(items);
            }
            other => {
                return Err(Fault::at(&token.position, format!("expected '{{', found {}", other.describe()))
                    .hint("each definition, include or pragma is an object in braces"));
            }
        }
    }
}

/// Lets documentation without a definition stand, unless it says that it has one.
fn homeless(doc: Doc) -> Result<Doc, Fault> {
    match &doc.symbol {
        Some(symbol) => {
            Err(Fault::at(&symbol.position, format!("documentation of '{}' without a definition", symbol.name))
                .hint("the definition follows its documentation directly"))
        }
        None => Ok(doc),
    }
}

struct Parser {
    lexer: Lexer,
}

impl Parser {
    fn value(&mut self, token: Token, depth: usize) -> Result<Node, Fault> {
        let position = token.position;
        match token.kind {
            TokenKind::Text(text) => Ok(Node { position, value: Value::Text(text) }),
            TokenKind::Flag(flag) => Ok(Node { position, value: Value::Flag(flag) }),
            TokenKind::OpenBrace => self.object(position, depth + 1),
            TokenKind::OpenBracket => self.list(position, depth + 1),
            other => Err(Fault::at(&position, format!("expected a value, found {}", other.describe()))),
        }
    }

    fn bounded(position: &Position, depth: usize) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::at(position, format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    fn object(&mut self, position: Position, depth: usize) -> Result<Node, Fault> {
        Self::bounded(&position, depth)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut token = self.lexer.next()?;
        if token.kind == TokenKind::CloseBrace {
            return Ok(Node { position, value: Value::Object(entries) });
        }
        loop {
            let TokenKind::Text(key) = token.kind else {
                let fault = Fault::at(&token.position, format!("expected a key, found {}", token.kind.describe()));
                return Err(match token.kind {
                    TokenKind::CloseBrace => fault.hint("no comma stands before '}'"),
                    _ => fault,
                });
            };
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                return Err(Fault::at(&token.position, format!("the key '{key}' a second time"))
                    .hint(format!("the first one is in line {}", first.position.line())));
            }
            let colon = self.lexer.next()?;
            if colon.kind != TokenKind::Colon {
                let message = format!("expected ':', found {}", colon.kind.describe());
                return Err(Fault::at(&colon.position, message));
            }
            let first = self.lexer.next()?;
            let value = self.value(first, depth)?;
            entries.push(Entry { key, position: token.position, value });
            token = self.lexer.next()?;
            match token.kind {
                TokenKind::CloseBrace => return Ok(Node { position, value: Value::Object(entries) }),
                TokenKind::Comma => token = self.lexer.next()?,
                other => {
                    return Err(Fault::at(
                        &token.position,
                        format!("expected ',' or '}}', found {}", other.describe()),
                    ));
                }
            }
        }
    }

    fn list(&mut self, position: Position, depth: usize) -> Result<Node, Fault> {
        Self::bounded(&position, depth)?;
        let mut nodes = Vec::new();
        let mut token = self.lexer.next()?;
        if token.kind == TokenKind::CloseBracket {
            return Ok(Node { position, value: Value::List(nodes) });
        }
        loop {
            if token.kind == TokenKind::CloseBracket {
                return Err(
                    Fault::at(&token.position, "expected a value, found ']'").hint("no comma stands before ']'")
                );
            }
            nodes.push(self.value(token, depth)?);
            token = self.lexer.next()?;
            match token.kind {
                TokenKind::CloseBracket => return Ok(Node { position, value: Value::List(nodes) }),
                TokenKind::Comma => token = self.lexer.next()?,
                other => {
                    return Err(Fault::at(&token.position, format!("expected ',' or ']', found {}", other.describe())));
                }
            }
        }
    }
}
