//! Which transcript proves a command or an event: the one in which a machine with a running guest answers it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::transcript::{Action, Guest, Transcript};

/// A transcript, by its path below the folder of all.
type Place = String;

/// The proofs of a folder of transcripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs {
    /// For each command that succeeds in a transcript and each event that comes in one: the best place.
    found: BTreeMap<String, (Rank, Place)>,
}

/// How good a proof is; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// A real system runs in the machine.
    bare: bool,
    /// The file is about something else.
    aside: bool,
    /// Shorter names are about less.
    length: usize,
}

impl Proofs {
    /// Reads all transcripts below `root`.
    ///
    /// # Errors
    /// A folder or file that cannot be read. What is no transcript proves nothing.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut proofs = Self::default();
        for file in transcripts(root)? {
            let place = file.strip_prefix(root).unwrap_or(&file).with_extension("").display().to_string();
            if let Ok(transcript) = Transcript::parse(&fs::read_to_string(&file)?) {
                proofs.add(&place, &transcript);
            }
        }
        Ok(proofs)
    }

    /// Where `name`, a command or an event, is proven.
    pub fn of(&self, name: &str) -> Option<&str> {
        self.found.get(name).map(|(_, place)| place.as_str())
    }

    fn add(&mut self, place: &str, transcript: &Transcript) {
        if transcript.header.guest == Guest::None {
            return;
        }
        let stem = place.rsplit('/').next().unwrap_or(place);
        let mut asked = std::collections::VecDeque::new();
        for step in &transcript.steps {
            let proven = match &step.action {
                Action::Send(text) => {
                    asked.push_back(command(text));
                    None
                }
                Action::Reply(reply) => asked.pop_front().flatten().filter(|_| reply.has_member("return")),
                Action::Event(event) => event.fixed_string("event").map(str::to_owned),
                _ => None,
            };
            if let Some(name) = proven {
                let rank = Rank {
                    bare: !transcript.header.guest.has_shell(),
                    aside: !stem.to_lowercase().starts_with(&name.to_lowercase()),
                    length: place.len(),
                };
                let better = self.found.get(&name).is_none_or(|(best, _)| rank < *best);
                if better {
                    self.found.insert(name, (rank, place.to_owned()));
                }
            }
        }
    }
}

/// The command that a text asks for. Lines that the run keeps may stand anywhere in it: `@NAME@` is taken for a 0.
fn command(text: &str) -> Option<String> {
    let mut plain = String::new();
    for (index, part) in text.split('@').enumerate() {
        plain.push_str(if index % 2 == 0 { part } else { "0" });
    }
    let message: Value = serde_json::from_str(&plain).ok()?;
    let name = message.get("execute").or_else(|| message.get("exec-oob"))?;
    name.as_str().map(str::to_owned)
}

/// All transcripts below `root`, by name.
///
/// # Errors
/// A folder that cannot be read.
pub fn transcripts(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "qmp") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a transcript of these tests that cannot be read is a fault of theirs")]
mod tests {
    use super::*;

    fn proofs(files: &[(&str, &str)]) -> Proofs {
        let mut proofs = Proofs::default();
        for (place, text) in files {
            proofs.add(place, &Transcript::parse(text).unwrap());
        }
        proofs
    }

    #[test]
    fn only_success_with_a_running_guest_is_a_proof() {
        let asks = r#"-> { "execute": "stop" }"#;
        let proofs = proofs(&[
            ("a/stop", &format!("{asks}\n<- {{ \"return\": {{}} }}")),
            ("b/other", &format!("guest linux\n{asks}\n<- {{ \"error\": \"*any*\" }}")),
        ]);
        assert_eq!(proofs.of("stop"), None);
    }

    #[test]
    fn replies_belong_to_what_was_asked_first_and_events_prove_themselves() {
        let text = "guest linux\n-> { \"execute\": \"stop\" }\n-> { \"execute\": \"nothing\" }\n<= { \"event\": \"STOP\" }\n\
                    <- { \"return\": {} }\n<- { \"error\": \"*any*\" }";
        let proofs = proofs(&[("run/stop", text)]);
        assert_eq!(
            (proofs.of("stop"), proofs.of("STOP"), proofs.of("nothing")),
            (Some("run/stop"), Some("run/stop"), None)
        );
    }

    #[test]
    fn a_real_system_is_the_better_proof_and_then_the_file_of_the_same_name() {
        let of = |guest: &str| format!("guest {guest}\n-> {{ \"execute\": \"stop\" }}\n<- {{ \"return\": {{}} }}");
        let files = [("a/stop", of("embedded")), ("a/x", of("linux")), ("a/stop-long", of("linux"))];
        let files: Vec<(&str, &str)> = files.iter().map(|(place, text)| (*place, text.as_str())).collect();
        assert_eq!(proofs(&files).of("stop"), Some("a/stop-long"));
    }
}
