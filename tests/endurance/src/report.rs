//! The result, for people and for machines.

use std::collections::BTreeMap;

use anyhow::Result;
use nixfleet_audit::Check;
use nixfleet_harness::say::Say;
use serde::Serialize;

use crate::args::Volume;
use crate::checks::DISK_LIMIT;
use crate::follower::Answered;
use crate::phases::Phase;
use crate::sampler::{Sample, Samples};
use crate::units::{count, size};

/// Everything that a run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether everything holds.
    pub holds: bool,
    /// The command that made it.
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
    /// The parts of the run.
    pub phases: Vec<Phase>,
    /// The largest value of each sampled size and lag.
    pub most: Most,
    /// Most bytes allowed on the disk of the bus.
    pub disk_limit: u64,
    /// Seconds until a dropped database was back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt_seconds: Option<f64>,
    /// What must hold, with what is wrong.
    pub checks: BTreeMap<&'static str, Option<String>>,
    /// One per second.
    pub samples: Vec<Sample>,
}

/// Largest values; names and meanings are those of [`Sample`].
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Most {
    pub input_bytes: u64,
    pub output_bytes: u64,
    pub object_bytes: u64,
    pub disk_bytes: u64,
    pub database_bytes: u64,
    pub applier_lag: u64,
    pub archive_lag: u64,
}

/// What a report is made of.
pub struct Findings {
    /// How much was to be done.
    pub volume: Volume,
    /// Releases that were rolled out.
    pub releases: u32,
    /// What was answered.
    pub answered: Answered,
    /// The parts of the run.
    pub phases: Vec<Phase>,
    /// What was sampled.
    pub samples: Samples,
    /// Seconds until a dropped database was back.
    pub rebuilt_seconds: Option<f64>,
    /// What must hold.
    pub checks: Vec<Check>,
}

impl Report {
    /// Puts findings together.
    pub fn new(found: Findings) -> Self {
        let samples = found.samples.samples;
        let options: Vec<String> = std::env::args().skip(1).collect();
        Self {
            holds: found.checks.iter().all(|check| check.fault.is_none()),
            command: format!("cargo xtask endurance {}", options.join(" ")),
            hosts: found.volume.hosts,
            releases: found.releases,
            seconds: samples.last().map_or(0.0, |sample| sample.seconds),
            accepted: found.answered.accepted,
            rejected: found.answered.rejected,
            phases: found.phases,
            most: Most::of(&samples),
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

    /// Prints it: words for people, JSON for machines when they asked for it.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn print(&self, say: Say, json: bool) -> Result<()> {
        for line in self.lines() {
            say.line(&line);
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
            let most = self.most_disk(phase).map_or("-".to_owned(), size);
            lines.push(format!(
                "{:<36} {seconds:>8.1} s {:>10} events   disk of the bus at most {most}",
                phase.name,
                count(phase.events)
            ));
        }
        let most = &self.most;
        lines.push(format!(
            "\n{} hosts, {} releases, {} events accepted in {:.0} s",
            count(self.hosts as u64),
            self.releases,
            count(self.accepted),
            self.seconds
        ));
        if !self.rejected.is_empty() {
            lines.push(format!("rejected: {:?}", self.rejected));
        }
        lines.push(format!(
            "at most: disk of the bus {} of {}, logs {} in and {} out, objects {}, database {}, lag {} \
             applied and {} archived",
            size(most.disk_bytes),
            size(self.disk_limit),
            size(most.input_bytes),
            size(most.output_bytes),
            size(most.object_bytes),
            size(most.database_bytes),
            count(most.applier_lag),
            count(most.archive_lag),
        ));
        if let Some(seconds) = self.rebuilt_seconds {
            lines.push(format!(
                "the rows of the dropped database took {seconds:.1} s"
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

impl Most {
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
