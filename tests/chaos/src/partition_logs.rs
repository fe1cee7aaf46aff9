//! Both logs of every partition, decoded from their recordings.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nixfleet_bus::{Bus, BusConfig, Message, decode_input, decode_output};
use nixfleet_harness::nats::BusUsers;
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_proto::{Entry, OutputFrame, Position, StoredAt, Timestamp};

use crate::fleet::PARTITIONS;

/// Messages in their stored form by stream, without gaps from the first one.
pub type Recordings = BTreeMap<String, Vec<Message>>;

/// A message of an input log.
#[derive(Debug, Clone)]
pub struct Input {
    /// Sequence of the message.
    pub seq: u64,
    /// Time at which the server stored the message.
    pub at: Timestamp,
    /// The process that wrote the message.
    pub writer: String,
    /// Size of the message in the log.
    pub stored_bytes: usize,
    /// Entries of the message.
    pub entries: Vec<Entry>,
}

/// A message of an output log.
#[derive(Debug, Clone)]
pub struct Output {
    /// Sequence of the message.
    pub seq: u64,
    /// Time at which the server stored the message.
    pub at: Timestamp,
    /// The process that wrote the message.
    pub writer: String,
    /// Size of the message in the log.
    pub stored_bytes: usize,
    /// The frame.
    pub frame: OutputFrame,
}

/// Both logs of one partition.
#[derive(Debug, Clone)]
pub struct PartitionLogs {
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

impl PartitionLogs {
    /// Decodes the recordings of a partition.
    ///
    /// # Errors
    /// When a message cannot be read.
    pub fn read(names: &Names, partition: Partition, recordings: &Recordings) -> Result<Self> {
        let (input_stream, output_stream) = (
            names.input_stream(partition),
            names.output_stream(partition),
        );
        let read_input = |message: Message| {
            let frame = decode_input(&message)
                .with_context(|| format!("reading {} of {input_stream}", message.seq))?;
            Ok(Input {
                seq: message.seq,
                at: message.time,
                writer: writer(&message),
                stored_bytes: message.stored_bytes,
                entries: frame.entries,
            })
        };
        let read_output = |message: Message| {
            let frame = decode_output(&message)
                .with_context(|| format!("reading {} of {output_stream}", message.seq))?;
            Ok(Output {
                seq: message.seq,
                at: message.time,
                writer: writer(&message),
                stored_bytes: message.stored_bytes,
                frame,
            })
        };
        let decoded = |stream: &str| {
            let messages = recordings.get(stream).into_iter().flatten();
            messages.map(|message| message.clone().decoded())
        };
        Ok(Self {
            partition,
            inputs: decoded(&input_stream)
                .map(read_input)
                .collect::<Result<_>>()?,
            outputs: decoded(&output_stream)
                .map(read_output)
                .collect::<Result<_>>()?,
            input_stream,
            output_stream,
        })
    }

    /// Every entry with its position and the broker's time, in order.
    pub fn entries(&self) -> impl Iterator<Item = (Position, StoredAt, &Entry)> {
        self.inputs.iter().flat_map(|input| {
            let entries = (0_u32..).zip(&input.entries);
            entries.map(|(index, entry)| {
                let seq = input.seq;
                (Position { seq, index }, StoredAt::new(input.at), entry)
            })
        })
    }
}

/// Connects the evaluation to the bus, as the administrator: no service may read everything.
///
/// # Errors
/// When the server does not answer.
pub async fn connect(url: String, users: &BusUsers) -> Result<Bus> {
    let config = BusConfig {
        url,
        partitions: PARTITIONS,
        ..BusConfig::default()
    };
    Bus::connect(users.login_administrator(config), "chaos")
        .await
        .context("connecting to nats-server")
}

/// The process of a message id, which consists of the process and a counter.
fn writer(message: &Message) -> String {
    let id = message.msg_id.as_deref().unwrap_or_default();
    id.rsplit_once('/')
        .map_or(id, |(process, _)| process)
        .to_owned()
}
