//! Heartbeats: answered from memory; one that proves something missed waits until it is folded.
//!
//! Recoveries go in rounds, one at a time: look how far the log reaches, fold up to there, append
//! what is still missed, fold that, answer. The first look keeps events that are on their way from
//! being recovered a second time, and one round at a time keeps two heartbeats of a host from
//! recovering the same transition twice.

use std::collections::BTreeSet;

use nixfleet_core::partition::PartitionState;
use nixfleet_core::recovery::{derive_entries, reply};
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{Entry, Position, mutation_testing};

/// A heartbeat that waits, with whoever is to be answered.
#[derive(Debug)]
struct Waiting<W> {
    heartbeat: OwnerHeartbeat,
    waiter: W,
}

/// Where the current round is.
#[derive(Debug)]
enum Round<W> {
    Idle,
    /// Asking how far the input log reaches, which was folded up to this sequence.
    Looking(Vec<Waiting<W>>, u64),
    /// Folding up to the end of the log as it was.
    CatchingUp(Vec<Waiting<W>>, u64),
    /// Appending what was missed.
    Appending(Vec<Waiting<W>>),
    /// Folding what was appended.
    Folding(Vec<Waiting<W>>, Position),
}

/// What became of a heartbeat at once.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Asked<W> {
    /// Nothing was missed: this is the answer.
    Answer(OwnerReply, W),
    /// It waits for its round.
    Waits,
    /// Too many wait: it gets no answer and comes again.
    NoRoom(W),
}

/// What the round waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The last sequence of the input log.
    Look,
    /// Positions of these entries, appended in this order.
    Append(Vec<Entry>),
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The last sequence of the input log.
    Tail(u64),
    /// Where the entries are.
    Appended(Vec<Position>),
    /// It failed, or nobody knows. What may be in the log all the same is found by the next look.
    Failed,
}

/// The heartbeats of one partition.
#[derive(Debug)]
pub struct Recovery<W> {
    waiting_max: usize,
    /// Sequence of the last message that was folded, as far as is known here.
    folded: u64,
    asking: Vec<Waiting<W>>,
    round: Round<W>,
    step: Option<Step>,
}

impl<W> Recovery<W> {
    /// Nobody waits; at most `waiting_max` may, beside those whose round runs. `next` is the first
    /// position that is not folded.
    pub fn new(waiting_max: usize, next: Position) -> Self {
        Self {
            waiting_max,
            folded: folded_before(next),
            asking: Vec::new(),
            round: Round::Idle,
            step: None,
        }
    }

    /// Answers at once when nothing was missed; else the heartbeat waits for its round.
    pub fn ask(
        &mut self,
        state: &PartitionState,
        heartbeat: OwnerHeartbeat,
        waiter: W,
    ) -> Asked<W> {
        if derive_entries(state, &heartbeat).is_empty() {
            return Asked::Answer(reply(state, &heartbeat), waiter);
        }
        if self.asking.len() >= self.waiting_max {
            return Asked::NoRoom(waiter);
        }
        self.asking.push(Waiting { heartbeat, waiter });
        self.start();
        Asked::Waits
    }

    /// What to do now for the round; each step is said once.
    pub fn step(&mut self) -> Option<Step> {
        self.step.take()
    }

    /// Takes what came of the step. Returns those who wait in vain when the round was given up.
    pub fn proceed(&mut self, progress: Progress) -> Vec<W> {
        let round = std::mem::replace(&mut self.round, Round::Idle);
        let mut given_up = Vec::new();
        self.round = match (round, progress) {
            // A log that ends before what was folded is not the one that the state is of.
            (Round::Looking(waiting, folded), Progress::Tail(tail)) if tail >= folded => {
                Round::CatchingUp(waiting, tail)
            }
            (Round::Appending(waiting), Progress::Appended(positions)) => {
                let last = positions.into_iter().max().unwrap_or_default();
                Round::Folding(waiting, last)
            }
            (Round::Looking(waiting, _), Progress::Tail(_) | Progress::Failed)
            | (Round::Appending(waiting), Progress::Failed) => {
                given_up.extend(waiting.into_iter().map(|waiting| waiting.waiter));
                Round::Idle
            }
            // A step belongs to the phase that asked for it.
            (round, Progress::Tail(_) | Progress::Appended(_) | Progress::Failed) => round,
        };
        self.start();
        given_up
    }

    /// Goes on when the fold came far enough, and says who is answered what.
    ///
    /// `next` is the first position that is not folded.
    pub fn folded(&mut self, state: &PartitionState, next: Position) -> Vec<(OwnerReply, W)> {
        self.folded = folded_before(next);
        let mut answers = Vec::new();
        match std::mem::replace(&mut self.round, Round::Idle) {
            Round::CatchingUp(waiting, tail)
                if next.seq > tail || mutation_testing::is_active("recovery-no-look") =>
            {
                self.append(state, waiting, &mut answers);
            }
            Round::Folding(waiting, last) if next > last => {
                answers.extend(waiting.into_iter().map(|waiting| waiting.answer(state)));
            }
            round @ (Round::Idle
            | Round::Looking(..)
            | Round::CatchingUp(..)
            | Round::Appending(_)
            | Round::Folding(..)) => self.round = round,
        }
        self.start();
        answers
    }

    fn append(
        &mut self,
        state: &PartitionState,
        waiting: Vec<Waiting<W>>,
        answers: &mut Vec<(OwnerReply, W)>,
    ) {
        let mut entries = Vec::new();
        let mut proven = Vec::new();
        let mut seen = BTreeSet::new();
        for waiting in waiting {
            let missed = derive_entries(state, &waiting.heartbeat);
            if missed.is_empty() {
                answers.push(waiting.answer(state));
                continue;
            }
            // Two heartbeats of one host prove the same; one of them is enough.
            let is_first = seen.insert(waiting.heartbeat.request.hostname.clone());
            if is_first || mutation_testing::is_active("recovery-twice") {
                let received_at = waiting.heartbeat.received_at;
                entries.extend(missed.into_iter().map(|body| Entry::new(received_at, body)));
            }
            proven.push(waiting);
        }
        if !entries.is_empty() {
            self.step = Some(Step::Append(entries));
            self.round = Round::Appending(proven);
        }
    }

    /// Begins a round when none runs and somebody asks.
    fn start(&mut self) {
        if !matches!(self.round, Round::Idle) || self.asking.is_empty() {
            return;
        }
        self.round = Round::Looking(std::mem::take(&mut self.asking), self.folded);
        self.step = Some(Step::Look);
    }
}

/// Sequence of the last message of which something is folded.
fn folded_before(next: Position) -> u64 {
    next.seq.saturating_sub(u64::from(next.index == 0))
}

impl<W> Waiting<W> {
    fn answer(self, state: &PartitionState) -> (OwnerReply, W) {
        (reply(state, &self.heartbeat), self.waiter)
    }
}
