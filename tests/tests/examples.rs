//! Runs the example of every command that this program answers, as the schema's documentation gives it, on a live machine.
//!
//! A reply has to be of the kind and shape that the example shows; numbers and texts may differ. Files of the examples are
//! written into the directory of the run.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use rhea_qapi::{Example, Flow, Schema};
use rhea_tests::pattern::Pattern;
use rhea_tests::run::hold;
use rhea_tests::transcript::{Action, Guest, Header, Passed, Step, Transcript};
use serde_json::Value;

/// The machine that the examples speak of.
const MACHINE: [&str; 18] = [
    "-device",
    "virtio-balloon-pci",
    "-device",
    "vmgenid",
    "-machine",
    "pc",
    "-m",
    "64,slots=4,maxmem=1G",
    "-object",
    "memory-backend-ram,id=module0,size=16M",
    "-device",
    "pc-dimm,id=dimm0,memdev=module0",
    "-smp",
    "2,maxcpus=4",
    "-name",
    "web-7",
    "-uuid",
    "3f0a2d4c-8b1e-4c57-9a6d-5e21c0b7f894",
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/qapi-schema.json");
    let schema = match Schema::load(&root) {
        Ok(schema) => schema,
        Err(faults) => {
            faults.iter().for_each(|fault| eprintln!("{fault}"));
            return ExitCode::FAILURE;
        }
    };
    let answered = |name: &str| rhea_api::COMMANDS.iter().any(|command| command.name == name);
    let trials = schema.commands().filter(|(definition, _)| answered(&definition.name)).map(|(definition, _)| {
        let module = &schema.modules[definition.module];
        let examples = definition.doc.iter().flat_map(|doc| doc.examples()).collect::<Vec<_>>();
        let (command, place) = (definition.name.clone(), module.path.display().to_string());
        Trial::test(format!("{}/{command}", module.name), move || Ok(run(&command, &examples, &place)?))
    });
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(command: &str, examples: &[Example], place: &str) -> Result<(), String> {
    if examples.is_empty() {
        return Err(format!("{place}: '{command}' has no example"));
    }
    examples.iter().try_for_each(|example| hold(&transcript(command, example)?, place))
}

fn transcript(command: &str, example: &Example) -> Result<Transcript, String> {
    let mut steps = Vec::new();
    // The example of negotiation is of a session that is not open yet.
    let negotiate = command != "qmp_capabilities";
    if !negotiate {
        steps.push(Step { line: example.position.line(), action: Action::Reply(Pattern::Any) });
    }
    for step in &example.steps {
        let action = match step.flow {
            Flow::Sent => {
                // Which descriptor goes along is not written in an example.
                let passes =
                    ["getfd", "add-fd"].iter().any(|name| step.text.contains(&format!("\"execute\": \"{name}\"")));
                if passes {
                    steps.push(Step { line: step.line, action: Action::Pass(Passed::Socket) });
                }
                Action::Send(step.text.replace("\"/tmp/", "\"@DIR@/"))
            }
            Flow::Received | Flow::Event => {
                received(step.json().map_err(|error| format!("line {}: {error}", step.line))?)
            }
        };
        steps.push(Step { line: step.line, action });
    }
    if command == "quit" {
        steps.push(Step { line: example.position.line(), action: Action::Exit(0) });
    }
    let header = Header {
        machine: MACHINE.map(str::to_owned).to_vec(),
        prepare: vec!["qemu-img create -q -f qcow2 disk.qcow2 64M".to_owned()],
        guest: Guest::Embedded,
        negotiate,
        ignore: Vec::new(),
        timeout: Duration::from_secs(30),
    };
    Ok(Transcript { header, steps })
}

fn received(mut message: Value) -> Action {
    if let Some(members) = message.as_object_mut()
        && members.contains_key("event")
    {
        members.shift_remove("timestamp");
        return Action::Event(Pattern::shaped_like(&message, &["event", "reason", "guest"]));
    }
    Action::Reply(Pattern::shaped_like(&message, &["class", "status", "running", "arch", "target", "UUID"]))
}
