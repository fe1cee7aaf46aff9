//! Journals in memory, which survive crashes of simulated agents.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nixfleet_proto::RolloutId;

use super::{JournalStore, JournalStoreError};
use crate::core::Journal;

/// The documents in memory.
#[derive(Debug, Default)]
pub struct MemoryJournalStore {
    journals: Mutex<BTreeMap<RolloutId, Journal>>,
}

impl JournalStore for MemoryJournalStore {
    fn load(&self) -> Result<Vec<Journal>, JournalStoreError> {
        let journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(journals.values().cloned().collect())
    }

    fn save(&self, journal: &Journal) -> Result<(), JournalStoreError> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.insert(journal.record.rollout_id.clone(), journal.clone());
        Ok(())
    }

    fn remove(&self, rollout_id: &RolloutId) -> Result<(), JournalStoreError> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.remove(rollout_id);
        Ok(())
    }
}
