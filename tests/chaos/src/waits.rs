//! How long things waited while something was broken.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::Timestamp;

use crate::incident::Incident;
use crate::logs::{Logs, Output};
use crate::sampler::Sample;

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
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(millis).unwrap()
    }

    fn sample(millis: i64, accepted: u64, pending: u64) -> Sample {
        Sample {
            at: at(millis),
            events: Some((accepted, pending)),
            streams: None,
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
