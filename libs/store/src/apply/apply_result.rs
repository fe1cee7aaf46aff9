//! Result of writing a turn.

/// Result of writing a turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyResult {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// Changes without a row, because the opening of their rollout is no longer in the log. Always 0 unless
    /// the tables were rebuilt from a trimmed log.
    pub orphans: u64,
}

impl ApplyResult {
    /// Adds the result of a statement that should have affected `expected` rows.
    pub(super) fn expect(&mut self, touched: u64, expected: usize) {
        self.rows += touched;
        self.orphans += (expected as u64).saturating_sub(touched);
    }
}
