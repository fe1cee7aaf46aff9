//! Later waves wait until earlier waves have no compliance failures.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds a host while hosts of earlier waves have outstanding enforce failures. Failures of waived hosts
/// do not count.
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

#[cfg(test)]
mod tests {
    use super::super::test_fleet::{CURRENT, Fixture};
    use super::*;

    #[test]
    fn failures_hold_later_waves_only() {
        let fixture = Fixture::new()
            .failure("a", Some("x"))
            .failure("a", Some("y"))
            .failure("a", Some("y"))
            .failure("b", None);
        assert_eq!(fixture.reason(Gate::ComplianceWave, "a"), None);
        let block = fixture.block(Gate::ComplianceWave, "b").unwrap();
        assert_eq!(
            block.reason,
            "compliance-wave: 2 outstanding failure(s) on hosts in wave < 1"
        );
        assert_eq!(block.cause, Some(Fixture::position(8)));
    }

    #[test]
    fn failures_of_waived_and_unstaged_hosts_do_not_count() {
        let waived = Fixture::new()
            .failure("a", None)
            .rollout(CURRENT, |rollout| {
                rollout.waived_hosts.insert("a".into());
            });
        for fixture in [waived, Fixture::new().failure("u", None)] {
            assert_eq!(fixture.reason(Gate::ComplianceWave, "b"), None);
        }
    }
}
