//! A run: batch after batch to the host, each executed by the interpreter meanwhile, and compared.

use std::{fmt::Write, io, time::Instant};

use iced_x86::Instruction;

use crate::{
    case::{Case, Outcome},
    compare::{Judge, differences},
    corpus,
    generate::{Generated, Generator},
    interpreter::{Interpreter, Way},
    native::{BATCH, Host, Native},
    report::Report,
    text,
};

/// A generator, and both sides.
pub struct Run {
    host: Host,
    interpreter: Interpreter,
    generator: Generator,
    seed: u64,
    chosen: String,
}

/// How what a case came to differs; nothing if it does not.
fn mismatch(case: &Case, instruction: &Instruction, native: &Native, interpreted: &Outcome) -> Option<String> {
    let mut told = String::new();
    match native {
        Native::Lost(reason) => {
            let _ = writeln!(told, "  {}: {reason}", crate::LOST);
        }
        Native::Ended(native) => {
            for difference in differences(Judge::host(), case, instruction, native, interpreted) {
                let _ = writeln!(
                    told,
                    "  {}: host {}, interpreter {}",
                    difference.place, difference.native, difference.interpreted
                );
            }
        }
    }
    (!told.is_empty()).then_some(told)
}

/// What the report calls an instruction.
fn name(instruction: &Instruction) -> String {
    format!("{:?}", instruction.code())
}

impl Run {
    /// A run on `host` of the cases of `seed`.
    ///
    /// # Errors
    /// When the interpreter gets no memory.
    pub fn new(host: Host, seed: u64, bits: &[u8], only: Option<&str>) -> io::Result<Self> {
        let mut chosen = String::new();
        if let [bits] = bits {
            let _ = write!(chosen, " --bits {bits}");
        }
        if let Some(name) = only {
            let _ = write!(chosen, " --only {name}");
        }
        let generator = Generator::new(seed, bits, only);
        Ok(Self { host, interpreter: Interpreter::new()?, generator, seed, chosen })
    }

    /// The generator.
    pub const fn generator(&self) -> &Generator {
        &self.generator
    }

    /// What the host makes of cases.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn native(&mut self, cases: &[Case]) -> io::Result<Vec<Native>> {
        let mut results = Vec::with_capacity(cases.len());
        while results.len() < cases.len() {
            if self.host.send(&cases[results.len()..])? == 0 {
                return Err(io::Error::other("a case is larger than a batch"));
            }
            results.extend(self.host.wait()?);
        }
        Ok(results)
    }

    /// What the interpreter makes of a case.
    pub fn interpret(&mut self, case: &Case, way: Way) -> Outcome {
        self.interpreter.run(case, way)
    }

    /// Goes on until `deadline`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn until(&mut self, deadline: Instant) -> io::Result<Report> {
        let started = Instant::now();
        let mut report = Report::new(&self.generator);
        let mut number = 0;
        while Instant::now() < deadline && !self.generator.is_empty() {
            let numbers = number..number + BATCH as u64;
            number = numbers.end;
            let mut batch: Vec<(u64, Generated)> = Vec::with_capacity(BATCH);
            for number in numbers {
                match self.generator.case(number) {
                    Some(case) => batch.push((number, case)),
                    None => report.empty += 1,
                }
            }
            while !batch.is_empty() {
                let cases: Vec<Case> = batch.iter().map(|(_, generated)| generated.case.clone()).collect();
                if self.host.send(&cases)? == 0 {
                    return Err(io::Error::other("a case is larger than a batch"));
                }
                let outcomes: Vec<_> = cases.iter().map(|case| self.interpreter.run(case, Way::Blocks)).collect();
                let results = self.host.wait()?;
                let done = results.len();
                for (((number, generated), native), interpreted) in batch.drain(..done).zip(results).zip(outcomes) {
                    let Generated { case, instruction } = &generated;
                    let told = mismatch(case, instruction, &native, &interpreted).map(|told| {
                        format!(
                            "  --seed {} --case {number}{}: {}-bit {} {}\n{told}",
                            self.seed,
                            self.chosen,
                            case.bits,
                            text::hexadecimal(&case.bytes),
                            text::disassembly(instruction)
                        )
                    });
                    report.count(name(instruction), told);
                }
            }
        }
        report.time = started.elapsed();
        Ok(report)
    }

    /// One case as a line of the corpus.
    ///
    /// # Errors
    /// What the kernel says; a case that came to nothing.
    pub fn line(&mut self, number: u64) -> io::Result<String> {
        let nothing = || io::Error::other("nothing came of this case");
        let Generated { mut case, instruction } = self.generator.case(number).ok_or_else(nothing)?;
        corpus::simplify(&mut case, &instruction);
        match self.native(std::slice::from_ref(&case))?.first() {
            Some(Native::Ended(outcome)) => Ok(corpus::line(&case, outcome)),
            _ => Err(nothing()),
        }
    }

    /// One case in full, and whether both sides agree.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn one(&mut self, number: u64) -> io::Result<(String, bool)> {
        let Some(Generated { case, instruction }) = self.generator.case(number) else {
            return Ok(("nothing came of this case\n".to_owned(), true));
        };
        let native = self.native(std::slice::from_ref(&case))?;
        let interpreted = self.interpreter.run(&case, Way::Blocks);
        let mut told = text::describe(&case, &instruction);
        let Some(native) = native.first() else { return Ok((told, false)) };
        let mismatch = mismatch(&case, &instruction, native, &interpreted);
        if let Native::Ended(outcome) = native {
            let _ = writeln!(
                told,
                "  host: vector {}, error {:#x}, rip {:#x}",
                outcome.vector, outcome.error, outcome.registers.rip
            );
        }
        told.push_str(mismatch.as_deref().unwrap_or("  both agree\n"));
        Ok((told, mismatch.is_none()))
    }
}
