//! Logs as the services write them, with the timestamps of their messages.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use nixfleet_bus::{Bus, Message, compression, decode_output};
use nixfleet_harness::wait_for;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Entry, EntryBody, OutputFrame, Position, Timestamp};

use crate::measurements::Measurement;
use crate::synthetic_fleet::SyntheticFleet;
use crate::workload::Workload;

/// Entries appended before their outcomes are awaited, at most the queue of a gateway.
const CHUNK: usize = 16_384;
/// Interval of progress polls: long enough not to slow down a stage.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Polls without a change after which a log counts as complete.
const QUIET_LOOKS: u32 = 6;
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// Appends the workload to the input log through the gateway's publisher; returns the position of the last
/// entry and the number of entries.
pub async fn fill_input_log(
    bus: &Bus,
    partition: Partition,
    fleet: &SyntheticFleet,
) -> Result<(Position, usize)> {
    let input = bus.input();
    let mut entries: VecDeque<Entry> = Workload::opening_entries(fleet).into();
    let mut workload = Workload::new(fleet);
    let (mut last, mut count) = (Position { seq: 0, index: 0 }, 0);
    loop {
        entries.extend(workload.by_ref().take(CHUNK));
        let Some(first) = entries.front() else {
            return Ok((last, count));
        };
        // Frames have one subject each: what follows on something of another subject waits for it.
        let planned = is_planned(first);
        let same = entries
            .iter()
            .take_while(|entry| is_planned(entry) == planned);
        let same = same.take(CHUNK).count();
        let run: Vec<Entry> = entries.drain(..same).collect();
        count += run.len();
        let positions = input.append_all(partition, run).await;
        let positions = positions.context("filling the input log")?;
        last = positions.into_iter().max().unwrap_or(last);
    }
}

fn is_planned(entry: &Entry) -> bool {
    matches!(entry.body, EntryBody::Plan { .. })
}

/// A message of an output log.
pub struct OutputMessage {
    /// Time at which the server stored the message.
    pub at: Timestamp,
    pub payload: Bytes,
    pub size: Size,
    /// Entries with an outcome in it.
    pub entries: usize,
    /// Input sequence it covers; 0 before the first.
    pub covers: u64,
}

/// Bytes of messages in a stream, as the server counts them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Bytes in the stored form.
    pub stored: usize,
    /// Bytes with payloads of plain JSON.
    pub plain: usize,
}

impl Size {
    /// The size of a message, and its payload in the stored form.
    pub fn of(message: &Message) -> (Self, Bytes) {
        let stored = compression::encode(&message.payload);
        let size = Self {
            stored: message.stored_bytes,
            plain: message.stored_bytes - stored.len() + message.payload.len(),
        };
        (size, stored)
    }
}

impl std::ops::Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            stored: self.stored + other.stored,
            plain: self.plain + other.plain,
        }
    }
}

/// Bytes per entry of logs, a sample per round, against the same frames as plain JSON.
pub fn size_measurement(stage: &'static str, log: &str, sizes: &[(Size, usize)]) -> Measurement {
    let per_entry = |bytes: fn(&Size) -> usize| {
        let sizes = sizes.iter();
        sizes.map(move |(size, entries)| bytes(size) as f64 / *entries as f64)
    };
    let name = format!("bytes per entry in the {log} log");
    Measurement::new(
        stage,
        name,
        "bytes",
        per_entry(|size| size.stored).collect(),
    )
    .against(
        "the same as plain JSON",
        per_entry(|size| size.plain).collect(),
    )
}

/// Waits until the output log contains an outcome.
pub async fn wait_for_first_frame(bus: &Bus, partition: Partition) -> Result<()> {
    let stream = bus.names().output_stream(partition);
    wait_for("the first frame", TIMEOUT, async || {
        Ok((bus.stream_identity(&stream).await?.last_seq > 1).then_some(()))
    })
    .await
}

/// Waits until the output log contains the outcome of the last entry.
pub async fn wait_until_folded(bus: &Bus, partition: Partition, last: Position) -> Result<()> {
    let stream = bus.names().output_stream(partition);
    let log = bus.output(partition);
    let (mut seen, mut quiet) = (0, 0);
    wait_for("the output log", TIMEOUT, async || {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = bus.stream_identity(&stream).await?.last_seq;
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
        // Reading a frame is expensive: only after the log has stopped growing.
        if quiet == 0 || quiet % QUIET_LOOKS != 0 {
            return Ok(None);
        }
        let covered = log.last().await?.and_then(|last| last.frame.last_input);
        let covered = covered.is_some_and(|mark| (mark.seq, mark.index) >= (last.seq, last.index));
        Ok(covered.then_some(()))
    })
    .await
}

/// Reads all messages of an output log.
pub async fn read_output_log(bus: &Bus, partition: Partition) -> Result<Vec<OutputMessage>> {
    let mut frames = Vec::new();
    for (message, frame) in frames_of(bus, partition).await? {
        let accepted =
            |outcome: &&nixfleet_proto::Outcome| matches!(outcome.decision, Decision::Accepted(_));
        let refused = frame.outcomes.iter().find(|outcome| !accepted(outcome));
        ensure!(refused.is_none(), "an entry was refused: {refused:?}");
        let (size, _) = Size::of(&message);
        frames.push(OutputMessage {
            at: message.time,
            payload: message.payload,
            size,
            entries: frame.outcomes.len(),
            covers: frame.last_input.map_or(0, |mark| mark.seq),
        });
    }
    Ok(frames)
}

/// The frames of an output log with their messages.
pub async fn frames_of(bus: &Bus, partition: Partition) -> Result<Vec<(Message, OutputFrame)>> {
    let messages = messages_of(bus, &bus.names().output_stream(partition)).await?;
    let frames = messages.into_iter().map(|message| {
        let frame = decode_output(&message)?;
        Ok((message, frame))
    });
    frames.collect()
}

/// Every message of a stream without deletions.
pub async fn messages_of(bus: &Bus, stream: &str) -> Result<Vec<Message>> {
    let end = bus.stream_identity(stream).await?.last_seq;
    let mut reader = bus.reader(stream, 1);
    let mut messages = Vec::new();
    while (messages.len() as u64) < end {
        messages.extend(reader.next_batch(512).await?);
    }
    Ok(messages)
}

/// Seconds from the first frame with outcomes to the last one, and the number of outcomes after the first:
/// the start of a stage is not part of its rate.
pub fn throughput(times: &[Timestamp], entries: &[usize]) -> Result<(f64, usize)> {
    let first = entries.iter().position(|count| *count > 0);
    let first = first.context("the output log contains no outcomes")?;
    ensure!(
        first + 1 < times.len(),
        "all entries are in one frame; increase --hosts"
    );
    let spent = times[times.len() - 1] - times[first];
    let spent = spent.to_std().context("times go backwards")?;
    Ok((spent.as_secs_f64(), entries[first + 1..].iter().sum()))
}
