//! Observations of a key: answers to writes and reads, and values from the watch.

use std::time::Duration;

use super::{KeyMachine, KeyOwner, Loss, Request, State, Step, Term};
use crate::lease::record::WriteResult;

impl KeyMachine {
    pub(in crate::lease) fn written(
        &mut self,
        now: Duration,
        ticket: u64,
        written: WriteResult,
    ) -> Option<Step> {
        let pending = match self.pending {
            Some(
                pending @ (Request::Put { ticket: sent, .. } | Request::Delete { ticket: sent }),
            ) if sent == ticket => pending,
            // The write was given up; a record that it stored is recognised by its count.
            Some(Request::Put { .. } | Request::Delete { .. } | Request::Read) | None => {
                return None;
            }
        };
        self.pending = None;
        match written {
            WriteResult::Stored(revision) => match pending {
                Request::Put { count, .. } => self.stored(now, revision, count),
                Request::Delete { .. } | Request::Read => self.finish_release(),
            },
            WriteResult::Conflict => {
                self.read_needed = true;
                None
            }
            WriteResult::Unknown => {
                self.read_needed = !matches!(self.state, State::Held(_));
                self.pause_until = now + self.timing.retry;
                None
            }
        }
    }

    pub(in crate::lease) fn read_failed(&mut self, now: Duration) {
        if self.pending == Some(Request::Read) {
            self.pending = None;
            self.pause_until = now + self.timing.retry;
        }
    }

    pub(in crate::lease) fn read(
        &mut self,
        now: Duration,
        revision: u64,
        seen: KeyOwner,
    ) -> Option<Step> {
        if self.pending == Some(Request::Read) {
            self.pending = None;
            self.read_needed = false;
        }
        self.reconcile(now, revision, seen)
    }

    /// Processes a value from the watch; a value older than the last own write is ignored.
    pub(in crate::lease) fn watched(
        &mut self,
        now: Duration,
        revision: u64,
        seen: KeyOwner,
    ) -> Option<Step> {
        let ours = match &self.state {
            State::Idle => 0,
            State::Held(term) => term.revision,
            State::Acquiring { expected } | State::Releasing { expected, .. } => *expected,
        };
        if revision > ours {
            self.reconcile(now, revision, seen)
        } else {
            None
        }
    }

    /// Adapts the state to the value in the bucket at a later revision.
    fn reconcile(&mut self, now: Duration, revision: u64, seen: KeyOwner) -> Option<Step> {
        match (&mut self.state, seen) {
            (State::Acquiring { .. } | State::Held(_), KeyOwner::Own(count)) => {
                self.confirm(count);
                self.stored(now, revision, count)
            }
            (State::Idle, KeyOwner::Own(_) | KeyOwner::Free | KeyOwner::Other) => None,
            (State::Acquiring { expected }, KeyOwner::Free) => {
                *expected = revision;
                None
            }
            (State::Acquiring { .. }, KeyOwner::Other) => {
                // An attempt in flight can only conflict.
                self.reset();
                None
            }
            (State::Held(_), KeyOwner::Free) => Some(self.lose(Loss::Gone)),
            (State::Held(_), KeyOwner::Other) => Some(self.lose(Loss::Taken)),
            (State::Releasing { expected, .. }, KeyOwner::Own(count)) => {
                *expected = revision;
                self.confirm(count);
                None
            }
            (State::Releasing { .. }, KeyOwner::Free | KeyOwner::Other) => self.finish_release(),
        }
    }

    /// Ends the wait for the acknowledgement of a write that was seen stored.
    fn confirm(&mut self, stored: u64) {
        if matches!(self.pending, Some(Request::Put { count, .. }) if count == stored) {
            self.pending = None;
        }
    }

    /// Processes a stored record. Its time counts from the send time, which is before the server's time.
    fn stored(&mut self, now: Duration, revision: u64, count: u64) -> Option<Step> {
        let sent_at = self.sent_times.get(&count).copied();
        let until = sent_at.map(|sent_at| sent_at + self.timing.ttl - self.timing.margin);
        match &mut self.state {
            State::Held(term) => {
                term.revision = revision;
                if let (Some(sent_at), Some(until)) = (sent_at, until) {
                    term.valid_until = term.valid_until.max(until);
                    term.renew_at = sent_at + self.timing.renew;
                }
                None
            }
            State::Acquiring { expected } => {
                *expected = revision;
                // Stored too long ago to be valid: it is written again.
                let until = until.filter(|until| now < *until)?;
                let renew_at = sent_at.unwrap_or(now) + self.timing.renew;
                self.state = State::Held(Term {
                    revision,
                    valid_until: until,
                    renew_at,
                });
                self.pause_until = Duration::ZERO;
                self.read_needed = false;
                Some(Step::Acquired)
            }
            State::Releasing { expected, .. } => {
                *expected = revision;
                None
            }
            State::Idle => None,
        }
    }

    fn finish_release(&mut self) -> Option<Step> {
        let announced = matches!(
            self.state,
            State::Releasing {
                announced: true,
                ..
            }
        );
        self.reset();
        announced.then_some(Step::Released)
    }
}
