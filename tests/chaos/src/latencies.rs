//! Longest latencies during each group of faults.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::Timestamp;

use crate::partition_logs::{Output, PartitionLogs};
use crate::sampler::Sample;
use crate::takeovers::Incident;

/// Longest latencies during a group of faults; zero without any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Time in which no event was accepted although some were pending.
    pub events: Duration,
    /// From an entry to its outcome.
    pub fold: Duration,
    /// From an outcome to its rows.
    pub apply: Duration,
    /// From a message to the archive.
    pub archive: Duration,
}

impl Latencies {
    /// The longer latency of each kind.
    pub fn max(self, other: Self) -> Self {
        Self {
            events: self.events.max(other.events),
            fold: self.fold.max(other.fold),
            apply: self.apply.max(other.apply),
            archive: self.archive.max(other.archive),
        }
    }
}

/// The longest latencies of each group, in order.
pub fn latencies(
    incidents: &[Incident],
    logs: &[PartitionLogs],
    samples: &[Sample],
) -> Vec<Latencies> {
    let mut latencies = vec![Latencies::default(); incidents.len()];
    let mut note = |ended: Timestamp, wait: Latencies| {
        let during = incidents
            .iter()
            .position(|incident| incident.from <= ended && ended < incident.until);
        if let Some(index) = during {
            latencies[index] = latencies[index].max(wait);
        }
    };
    for (at, events) in ingest_stalls(samples) {
        note(
            at,
            Latencies {
                events,
                ..Latencies::default()
            },
        );
    }
    for log in logs {
        for (at, fold) in fold_latencies(log) {
            note(
                at,
                Latencies {
                    fold,
                    ..Latencies::default()
                },
            );
        }
        let applied = |sample: &Sample| {
            let cursors = sample.cursors.as_ref()?;
            cursors.applied.get(&log.partition.number()).copied()
        };
        for (at, apply) in arrival_latencies(&written(&log.outputs), samples, applied) {
            note(
                at,
                Latencies {
                    apply,
                    ..Latencies::default()
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
                let cursors = sample.cursors.as_ref()?;
                cursors.archived.get(stream).copied()
            };
            for (at, archive) in arrival_latencies(&messages, samples, archived) {
                note(
                    at,
                    Latencies {
                        archive,
                        ..Latencies::default()
                    },
                );
            }
        }
    }
    latencies
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

/// For every sample the time in which no event was accepted although some were pending.
fn ingest_stalls(samples: &[Sample]) -> Vec<(Timestamp, Duration)> {
    let mut ingest_stalls = Vec::new();
    let mut last: Option<(Timestamp, u64)> = None;
    for sample in samples {
        let Some((accepted, pending)) = sample.events else {
            continue;
        };
        match last {
            Some((since, before)) if accepted == before && pending > 0 => {
                ingest_stalls.push((sample.at, between(since, sample.at)));
            }
            Some(_) | None => last = Some((sample.at, accepted)),
        }
    }
    ingest_stalls
}

/// Time and latency of the outcome of each entry.
fn fold_latencies(log: &PartitionLogs) -> Vec<(Timestamp, Duration)> {
    let appended: BTreeMap<u64, Timestamp> = log
        .inputs
        .iter()
        .map(|input| (input.seq, input.at))
        .collect();
    let mut fold_latencies = Vec::new();
    for output in &log.outputs {
        for outcome in &output.frame.outcomes {
            if let Some(at) = appended.get(&outcome.position.seq) {
                fold_latencies.push((output.at, between(*at, output.at)));
            }
        }
    }
    fold_latencies
}

/// Time at which each message was seen in tables or archive, and its latency.
fn arrival_latencies(
    messages: &[(u64, Timestamp)],
    samples: &[Sample],
    position_of: impl Fn(&Sample) -> Option<u64>,
) -> Vec<(Timestamp, Duration)> {
    let mut arrival_latencies = Vec::new();
    // Messages from before the first sample have no observed arrival.
    let Some(first) = samples.iter().find(|sample| position_of(sample).is_some()) else {
        return arrival_latencies;
    };
    let mut waiting = messages
        .iter()
        .skip_while(|(_, at)| *at < first.at)
        .peekable();
    for sample in samples {
        let Some(position) = position_of(sample) else {
            continue;
        };
        while let Some((_, at)) = waiting.next_if(|(seq, _)| *seq <= position) {
            arrival_latencies.push((sample.at, between(*at, sample.at)));
        }
    }
    arrival_latencies
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
            cursors: None,
        }
    }

    #[test]
    fn a_gap_counts_only_while_events_are_pending() {
        let samples = [
            sample(0, 5, 0),
            sample(1_000, 5, 0),
            sample(2_000, 5, 3),
            sample(3_000, 5, 3),
            sample(4_000, 6, 2),
            sample(5_000, 6, 2),
        ];
        let longest = ingest_stalls(&samples)
            .into_iter()
            .map(|(_, time)| time)
            .max();
        assert_eq!(longest, Some(Duration::from_secs(2)));
    }

    #[test]
    fn latency_ends_at_the_sample_that_covers_the_message() {
        let samples: Vec<Sample> = [(1_000, 1), (2_000, 1), (3_000, 3)]
            .map(|(millis, position)| sample(millis, position, 0))
            .into();
        let messages = [(1, at(500)), (2, at(1_200)), (3, at(2_900)), (4, at(3_000))];
        // The first message is older than the first sample.
        let cursors = |sample: &Sample| sample.events.map(|(position, _)| position);
        let found = arrival_latencies(&messages, &samples, cursors);
        let expected = [(3_000, 1_800), (3_000, 100)]
            .map(|(millis, wait)| (at(millis), Duration::from_millis(wait)));
        assert_eq!(found, expected);
    }
}
