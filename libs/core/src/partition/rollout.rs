//! One rollout of a partition with its hosts and holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::snapshot::Cause;
use nixfleet_proto::{
    Gate, Hold, HostState, Hostname, ManifestHash, Pinned, Position, RolloutRecord,
};

use super::interning::ProbeListPool;
use super::{HostCounters, HostTable};

/// One rollout with its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The record.
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// The pinned terms.
    pub pinned: Arc<Pinned>,
    /// The entry that last changed the record.
    pub position: Position,
    /// The hosts.
    pub hosts: HostTable,
    /// Current holds by wave and gate; a gate without holds is absent.
    pub blocks: BTreeMap<(u32, Gate), Arc<GateHolds>>,
    /// Counters derived from `hosts`.
    pub counters: HostCounters,
    pub(super) probe_lists: ProbeListPool,
}

/// The holds of one gate in one wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateHolds {
    /// The holds.
    pub holds: Vec<Hold>,
    /// The causing entry.
    pub cause: Cause,
}

impl Rollout {
    /// True for a host that is Converged, Deferred or waived.
    pub fn is_done(&self, hostname: &Hostname) -> bool {
        self.is_waived(hostname)
            || self
                .hosts
                .get(hostname)
                .is_some_and(|host| host.record.state.is_done())
    }

    /// Waived by an operator.
    pub fn is_waived(&self, hostname: &Hostname) -> bool {
        self.record.waived_hosts.contains(hostname)
    }

    /// True when no host may be dispatched: the rollout is Failed or Reverted, or a host that is not
    /// waived is Failed.
    pub fn is_halted(&self) -> bool {
        self.record.state.is_halted() || self.first_halting().is_some()
    }

    /// The first host, by name, that halts the rollout.
    pub fn first_halting(&self) -> Option<(&Hostname, HostState)> {
        let hostname = self.counters.halting().first()?;
        let host = self.hosts.get(hostname)?;
        Some((hostname, host.record.state))
    }

    /// True when every host of the current wave is done.
    pub fn is_current_wave_done(&self) -> bool {
        self.counters
            .progress()
            .is_wave_done(self.record.current_wave)
    }

    /// The next wave after the current one that has hosts.
    pub fn next_wave(&self) -> Option<u32> {
        self.counters.progress().next_wave(self.record.current_wave)
    }
}
