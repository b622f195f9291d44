//! The QMP protocol: framing, sessions, negotiation, errors, events and descriptor passing, for servers and clients.
//! It knows no command.

mod after;
pub mod arguments;
pub mod client;
pub mod error;
pub mod events;
pub mod json;
pub mod message;
mod outbox;
pub mod reply;
pub mod server;
pub mod session;

pub use after::AfterAnswer;
pub use error::{Error, ErrorClass};
pub use events::EventSender;
pub use message::Event;
pub use server::{Dispatcher, Execution, Server, SessionHandle};
