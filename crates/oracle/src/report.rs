//! What a run found: for each instruction the cases and the mismatches, the first of these in full, and what was left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    time::Duration,
};

use crate::{features::LeftOut, generate::Generator};

/// Most mismatches of one instruction that are shown in full.
const SHOWN: usize = 2;

/// Of one instruction.
#[derive(Clone, Debug, Default)]
struct Row {
    cases: u64,
    mismatches: u64,
    shown: Vec<String>,
}

/// A run.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<String, Row>,
    left_out: BTreeMap<LeftOut, BTreeSet<String>>,
    not_reached: BTreeSet<String>,
    /// Cases that no instruction came of.
    pub empty: u64,
    /// How long it took.
    pub time: Duration,
}

impl Report {
    /// A report of a run of what `generator` makes.
    pub fn new(generator: &Generator) -> Self {
        let mut report = Self::default();
        for instructions in generator.instructions() {
            for (code, reason) in &instructions.left_out {
                report.left_out.entry(*reason).or_default().insert(format!("{code:?}"));
            }
            report.not_reached.extend(instructions.executed.iter().map(|(code, _)| format!("{code:?}")));
        }
        report
    }

    /// A case of an instruction; `mismatch` tells of it if the sides disagreed.
    pub fn count(&mut self, instruction: String, mismatch: Option<String>) {
        self.not_reached.remove(&instruction);
        let row = self.rows.entry(instruction).or_default();
        row.cases += 1;
        if let Some(mismatch) = mismatch {
            row.mismatches += 1;
            // A case that costs the host its process is told of in any case.
            if row.shown.len() < SHOWN || mismatch.contains(crate::LOST) {
                row.shown.push(mismatch);
            }
        }
    }

    /// All cases.
    pub fn cases(&self) -> u64 {
        self.rows.values().map(|row| row.cases).sum()
    }

    /// All mismatches.
    pub fn mismatches(&self) -> u64 {
        self.rows.values().map(|row| row.mismatches).sum()
    }

    /// Cases a second.
    pub fn rate(&self) -> f64 {
        self.cases() as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// The sum in a line.
    pub fn summary(&self) -> String {
        format!(
            "{} cases of {} instructions in {:.1} s, {:.0} a second; {} mismatches in {} instructions",
            self.cases(),
            self.rows.len(),
            self.time.as_secs_f64(),
            self.rate(),
            self.mismatches(),
            self.rows.values().filter(|row| row.mismatches > 0).count()
        )
    }

    /// The mismatches alone.
    pub fn faults(&self) -> impl Display {
        fmt::from_fn(|f| {
            for (name, row) in self.rows.iter().filter(|(_, row)| row.mismatches > 0) {
                writeln!(f, "{name}: {} of {} cases mismatch", row.mismatches, row.cases)?;
                for shown in &row.shown {
                    writeln!(f, "{shown}")?;
                }
            }
            Ok(())
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\nInstruction: cases, mismatches", self.summary())?;
        for (name, row) in &self.rows {
            writeln!(f, "{name:<40} {:>8} {:>8}", row.cases, row.mismatches)?;
        }
        for (reason, names) in &self.left_out {
            writeln!(f, "\nLeft out, {} instructions: {}", names.len(), reason.reason())?;
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            for line in names.chunks(6) {
                writeln!(f, "  {}", line.join(" "))?;
            }
        }
        writeln!(f, "\nNot compared, since the manuals leave it open or processors differ:")?;
        for open in crate::compare::LEFT_OPEN {
            writeln!(f, "  {} ({})", open.what, open.source)?;
        }
        if !self.not_reached.is_empty() {
            writeln!(f, "\nNot reached:")?;
            for name in &self.not_reached {
                writeln!(f, "  {name}")?;
            }
        }
        writeln!(f, "\n{}", self.faults())
    }
}
