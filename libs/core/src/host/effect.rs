//! Effects of a transition, with separate types for the reducer and the agent.
//!
//! Source: docs/semantics.md, host machine, effects.

use nixfleet_proto::host::FailedControl;
use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{
    ChannelName, ClosureHash, Effect, HostRecord, HostState, ProbeName, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::HostInput;
use super::transition::{Cause, Transition};

/// Effects in the reducer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "docs/debug-commands.md, step, gives each key")]
pub enum ControlEffect {
    /// Replaces all outstanding failures of one probe.
    ReplaceProbeFailures {
        probe_name: ProbeName,
        failures: Vec<FailedControl>,
        observed_at: Timestamp,
    },
    InsertQuarantine {
        channel: ChannelName,
        closure_hash: ClosureHash,
    },
    RecordTransition {
        from: HostState,
        to: HostState,
        at: Timestamp,
    },
}

/// Effects on the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "docs/debug-commands.md, step, gives each key")]
pub enum AgentEffect {
    /// Restarts the probes.
    ResetProbeCache,
    /// Sends the event; durable means stored before sending.
    EmitEvent {
        event: WireEvent,
        durable: bool,
    },
    RecordTransition {
        from: HostState,
        to: HostState,
        at: Timestamp,
    },
    FireSwitch {
        closure_hash: ClosureHash,
    },
    /// Rolls back to the closure from before the dispatch.
    FireRollbackTo {
        closure_hash: ClosureHash,
    },
}

impl ControlEffect {
    /// The outcome effect, which names the host.
    pub fn about(self, record: &HostRecord) -> Effect {
        let rollout_id = record.rollout_id.clone();
        let hostname = record.hostname.clone();
        match self {
            Self::ReplaceProbeFailures {
                probe_name,
                failures,
                observed_at,
            } => Effect::ReplaceProbeFailures {
                rollout_id,
                hostname,
                probe_name,
                failures,
                observed_at,
            },
            Self::InsertQuarantine {
                channel,
                closure_hash,
            } => Effect::InsertQuarantine {
                channel,
                closure_hash,
            },
            Self::RecordTransition { from, to, at } => Effect::RecordTransition {
                rollout_id,
                hostname,
                from,
                to,
                at,
            },
        }
    }
}

/// Effects in the reducer: failures or quarantine, then the transition.
pub(super) fn control(record: &HostRecord, transition: &Transition) -> Vec<ControlEffect> {
    let caused = match &transition.cause {
        Cause::ProbeResult {
            probe_name,
            failures,
            ..
        } => Some(ControlEffect::ReplaceProbeFailures {
            probe_name: probe_name.clone(),
            failures: failures.clone(),
            observed_at: transition.at,
        }),
        Cause::RolledBack => Some(ControlEffect::InsertQuarantine {
            channel: record.channel.clone(),
            closure_hash: record.target_closure.clone(),
        }),
        Cause::Acknowledged | Cause::Completed | Cause::Failed { .. } => None,
        Cause::ProbeSeen { .. } | Cause::Plain => None,
    };
    let (from, to, at) = (record.state, transition.next.state, transition.at);
    let moved = (from != to).then_some(ControlEffect::RecordTransition { from, to, at });
    caused.into_iter().chain(moved).collect()
}

/// Effects on the agent: reset, event, transition, then switch or rollback. An acknowledgement records the
/// transition before it emits the event.
pub(super) fn agent(
    record: &HostRecord,
    input: &HostInput<'_>,
    transition: &Transition,
) -> Vec<AgentEffect> {
    let (from, to, at) = (record.state, transition.next.state, transition.at);
    let moved = (from != to).then_some(AgentEffect::RecordTransition { from, to, at });
    let emitted = match input {
        HostInput::Event { event, .. } => Some(AgentEffect::EmitEvent {
            event: WireEvent::from((*event).clone()),
            durable: is_durable(&transition.cause),
        }),
        // The control plane decided these: no event.
        HostInput::SoakElapsed | HostInput::ConvergeUnchanged { .. } => None,
    };
    let (first, last) = match &transition.cause {
        Cause::Acknowledged => {
            let switch = AgentEffect::FireSwitch {
                closure_hash: record.target_closure.clone(),
            };
            return moved.into_iter().chain(emitted).chain([switch]).collect();
        }
        Cause::Completed => (Some(AgentEffect::ResetProbeCache), None),
        Cause::Failed { roll_back_to } => {
            let closure = roll_back_to.clone();
            (
                None,
                closure.map(|closure_hash| AgentEffect::FireRollbackTo { closure_hash }),
            )
        }
        Cause::RolledBack | Cause::ProbeSeen { .. } => (None, None),
        Cause::ProbeResult { .. } | Cause::Plain => (None, None),
    };
    first
        .into_iter()
        .chain(emitted)
        .chain(moved)
        .chain(last)
        .collect()
}

fn is_durable(cause: &Cause) -> bool {
    match cause {
        Cause::ProbeSeen { durable } | Cause::ProbeResult { durable, .. } => *durable,
        Cause::Acknowledged | Cause::Completed | Cause::Failed { .. } => true,
        Cause::RolledBack | Cause::Plain => true,
    }
}
