//! Answers heartbeats: performs the steps of [`Recovery`] against the bus.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_bus::{Bus, InputPublisher, Responder};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{Entry, Position};
use nixfleet_reducer::{HeartbeatDecision, Recovery, RecoveryStep, StepResult};
use tokio::time::Instant;

/// Responder of a heartbeat with its deadline.
struct Caller {
    responder: Responder,
    deadline: Instant,
}

/// Responder to the heartbeats of one partition.
pub struct HeartbeatResponder {
    bus: Bus,
    input: InputPublisher,
    partition: Partition,
    timeout: Duration,
    recovery: Recovery<Caller>,
    step: Option<BoxFuture<'static, StepResult>>,
}

#[derive(Debug, Clone, Copy)]
pub struct HeartbeatLimits {
    pub timeout: Duration,
    pub waiting_max: usize,
}

impl HeartbeatResponder {
    /// Creates a responder; `next` is the first position that is not folded.
    pub fn new(
        bus: Bus,
        (partition, next): (Partition, Position),
        limits: HeartbeatLimits,
    ) -> Self {
        Self {
            input: bus.input(),
            bus,
            partition,
            timeout: limits.timeout,
            recovery: Recovery::new(limits.waiting_max, next),
            step: None,
        }
    }

    /// HeartbeatResponder at once or later.
    pub async fn receive(
        &mut self,
        state: &PartitionState,
        heartbeat: OwnerHeartbeat,
        responder: Responder,
    ) {
        let deadline = Instant::now() + self.timeout;
        let caller = Caller {
            responder,
            deadline,
        };
        match self.recovery.receive(state, heartbeat, caller) {
            HeartbeatDecision::Answer(reply, waiter) => waiter.answer(&reply).await,
            HeartbeatDecision::Queued => self.start(),
            HeartbeatDecision::QueueFull(_) => {
                metrics::counter!("nixfleet_heartbeats_dropped_total").increment(1);
            }
        }
    }

    /// Completes with the result of the step in flight; never completes without one.
    pub async fn step(&mut self) -> StepResult {
        match &mut self.step {
            Some(step) => {
                let result = step.await;
                self.step = None;
                result
            }
            None => std::future::pending().await,
        }
    }

    /// Takes the result of a step and starts the next.
    pub fn step_done(&mut self, result: StepResult) {
        let given_up = self.recovery.step_done(result).len();
        if given_up > 0 {
            tracing::warn!(partition = %self.partition, heartbeats = given_up,
                "a recovery was given up; the hosts report again with their next heartbeat");
        }
        self.start();
    }

    /// Sends the answers that are due after the fold advanced.
    pub async fn advance(&mut self, state: &PartitionState, next: Position) {
        for (reply, waiter) in self.recovery.advance(state, next) {
            waiter.answer(&reply).await;
        }
        self.start();
    }

    fn start(&mut self) {
        match self.recovery.step() {
            Some(RecoveryStep::ReadTail) => {
                self.step = Some(read_tail(self.bus.clone(), self.partition).boxed())
            }
            Some(RecoveryStep::Append(bodies)) => {
                metrics::counter!("nixfleet_recovered_entries_total")
                    .increment(bodies.len() as u64);
                let (input, partition) = (self.input.clone(), self.partition);
                let now = input.now();
                let entries = bodies
                    .into_iter()
                    .map(|body| Entry::new(now, body))
                    .collect();
                let append = async move {
                    match input.append_all(partition, entries).await {
                        Ok(positions) => StepResult::Appended(positions),
                        Err(error) => failed(partition, &error),
                    }
                };
                self.step = Some(append.boxed());
            }
            None => {}
        }
    }
}

async fn read_tail(bus: Bus, partition: Partition) -> StepResult {
    let stream = bus.names().input_stream(partition);
    match bus.stream_identity(&stream).await {
        Ok(identity) => StepResult::Tail(identity.last_seq),
        Err(error) => failed(partition, &error),
    }
}

fn failed(partition: Partition, error: &dyn std::fmt::Display) -> StepResult {
    tracing::warn!(%partition, %error, "a recovery step failed");
    StepResult::Failed
}

impl Caller {
    async fn answer(self, reply: &OwnerReply) {
        if Instant::now() > self.deadline {
            return;
        }
        if let Err(error) = self.responder.reply(reply).await {
            tracing::debug!(%error, "a heartbeat answer was not sent");
        }
    }
}
