//! Entries in, runs out: a run ends about where its frame is full, wherever that is in the input.

use std::collections::VecDeque;
use std::sync::Arc;

use nixfleet_bus::LastRead;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{InputMark, Position, mutation_testing};

use crate::item::Item;
use crate::writing::{FRAME_OVERHEAD_BYTES, Run};

/// Entries that the state is asked to look at before they are folded.
const AHEAD: usize = 64;

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

/// The state of a partition with what waits to be folded into it.
#[derive(Debug)]
pub struct Folder {
    state: PartitionState,
    epoch: u64,
    limits: Limits,
    /// Bytes of the last run: room for the next.
    run_bytes: usize,
    backlog: VecDeque<Item>,
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
            run_bytes: 0,
            backlog: VecDeque::new(),
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
    pub fn last_read(&self) -> LastRead {
        let mut last_read = LastRead::default();
        if let Some(mark) = self.last_input
            && !mutation_testing::is_active("tail-loss-unseen")
        {
            last_read.record(mark.seq, self.last_input_id.as_deref());
        }
        last_read
    }

    /// The last input that is folded, and the message id of its message.
    pub fn last_input(&self) -> (Option<InputMark>, Option<&Arc<str>>) {
        (self.last_input, self.last_input_id.as_ref())
    }

    /// True when a run can be made.
    pub fn has_work(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// True when a run could take more than waits.
    pub fn has_room(&self) -> bool {
        self.backlog.len() < self.limits.entries
    }

    /// Queues what was read.
    pub fn queue(&mut self, items: Vec<Item>) {
        if self.backlog.is_empty() {
            self.backlog = items.into();
        } else {
            self.backlog.extend(items);
        }
    }

    /// Folds as much as fits into a frame, or all that waits. `None` when there was nothing.
    pub fn run(&mut self, pinned: &PinnedSet) -> Option<Run> {
        self.backlog.front()?;
        let bytes_max = self.limits.bytes.saturating_sub(FRAME_OVERHEAD_BYTES);
        // A bit more than before: room that was too small is made a second time.
        let mut run = Run::new(self.epoch, bytes_max, self.run_bytes / 16 * 17);
        loop {
            if run.items().is_multiple_of(AHEAD) {
                let next = self.backlog.iter().take(AHEAD);
                self.state
                    .prefetch(next.filter_map(|item| item.entry.as_ref()));
            }
            let Some(item) = self.backlog.pop_front() else {
                break;
            };
            self.next = item.mark.next();
            self.last_input = Some(item.mark);
            if self.last_input_id != item.msg_id {
                self.last_input_id.clone_from(&item.msg_id);
            }
            let entry = item.entry.as_ref();
            let outcome = entry.map(|entry| self.state.apply(item.position(), entry, pinned));
            run.add(item, outcome);
            if run.items() >= self.limits.entries || run.is_full() {
                break;
            }
        }
        self.run_bytes = run.bytes();
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{Entry, EntryBody, OutputFrame, Timestamp};

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
            let run = folder.run(&PinnedSet::new()).unwrap();
            let written = run.write();
            frames.extend(written.into_iter().map(|folded| {
                assert_eq!(folded.payload, serde_json::to_vec(&folded.frame).unwrap());
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
    fn a_head_that_is_larger_than_its_room_is_written_too() {
        let mut folder = folder(1_000_000, 100);
        let long = Item {
            msg_id: Some("\u{1}".repeat(512).into()),
            ..item(1, 0, 1)
        };
        folder.queue(vec![long]);
        let written = folder.run(&PinnedSet::new()).unwrap().write();
        let json = serde_json::to_vec(&written[0].frame).unwrap();
        assert!(json.len() > 6 * 512 && written[0].payload == json);
    }

    #[test]
    fn a_run_that_is_cut_has_its_hash_at_its_end() {
        let mut folder = folder(FRAME_OVERHEAD_BYTES + 1_200, 100);
        folder.queue((0..8).map(|index| item(1, index, 8)).collect());
        let mut run = folder.run(&PinnedSet::new()).unwrap();
        run.add_hash("hash".to_owned());
        let written = run.write();
        let mut frames: Vec<_> = written.into_iter().map(|folded| folded.frame).collect();
        let hashes = frames.iter().map(|frame| frame.state_hash.is_some());
        assert_eq!(hashes.collect::<Vec<_>>(), [false, true]);
        assert_eq!(frames[1].outcomes.len(), 1);
        frames.extend(runs(&mut folder));
        check_chain(&frames, 8);
    }

    #[test]
    fn a_run_ends_where_its_frame_is_full() {
        let mut folder = folder(FRAME_OVERHEAD_BYTES + 20_000, 1_000);
        folder.queue((0..400).map(|index| item(1, index, 400)).collect());
        let frames = runs(&mut folder);
        check_chain(&frames, 400);
        let sizes = frames
            .iter()
            .map(|frame| serde_json::to_vec(frame).unwrap().len());
        let sizes: Vec<usize> = sizes.collect();
        let [full @ .., _] = &*sizes else {
            panic!("{sizes:?}");
        };
        assert!(
            full.len() > 2 && full.iter().all(|size| *size > 19_000),
            "{sizes:?}"
        );
        assert!(!folder.has_work() && folder.has_room());
    }
}
