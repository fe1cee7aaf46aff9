//! A channel waits until the channels before it have finished.

use nixfleet_proto::{ChannelName, Gate, RolloutState};

use super::{Block, Candidate};
use crate::release::Release;
use crate::view::FleetView;

/// Holds every host of a channel while the current rollout of a predecessor channel is not Terminal.
///
/// # Errors
/// The block; names the first such predecessor in the order of the fleet.
///
/// Source: docs/semantics.md, gate `channel-edges`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let block = |reason| Err(Block::new(Gate::ChannelEdges, reason));
    let Some(release) = view.release() else {
        return block("channelEdges unknown: no release".to_owned());
    };
    let channel = &candidate.rollout.record.channel;
    for predecessor in release.predecessors(channel) {
        if let Some(reason) = unfinished(view, release, predecessor) {
            return block(reason);
        }
    }
    Ok(())
}

fn unfinished(view: &FleetView, release: &Release, predecessor: &ChannelName) -> Option<String> {
    if !release.fleet().channels.contains_key(predecessor) {
        return Some(format!(
            "channelEdges unknown predecessor channel '{predecessor}'"
        ));
    }
    if !release.is_populated(predecessor) {
        return None;
    }
    if !release.manifests().contains_key(predecessor) {
        return Some(format!(
            "channelEdges unknown manifest of predecessor channel '{predecessor}'"
        ));
    }
    let rollout = view.current_rollout(predecessor);
    match rollout.map(|rollout| rollout.record.state) {
        Some(RolloutState::Terminal) => None,
        Some(
            RolloutState::Opening
            | RolloutState::Active
            | RolloutState::Converging
            | RolloutState::Failed
            | RolloutState::Reverted
            | RolloutState::Superseded
            | RolloutState::Pruned,
        )
        | None => Some(format!(
            "channelEdges predecessor channel '{predecessor}' not converged"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_fleet::Fixture;
    use super::*;

    #[test]
    fn only_a_terminal_predecessor_releases() {
        for state in RolloutState::ALL {
            let fixture = Fixture::new()
                .channel_edge("edge")
                .rollout("edge@b2", |rollout| rollout.state = state);
            let wanted = (state != RolloutState::Terminal)
                .then(|| "channelEdges predecessor channel 'edge' not converged".to_owned());
            let reason = fixture.reason(Gate::ChannelEdges, "a");
            assert_eq!(reason, wanted, "{}", state.name());
        }
    }

    #[test]
    fn unreadable_input_blocks_and_empty_channels_do_not() {
        let edge = |channel| Fixture::new().channel_edge(channel);
        for (fixture, wanted) in [
            (edge("empty"), None),
            (
                edge("gone"),
                Some("channelEdges unknown predecessor channel 'gone'"),
            ),
            (
                edge("edge").without_manifest("edge"),
                Some("channelEdges unknown manifest of predecessor channel 'edge'"),
            ),
        ] {
            let reason = fixture.reason(Gate::ChannelEdges, "a");
            assert_eq!(reason.as_deref(), wanted);
        }
    }
}
