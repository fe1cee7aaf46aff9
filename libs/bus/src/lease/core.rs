//! The leases of one instance as a plain value: what it sees goes in, what is to be done comes out.
//!
//! The shell opens the watch, sends what [`LeaseCore::poll`] asks for, and hands every answer back
//! with its ticket. `now` is a monotonic clock of this process, from any origin, never going back.

mod decide;
mod exchange;
mod send;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_proto::subject::escape;

pub use self::exchange::{Answer, Command, Identity, Signal};

use super::Timing;
use super::holding::Holding;
use super::record::{Content, Record, RecordKey, Sighting, Written};
use super::roster::Roster;

/// What a ticket was given for.
#[derive(Debug, Clone)]
enum Sent {
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
struct Desk {
    holding: Holding,
    work: Work,
    /// How often in a row work under it failed here.
    failures: u32,
    /// Others go first until then.
    back_at: Duration,
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
    unseen: Option<(u64, Duration)>,
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
    roster: Roster,
    watch: Watch,
    member: Holding,
    desks: BTreeMap<String, Desk>,
    /// Declined keys in the member record as it was sent last.
    declared: BTreeSet<String>,
    /// Somebody else's process has our name, and it was said.
    refused: bool,
    sent: BTreeMap<u64, Sent>,
    next_ticket: u64,
    /// The assignment may have changed.
    dirty: bool,
    polled_at: Duration,
    out: Vec<Command>,
}

impl LeaseCore {
    /// An instance that may hold `keys`, the same for all members of the service. Nobody waits for
    /// any of them yet.
    pub fn new(me: Identity, keys: &[String], timing: Timing, now: Duration) -> Self {
        let desk = || Desk {
            holding: Holding::new(timing),
            work: Work::Idle { since: now },
            failures: 0,
            back_at: now,
            epoch: None,
        };
        let keys: BTreeSet<String> = keys.iter().map(|key| escape(key)).collect();
        let mut member = Holding::new(timing);
        member.take(0);
        Self {
            token: escape(&me.writer.instance),
            timing,
            desks: keys.iter().map(|key| (key.clone(), desk())).collect(),
            keys: keys.into_iter().collect(),
            phase: Phase::Running,
            roster: Roster::new(RecordKey::member(&me.writer.instance)),

            watch: Watch {
                opened_at: now,
                is_current: false,
                unseen: None,
                reopen_at: Some(now),
            },
            me,
            member,
            declared: BTreeSet::new(),
            refused: false,
            sent: BTreeMap::new(),
            next_ticket: 0,
            dirty: true,
            polled_at: now,
            out: Vec::new(),
        }
    }

    /// A worker waits for a key.
    pub fn want(&mut self, key: &str) {
        if let Some(desk) = self.desk(key)
            && matches!(desk.work, Work::Idle { .. })
        {
            desk.work = Work::Waiting;
            self.dirty = true;
        }
    }

    /// Nobody waits for a key any more.
    pub fn stand_back(&mut self, now: Duration, key: &str) {
        if let Some(desk) = self.desk(key)
            && desk.work == Work::Waiting
        {
            desk.work = Work::Idle { since: now };
            desk.holding.stand_back(now);
            self.dirty = true;
        }
    }

    /// The work under a key ended: it is given back.
    pub fn release(&mut self, now: Duration, key: &str) {
        if let Some(desk) = self.desk(key)
            && let Work::Working { since, .. } = desk.work
        {
            if now >= since + super::STEADY {
                desk.failures = 0;
            }
            desk.end(now);
            desk.holding.leave(now);
            self.dirty = true;
        }
    }

    /// The work under a key failed here: it is given back, and while somebody else wants it this
    /// instance stands behind, longer after every failure in a row.
    pub fn give_up(&mut self, now: Duration, key: &str) {
        self.release(now, key);
        if let Some(desk) = self.desk(key) {
            let pause = super::BACK_FIRST * 2_u32.saturating_pow(desk.failures);
            desk.back_at = now + pause.min(super::BACK_MAX);
            desk.failures = (desk.failures + 1).min(super::FAILURES_MAX);
            self.dirty = true;
        }
    }

    /// Names the epoch of the work under a key, for people who look at the bucket.
    pub fn set_epoch(&mut self, now: Duration, key: &str, epoch: u64) {
        if let Some(desk) = self.desk(key) {
            desk.epoch = Some(epoch);
            desk.holding.renew_now(now);
        }
    }

    /// The process shall stop: the membership ends at once, every key that is held is asked back.
    pub fn stop(&mut self, now: Duration) {
        self.phase = Phase::Stopping;
        self.member.leave(now);
        self.member.stand_back(now);
        self.dirty = true;
    }

    /// Gives back whatever is held, without waiting for the work under it.
    pub fn close(&mut self, now: Duration) {
        self.stop(now);
        let keys = self.keys.clone();
        for key in keys {
            let step = self.desk(&key).and_then(|desk| desk.holding.overdue(now));
            self.take_step(now, &RecordKey::Lease(key), step);
        }
    }

    /// True when nothing is held and nothing is being given back.
    pub fn is_ended(&self) -> bool {
        let is_away = self.desks.values().all(|desk| desk.holding.is_away());
        self.phase == Phase::Stopping && self.member.is_away() && is_away
    }

    /// True while the key is held and its time is not over.
    pub fn is_held(&self, now: Duration, key: &str) -> bool {
        let desk = self.desks.get(&escape(key));
        desk.is_some_and(|desk| desk.holding.is_held(now))
    }

    /// True while this instance is a member.
    pub fn is_member(&self, now: Duration) -> bool {
        self.member.is_held(now)
    }

    /// The keys this instance should hold, by what it knows.
    pub fn share(&self) -> Vec<String> {
        let mine = self.assignment().into_iter();
        mine.filter(|(_, member)| *member == self.token)
            .map(|(key, _)| key)
            .collect()
    }

    /// The watch shows a key of this service.
    pub fn watched(&mut self, now: Duration, key: &RecordKey, sighting: Sighting) {
        if self
            .watch
            .unseen
            .is_some_and(|(revision, _)| sighting.revision >= revision)
        {
            self.watch.unseen = None;
        }
        if self.roster.watched((now, self.timing.ttl), key, sighting) {
            self.tell_holding(now, key);
        }
    }

    /// The watch has shown the last value of every key there is.
    pub fn caught_up(&mut self, now: Duration) {
        if self.watch.is_current {
            return;
        }
        self.watch.is_current = true;
        self.dirty = true;
        for key in self.roster.doubtful() {
            let is_ours = self.holding(&key).is_some_and(|holding| !holding.is_away());
            if is_ours {
                self.read(now, &key);
            } else {
                let gone = Sighting {
                    revision: 0,
                    content: Content::Gone,
                };
                self.roster.set((now, self.timing.ttl), &key, gone);
            }
        }
    }

    /// The watch ended.
    pub fn watch_ended(&mut self, now: Duration) {
        self.watch.is_current = false;
        self.watch.unseen = None;
        self.watch.reopen_at = Some(now + self.timing.retry);
    }

    /// Takes the answer for a ticket.
    pub fn answered(&mut self, now: Duration, ticket: u64, answer: Answer) {
        let Some(sent) = self.sent.remove(&ticket) else {
            return;
        };
        match (sent, answer) {
            (Sent::Put { key, record }, Answer::Written(written)) => {
                self.note_stored(now, &key, written, Content::Is(record));
                self.tell_written(now, &key, ticket, written);
            }
            (Sent::Delete { key }, Answer::Written(written)) => {
                self.note_stored(now, &key, written, Content::Gone);
                self.tell_written(now, &key, ticket, written);
            }
            (Sent::Read { key, known }, Answer::Found(sighting)) => {
                // A later value may have been seen while this answer was on its way.
                let current = self.roster.revision(&key);
                if current == known || sighting.revision > current {
                    self.roster.set((now, self.timing.ttl), &key, sighting);
                    self.dirty = true;
                }
                let (revision, seen) = self.view(&key);
                let step = self
                    .holding(&key)
                    .and_then(|it| it.read(now, revision, seen));
                self.take_step(now, &key, step);
                self.bury(&key);
            }
            (sent, Answer::Silence | Answer::Written(_) | Answer::Found(_)) => {
                let (Sent::Put { key, .. } | Sent::Delete { key } | Sent::Read { key, .. }) = sent;
                if let Some(holding) = self.holding(&key) {
                    holding.not_read(now);
                }
            }
        }
    }

    /// An acknowledgement tells what is in the bucket as the watch would.
    fn note_stored(&mut self, now: Duration, key: &RecordKey, written: Written, content: Content) {
        let Written::Stored(revision) = written else {
            return;
        };
        let is_member = matches!(key, RecordKey::Member(_));
        if is_member && self.watch.unseen.is_none() {
            self.watch.unseen = Some((revision, now));
        }
        self.roster
            .set((now, self.timing.ttl), key, Sighting { revision, content });
        self.dirty = true;
    }

    fn tell_written(&mut self, now: Duration, key: &RecordKey, ticket: u64, written: Written) {
        let step = self
            .holding(key)
            .and_then(|holding| holding.written(now, ticket, written));
        self.take_step(now, key, step);
    }

    fn tell_holding(&mut self, now: Duration, key: &RecordKey) {
        self.dirty = true;
        let (revision, seen) = self.view(key);
        let step = self
            .holding(key)
            .and_then(|holding| holding.seen(now, revision, seen));
        self.take_step(now, key, step);
    }

    fn view(&self, key: &RecordKey) -> (u64, super::holding::Seen) {
        let seen = self.roster.seen(key, &self.me.writer);
        (self.roster.revision(key), seen)
    }

    fn desk(&mut self, key: &str) -> Option<&mut Desk> {
        self.desks.get_mut(&escape(key))
    }

    fn holding(&mut self, key: &RecordKey) -> Option<&mut Holding> {
        match key {
            RecordKey::Member(token) => (*token == self.token).then_some(&mut self.member),
            RecordKey::Lease(token) => self.desks.get_mut(token).map(|desk| &mut desk.holding),
        }
    }
}

impl Desk {
    fn end(&mut self, now: Duration) {
        self.work = Work::Idle { since: now };
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests;
