//! Journals on disk: each is written to a temporary file, synced and renamed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nixfleet_proto::RolloutId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{JournalStore, JournalStoreError};
use crate::activation_guard::ObservedClosures;
use crate::agent_memory::AgentMemory;
use crate::core::{Journal, SavedState};

const SUFFIX: &str = ".journal.json";
const MEMORY: &str = "memory.json";
const OBSERVATIONS: &str = "observations.json";

/// The documents of one agent in a directory.
#[derive(Debug)]
pub struct FileJournalStore {
    directory: PathBuf,
}

impl FileJournalStore {
    /// Opens a directory, created if missing.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, JournalStoreError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        Ok(Self { directory })
    }

    fn path_of(&self, rollout_id: &RolloutId) -> PathBuf {
        self.directory
            .join(format!("{}{SUFFIX}", escape(rollout_id.as_str())))
    }

    /// A rename is durable once its directory is.
    fn sync_directory(&self) -> Result<(), JournalStoreError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(at(&self.directory))
    }

    fn write(&self, path: &Path, document: &impl Serialize) -> Result<(), JournalStoreError> {
        let temporary = path.with_extension("new");
        let bytes = serde_json::to_vec(document).map_err(JournalStoreError::Encode)?;
        let mut file = File::create(&temporary).map_err(at(&temporary))?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(at(&temporary))?;
        fs::rename(&temporary, path).map_err(at(path))?;
        self.sync_directory()
    }

    /// Reads a document; absent without one. An unreadable document is renamed instead of failing: the control
    /// plane still has most of its state, and an agent that does not start cannot recover at all.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, JournalStoreError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(at(path)(source)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(document) => Ok(Some(document)),
            Err(error) => {
                let renamed = path.with_extension("unreadable");
                tracing::error!(path = %path.display(), %error, "renamed an unreadable document");
                fs::rename(path, &renamed).map_err(at(path))?;
                Ok(None)
            }
        }
    }

    fn journals(&self) -> Result<Vec<Journal>, JournalStoreError> {
        let mut journals = Vec::new();
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            paths.push(entry.map_err(at(&self.directory))?.path());
        }
        paths.sort();
        for path in paths {
            if !path.to_string_lossy().ends_with(SUFFIX) {
                continue;
            }
            journals.extend(self.read::<Journal>(&path)?);
        }
        Ok(journals)
    }
}

impl JournalStore for FileJournalStore {
    fn load(&self) -> Result<SavedState, JournalStoreError> {
        Ok(SavedState {
            journals: self.journals()?,
            memory: self.read(&self.directory.join(MEMORY))?.unwrap_or_default(),
        })
    }

    fn load_observations(&self) -> Result<ObservedClosures, JournalStoreError> {
        let path = self.directory.join(OBSERVATIONS);
        Ok(self.read(&path)?.unwrap_or_default())
    }

    fn save_memory(&self, memory: &AgentMemory) -> Result<(), JournalStoreError> {
        self.write(&self.directory.join(MEMORY), memory)
    }

    fn save_observations(&self, observations: &ObservedClosures) -> Result<(), JournalStoreError> {
        self.write(&self.directory.join(OBSERVATIONS), observations)
    }

    fn save(&self, journal: &Journal) -> Result<(), JournalStoreError> {
        self.write(&self.path_of(&journal.record.rollout_id), journal)
    }

    fn remove(&self, rollout_id: &RolloutId) -> Result<(), JournalStoreError> {
        let path = self.path_of(rollout_id);
        match fs::remove_file(&path) {
            Ok(()) => self.sync_directory(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(at(&path)(source)),
        }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> JournalStoreError + use<> {
    let path = path.display().to_string();
    move |source| JournalStoreError::Io {
        path: path.clone(),
        source,
    }
}

/// A file name without separators: characters other than letters, digits, `-`, `_` and `@` become `%XX`.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'@' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::host::NewHost;
    use nixfleet_proto::{HostRecord, Minutes, OnHealthFailure, Timestamp};

    use super::*;
    use crate::agent_memory::VerifiedManifest;

    fn journal(rollout: &str, seq_floor: u64) -> Journal {
        let rollout_id: RolloutId = rollout.parse().unwrap();
        Journal {
            v: 1,
            record: HostRecord::pending(NewHost {
                channel: rollout_id.channel(),
                rollout_id,
                hostname: "web-01".into(),
                target_closure: "b".into(),
                soak_minutes: Minutes::ZERO,
                dispatched_at: Timestamp::UNIX_EPOCH,
            }),
            on_health_failure: OnHealthFailure::Halt,
            signed_at: Timestamp::UNIX_EPOCH,
            predecessor: None,
            rollback_denied: false,
            replaced: false,
            seq_floor,
            waiting: Vec::new(),
            kept: Vec::new(),
        }
    }

    #[test]
    fn saved_documents_survive_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let journals = FileJournalStore::open(scratch.path().join("journals")).unwrap();
        journals.save(&journal("stable@4f", 1)).unwrap();
        journals.save(&journal("stable@4f", 2)).unwrap();
        journals.save(&journal("edge@../../x", 3)).unwrap();
        journals.remove(&"stable@ff".parse().unwrap()).unwrap();
        let again = FileJournalStore::open(scratch.path().join("journals")).unwrap();
        let floors: Vec<u64> = again
            .load()
            .unwrap()
            .journals
            .iter()
            .map(|j| j.seq_floor)
            .collect();
        assert_eq!(floors, [3, 2]);
        again.remove(&"stable@4f".parse().unwrap()).unwrap();
        assert_eq!(again.load().unwrap().journals.len(), 1);
    }

    #[test]
    fn a_torn_document_is_renamed_and_skipped() {
        let scratch = tempfile::tempdir().unwrap();
        let journals = FileJournalStore::open(scratch.path()).unwrap();
        journals.save(&journal("stable@4f", 1)).unwrap();
        fs::write(scratch.path().join(format!("edge@1{SUFFIX}")), b"{\"v\":1").unwrap();
        assert_eq!(journals.load().unwrap().journals.len(), 1);
        assert_eq!(journals.load().unwrap().journals.len(), 1);
    }

    #[test]
    fn memory_and_observations_survive_a_restart() {
        let scratch = tempfile::tempdir().unwrap();
        let store = FileJournalStore::open(scratch.path()).unwrap();
        let mut memory = AgentMemory::default();
        memory.remember_manifest(&VerifiedManifest {
            rollout_id: "stable@4f".parse().unwrap(),
            signed_at: Timestamp::UNIX_EPOCH,
            content_hash: "00".into(),
        });
        store.save_memory(&memory).unwrap();
        let observations: ObservedClosures =
            serde_json::from_str(r#"{"stable@4f":["a"]}"#).unwrap();
        store.save_observations(&observations).unwrap();
        let again = FileJournalStore::open(scratch.path()).unwrap();
        assert_eq!(again.load().unwrap().memory, memory);
        assert_eq!(again.load().unwrap().journals.len(), 0);
        assert_eq!(again.load_observations().unwrap(), observations);
        fs::write(scratch.path().join(MEMORY), b"{").unwrap();
        assert_eq!(again.load().unwrap().memory, AgentMemory::default());
    }
}
