//! The operator: clears halted rollouts and quarantines.

use std::collections::BTreeSet;

use nixfleet_proto::{HostState, OperatorCommand, RolloutState};

use super::Simulation;
use crate::gateway_messages::{GatewayRequest, GatewayRequestBody, Requester};

impl Simulation {
    /// Sends a clearance for every current rollout that is halted, and lifts every quarantine.
    pub(super) fn operate(&mut self) {
        for command in self.commands() {
            self.env.trace(format_args!("operator: {command:?}"));
            self.env.request(GatewayRequest {
                from: Requester::Operator,
                body: GatewayRequestBody::Command(command),
            });
        }
    }

    pub(super) fn commands(&self) -> Vec<OperatorCommand> {
        let mut commands = Vec::new();
        let reference = &self.env.invariants.reference;
        for (_, state) in reference.states() {
            for rollout in state.rollouts().values() {
                let halting: BTreeSet<_> = rollout
                    .hosts
                    .values()
                    .map(|host| &host.record)
                    .filter(|record| {
                        matches!(record.state, HostState::Failed | HostState::Reverted)
                            && !rollout.record.waived_hosts.contains(&record.hostname)
                    })
                    .map(|record| record.hostname.clone())
                    .collect();
                let is_stopped = matches!(
                    rollout.record.state,
                    RolloutState::Failed | RolloutState::Reverted
                );
                let is_running = matches!(
                    rollout.record.state,
                    RolloutState::Active | RolloutState::Converging
                );
                if is_stopped || (is_running && !halting.is_empty()) {
                    commands.push(OperatorCommand::OperatorClearance {
                        rollout_id: rollout.record.rollout_id.clone(),
                        reason: "simulated".to_owned(),
                        waived_hosts: halting,
                    });
                }
            }
            for (channel, closures) in state.quarantines() {
                for closure_hash in closures.keys() {
                    commands.push(OperatorCommand::ClearQuarantine {
                        channel: channel.clone(),
                        closure_hash: closure_hash.clone(),
                        reason: "simulated".to_owned(),
                    });
                }
            }
        }
        commands
    }
}
