//! A member's copy of the bucket: the last value of every key of its service.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::subject::escape;

use super::assignment::{Assignment, Members};
use super::key_machine::KeyOwner;
use super::record::{Content, InstanceId, Record, RecordKey, VersionedContent};

/// Silence beyond the time to live after which a key is read: the watch should have shown its expiry.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
struct CachedRecord {
    revision: u64,
    content: Content,
    seen_at: Duration,
    /// Time at which this revision was first seen.
    since: Duration,
    /// The writer did not renew the record in time, and the leader still returns it. A server that restarts
    /// after a crash may bring back an expired record without its expiry.
    is_stale: bool,
    /// The watch, an answer or an acknowledgement confirmed it since the watch was opened.
    confirmed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct BucketCache {
    /// Key of this member; the revision of its deletion is needed to write it again.
    own: RecordKey,
    records: BTreeMap<RecordKey, CachedRecord>,
}

impl BucketCache {
    pub(super) fn new(own: RecordKey) -> Self {
        Self {
            own,
            records: BTreeMap::new(),
        }
    }

    /// The revision that a writer of this key expects; 0 when the key is unknown.
    pub(super) fn revision(&self, key: &RecordKey) -> u64 {
        self.records.get(key).map_or(0, |cached| cached.revision)
    }

    /// The owner of the key, relative to a writer.
    pub(super) fn owner(&self, key: &RecordKey, writer: &InstanceId) -> KeyOwner {
        match self.records.get(key).map(|cached| &cached.content) {
            None | Some(Content::Absent) => KeyOwner::Free,
            Some(Content::Record(record)) if record.writer() == writer => {
                KeyOwner::Own(record.renewal())
            }
            Some(Content::Record(_) | Content::Unreadable) if self.is_stale(key) => KeyOwner::Free,
            Some(Content::Record(_) | Content::Unreadable) => KeyOwner::Other,
        }
    }

    pub(super) fn is_stale(&self, key: &RecordKey) -> bool {
        self.records.get(key).is_some_and(|cached| cached.is_stale)
    }

    /// The writer of the key; `None` when the key is absent or unreadable.
    pub(super) fn writer(&self, key: &RecordKey) -> Option<&InstanceId> {
        match &self.records.get(key)?.content {
            Content::Record(record) => Some(record.writer()),
            Content::Absent | Content::Unreadable => None,
        }
    }

    /// Records the last value of a key, whatever its revision; `ttl` is the configured time to live.
    pub(super) fn set(
        &mut self,
        (now, ttl): (Duration, Duration),
        key: &RecordKey,
        observed: VersionedContent,
    ) {
        let is_other_member = matches!(key, RecordKey::Member(_)) && *key != self.own;
        if is_other_member && observed.content == Content::Absent {
            // Members have a new name at every start, so deleted ones need no record.
            self.records.remove(key);
            return;
        }
        // A watch that starts again, as after an outage, gives all writers time to renew.
        let known = self.records.get(key).filter(|cached| {
            cached.confirmed
                && cached.revision == observed.revision
                && cached.content == observed.content
        });
        let since = known.map_or(now, |cached| cached.since);
        let cached = CachedRecord {
            revision: observed.revision,
            is_stale: now >= since + ttl_of(&observed.content, ttl) + EXPIRY_GRACE,
            content: observed.content,
            seen_at: now,
            since,
            confirmed: true,
        };
        self.records.insert(key.clone(), cached);
    }

    /// Records a value from the watch unless a later one is known; true when it was recorded.
    pub(super) fn watched(
        &mut self,
        at: (Duration, Duration),
        key: &RecordKey,
        observed: VersionedContent,
    ) -> bool {
        let is_news = self
            .records
            .get(key)
            .is_none_or(|cached| !cached.confirmed || observed.revision > cached.revision);
        if is_news {
            self.set(at, key, observed);
        }
        is_news
    }

    /// Marks all records as unconfirmed when the watch starts again. Records that the watch does not show
    /// until it has caught up are gone, and a bucket that was created again restarts its revisions.
    pub(super) fn mark_unconfirmed(&mut self) {
        for cached in self.records.values_mut() {
            cached.confirmed = false;
        }
    }

    pub(super) fn unconfirmed(&self) -> Vec<RecordKey> {
        let records = self.records.iter();
        records
            .filter(|(_, cached)| !cached.confirmed)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Records that a key is being read, so that it is not read again at once.
    pub(super) fn mark_read(&mut self, now: Duration, key: &RecordKey) {
        if let Some(cached) = self.records.get_mut(key) {
            cached.seen_at = now;
        }
    }

    /// The next key that exceeds its time to live without a sign, with the time.
    pub(super) fn next_silent(&self, ttl: Duration) -> Option<(Duration, RecordKey)> {
        let present = self.records.iter();
        present
            .filter(|(_, cached)| cached.content != Content::Absent)
            .map(|(key, cached)| {
                (
                    cached.seen_at + ttl_of(&cached.content, ttl) + EXPIRY_GRACE,
                    key.clone(),
                )
            })
            .min()
    }

    pub(super) fn members(&self) -> Members {
        let records = self.records.iter().filter(|(_, cached)| !cached.is_stale);
        let members = records.filter_map(|(key, cached)| {
            let (RecordKey::Member(token), Content::Record(Record::Member(record))) =
                (key, &cached.content)
            else {
                return None;
            };
            let declines = record.declines.iter().map(|key| escape(key)).collect();
            Some((token.clone(), declines))
        });
        members.collect()
    }

    pub(super) fn holders(&self) -> Assignment {
        let records = self.records.iter().filter(|(_, cached)| !cached.is_stale);
        let holders = records.filter_map(|(key, cached)| {
            let (RecordKey::Lease(token), Content::Record(record)) = (key, &cached.content) else {
                return None;
            };
            Some((token.clone(), escape(&record.writer().instance)))
        });
        holders.collect()
    }
}

/// The time to live in the record, otherwise the configured one.
fn ttl_of(content: &Content, configured: Duration) -> Duration {
    match content {
        Content::Record(Record::Member(record)) => Duration::from_secs(record.ttl_seconds),
        Content::Record(Record::Lease(record)) => {
            record.ttl_seconds.map_or(configured, Duration::from_secs)
        }
        Content::Absent | Content::Unreadable => configured,
    }
}
