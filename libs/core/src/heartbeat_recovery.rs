//! Recovery from heartbeats: the missed transitions that a heartbeat proves, and the reply.
//!
//! Source: docs/semantics.md, heartbeats and recovery.

use nixfleet_proto::bounds::BOOTSTRAP_ROLLOUTS_MAX;
use nixfleet_proto::wire::{HeartbeatReply, HostSnapshot, OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{
    ClosureHash, EntryBody, HostEvent, HostEventBody, HostState, Hostname, Producer, RolloutState,
    Timestamp,
};

use crate::partition::{PartitionState, Rollout, RolloutHost};

/// The entries for transitions that the heartbeat proves and the log lacks.
///
/// They are legal on `state`; once they are folded, the same heartbeat yields none.
pub fn derive_entries(state: &PartitionState, heartbeat: &OwnerHeartbeat) -> Vec<EntryBody> {
    let request = &heartbeat.request;
    let Some(current_closure) = &request.current_closure else {
        return Vec::new();
    };
    let proof = Proof {
        current_closure,
        at: request.at,
    };
    records_of(state, &request.hostname)
        .filter_map(|(rollout, host)| missed_transition(rollout, host, &proof))
        .collect()
}

/// The reply to a heartbeat.
pub fn reply(state: &PartitionState, heartbeat: &OwnerHeartbeat) -> OwnerReply {
    let request = &heartbeat.request;
    let bootstrap_rollouts = match &request.rollout_id {
        Some(_) => Vec::new(),
        None => open_records(state, &request.hostname),
    };
    OwnerReply {
        reply: HeartbeatReply {
            received_at: request.at,
            bootstrap_rollouts,
        },
        replay_from: replay_from(state, heartbeat),
    }
}

/// The open records of a host, the newest ones if there are more than a reply may hold.
fn open_records(state: &PartitionState, hostname: &Hostname) -> Vec<HostSnapshot> {
    let mut records: Vec<HostSnapshot> = records_of(state, hostname)
        .filter(|(rollout, host)| is_open(rollout, host))
        .map(|(_, host)| HostSnapshot::from(&*host.record))
        .collect();
    if records.len() > BOOTSTRAP_ROLLOUTS_MAX {
        records.sort_by_key(|record| std::cmp::Reverse(record.dispatched_at));
        records.truncate(BOOTSTRAP_ROLLOUTS_MAX);
    }
    records
}

/// The last accepted sequence, when the host runs another closure than its record has.
fn replay_from(state: &PartitionState, heartbeat: &OwnerHeartbeat) -> Option<u64> {
    let request = &heartbeat.request;
    let rollout = state.rollout(request.rollout_id.as_ref()?)?;
    let current_closure = request.current_closure.as_ref()?;
    let record = &rollout.hosts.get(&request.hostname)?.record;
    let differs = record.current_closure.as_ref() != Some(current_closure);
    differs.then_some(record.last_event_seq)
}

fn records_of<'a>(
    state: &'a PartitionState,
    hostname: &'a Hostname,
) -> impl Iterator<Item = (&'a Rollout, &'a RolloutHost)> {
    state
        .rollouts()
        .values()
        .filter(|rollout| rollout.record.state != RolloutState::Pruned)
        .filter_map(|rollout| Some((rollout, rollout.hosts.get(hostname)?)))
}

/// True for an open record, except a Pending one of a superseded rollout.
fn is_open(rollout: &Rollout, host: &RolloutHost) -> bool {
    let closed =
        rollout.record.state == RolloutState::Superseded && host.record.state == HostState::Pending;
    host.record.state.is_open() && !closed
}

struct Proof<'a> {
    current_closure: &'a ClosureHash,
    at: Timestamp,
}

impl Proof<'_> {
    /// True when the heartbeat was sent after the activation or rollback began: an older one, delayed or
    /// repeated, proves nothing. Both times are of the host's clock.
    fn follows(&self, began: Option<Timestamp>) -> bool {
        began.is_none_or(|began| self.at >= began)
    }
}

fn missed_transition(
    rollout: &Rollout,
    host: &RolloutHost,
    proof: &Proof<'_>,
) -> Option<EntryBody> {
    let record = &host.record;
    let on_target = *proof.current_closure == record.target_closure;
    let body = match record.state {
        HostState::Activating | HostState::Deferred
            if on_target && proof.follows(record.dispatch_acked_at) =>
        {
            HostEventBody::ActivationCompleted {
                observed_current_closure: proof.current_closure.clone(),
                exit_code: 0,
                completed_at: proof.at,
            }
        }
        HostState::Failed
            if !on_target
                && proof.follows(record.failed_at)
                && record.current_closure_at_dispatch.as_ref() == Some(proof.current_closure) =>
        {
            HostEventBody::RollbackComplete {
                reverted_to_closure: proof.current_closure.clone(),
                exit_code: 0,
                completed_at: proof.at,
            }
        }
        HostState::Pending => return candidate(rollout, host, proof),
        HostState::Activating | HostState::Deferred | HostState::Failed => return None,
        HostState::Soaking | HostState::Converged | HostState::Reverted => return None,
    };
    Some(EntryBody::HostEvent {
        rollout_id: record.rollout_id.clone(),
        hostname: record.hostname.clone(),
        producer: Producer::Recovery,
        event: HostEvent {
            seq: record.recovery_seq.saturating_add(1),
            body,
        },
    })
}

/// The entry for a Pending host that starts or stops running its target.
fn candidate(rollout: &Rollout, host: &RolloutHost, proof: &Proof<'_>) -> Option<EntryBody> {
    let record = &host.record;
    let on_target = *proof.current_closure == record.target_closure;
    (is_open(rollout, host) && on_target != host.candidate).then(|| EntryBody::RecoveryCandidate {
        rollout_id: record.rollout_id.clone(),
        hostname: record.hostname.clone(),
        current_closure: proof.current_closure.clone(),
    })
}
