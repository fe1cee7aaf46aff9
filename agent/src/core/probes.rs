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
pub struct ProbeBoard {
    generation: u64,
    listing: Listing,
    watches: BTreeMap<ProbeName, Watch>,
}

/// Whether the host's probes were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Listing {
    /// Not asked for.
    #[default]
    Unasked,
    /// Asked for.
    Asked,
    /// Could not be read; asked for again when due.
    Again(Timestamp),
    /// Known.
    Known,
}

/// One probe.
#[derive(Debug, Clone)]
struct Watch {
    mode: ProbeMode,
    running: bool,
    due: Timestamp,
    last: Option<Seen>,
    failing_since: Option<Timestamp>,
}

/// What the last run found, as far as a repetition is told by it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: ProbeStatus,
    failing: Vec<FailedControl>,
}

/// What one run of a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReading {
    /// Pass or fail; a probe that could not run failed.
    pub status: ProbeStatus,
    /// Why it failed.
    pub failure_reason: Option<String>,
    /// Controls of an evidence probe.
    pub sub_results: Option<Vec<SubResult>>,
}

/// Which results are worth an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Every one.
    Every,
    /// Those that differ from the one before.
    Changes,
}

impl ProbeBoard {
    /// Forgets everything; results of earlier activations no longer count.
    pub fn reset(&mut self) -> u64 {
        self.generation += 1;
        self.listing = Listing::Asked;
        self.watches.clear();
        self.generation
    }

    /// Stops probing.
    pub fn stop(&mut self) {
        self.generation += 1;
        self.listing = Listing::Unasked;
        self.watches.clear();
    }

    /// True while answers of `generation` are wanted.
    pub fn awaits_listing(&self, generation: u64) -> bool {
        self.generation == generation && self.listing == Listing::Asked
    }

    /// The probes could not be read: they are not declared, which holds convergence, and are read
    /// again when due.
    pub fn list_again_at(&mut self, due: Timestamp) {
        self.listing = Listing::Again(due);
    }

    /// The generation to list again, when that is due.
    pub fn take_due_listing(&mut self, now: Timestamp) -> Option<u64> {
        match self.listing {
            Listing::Again(due) if due <= now => {
                self.listing = Listing::Asked;
                Some(self.generation)
            }
            Listing::Again(_) | Listing::Unasked | Listing::Asked | Listing::Known => None,
        }
    }

    /// Takes the declared probes; each that is not disabled runs at once.
    pub fn declare(&mut self, probes: &[ProbeDeclaration], now: Timestamp) {
        self.listing = Listing::Known;
        self.watches = probes
            .iter()
            .filter(|probe| probe.mode != ProbeMode::Disabled)
            .map(|probe| {
                let watch = Watch {
                    mode: probe.mode,
                    running: false,
                    due: now,
                    last: None,
                    failing_since: None,
                };
                (probe.probe_name.clone(), watch)
            })
            .collect();
    }

    /// The probes to run now, which then run.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(u64, ProbeName)> {
        let generation = self.generation;
        self.watches
            .iter_mut()
            .filter(|(_, watch)| !watch.running && watch.due <= now)
            .map(|(name, watch)| {
                watch.running = true;
                (generation, name.clone())
            })
            .collect()
    }

    /// Takes a result and gives the events it makes, in order: observed-first, failure-first,
    /// result.
    pub fn take_reading(
        &mut self,
        name: &ProbeName,
        reading: ProbeReading,
        schedule: (Timestamp, TimeDelta),
        report: Report,
    ) -> Vec<HostEventBody> {
        let (now, interval) = schedule;
        let Some(watch) = self.watches.get_mut(name).filter(|watch| watch.running) else {
            return Vec::new();
        };
        watch.running = false;
        watch.due = now + interval;
        let seen = Seen {
            status: reading.status,
            failing: failing_controls(&reading),
        };
        let first = watch.last.is_none();
        let failed_before = matches!(&watch.last, Some(last) if last.status == ProbeStatus::Fail);
        let fails = reading.status == ProbeStatus::Fail;
        watch.failing_since = fails.then(|| watch.failing_since.unwrap_or(now));
        let repeated = watch.last.as_ref() == Some(&seen);
        watch.last = Some(seen);

        let mut events = Vec::new();
        let mode = watch.mode;
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
        if report == Report::Every || !repeated {
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
            .watches
            .iter()
            .filter(|(_, watch)| watch.mode == ProbeMode::Enforce)
            .filter_map(|(name, watch)| watch.failing_since.map(|since| (name, since)))
            .collect();
        let since = failing.iter().map(|(_, since)| *since).min()?;
        let names = failing.into_iter().map(|(name, _)| name.clone()).collect();
        Some((since, names))
    }

    /// When something is to be run or listed next.
    pub fn next_due(&self) -> Option<Timestamp> {
        let listing = match self.listing {
            Listing::Again(due) => Some(due),
            Listing::Unasked | Listing::Asked | Listing::Known => None,
        };
        self.watches
            .values()
            .filter(|watch| !watch.running)
            .map(|watch| watch.due)
            .chain(listing)
            .min()
    }

    /// Which activation the probes belong to.
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

    fn declared(mode: ProbeMode) -> ProbeBoard {
        let mut board = ProbeBoard::default();
        board.reset();
        board.declare(
            &[ProbeDeclaration {
                probe_name: ProbeName::from("http"),
                kind: "http".to_owned(),
                mode,
            }],
            at(0),
        );
        board
    }

    fn run(board: &mut ProbeBoard, seconds: i64, status: ProbeStatus, report: Report) -> String {
        let name = ProbeName::from("http");
        assert_eq!(board.take_due(at(seconds)).len(), 1, "due at {seconds}");
        let reading = ProbeReading {
            status,
            failure_reason: None,
            sub_results: None,
        };
        let schedule = (at(seconds), TimeDelta::seconds(10));
        let events = board.take_reading(&name, reading, schedule, report);
        let names: Vec<&str> = events.iter().map(HostEventBody::name).collect();
        names.join(" ")
    }

    #[test]
    fn events_come_in_order_and_first_ones_once() {
        use ProbeStatus::{Fail, Pass};
        let mut board = declared(ProbeMode::Enforce);
        let every = Report::Every;
        assert_eq!(
            run(&mut board, 0, Fail, every),
            "ProbeObservedFirst ProbeFailureFirst ProbeResult"
        );
        assert_eq!(run(&mut board, 10, Fail, every), "ProbeResult");
        assert_eq!(run(&mut board, 20, Pass, every), "ProbeResult");
        assert_eq!(
            run(&mut board, 30, Fail, every),
            "ProbeFailureFirst ProbeResult"
        );
    }

    #[test]
    fn a_pass_clears_the_failure_timer() {
        let mut board = declared(ProbeMode::Enforce);
        run(&mut board, 0, ProbeStatus::Fail, Report::Every);
        assert_eq!(board.failing_enforced().map(|f| f.0), Some(at(0)));
        run(&mut board, 10, ProbeStatus::Pass, Report::Every);
        assert_eq!(board.failing_enforced(), None);
        run(&mut board, 20, ProbeStatus::Fail, Report::Every);
        assert_eq!(board.failing_enforced().map(|f| f.0), Some(at(20)));
    }

    #[test]
    fn an_observed_probe_never_starts_the_timer() {
        let mut board = declared(ProbeMode::Observe);
        run(&mut board, 0, ProbeStatus::Fail, Report::Every);
        assert_eq!(board.failing_enforced(), None);
    }

    #[test]
    fn a_disabled_probe_never_runs() {
        let mut board = declared(ProbeMode::Disabled);
        assert!(board.take_due(at(100)).is_empty());
        assert_eq!(board.next_due(), None);
    }

    #[test]
    fn only_changes_are_reported_on_request() {
        let mut board = declared(ProbeMode::Enforce);
        run(&mut board, 0, ProbeStatus::Pass, Report::Every);
        assert_eq!(run(&mut board, 10, ProbeStatus::Pass, Report::Changes), "");
        assert_eq!(
            run(&mut board, 20, ProbeStatus::Fail, Report::Changes),
            "ProbeFailureFirst ProbeResult"
        );
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let cut = cut_reason("é".repeat(400));
        assert!(cut.ends_with(REASON_CUT));
        assert!(cut.len() <= REASON_BYTES_MAX + REASON_CUT.len());
        assert_eq!(cut_reason("short".to_owned()), "short");
    }
}
