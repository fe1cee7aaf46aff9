//! Requests to the bucket with their tickets, and signals to the workers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Command, LeaseCore, PendingRequest, Signal, Work};
use crate::lease::key_machine::{Loss, Step};
use crate::lease::record::{LeaseRecord, MemberRecord, Record, RecordKey};

impl LeaseCore {
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn read(&mut self, now: Duration, key: &RecordKey) {
        let ticket = self.ticket();
        let known = self.cache.revision(key);
        self.cache.mark_read(now, key);
        let key = key.clone();
        let pending = PendingRequest::Read {
            key: key.clone(),
            known,
        };
        self.sent.insert(ticket, pending);
        self.commands.push(Command::Read { ticket, key });
    }

    fn delete(&mut self, key: &RecordKey, expected: u64) {
        let ticket = self.ticket();
        let key = key.clone();
        let pending = PendingRequest::Delete { key: key.clone() };
        self.sent.insert(ticket, pending);
        self.commands.push(Command::Delete {
            ticket,
            key,
            expected,
        });
    }

    fn record(&self, key: &RecordKey, renewal: u64) -> Record {
        let writer = self.me.writer.clone();
        let ttl_seconds = self.timing.ttl.as_secs();
        match key {
            RecordKey::Member(_) => Record::Member(MemberRecord {
                writer,
                renewal,
                version: self.me.version.clone(),
                since: self.me.since,
                ttl_seconds,
                declines: self.published_declines.clone(),
            }),
            RecordKey::Lease(token) => Record::Lease(LeaseRecord {
                writer,
                renewal,
                ttl_seconds: Some(ttl_seconds),
                epoch: self.slots.get(token).and_then(|slot| slot.epoch),
                held: self
                    .slots
                    .get(token)
                    .map_or_else(BTreeSet::new, |slot| slot.held.clone()),
            }),
        }
    }

    /// Deletes the record of a member that is gone; a new instance would take it for a live member until it
    /// is known to be stale.
    pub(super) fn delete_stale_member(&mut self, key: &RecordKey) {
        let is_other = matches!(key, RecordKey::Member(token) if *token != self.token);
        if !is_other || !self.cache.is_stale(key) {
            return;
        }
        self.delete(key, self.cache.revision(key));
    }

    pub(super) fn apply_step(&mut self, now: Duration, key: &RecordKey, step: Option<Step>) {
        let Some(step) = step else {
            return;
        };
        match step {
            Step::Put { expected } => {
                let ticket = self.ticket();
                let record = self.record(key, ticket);
                let (key, sent) = (key.clone(), record.clone());
                let pending = PendingRequest::Put {
                    key: key.clone(),
                    record: sent,
                };
                self.sent.insert(ticket, pending);
                self.commands.push(Command::Put {
                    ticket,
                    key,
                    record,
                    expected,
                });
            }
            Step::Delete { expected } => self.delete(key, expected),
            Step::Read => self.read(now, key),
            Step::Acquired => self.acquired(now, key),
            Step::Lost(loss) => self.lost(now, key, loss),
            Step::Released => self.signal(key, Signal::Released),
        }
    }

    fn acquired(&mut self, now: Duration, key: &RecordKey) {
        self.dirty = true;
        let RecordKey::Lease(token) = key else {
            self.is_name_taken = false;
            self.commands.push(Command::Signal(Signal::Joined));
            return;
        };
        if let Some(slot) = self.slots.get_mut(token) {
            slot.epoch = None;
            slot.held.clear();
            slot.work = Work::Working {
                since: now,
                recalled_at: None,
            };
        }
        self.signal(key, Signal::Acquired);
    }

    fn lost(&mut self, now: Duration, key: &RecordKey, loss: Loss) {
        self.dirty = true;
        if let RecordKey::Lease(token) = key {
            if let Some(slot) = self.slots.get_mut(token) {
                slot.end(now);
            }
            self.signal(key, |token| Signal::Lost(token, loss));
        }
    }

    fn signal(&mut self, key: &RecordKey, signal: impl FnOnce(String) -> Signal) {
        if let RecordKey::Lease(token) = key {
            self.commands.push(Command::Signal(signal(token.clone())));
        }
    }
}
