//! What an instance does by itself: keeps its membership, takes its share, hands over the rest,
//! mistrusts silence.

use std::collections::BTreeSet;
use std::time::Duration;

use nixfleet_proto::mutation_testing;

use super::super::assign::{Placement, assign};
use super::super::holding::Seen;
use super::super::record::RecordKey;
use super::super::{IDLE_GRACE, WATCH_TIMEOUT};
use super::{Command, Desk, LeaseCore, Phase, Signal, Work};

impl LeaseCore {
    /// Everything that is to be done now. Call it after every input and when [`LeaseCore::due`]
    /// has come.
    pub fn poll(&mut self, now: Duration) -> Vec<Command> {
        self.polled_at = now;
        self.look_after_watch(now);
        self.step_all(now);
        self.join();
        self.declare(now);
        self.end_overdue(now);
        self.share_out(now);
        self.sweep(now);
        self.step_all(now);
        std::mem::take(&mut self.out)
    }

    /// When [`LeaseCore::poll`] has something to do without any input; what was due at the last
    /// poll is done. Absent when nothing will ever be due.
    pub fn due(&self) -> Option<Duration> {
        if self.dirty || !self.out.is_empty() {
            return Some(self.polled_at);
        }
        let desks = self.desks.values().flat_map(|desk| self.desk_due(desk));
        let timers = desks.chain(self.member.due()).chain(self.watch_due());
        let silent = self.roster.silent_at(self.timing.ttl).map(|(at, _)| at);
        let silent = silent.filter(|_| self.watch.is_current);
        timers.chain(silent).filter(|at| *at > self.polled_at).min()
    }

    fn desk_due(&self, desk: &Desk) -> impl Iterator<Item = Duration> {
        let work = match desk.work {
            Work::Idle { since } => Some(since + IDLE_GRACE),
            Work::Waiting => Some(desk.back_at),
            Work::Working { recalled_at, .. } => recalled_at.map(|at| at + self.timing.hand_over),
        };
        desk.holding.due().into_iter().chain(work)
    }

    fn watch_due(&self) -> Option<Duration> {
        let watch = &self.watch;
        if self.phase == Phase::Stopping {
            return None;
        }
        let opening = (!watch.is_current).then_some(watch.opened_at + WATCH_TIMEOUT);
        let unseen = watch.unseen.map(|(_, since)| since + WATCH_TIMEOUT);
        watch.reopen_at.or(opening).or(unseen)
    }

    /// Opens the watch when it ended, does not catch up, or does not show what we wrote.
    fn look_after_watch(&mut self, now: Duration) {
        if self.watch_due().is_none_or(|due| now < due) {
            return;
        }
        self.watch = super::Watch {
            opened_at: now,
            is_current: false,
            unseen: None,
            reopen_at: None,
        };
        self.roster.doubt();
        self.out.push(Command::Watch);
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
                    .holding(&key)
                    .and_then(|holding| holding.step(now, next, next));
                if step.is_none() {
                    break;
                }
                self.take_step(now, &key, step);
            }
        }
    }

    /// Becomes a member as soon as nobody else has the name.
    fn join(&mut self) {
        if self.phase == Phase::Stopping || !self.member.is_away() {
            return;
        }
        let key = RecordKey::Member(self.token.clone());
        match self.roster.seen(&key, &self.me.writer) {
            Seen::Gone | Seen::Mine(_) => self.member.take(self.roster.revision(&key)),
            Seen::Other if !self.refused => {
                self.refused = true;
                self.dirty = true;
                let other = self.roster.writer(&key).cloned();
                self.out.push(Command::Tell(Signal::Refused(other)));
            }
            Seen::Other => {}
        }
    }

    /// Publishes the keys nobody here wants, so that others take them.
    fn declare(&mut self, now: Duration) {
        let declines: BTreeSet<String> = self
            .desks
            .iter()
            .filter(|(_, desk)| desk.declines(now))
            .map(|(key, _)| key.clone())
            .collect();
        if declines != self.declared {
            self.declared = declines;
            self.member.renew_now(now);
            self.dirty = true;
        }
    }

    /// Work that does not end although its key was asked back loses the key.
    fn end_overdue(&mut self, now: Duration) {
        for key in self.keys.clone() {
            let Some(desk) = self.desks.get_mut(&key) else {
                continue;
            };
            let Work::Working {
                recalled_at: Some(at),
                ..
            } = desk.work
            else {
                continue;
            };
            if now >= at + self.timing.hand_over {
                let step = desk.holding.overdue(now);
                self.take_step(now, &RecordKey::Lease(key), step);
            }
        }
    }

    /// Who should hold which key, by what is known here.
    pub(super) fn assignment(&self) -> Placement {
        let mut members = self.roster.members();
        if self.is_candidate() {
            members.insert(self.token.clone(), self.declared.clone());
        } else if self.phase == Phase::Stopping {
            members.remove(&self.token);
        }
        assign(&self.keys, &members, &self.roster.holders())
    }

    fn is_candidate(&self) -> bool {
        self.phase == Phase::Running && !self.refused
    }

    /// Takes free keys of our share and asks back what is not part of it.
    fn share_out(&mut self, now: Duration) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if self.phase == Phase::Running && !self.watch.is_current {
            return;
        }
        let target = self.assignment();
        for key in self.keys.clone() {
            let is_mine = self.is_candidate() && target.get(&key) == Some(&self.token);
            self.settle_desk(now, key, is_mine);
        }
    }

    fn settle_desk(&mut self, now: Duration, key: String, is_mine: bool) {
        let record = RecordKey::Lease(key.clone());
        let (revision, seen) = self.view(&record);
        let is_member = self.member.is_held(now);
        let is_stopping = self.phase == Phase::Stopping;
        let Some(desk) = self.desks.get_mut(&key) else {
            return;
        };
        match &mut desk.work {
            Work::Working { recalled_at, .. } => {
                if !is_mine && recalled_at.is_none() {
                    *recalled_at = Some(now);
                    self.out.push(Command::Tell(Signal::Recalled(key)));
                }
            }
            Work::Waiting if is_stopping => desk.holding.stand_back(now),
            Work::Waiting | Work::Idle { .. } if matches!(seen, Seen::Mine(_)) => {
                // Left over from a write that was given up: nobody works under it.
                if !is_stopping {
                    desk.holding.drop_stray(now, revision);
                }
            }
            Work::Waiting if is_mine && is_member => {
                let is_free = seen == Seen::Gone || mutation_testing::is_active("lease-takes-held");
                if is_free {
                    desk.holding.take(revision);
                }
            }
            Work::Waiting | Work::Idle { .. } => {}
        }
    }

    /// Asks for keys that have been silent for longer than their time to live: the watch may have
    /// missed their end.
    fn sweep(&mut self, now: Duration) {
        if !self.watch.is_current {
            return;
        }
        while let Some((at, key)) = self.roster.silent_at(self.timing.ttl) {
            if at > now {
                return;
            }
            let is_ours = self.holding(&key).is_some_and(|holding| !holding.is_away());
            if is_ours {
                self.roster.asked(now, &key);
            } else {
                self.read(now, &key);
            }
        }
    }
}

impl Desk {
    /// True while this instance does not want the key.
    fn declines(&self, now: Duration) -> bool {
        match self.work {
            Work::Idle { since } => now >= since + IDLE_GRACE,
            Work::Waiting => now < self.back_at,
            Work::Working { .. } => false,
        }
    }
}
