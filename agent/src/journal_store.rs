//! Durable state of an agent: one journal per rollout with the waiting events, and two documents.

mod file;
mod memory;

use nixfleet_proto::RolloutId;

use crate::activation_guard::ObservedClosures;
use crate::agent_memory::AgentMemory;
use crate::core::{Journal, SavedState};

pub use file::FileJournalStore;
pub use memory::MemoryJournalStore;

/// Durable storage of one agent. A save that returned is there after a crash.
pub trait JournalStore: Send + Sync + 'static {
    /// Loads what the core saved.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn load(&self) -> Result<SavedState, JournalStoreError>;

    /// Loads what the shell saved.
    ///
    /// # Errors
    /// The storage cannot be read.
    fn load_observations(&self) -> Result<ObservedClosures, JournalStoreError>;

    /// Replaces the document of a rollout.
    ///
    /// # Errors
    /// The document is not durable; the previous one still is.
    fn save(&self, journal: &Journal) -> Result<(), JournalStoreError>;

    /// Replaces the memory.
    ///
    /// # Errors
    /// The document is not durable; the previous one still is.
    fn save_memory(&self, memory: &AgentMemory) -> Result<(), JournalStoreError>;

    /// Replaces the observations.
    ///
    /// # Errors
    /// The document is not durable; the previous one still is.
    fn save_observations(&self, observations: &ObservedClosures) -> Result<(), JournalStoreError>;

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
