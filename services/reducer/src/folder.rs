//! Entries in, frames out: a run ends where its frame is full, wherever that is in the input.

use std::collections::VecDeque;
use std::sync::Arc;

use nixfleet_bus::Landmark;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{
    Entry, EntryBody, InputMark, ManifestHash, Outcome, OutputFrame, PlanAction, Position, mutant,
};

/// Bytes of a frame besides its outcomes, generously.
const FRAME_OVERHEAD_BYTES: usize = 1_024;

/// One entry, or an undecodable message that is covered and passed over.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is.
    pub mark: InputMark,
    /// Message id of its message.
    pub msg_id: Option<Arc<str>>,
    /// Absent for an undecodable message.
    pub entry: Option<Entry>,
}

impl Item {
    /// Its position.
    pub fn position(&self) -> Position {
        Position {
            seq: self.mark.seq,
            index: self.mark.index,
        }
    }

    /// The manifest that must be at hand before it is folded.
    pub fn manifest(&self) -> Option<&ManifestHash> {
        match &self.entry.as_ref()?.body {
            EntryBody::Plan {
                action: PlanAction::OpenRollout { manifest_hash, .. },
                ..
            } => Some(manifest_hash),
            EntryBody::Plan { .. }
            | EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Operator { .. } => None,
        }
    }
}

/// Bounds of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of the frame.
    pub bytes: usize,
}

/// Where an owner begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// Last input that is folded.
    pub last_input: Option<InputMark>,
    /// Message id of its message.
    pub last_input_id: Option<Arc<str>>,
    /// First input to fold.
    pub next: Position,
}

/// Bytes of a usual outcome: room is made for as many as wait.
const OUTCOME_BYTES: usize = 1_024;

/// An outcome that did not fit into the frame before.
#[derive(Debug)]
struct Carried {
    item: Item,
    outcome: Outcome,
    json: Vec<u8>,
}

/// A folded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The frame.
    pub frame: OutputFrame,
    /// Its outcomes as JSON, with commas between them.
    pub json: Vec<u8>,
}

/// The state of a partition with what waits to be folded into it.
#[derive(Debug)]
pub struct Folder {
    state: PartitionState,
    epoch: u64,
    limits: Limits,
    backlog: VecDeque<Item>,
    carried: Option<Carried>,
    last_input: Option<InputMark>,
    last_input_id: Option<Arc<str>>,
    next: Position,
}

impl Folder {
    /// A folder that goes on at `next`; what lies before is covered by `last_input`.
    pub fn new(state: PartitionState, epoch: u64, start: Start, limits: Limits) -> Self {
        Self {
            state,
            epoch,
            limits,
            backlog: VecDeque::new(),
            carried: None,
            last_input: start.last_input,
            last_input_id: start.last_input_id,
            next: start.next,
        }
    }

    /// The state, with everything folded so far, published or not.
    pub fn state(&self) -> &PartitionState {
        &self.state
    }

    /// The first position that is not folded.
    pub fn next(&self) -> Position {
        self.next
    }

    /// The message of the last input that is folded: what the log is known by.
    pub fn landmark(&self) -> Landmark {
        let mut landmark = Landmark::default();
        if let Some(mark) = self.last_input
            && !mutant::is("tail-loss-unseen")
        {
            landmark.note(mark.seq, self.last_input_id.as_deref());
        }
        landmark
    }

    /// True when a run can be made.
    pub fn has_work(&self) -> bool {
        self.carried.is_some() || !self.backlog.is_empty()
    }

    /// Queues what was read.
    pub fn queue(&mut self, items: Vec<Item>) {
        self.backlog.extend(items);
    }

    /// Folds until the frame is full or nothing waits. `None` when there was nothing.
    pub fn run(&mut self, pinned: &PinnedSet) -> Option<Folded> {
        let mut frame = OutputFrame {
            last_input: self.last_input,
            ..OutputFrame::new(self.epoch)
        };
        let bytes_max = self.limits.bytes.saturating_sub(FRAME_OVERHEAD_BYTES);
        let mut json = Vec::with_capacity(bytes_max.min(self.backlog.len() * OUTCOME_BYTES));
        if let Some(carried) = self.carried.take() {
            json = carried.json;
            self.extend(&mut frame, &carried.item, Some(carried.outcome));
        }
        while frame.outcomes.len() < self.limits.entries {
            let Some(item) = self.backlog.pop_front() else {
                break;
            };
            self.next = item.mark.next();
            let Some(entry) = &item.entry else {
                self.extend(&mut frame, &item, None);
                continue;
            };
            let position = item.position();
            let end = json.len();
            if !frame.outcomes.is_empty() {
                json.push(b',');
            }
            let start = json.len();
            let state = &mut self.state;
            let outcome = state.apply_written(position, entry, pinned, &mut json);
            if json.len() > bytes_max && !frame.outcomes.is_empty() {
                let written = json.split_off(start);
                json.truncate(end);
                if mutant::is("owner-drop-at-split") {
                    break;
                }
                self.carried = Some(Carried {
                    item,
                    outcome,
                    json: written,
                });
                break;
            }
            self.extend(&mut frame, &item, Some(outcome));
        }
        frame.last_input_id = self.last_input_id.as_deref().map(str::to_owned);
        let is_some = frame.first_input.is_some();
        is_some.then_some(Folded { frame, json })
    }

    fn extend(&mut self, frame: &mut OutputFrame, item: &Item, outcome: Option<Outcome>) {
        frame.first_input.get_or_insert(item.position());
        frame.last_input = Some(item.mark);
        frame.outcomes.extend(outcome);
        self.last_input = frame.last_input;
        if self.last_input_id != item.msg_id {
            self.last_input_id.clone_from(&item.msg_id);
        }
    }

    /// True when the state is exactly what the last frame ends with, so that its hash may go along.
    pub fn is_at_frame_end(&self) -> bool {
        self.carried.is_none()
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{EntryBody, Timestamp};

    use super::*;

    fn item(seq: u64, index: u32, of: u32) -> Item {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: "web-01".into(),
            current_closure: "c".into(),
        };
        Item {
            mark: InputMark { seq, index, of },
            msg_id: Some(format!("id-{seq}").into()),
            entry: Some(Entry::new(Timestamp::UNIX_EPOCH, body)),
        }
    }

    fn folder(bytes: usize, entries: usize) -> Folder {
        let limits = Limits { entries, bytes };
        let start = Start {
            last_input: None,
            last_input_id: None,
            next: Position { seq: 1, index: 0 },
        };
        Folder::new(PartitionState::new(), 3, start, limits)
    }

    fn runs(folder: &mut Folder) -> Vec<OutputFrame> {
        let mut frames = Vec::new();
        while folder.has_work() {
            let folded = folder.run(&PinnedSet::new());
            frames.extend(folded.map(|folded| {
                let json = folded.frame.to_json(&folded.json).unwrap();
                assert_eq!(json, serde_json::to_vec(&folded.frame).unwrap());
                folded.frame
            }));
        }
        frames
    }

    /// Every frame begins where the one before ended, and every entry has its outcome once.
    fn check_chain(frames: &[OutputFrame], entries: usize) {
        let mut next = frames[0].first_input.unwrap();
        for frame in frames {
            assert_eq!(frame.first_input, Some(next));
            let last = frame.last_input.unwrap();
            assert_eq!(frame.last_input_id, Some(format!("id-{}", last.seq)));
            next = last.next();
        }
        let positions: Vec<_> = frames
            .iter()
            .flat_map(|frame| &frame.outcomes)
            .map(|outcome| outcome.position)
            .collect();
        assert_eq!(positions.len(), entries);
        assert!(positions.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_run_splits_inside_a_message_when_its_frame_is_full() {
        let mut folder = folder(FRAME_OVERHEAD_BYTES + 1_000, 100);
        folder.queue((0..5).map(|index| item(1, index, 5)).collect());
        folder.queue((0..5).map(|index| item(2, index, 5)).collect());
        let frames = runs(&mut folder);
        assert!(frames.len() > 2, "{}", frames.len());
        check_chain(&frames, 10);
        for frame in &frames {
            let size = serde_json::to_vec(frame).unwrap().len();
            assert!(size <= FRAME_OVERHEAD_BYTES + 1_000, "{size}");
        }
        assert_eq!(folder.next(), Position { seq: 3, index: 0 });
    }

    #[test]
    fn an_outcome_that_is_too_large_alone_still_gets_a_frame() {
        let mut folder = folder(1, 100);
        folder.queue(vec![item(1, 0, 1), item(2, 0, 1)]);
        let frames = runs(&mut folder);
        assert_eq!(frames.len(), 2);
        check_chain(&frames, 2);
    }

    #[test]
    fn a_run_has_a_bound_of_entries() {
        let mut folder = folder(1_000_000, 2);
        folder.queue((0..5).map(|index| item(1, index, 5)).collect());
        let frames = runs(&mut folder);
        assert_eq!(frames.len(), 3);
        check_chain(&frames, 5);
    }

    #[test]
    fn an_undecodable_message_is_covered_without_an_outcome() {
        let mut folder = folder(1_000_000, 100);
        let unread = Item {
            entry: None,
            ..item(7, 0, 1)
        };
        folder.queue(vec![unread]);
        let frames = runs(&mut folder);
        assert_eq!(frames[0].first_input, Some(Position { seq: 7, index: 0 }));
        assert_eq!(frames[0].last_input.unwrap().next().seq, 8);
        assert_eq!(frames[0].outcomes, []);
        assert!(folder.run(&PinnedSet::new()).is_none());
    }

    #[test]
    fn a_carried_outcome_keeps_the_hash_back() {
        let mut folder = folder(FRAME_OVERHEAD_BYTES + 300, 100);
        folder.queue(vec![item(1, 0, 1), item(2, 0, 1)]);
        folder.run(&PinnedSet::new()).unwrap();
        assert!(!folder.is_at_frame_end());
        folder.run(&PinnedSet::new()).unwrap();
        assert!(folder.is_at_frame_end());
    }
}
