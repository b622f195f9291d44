//! The commands of the schema, one file a module. A handler translates; what is done is the machine's.

mod acpi;
mod block;
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

use std::{any::Any, sync::Arc};

use rhea_api::Outcome;
use rhea_backends::char::CharDevices;
use rhea_machine::{Machine, MachineError};
use rhea_qmp::{Dispatcher, Error, Execution, SessionHandle, reply::Later};
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
    /// What is to be done once the client has its answer.
    then: Option<Job>,
    /// What waits for the command's answer to be on its way.
    after_answer: Option<Box<dyn Any + Send>>,
    /// What has the answer instead of the handler, for commands that only sometimes take long.
    instead: Option<Later<Value>>,
}

/// Work.
type Job = Box<dyn FnOnce()>;

impl<'a> Commands<'a> {
    /// The handlers over `context`, for a command of `session`.
    pub fn new(context: &'a Context, session: &'a SessionHandle) -> Self {
        Self { context, session, then: None, after_answer: None, instead: None }
    }

    /// Drops `guard` once the command's answer is on its way, or nobody waits for it any more.
    fn after_answer(&mut self, guard: impl Any + Send) {
        self.after_answer = Some(Box::new(guard));
    }

    /// What is to be dropped once the answer is on its way.
    pub fn into_guard(self) -> Option<Box<dyn Any + Send>> {
        self.after_answer
    }

    /// Does what was left for after the answer, for whom there is none to wait for.
    pub fn finish(self) {
        if let Some(then) = self.then {
            then();
        }
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
            Ok(Outcome::Done(value)) => match commands.then {
                Some(then) => Execution::DoneThen(Ok(value), then),
                None => Execution::Done(Ok(value)),
            },
            Ok(Outcome::Later(job)) => match commands.after_answer.take() {
                Some(guard) => Execution::LaterThen(job, guard),
                None => Execution::Later(job),
            },
            Err(error) => Execution::Done(Err(error)),
        }
    }
}
