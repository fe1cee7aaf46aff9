//! The leases of one instance as a plain value: what it sees goes in, what is to be done comes out.
//!
//! The shell opens the watch, sends what [`LeaseCore::poll`] asks for, and hands every answer back
//! with its ticket. `now` is a monotonic clock of this process, from any origin, never going back.

mod commands;
mod poll;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_proto::subject::escape;

pub use self::commands::{Answer, Command, Identity, Signal};

use super::Timing;
use super::bucket_cache::BucketCache;
use super::key_machine::KeyMachine;
use super::record::{Content, Record, RecordKey, VersionedContent, WriteResult};

/// What a ticket was given for.
#[derive(Debug, Clone)]
enum PendingRequest {
    Put { key: RecordKey, record: Record },
    Delete { key: RecordKey },
    Read { key: RecordKey, known: u64 },
}

/// What a worker does about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nobody waits for it.
    Idle { since: Duration },
    /// Somebody waits for it.
    Waiting,
    /// It is worked on.
    Working {
        since: Duration,
        recalled_at: Option<Duration>,
    },
}

/// One key that may be held.
#[derive(Debug, Clone)]
struct KeySlot {
    machine: KeyMachine,
    work: Work,
    /// How often in a row work under it failed here.
    failures: u32,
    /// Others go first until then.
    backoff_until: Duration,
    epoch: Option<u64>,
}

/// Whether this instance takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// No new keys; what is held is asked back.
    Stopping,
}

/// State of the watch.
#[derive(Debug, Clone, Copy)]
struct Watch {
    opened_at: Duration,
    is_current: bool,
    /// A write of ours that the watch must show soon, and since when.
    unconfirmed_write: Option<(u64, Duration)>,
    /// It ended; opened again then.
    reopen_at: Option<Duration>,
}

/// The leases of one instance of one service.
#[derive(Debug, Clone)]
pub struct LeaseCore {
    me: Identity,
    token: String,
    timing: Timing,
    keys: Vec<String>,
    phase: Phase,
    cache: BucketCache,
    watch: Watch,
    member: KeyMachine,
    slots: BTreeMap<String, KeySlot>,
    /// Declined keys in the member record as it was sent last.
    published_declines: BTreeSet<String>,
    /// Somebody else's process has our name, and it was said.
    is_name_taken: bool,
    sent: BTreeMap<u64, PendingRequest>,
    next_ticket: u64,
    /// The assignment may have changed.
    dirty: bool,
    polled_at: Duration,
    commands: Vec<Command>,
}

impl LeaseCore {
    /// An instance that may hold `keys`, the same for all members of the service. Nobody waits for
    /// any of them yet.
    pub fn new(me: Identity, keys: &[String], timing: Timing, now: Duration) -> Self {
        let slot = || KeySlot {
            machine: KeyMachine::new(timing),
            work: Work::Idle { since: now },
            failures: 0,
            backoff_until: now,
            epoch: None,
        };
        let keys: BTreeSet<String> = keys.iter().map(|key| escape(key)).collect();
        let mut member = KeyMachine::new(timing);
        member.acquire(0);
        Self {
            token: escape(&me.writer.instance),
            timing,
            slots: keys.iter().map(|key| (key.clone(), slot())).collect(),
            keys: keys.into_iter().collect(),
            phase: Phase::Running,
            cache: BucketCache::new(RecordKey::member(&me.writer.instance)),
            watch: Watch {
                opened_at: now,
                is_current: false,
                unconfirmed_write: None,
                reopen_at: Some(now),
            },
            me,
            member,
            published_declines: BTreeSet::new(),
            is_name_taken: false,
            sent: BTreeMap::new(),
            next_ticket: 0,
            dirty: true,
            polled_at: now,
            commands: Vec::new(),
        }
    }

    /// A worker waits for a key.
    pub fn want(&mut self, key: &str) {
        if let Some(slot) = self.slot(key)
            && matches!(slot.work, Work::Idle { .. })
        {
            slot.work = Work::Waiting;
            self.dirty = true;
        }
    }

    /// Nobody waits for a key any more.
    pub fn cancel_want(&mut self, now: Duration, key: &str) {
        if let Some(slot) = self.slot(key)
            && slot.work == Work::Waiting
        {
            slot.work = Work::Idle { since: now };
            slot.machine.cancel(now);
            self.dirty = true;
        }
    }

    /// The work under a key ended: it is given back.
    pub fn release(&mut self, now: Duration, key: &str) {
        if let Some(slot) = self.slot(key)
            && let Work::Working { since, .. } = slot.work
        {
            if now >= since + super::STEADY_WORK {
                slot.failures = 0;
            }
            slot.end(now);
            slot.machine.release(now);
            self.dirty = true;
        }
    }

    /// The work under a key failed here: it is given back, and while somebody else wants it this
    /// instance stands behind, longer after every failure in a row.
    pub fn give_up(&mut self, now: Duration, key: &str) {
        self.release(now, key);
        if let Some(slot) = self.slot(key) {
            let pause = super::BACKOFF_FIRST * 2_u32.saturating_pow(slot.failures);
            slot.backoff_until = now + pause.min(super::BACKOFF_MAX);
            slot.failures = (slot.failures + 1).min(super::FAILURES_MAX);
            self.dirty = true;
        }
    }

    /// Names the epoch of the work under a key, for people who look at the bucket.
    pub fn set_epoch(&mut self, now: Duration, key: &str, epoch: u64) {
        if let Some(slot) = self.slot(key) {
            slot.epoch = Some(epoch);
            slot.machine.renew_now(now);
        }
    }

    /// The process shall stop: the membership ends at once, every key that is held is asked back.
    pub fn stop(&mut self, now: Duration) {
        self.phase = Phase::Stopping;
        self.member.release(now);
        self.member.cancel(now);
        self.dirty = true;
    }

    /// Gives back whatever is held, without waiting for the work under it.
    pub fn close(&mut self, now: Duration) {
        self.stop(now);
        let keys = self.keys.clone();
        for key in keys {
            let step = self.slot(&key).and_then(|slot| slot.machine.revoke(now));
            self.apply_step(now, &RecordKey::Lease(key), step);
        }
    }

    /// True when nothing is held and nothing is being given back.
    pub fn is_ended(&self) -> bool {
        let is_idle = self.slots.values().all(|slot| slot.machine.is_idle());
        self.phase == Phase::Stopping && self.member.is_idle() && is_idle
    }

    /// True while the key is held and its time is not over.
    pub fn is_held(&self, now: Duration, key: &str) -> bool {
        let slot = self.slots.get(&escape(key));
        slot.is_some_and(|slot| slot.machine.is_held(now))
    }

    /// True while this instance is a member.
    pub fn is_member(&self, now: Duration) -> bool {
        self.member.is_held(now)
    }

    /// The keys this instance should hold, by what it knows.
    pub fn assigned_keys(&self) -> Vec<String> {
        let mine = self.assignment().into_iter();
        mine.filter(|(_, member)| *member == self.token)
            .map(|(key, _)| key)
            .collect()
    }

    /// The watch shows a key of this service.
    pub fn watched(&mut self, now: Duration, key: &RecordKey, observed: VersionedContent) {
        if self
            .watch
            .unconfirmed_write
            .is_some_and(|(revision, _)| observed.revision >= revision)
        {
            self.watch.unconfirmed_write = None;
        }
        if self.cache.watched((now, self.timing.ttl), key, observed) {
            self.apply_observation(now, key);
        }
    }

    /// The watch has shown the last value of every key there is.
    pub fn watch_caught_up(&mut self, now: Duration) {
        if self.watch.is_current {
            return;
        }
        self.watch.is_current = true;
        self.dirty = true;
        for key in self.cache.unconfirmed() {
            let is_ours = self.machine(&key).is_some_and(|machine| !machine.is_idle());
            if is_ours {
                self.read(now, &key);
            } else {
                let gone = VersionedContent {
                    revision: 0,
                    content: Content::Absent,
                };
                self.cache.set((now, self.timing.ttl), &key, gone);
            }
        }
    }

    /// The watch ended.
    pub fn watch_ended(&mut self, now: Duration) {
        self.watch.is_current = false;
        self.watch.unconfirmed_write = None;
        self.watch.reopen_at = Some(now + self.timing.retry);
    }

    /// Takes the answer for a ticket.
    pub fn answered(&mut self, now: Duration, ticket: u64, answer: Answer) {
        let Some(sent) = self.sent.remove(&ticket) else {
            return;
        };
        match (sent, answer) {
            (PendingRequest::Put { key, record }, Answer::Written(written)) => {
                self.note_stored(now, &key, written, Content::Record(record));
                self.apply_write_result(now, &key, ticket, written);
            }
            (PendingRequest::Delete { key }, Answer::Written(written)) => {
                self.note_stored(now, &key, written, Content::Absent);
                self.apply_write_result(now, &key, ticket, written);
            }
            (PendingRequest::Read { key, known }, Answer::Found(observed)) => {
                // A later value may have been seen while this answer was on its way.
                let current = self.cache.revision(&key);
                if current == known || observed.revision > current {
                    self.cache.set((now, self.timing.ttl), &key, observed);
                    self.dirty = true;
                }
                let (revision, seen) = self.view(&key);
                let step = self
                    .machine(&key)
                    .and_then(|it| it.read(now, revision, seen));
                self.apply_step(now, &key, step);
                self.delete_stale_member(&key);
            }
            (sent, Answer::NoAnswer | Answer::Written(_) | Answer::Found(_)) => {
                let (PendingRequest::Put { key, .. }
                | PendingRequest::Delete { key }
                | PendingRequest::Read { key, .. }) = sent;
                if let Some(machine) = self.machine(&key) {
                    machine.read_failed(now);
                }
            }
        }
    }

    /// An acknowledgement tells what is in the bucket as the watch would.
    fn note_stored(
        &mut self,
        now: Duration,
        key: &RecordKey,
        written: WriteResult,
        content: Content,
    ) {
        let WriteResult::Stored(revision) = written else {
            return;
        };
        let is_member = matches!(key, RecordKey::Member(_));
        if is_member && self.watch.unconfirmed_write.is_none() {
            self.watch.unconfirmed_write = Some((revision, now));
        }
        self.cache.set(
            (now, self.timing.ttl),
            key,
            VersionedContent { revision, content },
        );
        self.dirty = true;
    }

    fn apply_write_result(
        &mut self,
        now: Duration,
        key: &RecordKey,
        ticket: u64,
        written: WriteResult,
    ) {
        let step = self
            .machine(key)
            .and_then(|machine| machine.written(now, ticket, written));
        self.apply_step(now, key, step);
    }

    fn apply_observation(&mut self, now: Duration, key: &RecordKey) {
        self.dirty = true;
        let (revision, seen) = self.view(key);
        let step = self
            .machine(key)
            .and_then(|machine| machine.watched(now, revision, seen));
        self.apply_step(now, key, step);
    }

    fn view(&self, key: &RecordKey) -> (u64, super::key_machine::KeyOwner) {
        let seen = self.cache.owner(key, &self.me.writer);
        (self.cache.revision(key), seen)
    }

    fn slot(&mut self, key: &str) -> Option<&mut KeySlot> {
        self.slots.get_mut(&escape(key))
    }

    fn machine(&mut self, key: &RecordKey) -> Option<&mut KeyMachine> {
        match key {
            RecordKey::Member(token) => (*token == self.token).then_some(&mut self.member),
            RecordKey::Lease(token) => self.slots.get_mut(token).map(|slot| &mut slot.machine),
        }
    }
}

impl KeySlot {
    fn end(&mut self, now: Duration) {
        self.work = Work::Idle { since: now };
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests;
