//! The model of the lease bucket: revisions, compare-and-set, time to live and watches.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_bus::lease::{Content, Record, RecordKey, VersionedContent, WriteResult};

use crate::addressing::{Caller, Service};
use crate::engine::Time;

/// A key of a service.
pub type LeaseKey = (Service, RecordKey);

/// The bucket.
#[derive(Debug, Default)]
pub struct LeaseBucket {
    revision: u64,
    keys: BTreeMap<LeaseKey, Value>,
    watchers: BTreeMap<Service, Vec<Caller>>,
}

#[derive(Debug)]
struct Value {
    observed: VersionedContent,
    expires_at: Time,
}

/// A changed value with the watchers to inform.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// The key.
    pub key: RecordKey,
    /// The new value.
    pub observed: VersionedContent,
    /// Watches of the service.
    pub watchers: Vec<Caller>,
}

impl LeaseBucket {
    /// Writes a value, or that it is absent, when the key has the expected revision.
    pub fn write(
        &mut self,
        key: &LeaseKey,
        (content, expected): (Content, u64),
        expires_at: Time,
    ) -> (WriteResult, Option<KeyChange>) {
        let known = self
            .keys
            .get(key)
            .map_or(0, |value| value.observed.revision);
        if known != expected {
            return (WriteResult::Conflict, None);
        }
        let changed = self.set(key, content, expires_at);
        (
            WriteResult::Stored(changed.observed.revision),
            Some(changed),
        )
    }

    /// Expires a value, unless it was written again.
    pub fn expire(&mut self, key: &LeaseKey, revision: u64) -> Option<KeyChange> {
        let value = self.keys.get(key)?;
        let is_it = value.observed.revision == revision;
        let is_there = !matches!(value.observed.content, Content::Absent);
        (is_it && is_there).then(|| self.set(key, Content::Absent, Time::ZERO))
    }

    fn set(&mut self, key: &LeaseKey, content: Content, expires_at: Time) -> KeyChange {
        self.revision += 1;
        let observed = VersionedContent {
            revision: self.revision,
            content,
        };
        let value = Value {
            observed: observed.clone(),
            expires_at,
        };
        self.keys.insert(key.clone(), value);
        KeyChange {
            key: key.1.clone(),
            observed,
            watchers: self.watchers.get(&key.0).cloned().unwrap_or_default(),
        }
    }

    /// The current value.
    pub fn read(&self, key: &LeaseKey) -> VersionedContent {
        let value = self.keys.get(key).map(|value| value.observed.clone());
        value.unwrap_or(VersionedContent {
            revision: 0,
            content: Content::Absent,
        })
    }

    /// Watches a service, instead of an earlier watch of the process; gives the last value of every key.
    pub fn watch(
        &mut self,
        service: Service,
        watcher: Caller,
    ) -> Vec<(RecordKey, VersionedContent)> {
        let watchers = self.watchers.entry(service).or_default();
        watchers.retain(|other| other.process.id != watcher.process.id);
        watchers.push(watcher);
        let keys = self.keys.iter().filter(|((of, _), _)| *of == service);
        let mut last: Vec<_> = keys
            .map(|((_, key), value)| (key.clone(), value.observed.clone()))
            .collect();
        last.sort_by_key(|(_, observed)| observed.revision);
        last
    }

    /// Ends a watch without notice.
    pub fn silence(&mut self, watcher: Caller) {
        for watchers in self.watchers.values_mut() {
            watchers.retain(|other| *other != watcher);
        }
    }

    /// Ends all watches.
    pub fn disconnect(&mut self) {
        self.watchers.clear();
    }

    /// Loses all data; revisions begin again.
    pub fn lose_everything(&mut self) {
        *self = Self::default();
    }

    /// When the value of a key expires.
    pub fn expires_at(&self, key: &LeaseKey) -> Option<Time> {
        self.keys.get(key).map(|value| value.expires_at)
    }
}

/// The content of a key with this record.
pub fn content(record: &Record) -> Content {
    Content::Record(record.clone())
}

/// Time to live of a record.
pub fn ttl(record: &Record) -> Duration {
    let seconds = match record {
        Record::Member(record) => Some(record.ttl_seconds),
        Record::Lease(record) => record.ttl_seconds,
    };
    Duration::from_secs(seconds.unwrap_or(10))
}

#[cfg(test)]
mod tests {
    use nixfleet_bus::lease::{InstanceId, LeaseRecord};

    use super::*;

    fn record(process: &str) -> Content {
        content(&Record::Lease(LeaseRecord {
            writer: InstanceId {
                instance: "a".to_owned(),
                process: process.to_owned(),
            },
            renewal: 1,
            ttl_seconds: Some(10),
            epoch: None,
            held: std::collections::BTreeSet::new(),
        }))
    }

    #[test]
    fn a_write_needs_the_revision_that_is_there() {
        let mut bucket = LeaseBucket::default();
        let key = (Service::Reducer, RecordKey::lease("00"));
        let until = Time::seconds(10);
        let (first, _) = bucket.write(&key, (record("1"), 0), until);
        assert_eq!(first, WriteResult::Stored(1));
        let (second, _) = bucket.write(&key, (record("2"), 0), until);
        assert_eq!(second, WriteResult::Conflict);
        let gone = bucket.expire(&key, 1).unwrap();
        assert_eq!(
            (gone.observed.revision, gone.observed.content),
            (2, Content::Absent)
        );
        assert!(bucket.expire(&key, 1).is_none() && bucket.expire(&key, 2).is_none());
        let (third, _) = bucket.write(&key, (record("2"), 2), until);
        assert_eq!(third, WriteResult::Stored(3));
    }
}
