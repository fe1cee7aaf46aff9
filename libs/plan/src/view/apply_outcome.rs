//! Applies outcomes of the output log to the view.

use std::sync::Arc;

use nixfleet_proto::host::FailedControl;
use nixfleet_proto::outcome::Opened;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Accepted, ChannelName, ClosureHash, Decision, Effect, HostRecord, Hostname, ManifestHash,
    Outcome, Position, ProbeName, RolloutId, RolloutRecord, RolloutState,
};

use super::rollout::Failures;
use super::{FleetView, PinnedSet};

/// The outcome does not fit the view, which must be loaded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ApplyOutcomeError {
    #[error("manifest {manifest_hash} of rollout {rollout_id} is missing")]
    ManifestMissing {
        rollout_id: RolloutId,
        manifest_hash: ManifestHash,
    },
    #[error("rollout {rollout_id} opened without a record")]
    RecordMissing { rollout_id: RolloutId },
    #[error("the outcome names rollout {rollout_id}, which is not known")]
    RolloutUnknown { rollout_id: RolloutId },
}

impl FleetView {
    /// Applies the changes of an outcome, and removes the pending action of its entry, if any.
    ///
    /// # Errors
    /// When the outcome does not fit the view, or a manifest is missing.
    pub fn apply_outcome(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        self.apply(partition, outcome, pinned, UnknownRollouts::Reject)
    }

    /// Like [`FleetView::apply_outcome`], but skips the changes of rollouts that the view does not have: the
    /// owner decided on a state with more rollouts.
    ///
    /// # Errors
    /// Like [`FleetView::apply_outcome`], except for unknown rollouts.
    pub fn apply_outcome_skipping_unknown(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        self.apply(partition, outcome, pinned, UnknownRollouts::Skip)
    }

    fn apply(
        &mut self,
        partition: Partition,
        outcome: &Outcome,
        pinned: &PinnedSet,
        unknown: UnknownRollouts,
    ) -> Result<(), ApplyOutcomeError> {
        match &outcome.decision {
            Decision::Accepted(accepted) => {
                if let Some(epoch) = accepted.leader_epoch {
                    self.leader_epochs.insert(partition, epoch);
                }
                self.accept(outcome.position, accepted, pinned, unknown)?;
                self.action_answered(partition, outcome.position, None);
            }
            Decision::Rejected(_) => {
                self.action_answered(partition, outcome.position, Some(outcome.at));
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        position: Position,
        accepted: &Accepted,
        pinned: &PinnedSet,
        unknown: UnknownRollouts,
    ) -> Result<(), ApplyOutcomeError> {
        if let Some(opened) = &accepted.opened {
            self.open(opened, accepted, position, pinned)?;
        }
        for record in &accepted.rollouts {
            unknown.filter(self.apply_rollout(record))?;
        }
        for record in &accepted.hosts {
            unknown.filter(self.apply_host(record, position))?;
        }
        for effect in &accepted.effects {
            unknown.filter(self.apply_effect(effect, position))?;
        }
        Ok(())
    }

    fn open(
        &mut self,
        opened: &Opened,
        accepted: &Accepted,
        position: Position,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        let rollout_id = &opened.rollout_id;
        let manifest = pinned.get(&opened.manifest_hash);
        let manifest = manifest.ok_or_else(|| ApplyOutcomeError::ManifestMissing {
            rollout_id: rollout_id.clone(),
            manifest_hash: opened.manifest_hash.clone(),
        })?;
        let mut records = accepted.rollouts.iter();
        let record = records.find(|record| record.rollout_id == *rollout_id);
        let record = record.ok_or_else(|| ApplyOutcomeError::RecordMissing {
            rollout_id: rollout_id.clone(),
        })?;
        self.insert_rollout(record.clone(), Arc::clone(&manifest.pinned));
        self.open_hosts(rollout_id, position);
        self.find_unreadable_budgets();
        Ok(())
    }

    fn apply_host(
        &mut self,
        record: &Arc<HostRecord>,
        position: Position,
    ) -> Result<(), ApplyOutcomeError> {
        let rollout = self.known_rollout(&record.rollout_id)?;
        if let Some(host) = rollout.hosts.get_mut(&record.hostname) {
            host.update(record, position);
        }
        self.refresh_host(&record.rollout_id, &record.hostname);
        Ok(())
    }

    fn apply_rollout(&mut self, record: &RolloutRecord) -> Result<(), ApplyOutcomeError> {
        let rollout = self.known_rollout(&record.rollout_id)?;
        let was_open = rollout.is_open();
        let before = std::mem::replace(&mut rollout.record, record.clone());
        let closed = was_open && !rollout.is_open();
        self.note_superseded(record);
        for hostname in record.waived_hosts.difference(&before.waived_hosts) {
            self.refresh_host(&record.rollout_id, hostname);
        }
        if closed {
            self.close(&record.rollout_id);
        }
        if record.state == RolloutState::Pruned {
            self.remove_hosts(&record.rollout_id);
        }
        Ok(())
    }

    /// Releases the budgets and waiting hosts of a rollout that dispatches no more.
    fn close(&mut self, rollout_id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(rollout_id) else {
            return;
        };
        let budgets = std::mem::take(&mut rollout.budgets);
        let mut hosts: Vec<Hostname> = rollout.queued.iter().cloned().collect();
        hosts.extend(rollout.pending.dispatched.iter().cloned());
        for index in rollout.waves.values() {
            hosts.extend(index.groups.values().flatten().cloned());
            hosts.extend(index.singles.iter().cloned());
            hosts.extend(index.candidates.iter().cloned());
        }
        for hostname in hosts {
            self.refresh_host(rollout_id, &hostname);
        }
        for id in budgets {
            self.budgets.release(id, &mut self.presences);
        }
    }

    fn remove_hosts(&mut self, rollout_id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(rollout_id) else {
            return;
        };
        let hosts = std::mem::take(&mut rollout.hosts);
        rollout.waves.clear();
        rollout.failed.clear();
        rollout.reverted.clear();
        rollout.due.clear();
        rollout.queued.clear();
        rollout.failures.clear();
        rollout.blocks.clear();
        rollout.by_target.take();
        for hostname in hosts.keys() {
            if let Some(presence) = self.presences.get_mut(hostname) {
                presence.rollouts.retain(|other| other != rollout_id);
            }
            self.refresh_host(rollout_id, hostname);
            // The index slots in other rollouts depend on whether the host is in flight.
            self.refresh_everywhere(hostname);
            let presence = self.presences.get(hostname);
            if presence.is_some_and(|p| p.rollouts.is_empty() && p.budgets.is_empty()) {
                self.presences.remove(hostname);
            }
        }
    }

    fn apply_effect(
        &mut self,
        effect: &Effect,
        position: Position,
    ) -> Result<(), ApplyOutcomeError> {
        match effect {
            Effect::ReplaceProbeFailures {
                rollout_id,
                hostname,
                probe_name,
                failures,
                ..
            } => {
                let rollout = self.known_rollout(rollout_id)?;
                rollout.replace_failures(hostname, probe_name, failures, position);
                self.refresh_host(rollout_id, hostname);
            }
            Effect::InsertQuarantine {
                channel,
                closure_hash,
            } => self.quarantine_changed(channel, closure_hash, Some(position)),
            Effect::RemoveQuarantine {
                channel,
                closure_hash,
            } => self.quarantine_changed(channel, closure_hash, None),
            Effect::InsertDispatch {
                rollout_id,
                hostname,
                ..
            } => self.set_queued(rollout_id, hostname, Queue::In)?,
            Effect::RemoveDispatch {
                rollout_id,
                hostname,
            } => self.set_queued(rollout_id, hostname, Queue::Out)?,
            Effect::CancelDispatches { rollout_id } => {
                let rollout = self.known_rollout(rollout_id)?;
                for hostname in rollout.queued.clone() {
                    self.set_queued(rollout_id, &hostname, Queue::Out)?;
                }
            }
            Effect::SetRecoveryCandidate {
                rollout_id,
                hostname,
                current_closure,
            } => {
                let rollout = self.known_rollout(rollout_id)?;
                if let Some(host) = rollout.hosts.get_mut(hostname) {
                    host.candidate.clone_from(current_closure);
                }
                self.refresh_host(rollout_id, hostname);
            }
            Effect::ReplaceBlocks {
                rollout_id,
                wave,
                gate,
                holds,
            } => {
                let rollout = self.known_rollout(rollout_id)?;
                if holds.is_empty() {
                    rollout.blocks.remove(&(*wave, *gate));
                } else {
                    rollout.blocks.insert((*wave, *gate), holds.clone());
                }
            }
            // The records have these changes.
            Effect::RecordTransition { .. }
            | Effect::RecordRolloutTransition { .. }
            | Effect::UpdateCurrentWave { .. }
            | Effect::HaltLifted { .. } => {}
        }
        Ok(())
    }

    fn quarantine_changed(
        &mut self,
        channel: &ChannelName,
        closure: &ClosureHash,
        position: Option<Position>,
    ) {
        let closures = self.quarantines.entry(channel.clone()).or_default();
        match position {
            Some(position) => {
                closures.entry(closure.clone()).or_insert(position);
            }
            None => {
                closures.remove(closure);
            }
        }
        let open = self.rollouts.values().filter(|rollout| rollout.is_open());
        let touched: Vec<_> = open
            .filter(|rollout| rollout.record.channel == *channel)
            .flat_map(|rollout| {
                let hosts = rollout.targeting(closure).into_iter();
                hosts.map(|hostname| (rollout.record.rollout_id.clone(), hostname))
            })
            .collect();
        for (rollout_id, hostname) in touched {
            self.refresh_host(&rollout_id, &hostname);
        }
    }

    fn set_queued(
        &mut self,
        rollout_id: &RolloutId,
        hostname: &Hostname,
        queue: Queue,
    ) -> Result<(), ApplyOutcomeError> {
        let rollout = self.known_rollout(rollout_id)?;
        if let Some(host) = rollout.hosts.get_mut(hostname) {
            host.queued = queue == Queue::In;
            match queue {
                Queue::In => rollout.queued.insert(hostname.clone()),
                Queue::Out => rollout.queued.remove(hostname),
            };
        }
        self.refresh_host(rollout_id, hostname);
        Ok(())
    }

    fn known_rollout(
        &mut self,
        rollout_id: &RolloutId,
    ) -> Result<&mut super::RolloutView, ApplyOutcomeError> {
        let rollout = self.rollouts.get_mut(rollout_id);
        rollout.ok_or_else(|| ApplyOutcomeError::RolloutUnknown {
            rollout_id: rollout_id.clone(),
        })
    }
}

/// Treatment of changes to unknown rollouts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnknownRollouts {
    /// An error.
    Reject,
    /// Ignored: the owner had more rollouts.
    Skip,
}

impl UnknownRollouts {
    fn filter(self, applied: Result<(), ApplyOutcomeError>) -> Result<(), ApplyOutcomeError> {
        match (self, applied) {
            (Self::Skip, Err(ApplyOutcomeError::RolloutUnknown { .. })) => Ok(()),
            (Self::Skip | Self::Reject, applied) => applied,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    In,
    Out,
}

impl super::RolloutView {
    fn replace_failures(
        &mut self,
        hostname: &Hostname,
        probe_name: &ProbeName,
        controls: &[FailedControl],
        position: Position,
    ) {
        let probes = self.failures.entry(hostname.clone()).or_default();
        if controls.is_empty() {
            probes.remove(probe_name);
        } else {
            let failures = Failures {
                position,
                controls: controls.iter().cloned().collect(),
            };
            probes.insert(probe_name.clone(), failures);
        }
        if probes.is_empty() {
            self.failures.remove(hostname);
        }
    }
}
