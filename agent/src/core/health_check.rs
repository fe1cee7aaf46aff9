//! Probes, and what follows from them: failure after a sustained one, convergence after the soak.
//!
//! Source: docs/semantics.md, convergence invariants.

use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{
    HostEventBody, HostState, ProbeMode, ProbeName, ProbeStatus, RolloutId, Timestamp,
};

use super::probe_tracker::ReportPolicy;
use super::{AgentCore, Command, LocalRollout, ProbeReading};

impl AgentCore {
    /// Discards the probes and lists them again.
    pub(super) fn list_probes(&mut self, id: &RolloutId) {
        if let Some(rollout) = self.rollouts.get_mut(id) {
            let generation = rollout.probes.reset();
            self.commands.push(Command::ListProbes {
                rollout_id: id.clone(),
                generation,
            });
        }
    }

    pub(super) fn probes_listed(
        &mut self,
        id: &RolloutId,
        generation: u64,
        probes: Option<Vec<ProbeDeclaration>>,
        now: Timestamp,
    ) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if rollout.replaced || !rollout.probes.awaits_listing(generation) {
            return;
        }
        // An unreadable list declares no probes, and the missing declaration blocks convergence: a host
        // must not converge because its checks are missing.
        let Some(probes) = probes else {
            let due = now + self.config.probe_interval;
            return rollout.probes.list_again_at(due);
        };
        rollout.probes.declare(&probes, now);
        let body = HostEventBody::ProbeTopologyDeclared {
            probes,
            declared_at: now,
        };
        self.observe(id, body, now);
    }

    pub(super) fn probe_ran(
        &mut self,
        id: &RolloutId,
        generation: u64,
        ran: (&ProbeName, ProbeReading),
        now: Timestamp,
    ) {
        let schedule = (now, self.config.probe_interval);
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if rollout.replaced || rollout.probes.generation() != generation {
            return;
        }
        // A converged host reports only changes, so that an idle fleet writes no events.
        let report = match rollout.record.state {
            HostState::Converged => ReportPolicy::Changes,
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Failed
            | HostState::Reverted => ReportPolicy::Every,
        };
        let (name, reading) = ran;
        for body in rollout.probes.take_reading(name, reading, schedule, report) {
            self.observe(id, body, now);
        }
    }

    /// Runs what is due and draws the conclusions.
    pub(super) fn check_health(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if let Some(generation) = rollout.probes.take_due_listing(now) {
            self.commands.push(Command::ListProbes {
                rollout_id: id.clone(),
                generation,
            });
        }
        for (generation, probe_name) in rollout.probes.take_due(now) {
            self.commands.push(Command::RunProbe {
                rollout_id: id.clone(),
                generation,
                probe_name,
            });
        }
        if rollout.record.state != HostState::Soaking {
            return;
        }
        if let Some(body) = self.sustained_failure(id, now) {
            self.observe(id, body, now);
        } else if self.may_converge(id, now) {
            let body = HostEventBody::Converged {
                converged_at: now,
                current_closure: self.current_closure().clone(),
            };
            self.observe(id, body, now);
        }
    }

    fn sustained_failure(&self, id: &RolloutId, now: Timestamp) -> Option<HostEventBody> {
        let rollout = self.rollouts.get(id)?;
        let (since, failing_probes) = rollout.probes.failing_enforced()?;
        let lasted = now - since;
        if lasted < self.config.sustained_failure {
            return None;
        }
        Some(HostEventBody::Failed {
            failed_at: now,
            sustained_duration_secs: u64::try_from(lasted.num_seconds()).unwrap_or(0),
            failing_probes,
            policy_applied: rollout.on_health_failure,
        })
    }

    fn may_converge(&self, id: &RolloutId, now: Timestamp) -> bool {
        self.rollouts.get(id).is_some_and(|rollout| {
            rollout.record.target_closure == *self.current_closure()
                && soak_elapsed(rollout, now)
                && probes_pass(rollout)
        })
    }

    /// Time at which [`Self::check_health`] may decide without another probe result.
    pub(super) fn health_due(&self, rollout: &LocalRollout) -> Option<Timestamp> {
        if rollout.record.state != HostState::Soaking {
            return None;
        }
        let failure = rollout
            .probes
            .failing_enforced()
            .map(|(since, _)| since + self.config.sustained_failure);
        let on_target = rollout.record.target_closure == *self.current_closure();
        let soak = rollout
            .record
            .soak_due_at
            .filter(|_| on_target && probes_pass(rollout));
        failure.into_iter().chain(soak).min()
    }
}

fn soak_elapsed(rollout: &LocalRollout, now: Timestamp) -> bool {
    rollout.record.soak_due_at.is_some_and(|due| due <= now)
}

/// True when the probes are declared and every enforce probe passed since the activation.
fn probes_pass(rollout: &LocalRollout) -> bool {
    let record = &rollout.record;
    record.declared_probes.as_ref().is_some_and(|declared| {
        declared
            .iter()
            .filter(|probe| probe.mode == ProbeMode::Enforce)
            .all(|probe| {
                record
                    .probes
                    .get(&probe.probe_name)
                    .is_some_and(|seen| seen.status == ProbeStatus::Pass)
            })
    })
}
