//! The streams and what their messages are.

use nixfleet_proto::subject::{Names, Partition};

/// What the messages of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Input frames.
    Input,
    /// Output frames.
    Output,
    /// Announcements.
    Manifest,
    /// Dead letters.
    Dead,
}

/// A stream to archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

impl Stream {
    /// True when nothing is removed from the middle.
    pub fn is_contiguous(&self) -> bool {
        self.content != Content::Manifest
    }
}

/// Streams archived under one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Key of the lease.
    pub key: String,
    /// The partition whose logs they are, when they are.
    pub partition: Option<Partition>,
    /// The streams.
    pub streams: Vec<Stream>,
}

/// Every stream of the fleet, each in one unit: a unit per partition, and one for what all share.
pub fn units(names: &Names, partitions: u16) -> Vec<Unit> {
    let stream = |name, content| Stream { name, content };
    let mut units: Vec<_> = Partition::all(partitions)
        .map(|partition| Unit {
            key: partition.to_string(),
            partition: Some(partition),
            streams: vec![
                stream(names.input_stream(partition), Content::Input),
                stream(names.output_stream(partition), Content::Output),
            ],
        })
        .collect();
    units.push(Unit {
        key: "shared".to_owned(),
        partition: None,
        streams: vec![
            stream(names.manifest_stream(), Content::Manifest),
            stream(names.dead_stream(), Content::Dead),
        ],
    });
    units
}
