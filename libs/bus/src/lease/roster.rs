//! What a member knows of the bucket: the last value of every key of its service.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::subject::escape;

use super::assign::{Members, Placement};
use super::holding::Seen;
use super::record::{Content, Record, RecordKey, Sighting, Writer};

/// Silence beyond the time to live after which a key is asked for: its expiry should have been seen.
const GRACE: Duration = Duration::from_secs(2);

/// The last known value of a key.
#[derive(Debug, Clone)]
struct Slot {
    revision: u64,
    content: Content,
    seen_at: Duration,
    /// When this very revision was seen first.
    since: Duration,
    /// Its writer promised to renew it and did not, and the leader says that it is still the last
    /// value. A server that started again after a crash may bring back what had ended, and forget
    /// that it ends.
    is_ghost: bool,
    /// The watch, an answer or an acknowledgement spoke of it since the watch was opened.
    confirmed: bool,
}

/// All known keys of one service.
#[derive(Debug, Clone)]
pub(super) struct Roster {
    /// Our own member key: the revision of its end is needed to write it again.
    own: RecordKey,
    slots: BTreeMap<RecordKey, Slot>,
}

impl Roster {
    pub(super) fn new(own: RecordKey) -> Self {
        Self {
            own,
            slots: BTreeMap::new(),
        }
    }

    /// The revision a writer of this key expects; 0 for one that is not known.
    pub(super) fn revision(&self, key: &RecordKey) -> u64 {
        self.slots.get(key).map_or(0, |slot| slot.revision)
    }

    /// The key, seen from a writer.
    pub(super) fn seen(&self, key: &RecordKey, writer: &Writer) -> Seen {
        match self.slots.get(key).map(|slot| &slot.content) {
            None | Some(Content::Gone) => Seen::Gone,
            Some(Content::Is(record)) if record.writer() == writer => Seen::Mine(record.renewal()),
            Some(Content::Is(_) | Content::Unreadable) if self.is_ghost(key) => Seen::Gone,
            Some(Content::Is(_) | Content::Unreadable) => Seen::Other,
        }
    }

    /// The key has a record that should have ended.
    pub(super) fn is_ghost(&self, key: &RecordKey) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.is_ghost)
    }

    /// Who wrote the key; nothing when it is gone or unreadable.
    pub(super) fn writer(&self, key: &RecordKey) -> Option<&Writer> {
        match &self.slots.get(key)?.content {
            Content::Is(record) => Some(record.writer()),
            Content::Gone | Content::Unreadable => None,
        }
    }

    /// Takes a value for the last one, whatever its revision; `ttl` is the configured time to live.
    pub(super) fn set(
        &mut self,
        (now, ttl): (Duration, Duration),
        key: &RecordKey,
        sighting: Sighting,
    ) {
        let is_other_member = matches!(key, RecordKey::Member(_)) && *key != self.own;
        if is_other_member && sighting.content == Content::Gone {
            // They come and go under new names; only their absence counts.
            self.slots.remove(key);
            return;
        }
        // A watch that starts over, as after an outage, gives everybody time to renew.
        let known = self.slots.get(key).filter(|slot| {
            slot.confirmed && slot.revision == sighting.revision && slot.content == sighting.content
        });
        let since = known.map_or(now, |slot| slot.since);
        let slot = Slot {
            revision: sighting.revision,
            is_ghost: now >= since + ttl_of(&sighting.content, ttl) + GRACE,
            content: sighting.content,
            seen_at: now,
            since,
            confirmed: true,
        };
        self.slots.insert(key.clone(), slot);
    }

    /// Takes a value from the watch, unless a later one is known. True when it counts.
    pub(super) fn watched(
        &mut self,
        at: (Duration, Duration),
        key: &RecordKey,
        sighting: Sighting,
    ) -> bool {
        let is_news = self
            .slots
            .get(key)
            .is_none_or(|slot| !slot.confirmed || sighting.revision > slot.revision);
        if is_news {
            self.set(at, key, sighting);
        }
        is_news
    }

    /// The watch starts over: what it does not mention until it has caught up is gone, and a bucket
    /// that was created again counts its revisions from the start.
    pub(super) fn doubt(&mut self) {
        for slot in self.slots.values_mut() {
            slot.confirmed = false;
        }
    }

    /// Keys the watch has not mentioned since it was opened.
    pub(super) fn doubtful(&self) -> Vec<RecordKey> {
        let slots = self.slots.iter();
        slots
            .filter(|(_, slot)| !slot.confirmed)
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Notes that a key is being asked for, so that it is not asked for again at once.
    pub(super) fn asked(&mut self, now: Duration, key: &RecordKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.seen_at = now;
        }
    }

    /// When the next key has been silent for too long.
    pub(super) fn silent_at(&self, ttl: Duration) -> Option<(Duration, RecordKey)> {
        let present = self.slots.iter();
        present
            .filter(|(_, slot)| slot.content != Content::Gone)
            .map(|(key, slot)| {
                (
                    slot.seen_at + ttl_of(&slot.content, ttl) + GRACE,
                    key.clone(),
                )
            })
            .min()
    }

    /// Members that are there, with what they decline.
    pub(super) fn members(&self) -> Members {
        let slots = self.slots.iter().filter(|(_, slot)| !slot.is_ghost);
        slots
            .filter_map(|(key, slot)| match (key, &slot.content) {
                (RecordKey::Member(token), Content::Is(Record::Member(record))) => {
                    let declines = record.declines.iter().map(|key| escape(key)).collect();
                    Some((token.clone(), declines))
                }
                (
                    RecordKey::Member(_) | RecordKey::Lease(_),
                    Content::Is(_) | Content::Gone | Content::Unreadable,
                ) => None,
            })
            .collect()
    }

    /// Who holds which key.
    pub(super) fn holders(&self) -> Placement {
        let slots = self.slots.iter().filter(|(_, slot)| !slot.is_ghost);
        slots
            .filter_map(|(key, slot)| match (key, &slot.content) {
                (RecordKey::Lease(token), Content::Is(record)) => {
                    Some((token.clone(), escape(&record.writer().instance)))
                }
                (
                    RecordKey::Member(_) | RecordKey::Lease(_),
                    Content::Is(_) | Content::Gone | Content::Unreadable,
                ) => None,
            })
            .collect()
    }
}

/// What the writer promised, else what is configured here.
fn ttl_of(content: &Content, configured: Duration) -> Duration {
    match content {
        Content::Is(Record::Member(record)) => Duration::from_secs(record.ttl_seconds),
        Content::Is(Record::Lease(record)) => {
            record.ttl_seconds.map_or(configured, Duration::from_secs)
        }
        Content::Gone | Content::Unreadable => configured,
    }
}
