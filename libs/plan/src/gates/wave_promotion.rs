//! A host waits for its wave.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::{FleetView, UNKNOWN_WAVE};

/// Holds a staged host whose pinned wave is later than the current one.
///
/// # Errors
/// The block; also when the host is not in the pinned set.
///
/// Source: docs/semantics.md, gate `wave-promotion`.
pub fn check(_view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let block = |reason| Err(Block::new(Gate::WavePromotion, reason));
    let (wave, cursor) = (candidate.host.wave, candidate.cursor);
    if wave == UNKNOWN_WAVE {
        return block("wave-promotion: unknown wave, the rollout did not pin this host".to_owned());
    }
    if candidate.host.staged && wave > cursor {
        return block(format!(
            "wave-promotion: host_wave={wave} > current_wave={cursor}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::test_fleet::{CURRENT, Fixture};
    use super::*;

    #[test]
    fn a_host_waits_for_its_wave() {
        for (hostname, cursor, wanted) in [
            ("a", 0, None),
            ("b", 0, Some("wave-promotion: host_wave=1 > current_wave=0")),
            ("b", 1, None),
            ("a", 1, None),
            ("u", 0, None),
        ] {
            let fixture = Fixture::new().rollout(CURRENT, |r| r.current_wave = cursor);
            let reason = fixture.reason(Gate::WavePromotion, hostname);
            assert_eq!(reason.as_deref(), wanted, "{hostname} at {cursor}");
        }
    }
}
