//! A synthetic fleet: names and closures of realistic length, one channel, a few waves.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use nixfleet_core::partition::PinnedSet;
use nixfleet_harness::synthetic_release::{hostname, waves};
use nixfleet_proto::fleet::{ResolvedBudget, Selector};
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{
    ChannelName, Hostname, ManifestHash, Minutes, OnHealthFailure, Pinned, PinnedManifest,
    PlanAction, RolloutId, Timestamp,
};

/// Minutes that every host soaks. Servers are given the log in seconds: an activation that completed long ago
/// counts as completed a minute before it was reported, so that such a soak is over.
pub const SOAK_MINUTES: u64 = 1;

pub use nixfleet_harness::synthetic_release::closure;

#[derive(Debug, Clone)]
pub struct SyntheticFleet {
    /// The rollout of its manifest.
    pub rollout_id: RolloutId,
    pub manifest_hash: ManifestHash,
    /// Pinned waves, hosts and budgets of the manifest.
    pub pinned: Arc<Pinned>,
}

/// Start time of every synthetic log, long ago.
pub fn log_start() -> Timestamp {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default()
}

/// The time this many milliseconds after [`log_start`].
pub fn at(milliseconds: u64) -> Timestamp {
    log_start() + TimeDelta::milliseconds(i64::try_from(milliseconds).unwrap_or(i64::MAX))
}

impl SyntheticFleet {
    /// A fleet whose waves hold the given numbers of hosts.
    pub fn new(waves: &[usize]) -> Self {
        let channel = ChannelName::from("stable");
        let total: usize = waves.iter().sum();
        let mut host_set = Vec::with_capacity(total);
        for (wave_index, count) in (0..).zip(waves) {
            for _ in 0..*count {
                let number = host_set.len();
                host_set.push(PinnedHost {
                    hostname: hostname(number),
                    wave_index,
                    target_closure: closure(2, number),
                    staged: true,
                });
            }
        }
        let every = host_set.iter().map(|host| host.hostname.clone()).collect();
        let third = host_set.iter().step_by(3);
        let third = third.map(|host| host.hostname.clone()).collect();
        let pinned = Pinned {
            on_health_failure: OnHealthFailure::RollbackAndHalt,
            waves: waves
                .iter()
                .map(|_| PinnedWave {
                    soak_minutes: Minutes::from_minutes(SOAK_MINUTES),
                })
                .collect(),
            host_set,
            disruption_budgets: vec![budget(every), budget(third)],
        };
        Self {
            rollout_id: RolloutId::new(&channel, &"4f1c2a9be07d".into()),
            manifest_hash: ManifestHash::from("c5".repeat(32)),
            pinned: Arc::new(pinned),
        }
    }

    /// A fleet in which the last of four waves has half of the hosts.
    pub fn of(hosts: usize) -> Self {
        Self::new(&waves(hosts))
    }

    pub fn len(&self) -> usize {
        self.pinned.host_set.len()
    }

    /// The manifest that the fold needs to open the rollout.
    pub fn pinned_set(&self) -> PinnedSet {
        let manifest = PinnedManifest {
            rollout_id: self.rollout_id.clone(),
            pinned: Arc::clone(&self.pinned),
        };
        PinnedSet::from([(self.manifest_hash.clone(), manifest)])
    }

    /// The action that opens the rollout.
    pub fn open(&self) -> PlanAction {
        PlanAction::OpenRollout {
            rollout_id: self.rollout_id.clone(),
            channel: self.rollout_id.channel(),
            target_ref: self.rollout_id.target_ref(),
            manifest_hash: self.manifest_hash.clone(),
        }
    }
}

/// A budget that never delays a host, so that a whole wave can be released.
fn budget(hosts: Vec<Hostname>) -> ResolvedBudget {
    ResolvedBudget {
        selector: Selector {
            all: true,
            ..Selector::default()
        },
        hosts,
        max_in_flight: None,
        max_in_flight_pct: Some(100),
    }
}
