//! Later waves wait until the hosts before them comply.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds a host while hosts of earlier waves have outstanding enforce failures. Waived hosts hold
/// nothing back.
///
/// # Errors
/// The block, with the number of failures.
///
/// Source: docs/semantics.md, gate `compliance-wave`.
pub fn check(_view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let (rollout, wave) = (candidate.rollout, candidate.host.wave);
    if !candidate.host.staged {
        return Ok(());
    }
    let earlier = || rollout.waves.range(..wave).map(|(_, index)| index);
    let count: usize = earlier().map(|index| index.failures).sum();
    if count == 0 {
        return Ok(());
    }
    let reason =
        format!("compliance-wave: {count} outstanding failure(s) on hosts in wave < {wave}");
    let block = Block::new(Gate::ComplianceWave, reason);
    let first = earlier().find_map(|index| index.failing.first_key_value());
    let causes = first.and_then(|(hostname, _)| rollout.failures.get(hostname));
    let cause = causes.and_then(|probes| probes.values().map(|f| f.position).min());
    Err(match cause {
        Some(position) => block.caused_by(position),
        None => block,
    })
}
