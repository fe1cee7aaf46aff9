//! Builds output frames; an outcome is encoded while it is in the CPU cache.

mod encoded_outcomes;

use std::sync::Arc;

use bytes::Bytes;
use nixfleet_proto::{InputMark, Outcome, OutputFrame, Position, mutation_testing};

use crate::input::input_item::InputItem;

use encoded_outcomes::EncodedOutcomes;

pub(crate) use encoded_outcomes::FRAME_OVERHEAD_BYTES;

/// A frame also ends when its buffer holds this many times the limit: the buffer keeps both
/// versions of an outcome that was encoded again.
const BUFFER_FACTOR_MAX: usize = 4;

/// Outcomes of consecutive items on their way into one frame.
#[derive(Debug)]
pub struct FrameBuilder {
    /// The frame without its outcomes.
    head: OutputFrame,
    last_input_id: Option<Arc<str>>,
    outcomes: EncodedOutcomes,
    /// Limit of the encoded outcomes.
    bytes_max: usize,
    items: usize,
    /// The last item and its outcome, when the frame has no space for them.
    over: Option<(InputItem, Outcome)>,
}

/// A frame that is ready to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltFrame {
    /// The frame.
    pub frame: OutputFrame,
    /// Number of outcomes: holders of the payload may drop the outcomes themselves.
    pub entries: usize,
    /// The frame as JSON.
    pub payload: Bytes,
}

impl BuiltFrame {
    /// Encodes a frame without outcomes.
    ///
    /// # Panics
    /// Never: keys are text, and a vector takes every byte.
    pub(crate) fn without_outcomes(frame: OutputFrame) -> Self {
        let payload = serde_json::to_vec(&frame)
            .expect("a frame has text keys only, and memory takes every byte");
        Self {
            frame,
            entries: 0,
            payload: payload.into(),
        }
    }
}

impl FrameBuilder {
    /// Creates a builder for outcomes of at most `bytes_max` bytes, with `reserved` bytes of buffer.
    pub(crate) fn new(epoch: u64, bytes_max: usize, reserved: usize) -> Self {
        Self {
            head: OutputFrame::new(epoch),
            last_input_id: None,
            outcomes: EncodedOutcomes::new(reserved),
            bytes_max,
            items: 0,
            over: None,
        }
    }

    /// Adds an item and its outcome; an undecodable item has none.
    pub(crate) fn add(&mut self, item: InputItem, outcome: Option<Outcome>) {
        self.items += 1;
        if let Some(outcome) = outcome
            && let Some(outcome) = self.outcomes.add(outcome, self.bytes_max)
        {
            self.over = Some((item, outcome));
            return;
        }
        self.head.first_input.get_or_insert(item.position());
        self.head.last_input = Some(item.mark);
        self.last_input_id = item.msg_id;
    }

    /// True when the frame must end.
    pub(crate) fn is_full(&self) -> bool {
        // Few outcomes are larger than the part that may stay free.
        self.over.is_some()
            || self.outcomes.bytes() >= self.bytes_max / 64 * 63
            || self.outcomes.buffer_bytes() >= self.bytes_max * BUFFER_FACTOR_MAX
    }

    /// Number of added items.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    pub(crate) fn bytes(&self) -> usize {
        self.outcomes.bytes()
    }

    /// Position of the first item of the frame.
    pub fn first_input(&self) -> Option<Position> {
        self.head.first_input
    }

    /// Mark of the last item of the frame.
    pub fn last_input(&self) -> Option<InputMark> {
        self.head.last_input
    }

    /// Outcomes of the frame.
    pub fn outcomes(&self) -> &[Outcome] {
        self.outcomes.list()
    }

    /// Sets the sequence of the newest earlier frame that announces a checkpoint.
    pub(crate) fn set_announced_at(&mut self, announced_at: Option<u64>) {
        self.head.announced_at = announced_at;
    }

    /// Sets the hash of the state behind the last outcome.
    pub(crate) fn add_hash(&mut self, hash: String) {
        self.head.state_hash = Some(hash);
    }

    /// Builds the frame, and a second one for the outcome that did not fit. The last frame carries
    /// the state hash. A frame is larger than the limit only if it has a single outcome.
    pub fn build(mut self) -> Vec<BuiltFrame> {
        let Some((item, outcome)) = self.over.take() else {
            return vec![self.finish()];
        };
        let mut rest = Self::new(self.head.epoch, self.bytes_max, 0);
        rest.head.state_hash = self.head.state_hash.take();
        rest.head.announced_at = self.head.announced_at;
        rest.add(item, Some(outcome));
        if mutation_testing::is_active("owner-drop-at-split") {
            return vec![self.finish()];
        }
        vec![self.finish(), rest.finish()]
    }

    fn finish(mut self) -> BuiltFrame {
        self.head.last_input_id = self.last_input_id.as_deref().map(str::to_owned);
        let mut head = Vec::new();
        self.head
            .write_head(&mut head)
            .expect("a frame has text keys only, and memory takes every byte");
        let (outcomes, payload) = self.outcomes.finish(&head);
        let entries = outcomes.len();
        let frame = OutputFrame {
            outcomes,
            ..self.head
        };
        BuiltFrame {
            frame,
            entries,
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::host::NewHost;
    use nixfleet_proto::outcome::{Accepted, OutcomeSubject};
    use nixfleet_proto::{Decision, HostRecord, Minutes, StoredAt, Timestamp};

    use super::*;

    fn item(seq: u64) -> InputItem {
        InputItem {
            mark: InputMark {
                seq,
                index: 0,
                of: 1,
            },
            stored_at: StoredAt::new(Timestamp::UNIX_EPOCH),
            msg_id: None,
            entry: None,
        }
    }

    /// An outcome that changes a host whose record takes this many bytes.
    fn changed(seq: u64, bytes: usize) -> Outcome {
        let record = HostRecord::pending(NewHost {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: "web-01".into(),
            channel: "stable".into(),
            target_closure: "c".repeat(bytes).into(),
            soak_minutes: Minutes::ZERO,
            dispatched_at: Timestamp::UNIX_EPOCH,
        });
        let accepted = Accepted {
            hosts: vec![Arc::new(record)],
            ..Accepted::default()
        };
        Outcome {
            position: item(seq).position(),
            at: Timestamp::UNIX_EPOCH,
            subject: OutcomeSubject {
                entry: "HostEvent".into(),
                event: None,
                producer: None,
                rollout_id: None,
                hostname: None,
                actor: None,
            },
            traceparent: None,
            decision: Decision::Accepted(Box::new(accepted)),
        }
    }

    #[test]
    fn an_outcome_that_names_a_host_twice_keeps_both_records() {
        let mut outcome = changed(1, 10);
        let record = outcome.decision.host_records()[0].clone();
        outcome
            .decision
            .replace_host_records(vec![record.clone(), record]);
        let mut builder = FrameBuilder::new(3, 100_000, 0);
        builder.add(item(1), Some(outcome.clone()));
        assert_eq!(builder.build()[0].frame.outcomes, [outcome]);
    }

    #[test]
    fn a_host_that_changes_often_does_not_fill_memory() {
        let mut builder = FrameBuilder::new(3, 100_000, 0);
        let mut seqs = 1..;
        while !builder.is_full() {
            let seq = seqs.next().unwrap();
            builder.add(item(seq), Some(changed(seq, 20_000)));
        }
        let changes = builder.items();
        assert!((15..=25).contains(&changes), "{changes}");
        let [built] = &*builder.build() else {
            panic!("all outcomes fit into one frame");
        };
        assert_eq!(built.payload, serde_json::to_vec(&built.frame).unwrap());
        let (last, before) = built.frame.outcomes.split_last().unwrap();
        assert_eq!(last.decision.host_records().len(), 1);
        assert!(
            before
                .iter()
                .all(|outcome| outcome.decision.host_records().is_empty())
        );
    }
}
