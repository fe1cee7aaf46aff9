//! Behaviour of the simulated hosts: the file of `nixfleet-swarm --profile`.
//!
//! Every key is optional; unknown keys are errors. Whatever happens to a host is a function of the
//! seed, its name and the closure, so a run repeats.
//!
//! ```json
//! {
//!   "initialClosure": "initial-nixos-system-{hostname}",
//!   "initialClosures": { "edge-001": "a1b2-nixos-system-edge-001" },
//!   "activationMs": { "min": 200, "max": 1500 },
//!   "rollbackMs": { "min": 200, "max": 800 },
//!   "probes": [ { "probeName": "http", "kind": "http", "mode": "enforce" } ],
//!   "failures": [
//!     { "closure": "*-bad-*", "share": 0.2, "fails": { "kind": "probe", "probeName": "http" } },
//!     { "closure": "broken-*", "share": 1.0, "fails": { "kind": "activation", "exitCode": 1 } },
//!     { "closure": "*", "share": 0.1,
//!       "fails": { "kind": "probe", "probeName": "http", "recoversAfterMs": 1500 } }
//!   ],
//!   "deferral": { "closure": "*", "share": 0.02, "rebootAfterMs": { "min": 2000, "max": 5000 } },
//!   "crash": { "closure": "*", "share": 0.03, "points": ["before-switch", "after-switch"],
//!              "restartAfterMs": { "min": 500, "max": 2000 } },
//!   "offline": { "closure": "*", "share": 0.05, "startsAfterMs": { "min": 0, "max": 3000 },
//!                "durationMs": { "min": 1000, "max": 4000 } }
//! }
//! ```
//!
//! * `closure` is a pattern for the closure being activated; `*` matches any run of characters.
//! * `share` is the share of the hosts, 0 to 1, to which the rule applies for one closure.
//! * The first matching entry of `failures` applies. A failing probe fails every run while the host
//!   runs that closure, including the first; with `recoversAfterMs` it passes once that time has passed
//!   since the activation.
//! * `deferral`: the switch is deferred (component `kernel`) and the host reboots into the target.
//! * `crash`: the agent process crashes once per closure at one of the points and restarts;
//!   `before-switch` (the old closure still runs), `after-switch` (the new one runs, unreported),
//!   `during-rollback` (the old one runs again, unreported).
//! * `offline`: the host loses its network once per closure, counted from the start of the
//!   activation.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::host::{ProbeDeclaration, ProbeMode};
use nixfleet_proto::{ClosureHash, Hostname, ProbeName};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Profile {
    /// Closure of hosts without an entry in `initialClosures`; `{hostname}` is replaced.
    pub initial_closure: String,
    /// Initial closures of single hosts.
    pub initial_closures: BTreeMap<Hostname, ClosureHash>,
    pub activation_ms: Range,
    pub rollback_ms: Range,
    /// The probes every host declares, disabled ones included.
    pub probes: Vec<ProbeDeclaration>,
    /// Closures that do not work everywhere.
    pub failures: Vec<FailureRule>,
    /// Hosts that need a reboot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferral: Option<DeferralRule>,
    /// Simulated crashes of agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<CrashRule>,
    /// Hosts that lose their network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineRule>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            initial_closure: "initial-nixos-system-{hostname}".to_owned(),
            initial_closures: BTreeMap::new(),
            activation_ms: Range {
                min: 200,
                max: 1500,
            },
            rollback_ms: Range { min: 200, max: 800 },
            probes: vec![ProbeDeclaration {
                probe_name: ProbeName::from("http"),
                kind: "http".to_owned(),
                mode: ProbeMode::Enforce,
            }],
            failures: Vec::new(),
            deferral: None,
            crash: None,
            offline: None,
        }
    }
}

/// Milliseconds from `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the type says what they are")]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

/// A closure that fails on a share of the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureRule {
    pub closure: String,
    /// Part of the hosts, 0 to 1.
    pub share: f64,
    pub fails: Failure,
}

/// Failure of a closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Failure {
    /// The switch fails; the old closure keeps running.
    Activation { exit_code: i32 },
    /// A probe fails.
    Probe {
        probe_name: ProbeName,
        /// Time after the activation from which the probe passes; absent: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovers_after_ms: Option<u64>,
    },
}

/// Deferred switches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeferralRule {
    /// Pattern of the closure.
    #[serde(default = "any")]
    pub closure: String,
    /// Part of the hosts, 0 to 1.
    pub share: f64,
    /// Time from the deferral to the reboot.
    pub reboot_after_ms: Range,
}

/// Crashes of agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CrashRule {
    /// Pattern of the closure.
    #[serde(default = "any")]
    pub closure: String,
    /// Part of the hosts, 0 to 1.
    pub share: f64,
    /// Points of the crash, one of which is drawn per host and closure.
    pub points: Vec<CrashPoint>,
    /// Time until the agent restarts.
    pub restart_after_ms: Range,
}

/// Point at which an agent crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrashPoint {
    /// After the acknowledgement, while the old closure runs.
    BeforeSwitch,
    /// The new closure runs, unreported.
    AfterSwitch,
    /// The old closure runs again, unreported.
    DuringRollback,
}

/// Hosts that lose their network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfflineRule {
    /// Pattern of the closure.
    #[serde(default = "any")]
    pub closure: String,
    /// Part of the hosts, 0 to 1.
    pub share: f64,
    /// Time from the start of the activation to the loss.
    pub starts_after_ms: Range,
    /// Duration of the outage.
    pub duration_ms: Range,
}

fn any() -> String {
    "*".to_owned()
}

/// A profile that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not the documented JSON.
    #[error("the profile is not valid")]
    Parse(#[from] serde_json::Error),
    /// The values contradict each other; all faults.
    #[error("the profile has faults: {}", .0.join("; "))]
    Faults(Vec<String>),
}

impl Profile {
    /// Reads and validates a profile.
    ///
    /// # Errors
    /// Names the first syntax error, or every fault of the values.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_slice(bytes)?;
        let faults = profile.faults();
        if faults.is_empty() {
            Ok(profile)
        } else {
            Err(ProfileError::Faults(faults))
        }
    }

    /// Initial closure of a host.
    pub fn initial_closure_of(&self, hostname: &Hostname) -> ClosureHash {
        self.initial_closures
            .get(hostname)
            .cloned()
            .unwrap_or_else(|| {
                ClosureHash::from(
                    self.initial_closure
                        .replace("{hostname}", hostname.as_str()),
                )
            })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut range = |name: &str, range: Range| {
            if range.min > range.max {
                faults.push(format!(
                    "{name}: min {} is above max {}",
                    range.min, range.max
                ));
            }
        };
        range("activationMs", self.activation_ms);
        range("rollbackMs", self.rollback_ms);
        if let Some(rule) = &self.deferral {
            range("deferral.rebootAfterMs", rule.reboot_after_ms);
        }
        if let Some(rule) = &self.crash {
            range("crash.restartAfterMs", rule.restart_after_ms);
        }
        if let Some(rule) = &self.offline {
            range("offline.startsAfterMs", rule.starts_after_ms);
            range("offline.durationMs", rule.duration_ms);
        }
        let shares = self
            .failures
            .iter()
            .map(|rule| ("failures.share", rule.share))
            .chain(
                self.deferral
                    .iter()
                    .map(|rule| ("deferral.share", rule.share)),
            )
            .chain(self.crash.iter().map(|rule| ("crash.share", rule.share)))
            .chain(
                self.offline
                    .iter()
                    .map(|rule| ("offline.share", rule.share)),
            );
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                faults.push(format!("{name}: {share} is not between 0 and 1"));
            }
        }
        if self
            .crash
            .as_ref()
            .is_some_and(|rule| rule.points.is_empty())
        {
            faults.push("crash.points: empty".to_owned());
        }
        for rule in &self.failures {
            if let Failure::Probe { probe_name, .. } = &rule.fails
                && !self
                    .probes
                    .iter()
                    .any(|probe| probe.probe_name == *probe_name)
            {
                faults.push(format!("failures: no probe is named {probe_name}"));
            }
        }
        faults
    }
}

impl Range {
    /// The value at `position`, taken modulo the width.
    pub fn pick(self, position: u64) -> Duration {
        let width = self.max.saturating_sub(self.min).saturating_add(1);
        Duration::from_millis(self.min + position % width)
    }
}

/// True when `text` matches `pattern`, in which `*` matches any run of characters.
pub fn closure_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut tail: Vec<&str> = parts.collect();
    let Some(last) = tail.pop() else {
        return rest.is_empty();
    };
    for part in tail {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_globs() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "abc", true),
            ("*-bad-*", "x-bad-y", true),
            ("*-bad-*", "x-good-y", false),
            ("a*a", "a", false),
            ("a*b*c", "a1b2c", true),
        ] {
            assert_eq!(closure_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_documented_example_is_a_valid_profile() {
        let text = include_str!("profile.rs");
        let start = text.find("//! ```json").unwrap();
        let example: String = text[start..]
            .lines()
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .map(|line| line.trim_start_matches("//!"))
            .collect();
        let profile = Profile::parse(example.as_bytes()).unwrap();
        assert_eq!(profile.failures.len(), 3);
        assert_eq!(
            profile.initial_closure_of(&Hostname::from("edge-002")),
            ClosureHash::from("initial-nixos-system-edge-002")
        );
    }

    #[test]
    fn every_fault_is_listed() {
        let text = br#"{"activationMs":{"min":2,"max":1},"crash":{"share":2,"points":[],"restartAfterMs":{"min":0,"max":0}}}"#;
        let Err(ProfileError::Faults(faults)) = Profile::parse(text) else {
            panic!("the profile must be refused");
        };
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        assert!(Profile::parse(br#"{"actvation":{}}"#).is_err());
    }
}
