//! Stored encoding of frames: compression ratio and CPU cost.

use std::hint::black_box;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use nixfleet_bus::compression::{Encoder, decode};
use nixfleet_bus::{FrameLimits, MAX_OUTPUT_FRAME_BYTES};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::{
    Decision, Entry, InputFrame, InputMark, LAYOUT_VERSION, Outcome, OutputFrame, Position,
    StoredAt,
};

use crate::cpu_time::cpu_timed;
use crate::measurements::Measurement;
use crate::synthetic_fleet::SyntheticFleet;
use crate::workload::{Workload, shuffle};

/// Levels that are compared.
const LEVELS: [i32; 6] = [-5, -3, -1, 1, 3, 6];
/// Entries of the frames that are compared, beside full ones.
const SIZES: [usize; 3] = [1, 16, 128];
/// Entries that are framed: those of the hosts whose entries interleave.
const ENTRIES: usize = 20_000;
/// Bytes of an output frame besides its outcomes, generously.
const OVERHEAD_BYTES: usize = 1_024;

/// Frames of one kind and size as JSON.
struct Frames {
    name: String,
    entries: usize,
    json: Vec<Bytes>,
}

/// Ratio and costs of every level, of input and output frames of several sizes.
///
/// # Errors
/// When an entry of the workload is refused, or a frame decodes to another one.
pub fn run(hosts: usize, rounds: usize) -> Result<Vec<Measurement>> {
    let turns = turns(&SyntheticFleet::of(hosts))?;
    let mut measurements = Vec::new();
    for size in SIZES.into_iter().map(Some).chain([None]) {
        for frames in [inputs(&turns, size)?, outputs(&turns, size)?] {
            for level in LEVELS {
                measurements.extend(
                    measure(&frames, level, rounds)?.map(|measurement| measurement.of(hosts)),
                );
            }
        }
    }
    Ok(measurements)
}

/// Entries with their outcomes, shuffled: a frame of a loaded gateway has events of every kind.
fn turns(fleet: &SyntheticFleet) -> Result<Vec<(Entry, Outcome)>> {
    let (mut state, pinned) = (PartitionState::new(), fleet.pinned_set());
    let entries = Workload::opening_entries(fleet)
        .into_iter()
        .chain(Workload::new(fleet));
    let mut turns = Vec::new();
    for (index, entry) in (0..).zip(entries.take(ENTRIES)) {
        let position = Position {
            seq: 1_000_000 + u64::from(index) / 64,
            index: index % 64,
        };
        let stored_at = StoredAt::new(entry.received_at);
        let outcome = state.apply(position, stored_at, &entry, &pinned);
        ensure!(
            matches!(outcome.decision, Decision::Accepted(_)),
            "an entry was refused: {outcome:?}"
        );
        turns.push((entry, outcome));
    }
    shuffle(&mut turns);
    Ok(turns)
}

/// Input frames of so many entries, or full ones.
fn inputs(turns: &[(Entry, Outcome)], size: Option<usize>) -> Result<Frames> {
    let limits = FrameLimits::default();
    let entries = turns.iter().map(|(entry, _)| entry);
    let size_max = size.unwrap_or(limits.entries);
    let runs = runs(entries, (size_max, limits.entry_bytes()))?;
    let frame = |entries: Vec<&Entry>| {
        let entries = entries.into_iter().cloned().collect();
        let v = LAYOUT_VERSION;
        serde_json::to_vec(&InputFrame { v, entries })
    };
    frames("input", size, runs, frame)
}

/// Output frames of so many outcomes, or full ones.
fn outputs(turns: &[(Entry, Outcome)], size: Option<usize>) -> Result<Frames> {
    let outcomes = turns.iter().map(|(_, outcome)| outcome);
    let bytes_max = MAX_OUTPUT_FRAME_BYTES - OVERHEAD_BYTES;
    let runs = runs(outcomes, (size.unwrap_or(usize::MAX), bytes_max))?;
    let frame = |outcomes: Vec<&Outcome>| {
        let last = outcomes.last().map(|outcome| outcome.position);
        serde_json::to_vec(&OutputFrame {
            first_input: outcomes.first().map(|outcome| outcome.position),
            last_input: last.map(|Position { seq, index }| InputMark { seq, index, of: 64 }),
            last_input_id: last.map(|last| format!("ingest/gateway-1/mK3vXq9ZbT0/{}", last.seq)),
            outcomes: outcomes.into_iter().cloned().collect(),
            ..OutputFrame::new(3)
        })
    };
    frames("output", size, runs, frame)
}

/// Cuts items where a frame is full: so many items, so many bytes of them.
fn runs<'a, T: serde::Serialize>(
    items: impl Iterator<Item = &'a T>,
    (items_max, bytes_max): (usize, usize),
) -> Result<Vec<Vec<&'a T>>> {
    let (mut runs, mut run, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let length = serde_json::to_vec(item).context("encoding an item")?.len() + 1;
        if run.len() == items_max || bytes + length > bytes_max {
            runs.push(std::mem::take(&mut run));
            bytes = 0;
        }
        run.push(item);
        bytes += length;
    }
    // The remaining entries do not fill a frame.
    Ok(runs)
}

fn frames<T>(
    kind: &str,
    size: Option<usize>,
    runs: Vec<Vec<T>>,
    frame: impl Fn(Vec<T>) -> serde_json::Result<Vec<u8>>,
) -> Result<Frames> {
    let entries = runs.iter().map(Vec::len).sum();
    let json = runs.into_iter().map(|run| frame(run).map(Bytes::from));
    let json: Vec<Bytes> = json.collect::<Result<_, _>>().context("encoding a frame")?;
    ensure!(!json.is_empty(), "there are too few entries for a frame");
    let name = match size {
        Some(1) => format!("{kind}, 1 entry"),
        Some(size) => format!("{kind}, {size} entries"),
        None => format!("{kind}, full: {} entries", entries / json.len()),
    };
    Ok(Frames {
        name,
        entries,
        json,
    })
}

/// Part of the bytes that is left, and nanoseconds per entry there and back.
fn measure(frames: &Frames, level: i32, rounds: usize) -> Result<[Measurement; 3]> {
    let mut encoder = Encoder::new(level).context("making an encoder")?;
    let (mut ratios, mut encodes, mut decodes) = (Vec::new(), Vec::new(), Vec::new());
    let bytes = |frames: &[Bytes]| frames.iter().map(Bytes::len).sum::<usize>() as f64;
    let per_entry = |took: std::time::Duration| took.as_nanos() as f64 / frames.entries as f64;
    for _ in 0..rounds {
        let json = frames.json.iter();
        let (stored, took) =
            cpu_timed(|| json.map(|json| encoder.encode(json)).collect::<Vec<_>>());
        encodes.push(per_entry(took));
        ratios.push(bytes(&stored) / bytes(&frames.json));
        let (read, took) = cpu_timed(|| {
            stored.iter().try_for_each(|stored| {
                decode(stored, MAX_OUTPUT_FRAME_BYTES).map(|json| drop(black_box(json)))
            })
        });
        read.context("decoding a frame")?;
        decodes.push(per_entry(took));
        for (stored, json) in stored.iter().zip(&frames.json) {
            let read = decode(stored, MAX_OUTPUT_FRAME_BYTES).context("decoding a frame")?;
            ensure!(*read == json[..], "a decoded frame differs");
        }
    }
    let name = |what| format!("{}, level {level}: {what}", frames.name);
    Ok([
        Measurement::new("encoding", name("stored / JSON"), "", ratios),
        Measurement::new("encoding", name("encode, per entry"), "ns", encodes),
        Measurement::new("encoding", name("decode, per entry"), "ns", decodes),
    ])
}
