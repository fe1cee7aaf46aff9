//! The leases of one instance as a plain value: observations are inputs, commands are outputs.
//!
//! The shell opens the watch, executes the commands of [`LeaseCore::poll`], and passes every answer back
//! with its ticket. `now` is a monotonic clock of this process with any origin.

mod inputs_and_outputs;
mod poll;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_proto::subject::escape;

pub use self::inputs_and_outputs::{Answer, Command, Identity, Signal};

use super::Timing;
use super::bucket_cache::BucketCache;
use super::key_machine::KeyMachine;
use super::record::{Content, Record, RecordKey, VersionedContent, WriteResult};

#[derive(Debug, Clone)]
enum PendingRequest {
    Put { key: RecordKey, record: Record },
    Delete { key: RecordKey },
    Read { key: RecordKey, known: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Idle {
        since: Duration,
    },
    Waiting,
    Working {
        since: Duration,
        recalled_at: Option<Duration>,
    },
}

#[derive(Debug, Clone)]
struct KeySlot {
    machine: KeyMachine,
    work: Work,
    /// Consecutive failures of work under the key on this instance.
    failures: u32,
    /// End of the backoff, during which other instances go first.
    backoff_until: Duration,
    epoch: Option<u64>,
    /// Parts of the work that are held.
    held: BTreeSet<String>,
}

/// Whether this instance takes part in the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Acquires no keys and recalls those that are held.
    Stopping,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    opened_at: Duration,
    is_current: bool,
    /// Revision of an own write that the watch must show soon, and its time.
    unconfirmed_write: Option<(u64, Duration)>,
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
    published_declines: BTreeSet<String>,
    /// Another process has the name of this instance, and the workers were told.
    is_name_taken: bool,
    sent: BTreeMap<u64, PendingRequest>,
    next_ticket: u64,
    /// The assignment may have changed.
    dirty: bool,
    polled_at: Duration,
    commands: Vec<Command>,
}

impl LeaseCore {
    /// An instance that may hold `keys`, the same list for all members of the service. No worker waits yet.
    pub fn new(me: Identity, keys: &[String], timing: Timing, now: Duration) -> Self {
        let slot = || KeySlot {
            machine: KeyMachine::new(timing),
            work: Work::Idle { since: now },
            failures: 0,
            backoff_until: now,
            epoch: None,
            held: BTreeSet::new(),
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

    /// No worker waits for a key any more.
    pub fn cancel_want(&mut self, now: Duration, key: &str) {
        if let Some(slot) = self.slot(key)
            && slot.work == Work::Waiting
        {
            slot.work = Work::Idle { since: now };
            slot.machine.cancel(now);
            self.dirty = true;
        }
    }

    /// Releases a key whose work ended.
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

    /// Releases a key whose work failed here. This instance declines the key for a backoff that grows with
    /// every failure in a row, as long as another instance accepts it.
    pub fn give_up(&mut self, now: Duration, key: &str) {
        self.release(now, key);
        if let Some(slot) = self.slot(key) {
            let pause = super::BACKOFF_FIRST * 2_u32.saturating_pow(slot.failures);
            slot.backoff_until = now + pause.min(super::BACKOFF_MAX);
            slot.failures = (slot.failures + 1).min(super::FAILURES_MAX);
            self.dirty = true;
        }
    }

    /// Publishes the epoch of the work under a key, and the parts of the work that are held, in its record, for
    /// operators.
    pub fn set_progress(
        &mut self,
        now: Duration,
        key: &str,
        (epoch, held): (u64, BTreeSet<String>),
    ) {
        if let Some(slot) = self.slot(key) {
            slot.epoch = Some(epoch);
            slot.held = held;
            slot.machine.renew_now(now);
        }
    }

    /// Ends the membership at once and recalls every key that is held.
    pub fn stop(&mut self, now: Duration) {
        self.phase = Phase::Stopping;
        self.member.release(now);
        self.member.cancel(now);
        self.dirty = true;
    }

    /// Releases every key that is held without waiting for the work under it.
    pub fn close(&mut self, now: Duration) {
        self.stop(now);
        let keys = self.keys.clone();
        for key in keys {
            let step = self.slot(&key).and_then(|slot| slot.machine.revoke(now));
            self.apply_step(now, &RecordKey::Lease(key), step);
        }
    }

    /// True when no key is held or being released.
    pub fn is_ended(&self) -> bool {
        let is_idle = self.slots.values().all(|slot| slot.machine.is_idle());
        self.phase == Phase::Stopping && self.member.is_idle() && is_idle
    }

    /// True while the key is held and not expired.
    pub fn is_held(&self, now: Duration, key: &str) -> bool {
        let slot = self.slots.get(&escape(key));
        slot.is_some_and(|slot| slot.machine.is_held(now))
    }

    /// True while this instance is a member.
    pub fn is_member(&self, now: Duration) -> bool {
        self.member.is_held(now)
    }

    /// Processes a value from the watch.
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

    /// Processes the end of the initial values of the watch.
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

    /// Processes the end of the watch.
    pub fn watch_ended(&mut self, now: Duration) {
        self.watch.is_current = false;
        self.watch.unconfirmed_write = None;
        self.watch.reopen_at = Some(now + self.timing.retry);
    }

    /// Processes the answer for a ticket.
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
                // A later value may have been seen while this answer was in flight.
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

    /// An acknowledgement proves the value in the bucket, as the watch does.
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
        self.held.clear();
    }
}

#[cfg(test)]
mod tests;
