//! The hosts of one rollout: sorted by name, with a hash index, copied on write.
//!
//! The set is built once, when the rollout opens or is restored, and never loses a host: a sorted
//! sequence gives the order, and a hash table of positions in it serves lookups. Nothing iterates over
//! the hash table, whose order would differ between runs.
//!
//! Clones share chunks of entries: a clone of a million hosts takes a fraction of a millisecond, and the
//! first change of an entry copies its chunk.

use std::hash::BuildHasher;
use std::ops::Index;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use nixfleet_proto::Hostname;

use super::RolloutHost;

/// Entries of a chunk: bounds the copy of one change to about ten microseconds.
const CHUNK: usize = 256;

/// Host entries, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    chunks: Vec<Arc<[RolloutHost]>>,
    index: Arc<HashTable<u32>>,
}

impl HostTable {
    /// The entry of a host.
    pub fn get(&self, hostname: &(impl AsRef<str> + ?Sized)) -> Option<&RolloutHost> {
        Some(self.at(self.position(hostname.as_ref())?))
    }

    /// True when the table has the host.
    pub fn contains(&self, hostname: &(impl AsRef<str> + ?Sized)) -> bool {
        self.position(hostname.as_ref()).is_some()
    }

    /// Number of hosts.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True without hosts.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Entries in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &RolloutHost> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Names in order.
    pub fn keys(&self) -> impl Iterator<Item = &Hostname> {
        self.values().map(|entry| &entry.record.hostname)
    }

    pub(super) fn get_mut(&mut self, hostname: &Hostname) -> Option<&mut RolloutHost> {
        let position = self.position(hostname.as_str())?;
        let chunk = Arc::make_mut(&mut self.chunks[position / CHUNK]);
        Some(&mut chunk[position % CHUNK])
    }

    /// Removes every queued dispatch. Chunks without one stay shared.
    pub(super) fn cancel_dispatches(&mut self) {
        for chunk in &mut self.chunks {
            if chunk.iter().any(RolloutHost::is_queued) {
                let entries = Arc::make_mut(chunk).iter_mut();
                entries.for_each(|entry| entry.set_queued(None));
            }
        }
    }

    /// The entry of a host, or rarely of another with the same hash: does not compare names, so that it
    /// reads only the hash table.
    pub(super) fn find_by_hash(&self, hostname: &Hostname) -> Option<&RolloutHost> {
        let position = self.index.iter_hash(hash(hostname.as_str())).next()?;
        Some(self.at(*position as usize))
    }

    fn position(&self, hostname: &str) -> Option<usize> {
        let is_it =
            |position: &u32| self.at(*position as usize).record.hostname.as_str() == hostname;
        let position = self.index.find(hash(hostname), is_it)?;
        Some(*position as usize)
    }

    fn at(&self, position: usize) -> &RolloutHost {
        &self.chunks[position / CHUNK][position % CHUNK]
    }
}

impl FromIterator<RolloutHost> for HostTable {
    /// Sorts unsorted entries; the last entry of a name wins.
    fn from_iter<T: IntoIterator<Item = RolloutHost>>(entries: T) -> Self {
        let mut entries: Vec<RolloutHost> = entries.into_iter().collect();
        if !entries.is_sorted_by(|a, b| a.record.hostname < b.record.hostname) {
            entries.sort_by(|a, b| a.record.hostname.cmp(&b.record.hostname));
            entries.reverse();
            entries.dedup_by(|a, b| a.record.hostname == b.record.hostname);
            entries.reverse();
        }
        let mut index = HashTable::with_capacity(entries.len());
        for (position, entry) in (0..).zip(&entries) {
            let rehash =
                |position: &u32| hash(entries[*position as usize].record.hostname.as_str());
            index.insert_unique(hash(entry.record.hostname.as_str()), position, rehash);
        }
        let mut entries = entries.into_iter();
        let chunks = std::iter::from_fn(|| {
            let chunk: Arc<[RolloutHost]> = entries.by_ref().take(CHUNK).collect();
            (!chunk.is_empty()).then_some(chunk)
        });
        Self {
            chunks: chunks.collect(),
            index: Arc::new(index),
        }
    }
}

impl PartialEq for HostTable {
    fn eq(&self, other: &Self) -> bool {
        self.chunks == other.chunks
    }
}

impl Eq for HostTable {}

impl Index<&str> for HostTable {
    type Output = RolloutHost;

    /// # Panics
    /// When the table does not have the host.
    fn index(&self, hostname: &str) -> &RolloutHost {
        self.get(hostname)
            .expect("the caller names a host of the rollout")
    }
}

fn hash(hostname: &str) -> u64 {
    FixedState::default().hash_one(hostname)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::host::NewHost;
    use nixfleet_proto::{HostRecord, Position, Timestamp};

    use super::*;

    fn entry(hostname: &str, wave: u32) -> RolloutHost {
        let record = HostRecord::pending(NewHost {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: hostname.parse().unwrap(),
            channel: "stable".into(),
            target_closure: "c".into(),
            soak_minutes: Default::default(),
            dispatched_at: Timestamp::UNIX_EPOCH,
        });
        RolloutHost {
            record: record.into(),
            wave,
            staged: true,
            candidate: false,
            position: Position::default(),
            outstanding: None,
        }
    }

    #[test]
    fn hosts_are_sorted_and_found_by_name() {
        let names: Vec<String> = (0..500)
            .map(|number| format!("h{:03}", number * 7 % 500))
            .collect();
        let hosts: HostTable = names.iter().map(|name| entry(name, 0)).collect();
        assert!(hosts.keys().is_sorted_by(|a, b| a < b));
        assert_eq!(hosts.len(), 500);
        for name in &names {
            assert_eq!(hosts.get(name).unwrap().record.hostname.as_str(), name);
        }
        // A lookup by hash finds an entry for every host, nearly always its own.
        let by_hash = |name: &String| hosts.find_by_hash(&name.parse().unwrap()).unwrap();
        let right = names
            .iter()
            .filter(|name| by_hash(name).record.hostname.as_str() == *name);
        assert!(right.count() > 450);
        assert!(hosts.get("h500").is_none() && !hosts.contains(""));
    }

    #[test]
    fn the_last_entry_of_a_name_wins() {
        let hosts: HostTable = [entry("b", 0), entry("a", 1), entry("b", 2)]
            .into_iter()
            .collect();
        let waves: Vec<_> = hosts.values().map(|host| host.wave).collect();
        assert_eq!(waves, [1, 2]);
        assert_eq!(hosts["b"].wave, 2);
    }

    #[test]
    fn a_clone_is_unaffected_by_later_changes() {
        let names: Vec<String> = (0..1_000).map(|number| format!("h{number:04}")).collect();
        let mut hosts: HostTable = names.iter().map(|name| entry(name, 0)).collect();
        let before = hosts.clone();
        hosts.get_mut(&"h0300".into()).unwrap().wave = 7;
        assert_eq!((before["h0300"].wave, hosts["h0300"].wave), (0, 7));
        assert_ne!(before, hosts);
        // One chunk was copied, the others are shared.
        let shared = before.chunks.iter().zip(&hosts.chunks);
        let shared = shared.filter(|(before, now)| Arc::ptr_eq(before, now));
        assert_eq!(shared.count(), hosts.chunks.len() - 1);
    }

    #[test]
    fn cancelling_dispatches_copies_only_chunks_that_have_one() {
        let names: Vec<String> = (0..1_000).map(|number| format!("h{number:04}")).collect();
        let mut hosts: HostTable = names.iter().map(|name| entry(name, 0)).collect();
        let queued = Some(Default::default());
        hosts.get_mut(&"h0999".into()).unwrap().set_queued(queued);
        let before = hosts.clone();
        hosts.cancel_dispatches();
        assert!(before["h0999"].is_queued() && !hosts["h0999"].is_queued());
        let shared = before.chunks.iter().zip(&hosts.chunks);
        let shared = shared.filter(|(before, now)| Arc::ptr_eq(before, now));
        assert_eq!(shared.count(), hosts.chunks.len() - 1);
    }
}
