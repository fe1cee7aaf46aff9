//! The highest positions anyone remembers: a stream that has to be created starts above them.

use std::collections::BTreeMap;

use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{Names, Partition};

/// Distance between the highest position anyone remembers and a stream created anew: positions that
/// were acknowledged but not yet applied anywhere are not used twice.
const MARGIN: u64 = 1_000_000;

/// The highest sequence anyone remembers, by stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceFloors(BTreeMap<String, u64>);

impl SequenceFloors {
    /// What the rows of all partitions remember of both logs.
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

    /// The same with what the archive remembers, by stream.
    #[must_use]
    pub fn and_archived(mut self, marks: impl IntoIterator<Item = (String, u64)>) -> Self {
        for (stream, seq) in marks {
            self.raise(stream, seq);
        }
        self
    }

    /// Notes that messages up to this sequence were seen.
    pub fn raise(&mut self, stream: impl Into<String>, seq: u64) {
        let floor = self.0.entry(stream.into()).or_default();
        *floor = (*floor).max(seq);
    }

    /// The highest sequence seen; 0 when none was.
    pub fn of(&self, stream: &str) -> u64 {
        self.0.get(stream).copied().unwrap_or(0)
    }

    /// The first sequence of the stream if it has to be created; absent when it begins with 1.
    pub fn first_sequence(&self, stream: &str) -> Option<u64> {
        let floor = self.of(stream);
        (floor > 0).then(|| floor + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_created_anew_starts_above_whatever_was_seen() {
        let mut floors = SequenceFloors::default();
        floors.raise("S", 7);
        floors.raise("S", 5);
        assert_eq!(floors.first_sequence("S"), Some(1_000_007));
        assert_eq!(floors.first_sequence("T"), None);
    }
}
