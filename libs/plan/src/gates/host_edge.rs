//! A host waits for another host of its channel.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds a host while a host that gates it is not done in the same rollout. Edges across channels
/// hold nobody.
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
    let mut gating = release.gating_hosts(candidate.hostname).iter();
    match gating.find(|hostname| !candidate.rollout.is_done(hostname)) {
        Some(hostname) => Err(Block::new(
            Gate::HostEdge,
            format!("host-edge: gating host '{hostname}' not yet Converged"),
        )),
        None => Ok(()),
    }
}
