//! The state machines on JSON lines, for `nixfleet debug step` and `nixfleet debug rollout`.
//!
//! Source: docs/debug-commands.md.

use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{
    ClosureHash, HostEvent, HostRecord, OnHealthFailure, Pinned, Producer, Rejection, RolloutEvent,
    RolloutRecord, RolloutState, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::{self, HostInput, Step, StepCtx};
use crate::rollout;

/// The line is not a valid input.
#[derive(Debug, thiserror::Error)]
#[error("not a valid input: {0}")]
pub struct LineError(#[from] serde_json::Error);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StepLine {
    record: HostRecord,
    policy: Policy,
    event: Value,
    producer: LineProducer,
    received_at: Timestamp,
    side: Side,
    rollout_state: Option<RolloutState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    on_health_failure: OnHealthFailure,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineProducer {
    Agent,
    Recovery,
    Planner,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Agent,
    Control,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
enum PlannerEvent {
    SoakElapsed {},
    ConvergeUnchanged { current_closure: ClosureHash },
}

#[derive(Deserialize)]
struct RolloutLine {
    record: Option<PinnedRecord>,
    event: Value,
}

/// A rollout record together with what is pinned into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedRecord {
    /// The record.
    #[serde(flatten)]
    pub record: RolloutRecord,
    /// The terms of the rollout.
    pub pinned: Pinned,
}

#[derive(Deserialize)]
struct OpeningEvent {
    pinned: Pinned,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum StepResult<N, E> {
    Accepted { next: N, effects: Vec<E> },
    Rejected(Rejection),
}

/// Evaluates one line of `debug step`.
///
/// # Errors
/// When the line is not a valid input; a rejection is a result.
pub fn step_line(line: &str) -> Result<String, LineError> {
    let line: StepLine = serde_json::from_str(line)?;
    let ctx = StepCtx {
        on_health_failure: line.policy.on_health_failure,
        rollout_state: line.rollout_state.unwrap_or(RolloutState::Active),
        received_at: line.received_at,
    };
    match line.producer {
        LineProducer::Agent => step_event(&line, Producer::Agent, &ctx),
        LineProducer::Recovery => step_event(&line, Producer::Recovery, &ctx),
        LineProducer::Planner => match PlannerEvent::deserialize(&line.event)? {
            PlannerEvent::SoakElapsed {} => {
                step_input(&line.record, line.side, &HostInput::SoakElapsed, &ctx)
            }
            PlannerEvent::ConvergeUnchanged { current_closure } => {
                let current_closure = &current_closure;
                let input = HostInput::ConvergeUnchanged { current_closure };
                step_input(&line.record, line.side, &input, &ctx)
            }
        },
    }
}

fn step_event(line: &StepLine, producer: Producer, ctx: &StepCtx) -> Result<String, LineError> {
    let event = HostEvent::from(WireEvent::deserialize(&line.event)?);
    let event = &event;
    let input = HostInput::Event { producer, event };
    step_input(&line.record, line.side, &input, ctx)
}

fn step_input(
    record: &HostRecord,
    side: Side,
    input: &HostInput<'_>,
    ctx: &StepCtx,
) -> Result<String, LineError> {
    match side {
        Side::Control => host_result(host::step(record, input, ctx)),
        Side::Agent => host_result(host::step_agent(record, input, ctx)),
    }
}

fn host_result<E: Serialize>(step: Result<Step<E>, Rejection>) -> Result<String, LineError> {
    to_json(&match step {
        Ok(Step { next, effects }) => StepResult::Accepted { next, effects },
        Err(rejection) => StepResult::Rejected(rejection),
    })
}

/// Evaluates one line of `debug rollout`.
///
/// # Errors
/// When the line is not a valid input; a rejection is a result.
pub fn rollout_line(line: &str) -> Result<String, LineError> {
    let line: RolloutLine = serde_json::from_str(line)?;
    let event = <RolloutEvent as Deserialize>::deserialize(&line.event)?;
    let step = match line.record {
        Some(PinnedRecord { record, pinned }) => rollout::step(&record, &event).map(|step| {
            let record = step.next;
            (PinnedRecord { record, pinned }, step.effects)
        }),
        None => open(&event, &line.event)?.map(|opened| (opened, Vec::new())),
    };
    to_json(&match step {
        Ok((next, effects)) => StepResult::Accepted { next, effects },
        Err(rejection) => StepResult::Rejected(rejection),
    })
}

/// Opens a rollout; every event but `RolloutOpened` needs a record.
fn open(event: &RolloutEvent, raw: &Value) -> Result<Result<PinnedRecord, Rejection>, LineError> {
    let new = match event {
        RolloutEvent::RolloutOpened {
            rollout_id,
            channel,
            target_ref,
            at,
        } => rollout::NewRollout {
            rollout_id: rollout_id.clone(),
            channel: channel.clone(),
            target_ref: target_ref.clone(),
            opened_at: *at,
        },
        RolloutEvent::HostJoined { .. }
        | RolloutEvent::HostStateChanged { .. }
        | RolloutEvent::WaveAdvanced { .. }
        | RolloutEvent::RolloutTerminal { .. }
        | RolloutEvent::SuccessorOpened { .. }
        | RolloutEvent::RetentionExpired { .. }
        | RolloutEvent::OperatorClearance { .. } => {
            return Ok(Err(Rejection::illegal("no rollout", event.name())));
        }
    };
    let OpeningEvent { pinned } = OpeningEvent::deserialize(raw)?;
    Ok(rollout::open(new, &pinned).map(|record| PinnedRecord { record, pinned }))
}

fn to_json<T: Serialize>(result: &T) -> Result<String, LineError> {
    Ok(serde_json::to_string(result)?)
}
