//! Decides operator commands.

use std::collections::BTreeSet;

use nixfleet_proto::{
    Accepted, Effect, Hostname, OperatorCommand, Reason, Rejection, RolloutEvent, Timestamp,
};

use super::entry_lookup::{Decided, find_rollout, invariant};
use super::host_counters::HostCounters;
use super::rollout_update::RolloutUpdate;
use super::{PartitionState, Rollout};

pub(super) fn decide(state: &PartitionState, at: Timestamp, command: &OperatorCommand) -> Decided {
    match command {
        OperatorCommand::OperatorClearance {
            rollout_id,
            operator,
            reason,
            waived_hosts,
        } => {
            let rollout = find_rollout(state, rollout_id)?;
            check_texts(&[operator, reason])?;
            let event = RolloutEvent::OperatorClearance {
                rollout_id: rollout_id.clone(),
                operator: operator.clone(),
                reason: reason.clone(),
                waived_hosts: waived_hosts.clone(),
                at,
            };
            clear(rollout, event, waived_hosts, at)
        }
        OperatorCommand::ClearQuarantine {
            channel,
            closure_hash,
            ..
        } => {
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

/// Bounds the texts of a command, which its outcome repeats.
fn check_texts(texts: &[&str]) -> Result<(), Rejection> {
    let max = OperatorCommand::TEXT_BYTES_MAX;
    if texts.iter().any(|text| text.len() > max) {
        return invariant(format!(
            "the operator and the reason may have {max} bytes each"
        ));
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
