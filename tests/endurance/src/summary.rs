//! The result as text and JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use nixfleet_audit::{Check, check};
use nixfleet_harness::progress_printer::Printer;
use serde::Serialize;

use crate::args::Volume;
use crate::final_checks::DISK_LIMIT;
use crate::number_format::{format_bytes, format_count};
use crate::output_follower::OutcomeCounts;
use crate::phases::Phase;
use crate::sampler::{Sample, Samples};

/// Summary of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// True when every check holds.
    pub holds: bool,
    /// Command line of the run.
    pub command: String,
    /// Hosts of the channel.
    pub hosts: usize,
    /// Releases that were rolled out.
    pub releases: u32,
    /// Seconds of the run.
    pub seconds: f64,
    /// Agents' events that were accepted.
    pub accepted: u64,
    /// Agents' events that were rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// The phases of the run.
    pub phases: Vec<Phase>,
    /// The largest value of each sampled size and lag.
    pub most: Maxima,
    /// Limit of the bytes on the disk of the bus.
    pub disk_limit: u64,
    /// Seconds until a dropped database was back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt_seconds: Option<f64>,
    /// Checks with their faults.
    pub checks: BTreeMap<&'static str, Option<String>>,
    /// One sample per second.
    pub samples: Vec<Sample>,
}

/// Largest values; names and meanings are those of [`Sample`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Maxima {
    pub input_bytes: u64,
    pub output_bytes: u64,
    pub object_bytes: u64,
    pub disk_bytes: u64,
    pub database_bytes: u64,
    pub applier_lag: u64,
    pub archive_lag: u64,
}

/// Data that a run collected.
pub struct RunData {
    /// Size of the run.
    pub volume: Volume,
    /// Releases that were rolled out.
    pub releases: u32,
    /// Counts of outcomes.
    pub outcome_counts: OutcomeCounts,
    /// The phases of the run.
    pub phases: Vec<Phase>,
    /// Samples of the run.
    pub samples: Samples,
    /// Seconds until a dropped database was back.
    pub rebuilt_seconds: Option<f64>,
    /// Checks of the run.
    pub checks: Vec<Check>,
}

impl Summary {
    /// Puts findings together.
    pub fn new(found: RunData) -> Self {
        let samples = found.samples.samples;
        let options: Vec<String> = std::env::args().skip(1).collect();
        Self {
            holds: check::all_hold(&found.checks),
            command: format!("cargo xtask endurance {}", options.join(" ")),
            hosts: found.volume.hosts,
            releases: found.releases,
            seconds: samples.last().map_or(0.0, |sample| sample.seconds),
            accepted: found.outcome_counts.accepted,
            rejected: found.outcome_counts.rejected,
            phases: found.phases,
            most: Maxima::of(&samples),
            disk_limit: DISK_LIMIT,
            rebuilt_seconds: found.rebuilt_seconds,
            checks: found
                .checks
                .into_iter()
                .map(|check| (check.name, check.fault))
                .collect(),
            samples,
        }
    }

    /// Prints the result as text, or as JSON with `--json`.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn print(&self, printer: Printer, json: bool) -> Result<()> {
        for line in self.lines() {
            printer.line(&line);
        }
        if json {
            println!("{}", serde_json::to_string_pretty(self)?);
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for phase in &self.phases {
            let seconds = phase.ends - phase.begins;
            let most = self.most_disk(phase).map_or("-".to_owned(), format_bytes);
            lines.push(format!(
                "{:<36} {seconds:>8.1} s {:>10} events   disk of the bus at most {most}",
                phase.name,
                format_count(phase.events)
            ));
        }
        let most = &self.most;
        lines.push(format!(
            "\n{} hosts, {} releases, {} events accepted in {:.0} s",
            format_count(self.hosts as u64),
            self.releases,
            format_count(self.accepted),
            self.seconds
        ));
        if !self.rejected.is_empty() {
            lines.push(format!("rejected: {:?}", self.rejected));
        }
        lines.push(format!(
            "at most: disk of the bus {} of {}, logs {} in and {} out, objects {}, database {}, lag {} \
             applied and {} archived",
            format_bytes(most.disk_bytes),
            format_bytes(self.disk_limit),
            format_bytes(most.input_bytes),
            format_bytes(most.output_bytes),
            format_bytes(most.object_bytes),
            format_bytes(most.database_bytes),
            format_count(most.applier_lag),
            format_count(most.archive_lag),
        ));
        if let Some(seconds) = self.rebuilt_seconds {
            lines.push(format!(
                "rebuilding the rows of the dropped database took {seconds:.1} s"
            ));
        }
        lines.push(String::new());
        lines.extend(self.checks.iter().map(|(name, fault)| match fault {
            None => format!("ok    {name}"),
            Some(fault) => format!("FAIL  {name}: {fault}"),
        }));
        lines
    }

    fn most_disk(&self, phase: &Phase) -> Option<u64> {
        let within = phase.begins..=phase.ends + 1.0;
        let samples = self.samples.iter();
        let samples = samples.filter(|sample| within.contains(&sample.seconds));
        samples.map(|sample| sample.disk_bytes).max()
    }
}

impl Maxima {
    fn of(samples: &[Sample]) -> Self {
        let most = |value: fn(&Sample) -> u64| samples.iter().map(value).max().unwrap_or(0);
        Self {
            input_bytes: most(|sample| sample.input_bytes),
            output_bytes: most(|sample| sample.output_bytes),
            object_bytes: most(|sample| sample.object_bytes),
            disk_bytes: most(|sample| sample.disk_bytes),
            database_bytes: most(|sample| sample.database_bytes.unwrap_or(0)),
            applier_lag: most(|sample| sample.applier_lag),
            archive_lag: most(|sample| sample.archive_lag),
        }
    }
}
