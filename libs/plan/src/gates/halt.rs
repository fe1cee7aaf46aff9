//! One failed host halts the rollout, until an operator clears it or a new release supersedes it.

use nixfleet_proto::{Gate, mutation_testing};

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds every host of a halted rollout.
///
/// # Errors
/// The block; names the first failed or reverted host.
///
/// Source: docs/semantics.md, gate `halt`.
pub fn check(_view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let rollout = candidate.rollout;
    if !rollout.is_halted() || mutation_testing::is_active("halt-ignored") {
        return Ok(());
    }
    Err(match rollout.first_broken() {
        Some((hostname, host)) => {
            let reason = format!("halt: host '{hostname}' is {}", host.state.name());
            Block::new(Gate::Halt, reason).caused_by(host.position)
        }
        None => {
            let state = rollout.record.state.name();
            Block::new(Gate::Halt, format!("halt: rollout is {state}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{HostState, RolloutState};

    use super::super::test_fleet::{CURRENT, Fixture, OLD};
    use super::*;

    fn waive(fixture: Fixture, hostname: &str) -> Fixture {
        fixture.rollout(CURRENT, |rollout| {
            rollout.waived_hosts.insert(hostname.parse().unwrap());
        })
    }

    #[test]
    fn a_failed_host_halts_until_it_is_waived() {
        let failed = || Fixture::new().host(CURRENT, "b", HostState::Failed);
        let block = failed().block(Gate::Halt, "a").unwrap();
        assert_eq!(block.reason, "halt: host 'b' is Failed");
        assert_eq!(block.cause, Some(Fixture::position(7)));
        assert_eq!(waive(failed(), "b").reason(Gate::Halt, "a"), None);
    }

    #[test]
    fn a_failed_host_of_an_older_rollout_halts_nothing() {
        let fixture = Fixture::new().host(OLD, "b", HostState::Failed);
        assert_eq!(fixture.reason(Gate::Halt, "a"), None);
    }

    #[test]
    fn a_final_rollout_is_halted_in_spite_of_waivers() {
        for state in [RolloutState::Failed, RolloutState::Reverted] {
            let fixture = Fixture::new()
                .host(CURRENT, "b", HostState::Reverted)
                .rollout(CURRENT, |rollout| rollout.state = state);
            let reason = fixture.reason(Gate::Halt, "a");
            assert_eq!(reason.as_deref(), Some("halt: host 'b' is Reverted"));
            let reason = waive(fixture, "b").reason(Gate::Halt, "a");
            assert_eq!(reason, Some(format!("halt: rollout is {}", state.name())));
        }
    }

    #[test]
    fn a_clearance_lifts_the_halt_of_a_reverted_host() {
        let fixture = Fixture::new().host(CURRENT, "b", HostState::Reverted);
        assert_eq!(fixture.reason(Gate::Halt, "a"), None);
    }
}
