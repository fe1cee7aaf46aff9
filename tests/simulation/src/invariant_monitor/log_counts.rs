//! Counts of trims, refusals and checkpoints.

/// How often logs were trimmed or refused a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Checkpoints that were announced.
    pub checkpoints: u64,
    /// Times a log was trimmed.
    pub trims: u64,
    /// Messages that a full log refused.
    pub refused: u64,
    /// Requests of agents that were refused because a log was nearly full.
    pub held_back: u64,
    /// Times a leader held a partition whose input log was full.
    pub held_partitions: u64,
    /// Times rows were written from a checkpoint.
    pub restored: u64,
}

impl LogCounts {
    /// The sum of two counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            checkpoints: self.checkpoints + other.checkpoints,
            trims: self.trims + other.trims,
            refused: self.refused + other.refused,
            held_back: self.held_back + other.held_back,
            held_partitions: self.held_partitions + other.held_partitions,
            restored: self.restored + other.restored,
        }
    }
}
