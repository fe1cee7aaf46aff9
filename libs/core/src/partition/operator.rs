//! Commands of people.

use std::collections::BTreeSet;

use nixfleet_proto::{
    Accepted, Effect, Hostname, OperatorCommand, Reason, Rejection, RolloutEvent, Timestamp,
};

use super::decide::{Decision, find_rollout};
use super::draft::Draft;
use super::tally::Tally;
use super::{PartitionState, Rollout};

pub(super) fn decide(state: &PartitionState, at: Timestamp, command: &OperatorCommand) -> Decision {
    match command {
        OperatorCommand::OperatorClearance {
            rollout_id,
            operator,
            reason,
            waived_hosts,
        } => {
            let rollout = find_rollout(state, rollout_id)?;
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

/// A waiver may finish a wave or the whole rollout.
fn clear(
    rollout: &Rollout,
    event: RolloutEvent,
    waived: &BTreeSet<Hostname>,
    at: Timestamp,
) -> Decision {
    let mut draft = Draft::of(rollout, at);
    draft.fold(event)?;
    if let Some(stranger) = waived.iter().find(|name| !rollout.hosts.contains(*name)) {
        return Err(Rejection::new(
            Reason::Unknown,
            format!("host {stranger} is not in the rollout"),
        ));
    }
    let all_waived = rollout.record.waived_hosts.union(waived).cloned().collect();
    draft.progress(Tally::of(&rollout.hosts, &all_waived).progress().clone());
    draft.settle()?;
    Ok(draft.finish())
}
