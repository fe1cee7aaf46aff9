//! Writing frames: what is folded becomes JSON at once, while it is in the cache of the processor, and a
//! run ends where its frame is full.

mod outcomes;

use std::sync::Arc;

use bytes::Bytes;
use nixfleet_proto::{InputMark, Outcome, OutputFrame, Position, mutation_testing};

use crate::item::Item;

use outcomes::Outcomes;

pub(crate) use outcomes::FRAME_OVERHEAD_BYTES;

/// A run ends when what was written for it takes so many times what its frame may hold: outcomes that
/// were written again stand there twice.
const WRITTEN_MAX: usize = 4;

/// What was folded in one go, on its way into a frame.
#[derive(Debug)]
pub struct Run {
    /// What the frame says besides its outcomes.
    head: OutputFrame,
    last_input_id: Option<Arc<str>>,
    outcomes: Outcomes,
    /// Most bytes of them.
    bytes_max: usize,
    items: usize,
    /// The last item and its outcome, when it does not fit into the frame.
    over: Option<(Item, Outcome)>,
}

/// A frame, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The frame.
    pub frame: OutputFrame,
    /// Its outcomes, which whoever has the payload may let go.
    pub entries: usize,
    /// All of it as JSON.
    pub payload: Bytes,
}

impl Folded {
    /// A frame without outcomes.
    ///
    /// # Panics
    /// Never: it has text keys only, and memory takes every byte.
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

impl Run {
    /// Of outcomes that take `bytes_max` bytes at most, and probably about as many as `room`.
    pub(crate) fn new(epoch: u64, bytes_max: usize, room: usize) -> Self {
        Self {
            head: OutputFrame::new(epoch),
            last_input_id: None,
            outcomes: Outcomes::new(room),
            bytes_max,
            items: 0,
            over: None,
        }
    }

    /// Adds an item with what was folded of it; an undecodable one has no outcome.
    pub(crate) fn add(&mut self, item: Item, outcome: Option<Outcome>) {
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

    /// True when it has to end.
    pub(crate) fn is_full(&self) -> bool {
        // An outcome as large as what may stay free is rare.
        self.over.is_some()
            || self.outcomes.bytes() >= self.bytes_max / 64 * 63
            || self.outcomes.bytes_written() >= self.bytes_max * WRITTEN_MAX
    }

    /// Items that were added.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Bytes of its outcomes.
    pub(crate) fn bytes(&self) -> usize {
        self.outcomes.bytes()
    }

    /// The first item of its frame.
    pub fn first_input(&self) -> Option<Position> {
        self.head.first_input
    }

    /// The last item of its frame.
    pub fn last_input(&self) -> Option<InputMark> {
        self.head.last_input
    }

    /// The outcomes of its frame.
    pub fn outcomes(&self) -> &[Outcome] {
        self.outcomes.list()
    }

    /// Names the newest frame before it that announces a checkpoint.
    pub(crate) fn set_announced_at(&mut self, announced_at: Option<u64>) {
        self.head.announced_at = announced_at;
    }

    /// Adds the hash of the state that it ends with.
    pub(crate) fn add_hash(&mut self, hash: String) {
        self.head.state_hash = Some(hash);
    }

    /// Ends it: one frame, and one more of the outcome that does not fit into it. The hash is that of the
    /// end. No frame is larger than the limit unless it has one outcome only.
    pub fn write(mut self) -> Vec<Folded> {
        let Some((item, outcome)) = self.over.take() else {
            return vec![self.folded()];
        };
        let mut rest = Self::new(self.head.epoch, self.bytes_max, 0);
        rest.head.state_hash = self.head.state_hash.take();
        rest.head.announced_at = self.head.announced_at;
        rest.add(item, Some(outcome));
        if mutation_testing::is_active("owner-drop-at-split") {
            return vec![self.folded()];
        }
        vec![self.folded(), rest.folded()]
    }

    fn folded(mut self) -> Folded {
        self.head.last_input_id = self.last_input_id.as_deref().map(str::to_owned);
        let mut head = Vec::new();
        self.head
            .write_head(&mut head)
            .expect("a frame has text keys only, and memory takes every byte");
        let (outcomes, payload) = self.outcomes.end(&head);
        let entries = outcomes.len();
        let frame = OutputFrame {
            outcomes,
            ..self.head
        };
        Folded {
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
    use nixfleet_proto::{Decision, HostRecord, Minutes, Timestamp};

    use super::*;

    fn item(seq: u64) -> Item {
        Item {
            mark: InputMark {
                seq,
                index: 0,
                of: 1,
            },
            msg_id: None,
            entry: None,
        }
    }

    /// What changed a host whose record takes so many bytes.
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
        let mut run = Run::new(3, 100_000, 0);
        run.add(item(1), Some(outcome.clone()));
        assert_eq!(run.write()[0].frame.outcomes, [outcome]);
    }

    #[test]
    fn a_host_that_changes_without_end_fills_no_memory() {
        let mut run = Run::new(3, 100_000, 0);
        let mut seqs = 1..;
        while !run.is_full() {
            let seq = seqs.next().unwrap();
            run.add(item(seq), Some(changed(seq, 20_000)));
        }
        let changes = run.items();
        assert!((15..=25).contains(&changes), "{changes}");
        let [folded] = &*run.write() else {
            panic!("it has room for all of them");
        };
        assert_eq!(folded.payload, serde_json::to_vec(&folded.frame).unwrap());
        let (last, before) = folded.frame.outcomes.split_last().unwrap();
        assert_eq!(last.decision.host_records().len(), 1);
        assert!(
            before
                .iter()
                .all(|outcome| outcome.decision.host_records().is_empty())
        );
    }
}
