//! The probes of one activation: when each runs next, and since when it fails.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::{FailedControl, ProbeDeclaration};
use nixfleet_proto::{HostEventBody, ProbeMode, ProbeName, ProbeStatus, Timestamp};

/// Longest failure reason reported, in bytes.
const REASON_BYTES_MAX: usize = 512;
/// Marks a reason that was cut.
const REASON_CUT: &str = "...[truncated]";

/// All probes since the last activation.
#[derive(Debug, Clone, Default)]
pub struct ProbeTracker {
    generation: u64,
    listing: Listing,
    probes: BTreeMap<ProbeName, ScheduledProbe>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Listing {
    /// Not requested.
    #[default]
    Unasked,
    ExpectedRelease,
    /// Unreadable; requested again at this time.
    Again(Timestamp),
    /// Known.
    Known,
}

/// Schedule and last result of a probe.
#[derive(Debug, Clone)]
struct ScheduledProbe {
    mode: ProbeMode,
    running: bool,
    due: Timestamp,
    last: Option<LastResult>,
    failing_since: Option<Timestamp>,
}

/// The fields of a result that identify a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LastResult {
    status: ProbeStatus,
    failing: Vec<FailedControl>,
}

/// Result of one run of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReading {
    /// Pass or fail; a probe that could not run failed.
    pub status: ProbeStatus,
    /// Reason of a failure.
    pub failure_reason: Option<String>,
    /// Controls of an evidence probe.
    pub sub_results: Option<Vec<SubResult>>,
}

/// Selection of results that are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportPolicy {
    /// Every one.
    Every,
    /// Results that differ from the previous one.
    Changes,
}

impl ProbeTracker {
    /// Clears all results; results of earlier activations are ignored from now on.
    pub fn reset(&mut self) -> u64 {
        self.generation += 1;
        self.listing = Listing::ExpectedRelease;
        self.probes.clear();
        self.generation
    }

    /// Stops probing.
    pub fn stop(&mut self) {
        self.generation += 1;
        self.listing = Listing::Unasked;
        self.probes.clear();
    }

    /// True while a listing of `generation` is expected.
    pub fn awaits_listing(&self, generation: u64) -> bool {
        self.generation == generation && self.listing == Listing::ExpectedRelease
    }

    /// Schedules another listing after an unreadable one; until then no probe is declared, which blocks
    /// convergence.
    pub fn list_again_at(&mut self, due: Timestamp) {
        self.listing = Listing::Again(due);
    }

    /// The generation to list again, if that is due.
    pub fn take_due_listing(&mut self, now: Timestamp) -> Option<u64> {
        match self.listing {
            Listing::Again(due) if due <= now => {
                self.listing = Listing::ExpectedRelease;
                Some(self.generation)
            }
            Listing::Again(_) | Listing::Unasked | Listing::ExpectedRelease | Listing::Known => {
                None
            }
        }
    }

    /// Takes the declared probes; each that is not disabled runs at once.
    pub fn declare(&mut self, probes: &[ProbeDeclaration], now: Timestamp) {
        self.listing = Listing::Known;
        self.probes = probes
            .iter()
            .filter(|probe| probe.mode != ProbeMode::Disabled)
            .map(|declared| {
                let probe = ScheduledProbe {
                    mode: declared.mode,
                    running: false,
                    due: now,
                    last: None,
                    failing_since: None,
                };
                (declared.probe_name.clone(), probe)
            })
            .collect();
    }

    /// The probes to run now, which then run.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(u64, ProbeName)> {
        let generation = self.generation;
        self.probes
            .iter_mut()
            .filter(|(_, probe)| !probe.running && probe.due <= now)
            .map(|(name, probe)| {
                probe.running = true;
                (generation, name.clone())
            })
            .collect()
    }

    /// Adds a result and returns its events, in order: observed-first, failure-first, result.
    pub fn take_reading(
        &mut self,
        name: &ProbeName,
        reading: ProbeReading,
        schedule: (Timestamp, TimeDelta),
        report: ReportPolicy,
    ) -> Vec<HostEventBody> {
        let (now, interval) = schedule;
        let Some(probe) = self.probes.get_mut(name).filter(|probe| probe.running) else {
            return Vec::new();
        };
        probe.running = false;
        probe.due = now + interval;
        let seen = LastResult {
            status: reading.status,
            failing: failing_controls(&reading),
        };
        let first = probe.last.is_none();
        let failed_before = matches!(&probe.last, Some(last) if last.status == ProbeStatus::Fail);
        let fails = reading.status == ProbeStatus::Fail;
        probe.failing_since = fails.then(|| probe.failing_since.unwrap_or(now));
        let repeated = probe.last.as_ref() == Some(&seen);
        probe.last = Some(seen);

        let mut events = Vec::new();
        let mode = probe.mode;
        if first {
            events.push(HostEventBody::ProbeObservedFirst {
                probe_name: name.clone(),
                mode,
                observed_at: now,
            });
        }
        if fails && !failed_before {
            events.push(HostEventBody::ProbeFailureFirst {
                probe_name: name.clone(),
                mode,
                first_failed_at: now,
            });
        }
        if report == ReportPolicy::Every || !repeated {
            events.push(HostEventBody::ProbeResult {
                probe_name: name.clone(),
                mode,
                status: reading.status,
                observed_at: now,
                failure_reason: reading.failure_reason.map(cut_reason),
                sub_results: reading.sub_results.map(|controls| {
                    controls
                        .into_iter()
                        .filter(|control| control.effective_mode != ProbeMode::Disabled)
                        .collect()
                }),
            });
        }
        events
    }

    /// The enforce probes that fail now, and since when the longest of them does.
    pub fn failing_enforced(&self) -> Option<(Timestamp, Vec<ProbeName>)> {
        let failing: Vec<(&ProbeName, Timestamp)> = self
            .probes
            .iter()
            .filter(|(_, probe)| probe.mode == ProbeMode::Enforce)
            .filter_map(|(name, probe)| probe.failing_since.map(|since| (name, since)))
            .collect();
        let since = failing.iter().map(|(_, since)| *since).min()?;
        let names = failing.into_iter().map(|(name, _)| name.clone()).collect();
        Some((since, names))
    }

    /// Time at which a probe or a listing is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let listing = match self.listing {
            Listing::Again(due) => Some(due),
            Listing::Unasked | Listing::ExpectedRelease | Listing::Known => None,
        };
        self.probes
            .values()
            .filter(|probe| !probe.running)
            .map(|probe| probe.due)
            .chain(listing)
            .min()
    }

    /// The activation that the probes belong to.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The enforce controls that fail, as the control plane counts them.
fn failing_controls(reading: &ProbeReading) -> Vec<FailedControl> {
    reading
        .sub_results
        .iter()
        .flatten()
        .filter(|control| {
            control.status == ProbeStatus::Fail && control.effective_mode == ProbeMode::Enforce
        })
        .map(|control| FailedControl {
            control_id: Some(control.control_id.clone()),
            framework: Some(control.framework.clone()),
        })
        .collect()
}

fn cut_reason(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let mut end = REASON_BYTES_MAX;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push_str(REASON_CUT);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn declared(mode: ProbeMode) -> ProbeTracker {
        let mut schedule = ProbeTracker::default();
        schedule.reset();
        schedule.declare(
            &[ProbeDeclaration {
                probe_name: ProbeName::from("http"),
                kind: "http".to_owned(),
                mode,
            }],
            at(0),
        );
        schedule
    }

    fn run(
        schedule: &mut ProbeTracker,
        seconds: i64,
        status: ProbeStatus,
        report: ReportPolicy,
    ) -> String {
        let name = ProbeName::from("http");
        assert_eq!(schedule.take_due(at(seconds)).len(), 1, "due at {seconds}");
        let reading = ProbeReading {
            status,
            failure_reason: None,
            sub_results: None,
        };
        let times = (at(seconds), TimeDelta::seconds(10));
        let events = schedule.take_reading(&name, reading, times, report);
        let names: Vec<&str> = events.iter().map(HostEventBody::name).collect();
        names.join(" ")
    }

    #[test]
    fn probe_events_are_in_order_and_first_ones_occur_once() {
        use ProbeStatus::{Fail, Pass};
        let mut schedule = declared(ProbeMode::Enforce);
        let every = ReportPolicy::Every;
        assert_eq!(
            run(&mut schedule, 0, Fail, every),
            "ProbeObservedFirst ProbeFailureFirst ProbeResult"
        );
        assert_eq!(run(&mut schedule, 10, Fail, every), "ProbeResult");
        assert_eq!(run(&mut schedule, 20, Pass, every), "ProbeResult");
        assert_eq!(
            run(&mut schedule, 30, Fail, every),
            "ProbeFailureFirst ProbeResult"
        );
    }

    #[test]
    fn a_pass_clears_the_failure_timer() {
        let mut schedule = declared(ProbeMode::Enforce);
        run(&mut schedule, 0, ProbeStatus::Fail, ReportPolicy::Every);
        assert_eq!(schedule.failing_enforced().map(|f| f.0), Some(at(0)));
        run(&mut schedule, 10, ProbeStatus::Pass, ReportPolicy::Every);
        assert_eq!(schedule.failing_enforced(), None);
        run(&mut schedule, 20, ProbeStatus::Fail, ReportPolicy::Every);
        assert_eq!(schedule.failing_enforced().map(|f| f.0), Some(at(20)));
    }

    #[test]
    fn an_observed_probe_never_starts_the_timer() {
        let mut schedule = declared(ProbeMode::Observe);
        run(&mut schedule, 0, ProbeStatus::Fail, ReportPolicy::Every);
        assert_eq!(schedule.failing_enforced(), None);
    }

    #[test]
    fn a_disabled_probe_never_runs() {
        let mut schedule = declared(ProbeMode::Disabled);
        assert!(schedule.take_due(at(100)).is_empty());
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn only_changes_are_reported_on_request() {
        let mut schedule = declared(ProbeMode::Enforce);
        run(&mut schedule, 0, ProbeStatus::Pass, ReportPolicy::Every);
        assert_eq!(
            run(&mut schedule, 10, ProbeStatus::Pass, ReportPolicy::Changes),
            ""
        );
        assert_eq!(
            run(&mut schedule, 20, ProbeStatus::Fail, ReportPolicy::Changes),
            "ProbeFailureFirst ProbeResult"
        );
    }

    #[test]
    fn long_reasons_are_truncated_at_a_character_boundary() {
        let cut = cut_reason("é".repeat(400));
        assert!(cut.ends_with(REASON_CUT));
        assert!(cut.len() <= REASON_BYTES_MAX + REASON_CUT.len());
        assert_eq!(cut_reason("short".to_owned()), "short");
    }
}
