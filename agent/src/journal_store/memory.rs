//! Journals in memory, which survive crashes of simulated agents.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nixfleet_proto::RolloutId;

use super::{JournalStore, JournalStoreError};
use crate::activation_guard::ObservedClosures;
use crate::agent_memory::AgentMemory;
use crate::core::{Journal, SavedState};

/// The documents in memory.
#[derive(Debug, Default)]
pub struct MemoryJournalStore {
    documents: Mutex<Documents>,
}

#[derive(Debug, Default)]
struct Documents {
    journals: BTreeMap<RolloutId, Journal>,
    memory: AgentMemory,
    observations: ObservedClosures,
}

impl MemoryJournalStore {
    fn lock(&self) -> MutexGuard<'_, Documents> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalStore for MemoryJournalStore {
    fn load(&self) -> Result<SavedState, JournalStoreError> {
        let documents = self.lock();
        Ok(SavedState {
            journals: documents.journals.values().cloned().collect(),
            memory: documents.memory.clone(),
        })
    }

    fn load_observations(&self) -> Result<ObservedClosures, JournalStoreError> {
        Ok(self.lock().observations.clone())
    }

    fn save(&self, journal: &Journal) -> Result<(), JournalStoreError> {
        let rollout_id = journal.record.rollout_id.clone();
        self.lock().journals.insert(rollout_id, journal.clone());
        Ok(())
    }

    fn save_memory(&self, memory: &AgentMemory) -> Result<(), JournalStoreError> {
        self.lock().memory = memory.clone();
        Ok(())
    }

    fn save_observations(&self, observations: &ObservedClosures) -> Result<(), JournalStoreError> {
        self.lock().observations = observations.clone();
        Ok(())
    }

    fn remove(&self, rollout_id: &RolloutId) -> Result<(), JournalStoreError> {
        self.lock().journals.remove(rollout_id);
        Ok(())
    }
}
