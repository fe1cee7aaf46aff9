//! What comes back about the key: answers to writes and looks, and what the watch shows.

use std::time::Duration;

use super::{Flight, Holding, Loss, Seen, State, Step, Term};
use crate::lease::record::Written;

impl Holding {
    /// Takes the answer to a write.
    pub(in crate::lease) fn written(
        &mut self,
        now: Duration,
        ticket: u64,
        written: Written,
    ) -> Option<Step> {
        let flight = match self.flight {
            Some(flight @ (Flight::Put { ticket: sent, .. } | Flight::Delete { ticket: sent }))
                if sent == ticket =>
            {
                flight
            }
            // Given up meanwhile; a record that it left is found by its count.
            Some(Flight::Put { .. } | Flight::Delete { .. } | Flight::Read) | None => return None,
        };
        self.flight = None;
        match written {
            Written::Stored(revision) => match flight {
                Flight::Put { count, .. } => self.stored(now, revision, count),
                Flight::Delete { .. } | Flight::Read => self.left(),
            },
            Written::Conflict => {
                self.look = true;
                None
            }
            Written::Unknown => {
                self.look = !matches!(self.state, State::Held(_));
                self.pause_until = now + self.timing.retry;
                None
            }
        }
    }

    /// A look was not answered.
    pub(in crate::lease) fn not_read(&mut self, now: Duration) {
        if self.flight == Some(Flight::Read) {
            self.flight = None;
            self.pause_until = now + self.timing.retry;
        }
    }

    /// Takes what the leader answered.
    pub(in crate::lease) fn read(
        &mut self,
        now: Duration,
        revision: u64,
        seen: Seen,
    ) -> Option<Step> {
        if self.flight == Some(Flight::Read) {
            self.flight = None;
            self.look = false;
        }
        self.settle(now, revision, seen)
    }

    /// Takes what the watch shows; what is older than our own last write says nothing.
    pub(in crate::lease) fn seen(
        &mut self,
        now: Duration,
        revision: u64,
        seen: Seen,
    ) -> Option<Step> {
        let ours = match &self.state {
            State::Away => 0,
            State::Held(term) => term.revision,
            State::Taking { expected } | State::Leaving { expected, .. } => *expected,
        };
        if revision > ours {
            self.settle(now, revision, seen)
        } else {
            None
        }
    }

    /// Brings the state in line with what is in the bucket at a later revision than ours.
    fn settle(&mut self, now: Duration, revision: u64, seen: Seen) -> Option<Step> {
        match (&mut self.state, seen) {
            (State::Taking { .. } | State::Held(_), Seen::Mine(count)) => {
                self.land(count);
                self.stored(now, revision, count)
            }
            (State::Away, Seen::Mine(_) | Seen::Gone | Seen::Other) => None,
            (State::Taking { expected }, Seen::Gone) => {
                *expected = revision;
                None
            }
            (State::Taking { .. }, Seen::Other) => {
                // An attempt still under way can only conflict.
                self.reset();
                None
            }
            (State::Held(_), Seen::Gone) => Some(self.lose(Loss::Gone)),
            (State::Held(_), Seen::Other) => Some(self.lose(Loss::Taken)),
            (State::Leaving { expected, .. }, Seen::Mine(count)) => {
                *expected = revision;
                self.land(count);
                None
            }
            (State::Leaving { .. }, Seen::Gone | Seen::Other) => self.left(),
        }
    }

    /// A write with this count was seen stored: its acknowledgement is not waited for.
    fn land(&mut self, stored: u64) {
        if matches!(self.flight, Some(Flight::Put { count, .. }) if count == stored) {
            self.flight = None;
        }
    }

    /// Our record is stored. It counts from when it was sent, which is before the server's time.
    fn stored(&mut self, now: Duration, revision: u64, count: u64) -> Option<Step> {
        let asked_at = self.asked.get(&count).copied();
        let until = asked_at.map(|asked_at| asked_at + self.timing.ttl - self.timing.margin);
        match &mut self.state {
            State::Held(term) => {
                term.revision = revision;
                if let (Some(asked_at), Some(until)) = (asked_at, until) {
                    term.valid_until = term.valid_until.max(until);
                    term.renew_at = asked_at + self.timing.renew;
                }
                None
            }
            State::Taking { expected } => {
                *expected = revision;
                // Stored too long ago to rely on: written once more.
                let until = until.filter(|until| now < *until)?;
                let renew_at = asked_at.unwrap_or(now) + self.timing.renew;
                self.state = State::Held(Term {
                    revision,
                    valid_until: until,
                    renew_at,
                });
                self.pause_until = Duration::ZERO;
                self.look = false;
                Some(Step::Gained)
            }
            State::Leaving { expected, .. } => {
                *expected = revision;
                None
            }
            State::Away => None,
        }
    }

    fn left(&mut self) -> Option<Step> {
        let announced = matches!(
            self.state,
            State::Leaving {
                announced: true,
                ..
            }
        );
        self.reset();
        announced.then_some(Step::Released)
    }
}
