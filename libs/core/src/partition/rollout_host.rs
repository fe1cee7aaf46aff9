//! A host of a rollout in the state of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::host::FailedControl;
use nixfleet_proto::snapshot::Cause;
use nixfleet_proto::{ClosureHash, HostRecord, Position, ProbeName};

/// One host of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutHost {
    /// The record.
    pub record: Arc<HostRecord>,
    /// Zero-based wave, meaningless when unstaged.
    pub wave: u32,
    /// False for a host in no wave of a channel with waves.
    pub staged: bool,
    /// True for a Pending host that runs its target.
    pub candidate: bool,
    /// The entry that last changed the record.
    pub position: Position,
    /// Rare data; absent when empty.
    pub(super) outstanding: Option<Box<Outstanding>>,
}

/// The queued dispatch and the failures of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outstanding {
    queued: Option<Cause>,
    /// Failures by probe; a probe without any is absent.
    failures: BTreeMap<ProbeName, ProbeFailures>,
}

/// The outstanding failures of one probe of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailures {
    /// The failing controls, sorted, each once.
    pub controls: Vec<FailedControl>,
    /// The entry that reported them, and when the host observed them.
    pub cause: Cause,
}

impl RolloutHost {
    /// The running closure of a Pending host, when it is the target.
    pub fn recovery_candidate(&self) -> Option<&ClosureHash> {
        self.candidate.then_some(&self.record.target_closure)
    }

    /// Position and time of the queued dispatch.
    pub fn queued(&self) -> Option<Cause> {
        self.outstanding.as_ref()?.queued
    }

    /// True when a dispatch is queued.
    pub fn is_queued(&self) -> bool {
        self.queued().is_some()
    }

    /// Outstanding failures by probe.
    pub fn probe_failures(&self) -> impl Iterator<Item = (&ProbeName, &ProbeFailures)> {
        let outstanding = self.outstanding.iter();
        outstanding.flat_map(|outstanding| outstanding.failures.iter())
    }

    pub(super) fn set_queued(&mut self, queued: Option<Cause>) {
        self.change(|outstanding| outstanding.queued = queued);
    }

    /// Replaces the failures of a probe; none removes it.
    pub(super) fn set_failures(&mut self, probe: ProbeName, mut failures: ProbeFailures) {
        // One control named twice in a result is one failure.
        failures.controls.sort();
        failures.controls.dedup();
        self.change(|outstanding| {
            if failures.controls.is_empty() {
                outstanding.failures.remove(&probe);
            } else {
                outstanding.failures.insert(probe, failures);
            }
        });
    }

    pub(super) fn add_failure(&mut self, probe: ProbeName, control: FailedControl, cause: Cause) {
        let known = self.outstanding.as_ref();
        let known = known.and_then(|outstanding| outstanding.failures.get(&probe));
        let mut controls = known.map_or_else(Vec::new, |known| known.controls.clone());
        controls.push(control);
        self.set_failures(probe, ProbeFailures { controls, cause });
    }

    fn change(&mut self, change: impl FnOnce(&mut Outstanding)) {
        let mut outstanding = self.outstanding.take().unwrap_or_default();
        change(&mut outstanding);
        if outstanding.queued.is_some() || !outstanding.failures.is_empty() {
            self.outstanding = Some(outstanding);
        }
    }
}
