//! Sizes of the logs, trimmed messages and announced checkpoints.

use std::collections::BTreeMap;

use nixfleet_audit::check::Check;

use crate::partition_logs::{Output, PartitionLogs};
use crate::sampler::Sample;

/// Checkpoints without which a log is not trimmed: it is trimmed behind the last but one.
const CHECKPOINTS_MIN: u64 = 2;

/// Sizes of a log during the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LogSize {
    /// Bytes of all messages that were ever stored.
    written: u64,
    /// Largest size in a sample.
    largest: u64,
    /// Messages trimmed from the beginning.
    trimmed: u64,
}

/// All logs over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSizes {
    logs: BTreeMap<String, LogSize>,
    /// Announced checkpoints by output log.
    checkpoints: BTreeMap<String, u64>,
}

impl LogSizes {
    /// Collects the sizes from recordings and samples.
    pub fn of(logs: &[PartitionLogs], samples: &[Sample]) -> Self {
        let mut sizes = Self::default();
        for log in logs {
            let inputs = log.inputs.iter().map(|input| input.stored_bytes);
            let outputs = log.outputs.iter().map(|output| output.stored_bytes);
            sizes.log(&log.input_stream).written = inputs.map(|bytes| bytes as u64).sum();
            sizes.log(&log.output_stream).written = outputs.map(|bytes| bytes as u64).sum();
            let announced = log.outputs.iter().filter(|output| is_announcement(output));
            let count = announced.count() as u64;
            sizes.checkpoints.insert(log.output_stream.clone(), count);
        }
        for streams in samples.iter().filter_map(|sample| sample.streams.as_ref()) {
            for (stream, size) in &mut sizes.logs {
                let Some(state) = streams.get(stream) else {
                    continue;
                };
                size.largest = size.largest.max(state.bytes);
                size.trimmed = size.trimmed.max(state.first_seq.saturating_sub(1));
            }
        }
        sizes
    }

    fn log(&mut self, stream: &str) -> &mut LogSize {
        self.logs.entry(stream.to_owned()).or_default()
    }

    /// Bytes of everything that was ever stored.
    pub fn written(&self) -> u64 {
        self.logs.values().map(|log| log.written).sum()
    }

    /// Largest size of a single log.
    pub fn largest(&self) -> u64 {
        self.logs.values().map(|log| log.largest).max().unwrap_or(0)
    }

    /// Number of trimmed messages.
    pub fn trimmed(&self) -> u64 {
        self.logs.values().map(|log| log.trimmed).sum()
    }

    /// Number of announced checkpoints.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.values().sum()
    }

    /// Checks of logs with a size limit.
    pub fn checks(&self, limit: u64) -> Vec<Check> {
        let untrimmed = self.logs.iter().filter(|(_, log)| log.trimmed == 0);
        let untrimmed = untrimmed.map(|(stream, log)| {
            let LogSize {
                written, largest, ..
            } = log;
            format!("{stream}: {written} bytes were written, it holds {largest}")
        });
        let few = self.checkpoints.iter();
        let few = few.filter(|(_, count)| **count < CHECKPOINTS_MIN);
        let few = few.map(|(stream, count)| format!("{stream} announces {count}"));
        let over = self.logs.iter().filter(|(_, log)| log.largest > limit);
        let over = over.map(|(stream, log)| format!("{stream} held {} bytes", log.largest));
        vec![
            Check::new("every log was trimmed", untrimmed.collect()),
            Check::new("every partition wrote checkpoints", few.collect()),
            Check::new("no log exceeded its limit", over.collect()),
        ]
    }
}

fn is_announcement(output: &Output) -> bool {
    output.frame.checkpoints.is_some()
}

#[cfg(test)]
mod tests {
    use nixfleet_harness::monitoring::StreamState;
    use nixfleet_proto::subject::Partition;
    use nixfleet_proto::{Checkpoints, OutputFrame, Timestamp};

    use super::*;

    fn output(seq: u64, announces: Option<Checkpoints>) -> Output {
        Output {
            seq,
            at: Timestamp::UNIX_EPOCH,
            writer: String::new(),
            stored_bytes: 100,
            frame: OutputFrame {
                checkpoints: announces,
                ..OutputFrame::new(1)
            },
        }
    }

    fn sample(stream: &str, first_seq: u64, bytes: u64) -> Sample {
        let state = StreamState {
            first_seq,
            bytes,
            ..StreamState::default()
        };
        Sample {
            at: Timestamp::UNIX_EPOCH,
            events: None,
            streams: Some([(stream.to_owned(), state)].into()),
            cursors: None,
        }
    }

    #[test]
    fn untrimmed_and_oversized_logs_are_reported() {
        let log = PartitionLogs {
            partition: Partition::new(0),
            input_stream: "IN".to_owned(),
            output_stream: "OUT".to_owned(),
            inputs: Vec::new(),
            outputs: vec![
                output(1, None),
                output(2, Some(Checkpoints::default())),
                output(3, Some(Checkpoints::default())),
            ],
        };
        let samples = [sample("OUT", 1, 150), sample("OUT", 3, 120)];
        let sizes = LogSizes::of(std::slice::from_ref(&log), &samples);
        let sums = (sizes.written(), sizes.largest(), sizes.trimmed());
        assert_eq!((sums, sizes.checkpoints()), ((300, 150, 2), 2));
        let faults = |limit| sizes.checks(limit).into_iter().map(|check| check.fault);
        let untrimmed = "IN: 0 bytes were written, it holds 0".to_owned();
        let expected = [Some(untrimmed.clone()), None, None];
        assert!(faults(150).eq(expected));
        let over = "OUT held 150 bytes".to_owned();
        assert!(faults(149).eq([Some(untrimmed), None, Some(over)]));

        let one = PartitionLogs {
            outputs: log.outputs[..2].to_vec(),
            ..log
        };
        let checks = LogSizes::of(&[one], &samples).checks(150);
        assert_eq!(checks[1].fault.as_deref(), Some("OUT announces 1"));
    }
}
