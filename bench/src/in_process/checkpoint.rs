//! Checkpoints: pause of the fold, and time to write and read one.

use anyhow::{Context as _, Result, ensure};
use nixfleet_checkpoint::{Checkpoint, CheckpointIdentity, encode};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::snapshot::Cursor;

use super::fold::{FRAME_ENTRIES, Partition};
use crate::cpu_time::cpu_timed;
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::{SyntheticFleet, log_start};
use crate::workload::Workload;

/// Target of the longest pause of the fold, in milliseconds.
const PAUSE_TARGET: f64 = 10.0;
/// Frames folded before the state is frozen, and after it.
const FRAMES: usize = 500;

/// Samples of all rounds, in milliseconds but for the bytes.
#[derive(Default)]
struct Samples {
    freeze: Vec<f64>,
    longest_frame_before: Vec<f64>,
    longest_frame: Vec<f64>,
    /// Time of all frames after the freeze as a multiple of the time of as many before it.
    slower: Vec<f64>,
    encode: Vec<f64>,
    bytes: Vec<f64>,
    read: Vec<f64>,
    restore: Vec<f64>,
}

/// Measurements of every size of fleet.
///
/// # Errors
/// When the fold refuses the workload or a checkpoint restores another state.
pub fn run(sizes: &[usize], rounds: usize) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for hosts in sizes {
        let fleet = SyntheticFleet::of(*hosts);
        let mut samples = Samples::default();
        for _ in 0..rounds {
            samples.add(&fleet)?;
        }
        measurements.extend(samples.measurements(&fleet));
    }
    Ok(measurements)
}

impl Samples {
    fn add(&mut self, fleet: &SyntheticFleet) -> Result<()> {
        let mut partition = Partition::open(fleet);
        let mut workload = Workload::new(fleet);
        let before = frames(&mut partition, &mut workload)?;
        let (frozen, took) = waited(|| partition.state.freeze());
        self.freeze.push(took);
        let behind = frames(&mut partition, &mut workload)?;
        self.longest_frame_before.push(longest(&before));
        self.longest_frame.push(longest(&behind));
        let total = |frames: &[f64]| frames.iter().sum::<f64>() / frames.len().max(1) as f64;
        self.slower.push(total(&behind) / total(&before));
        let cursor = Cursor {
            out_seq: 1,
            ..Cursor::empty(log_start())
        };
        let identity = CheckpointIdentity {
            partition: 0,
            output_created: log_start(),
            state_hash: frozen.hash(),
        };
        let (encoded, took) = waited(|| encode(&frozen.rows(cursor), identity));
        let encoded = encoded.context("encoding")?;
        self.encode.push(took);
        self.bytes
            .push(encoded.bytes.len() as f64 / fleet.len() as f64);
        let (read, took) = waited(|| Checkpoint::decode(&encoded.bytes, 0, &encoded.reference));
        let read = read.context("reading")?;
        self.read.push(took);
        let (restored, took) = waited(|| PartitionState::restore(read.rows, &PinnedSet::new()));
        self.restore.push(took);
        let restored = restored.context("restoring")?;
        ensure!(
            restored.hash() == read.state_hash,
            "another state is restored"
        );
        Ok(())
    }

    fn measurements(self, fleet: &SyntheticFleet) -> Vec<Measurement> {
        let measurement = |name: &str, unit: &'static str, samples: Vec<f64>| {
            Measurement::new("checkpoint", name, unit, samples).of(fleet.len())
        };
        let pause = Target::AtMost(PAUSE_TARGET);
        vec![
            measurement("freeze the state", "ms", self.freeze).target(pause),
            measurement("longest frame before it", "ms", self.longest_frame_before),
            measurement("longest frame behind it", "ms", self.longest_frame).target(pause),
            measurement("frames behind it / before it", "", self.slower),
            measurement("encode", "ms", self.encode),
            measurement("size per host", "B", self.bytes),
            measurement("read", "ms", self.read),
            measurement("restore", "ms", self.restore),
        ]
    }
}

/// Folds frames; returns the milliseconds of each.
fn frames(partition: &mut Partition, workload: &mut Workload<'_>) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..FRAMES {
        let entries: Vec<_> = workload.by_ref().take(FRAME_ENTRIES).collect();
        if entries.is_empty() {
            break;
        }
        let (accepted, milliseconds) = waited(|| partition.fold(&entries));
        ensure!(accepted == entries.len(), "an entry was refused");
        took.push(milliseconds);
    }
    Ok(took)
}

fn longest(milliseconds: &[f64]) -> f64 {
    milliseconds.iter().copied().fold(0.0, f64::max)
}

/// Milliseconds of CPU time of the calling thread, which equal the pause on an idle machine.
fn waited<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let (done, took) = cpu_timed(work);
    (done, took.as_secs_f64() * 1e3)
}
