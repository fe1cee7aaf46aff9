//! The owner at work: entries in, frames out, one in flight, each fenced behind the one before.

use nixfleet_bus::{Landmark, MAX_OUTPUT_FRAME_BYTES};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::{ManifestHash, Position};

use crate::ended::Ended;
use crate::folder::{Folder, Limits};
use crate::item::Item;
use crate::outbox::Outbox;
use crate::pins::{Fetched, Pins};
use crate::takeover::Taken;
use crate::writing::{Folded, Run};

/// Bounds of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerConfig {
    /// Most entries of one turn.
    pub turn_entries: usize,
    /// Most bytes of a frame.
    pub frame_bytes: usize,
    /// Entries between two state hashes; a hash walks the whole state.
    pub hash_every_entries: u64,
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
}

impl Owner {
    /// Goes live behind a takeover.
    pub fn new(taken: Taken, config: OwnerConfig) -> Self {
        let limits = Limits {
            entries: config.turn_entries,
            bytes: config.frame_bytes.min(MAX_OUTPUT_FRAME_BYTES),
        };
        Self {
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
    pub fn landmark(&self) -> Landmark {
        self.folder.landmark()
    }

    /// True when the next messages may be read: nothing waits to be folded.
    pub fn may_read(&self) -> bool {
        self.taken.is_empty() && !self.folder.has_work()
    }

    /// True when the next messages should be folded together with what waits.
    pub fn may_take(&self) -> bool {
        self.taken.is_empty() && self.folder.has_room()
    }

    /// Takes what was read, in its order, once [`Owner::may_take`].
    pub fn take(&mut self, items: Vec<Item>) {
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
        self.run.is_none() && self.folder.has_work()
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
        self.run.take_if(|_| !self.outbox.is_full())
    }

    /// Takes the frames of the run that [`Owner::to_write`] gave away.
    pub fn written(&mut self, frames: Vec<Folded>) {
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

    fn queue(&mut self) {
        if self.lacking().is_none() {
            let items = std::mem::take(&mut self.taken);
            self.folder.queue(items);
        }
    }
}
