//! One client's conversation, without its socket: bytes in, commands and answers out.
//!
//! Source: QEMU Machine Protocol specification: commands, capabilities negotiation, out-of-band execution.

use serde_json::{Map, Value};

use crate::error::{Error, ErrorClass};
use crate::json::Decoder;

/// A command as the client gave it, its shape already checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command's name.
    pub command: String,
    /// Its arguments; empty when none were given.
    pub arguments: Map<String, Value>,
    /// What the client wants to see again in the answer.
    pub id: Option<Value>,
    /// Whether it overtakes the commands before it.
    pub out_of_band: bool,
}

impl Request {
    /// Whether the command may run. `allows_out_of_band` says what it allows; `None` if there is no such command.
    pub fn check(&self, allows_out_of_band: Option<bool>) -> Result<(), Error> {
        match allows_out_of_band {
            None => Err(Error::command_not_found(&self.command)),
            Some(false) if self.out_of_band => {
                Err(Error::generic(format_args!("The command {} does not support OOB", self.command)))
            }
            Some(_) => Ok(()),
        }
    }
}

/// What the protocol itself answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What came of the message.
    pub result: Result<Value, Error>,
    /// The message's `id`, where it could be read.
    pub id: Option<Value>,
    /// Whether the answer overtakes those of the commands before it.
    pub out_of_band: bool,
}

/// What one message of the client leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Send this, in its turn.
    Answer(Answer),
    /// Run this command and send what comes of it, in its turn.
    Execute(Request),
}

impl Step {
    /// Whether this overtakes what came before it.
    pub fn out_of_band(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.out_of_band,
            Self::Execute(request) => request.out_of_band,
        }
    }
}

/// The state of one client's conversation.
#[derive(Default)]
pub struct Session {
    decoder: Decoder,
    negotiated: bool,
    out_of_band: bool,
}

impl Session {
    /// A conversation that has just begun: the greeting is out, capabilities are not negotiated.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether negotiation is over: from then on the client gets events.
    pub fn negotiated(&self) -> bool {
        self.negotiated
    }

    /// Whether the client enabled out-of-band execution.
    pub fn out_of_band(&self) -> bool {
        self.out_of_band
    }

    /// The next step that `input` leads to; `input` moves on past what was read. `None`: all of it is read.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Step> {
        let message = self.decoder.next(input)?;
        Some(match message {
            Ok(message) => self.understand(message),
            Err(error) => Step::Answer(Answer { result: Err(Error::generic(error)), id: None, out_of_band: false }),
        })
    }

    fn understand(&mut self, message: Value) -> Step {
        let Value::Object(mut members) = message else {
            let error = Error::generic("QMP input must be a JSON object");
            return Step::Answer(Answer { result: Err(error), id: None, out_of_band: false });
        };
        let id = members.shift_remove("id");
        let out_of_band = self.out_of_band && members.contains_key("exec-oob") && !members.contains_key("execute");
        match self.read_request(members) {
            Ok((command, arguments)) if self.negotiated && command != "qmp_capabilities" => {
                Step::Execute(Request { command, arguments, id, out_of_band })
            }
            Ok((command, arguments)) => {
                let result = self.negotiate(&command, &arguments);
                Step::Answer(Answer { result, id, out_of_band })
            }
            Err(error) => Step::Answer(Answer { result: Err(error), id, out_of_band }),
        }
    }

    /// Checks the shape of a message without its `id`.
    fn read_request(&self, members: Map<String, Value>) -> Result<(String, Map<String, Value>), Error> {
        let mut command: Option<(String, String)> = None;
        let mut arguments = Map::new();
        for (name, value) in members {
            match name.as_str() {
                "execute" | "exec-oob" if name == "execute" || self.out_of_band => {
                    let Value::String(given) = value else {
                        return Err(Error::generic(format_args!("QMP input member '{name}' must be a string")));
                    };
                    if command.is_some() {
                        return Err(Error::generic("QMP input member 'execute' clashes with 'exec-oob'"));
                    }
                    command = Some((name, given));
                }
                "arguments" => {
                    let Value::Object(given) = value else {
                        return Err(Error::generic("QMP input member 'arguments' must be an object"));
                    };
                    arguments = given;
                }
                _ => return Err(Error::generic(format_args!("QMP input member '{name}' is unexpected"))),
            }
        }
        match command {
            Some((_, command)) => Ok((command, arguments)),
            None => Err(Error::generic("QMP input lacks member 'execute'")),
        }
    }

    /// Answers `qmp_capabilities`, and everything else while it is still awaited.
    fn negotiate(&mut self, command: &str, arguments: &Map<String, Value>) -> Result<Value, Error> {
        if self.negotiated {
            let text = "Capabilities negotiation is already complete, command ignored";
            return Err(Error::new(ErrorClass::CommandNotFound, text));
        }
        if command != "qmp_capabilities" {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(Error::new(ErrorClass::CommandNotFound, text));
        }
        let enables_out_of_band = read_capabilities(arguments)?;
        self.negotiated = true;
        self.out_of_band = enables_out_of_band;
        Ok(Value::Object(Map::new()))
    }
}

/// The arguments of `qmp_capabilities`: whether the capability `oob` is among those to enable.
fn read_capabilities(arguments: &Map<String, Value>) -> Result<bool, Error> {
    if let Some(unexpected) = arguments.keys().find(|name| *name != "enable") {
        return Err(Error::generic(format_args!("Parameter '{unexpected}' is unexpected")));
    }
    let Some(enable) = arguments.get("enable") else { return Ok(false) };
    let Value::Array(capabilities) = enable else {
        return Err(Error::generic("Invalid parameter type for 'enable', expected: array"));
    };
    for (index, capability) in capabilities.iter().enumerate() {
        match capability {
            Value::String(name) if name == "oob" => {}
            Value::String(name) => {
                let text = format_args!("Parameter 'enable[{index}]' does not accept value '{name}'");
                return Err(Error::generic(text));
            }
            _ => {
                let text = format_args!("Invalid parameter type for 'enable[{index}]', expected: string");
                return Err(Error::generic(text));
            }
        }
    }
    Ok(!capabilities.is_empty())
}
