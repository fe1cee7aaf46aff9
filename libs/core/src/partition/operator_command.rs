//! Decides operator commands.

use std::collections::BTreeSet;

use nixfleet_proto::{
    Accepted, Actor, CommandOrigin, Effect, Hostname, OperatorCommand, Reason, Rejection,
    RolloutEvent, SignatureCheck, Timestamp, mutation_testing,
};

use super::entry_lookup::{Decided, find_rollout, invariant};
use super::host_counters::HostCounters;
use super::rollout_update::RolloutUpdate;
use super::{PartitionState, Rollout};

pub(super) fn decide(
    state: &PartitionState,
    at: Timestamp,
    (command, origin): (&OperatorCommand, &CommandOrigin),
) -> Decided {
    check_origin(origin)?;
    match command {
        OperatorCommand::OperatorClearance {
            rollout_id,
            reason,
            waived_hosts,
        } => {
            let rollout = find_rollout(state, rollout_id)?;
            check_reason(reason)?;
            let event = RolloutEvent::OperatorClearance {
                rollout_id: rollout_id.clone(),
                operator: origin.actor.subject.clone(),
                reason: reason.clone(),
                waived_hosts: waived_hosts.clone(),
                at,
            };
            clear(rollout, event, waived_hosts, at)
        }
        OperatorCommand::ClearQuarantine {
            channel,
            closure_hash,
            reason,
        } => {
            check_reason(reason)?;
            if !state.is_quarantined(channel, closure_hash) {
                return Err(Rejection::new(
                    Reason::Unknown,
                    format!("{closure_hash} is not quarantined on {channel}"),
                ));
            }
            Ok(Accepted {
                effects: vec![Effect::RemoveQuarantine {
                    channel: channel.clone(),
                    closure_hash: closure_hash.clone(),
                }],
                ..Accepted::default()
            })
        }
    }
}

/// Only a command that a trusted console signed is one. Its outcome repeats the actor, so that replaying
/// outcomes needs no key.
fn check_origin(origin: &CommandOrigin) -> Result<(), Rejection> {
    let is_signed = match origin.check {
        SignatureCheck::Valid => true,
        SignatureCheck::Unchecked | SignatureCheck::Invalid => {
            mutation_testing::is_active("unsigned-commands")
        }
    };
    if !is_signed {
        let message =
            "no trusted console signed this command: see operators.keys_file of the reducers";
        return Err(Rejection::new(Reason::Unsigned, message));
    }
    let Actor {
        issuer, subject, ..
    } = &origin.actor;
    if issuer.len().max(subject.len()) > Actor::NAME_BYTES_MAX {
        let max = Actor::NAME_BYTES_MAX;
        return invariant(format!("issuer and subject may have {max} bytes each"));
    }
    Ok(())
}

/// Bounds the reason of a command, which its outcome repeats.
fn check_reason(reason: &str) -> Result<(), Rejection> {
    let max = OperatorCommand::TEXT_BYTES_MAX;
    if reason.len() > max {
        return invariant(format!("the reason may have {max} bytes"));
    }
    Ok(())
}

/// Applies a clearance; waivers may finish a wave or the rollout.
fn clear(
    rollout: &Rollout,
    event: RolloutEvent,
    waived: &BTreeSet<Hostname>,
    at: Timestamp,
) -> Decided {
    let mut update = RolloutUpdate::of(rollout, at);
    update.apply_event(event)?;
    if let Some(stranger) = waived.iter().find(|name| !rollout.hosts.contains(*name)) {
        return Err(Rejection::new(
            Reason::Unknown,
            format!("host {stranger} is not in the rollout"),
        ));
    }
    let all_waived: BTreeSet<_> = rollout.record.waived_hosts.union(waived).cloned().collect();
    let bytes: usize = all_waived.iter().map(|name| name.as_str().len()).sum();
    if bytes > OperatorCommand::WAIVED_BYTES_MAX {
        return invariant(format!(
            "the names of all hosts waived so far would take {bytes} bytes, more than {}",
            OperatorCommand::WAIVED_BYTES_MAX
        ));
    }
    update.set_progress(
        HostCounters::of(&rollout.hosts, &all_waived)
            .progress()
            .clone(),
    );
    update.advance_or_finish()?;
    Ok(update.finish())
}
