//! State machine of one key and one writer: acquire, renew, release, stop in time.
//!
//! Every write carries the revision it expects and a count, so whatever happens to an answer the
//! next read of the key tells what is stored. Nothing is written while a read is needed. Time is an
//! argument: a monotonic clock of this process, from any origin.

mod observations;

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::mutation_testing;

use super::Timing;

/// Writes whose fate may still turn up; older ones have expired.
const SENT_TIMES_KEPT: usize = 16;

/// What the bucket says about the key, seen from its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyOwner {
    /// Free.
    Free,
    /// Our own write with this count.
    Own(u64),
    /// Somebody else's.
    Other,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write our record with the revision expected.
    Put { expected: u64 },
    /// Delete with the revision expected.
    Delete { expected: u64 },
    /// Ask the leader.
    Read,
    /// It is ours from now on.
    Acquired,
    /// It was ours: the work must stop at once.
    Lost(Loss),
    /// It was given back, or left to expire.
    Released,
}

/// Why a key was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Not renewed in time; another instance may acquire it soon.
    Late,
    /// Somebody else's record is there.
    Taken,
    /// The record is gone.
    Gone,
    /// The work did not end in time after the key was recalled.
    Overdue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not ours.
    Idle,
    /// Wanted: a write was sent, its fate is open.
    Acquiring { expected: u64 },
    /// Ours.
    Held(Term),
    /// Being given back; `announced` when somebody waits to hear of it.
    Releasing {
        expected: u64,
        give_up_at: Duration,
        announced: bool,
    },
}

/// The time a key is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    revision: u64,
    /// The margin before the server's expiry.
    valid_until: Duration,
    renew_at: Duration,
}

/// A write or a read in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Put { ticket: u64, count: u64 },
    Delete { ticket: u64 },
    Read,
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct KeyMachine {
    timing: Timing,
    state: State,
    pending: Option<Request>,
    /// Not before this time anything is sent again after an answer that did not help.
    pause_until: Duration,
    /// The key must be read before the next write.
    read_needed: bool,
    /// When our recent writes were sent, by count.
    sent_times: BTreeMap<u64, Duration>,
}

impl KeyMachine {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            state: State::Idle,
            pending: None,
            pause_until: Duration::ZERO,
            read_needed: false,
            sent_times: BTreeMap::new(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// True while the key is ours: strictly before the time to stop.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        match &self.state {
            State::Held(term) => {
                now < term.valid_until || mutation_testing::is_active("lease-never-expires")
            }
            State::Idle | State::Acquiring { .. } | State::Releasing { .. } => false,
        }
    }

    /// Begins to acquire a key that was seen free at this revision.
    pub(super) fn acquire(&mut self, expected: u64) {
        if self.is_idle() {
            self.state = State::Acquiring { expected };
        }
    }

    /// Stops wanting a key that is not ours yet.
    pub(super) fn cancel(&mut self, now: Duration) {
        if let State::Acquiring { expected } = self.state {
            self.begin_release(expected, now, false);
            // Whether the attempt was stored is open.
            self.read_needed = true;
        }
    }

    /// Begins to give back a key that is ours.
    pub(super) fn release(&mut self, now: Duration) {
        if let State::Held(term) = self.state {
            self.begin_release(term.revision, now, true);
        }
    }

    /// Deletes a record of ours that nobody here wants any more.
    pub(super) fn release_stray(&mut self, now: Duration, revision: u64) {
        if self.is_idle() {
            self.begin_release(revision, now, false);
        }
    }

    fn begin_release(&mut self, expected: u64, now: Duration, announced: bool) {
        let give_up_at = now + self.timing.release_timeout;
        self.pause_until = Duration::ZERO;
        self.state = State::Releasing {
            expected,
            give_up_at,
            announced,
        };
    }

    /// Renews at once, to publish a changed record.
    pub(super) fn renew_now(&mut self, now: Duration) {
        if let State::Held(term) = &mut self.state {
            term.renew_at = now;
        }
    }

    /// When [`KeyMachine::step`] has something to do by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        let free = self.pending.is_none();
        match &self.state {
            State::Idle => None,
            State::Held(term) => {
                let send_at = if self.read_needed {
                    self.pause_until
                } else {
                    term.renew_at.max(self.pause_until)
                };
                Some(if free {
                    send_at.min(term.valid_until)
                } else {
                    term.valid_until
                })
            }
            State::Acquiring { .. } => free.then_some(self.pause_until),
            State::Releasing { give_up_at, .. } => Some(if free {
                self.pause_until.min(*give_up_at)
            } else {
                *give_up_at
            }),
        }
    }

    /// What is due now; called until it says nothing. `ticket` and `count` are those of the next
    /// write.
    pub(super) fn step(&mut self, now: Duration, ticket: u64, count: u64) -> Option<Step> {
        match self.state {
            State::Idle => return None,
            State::Held(term)
                if now >= term.valid_until
                    && !mutation_testing::is_active("lease-never-expires") =>
            {
                return Some(self.lose(Loss::Late));
            }
            State::Releasing {
                give_up_at,
                announced,
                ..
            } if now >= give_up_at => {
                self.state = State::Idle;
                self.pending = None;
                return announced.then_some(Step::Released);
            }
            State::Held(_) | State::Acquiring { .. } | State::Releasing { .. } => {}
        }
        if self.pending.is_some() || now < self.pause_until {
            return None;
        }
        if self.read_needed {
            self.pending = Some(Request::Read);
            return Some(Step::Read);
        }
        match self.state {
            State::Idle => None,
            State::Held(term) if now < term.renew_at => None,
            State::Held(Term {
                revision: expected, ..
            })
            | State::Acquiring { expected } => {
                self.pending = Some(Request::Put { ticket, count });
                self.sent_times.insert(count, now);
                while self.sent_times.len() > SENT_TIMES_KEPT {
                    self.sent_times.pop_first();
                }
                Some(Step::Put { expected })
            }
            State::Releasing { expected, .. } => {
                self.pending = Some(Request::Delete { ticket });
                Some(Step::Delete { expected })
            }
        }
    }

    /// Work that ran over its time loses the key; it is given back by itself.
    pub(super) fn revoke(&mut self, now: Duration) -> Option<Step> {
        let State::Held(term) = self.state else {
            return None;
        };
        self.begin_release(term.revision, now, false);
        Some(Step::Lost(Loss::Overdue))
    }

    fn lose(&mut self, loss: Loss) -> Step {
        self.reset();
        Step::Lost(loss)
    }

    fn reset(&mut self) {
        self.state = State::Idle;
        self.pending = None;
        self.read_needed = false;
        self.pause_until = Duration::ZERO;
    }
}
