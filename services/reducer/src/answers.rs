//! Driving recoveries: looks, appends and answers for [`Recovery`].

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_bus::{Bus, InputPublisher, Responder};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::Position;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_reducer::{Asked, Progress, Recovery, Step};
use tokio::time::Instant;

/// Whoever is to be answered, while he listens.
struct Waiter {
    responder: Responder,
    deadline: Instant,
}

/// The heartbeats of one partition.
pub struct Answers {
    bus: Bus,
    input: InputPublisher,
    partition: Partition,
    patience: Duration,
    recovery: Recovery<Waiter>,
    step: Option<BoxFuture<'static, Progress>>,
}

/// Bounds of [`Answers`].
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a heartbeat may wait.
    pub time: Duration,
    /// How many may wait.
    pub waiting_max: usize,
}

impl Answers {
    /// Nobody waits; `next` is the first position that is not folded.
    pub fn new(bus: Bus, (partition, next): (Partition, Position), patience: Patience) -> Self {
        Self {
            input: bus.input(),
            bus,
            partition,
            patience: patience.time,
            recovery: Recovery::new(patience.waiting_max, next),
            step: None,
        }
    }

    /// Answers at once or later.
    pub async fn ask(
        &mut self,
        state: &PartitionState,
        heartbeat: OwnerHeartbeat,
        responder: Responder,
    ) {
        let deadline = Instant::now() + self.patience;
        let waiter = Waiter {
            responder,
            deadline,
        };
        match self.recovery.ask(state, heartbeat, waiter) {
            Asked::Answer(reply, waiter) => waiter.answer(&reply).await,
            Asked::Waits => self.start(),
            Asked::NoRoom(_) => {
                metrics::counter!("nixfleet_heartbeats_dropped_total").increment(1);
            }
        }
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
        let given_up = self.recovery.proceed(progress).len();
        if given_up > 0 {
            tracing::warn!(partition = %self.partition, heartbeats = given_up,
                "a recovery was given up");
        }
        self.start();
    }

    /// Goes on when the fold came far enough.
    pub async fn folded(&mut self, state: &PartitionState, next: Position) {
        for (reply, waiter) in self.recovery.folded(state, next) {
            waiter.answer(&reply).await;
        }
        self.start();
    }

    fn start(&mut self) {
        match self.recovery.step() {
            Some(Step::Look) => self.step = Some(look(self.bus.clone(), self.partition).boxed()),
            Some(Step::Append(entries)) => {
                metrics::counter!("nixfleet_recovered_entries_total")
                    .increment(entries.len() as u64);
                let (input, partition) = (self.input.clone(), self.partition);
                let append = async move {
                    match input.append_all(partition, entries).await {
                        Ok(positions) => Progress::Appended(positions),
                        Err(error) => failed(partition, &error),
                    }
                };
                self.step = Some(append.boxed());
            }
            None => {}
        }
    }
}

async fn look(bus: Bus, partition: Partition) -> Progress {
    let stream = bus.names().input_stream(partition);
    match bus.stream_identity(&stream).await {
        Ok(identity) => Progress::Tail(identity.last_seq),
        Err(error) => failed(partition, &error),
    }
}

fn failed(partition: Partition, error: &dyn std::fmt::Display) -> Progress {
    tracing::warn!(%partition, %error, "a recovery cannot go on");
    Progress::Failed
}

impl Waiter {
    async fn answer(self, reply: &OwnerReply) {
        if Instant::now() > self.deadline {
            return;
        }
        if let Err(error) = self.responder.reply(reply).await {
            tracing::debug!(%error, "a heartbeat stays without an answer");
        }
    }
}
