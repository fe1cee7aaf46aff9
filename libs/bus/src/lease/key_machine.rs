//! State machine of one key and one writer: acquire, renew, release, stop in time.
//!
//! Every write has the expected revision and a count, so that the next read of the key tells what is
//! stored, whatever happened to the answer. Nothing is written while a read is needed. Time is an argument:
//! a monotonic clock of this process with any origin.

mod observations;

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::mutation_testing;

use super::Timing;

/// Writes whose result may still arrive; older ones have expired.
const SENT_TIMES_KEPT: usize = 16;

/// Owner of the key, relative to its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyOwner {
    Free,
    /// An own write with this count.
    Own(u64),
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Put {
        expected: u64,
    },
    Delete {
        expected: u64,
    },
    /// Read the key through the leader.
    Read,
    Acquired,
    /// The key is lost: the work must stop at once.
    Lost(Loss),
    /// The key was released, or is left to expire.
    Released,
}

/// Why a key was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Not renewed in time; another instance may acquire it soon.
    Late,
    /// Another instance has written its record.
    Taken,
    /// The record is gone.
    Gone,
    /// The work did not end in time after the key was recalled.
    Overdue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not held and not wanted.
    Idle,
    /// Wanted: a write was sent, and its result is unknown.
    Acquiring {
        expected: u64,
    },
    Held(Term),
    /// Being released; `announced` when a worker waits for the end of the release.
    Releasing {
        expected: u64,
        give_up_at: Duration,
        announced: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    revision: u64,
    /// Expiry on the server, minus the margin.
    valid_until: Duration,
    renew_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Put { ticket: u64, count: u64 },
    Delete { ticket: u64 },
    Read,
}

#[derive(Debug, Clone)]
pub(super) struct KeyMachine {
    timing: Timing,
    state: State,
    pending: Option<Request>,
    /// Earliest time of the next request after an answer that did not help.
    pause_until: Duration,
    /// The key must be read before the next write.
    read_needed: bool,
    /// Send times of recent writes, by count.
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

    pub(super) fn is_held(&self, now: Duration) -> bool {
        match &self.state {
            State::Held(term) => {
                now < term.valid_until || mutation_testing::is_active("lease-never-expires")
            }
            State::Idle | State::Acquiring { .. } | State::Releasing { .. } => false,
        }
    }

    /// Starts to acquire a key that was free at this revision.
    pub(super) fn acquire(&mut self, expected: u64) {
        if self.is_idle() {
            self.state = State::Acquiring { expected };
        }
    }

    /// Gives up acquiring a key that is not held yet.
    pub(super) fn cancel(&mut self, now: Duration) {
        if let State::Acquiring { expected } = self.state {
            self.begin_release(expected, now, false);
            // It is unknown whether the attempt was stored.
            self.read_needed = true;
        }
    }

    pub(super) fn release(&mut self, now: Duration) {
        if let State::Held(term) = self.state {
            self.begin_release(term.revision, now, true);
        }
    }

    /// Deletes an own record that no worker wants.
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

    pub(super) fn renew_now(&mut self, now: Duration) {
        if let State::Held(term) = &mut self.state {
            term.renew_at = now;
        }
    }

    /// Time at which [`KeyMachine::step`] acts without an observation.
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

    /// The action that is due now; called until there is none. `ticket` and `count` belong to the next
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

    /// Takes the key from work that exceeded its time, and releases it.
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
