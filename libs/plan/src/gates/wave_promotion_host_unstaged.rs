//! A host in no wave never starts.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds a host that is in no wave of a channel that declares waves.
///
/// Source: docs/semantics.md, gate `wave-promotion-host-unstaged`.
pub fn check(_view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    if candidate.host.staged {
        return Ok(());
    }
    let channel = &candidate.rollout.record.channel;
    Err(Block::new(
        Gate::WavePromotionHostUnstaged,
        format!(
            "wave-promotion: channel '{channel}' declares waves but this host is not assigned to \
             any of them — fix the fleet declaration or the host's tag/wave selector"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::test_fleet::Fixture;
    use super::*;

    #[test]
    fn only_a_host_without_a_wave_is_held() {
        for (hostname, held) in [("a", false), ("b", false), ("u", true)] {
            let reason = Fixture::new().reason(Gate::WavePromotionHostUnstaged, hostname);
            assert_eq!(reason.is_some(), held, "{hostname}");
        }
    }
}
