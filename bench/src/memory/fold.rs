//! The fold by itself: entries that are decoded already, one core, nothing else.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{Entry, InputFrame, LAYOUT_VERSION, Position, Verdict};

use crate::clock::timed;
use crate::fleet::Fleet;
use crate::life::{Life, STEPS};
use crate::report::{Figure, Target};

/// Entries of a frame: what a busy gateway sends.
pub const FRAME_ENTRIES: usize = 64;
/// Least entries per second of one core.
const TARGET: f64 = 1_000_000.0;

/// A partition on its way through a log.
pub struct Partition {
    /// Where the log has led.
    pub state: PartitionState,
    pinned: PinnedSet,
    next_seq: u64,
}

impl Partition {
    /// A partition in which the fleet's rollout is open.
    pub fn open(fleet: &Fleet) -> Self {
        let mut partition = Self {
            state: PartitionState::new(),
            pinned: fleet.pinned_set(),
            next_seq: 1,
        };
        partition.fold(&Life::beginning(fleet));
        partition
    }

    /// Folds entries as frames hold them; says how many were accepted.
    pub fn fold(&mut self, entries: &[Entry]) -> usize {
        let mut accepted = 0;
        for frame in entries.chunks(FRAME_ENTRIES) {
            let seq = self.next_seq;
            self.next_seq += 1;
            for (index, entry) in (0..).zip(frame) {
                let position = Position { seq, index };
                let outcome = self.state.apply(position, entry, &self.pinned);
                accepted += usize::from(matches!(outcome.verdict, Verdict::Accepted(_)));
                black_box(&outcome);
            }
        }
        accepted
    }

    /// What the reducer does with frames besides moving them: decodes, folds, encodes.
    ///
    /// # Errors
    /// When a frame is not valid.
    pub fn turn(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        for frame in frames {
            let frame: InputFrame = serde_json::from_slice(frame).context("decoding a frame")?;
            let seq = self.next_seq;
            self.next_seq += 1;
            let mut outcomes = Vec::with_capacity(frame.entries.len());
            for (index, entry) in (0..).zip(&frame.entries) {
                let position = Position { seq, index };
                outcomes.push(self.state.apply(position, entry, &self.pinned));
            }
            black_box(serde_json::to_vec(&outcomes).context("encoding outcomes")?);
        }
        Ok(())
    }
}

/// The JSON of the entries in frames.
///
/// # Errors
/// When an entry has no JSON form.
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

/// Entries per second of the fold, of decoding alone, and of both with encoding.
///
/// # Errors
/// When an entry of the made-up log is refused.
pub fn run(hosts: usize, rounds: usize) -> Result<Vec<Figure>> {
    let fleet = Fleet::of(hosts);
    let entries: Vec<Entry> = Life::new(&fleet).collect();
    let frames = frames_of(entries.clone())?;
    let count = entries.len() as f64;
    let (mut folds, mut decodes, mut turns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut partition = Partition::open(&fleet);
        let (accepted, took) = timed(|| partition.fold(&entries));
        ensure!(
            accepted == entries.len(),
            "{accepted} of {} accepted",
            entries.len()
        );
        folds.push(count / took.as_secs_f64());
        let (decoded, took) = timed(|| decode(&frames));
        decoded?;
        decodes.push(count / took.as_secs_f64());
        let mut partition = Partition::open(&fleet);
        let (turned, took) = timed(|| partition.turn(&frames));
        turned?;
        turns.push(count / took.as_secs_f64());
    }
    let per_host = format!("fold ({hosts} hosts, {STEPS} entries each)");
    Ok(vec![
        Figure::new("fold", per_host, "entries/s", folds)
            .against("decoding alone", decodes.clone())
            .target(Target::AtLeast(TARGET)),
        Figure::new("fold", "decode, fold and encode", "entries/s", turns)
            .against("decoding alone", decodes),
    ])
}

fn decode(frames: &[Vec<u8>]) -> Result<()> {
    for frame in frames {
        let frame: InputFrame = serde_json::from_slice(frame).context("decoding a frame")?;
        black_box(frame);
    }
    Ok(())
}
