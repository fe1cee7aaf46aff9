//! The hosts of one rollout: in the order of their names, found by name in one step.
//!
//! The set is made once, when the rollout opens or is restored, and no host ever leaves it, so a
//! sorted vector gives the order and a table of places in it answers lookups. The table is never
//! walked: its order would differ between runs.

use std::hash::BuildHasher;
use std::ops::Index;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use nixfleet_proto::Hostname;

use super::HostEntry;

/// Host entries by name.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    entries: Vec<HostEntry>,
    places: HashTable<u32>,
}

impl Hosts {
    /// The entry of a host.
    pub fn get(&self, hostname: &(impl AsRef<str> + ?Sized)) -> Option<&HostEntry> {
        self.entries.get(self.place(hostname.as_ref())?)
    }

    /// True when the host is one of them.
    pub fn contains(&self, hostname: &(impl AsRef<str> + ?Sized)) -> bool {
        self.place(hostname.as_ref()).is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries in the order of their names.
    pub fn values(&self) -> std::slice::Iter<'_, HostEntry> {
        self.entries.iter()
    }

    /// Names in their order.
    pub fn keys(&self) -> impl Iterator<Item = &Hostname> {
        self.entries.iter().map(|entry| &entry.record.hostname)
    }

    pub(super) fn get_mut(&mut self, hostname: &Hostname) -> Option<&mut HostEntry> {
        let place = self.place(hostname.as_str())?;
        self.entries.get_mut(place)
    }

    pub(super) fn values_mut(&mut self) -> std::slice::IterMut<'_, HostEntry> {
        self.entries.iter_mut()
    }

    /// The entry of a host, or rarely another: it is not looked whether the name is the same, so that
    /// nothing but the table is read.
    pub(super) fn guess(&self, hostname: &Hostname) -> Option<&HostEntry> {
        let place = self.places.iter_hash(hash(hostname.as_str())).next()?;
        self.entries.get(*place as usize)
    }

    fn place(&self, hostname: &str) -> Option<usize> {
        let is_it =
            |place: &u32| self.entries[*place as usize].record.hostname.as_str() == hostname;
        let place = self.places.find(hash(hostname), is_it)?;
        Some(*place as usize)
    }
}

impl FromIterator<HostEntry> for Hosts {
    /// Sorts when it must; of two entries with one name the last one stays.
    fn from_iter<T: IntoIterator<Item = HostEntry>>(entries: T) -> Self {
        let mut entries: Vec<HostEntry> = entries.into_iter().collect();
        if !entries.is_sorted_by(|a, b| a.record.hostname < b.record.hostname) {
            entries.sort_by(|a, b| a.record.hostname.cmp(&b.record.hostname));
            entries.reverse();
            entries.dedup_by(|a, b| a.record.hostname == b.record.hostname);
            entries.reverse();
        }
        let mut places = HashTable::with_capacity(entries.len());
        for (place, entry) in (0..).zip(&entries) {
            let rehash = |place: &u32| hash(entries[*place as usize].record.hostname.as_str());
            places.insert_unique(hash(entry.record.hostname.as_str()), place, rehash);
        }
        Self { entries, places }
    }
}

impl PartialEq for Hosts {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Hosts {}

impl Index<&str> for Hosts {
    type Output = HostEntry;

    /// # Panics
    /// When the host is not one of them.
    fn index(&self, hostname: &str) -> &HostEntry {
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

    fn entry(hostname: &str, wave: u32) -> HostEntry {
        let record = HostRecord::pending(NewHost {
            rollout_id: "stable@4f".parse().unwrap(),
            hostname: hostname.into(),
            channel: "stable".into(),
            target_closure: "c".into(),
            soak_minutes: Default::default(),
            dispatched_at: Timestamp::UNIX_EPOCH,
        });
        HostEntry {
            record: record.into(),
            wave,
            staged: true,
            queued_at: None,
            candidate: false,
            position: Position::default(),
        }
    }

    #[test]
    fn hosts_are_sorted_and_found_by_name_whatever_order_they_come_in() {
        let names: Vec<String> = (0..500)
            .map(|number| format!("h{:03}", number * 7 % 500))
            .collect();
        let hosts: Hosts = names.iter().map(|name| entry(name, 0)).collect();
        assert!(hosts.keys().is_sorted_by(|a, b| a < b));
        assert_eq!(hosts.len(), 500);
        for name in &names {
            assert_eq!(hosts.get(name).unwrap().record.hostname.as_str(), name);
        }
        // A guess is nearly always right, and there is one for every host.
        let guess = |name: &String| hosts.guess(&name.as_str().into()).unwrap();
        let right = names
            .iter()
            .filter(|name| guess(name).record.hostname.as_str() == *name);
        assert!(right.count() > 450);
        assert!(hosts.get("h500").is_none() && !hosts.contains(""));
    }

    #[test]
    fn the_last_entry_of_a_name_stays() {
        let hosts: Hosts = [entry("b", 0), entry("a", 1), entry("b", 2)]
            .into_iter()
            .collect();
        let waves: Vec<_> = hosts.values().map(|host| host.wave).collect();
        assert_eq!(waves, [1, 2]);
        assert_eq!(hosts["b"].wave, 2);
    }
}
