//! The fold of a partition: applies queued entries in order and builds one output frame at a time.
//! A frame ends where it is full, which may be inside an input message.

use std::collections::VecDeque;
use std::sync::Arc;

use nixfleet_bus::LastRead;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{InputMark, Position, mutation_testing};

use crate::input::input_item::InputItem;
use crate::output::frame_builder::{FRAME_OVERHEAD_BYTES, FrameBuilder};

/// Entries whose records are prefetched into the CPU cache before they are folded.
const PREFETCH_ENTRIES: usize = 64;

/// Limits of one output frame.
#[derive(Debug, Clone, Copy)]
pub struct FoldLimits {
    /// Maximum of entries.
    pub entries: usize,
    /// Maximum of bytes.
    pub bytes: usize,
}

/// Position at which a fold starts.
#[derive(Debug, Clone)]
pub struct FoldStart {
    /// Last input that is folded already.
    pub last_input: Option<InputMark>,
    /// Message id of the last folded input.
    pub last_input_id: Option<Arc<str>>,
    /// First input to fold.
    pub next: Position,
}

/// The state of a partition and the items that are queued for it.
#[derive(Debug)]
pub struct Fold {
    state: PartitionState,
    epoch: u64,
    limits: FoldLimits,
    /// Bytes of the last frame: the capacity reserved for the next one.
    frame_bytes: usize,
    backlog: VecDeque<InputItem>,
    last_input: Option<InputMark>,
    last_input_id: Option<Arc<str>>,
    next: Position,
}

impl Fold {
    /// Creates a fold that continues at `start`.
    pub fn new(state: PartitionState, epoch: u64, start: FoldStart, limits: FoldLimits) -> Self {
        Self {
            state,
            epoch,
            limits,
            frame_bytes: 0,
            backlog: VecDeque::new(),
            last_input: start.last_input,
            last_input_id: start.last_input_id,
            next: start.next,
        }
    }

    /// The state with every folded entry, published or not.
    pub fn state(&self) -> &PartitionState {
        &self.state
    }

    /// The first position that is not folded.
    pub fn next(&self) -> Position {
        self.next
    }

    /// The last folded message, by which a reader recognises the log.
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

    /// True when items are queued.
    pub fn has_work(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// True when fewer items are queued than a frame takes.
    pub fn has_room(&self) -> bool {
        self.backlog.len() < self.limits.entries
    }

    /// Queues items in the order of the log.
    pub fn queue(&mut self, items: Vec<InputItem>) {
        if self.backlog.is_empty() {
            self.backlog = items.into();
        } else {
            self.backlog.extend(items);
        }
    }

    /// Folds the items of one frame, or all that are queued. `None` when none are.
    pub fn build_frame(&mut self, pinned: &PinnedSet) -> Option<FrameBuilder> {
        self.backlog.front()?;
        let bytes_max = self.limits.bytes.saturating_sub(FRAME_OVERHEAD_BYTES);
        // A little more than the last frame took: a buffer that is too small is reallocated.
        let mut builder = FrameBuilder::new(self.epoch, bytes_max, self.frame_bytes / 16 * 17);
        loop {
            if builder.items().is_multiple_of(PREFETCH_ENTRIES) {
                let next = self.backlog.iter().take(PREFETCH_ENTRIES);
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
            let (position, stored_at) = (item.position(), item.stored_at);
            let outcome = entry.map(|entry| self.state.apply(position, stored_at, entry, pinned));
            builder.add(item, outcome);
            if builder.items() >= self.limits.entries || builder.is_full() {
                break;
            }
        }
        self.frame_bytes = builder.bytes();
        Some(builder)
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{Entry, EntryBody, OutputFrame, StoredAt, Timestamp};

    use super::*;

    fn item(seq: u64, index: u32, of: u32) -> InputItem {
        let body = EntryBody::RecoveryCandidate {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: "web-01".into(),
            current_closure: "c".into(),
        };
        InputItem {
            mark: InputMark { seq, index, of },
            stored_at: StoredAt::new(Timestamp::UNIX_EPOCH),
            msg_id: Some(format!("id-{seq}").into()),
            entry: Some(Entry::new(Timestamp::UNIX_EPOCH, body)),
        }
    }

    fn fold(bytes: usize, entries: usize) -> Fold {
        let limits = FoldLimits { entries, bytes };
        let start = FoldStart {
            last_input: None,
            last_input_id: None,
            next: Position { seq: 1, index: 0 },
        };
        Fold::new(PartitionState::new(), 3, start, limits)
    }

    fn build_frames(fold: &mut Fold) -> Vec<OutputFrame> {
        let mut frames = Vec::new();
        while fold.has_work() {
            let builder = fold.build_frame(&PinnedSet::new()).unwrap();
            let built = builder.build();
            frames.extend(built.into_iter().map(|one| {
                assert_eq!(one.payload, serde_json::to_vec(&one.frame).unwrap());
                one.frame
            }));
        }
        frames
    }

    /// Asserts that frames are contiguous and that each entry has one outcome.
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
    fn a_full_frame_ends_inside_a_message() {
        let mut fold = fold(FRAME_OVERHEAD_BYTES + 1_000, 100);
        fold.queue((0..5).map(|index| item(1, index, 5)).collect());
        fold.queue((0..5).map(|index| item(2, index, 5)).collect());
        let frames = build_frames(&mut fold);
        assert!(frames.len() > 2, "{}", frames.len());
        check_chain(&frames, 10);
        for frame in &frames {
            let size = serde_json::to_vec(frame).unwrap().len();
            assert!(size <= FRAME_OVERHEAD_BYTES + 1_000, "{size}");
        }
        assert_eq!(fold.next(), Position { seq: 3, index: 0 });
    }

    #[test]
    fn an_outcome_larger_than_the_limit_gets_a_frame_of_its_own() {
        let mut fold = fold(1, 100);
        fold.queue(vec![item(1, 0, 1), item(2, 0, 1)]);
        let frames = build_frames(&mut fold);
        assert_eq!(frames.len(), 2);
        check_chain(&frames, 2);
    }

    #[test]
    fn a_frame_has_a_maximum_of_entries() {
        let mut fold = fold(1_000_000, 2);
        fold.queue((0..5).map(|index| item(1, index, 5)).collect());
        let frames = build_frames(&mut fold);
        assert_eq!(frames.len(), 3);
        check_chain(&frames, 5);
    }

    #[test]
    fn an_undecodable_message_is_covered_without_an_outcome() {
        let mut fold = fold(1_000_000, 100);
        let unread = InputItem {
            entry: None,
            ..item(7, 0, 1)
        };
        fold.queue(vec![unread]);
        let frames = build_frames(&mut fold);
        assert_eq!(frames[0].first_input, Some(Position { seq: 7, index: 0 }));
        assert_eq!(frames[0].last_input.unwrap().next().seq, 8);
        assert_eq!(frames[0].outcomes, []);
        assert!(fold.build_frame(&PinnedSet::new()).is_none());
    }

    #[test]
    fn a_head_larger_than_the_reserved_bytes_is_encoded_too() {
        let mut fold = fold(1_000_000, 100);
        let long = InputItem {
            msg_id: Some("\u{1}".repeat(512).into()),
            ..item(1, 0, 1)
        };
        fold.queue(vec![long]);
        let built = fold.build_frame(&PinnedSet::new()).unwrap().build();
        let json = serde_json::to_vec(&built[0].frame).unwrap();
        assert!(json.len() > 6 * 512 && built[0].payload == json);
    }

    #[test]
    fn the_hash_of_a_split_frame_is_in_its_last_part() {
        let mut fold = fold(FRAME_OVERHEAD_BYTES + 1_200, 100);
        fold.queue((0..8).map(|index| item(1, index, 8)).collect());
        let mut builder = fold.build_frame(&PinnedSet::new()).unwrap();
        builder.add_hash("hash".to_owned());
        let built = builder.build();
        let mut frames: Vec<_> = built.into_iter().map(|built| built.frame).collect();
        let hashes = frames.iter().map(|frame| frame.state_hash.is_some());
        assert_eq!(hashes.collect::<Vec<_>>(), [false, true]);
        assert_eq!(frames[1].outcomes.len(), 1);
        frames.extend(build_frames(&mut fold));
        check_chain(&frames, 8);
    }

    #[test]
    fn frames_are_filled_almost_to_the_limit() {
        let mut fold = fold(FRAME_OVERHEAD_BYTES + 20_000, 1_000);
        fold.queue((0..400).map(|index| item(1, index, 400)).collect());
        let frames = build_frames(&mut fold);
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
        assert!(!fold.has_work() && fold.has_room());
    }
}
