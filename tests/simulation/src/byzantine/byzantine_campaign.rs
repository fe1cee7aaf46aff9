//! Many seeds of the hostile control plane, and what they covered.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::byzantine_run::{ByzantineRun, command, run};
use super::coverage::Coverage;
use crate::campaign::Failure;
use crate::engine::trace::Output;
use crate::seed_threads::{SeedRange, SeedSummary};

/// The results.
#[derive(Debug, Clone, Default)]
pub struct ByzantineSummary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed, by seed.
    pub failures: Vec<Failure>,
    /// What all runs covered.
    pub coverage: Coverage,
    /// Events of all runs.
    pub events: u64,
    /// Real time.
    pub took: Duration,
}

/// Runs the seeds and reports progress.
pub fn run_many(range: &SeedRange, tell: impl Fn(&ByzantineSummary) + Sync) -> ByzantineSummary {
    let mut summary: ByzantineSummary = range.run(|seed| run(seed, Output::Nowhere), tell);
    summary.failures.sort_by_key(|failure| failure.seed);
    summary
}

impl SeedSummary<ByzantineRun> for ByzantineSummary {
    fn add(&mut self, seed: u64, result: ByzantineRun) {
        self.seeds += 1;
        self.events += result.events;
        self.coverage.add(&result.coverage);
        if let Some(violation) = result.violation {
            self.failures.push(Failure { seed, violation });
        }
    }

    fn set_took(&mut self, took: Duration) {
        self.took = took;
    }

    fn failures(&self) -> usize {
        self.failures.len()
    }
}

impl ByzantineSummary {
    /// For people.
    pub fn text(&self) -> String {
        let Coverage {
            falsehoods,
            answers,
            walks,
            walks_in_a_row,
            switches,
            rollbacks,
            refusals,
            crashes,
            power_losses,
            lost_disks,
            recovery_seconds,
        } = &self.coverage;
        let mut text = format!(
            "{} seeds, {} failed; {:.1} s, {} events\n{} false answers in {answers} answers; {switches} \
             switches, {rollbacks} rollbacks, {refusals} refusals; {crashes} crashes, \
             {power_losses} power losses, {lost_disks} lost disks; longest recovery \
             {recovery_seconds} s\n",
            self.seeds,
            self.failures.len(),
            self.took.as_secs_f64(),
            self.events,
            self.coverage.falsehoods_told(),
        );
        let counted = walks
            .iter()
            .map(|(state, count)| format!("{state:?} {count}"));
        append(&mut text, "furthest state of each walk", counted);
        let rows = walks_in_a_row.iter();
        let counted = rows.map(|(walks, hosts)| format!("{walks}: {hosts}"));
        append(&mut text, "walks of each disk", counted);
        let counted = falsehoods
            .iter()
            .map(|(falsehood, count)| format!("{falsehood:?} {count}"));
        append(&mut text, "false answers", counted);
        for Failure { seed, violation } in &self.failures {
            let (invariant, message) = (violation.invariant, &violation.message);
            append(
                &mut text,
                &format!("seed {seed} broke {invariant}"),
                [message.clone(), format!("repeat: {}", command(*seed))],
            );
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let named = |(falsehood, count): (&super::coverage::Falsehood, &u64)| {
            (format!("{falsehood:?}"), *count)
        };
        let falsehoods: std::collections::BTreeMap<_, _> =
            self.coverage.falsehoods.iter().map(named).collect();
        let failures = self.failures.iter().map(|failure| {
            json!({
                "seed": failure.seed,
                "invariant": failure.violation.invariant,
                "message": failure.violation.message,
                "repeat": command(failure.seed),
            })
        });
        json!({
            "seeds": self.seeds,
            "failures": failures.collect::<Vec<_>>(),
            "seconds": self.took.as_secs_f64(),
            "events": self.events,
            "answers": self.coverage.answers,
            "falseAnswers": falsehoods,
            "switches": self.coverage.switches,
            "rollbacks": self.coverage.rollbacks,
            "refusals": self.coverage.refusals,
        })
    }
}

fn append(text: &mut String, title: &str, items: impl IntoIterator<Item = String>) {
    let items: Vec<_> = items.into_iter().collect();
    writeln!(text, "{title}: {}", items.join(", ")).expect("a text takes what is written");
}
