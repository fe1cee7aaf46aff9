//! Heartbeats of a live owner, and the transitions that they prove: asks the real [`Recovery`] for its next step
//! and appends its entries.

use std::time::Duration;

use nixfleet_proto::wire::{OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{Entry, Position};
use nixfleet_reducer::{HeartbeatDecision, RecoveryStep, StepResult};

use super::{AppendTicket, LiveOwner, OwnerContext, PendingAppends, Waiter};
use crate::addressing::{Caller, Route};
use crate::simulated_servers::{LogId, ServerRequest};

/// How long a heartbeat may wait.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

impl LiveOwner {
    /// Processes a heartbeat.
    pub fn heartbeat(
        &mut self,
        heartbeat: OwnerHeartbeat,
        asked: Caller,
        context: &mut OwnerContext<'_>,
    ) {
        let waiter = Waiter {
            caller: asked,
            deadline: context.env.now + HEARTBEAT_TIMEOUT,
        };
        match self.recovery.receive(self.owner.state(), heartbeat, waiter) {
            HeartbeatDecision::Answer(reply, waiter) => answer(reply, waiter, context),
            HeartbeatDecision::Queued => self.proceed(context),
            HeartbeatDecision::QueueFull(_) => {}
        }
    }

    /// Processes the result of an append of the recovery.
    pub fn appended(
        &mut self,
        ticket: AppendTicket,
        position: Option<Position>,
        context: &mut OwnerContext<'_>,
    ) {
        if ticket.ownership != self.number {
            return;
        }
        let Some(appending) = &mut self.appending else {
            return;
        };
        let progress = match position {
            None => StepResult::Failed,
            Some(position) => {
                appending.remaining -= 1;
                appending.positions.push(position);
                if appending.remaining > 0 {
                    return;
                }
                StepResult::Appended(std::mem::take(&mut appending.positions))
            }
        };
        self.appending = None;
        self.recovery.step_done(progress);
        self.proceed(context);
    }

    /// Answers the heartbeats that are decided, and begins the next step of the recovery.
    pub(super) fn recover(&mut self, context: &mut OwnerContext<'_>) {
        for (reply, waiter) in self.recovery.advance(self.owner.state(), self.owner.next()) {
            answer(reply, waiter, context);
        }
        match self.recovery.step() {
            Some(RecoveryStep::ReadTail) => {
                let request = ServerRequest::Identity(LogId::Input(self.partition));
                let call = context
                    .env
                    .call(context.me, Route::Work(self.partition), request);
                self.tail_call = Some(call);
            }
            Some(RecoveryStep::Append(bodies)) => {
                let wall = context.env.wall(context.me);
                let entries: Vec<_> = bodies
                    .into_iter()
                    .map(|body| Entry::new(wall, body))
                    .collect();
                let name = context.ids.process();
                let round = (self.partition, self.tail_seq);
                context.env.invariants.recovers(name, round, &entries);
                self.appending = Some(PendingAppends {
                    remaining: entries.len(),
                    positions: Vec::new(),
                });
                for entry in entries {
                    let ticket = AppendTicket {
                        ownership: self.number,
                    };
                    let entry = (std::slice::from_ref(&entry), ticket);
                    context
                        .publisher
                        .push(self.partition, entry, context.me, context.env);
                }
            }
            None => {}
        }
    }
}

fn answer(reply: OwnerReply, waiter: Waiter, context: &mut OwnerContext<'_>) {
    if context.env.now <= waiter.deadline {
        let request = ServerRequest::AnswerOwner(waiter.caller, Box::new(reply));
        context.env.send_without_reply(context.me, request);
    }
}
