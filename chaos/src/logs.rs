//! Both logs of every partition, read from their beginning.

use anyhow::{Context, Result, ensure};
use nixfleet_bus::{Bus, BusConfig, Message, decode_input, decode_output};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, OutputFrame, Position, Timestamp};

use crate::fleet::PARTITIONS;

/// Messages asked for at once.
const BATCH: usize = 512;

/// A message of an input log.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored.
    pub at: Timestamp,
    /// The process that wrote it.
    pub writer: String,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// A message of an output log.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its sequence.
    pub seq: u64,
    /// When it was stored.
    pub at: Timestamp,
    /// The process that wrote it.
    pub writer: String,
    /// The frame.
    pub frame: OutputFrame,
}

/// Both logs of one partition.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The partition.
    pub partition: Partition,
    /// Name of the input stream.
    pub input_stream: String,
    /// Name of the output stream.
    pub output_stream: String,
    /// The input log.
    pub inputs: Vec<Input>,
    /// The output log.
    pub outputs: Vec<Output>,
}

impl Logs {
    /// Every entry with its position, in order.
    pub fn entries(&self) -> impl Iterator<Item = (Position, &Entry)> {
        self.inputs.iter().flat_map(|input| {
            let entries = (0_u32..).zip(&input.entries);
            entries.map(|(index, entry)| {
                let seq = input.seq;
                (Position { seq, index }, entry)
            })
        })
    }
}

/// A connection of the auditor's own.
///
/// # Errors
/// When the server does not answer.
pub async fn connect(url: String) -> Result<Bus> {
    let config = BusConfig {
        url,
        partitions: PARTITIONS,
        ..BusConfig::default()
    };
    Bus::connect(config, "chaos")
        .await
        .context("connecting to nats-server")
}

/// Reads both logs of all partitions up to their ends.
///
/// # Errors
/// When a log does not reach back to its first message or cannot be read.
pub async fn read(bus: &Bus) -> Result<Vec<Logs>> {
    let mut all = Vec::new();
    for partition in Partition::all(PARTITIONS) {
        let input_stream = bus.names().input_stream(partition);
        let output_stream = bus.names().output_stream(partition);
        let mut inputs = Vec::new();
        for message in messages(bus, &input_stream).await? {
            let frame = decode_input(&message)
                .with_context(|| format!("reading {} of {input_stream}", message.seq))?;
            inputs.push(Input {
                seq: message.seq,
                at: message.time,
                writer: writer(&message),
                entries: frame.entries,
            });
        }
        let mut outputs = Vec::new();
        for message in messages(bus, &output_stream).await? {
            let frame = decode_output(&message)
                .with_context(|| format!("reading {} of {output_stream}", message.seq))?;
            outputs.push(Output {
                seq: message.seq,
                at: message.time,
                writer: writer(&message),
                frame,
            });
        }
        all.push(Logs {
            partition,
            input_stream,
            output_stream,
            inputs,
            outputs,
        });
    }
    Ok(all)
}

async fn messages(bus: &Bus, stream: &str) -> Result<Vec<Message>> {
    let identity = bus.stream_identity(stream).await?;
    ensure!(
        identity.first_seq == 1,
        "{stream} begins at {}, the run was too long for its limits",
        identity.first_seq
    );
    let mut reader = bus.reader(stream, 1);
    let mut messages = Vec::new();
    while reader.next_seq() <= identity.last_seq {
        messages.extend(reader.next_batch(BATCH).await?);
    }
    Ok(messages)
}

/// Message ids are the process and a counter.
fn writer(message: &Message) -> String {
    let id = message.msg_id.as_deref().unwrap_or_default();
    id.rsplit_once('/')
        .map_or(id, |(process, _)| process)
        .to_owned()
}
