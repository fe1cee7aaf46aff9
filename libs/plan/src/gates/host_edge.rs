//! A host waits for another host of its channel. What another host does is unknown: it holds.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::release::GatingHost;
use crate::view::FleetView;

/// Holds a host while a gating host is not done in the same rollout, and while a gating host is unknown there.
///
/// # Errors
/// The block; names the first such host in the order of the fleet.
///
/// Source: docs/semantics.md, gate `host-edge`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let Some(release) = view.release() else {
        return Err(Block::new(
            Gate::HostEdge,
            "host-edge: unknown edges, no release",
        ));
    };
    for GatingHost {
        hostname,
        is_of_channel,
    } in release.gating_hosts(candidate.hostname)
    {
        let reason = match is_of_channel {
            false => format!("host-edge: unknown, '{hostname}' is no host of this channel"),
            true if candidate.rollout.is_done(hostname) => continue,
            true => format!("host-edge: gating host '{hostname}' not yet Converged"),
        };
        return Err(Block::new(Gate::HostEdge, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::HostState;

    use super::super::test_fleet::{CURRENT, Fixture, OLD};
    use super::*;

    #[test]
    fn a_gating_host_releases_when_it_is_done() {
        for state in HostState::ALL {
            let fixture = Fixture::new().edge("b", "a").host(CURRENT, "b", state);
            let reason = fixture.reason(Gate::HostEdge, "a");
            let wanted = (!state.is_done())
                .then(|| "host-edge: gating host 'b' not yet Converged".to_owned());
            assert_eq!(reason, wanted, "{}", state.name());
        }
    }

    #[test]
    fn waived_hosts_and_edges_of_others_block_no_host() {
        let waived = Fixture::new().edge("b", "a").rollout(CURRENT, |rollout| {
            rollout.waived_hosts.insert("b".into());
        });
        for fixture in [waived, Fixture::new().edge("a", "b")] {
            assert_eq!(fixture.reason(Gate::HostEdge, "a"), None);
        }
    }

    #[test]
    fn hosts_of_other_channels_and_unknown_hosts_block() {
        for (gates, what) in [("e", "a host of another channel"), ("gone", "no host")] {
            let fixture = Fixture::new().edge(gates, "a");
            let reason = format!("host-edge: unknown, '{gates}' is no host of this channel");
            assert_eq!(fixture.reason(Gate::HostEdge, "a"), Some(reason), "{what}");
        }
    }

    #[test]
    fn an_older_rollout_does_not_count() {
        let fixture = Fixture::new()
            .edge("b", "a")
            .host(OLD, "b", HostState::Converged);
        assert!(fixture.reason(Gate::HostEdge, "a").is_some());
    }
}
