//! Actions that an instance takes by itself: keeping its membership, acquiring assigned keys, handing over
//! the others, and reading keys that are silent.

use std::collections::BTreeSet;
use std::time::Duration;

use nixfleet_proto::mutation_testing;

use super::super::assignment::{Assignment, assign};
use super::super::key_machine::KeyOwner;
use super::super::record::RecordKey;
use super::super::{IDLE_GRACE, WATCH_TIMEOUT};
use super::{Command, KeySlot, LeaseCore, Phase, Signal, Work};

impl LeaseCore {
    /// All commands that are due now. Call it after every input and at [`LeaseCore::due`].
    pub fn poll(&mut self, now: Duration) -> Vec<Command> {
        self.polled_at = now;
        self.maintain_watch(now);
        self.step_all(now);
        self.join();
        self.publish_declines(now);
        self.revoke_overdue(now);
        self.rebalance(now);
        self.read_silent_keys(now);
        self.step_all(now);
        std::mem::take(&mut self.commands)
    }

    /// Time at which [`LeaseCore::poll`] acts without an input; everything due at the last poll is done.
    /// `None` when nothing is scheduled.
    pub fn due(&self) -> Option<Duration> {
        if self.dirty || !self.commands.is_empty() {
            return Some(self.polled_at);
        }
        let slots = self.slots.values().flat_map(|slot| self.slot_due(slot));
        let timers = slots.chain(self.member.due()).chain(self.watch_due());
        let silent = self.cache.next_silent(self.timing.ttl).map(|(at, _)| at);
        let silent = silent.filter(|_| self.watch.is_current);
        timers.chain(silent).filter(|at| *at > self.polled_at).min()
    }

    fn slot_due(&self, slot: &KeySlot) -> impl Iterator<Item = Duration> {
        let work = match slot.work {
            Work::Idle { since } => Some(since + IDLE_GRACE),
            Work::Waiting => Some(slot.backoff_until),
            Work::Working { recalled_at, .. } => recalled_at.map(|at| at + self.timing.hand_over),
        };
        slot.machine.due().into_iter().chain(work)
    }

    fn watch_due(&self) -> Option<Duration> {
        let watch = &self.watch;
        if self.phase == Phase::Stopping {
            return None;
        }
        let opening = (!watch.is_current).then_some(watch.opened_at + WATCH_TIMEOUT);
        let unconfirmed_write = watch
            .unconfirmed_write
            .map(|(_, since)| since + WATCH_TIMEOUT);
        watch.reopen_at.or(opening).or(unconfirmed_write)
    }

    /// Opens the watch when it ended, does not catch up, or does not show an own write.
    fn maintain_watch(&mut self, now: Duration) {
        if self.watch_due().is_none_or(|due| now < due) {
            return;
        }
        self.watch = super::Watch {
            opened_at: now,
            is_current: false,
            unconfirmed_write: None,
            reopen_at: None,
        };
        self.cache.mark_unconfirmed();
        self.commands.push(Command::Watch);
    }

    fn step_all(&mut self, now: Duration) {
        let keys = self.keys.iter().cloned().map(RecordKey::Lease);
        let keys: Vec<_> = keys
            .chain([RecordKey::Member(self.token.clone())])
            .collect();
        for key in keys {
            loop {
                let next = self.next_ticket + 1;
                let step = self
                    .machine(&key)
                    .and_then(|machine| machine.step(now, next, next));
                if step.is_none() {
                    break;
                }
                self.apply_step(now, &key, step);
            }
        }
    }

    /// Becomes a member as soon as no other process has the name.
    fn join(&mut self) {
        if self.phase == Phase::Stopping || !self.member.is_idle() {
            return;
        }
        let key = RecordKey::Member(self.token.clone());
        match self.cache.owner(&key, &self.me.writer) {
            KeyOwner::Free | KeyOwner::Own(_) => self.member.acquire(self.cache.revision(&key)),
            KeyOwner::Other if !self.is_name_taken => {
                self.is_name_taken = true;
                self.dirty = true;
                let other = self.cache.writer(&key).cloned();
                self.commands
                    .push(Command::Signal(Signal::NameTaken(other)));
            }
            KeyOwner::Other => {}
        }
    }

    fn publish_declines(&mut self, now: Duration) {
        let declines: BTreeSet<String> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.declines(now))
            .map(|(key, _)| key.clone())
            .collect();
        if declines != self.published_declines {
            self.published_declines = declines;
            self.member.renew_now(now);
            self.dirty = true;
        }
    }

    fn revoke_overdue(&mut self, now: Duration) {
        for key in self.keys.clone() {
            let Some(slot) = self.slots.get_mut(&key) else {
                continue;
            };
            let Work::Working {
                recalled_at: Some(at),
                ..
            } = slot.work
            else {
                continue;
            };
            if now >= at + self.timing.hand_over {
                let step = slot.machine.revoke(now);
                self.apply_step(now, &RecordKey::Lease(key), step);
            }
        }
    }

    pub(super) fn assignment(&self) -> Assignment {
        let mut members = self.cache.members();
        if self.is_candidate() {
            members.insert(self.token.clone(), self.published_declines.clone());
        } else if self.phase == Phase::Stopping {
            members.remove(&self.token);
        }
        assign(&self.keys, &members, &self.cache.holders())
    }

    fn is_candidate(&self) -> bool {
        self.phase == Phase::Running && !self.is_name_taken
    }

    /// Acquires assigned keys that are free and recalls keys that are not assigned here.
    fn rebalance(&mut self, now: Duration) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if self.phase == Phase::Running && !self.watch.is_current {
            return;
        }
        let target = self.assignment();
        for key in self.keys.clone() {
            let is_mine = self.is_candidate() && target.get(&key) == Some(&self.token);
            self.rebalance_key(now, key, is_mine);
        }
    }

    fn rebalance_key(&mut self, now: Duration, key: String, is_mine: bool) {
        let record = RecordKey::Lease(key.clone());
        let (revision, seen) = self.view(&record);
        let is_member = self.member.is_held(now);
        let is_stopping = self.phase == Phase::Stopping;
        let Some(slot) = self.slots.get_mut(&key) else {
            return;
        };
        match &mut slot.work {
            Work::Working { recalled_at, .. } => {
                if !is_mine && recalled_at.is_none() {
                    *recalled_at = Some(now);
                    self.commands.push(Command::Signal(Signal::Recalled(key)));
                }
            }
            Work::Waiting if is_stopping => slot.machine.cancel(now),
            Work::Waiting | Work::Idle { .. } if matches!(seen, KeyOwner::Own(_)) => {
                // A record of a write that was given up; no worker holds it.
                if !is_stopping {
                    slot.machine.release_stray(now, revision);
                }
            }
            Work::Waiting if is_mine && is_member => {
                let is_free =
                    seen == KeyOwner::Free || mutation_testing::is_active("lease-takes-held");
                if is_free {
                    slot.machine.acquire(revision);
                }
            }
            Work::Waiting | Work::Idle { .. } => {}
        }
    }

    /// Reads keys without a sign for longer than their time to live: the watch may have missed their
    /// expiry.
    fn read_silent_keys(&mut self, now: Duration) {
        if !self.watch.is_current {
            return;
        }
        while let Some((at, key)) = self.cache.next_silent(self.timing.ttl) {
            if at > now {
                return;
            }
            let is_ours = self.machine(&key).is_some_and(|machine| !machine.is_idle());
            if is_ours {
                self.cache.mark_read(now, &key);
            } else {
                self.read(now, &key);
            }
        }
    }
}

impl KeySlot {
    fn declines(&self, now: Duration) -> bool {
        match self.work {
            Work::Idle { since } => now >= since + IDLE_GRACE,
            Work::Waiting => now < self.backoff_until,
            Work::Working { .. } => false,
        }
    }
}
