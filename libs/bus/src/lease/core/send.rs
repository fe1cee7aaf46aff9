//! What goes out: commands with their tickets, and signals to the workers.

use std::time::Duration;

use super::{Command, LeaseCore, Sent, Signal, Work};
use crate::lease::holding::{Loss, Step};
use crate::lease::record::{LeaseRecord, MemberRecord, Record, RecordKey};

impl LeaseCore {
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn read(&mut self, now: Duration, key: &RecordKey) {
        let ticket = self.ticket();
        let known = self.roster.revision(key);
        self.roster.asked(now, key);
        self.sent.insert(
            ticket,
            Sent::Read {
                key: key.clone(),
                known,
            },
        );
        self.out.push(Command::Read {
            ticket,
            key: key.clone(),
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
                declines: self.declared.clone(),
            }),
            RecordKey::Lease(token) => Record::Lease(LeaseRecord {
                writer,
                renewal,
                ttl_seconds: Some(ttl_seconds),
                epoch: self.desks.get(token).and_then(|desk| desk.epoch),
            }),
        }
    }

    /// Deletes the record of a member that is gone: who comes new would take it for one that lives,
    /// for as long as it takes to tell.
    pub(super) fn bury(&mut self, key: &RecordKey) {
        let is_other = matches!(key, RecordKey::Member(token) if *token != self.token);
        if !is_other || !self.roster.is_ghost(key) {
            return;
        }
        let ticket = self.ticket();
        self.sent.insert(ticket, Sent::Delete { key: key.clone() });
        self.out.push(Command::Delete {
            ticket,
            key: key.clone(),
            expected: self.roster.revision(key),
        });
    }

    /// Turns a step of a key into commands and signals.
    pub(super) fn take_step(&mut self, now: Duration, key: &RecordKey, step: Option<Step>) {
        let Some(step) = step else {
            return;
        };
        match step {
            Step::Put { expected } => {
                let ticket = self.ticket();
                let record = self.record(key, ticket);
                let (key, sent) = (key.clone(), record.clone());
                self.sent.insert(
                    ticket,
                    Sent::Put {
                        key: key.clone(),
                        record: sent,
                    },
                );
                self.out.push(Command::Put {
                    ticket,
                    key,
                    record,
                    expected,
                });
            }
            Step::Delete { expected } => {
                let ticket = self.ticket();
                let key = key.clone();
                self.sent.insert(ticket, Sent::Delete { key: key.clone() });
                self.out.push(Command::Delete {
                    ticket,
                    key,
                    expected,
                });
            }
            Step::Read => self.read(now, key),
            Step::Gained => self.gained(now, key),
            Step::Lost(loss) => self.lost(now, key, loss),
            Step::Released => self.tell(key, Signal::Released),
        }
    }

    fn gained(&mut self, now: Duration, key: &RecordKey) {
        self.dirty = true;
        let RecordKey::Lease(token) = key else {
            self.refused = false;
            self.out.push(Command::Tell(Signal::Joined));
            return;
        };
        if let Some(desk) = self.desks.get_mut(token) {
            desk.epoch = None;
            desk.work = Work::Working {
                since: now,
                recalled_at: None,
            };
        }
        self.tell(key, Signal::Gained);
    }

    fn lost(&mut self, now: Duration, key: &RecordKey, loss: Loss) {
        self.dirty = true;
        if let RecordKey::Lease(token) = key {
            if let Some(desk) = self.desks.get_mut(token) {
                desk.end(now);
            }
            self.tell(key, |token| Signal::Lost(token, loss));
        }
    }

    fn tell(&mut self, key: &RecordKey, signal: impl FnOnce(String) -> Signal) {
        if let RecordKey::Lease(token) = key {
            self.out.push(Command::Tell(signal(token.clone())));
        }
    }
}
