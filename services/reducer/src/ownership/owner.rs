//! The owner of a partition: takes entries, builds frames, and keeps one frame in flight.

use bytes::Bytes;
use nixfleet_bus::{LastRead, LogUsage, MAX_OUTPUT_FRAME_BYTES};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{
    CheckpointRef, Checkpoints, InputMark, ManifestHash, OutputFrame, Position, mutation_testing,
};

use crate::input::fold::{Fold, FoldLimits};
use crate::input::input_item::InputItem;
use crate::input::pinned_manifests::{ManifestFetch, PinnedManifests};
use crate::output::frame_builder::{BuiltFrame, FrameBuilder};
use crate::output::log_capacity::OutputCapacity;
use crate::output::publish_queue::PublishQueue;
use crate::ownership::checkpoint_schedule::{
    CheckpointLimits, CheckpointSchedule, CheckpointState, LogBytes, LogCreationTimes,
};
use crate::ownership::ownership_end::OwnershipEnd;
use crate::ownership::takeover::HydratedPartition;

/// Limits of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerConfig {
    /// Maximum of entries in one turn.
    pub turn_entries: usize,
    /// Maximum of bytes in a frame.
    pub frame_bytes: usize,
    /// Bytes of the output log that are reserved for barriers and announcements.
    pub reserve_bytes: u64,
    /// Entries between two state hashes; a hash walks the whole state.
    pub hash_every_entries: u64,
    /// Limits of the growth between two checkpoints.
    pub checkpoints: CheckpointLimits,
}

/// The owner of one partition.
#[derive(Debug)]
pub struct Owner {
    fold: Fold,
    pinned: PinnedManifests,
    /// Items that wait for manifests they name.
    waiting: Vec<InputItem>,
    /// BuiltFrame, and not written.
    builder: Option<FrameBuilder>,
    publish_queue: PublishQueue,
    hash_every_entries: u64,
    unhashed_entries: u64,
    checkpoint_schedule: CheckpointSchedule,
    capacity: OutputCapacity,
    /// Last input that the built frames cover, with the message id of its message.
    covered: (Option<InputMark>, Option<String>),
    epoch: u64,
    logs: LogCreationTimes,
    origin: Origin,
}

impl Owner {
    /// Creates the owner after a takeover. `held` is the size of the logs.
    pub fn new(taken: HydratedPartition, held: LogBytes, config: OwnerConfig) -> Self {
        let limits = FoldLimits {
            entries: config.turn_entries,
            bytes: config.frame_bytes.min(MAX_OUTPUT_FRAME_BYTES),
        };
        let known = (taken.checkpoints, taken.announced_at);
        let covered = taken.start.last_input_id.as_deref();
        let covered = (taken.start.last_input, covered.map(str::to_owned));
        Self {
            checkpoint_schedule: CheckpointSchedule::new(config.checkpoints, known, held),
            capacity: OutputCapacity::new(config.reserve_bytes),
            covered,
            epoch: taken.epoch,
            logs: taken.logs,
            // The barrier states the origin, and frames continue from there.
            origin: Origin {
                owner: taken.origin.own,
                ..taken.origin
            },
            fold: Fold::new(taken.state, taken.epoch, taken.start, limits),
            pinned: taken.pinned,
            waiting: Vec::new(),
            builder: None,
            publish_queue: PublishQueue::new(taken.out_seq),
            hash_every_entries: config.hash_every_entries,
            unhashed_entries: 0,
        }
    }

    /// The state with every folded entry, published or not.
    pub fn state(&self) -> &PartitionState {
        self.fold.state()
    }

    /// The first position that is not folded, from which [`crate::batch_decoding::decode`] continues.
    pub fn next(&self) -> Position {
        self.fold.next()
    }

    /// LastRead of the input log for a reader that continues at [`Owner::next`]: a lost message
    /// whose sequence another message took would otherwise go unnoticed.
    pub fn last_read(&self) -> LastRead {
        self.fold.last_read()
    }

    /// True when nothing waits to be folded.
    pub fn may_read(&self) -> bool {
        self.waiting.is_empty() && !self.fold.has_work()
    }

    /// True when the next messages should be added to the queue.
    pub fn may_take(&self) -> bool {
        self.waiting.is_empty() && self.fold.has_room()
    }

    /// Takes decoded items in order, once [`Owner::may_take`], with their bytes in the log.
    pub fn take(&mut self, items: Vec<InputItem>, bytes: u64) {
        self.checkpoint_schedule.grow(LogBytes {
            input: bytes,
            output: 0,
        });
        if self.waiting.is_empty() {
            self.waiting = items;
        } else {
            self.waiting.extend(items);
        }
        self.queue();
    }

    /// The next manifest to fetch before the waiting items can be folded.
    pub fn missing_manifest(&self) -> Option<&ManifestHash> {
        let mut named = self.waiting.iter().filter_map(InputItem::manifest);
        named.find(|hash| self.pinned.is_missing(hash))
    }

    /// Adds the result of fetching a manifest.
    ///
    /// # Errors
    /// Halts when bytes are missing.
    pub fn add_manifest(
        &mut self,
        hash: ManifestHash,
        fetched: ManifestFetch,
    ) -> Result<(), OwnershipEnd> {
        self.pinned.add(hash, fetched)?;
        self.queue();
        Ok(())
    }

    /// True when [`Owner::fold`] would fold something.
    pub fn may_fold(&self) -> bool {
        self.builder.is_none() && self.fold.has_work() && !self.is_output_full()
    }

    /// Folds the outcomes of the next frame, unless they wait already, and returns its builder.
    pub fn fold(&mut self) -> Option<&FrameBuilder> {
        if !self.may_fold() {
            return None;
        }
        let builder = self.fold.build_frame(self.pinned.set())?;
        self.unhashed_entries += builder.items() as u64;
        if self.may_read() {
            // No waiting item names a manifest that no rollout uses yet.
            self.pinned.remove_unused(self.fold.state());
        }
        Some(self.builder.insert(builder))
    }

    /// True when the next frame should carry the hash of its state.
    pub fn is_hash_due(&self) -> bool {
        self.builder.is_some() && self.unhashed_entries >= self.hash_every_entries
    }

    /// Adds the state hash to the next frame, when it is due and the caller has time.
    pub fn add_hash(&mut self) {
        if !self.is_hash_due() {
            return;
        }
        if let Some(builder) = &mut self.builder {
            builder.add_hash(self.fold.state().hash());
            self.unhashed_entries = 0;
        }
    }

    /// The builder of the next frame, unless enough frames wait to be sent.
    pub fn take_frame_builder(&mut self) -> Option<FrameBuilder> {
        let mut builder = self.builder.take_if(|_| !self.publish_queue.is_full())?;
        builder.set_announced_at(self.checkpoint_schedule.announced_at());
        Some(builder)
    }

    /// Queues the frames of the builder from [`Owner::take_frame_builder`].
    pub fn written(&mut self, frames: Vec<BuiltFrame>) {
        for built in &frames {
            self.capacity.queue(built.payload.len());
        }
        if let Some(BuiltFrame { frame, .. }) = frames.last() {
            self.covered = (frame.last_input, frame.last_input_id.clone());
        }
        self.publish_queue.extend(frames);
    }

    /// Builds the next frame and queues it.
    pub fn write(&mut self) {
        if let Some(builder) = self.take_frame_builder() {
            self.written(builder.build());
        }
    }

    /// The queue of built frames, shared with the task that sends them.
    pub fn publish_queue(&self) -> &PublishQueue {
        &self.publish_queue
    }

    /// Records that the oldest queued frame was appended and takes this many bytes of the log.
    pub fn appended(&mut self, bytes: u64) {
        self.checkpoint_schedule.grow(LogBytes {
            input: 0,
            output: bytes,
        });
        self.capacity.appended(bytes);
    }

    /// Takes an observation of the output log, and whether the object store holds every checkpoint
    /// of [`Owner::checkpoints`]. A checkpoint is due at once when one is missing, and when none
    /// was announced in a log without its beginning, as after a loss of the bus: a lost database
    /// could not be restored from this log, and the log could not be trimmed.
    pub fn observe_log(&mut self, output: &LogUsage, are_stored: bool) {
        self.capacity.observe(output);
        let is_complete = !self.checkpoints().is_empty() || output.first_seq <= 1;
        if !are_stored || !is_complete {
            self.checkpoint_schedule.set_missing();
        }
    }

    /// True when nothing is folded until [`Owner::observe_log`] finds capacity in the output log.
    pub fn is_output_full(&self) -> bool {
        self.capacity.is_full() && !mutation_testing::is_active("owner-folds-into-full-log")
    }

    /// Checks that the output log leaves its reserve free.
    ///
    /// # Errors
    /// States the fill of the log.
    pub fn check_output_capacity(&self) -> Result<(), String> {
        self.capacity.check()
    }

    /// The last announced checkpoints.
    pub fn checkpoints(&self) -> &Checkpoints {
        self.checkpoint_schedule.known()
    }

    /// True when [`Owner::begin_checkpoint`] would freeze the state.
    pub fn is_checkpoint_due(&self) -> bool {
        self.builder.is_none() && self.covered.0.is_some() && self.checkpoint_schedule.is_due()
    }

    /// Freezes the state for a checkpoint, when one is due; no folded outcome waits then.
    pub fn begin_checkpoint(&mut self) -> Option<CheckpointState> {
        if !self.is_checkpoint_due() {
            return None;
        }
        self.checkpoint_schedule.begin();
        let (input, input_msg_id) = self.covered.clone();
        let cursor = Cursor {
            out_seq: self.publish_queue.last_seq()
                - u64::from(mutation_testing::is_active("checkpoint-at-frame-before")),
            input,
            input_msg_id,
            epoch: self.epoch,
            origin: self.origin,
            checkpoints: self.checkpoint_schedule.known().clone(),
            ..Cursor::empty(self.logs.input)
        };
        let state = self.fold.state().freeze();
        Some(CheckpointState::new(state, cursor, self.logs.output))
    }

    /// Records that the checkpoint was not stored: one is due again.
    pub fn checkpoint_failed(&mut self) {
        self.checkpoint_schedule.failed();
    }

    /// Queues a frame that announces the stored checkpoint, and returns its JSON.
    pub fn checkpoint_stored(&mut self, stored: CheckpointRef) -> Bytes {
        let announced_at = self.checkpoint_schedule.announced_at();
        let out_seq = self.publish_queue.last_seq() + 1;
        let known = self.checkpoint_schedule.announced(stored, out_seq).clone();
        let (last_input, last_input_id) = self.covered.clone();
        let frame = OutputFrame {
            last_input,
            last_input_id,
            checkpoints: Some(known),
            announced_at,
            ..OutputFrame::new(self.epoch)
        };
        let announcement = BuiltFrame::without_outcomes(frame);
        let payload = announcement.payload.clone();
        self.capacity.queue(payload.len());
        self.publish_queue.extend(vec![announcement]);
        payload
    }

    fn queue(&mut self) {
        if self.missing_manifest().is_none() {
            let items = std::mem::take(&mut self.waiting);
            self.fold.queue(items);
        }
    }
}
