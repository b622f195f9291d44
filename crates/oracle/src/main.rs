//! The oracle's command line: a run for some seconds, or one case.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rhea_oracle::features;

const USAGE: &str = "\
usage: cargo xtask oracle [--seconds N] [--seed S] [--case N] [--only NAME] [--bits 16|32|64] [--report FILE]

  --seconds N     how long (10)
  --seed S        another seed makes other cases (1)
  --case N        this case alone, in full
  --line          of that case the line for crates/oracle/corpus, with what this host makes of it
  --only NAME     instructions of this mnemonic, of this code of the decoder's or of this feature of its, such as SSE2
  --bits N        code of this size alone (16, 32 and 64)
  --with NAMES    features, as `-cpu` names them, that the engine does not offer yet
  --write-corpus  write cases of every instruction, with what this host makes of them, to crates/oracle/corpus
  --report FILE   write the report there; mismatches are printed all the same";

/// What is asked for.
struct Options {
    seconds: u64,
    seed: u64,
    case: Option<u64>,
    line: bool,
    only: Option<String>,
    bits: Vec<u8>,
    report: Option<String>,
    write_corpus: bool,
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options {
        seconds: 10,
        seed: 1,
        case: None,
        line: false,
        only: None,
        bits: vec![16, 32, 64],
        report: None,
        write_corpus: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value\n{USAGE}"));
        match argument.as_str() {
            "--seconds" => options.seconds = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--case" => options.case = Some(value()?.parse()?),
            "--line" => options.line = true,
            "--only" => options.only = Some(value()?),
            "--bits" => options.bits = vec![value()?.parse()?],
            "--write-corpus" => options.write_corpus = true,
            "--with" => features::add(&value()?).map_err(anyhow::Error::msg)?,
            "--report" => options.report = Some(value()?),
            _ => bail!("there is no option '{argument}'\n{USAGE}"),
        }
    }
    if options.bits.iter().any(|bits| ![16, 32, 64].contains(bits)) {
        bail!("code is of 16, 32 or 64 bits");
    }
    Ok(options)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run() -> anyhow::Result<bool> {
    use rhea_oracle::{
        corpus,
        native::{self, Host},
        run::Run,
    };
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(native::CHILD_ARGUMENT) {
        let descriptor = arguments.next().context("no descriptor")?.parse()?;
        native::child::run(descriptor)?;
        return Ok(true);
    }
    let options = options()?;
    let host = Host::start(std::env::current_exe()?)?;
    let mut run = Run::new(host, options.seed, &options.bits, options.only.as_deref())?;
    if let (Some(number), true) = (options.case, options.line) {
        println!("{}", run.line(number)?);
        return Ok(true);
    }
    if let Some(number) = options.case {
        let (text, agree) = run.one(number)?;
        print!("{text}");
        return Ok(agree);
    }
    if options.write_corpus {
        let (cases, bytes) = corpus::write(&mut run)?;
        println!("{cases} cases, {bytes} bytes");
        return Ok(true);
    }
    let report = run.until(Instant::now() + Duration::from_secs(options.seconds))?;
    if let Some(path) = options.report {
        fs::write(&path, report.to_string()).with_context(|| format!("could not write {path}"))?;
    }
    print!("{}", report.faults());
    println!("{}", report.summary());
    Ok(report.mismatches() == 0)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn run() -> anyhow::Result<bool> {
    let _ = (options()?.write_corpus, fs::exists("."), Duration::ZERO, Instant::now());
    bail!("the oracle is a processor of x86-64 under Linux: this host has none");
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
