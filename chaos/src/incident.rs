//! What happened when, and how long its effects lasted.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_harness::Service;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, PlanAction, Position, Timestamp, Verdict};

use crate::logs::{Input, Logs, Output};
use crate::sampler::Sample;
use crate::strike::{How, Victim};

/// A strike as it happened.
#[derive(Debug, Clone)]
pub struct Incident {
    /// What it is counted as.
    pub name: String,
    /// How many faults were there together.
    pub faults: usize,
    /// When it began.
    pub from: Timestamp,
    /// When the next one began, or the end.
    pub until: Timestamp,
    /// From the end of the mending until everything was well again; absent when it was not in time.
    pub back: Option<Duration>,
    /// Processes it took from their work.
    pub victims: Vec<Victim>,
}

/// What a planner takes over.
pub const LEADER: &str = "leader";

/// Work that passed from a victim to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The strike.
    pub incident: String,
    /// How many faults were there together.
    pub faults: usize,
    /// What was taken over: `partition 02`, or [`LEADER`].
    pub what: String,
    /// How its owner was taken from it.
    pub how: How,
    /// From the signal to the barrier of the next owner; absent when there never was one.
    pub took: Option<Duration>,
}

/// Longest waits in the time of one incident; zero when nothing waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// No event was accepted although some waited.
    pub events: Duration,
    /// From an entry to its outcome.
    pub fold: Duration,
    /// From an outcome to its rows.
    pub apply: Duration,
    /// From a message to the archive.
    pub archive: Duration,
}

impl Waits {
    /// The longer of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            events: self.events.max(other.events),
            fold: self.fold.max(other.fold),
            apply: self.apply.max(other.apply),
            archive: self.archive.max(other.archive),
        }
    }
}

/// Every takeover that the victims make necessary.
pub fn takeovers(incidents: &[Incident], logs: &[Logs]) -> Vec<Takeover> {
    let mut found = Vec::new();
    for incident in incidents {
        for victim in &incident.victims {
            let takeover = |what: String, took| Takeover {
                incident: incident.name.clone(),
                faults: incident.faults,
                what,
                how: victim.how,
                took,
            };
            match victim.which.0 {
                Service::Reducer => found.extend(logs.iter().filter_map(|log| {
                    let took = of_partition(victim, log)?;
                    Some(takeover(format!("partition {}", log.partition), took))
                })),
                Service::Planner => found
                    .extend(of_leader(victim, logs).map(|took| takeover(LEADER.to_owned(), took))),
                Service::Ingest | Service::Applier | Service::Eventlog => {}
            }
        }
    }
    found
}

/// Begins the message ids of a process: its service, its instance and something unique.
fn prefix(victim: &Victim) -> String {
    let (service, number) = victim.which;
    format!("{service}-{service}-{number}-")
}

fn since(victim: &Victim, at: Timestamp) -> Duration {
    (at - victim.at).to_std().unwrap_or_default()
}

/// `None` when the victim did not own the partition.
fn of_partition(victim: &Victim, log: &Logs) -> Option<Option<Duration>> {
    let owner = last_writer(victim, &log.outputs)?;
    let next = log
        .outputs
        .iter()
        .find(|output| output.at >= victim.at && output.writer != owner);
    Some(next.map(|output| since(victim, output.at)))
}

/// The victim's process, if it wrote the last frame before it was hit.
fn last_writer(victim: &Victim, outputs: &[Output]) -> Option<String> {
    let before = outputs.iter().rev().find(|output| output.at < victim.at)?;
    let is_victim = before.writer.starts_with(&prefix(victim));
    is_victim.then(|| before.writer.clone())
}

/// An accepted barrier of a leader.
struct Barrier {
    partition: Partition,
    at: Timestamp,
    writer: String,
}

/// `None` when the victim did not lead.
fn of_leader(victim: &Victim, logs: &[Logs]) -> Option<Option<Duration>> {
    let barriers = barriers(logs);
    let before = barriers.iter().rev().find(|b| b.at < victim.at)?;
    if !before.writer.starts_with(&prefix(victim)) {
        return None;
    }
    // The next leader leads when its barrier is through everywhere.
    let mut through: BTreeMap<Partition, Timestamp> = BTreeMap::new();
    for barrier in &barriers {
        if barrier.at >= victim.at && barrier.writer != before.writer {
            through.entry(barrier.partition).or_insert(barrier.at);
        }
    }
    if through.len() < logs.len() {
        return Some(None);
    }
    Some(through.values().max().map(|at| since(victim, *at)))
}

/// Accepted leader barriers of all partitions in the order of their outcomes.
fn barriers(logs: &[Logs]) -> Vec<Barrier> {
    let mut barriers = Vec::new();
    for log in logs {
        let appended: BTreeMap<Position, &str> = log.inputs.iter().flat_map(appended).collect();
        for output in &log.outputs {
            for outcome in &output.frame.outcomes {
                let Some(writer) = appended.get(&outcome.position) else {
                    continue;
                };
                if matches!(outcome.verdict, Verdict::Accepted(_)) {
                    barriers.push(Barrier {
                        partition: log.partition,
                        at: output.at,
                        writer: (*writer).to_owned(),
                    });
                }
            }
        }
    }
    barriers.sort_by_key(|barrier| barrier.at);
    barriers
}

/// The leader barriers of one message with their writer.
fn appended(input: &Input) -> impl Iterator<Item = (Position, &str)> {
    (0_u32..)
        .zip(&input.entries)
        .filter_map(|(index, entry)| match &entry.body {
            EntryBody::Plan {
                action: PlanAction::Barrier {},
                ..
            } => Some((
                Position {
                    seq: input.seq,
                    index,
                },
                input.writer.as_str(),
            )),
            EntryBody::Plan { .. }
            | EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Operator { .. } => None,
        })
}

/// The longest waits of each incident, in order.
pub fn waits(incidents: &[Incident], logs: &[Logs], samples: &[Sample]) -> Vec<Waits> {
    let mut waits = vec![Waits::default(); incidents.len()];
    let mut note = |ended: Timestamp, wait: Waits| {
        let during = incidents
            .iter()
            .position(|incident| incident.from <= ended && ended < incident.until);
        if let Some(index) = during {
            waits[index] = waits[index].max(wait);
        }
    };
    for (at, events) in silences(samples) {
        note(
            at,
            Waits {
                events,
                ..Waits::default()
            },
        );
    }
    for log in logs {
        for (at, fold) in folds(log) {
            note(
                at,
                Waits {
                    fold,
                    ..Waits::default()
                },
            );
        }
        let applied = |sample: &Sample| {
            let reached = sample.reached.as_ref()?;
            reached.applied.get(&log.partition.number()).copied()
        };
        for (at, apply) in reaches(&written(&log.outputs), samples, applied) {
            note(
                at,
                Waits {
                    apply,
                    ..Waits::default()
                },
            );
        }
        let inputs: Vec<_> = log
            .inputs
            .iter()
            .map(|input| (input.seq, input.at))
            .collect();
        for (stream, messages) in [
            (&log.input_stream, inputs),
            (&log.output_stream, written(&log.outputs)),
        ] {
            let archived = |sample: &Sample| {
                let reached = sample.reached.as_ref()?;
                reached.archived.get(stream).copied()
            };
            for (at, archive) in reaches(&messages, samples, archived) {
                note(
                    at,
                    Waits {
                        archive,
                        ..Waits::default()
                    },
                );
            }
        }
    }
    waits
}

fn written(outputs: &[Output]) -> Vec<(u64, Timestamp)> {
    outputs
        .iter()
        .map(|output| (output.seq, output.at))
        .collect()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

/// At every sample: for how long no event was accepted although some waited.
fn silences(samples: &[Sample]) -> Vec<(Timestamp, Duration)> {
    let mut silences = Vec::new();
    let mut last: Option<(Timestamp, u64)> = None;
    for sample in samples {
        let Some((accepted, pending)) = sample.events else {
            continue;
        };
        match last {
            Some((since, before)) if accepted == before && pending > 0 => {
                silences.push((sample.at, between(since, sample.at)));
            }
            Some(_) | None => last = Some((sample.at, accepted)),
        }
    }
    silences
}

/// When each entry got its outcome, and how long that took.
fn folds(log: &Logs) -> Vec<(Timestamp, Duration)> {
    let appended: BTreeMap<u64, Timestamp> = log
        .inputs
        .iter()
        .map(|input| (input.seq, input.at))
        .collect();
    let mut folds = Vec::new();
    for output in &log.outputs {
        for outcome in &output.frame.outcomes {
            if let Some(at) = appended.get(&outcome.position.seq) {
                folds.push((output.at, between(*at, output.at)));
            }
        }
    }
    folds
}

/// When each message was seen to be reached, and how long that took.
fn reaches(
    messages: &[(u64, Timestamp)],
    samples: &[Sample],
    reached: impl Fn(&Sample) -> Option<u64>,
) -> Vec<(Timestamp, Duration)> {
    let mut reaches = Vec::new();
    // What was there before the first look was not seen to arrive.
    let Some(first) = samples.iter().find(|sample| reached(sample).is_some()) else {
        return reaches;
    };
    let mut waiting = messages
        .iter()
        .skip_while(|(_, at)| *at < first.at)
        .peekable();
    for sample in samples {
        let Some(position) = reached(sample) else {
            continue;
        };
        while let Some((_, at)) = waiting.next_if(|(seq, _)| *seq <= position) {
            reaches.push((sample.at, between(*at, sample.at)));
        }
    }
    reaches
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::OutputFrame;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(millis).unwrap()
    }

    fn output(seq: u64, millis: i64, writer: &str) -> Output {
        Output {
            seq,
            at: at(millis),
            writer: writer.to_owned(),
            frame: OutputFrame {
                v: 1,
                epoch: seq,
                first_input: None,
                last_input: None,
                last_input_id: None,
                rebuilt_from: None,
                state_hash: None,
                outcomes: Vec::new(),
            },
        }
    }

    fn log(outputs: Vec<Output>) -> Logs {
        Logs {
            partition: Partition::all(1).next().unwrap(),
            input_stream: "IN".to_owned(),
            output_stream: "OUT".to_owned(),
            inputs: Vec::new(),
            outputs,
        }
    }

    fn victim(number: usize, millis: i64) -> Victim {
        Victim {
            which: (Service::Reducer, number),
            how: How::Killed,
            at: at(millis),
        }
    }

    #[test]
    fn a_takeover_is_the_first_frame_of_another_process() {
        let log = log(vec![
            output(1, 0, "reducer-reducer-0-aa/x"),
            output(2, 900, "reducer-reducer-0-aa/x"),
            output(3, 1_050, "reducer-reducer-0-aa/x"),
            output(4, 9_000, "reducer-reducer-0-bb/y"),
        ]);
        let took = Some(Some(Duration::from_secs(8)));
        assert_eq!(of_partition(&victim(0, 1_000), &log), took);
        assert_eq!(of_partition(&victim(1, 1_000), &log), None, "not the owner");
        assert_eq!(of_partition(&victim(0, 10_000), &log), Some(None), "nobody");
    }

    fn sample(millis: i64, accepted: u64, pending: u64) -> Sample {
        Sample {
            at: at(millis),
            events: Some((accepted, pending)),
            heads: None,
            reached: None,
        }
    }

    #[test]
    fn a_silence_counts_only_while_somebody_waits() {
        let samples = [
            sample(0, 5, 0),
            sample(1_000, 5, 0),
            sample(2_000, 5, 3),
            sample(3_000, 5, 3),
            sample(4_000, 6, 2),
            sample(5_000, 6, 2),
        ];
        let longest = silences(&samples).into_iter().map(|(_, time)| time).max();
        assert_eq!(longest, Some(Duration::from_secs(2)));
    }

    #[test]
    fn messages_wait_until_a_look_finds_them_reached() {
        let samples: Vec<Sample> = [(1_000, 1), (2_000, 1), (3_000, 3)]
            .map(|(millis, position)| sample(millis, position, 0))
            .into();
        let messages = [(1, at(500)), (2, at(1_200)), (3, at(2_900)), (4, at(3_000))];
        // The first was there before anybody looked.
        let reached = |sample: &Sample| sample.events.map(|(position, _)| position);
        let found = reaches(&messages, &samples, reached);
        let expected = [(3_000, 1_800), (3_000, 100)]
            .map(|(millis, wait)| (at(millis), Duration::from_millis(wait)));
        assert_eq!(found, expected);
    }
}
