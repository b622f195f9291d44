//! Runs every transcript in `tests/qmp`, each as a test of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use rhea_tests::proofs::transcripts;
use rhea_tests::run::run;
use rhea_tests::transcript::Transcript;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("qmp");
    let files = match transcripts(&root) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{}: {error}", root.display());
            return ExitCode::FAILURE;
        }
    };
    let trials = files.into_iter().map(|file| trial(&root, file)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test named after the guest and the file, such as `linux/run-state/stop`: guests that boot Linux can be chosen by name.
fn trial(root: &Path, file: PathBuf) -> Trial {
    let text = fs::read_to_string(&file).unwrap_or_default();
    // A file that cannot be read as a transcript fails when it is run, with the reason.
    let guest = Transcript::parse(&text).map_or("none", |transcript| transcript.header.guest.name());
    let place = file.strip_prefix(root).unwrap_or(&file).with_extension("");
    Trial::test(format!("{guest}/{}", place.display()), move || run(&file).map_err(Failed::from))
}
