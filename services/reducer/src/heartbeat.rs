//! Heartbeats: answered from memory; one that proves something missed waits until it is folded.
//!
//! Recoveries go in rounds, one at a time: look how far the log reaches, fold up to there, append
//! what is still missed, fold that, answer. The first look keeps events that are on their way from
//! being recovered a second time, and one round at a time keeps two heartbeats of a host from
//! recovering the same transition twice.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_bus::{Bus, InputPublisher, Responder};
use nixfleet_core::partition::PartitionState;
use nixfleet_core::recovery::{reply, synthesise};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_proto::{Entry, Position};
use tokio::time::Instant;

/// A heartbeat that waits for its answer.
struct Waiting {
    heartbeat: OwnerHeartbeat,
    responder: Responder,
    deadline: Instant,
}

/// Where the current round is.
enum Round {
    Idle,
    /// Asking how far the input log reaches.
    Looking(Vec<Waiting>),
    /// Folding up to the end of the log as it was.
    CatchingUp(Vec<Waiting>, u64),
    /// Appending what was missed.
    Appending(Vec<Waiting>),
    /// Folding what was appended.
    Folding(Vec<Waiting>, Position),
}

/// What an asynchronous step of a round gave.
pub enum Progress {
    /// The last sequence of the input log.
    Tail(Result<u64, String>),
    /// The positions of the appended entries.
    Appended(Result<Vec<Position>, String>),
}

/// The heartbeats of one partition.
pub struct Recovery {
    bus: Bus,
    input: InputPublisher,
    partition: Partition,
    patience: Duration,
    waiting_max: usize,
    asking: Vec<Waiting>,
    round: Round,
    step: Option<BoxFuture<'static, Progress>>,
}

/// Bounds of [`Recovery`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a heartbeat may wait.
    pub time: Duration,
    /// How many may wait.
    pub waiting_max: usize,
}

impl Recovery {
    /// Nobody waits.
    pub fn new(bus: Bus, partition: Partition, patience: Patience) -> Self {
        Self {
            input: bus.input(),
            bus,
            partition,
            patience: patience.time,
            waiting_max: patience.waiting_max,
            asking: Vec::new(),
            round: Round::Idle,
            step: None,
        }
    }

    /// Answers at once when nothing was missed; else the heartbeat waits for its round.
    pub async fn ask(
        &mut self,
        state: &PartitionState,
        heartbeat: OwnerHeartbeat,
        responder: Responder,
    ) {
        let waiting = Waiting {
            heartbeat,
            responder,
            deadline: Instant::now() + self.patience,
        };
        if synthesise(state, &waiting.heartbeat).is_empty() {
            waiting.answer(state).await;
        } else if self.asking.len() < self.waiting_max {
            self.asking.push(waiting);
        } else {
            metrics::counter!("nixfleet_heartbeats_dropped_total").increment(1);
        }
        self.start();
    }

    /// Completes with the result of the step in flight; never when there is none.
    pub async fn step(&mut self) -> Progress {
        match &mut self.step {
            Some(step) => {
                let progress = step.await;
                self.step = None;
                progress
            }
            None => std::future::pending().await,
        }
    }

    /// Takes the result of a step.
    pub fn proceed(&mut self, progress: Progress) {
        let round = std::mem::replace(&mut self.round, Round::Idle);
        self.round = match (round, progress) {
            (Round::Looking(waiting), Progress::Tail(Ok(tail))) => Round::CatchingUp(waiting, tail),
            (Round::Appending(waiting), Progress::Appended(Ok(positions))) => {
                let last = positions.into_iter().max().unwrap_or_default();
                Round::Folding(waiting, last)
            }
            (round, Progress::Tail(Err(reason)) | Progress::Appended(Err(reason))) => {
                tracing::warn!(partition = %self.partition, reason, "a recovery was given up");
                drop(round);
                Round::Idle
            }
            // A step belongs to the phase that started it.
            (round, Progress::Tail(Ok(_)) | Progress::Appended(Ok(_))) => round,
        };
        self.start();
    }

    /// Goes on when the fold came far enough.
    ///
    /// `next` is the first position that is not folded.
    pub async fn folded(&mut self, state: &PartitionState, next: Position) {
        match std::mem::replace(&mut self.round, Round::Idle) {
            Round::CatchingUp(waiting, tail) if next.seq > tail => {
                self.append(state, waiting).await;
            }
            Round::Folding(waiting, last) if next > last => {
                for waiting in waiting {
                    waiting.answer(state).await;
                }
            }
            round @ (Round::Idle
            | Round::Looking(_)
            | Round::CatchingUp(..)
            | Round::Appending(_)
            | Round::Folding(..)) => self.round = round,
        }
        self.start();
    }

    async fn append(&mut self, state: &PartitionState, waiting: Vec<Waiting>) {
        let mut entries = Vec::new();
        let mut proven = Vec::new();
        let mut seen = BTreeSet::new();
        for waiting in waiting {
            let missed = synthesise(state, &waiting.heartbeat);
            if missed.is_empty() {
                waiting.answer(state).await;
                continue;
            }
            // Two heartbeats of one host prove the same; one of them is enough.
            if seen.insert(waiting.heartbeat.request.hostname.clone()) {
                let received_at = waiting.heartbeat.received_at;
                entries.extend(missed.into_iter().map(|body| Entry::new(received_at, body)));
            }
            proven.push(waiting);
        }
        if entries.is_empty() {
            return;
        }
        metrics::counter!("nixfleet_recovered_entries_total").increment(entries.len() as u64);
        let (input, partition) = (self.input.clone(), self.partition);
        self.step = Some(
            async move {
                let appended = input.append_all(partition, entries).await;
                Progress::Appended(appended.map_err(|error| error.to_string()))
            }
            .boxed(),
        );
        self.round = Round::Appending(proven);
    }

    /// Begins a round when none runs and somebody asks.
    fn start(&mut self) {
        if !matches!(self.round, Round::Idle) || self.asking.is_empty() {
            return;
        }
        self.round = Round::Looking(std::mem::take(&mut self.asking));
        let bus = self.bus.clone();
        let stream = bus.names().input_stream(self.partition);
        self.step = Some(
            async move {
                let identity = bus.stream_identity(&stream).await;
                let tail = identity.map(|identity| identity.last_seq);
                Progress::Tail(tail.map_err(|error| error.to_string()))
            }
            .boxed(),
        );
    }
}

impl Waiting {
    async fn answer(self, state: &PartitionState) {
        if Instant::now() > self.deadline {
            return;
        }
        let reply = reply(state, &self.heartbeat);
        if let Err(error) = self.responder.reply(&reply).await {
            tracing::debug!(%error, "a heartbeat stays without an answer");
        }
    }
}
