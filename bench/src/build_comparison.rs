//! Comparison with another build: both programs measure the same stages in turn, and the result is the
//! ratio of each pair. The speed of the machine varies between runs, but little within a pair.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::measurements::{median, number};

/// Name of the program in the folder of a build.
const PROGRAM: &str = "nixfleet-bench";
/// Part of repeated comparisons whose interval shall hold the true median.
const CONFIDENCE: f64 = 0.95;

#[derive(Debug)]
pub struct Comparison {
    /// Program of this build.
    pub own: PathBuf,
    /// The other build.
    pub other: PathBuf,
    pub stages: Vec<String>,
    /// Options of both programs.
    pub options: Vec<String>,
    /// Environment of both programs, so that they start the same servers.
    pub environment: BTreeMap<String, String>,
    pub rounds: usize,
}

/// A measurement of both builds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    #[serde(flatten)]
    pub key: Key,
    /// Values of this build, one per pair.
    pub own: Vec<f64>,
    /// Values of the other build, one per pair.
    pub other: Vec<f64>,
    /// Above 1 this build is better: its rate by the other's, or the other's time or size by its own.
    pub ratios: Vec<f64>,
    pub median: f64,
    /// Bounds of the median with a confidence of 95 %; absent with fewer than six pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
}

/// Identity of a measurement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<usize>,
    /// Name of the measured quantity.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
}

#[derive(Debug, Deserialize)]
struct Measured {
    #[serde(rename = "figures")]
    measurements: Vec<PairedMeasurement>,
}

#[derive(Debug, Deserialize)]
struct PairedMeasurement {
    #[serde(flatten)]
    key: Key,
    value: f64,
}

type Values = BTreeMap<Key, f64>;

/// The program of another build: the file itself, or its folder.
pub fn program(path: &Path) -> Result<PathBuf> {
    let program = if path.is_dir() {
        path.join(PROGRAM)
    } else {
        path.to_owned()
    };
    ensure!(
        program.is_file(),
        "there is no {}; build the other checkout with `cargo build --release --workspace` and give its \
         folder target/release",
        program.display()
    );
    Ok(program)
}

impl Comparison {
    /// Measures all pairs and prints progress on standard error.
    ///
    /// # Errors
    /// When a program fails, or a measurement is missing in the other build.
    pub fn run(&self) -> Result<Vec<Compared>> {
        let mut compared = Vec::new();
        for stage in &self.stages {
            let mut pairs = Vec::new();
            for round in 0..self.rounds {
                eprintln!("{stage}: pair {} of {}", round + 1, self.rounds);
                let own = || self.measure(&self.own, stage);
                let other = || self.measure(&self.other, stage);
                // The order alternates: the second program runs with warm caches and more pending writes.
                let pair = if round.is_multiple_of(2) {
                    let own = own()?;
                    (own, other()?)
                } else {
                    let other = other()?;
                    (own()?, other)
                };
                pairs.push(pair);
            }
            compared.extend(compare(&pairs));
        }
        ensure!(
            !compared.is_empty(),
            "the builds have no measurement in common"
        );
        Ok(compared)
    }

    fn measure(&self, program: &Path, stage: &str) -> Result<Values> {
        let dir = tempfile::tempdir().context("creating a directory")?;
        let json = dir.path().join("figures.json");
        let mut command = Command::new(program);
        command.args(["--stage", stage, "--rounds", "1", "--json"]);
        command.arg(&json).args(&self.options);
        command.envs(&self.environment);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        let status = command.status();
        let status = status.with_context(|| format!("starting {}", program.display()))?;
        ensure!(status.success(), "{} failed: {status}", program.display());
        let text = std::fs::read(&json).context("reading the measurements")?;
        let measured: Measured =
            serde_json::from_slice(&text).context("reading the measurements")?;
        let measurements = measured.measurements.into_iter();
        let of_stage = measurements.filter(|measurement| measurement.key.stage == stage);
        Ok(of_stage
            .map(|measurement| (measurement.key, measurement.value))
            .collect())
    }
}

/// Compares the measurements that every pair contains.
fn compare(pairs: &[(Values, Values)]) -> Vec<Compared> {
    let Some((first, _)) = pairs.first() else {
        return Vec::new();
    };
    let keys = first.keys().filter(|key| {
        let mut sides = pairs.iter().flat_map(|(own, other)| [own, other]);
        sides.all(|values| values.contains_key(key))
    });
    let compared = keys.map(|key| {
        let own: Vec<f64> = pairs.iter().map(|(own, _)| own[key]).collect();
        let other: Vec<f64> = pairs.iter().map(|(_, other)| other[key]).collect();
        Compared::new(key.clone(), own, other)
    });
    compared.collect()
}

impl Compared {
    fn new(key: Key, own: Vec<f64>, other: Vec<f64>) -> Self {
        let pairs = own.iter().zip(&other);
        let ratios: Vec<f64> = pairs
            .map(|(own, other)| {
                if key.is_rate() {
                    own / other
                } else {
                    other / own
                }
            })
            .collect();
        Self {
            median: median(&ratios),
            interval: interval(&ratios),
            key,
            own,
            other,
            ratios,
        }
    }

    /// The comparison as a line of text.
    pub fn line(&self) -> String {
        let Key {
            stage,
            hosts,
            name,
            unit,
        } = &self.key;
        let hosts = hosts.map_or_else(String::new, |hosts| hosts.to_string());
        let interval = match self.interval {
            Some((low, high)) => format!("95 % {low:.2} to {high:.2}"),
            None => "no interval with fewer than 6 pairs".to_owned(),
        };
        format!(
            "{stage:<13} {hosts:>8} {name:<44} {:>12} against {:>12} {unit}; ratio {:.3}, {interval}",
            number(median(&self.own)),
            number(median(&self.other)),
            self.median
        )
    }
}

impl Key {
    /// More is better; of times and sizes, less is.
    fn is_rate(&self) -> bool {
        self.unit.ends_with("/s")
    }
}

/// Bounds of the median from order statistics: for any distribution, the median lies between the k-th
/// smallest and the k-th largest sample with a known probability.
///
/// Source: David and Nagaraja, Order Statistics, section 7.1.
fn interval(samples: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let mut outside = 0.0;
    // Probability that exactly `below` samples lie below the median.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut bounds = None;
    for below in 0..count / 2 {
        outside += 2.0 * exactly;
        if 1.0 - outside < CONFIDENCE {
            break;
        }
        bounds = Some((sorted[below], sorted[count - 1 - below]));
        exactly *= (count - below) as f64 / (below + 1) as f64;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, unit: &str) -> Key {
        Key {
            stage: "reducer".to_owned(),
            hosts: None,
            name: name.to_owned(),
            unit: unit.to_owned(),
        }
    }

    #[test]
    fn the_interval_leaves_out_as_many_extremes_as_the_confidence_allows() {
        let samples = |count: u32| (1..=count).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(interval(&samples(5)), None);
        assert_eq!(interval(&samples(6)), Some((1.0, 6.0)));
        assert_eq!(interval(&samples(7)), Some((1.0, 7.0)));
        assert_eq!(interval(&samples(9)), Some((2.0, 8.0)));
        assert_eq!(interval(&samples(20)), Some((6.0, 15.0)));
    }

    #[test]
    fn a_ratio_above_one_means_better_for_every_unit() {
        let rate = Compared::new(key("entries", "entries/s"), vec![200.0], vec![100.0]);
        let time = Compared::new(key("wait", "ms"), vec![5.0], vec![10.0]);
        assert_eq!((rate.median, time.median), (2.0, 2.0));
        assert!(rate.line().contains("200 against"), "{}", rate.line());
    }

    #[test]
    fn measurements_missing_in_one_build_are_left_out() {
        let (both, new) = (key("entries", "entries/s"), key("new", "ms"));
        let own = Values::from([(both.clone(), 3.0), (new, 1.0)]);
        let other = Values::from([(both.clone(), 2.0)]);
        let compared = compare(&[(own, other)]);
        assert_eq!(compared.len(), 1);
        assert_eq!((&compared[0].key, compared[0].median), (&both, 1.5));
    }

    #[test]
    fn a_missing_build_is_reported_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let error = program(dir.path()).unwrap_err().to_string();
        assert!(error.contains("nixfleet-bench; build"), "{error}");
    }
}
