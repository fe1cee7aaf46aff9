//! Stage `fold`: folds decoded entries on one core.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{Decision, Entry, InputFrame, LAYOUT_VERSION, Position, StoredAt, json};

use crate::cpu_time::cpu_timed;
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::SyntheticFleet;
use crate::workload::Workload;

/// Entries of a frame of a loaded gateway.
pub const FRAME_ENTRIES: usize = 64;
/// Entries of a batch that one read of a long log returns.
const BATCH: usize = 4_096;
/// Least entries per second of one core.
const TARGET: f64 = 1_000_000.0;

/// A partition that folds a log.
pub struct Partition {
    /// State after the folded entries.
    pub state: PartitionState,
    pinned: PinnedSet,
    next_seq: u64,
}

impl Partition {
    /// A partition in which the fleet's rollout is open.
    pub fn open(fleet: &SyntheticFleet) -> Self {
        let mut partition = Self {
            state: PartitionState::new(),
            pinned: fleet.pinned_set(),
            next_seq: 1,
        };
        partition.fold(&Workload::opening_entries(fleet));
        partition
    }

    /// Folds entries in frames and returns the number of accepted ones.
    pub fn fold(&mut self, entries: &[Entry]) -> usize {
        let mut accepted = 0;
        for frame in entries.chunks(FRAME_ENTRIES) {
            let seq = self.next_seq;
            self.next_seq += 1;
            self.state.prefetch(frame);
            for (index, entry) in (0..).zip(frame) {
                let position = Position { seq, index };
                let stored_at = StoredAt::new(entry.received_at);
                let outcome = self.state.apply(position, stored_at, entry, &self.pinned);
                accepted += usize::from(matches!(outcome.decision, Decision::Accepted(_)));
                black_box(&outcome);
            }
        }
        accepted
    }

    /// Decodes, folds and encodes frames, as the reducer does besides transferring them.
    ///
    /// # Errors
    /// When a frame is not valid.
    pub fn turn(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        for frame in frames {
            let frame: InputFrame = json::read(frame).context("decoding a frame")?;
            let seq = self.next_seq;
            self.next_seq += 1;
            self.state.prefetch(&frame.entries);
            let mut outcomes = Vec::with_capacity(frame.entries.len());
            for (index, entry) in (0..).zip(&frame.entries) {
                let position = Position { seq, index };
                let stored_at = StoredAt::new(entry.received_at);
                outcomes.push(self.state.apply(position, stored_at, entry, &self.pinned));
            }
            black_box(serde_json::to_vec(&outcomes).context("encoding outcomes")?);
        }
        Ok(())
    }
}

/// The JSON of the entries in frames.
pub fn frames_of(entries: Vec<Entry>) -> Result<Vec<Vec<u8>>> {
    let mut entries = entries.into_iter().peekable();
    let mut frames = Vec::new();
    while entries.peek().is_some() {
        let frame = InputFrame {
            v: LAYOUT_VERSION,
            entries: entries.by_ref().take(FRAME_ENTRIES).collect(),
        };
        frames.push(serde_json::to_vec(&frame).context("encoding a frame")?);
    }
    Ok(frames)
}

/// Entries per second of the fold, of decoding only, and of both with encoding.
///
/// # Errors
/// When an entry of the workload is refused.
pub fn run(hosts: usize, rounds: usize) -> Result<Vec<Measurement>> {
    let fleet = SyntheticFleet::of(hosts);
    let (mut folds, mut decodes, mut turns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut spent = [Duration::ZERO; 3];
        let mut count = 0.0;
        let (mut folded, mut turned) = (Partition::open(&fleet), Partition::open(&fleet));
        let mut workload = Workload::new(&fleet);
        loop {
            // A reducer folds what it has just decoded: a few thousand entries at a time.
            let entries: Vec<Entry> = workload.by_ref().take(BATCH).collect();
            if entries.is_empty() {
                break;
            }
            count += entries.len() as f64;
            let (accepted, took) = cpu_timed(|| folded.fold(&entries));
            ensure!(accepted == entries.len(), "an entry was refused");
            spent[0] += took;
            let frames = frames_of(entries)?;
            let (decoded, took) = cpu_timed(|| decode(&frames));
            decoded?;
            spent[1] += took;
            let (prepared, took) = cpu_timed(|| turned.turn(&frames));
            prepared?;
            spent[2] += took;
        }
        let [fold, decode, turn] = spent.map(|spent| count / spent.as_secs_f64());
        folds.push(fold);
        decodes.push(decode);
        turns.push(turn);
    }
    Ok(vec![
        Measurement::new("fold", "fold", "entries/s", folds)
            .of(hosts)
            .against("decoding alone", decodes.clone())
            .target(Target::AtLeast(TARGET)),
        Measurement::new("fold", "decode, fold and encode", "entries/s", turns)
            .of(hosts)
            .against("decoding alone", decodes),
    ])
}

fn decode(frames: &[Vec<u8>]) -> Result<()> {
    for frame in frames {
        let frame: InputFrame = json::read(frame).context("decoding a frame")?;
        black_box(frame);
    }
    Ok(())
}
