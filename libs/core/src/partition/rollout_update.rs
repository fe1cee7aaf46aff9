//! The changes of one rollout during the decision of an entry.

use std::sync::Arc;

use nixfleet_proto::rollout::Rollback;
use nixfleet_proto::{
    Accepted, Effect, HostRecord, HostState, Rejection, RolloutEvent, RolloutRecord, RolloutState,
    Timestamp,
};

use super::entry_lookup::about;
use super::host_counters::RolloutProgress;
use super::{Rollout, RolloutHost};
use crate::host::{ControlEffect, Step};
use crate::rollout;

/// The next version of a rollout record, with the changes so far.
pub(super) struct RolloutUpdate {
    record: RolloutRecord,
    changed: bool,
    progress: RolloutProgress,
    at: Timestamp,
    accepted: Accepted,
}

impl RolloutUpdate {
    pub(super) fn of(rollout: &Rollout, at: Timestamp) -> Self {
        Self::new(
            rollout.record.clone(),
            rollout.counters.progress().clone(),
            at,
        )
    }

    pub(super) fn new(record: RolloutRecord, progress: RolloutProgress, at: Timestamp) -> Self {
        Self {
            record,
            changed: false,
            progress,
            at,
            accepted: Accepted::default(),
        }
    }

    pub(super) fn set_progress(&mut self, progress: RolloutProgress) {
        self.progress = progress;
    }

    pub(super) fn accepted(&mut self) -> &mut Accepted {
        &mut self.accepted
    }

    /// Applies a rollout event to the record and adds it to the outcome.
    pub(super) fn apply_event(&mut self, event: RolloutEvent) -> Result<(), Rejection> {
        let step = rollout::step(&self.record, &event)?;
        self.changed |= step.next != self.record;
        self.record = step.next;
        self.accepted.events.push(event);
        self.accepted.effects.extend(step.effects);
        Ok(())
    }

    /// Adds a step that changed one host's state or expected rollback, and applies it to the rollout.
    pub(super) fn apply_host_step(
        &mut self,
        host: &RolloutHost,
        step: Step<ControlEffect>,
    ) -> Result<(), Rejection> {
        let from = host.record.state;
        let to = step.next.state;
        let accepted = &mut self.accepted;
        accepted.effects.extend(about(host, step.effects));
        if from == HostState::Pending {
            accepted.effects.extend(leave_pending(host));
        }
        let rollback = expected_rollback(&step.next);
        accepted.hosts.push(Arc::new(step.next));
        let hostname = host.record.hostname.clone();
        if !self.record.waived_hosts.contains(&hostname) {
            self.progress = self.progress.after(host, to);
        }
        self.apply_event(RolloutEvent::HostStateChanged {
            rollout_id: self.record.rollout_id.clone(),
            hostname,
            from,
            to,
            rollback,
            at: self.at,
        })
    }

    /// Ends a complete rollout, or reports a done wave that has a successor.
    ///
    /// Level-triggered: derived from the counters, so that the next entry repeats a missed transition.
    pub(super) fn advance_or_finish(&mut self) -> Result<(), Rejection> {
        let rollout_id = self.record.rollout_id.clone();
        let at = self.at;
        if self.record.state.is_running() && self.progress.is_complete() {
            return self.apply_event(RolloutEvent::RolloutTerminal { rollout_id, at });
        }
        let wave = self.record.current_wave;
        let is_done = self.progress.is_wave_done(wave) && self.progress.next_wave(wave).is_some();
        if self.record.state == RolloutState::Active && is_done {
            return self.apply_event(RolloutEvent::WaveAdvanced {
                rollout_id,
                from_wave: wave,
                to_wave: wave,
                at,
            });
        }
        Ok(())
    }

    /// The changes; with the record only when it changed.
    pub(super) fn finish(mut self) -> Accepted {
        if self.changed {
            self.accepted.rollouts.insert(0, self.record);
        }
        self.accepted
    }
}

/// Removes the dispatch and the candidate of a host that leaves Pending.
fn leave_pending(host: &RolloutHost) -> Vec<Effect> {
    let rollout_id = &host.record.rollout_id;
    let hostname = &host.record.hostname;
    let dispatch = host.is_queued().then(|| Effect::RemoveDispatch {
        rollout_id: rollout_id.clone(),
        hostname: hostname.clone(),
    });
    let candidate = host.candidate.then(|| Effect::SetRecoveryCandidate {
        rollout_id: rollout_id.clone(),
        hostname: hostname.clone(),
        current_closure: None,
    });
    dispatch.into_iter().chain(candidate).collect()
}

/// Whether a Failed host will report a rollback; absent for other states.
fn expected_rollback(next: &HostRecord) -> Option<Rollback> {
    if next.state != HostState::Failed {
        return None;
    }
    Some(if next.expects_rollback() {
        Rollback::Expected
    } else {
        Rollback::None
    })
}
