//! Heartbeats: answered from the state in memory. A heartbeat that proves a missed transition waits
//! until the transition is folded.
//!
//! Recoveries run in rounds, one at a time: read the tail of the input log, fold up to it, append
//! the transitions that are still missed, fold them, answer. Reading the tail first keeps events
//! that are on their way from being recovered a second time. One round at a time keeps two
//! heartbeats of a host from recovering the same transition twice.

use std::collections::BTreeSet;

use nixfleet_core::heartbeat_recovery::{derive_entries, reply};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{EntryBody, Position, mutation_testing};

/// A heartbeat without an answer, with the caller that waits for it.
#[derive(Debug)]
struct PendingHeartbeat<W> {
    heartbeat: OwnerHeartbeat,
    waiter: W,
}

/// State of the current round.
#[derive(Debug)]
enum Round<W> {
    Idle,
    /// Reading the last sequence of the input log, which is folded up to this sequence.
    ReadingTail(Vec<PendingHeartbeat<W>>, u64),
    /// Folding up to the tail that was read.
    CatchingUp(Vec<PendingHeartbeat<W>>, u64),
    /// Appending the missed transitions.
    Appending(Vec<PendingHeartbeat<W>>),
    /// Folding the appended entries.
    Folding(Vec<PendingHeartbeat<W>>, Position),
}

/// Decision about a heartbeat at its arrival.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum HeartbeatDecision<W> {
    /// No transition was missed: this is the answer.
    Answer(OwnerReply, W),
    /// The heartbeat waits for the next round.
    Queued,
    /// The queue is full: the heartbeat gets no answer, and the host sends another one.
    QueueFull(W),
}

/// The operation that the round waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryStep {
    /// The last sequence of the input log.
    ReadTail,
    /// Stamp these entries, append them in this order and report their positions.
    Append(Vec<EntryBody>),
}

/// Result of a [`RecoveryStep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// The last sequence of the input log.
    Tail(u64),
    /// Positions of the appended entries.
    Appended(Vec<Position>),
    /// The operation failed or its result is unknown. The next read of the tail covers entries that
    /// were appended all the same.
    Failed,
}

/// The heartbeats of one partition.
#[derive(Debug)]
pub struct Recovery<W> {
    waiting_max: usize,
    /// Sequence of the last folded message as of the last [`Recovery::advance`].
    folded: u64,
    asking: Vec<PendingHeartbeat<W>>,
    round: Round<W>,
    step: Option<RecoveryStep>,
}

impl<W> Recovery<W> {
    /// Creates a recovery that queues at most `waiting_max` heartbeats beside those of the running
    /// round. `next` is the first position that is not folded.
    pub fn new(waiting_max: usize, next: Position) -> Self {
        Self {
            waiting_max,
            folded: folded_before(next),
            asking: Vec::new(),
            round: Round::Idle,
            step: None,
        }
    }

    /// Answers at once when no transition was missed; otherwise queues the heartbeat.
    pub fn receive(
        &mut self,
        state: &PartitionState,
        heartbeat: OwnerHeartbeat,
        waiter: W,
    ) -> HeartbeatDecision<W> {
        if derive_entries(state, &heartbeat).is_empty() {
            return HeartbeatDecision::Answer(reply(state, &heartbeat), waiter);
        }
        if self.asking.len() >= self.waiting_max {
            return HeartbeatDecision::QueueFull(waiter);
        }
        self.asking.push(PendingHeartbeat { heartbeat, waiter });
        self.start();
        HeartbeatDecision::Queued
    }

    /// The operation to run now; each is returned once.
    pub fn step(&mut self) -> Option<RecoveryStep> {
        self.step.take()
    }

    /// Takes the result of the step. Returns the callers of a round that was given up.
    pub fn step_done(&mut self, progress: StepResult) -> Vec<W> {
        let round = std::mem::replace(&mut self.round, Round::Idle);
        let mut given_up = Vec::new();
        self.round = match (round, progress) {
            // A log that ends before the folded sequence is not the log of this state.
            (Round::ReadingTail(waiting, folded), StepResult::Tail(tail)) if tail >= folded => {
                Round::CatchingUp(waiting, tail)
            }
            (Round::Appending(waiting), StepResult::Appended(positions)) => {
                let last = positions.into_iter().max().unwrap_or_default();
                Round::Folding(waiting, last)
            }
            (Round::ReadingTail(waiting, _), StepResult::Tail(_) | StepResult::Failed)
            | (Round::Appending(waiting), StepResult::Failed) => {
                given_up.extend(waiting.into_iter().map(|waiting| waiting.waiter));
                Round::Idle
            }
            // A result belongs to the phase that asked for it.
            (round, StepResult::Tail(_) | StepResult::Appended(_) | StepResult::Failed) => round,
        };
        self.start();
        given_up
    }

    /// Continues the round if the fold is far enough, and returns the answers that are due.
    ///
    /// `next` is the first position that is not folded.
    pub fn advance(&mut self, state: &PartitionState, next: Position) -> Vec<(OwnerReply, W)> {
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
            | Round::ReadingTail(..)
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
        waiting: Vec<PendingHeartbeat<W>>,
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
            // Two heartbeats of one host prove the same transitions; one of them is enough.
            let is_first = seen.insert(waiting.heartbeat.request.hostname.clone());
            if is_first || mutation_testing::is_active("recovery-twice") {
                entries.extend(missed);
            }
            proven.push(waiting);
        }
        if !entries.is_empty() {
            self.step = Some(RecoveryStep::Append(entries));
            self.round = Round::Appending(proven);
        }
    }

    /// Starts a round when none runs and heartbeats are queued.
    fn start(&mut self) {
        if !matches!(self.round, Round::Idle) || self.asking.is_empty() {
            return;
        }
        self.round = Round::ReadingTail(std::mem::take(&mut self.asking), self.folded);
        self.step = Some(RecoveryStep::ReadTail);
    }
}

/// Sequence of the last message that is folded at least in part.
fn folded_before(next: Position) -> u64 {
    next.seq.saturating_sub(u64::from(next.index == 0))
}

impl<W> PendingHeartbeat<W> {
    fn answer(self, state: &PartitionState) -> (OwnerReply, W) {
        (reply(state, &self.heartbeat), self.waiter)
    }
}
