//! The owner at work: entries in, frames out, one in flight, each fenced behind the one before.

use bytes::Bytes;
use nixfleet_bus::{LastRead, LogUsage, MAX_OUTPUT_FRAME_BYTES};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{
    CheckpointRef, Checkpoints, InputMark, ManifestHash, OutputFrame, Position, mutation_testing,
};

use crate::checkpointing::{CheckpointLimits, Checkpointing, LogBytes, LogsCreated, Unwritten};
use crate::ended::Ended;
use crate::folder::{Folder, Limits};
use crate::item::Item;
use crate::outbox::Outbox;
use crate::pins::{Fetched, Pins};
use crate::room::OutputRoom;
use crate::takeover::Taken;
use crate::writing::{Folded, Run};

/// Bounds of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerConfig {
    /// Most entries of one turn.
    pub turn_entries: usize,
    /// Most bytes of a frame.
    pub frame_bytes: usize,
    /// Bytes of the output log that are kept free of outcomes.
    pub reserve_bytes: u64,
    /// Entries between two state hashes; a hash walks the whole state.
    pub hash_every_entries: u64,
    /// When a checkpoint is due.
    pub checkpoints: CheckpointLimits,
}

/// The owner of one partition.
#[derive(Debug)]
pub struct Owner {
    folder: Folder,
    pins: Pins,
    /// Items that wait for what they open.
    taken: Vec<Item>,
    /// Folded, and not written.
    run: Option<Run>,
    outbox: Outbox,
    hash_every_entries: u64,
    unhashed_entries: u64,
    checkpointing: Checkpointing,
    room: OutputRoom,
    /// What the frames cover that are written: the last input and the message id of its message.
    covered: (Option<InputMark>, Option<String>),
    epoch: u64,
    logs: LogsCreated,
    origin: Origin,
}

impl Owner {
    /// Goes live behind a takeover. `held` is what the logs hold by then.
    pub fn new(taken: Taken, held: LogBytes, config: OwnerConfig) -> Self {
        let limits = Limits {
            entries: config.turn_entries,
            bytes: config.frame_bytes.min(MAX_OUTPUT_FRAME_BYTES),
        };
        let known = (taken.checkpoints, taken.announced_at);
        let covered = taken.start.last_input_id.as_deref();
        let covered = (taken.start.last_input, covered.map(str::to_owned));
        Self {
            checkpointing: Checkpointing::new(config.checkpoints, known, held),
            room: OutputRoom::new(config.reserve_bytes),
            covered,
            epoch: taken.epoch,
            logs: taken.logs,
            // Its barrier says so, and frames go on from there.
            origin: Origin {
                owner: taken.origin.own,
                ..taken.origin
            },
            folder: Folder::new(taken.state, taken.epoch, taken.start, limits),
            pins: taken.pins,
            taken: Vec::new(),
            run: None,
            outbox: Outbox::new(taken.out_seq),
            hash_every_entries: config.hash_every_entries,
            unhashed_entries: 0,
        }
    }

    /// The state, with everything folded so far, published or not.
    pub fn state(&self) -> &PartitionState {
        self.folder.state()
    }

    /// The first position that is not folded: where to read on, and what [`crate::turn::decode`]
    /// takes.
    pub fn next(&self) -> Position {
        self.folder.next()
    }

    /// What the input log is known by when reading goes on at [`Owner::next`]. Frames and rows that
    /// cover a message would hide that it was lost and another one came in its place.
    pub fn last_read(&self) -> LastRead {
        self.folder.last_read()
    }

    /// True when the next messages may be read: nothing waits to be folded.
    pub fn may_read(&self) -> bool {
        self.taken.is_empty() && !self.folder.has_work()
    }

    /// True when the next messages should be folded together with what waits.
    pub fn may_take(&self) -> bool {
        self.taken.is_empty() && self.folder.has_room()
    }

    /// Takes what was read, in its order, once [`Owner::may_take`], and how much of the log it was.
    pub fn take(&mut self, items: Vec<Item>, bytes: u64) {
        self.checkpointing.grow(LogBytes {
            input: bytes,
            output: 0,
        });
        if self.taken.is_empty() {
            self.taken = items;
        } else {
            self.taken.extend(items);
        }
        self.queue();
    }

    /// The manifest to fetch before what was taken can be folded.
    pub fn lacking(&self) -> Option<&ManifestHash> {
        let mut named = self.taken.iter().filter_map(Item::manifest);
        named.find(|hash| self.pins.lacks(hash))
    }

    /// Takes what came of fetching a manifest.
    ///
    /// # Errors
    /// Halts when bytes are missing.
    pub fn give(&mut self, hash: ManifestHash, fetched: Fetched) -> Result<(), Ended> {
        self.pins.give(hash, fetched)?;
        self.queue();
        Ok(())
    }

    /// True when [`Owner::fold`] would make a run.
    pub fn may_fold(&self) -> bool {
        self.run.is_none() && self.folder.has_work() && !self.is_short_of_room()
    }

    /// Folds the next run, unless one waits already, and shows it.
    pub fn fold(&mut self) -> Option<&Run> {
        if !self.may_fold() {
            return None;
        }
        let run = self.folder.run(self.pins.set())?;
        self.unhashed_entries += run.items() as u64;
        if self.may_read() {
            // Nothing that waits names a manifest that no rollout uses yet.
            self.pins.sweep(self.folder.state());
        }
        Some(self.run.insert(run))
    }

    /// True when the run that waits should carry the hash of the state that it ends with.
    pub fn is_hash_due(&self) -> bool {
        self.run.is_some() && self.unhashed_entries >= self.hash_every_entries
    }

    /// Adds the hash to the run that waits, when it is due; the caller decides whether there is time
    /// for it.
    pub fn add_hash(&mut self) {
        if !self.is_hash_due() {
            return;
        }
        if let Some(run) = &mut self.run {
            run.add_hash(self.folder.state().hash());
            self.unhashed_entries = 0;
        }
    }

    /// The run to write now, unless enough waits to be sent.
    pub fn to_write(&mut self) -> Option<Run> {
        let mut run = self.run.take_if(|_| !self.outbox.is_full())?;
        run.set_announced_at(self.checkpointing.announced_at());
        Some(run)
    }

    /// Takes the frames of the run that [`Owner::to_write`] gave away.
    pub fn written(&mut self, frames: Vec<Folded>) {
        for folded in &frames {
            self.room.queue(folded.payload.len());
        }
        if let Some(Folded { frame, .. }) = frames.last() {
            self.covered = (frame.last_input, frame.last_input_id.clone());
        }
        self.outbox.extend(frames);
    }

    /// Writes the run that waits.
    pub fn write(&mut self) {
        if let Some(run) = self.to_write() {
            self.written(run.write());
        }
    }

    /// The frames that are written: whoever sends them shares it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The frame that was written first is in the log, and takes so many bytes of it.
    pub fn appended(&mut self, bytes: u64) {
        self.checkpointing.grow(LogBytes {
            input: 0,
            output: bytes,
        });
        self.room.appended(bytes);
    }

    /// Takes a look at the output log, and at the object store: whether it holds every checkpoint of
    /// [`Owner::checkpoints`]. The next one is due at once when it does not, and when none was announced
    /// in a log that does not reach back to its beginning: after the bus lost its data. Without it a lost
    /// database cannot be restored from this log, and the log cannot be trimmed.
    pub fn look(&mut self, output: &LogUsage, are_stored: bool) {
        self.room.look(output);
        let is_whole = !self.checkpoints().is_empty() || output.first_seq <= 1;
        if !are_stored || !is_whole {
            self.checkpointing.missing();
        }
    }

    /// True when nothing is folded until [`Owner::look`] finds room in the output log.
    pub fn is_short_of_room(&self) -> bool {
        self.room.is_short() && !mutation_testing::is_active("owner-folds-into-full-log")
    }

    /// Whether the output log leaves its reserve free.
    ///
    /// # Errors
    /// Says how full it is.
    pub fn check_room(&self) -> Result<(), String> {
        self.room.check()
    }

    /// The checkpoints announced last.
    pub fn checkpoints(&self) -> &Checkpoints {
        self.checkpointing.known()
    }

    /// True when [`Owner::begin_checkpoint`] would begin one.
    pub fn is_checkpoint_due(&self) -> bool {
        self.run.is_none() && self.covered.0.is_some() && self.checkpointing.is_due()
    }

    /// Freezes the state for a checkpoint, when one is due. Everything folded is written by then.
    pub fn begin_checkpoint(&mut self) -> Option<Unwritten> {
        if !self.is_checkpoint_due() {
            return None;
        }
        self.checkpointing.begin();
        let (input, input_msg_id) = self.covered.clone();
        let cursor = Cursor {
            out_seq: self.outbox.last_seq()
                - u64::from(mutation_testing::is_active("checkpoint-at-frame-before")),
            input,
            input_msg_id,
            epoch: self.epoch,
            origin: self.origin,
            checkpoints: self.checkpointing.known().clone(),
            ..Cursor::empty(self.logs.input)
        };
        let state = self.folder.state().freeze();
        Some(Unwritten::new(state, cursor, self.logs.output))
    }

    /// The checkpoint could not be stored: it is due again.
    pub fn checkpoint_failed(&mut self) {
        self.checkpointing.failed();
    }

    /// The checkpoint is stored: the next frame announces it. Gives the JSON of that frame.
    pub fn checkpoint_stored(&mut self, stored: CheckpointRef) -> Bytes {
        let announced_at = self.checkpointing.announced_at();
        let out_seq = self.outbox.last_seq() + 1;
        let known = self.checkpointing.announced(stored, out_seq).clone();
        let (last_input, last_input_id) = self.covered.clone();
        let frame = OutputFrame {
            last_input,
            last_input_id,
            checkpoints: Some(known),
            announced_at,
            ..OutputFrame::new(self.epoch)
        };
        let announcement = Folded::without_outcomes(frame);
        let payload = announcement.payload.clone();
        self.room.queue(payload.len());
        self.outbox.extend(vec![announcement]);
        payload
    }

    fn queue(&mut self) {
        if self.lacking().is_none() {
            let items = std::mem::take(&mut self.taken);
            self.folder.queue(items);
        }
    }
}
