//! The probes of a host: declarations and last results.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::Timestamp;
use crate::id::ProbeName;
use crate::json;
use crate::time;

/// Whether a probe decides over convergence.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ProbeMode {
    /// Must pass for convergence; a sustained failure fails the host.
    #[default]
    Enforce,
    /// Reported only.
    Observe,
    /// Not run.
    Disabled,
}

/// Result of one probe run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeStatus {
    /// The probe passed.
    Pass,
    /// The probe failed or could not run.
    Fail,
}

/// One probe as the host declared it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeDeclaration {
    /// Name, unique on the host.
    pub probe_name: ProbeName,
    /// `http`, `tcp`, `exec` or `evidence`; carried, not interpreted.
    pub kind: String,
    /// The mode that counts for convergence.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub mode: ProbeMode,
}

/// Last known result of one probe since activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeRecord {
    /// Status of the last result.
    pub status: ProbeStatus,
    /// Mode the last result was reported under.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub mode: ProbeMode,
    /// Time of the last result.
    #[serde(with = "time")]
    pub last_observed_at: Timestamp,
    /// Time of the last pass, kept through failures.
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub last_pass_at: Option<Timestamp>,
    /// Reason of the last failure; cleared by a pass. A thin pointer, because most results have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<Arc<String>>,
    /// Failing enforce controls of the last result; absent when it had no controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_controls: Option<Arc<BTreeSet<FailedControl>>>,
}

/// One control, or a probe without controls, that failed under enforce.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedControl {
    /// The control; absent for a probe without controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_id: Option<String>,
    /// Its framework; absent for a probe without controls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
}

/// Results by probe name, in the order of names.
///
/// A host has few probes, and every version of its record carries all of them. Copies of a record
/// therefore share one allocation, which each new result replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<ProbeName, ProbeRecord>")]
pub struct Probes(Option<Arc<[(ProbeName, ProbeRecord)]>>);

impl Probes {
    /// The last result of a probe.
    pub fn get(&self, name: &ProbeName) -> Option<&ProbeRecord> {
        let (_, record) = self.as_slice().iter().find(|(other, _)| other == name)?;
        Some(record)
    }

    /// Replaces or adds the result of a probe.
    pub fn insert(&mut self, name: ProbeName, record: ProbeRecord) {
        let probes = self.as_slice();
        let index = probes.partition_point(|(other, _)| *other < name);
        let known = probes.get(index).is_some_and(|(other, _)| *other == name);
        let (before, after) = (&probes[..index], &probes[index + usize::from(known)..]);
        let next = before.iter().cloned();
        let next = next.chain([(name, record)]).chain(after.iter().cloned());
        self.0 = Some(next.collect());
    }

    /// Removes every result.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// True without any result.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Results in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&ProbeName, &ProbeRecord)> {
        self.as_slice().iter().map(|(name, record)| (name, record))
    }

    fn as_slice(&self) -> &[(ProbeName, ProbeRecord)] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<BTreeMap<ProbeName, ProbeRecord>> for Probes {
    fn from(probes: BTreeMap<ProbeName, ProbeRecord>) -> Self {
        Self((!probes.is_empty()).then(|| probes.into_iter().collect()))
    }
}

impl Serialize for Probes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: ProbeStatus) -> ProbeRecord {
        ProbeRecord {
            status,
            mode: ProbeMode::Enforce,
            last_observed_at: Timestamp::UNIX_EPOCH,
            last_pass_at: None,
            failure_reason: None,
            failing_controls: None,
        }
    }

    #[test]
    fn results_are_sorted_by_name() {
        let mut probes = Probes::default();
        for name in ["m", "z", "a", "m"] {
            probes.insert(name.into(), record(ProbeStatus::Fail));
        }
        let copy = probes.clone();
        probes.insert("m".into(), record(ProbeStatus::Pass));
        let names: Vec<_> = probes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "m", "z"]);
        let status = |probes: &Probes| probes.get(&"m".into()).unwrap().status;
        assert_eq!(
            (status(&probes), status(&copy)),
            (ProbeStatus::Pass, ProbeStatus::Fail)
        );
        let text = serde_json::to_string(&probes).unwrap();
        assert_eq!(serde_json::from_str::<Probes>(&text).unwrap(), probes);
    }

    #[test]
    fn a_cleared_map_equals_an_empty_one() {
        let mut cleared = Probes::default();
        cleared.insert("a".into(), record(ProbeStatus::Pass));
        cleared.clear();
        assert_eq!(cleared, serde_json::from_str("{}").unwrap());
        assert_eq!(cleared, Probes::default());
    }
}
