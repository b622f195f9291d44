//! Why a line cannot be read.

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A word that must be there is not.
    #[error("{0} expected")]
    Missing(&'static str),
    /// Something follows the last argument.
    #[error("extraneous characters at the end of line")]
    TooMuch,
    /// An option that the command has not.
    #[error("unsupported option -{0}")]
    Option(char),
    /// A word in quotes that does not end.
    #[error("unterminated string")]
    Unterminated,
    /// A backslash before what it cannot stand before.
    #[error("unsupported escape code: '\\{0}'")]
    Escape(char),
    /// A letter that a format has not.
    #[error("invalid char in format: '{0}'")]
    Format(char),
    /// A number beyond 64 bits.
    #[error("number too large")]
    TooLarge,
    /// The line ends where an expression goes on.
    #[error("unexpected end of expression")]
    End,
    /// What cannot stand in an expression.
    #[error("invalid char '{0}' in expression")]
    Character(char),
    /// A bracket that is not closed.
    #[error("')' expected")]
    Bracket,
    /// A character that is not closed.
    #[error("missing terminating ' character")]
    Quote,
    /// Division by zero.
    #[error("division by zero")]
    Division,
    /// A register that the processor has not.
    #[error("unknown register")]
    Register,
    /// Brackets and signs inside of each other without end.
    #[error("expression is nested too deeply")]
    Depth,
}
