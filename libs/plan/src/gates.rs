//! Gates: rules that decide whether one host may start, with the reason if not.
//!
//! Every gate checks every waiting host, so that reports are complete. A gate that cannot read its input
//! blocks.
//!
//! Source: docs/semantics.md, gates.

pub mod channel_edges;
pub mod compliance_wave;
pub mod disruption_budget;
pub mod freshness;
pub mod halt;
pub mod host_edge;
pub mod quarantine;
pub mod wave_promotion;
pub mod wave_promotion_host_unstaged;

mod block;
mod candidate;

#[cfg(test)]
pub(crate) mod test_fleet;

use nixfleet_proto::Gate;

use crate::view::FleetView;

pub use block::Block;
pub use candidate::{Candidate, PlannedDispatches};

/// Checks one gate.
///
/// # Errors
/// The block, when the gate holds the host.
pub fn check(gate: Gate, view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    match gate {
        Gate::Quarantine => quarantine::check(view, candidate),
        Gate::Halt => halt::check(view, candidate),
        Gate::Freshness => freshness::check(view, candidate),
        Gate::ChannelEdges => channel_edges::check(view, candidate),
        Gate::WavePromotion => wave_promotion::check(view, candidate),
        Gate::WavePromotionHostUnstaged => wave_promotion_host_unstaged::check(view, candidate),
        Gate::HostEdge => host_edge::check(view, candidate),
        Gate::DisruptionBudget => disruption_budget::check(view, candidate),
        Gate::ComplianceWave => compliance_wave::check(view, candidate),
    }
}

/// Every block of a dispatch, in gate order.
pub fn blocks_of_dispatch(view: &FleetView, candidate: &Candidate<'_>) -> Vec<Block> {
    let gates = Gate::ALL.into_iter();
    gates
        .filter_map(|gate| check(gate, view, candidate).err())
        .collect()
}

/// Every block of converging the host unchanged, in gate order. Skips the budgets: nothing starts on the
/// host.
pub fn blocks_of_recovery(view: &FleetView, candidate: &Candidate<'_>) -> Vec<Block> {
    let gates = Gate::ALL.into_iter();
    gates
        .filter(|gate| *gate != Gate::DisruptionBudget)
        .filter_map(|gate| check(gate, view, candidate).err())
        .collect()
}
