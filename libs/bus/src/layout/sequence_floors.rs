//! The highest known sequences: a stream that has to be created starts above them.

use std::collections::BTreeMap;

use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{Names, Partition};

/// Distance between the highest known sequence and the first one of a new stream, so that positions which
/// were acknowledged but not applied are not reused.
const MARGIN: u64 = 1_000_000;

/// The highest known sequence of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceFloors(BTreeMap<String, u64>);

impl SequenceFloors {
    /// Floors of both logs from the cursors of all partitions.
    pub fn of_cursors<'a>(
        names: &Names,
        cursors: impl IntoIterator<Item = &'a (Partition, Cursor)>,
    ) -> Self {
        let mut floors = Self::default();
        for (partition, cursor) in cursors {
            floors.raise(names.output_stream(*partition), cursor.out_seq);
            if let Some(mark) = cursor.input {
                floors.raise(names.input_stream(*partition), mark.seq);
            }
        }
        floors
    }

    /// Adds the last archived sequence of each stream.
    #[must_use]
    pub fn and_archived(mut self, marks: impl IntoIterator<Item = (String, u64)>) -> Self {
        for (stream, seq) in marks {
            self.raise(stream, seq);
        }
        self
    }

    /// Records that messages up to this sequence exist.
    pub fn raise(&mut self, stream: impl Into<String>, seq: u64) {
        let floor = self.0.entry(stream.into()).or_default();
        *floor = (*floor).max(seq);
    }

    /// The highest known sequence; 0 when there is none.
    pub fn of(&self, stream: &str) -> u64 {
        self.0.get(stream).copied().unwrap_or(0)
    }

    /// The first sequence of the stream if it has to be created; `None` when it begins with 1.
    pub fn first_sequence(&self, stream: &str) -> Option<u64> {
        let floor = self.of(stream);
        (floor > 0).then(|| floor + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_starts_above_its_floor() {
        let mut floors = SequenceFloors::default();
        floors.raise("S", 7);
        floors.raise("S", 5);
        assert_eq!(floors.first_sequence("S"), Some(1_000_007));
        assert_eq!(floors.first_sequence("T"), None);
    }
}
