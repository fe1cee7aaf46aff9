//! Durable state of an agent: one journal per rollout, with the waiting events.

mod file;
mod memory;

use nixfleet_proto::RolloutId;

use crate::core::Journal;

pub use file::FileJournalStore;
pub use memory::MemoryJournalStore;

/// Durable storage of one agent. A save that returned is there after a crash.
pub trait JournalStore: Send + Sync + 'static {
    /// Loads all journals.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn load(&self) -> Result<Vec<Journal>, JournalStoreError>;

    /// Replaces the document of a rollout.
    ///
    /// # Errors
    /// The document is not durable; the previous one still is.
    fn save(&self, journal: &Journal) -> Result<(), JournalStoreError>;

    /// Removes the document of a rollout, if there is one.
    ///
    /// # Errors
    /// The storage cannot be written.
    fn remove(&self, rollout_id: &RolloutId) -> Result<(), JournalStoreError>;
}

/// The storage failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalStoreError {
    /// Reading or writing a file failed.
    #[error("cannot access {path}")]
    Io {
        /// The file or directory.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A journal has no JSON form.
    #[error("cannot write a journal as JSON")]
    Encode(#[source] serde_json::Error),
}
