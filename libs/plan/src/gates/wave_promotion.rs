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
