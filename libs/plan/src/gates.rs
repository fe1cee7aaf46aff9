//! The gates: each says whether one host may start, and if not, why.
//!
//! Every gate is asked for every host that waits, so that a report is complete. An input that a gate
//! cannot read holds the host.
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

#[cfg(test)]
pub(crate) mod fixture;

use std::collections::BTreeMap;

use nixfleet_proto::{Gate, Hostname, Position, Timestamp};

use crate::view::{BudgetId, FleetView, HostSet, HostView, RolloutView};

/// A host that asks to start.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its name.
    pub hostname: &'a Hostname,
    /// What is known about it.
    pub host: &'a HostView,
    /// The rollout it would start in.
    pub rollout: &'a RolloutView,
    /// The wave that may be dispatched, advances of this run included.
    pub cursor: u32,
    /// What this run has dispatched so far.
    pub ledger: &'a Ledger,
    /// Time of the run.
    pub now: Timestamp,
}

/// Why a host is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The gate.
    pub gate: Gate,
    /// Text for people; changes only when the state does.
    pub reason: String,
    /// The entry of the host's own partition that caused it, when there is one.
    pub cause: Option<Position>,
}

impl Block {
    /// A block without a causing entry.
    pub fn new(gate: Gate, reason: impl Into<String>) -> Self {
        Self {
            gate,
            reason: reason.into(),
            cause: None,
        }
    }

    /// The same block with the entry that caused it.
    #[must_use]
    pub fn caused_by(self, position: Position) -> Self {
        Self {
            cause: Some(position),
            ..self
        }
    }
}

/// Hosts that this run puts in flight, by budget list.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    dispatched: HostSet,
    added: BTreeMap<BudgetId, usize>,
}

impl Ledger {
    /// Counts a dispatch; a host that is in flight already takes no new slot.
    pub fn dispatch(&mut self, view: &FleetView, hostname: &Hostname) {
        if view.is_in_flight(hostname) || !self.dispatched.insert(hostname.clone()) {
            return;
        }
        for id in view.budget_lists_of(hostname) {
            *self.added.entry(*id).or_default() += 1;
        }
    }

    fn is_dispatched(&self, hostname: &Hostname) -> bool {
        self.dispatched.contains(hostname)
    }

    fn added(&self, id: BudgetId) -> usize {
        self.added.get(&id).copied().unwrap_or(0)
    }
}

/// Asks one gate.
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

/// Every reason not to dispatch the host, in gate order.
pub fn blocks_of_dispatch(view: &FleetView, candidate: &Candidate<'_>) -> Vec<Block> {
    let asked = Gate::ALL.into_iter();
    asked
        .filter_map(|gate| check(gate, view, candidate).err())
        .collect()
}

/// Every reason not to let the host converge unchanged: nothing starts on it, so no budget is asked.
pub fn blocks_of_recovery(view: &FleetView, candidate: &Candidate<'_>) -> Vec<Block> {
    let asked = Gate::ALL.into_iter();
    asked
        .filter(|gate| *gate != Gate::DisruptionBudget)
        .filter_map(|gate| check(gate, view, candidate).err())
        .collect()
}
