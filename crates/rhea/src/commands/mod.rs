//! The commands of the schema, one file a module. A handler translates; what is done is the machine's.

mod acpi;
mod block;
mod blockdev;
mod char;
mod client;
mod clock;
mod control;
mod cpu;
mod descriptors;
mod dump;
mod gic;
mod human_monitor;
mod introspect;
mod iothread;
mod job;
mod machine;
mod memory;
mod migration;
mod object;
mod options;
mod pci;
mod run_state;
mod trace;
mod xen;

use std::sync::Arc;

use rhea_api::Outcome;
use rhea_backends::char::CharDevices;
use rhea_machine::{Machine, MachineError};
use rhea_qmp::{AfterAnswer, Dispatcher, Error, Execution, SessionHandle, reply::Later};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::version;

/// What the command line said of the guest that only managers ask for.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: Option<String>,
    /// Its identifier.
    pub uuid: Uuid,
}

/// What commands work on.
#[derive(Clone)]
pub struct Context {
    /// The machine.
    pub machine: Arc<Machine>,
    /// The guest's identity.
    pub identity: Arc<Identity>,
    /// Character backends.
    pub chars: Arc<CharDevices>,
}

/// The handlers, for the length of one command.
pub struct Commands<'a> {
    context: &'a Context,
    /// Whose command it is.
    session: &'a SessionHandle,
    /// What is left for after the answer; without a client that waits for one, for the end of these.
    after_answer: Option<AfterAnswer>,
    /// What has the answer instead of the handler, for commands that only sometimes take long.
    instead: Option<Later<Value>>,
}

impl<'a> Commands<'a> {
    /// The handlers over `context`, for a command of `session`.
    pub fn new(context: &'a Context, session: &'a SessionHandle) -> Self {
        Self { context, session, after_answer: None, instead: None }
    }

    /// Does `work` once the command's answer is on its way, or nobody waits for it any more.
    fn after_answer(&mut self, work: impl FnOnce() + Send + 'static) {
        self.after_answer = Some(AfterAnswer::new(work));
    }

    /// What is left for after the answer.
    pub fn into_rest(self) -> Option<AfterAnswer> {
        self.after_answer
    }

    fn machine(&self) -> &'a Arc<Machine> {
        &self.context.machine
    }

    /// The processor of number `index`.
    fn processor(&self, index: i64) -> Result<usize, Error> {
        usize::try_from(index)
            .ok()
            .filter(|&index| self.machine().processors().get(index).is_some())
            .ok_or_else(|| Error::generic("Parameter 'cpu-index' expects a CPU number"))
    }
}

/// An error of the machine's, as a client sees it.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: MachineError) -> Error {
    Error::generic(error)
}

impl Dispatcher for Context {
    fn version(&self) -> Value {
        let (major, minor, micro) = version::COMPATIBLE;
        json!({ "qemu": { "micro": micro, "minor": minor, "major": major }, "package": version::PACKAGE })
    }

    fn allows_oob(&self, command: &str) -> Option<bool> {
        rhea_api::command(command).map(|row| row.allow_oob)
    }

    fn execute(&self, session: &SessionHandle, command: &str, arguments: Map<String, Value>) -> Execution {
        rhea_core::trace!(HANDLE_QMP_COMMAND, "req: {command} {}", Value::Object(arguments.clone()));
        let mut commands = Commands::new(self, session);
        let outcome = rhea_api::dispatch(&mut commands, command, arguments);
        let outcome = match (outcome, commands.instead.take()) {
            (Ok(_), Some(job)) => Ok(Outcome::Later(job)),
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(Outcome::Done(value)) => match commands.after_answer {
                Some(after) => Execution::DoneThen(Ok(value), after),
                None => Execution::Done(Ok(value)),
            },
            Ok(Outcome::Later(job)) => match commands.after_answer {
                Some(after) => Execution::LaterThen(job, after),
                None => Execution::Later(job),
            },
            Err(error) => Execution::Done(Err(error)),
        }
    }
}
