//! The streams of the fleet and the content of their messages.

use nixfleet_proto::subject::{Names, Partition};

/// Content of the messages of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Input,
    Output,
    Manifest,
    Dead,
}

/// A stream to archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub name: String,
    pub content: Content,
}

impl Stream {
    /// True unless messages are removed from the middle of the stream.
    pub fn is_contiguous(&self) -> bool {
        self.content != Content::Manifest
    }
}

/// Streams archived under one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseUnit {
    pub key: String,
    /// The partition, unless the unit has the shared streams.
    pub partition: Option<Partition>,
    pub streams: Vec<Stream>,
}

/// All streams of the fleet by lease: one unit per partition, and one for the shared streams.
pub fn units(names: &Names, partitions: u16) -> Vec<LeaseUnit> {
    let stream = |name, content| Stream { name, content };
    let mut units: Vec<_> = Partition::all(partitions)
        .map(|partition| LeaseUnit {
            key: partition.to_string(),
            partition: Some(partition),
            streams: vec![
                stream(names.input_stream(partition), Content::Input),
                stream(names.output_stream(partition), Content::Output),
            ],
        })
        .collect();
    units.push(LeaseUnit {
        key: "shared".to_owned(),
        partition: None,
        streams: vec![
            stream(names.manifest_stream(), Content::Manifest),
            stream(names.dead_stream(), Content::Dead),
        ],
    });
    units
}
