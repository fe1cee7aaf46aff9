//! Measurements of stages, compared with their baselines and their targets.

use std::fmt::Write as _;

use serde::Serialize;

/// Results of one invocation.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BenchReport {
    /// Command line of the run.
    pub command: String,
    /// Processor and number of cores.
    pub machine: String,
    /// In the order in which they were measured.
    #[serde(rename = "figures")]
    pub measurements: Vec<Measurement>,
}

/// A measured quantity.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// Stage of `--stage`.
    pub stage: &'static str,
    /// Name of the measured quantity.
    pub name: String,
    /// Size of the fleet, where it matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<usize>,
    /// Unit of the value.
    pub unit: &'static str,
    pub value: f64,
    pub samples: Vec<f64>,
    /// The bare work that bounds the measurement.
    #[serde(rename = "limit", skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(rename = "verdict", skip_serializing_if = "Option::is_none")]
    pub target_status: Option<TargetStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The baseline of a stage: the minimal work for the same result, measured in the same rounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Name of the bare work.
    pub name: String,
    pub value: f64,
    pub samples: Vec<f64>,
    /// Median over the rounds of the stage's rate divided by the baseline's.
    pub ratio: f64,
}

/// Target of a measurement.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The value is at least this.
    AtLeast(f64),
    /// The value is at most this.
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetStatus {
    Pass,
    Short,
}

/// The middle of the samples; 0 without any.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

impl Measurement {
    pub fn new(
        stage: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        samples: Vec<f64>,
    ) -> Self {
        Self {
            stage,
            name: name.into(),
            hosts: None,
            unit,
            value: median(&samples),
            samples,
            baseline: None,
            target: None,
            target_status: None,
            notes: Vec::new(),
        }
    }

    /// Sets the size of the fleet.
    #[must_use]
    pub fn of(self, hosts: usize) -> Self {
        let hosts = Some(hosts);
        Self { hosts, ..self }
    }

    /// Adds the baseline, sampled in the same rounds in the same unit; both are rates.
    #[must_use]
    pub fn against(mut self, name: impl Into<String>, samples: Vec<f64>) -> Self {
        let ratios: Vec<f64> = self
            .samples
            .iter()
            .zip(&samples)
            .map(|(a, b)| a / b)
            .collect();
        self.baseline = Some(Baseline {
            name: name.into(),
            value: median(&samples),
            samples,
            ratio: median(&ratios),
        });
        self
    }

    /// Adds what explains it.
    #[must_use]
    pub fn noting(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// Judges the measurement.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        let reached = match target {
            Target::AtLeast(bound) => self.value >= bound,
            Target::AtMost(bound) => self.value <= bound,
            Target::RatioAtLeast(bound) => self.ratio().is_some_and(|ratio| ratio >= bound),
            Target::RatioAtMost(bound) => self.ratio().is_some_and(|ratio| ratio <= bound),
        };
        self.target = Some(target);
        self.target_status = Some(if reached {
            TargetStatus::Pass
        } else {
            TargetStatus::Short
        });
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|baseline| baseline.ratio)
    }

    /// The measurement as a line of text.
    pub fn line(&self) -> String {
        let hosts = self
            .hosts
            .map_or_else(String::new, |hosts| hosts.to_string());
        let mut line = format!(
            "{:<8} {:>8} {:<44} {:>12} {}",
            self.stage,
            hosts,
            self.name,
            number(self.value),
            self.unit
        );
        // Writing to a String cannot fail.
        if let Some(baseline) = &self.baseline {
            write!(
                line,
                "; {} {} (ratio {:.2})",
                baseline.name,
                number(baseline.value),
                baseline.ratio
            )
            .expect("a String takes everything");
        }
        if let Some(target) = self.target {
            let wanted = match target {
                Target::AtLeast(bound) => format!(">= {}", number(bound)),
                Target::AtMost(bound) => format!("<= {}", number(bound)),
                Target::RatioAtLeast(bound) => format!("ratio >= {bound:.2}"),
                Target::RatioAtMost(bound) => format!("ratio <= {bound:.2}"),
            };
            let target_status = match self.target_status {
                Some(TargetStatus::Pass) => "pass",
                Some(TargetStatus::Short) | None => "SHORT",
            };
            write!(line, "; target {wanted}: {target_status}").expect("a String takes everything");
        }
        line
    }
}

/// A number with three significant digits, or as whole thousands.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit != '-' {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
