//! One key in the hands of one writer: take, renew, give back, stop in time.
//!
//! Every write carries the revision it expects and a count, so whatever happens to an answer the
//! next look at the key tells what is stored. Nothing is written while a look is asked for. Time is
//! an argument: a monotonic clock of this process, from any origin.

mod answers;

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_proto::mutation_testing;

use super::Timing;

/// Writes whose fate may still turn up; older ones have expired.
const ASKS_KEPT: usize = 16;

/// What the bucket says about the key, seen from its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Free.
    Gone,
    /// Our own write with this count.
    Mine(u64),
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
    Gained,
    /// It was ours: the work must stop at once.
    Lost(Loss),
    /// It was given back, or left to expire.
    Released,
}

/// Why a key was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Not renewed in time; somebody else may take it soon.
    Late,
    /// Somebody else's record is there.
    Taken,
    /// The record is gone.
    Gone,
    /// The work did not end in time after the key was asked back.
    Overdue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not ours.
    Away,
    /// Wanted: a write was sent, its fate is open.
    Taking { expected: u64 },
    /// Ours.
    Held(Term),
    /// Being given back; `announced` when somebody waits to hear of it.
    Leaving {
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

/// A write or a look on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Put { ticket: u64, count: u64 },
    Delete { ticket: u64 },
    Read,
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    timing: Timing,
    state: State,
    flight: Option<Flight>,
    /// Not before this time anything is sent again after an answer that did not help.
    pause_until: Duration,
    /// A look is needed before the next write.
    look: bool,
    /// When our recent writes were sent, by count.
    asked: BTreeMap<u64, Duration>,
}

impl Holding {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            state: State::Away,
            flight: None,
            pause_until: Duration::ZERO,
            look: false,
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.state == State::Away
    }

    /// True while the key is ours: strictly before the time to stop.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        match &self.state {
            State::Held(term) => {
                now < term.valid_until || mutation_testing::is_active("lease-never-expires")
            }
            State::Away | State::Taking { .. } | State::Leaving { .. } => false,
        }
    }

    /// Begins to take a key that was seen free at this revision.
    pub(super) fn take(&mut self, expected: u64) {
        if self.is_away() {
            self.state = State::Taking { expected };
        }
    }

    /// Stops wanting a key that is not ours yet.
    pub(super) fn stand_back(&mut self, now: Duration) {
        if let State::Taking { expected } = self.state {
            self.leave_at(expected, now, false);
            // Whether the attempt was stored is open.
            self.look = true;
        }
    }

    /// Begins to give back a key that is ours.
    pub(super) fn leave(&mut self, now: Duration) {
        if let State::Held(term) = self.state {
            self.leave_at(term.revision, now, true);
        }
    }

    /// Deletes a record of ours that nobody here wants any more.
    pub(super) fn drop_stray(&mut self, now: Duration, revision: u64) {
        if self.is_away() {
            self.leave_at(revision, now, false);
        }
    }

    fn leave_at(&mut self, expected: u64, now: Duration, announced: bool) {
        let give_up_at = now + self.timing.release_timeout;
        self.pause_until = Duration::ZERO;
        self.state = State::Leaving {
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

    /// When [`Holding::step`] has something to do by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        let free = self.flight.is_none();
        match &self.state {
            State::Away => None,
            State::Held(term) => {
                let send_at = if self.look {
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
            State::Taking { .. } => free.then_some(self.pause_until),
            State::Leaving { give_up_at, .. } => Some(if free {
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
            State::Away => return None,
            State::Held(term)
                if now >= term.valid_until
                    && !mutation_testing::is_active("lease-never-expires") =>
            {
                return Some(self.lose(Loss::Late));
            }
            State::Leaving {
                give_up_at,
                announced,
                ..
            } if now >= give_up_at => {
                self.state = State::Away;
                self.flight = None;
                return announced.then_some(Step::Released);
            }
            State::Held(_) | State::Taking { .. } | State::Leaving { .. } => {}
        }
        if self.flight.is_some() || now < self.pause_until {
            return None;
        }
        if self.look {
            self.flight = Some(Flight::Read);
            return Some(Step::Read);
        }
        match self.state {
            State::Away => None,
            State::Held(term) if now < term.renew_at => None,
            State::Held(Term {
                revision: expected, ..
            })
            | State::Taking { expected } => {
                self.flight = Some(Flight::Put { ticket, count });
                self.asked.insert(count, now);
                while self.asked.len() > ASKS_KEPT {
                    self.asked.pop_first();
                }
                Some(Step::Put { expected })
            }
            State::Leaving { expected, .. } => {
                self.flight = Some(Flight::Delete { ticket });
                Some(Step::Delete { expected })
            }
        }
    }

    /// Work that ran over its time loses the key; it is given back by itself.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<Step> {
        let State::Held(term) = self.state else {
            return None;
        };
        self.leave_at(term.revision, now, false);
        Some(Step::Lost(Loss::Overdue))
    }

    fn lose(&mut self, loss: Loss) -> Step {
        self.reset();
        Step::Lost(loss)
    }

    fn reset(&mut self) {
        self.state = State::Away;
        self.flight = None;
        self.look = false;
        self.pause_until = Duration::ZERO;
    }
}
