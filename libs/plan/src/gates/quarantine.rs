//! A rolled-back closure is not dispatched on its channel.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds a host whose target closure is quarantined on the rollout's channel.
///
/// Source: docs/semantics.md, gate `quarantine`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let channel = &candidate.rollout.record.channel;
    let closure = &candidate.host.target_closure;
    match view.quarantine(channel, closure) {
        Some(position) => Err(Block::new(
            Gate::Quarantine,
            format!(
                "channel {channel} closure {closure} quarantined (sustained probe failures); push \
                 a new closure to clear"
            ),
        )
        .caused_by(position)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_fleet::Fixture;
    use super::*;

    #[test]
    fn a_closure_is_quarantined_on_its_channel_only() {
        for (channel, closure, held) in [
            ("stable", "a-closure", true),
            ("stable", "b-closure", false),
            ("edge", "a-closure", false),
        ] {
            let fixture = Fixture::new().quarantine(channel, closure);
            let block = fixture.block(Gate::Quarantine, "a");
            assert_eq!(block.is_some(), held, "{channel} {closure}");
            if let Some(block) = block {
                assert_eq!(block.cause, Some(Fixture::position(9)));
                assert_eq!(
                    block.reason,
                    "channel stable closure a-closure quarantined (sustained probe failures); \
                     push a new closure to clear"
                );
            }
        }
    }
}
