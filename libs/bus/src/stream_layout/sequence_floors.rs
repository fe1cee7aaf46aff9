//! The highest known sequences: a stream that has to be created starts above them.

use std::collections::BTreeMap;

/// Distance between the highest known sequence and the first one of a new stream, so that positions which
/// were acknowledged but not applied are not reused.
const MARGIN: u64 = 1_000_000;

/// The highest known sequence of each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceFloors(BTreeMap<String, u64>);

impl SequenceFloors {
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

impl FromIterator<(String, u64)> for SequenceFloors {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(sequences: I) -> Self {
        let mut floors = Self::default();
        for (stream, seq) in sequences {
            floors.raise(stream, seq);
        }
        floors
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
