//! The machine of a host: running and staged closure, probes.

use std::time::Duration;

use nixfleet_agent::core::{Input, ProbeReading, RollbackOutcome, SwitchOutcome};
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, Hostname, ProbeMode, ProbeName, ProbeStatus, RolloutId};

use crate::engine::Time;
use crate::scenario::HostShape;
use crate::simulation::closure_behavior::{ActivationResult, ClosureBehavior};

/// Time to list the probes.
pub const PROBE_LIST_TIME: Duration = Duration::from_millis(20);
/// Time to run a probe.
pub const PROBE_TIME: Duration = Duration::from_millis(60);

/// The machine.
#[derive(Debug)]
pub struct Machine {
    name: Hostname,
    shape: HostShape,
    seed: u64,
    running: ClosureHash,
    since: Time,
    /// The closure of the next boot.
    pub staged: Option<ClosureHash>,
}

impl Machine {
    /// A machine on its first closure.
    pub fn new(shape: &HostShape, seed: u64) -> Self {
        Self {
            name: shape.hostname(),
            shape: shape.clone(),
            seed,
            running: ClosureHash::from("installed"),
            since: Time::ZERO,
            staged: None,
        }
    }

    /// The running closure.
    pub fn running(&self) -> &ClosureHash {
        &self.running
    }

    /// Runs the staged closure.
    pub fn boot(&mut self, now: Time) {
        if let Some(staged) = self.staged.take() {
            self.run(staged, now);
        }
    }

    /// Runs a closure.
    pub fn run(&mut self, closure: ClosureHash, now: Time) {
        self.running = closure;
        self.since = now;
        self.staged = None;
    }

    /// Finishes a switch, whether or not the agent still runs. With the outcome comes the time until the reboot
    /// that a deferred switch needs.
    pub fn finish_switch(
        &mut self,
        closure: ClosureHash,
        now: Time,
    ) -> (SwitchOutcome, Option<Duration>) {
        let runs = self.running == closure;
        match self.behavior(&closure).result {
            ActivationResult::SwitchFails => {
                let outcome = SwitchOutcome::Failed {
                    exit_code: 1,
                    stderr_tail: "no".to_owned(),
                };
                (outcome, None)
            }
            ActivationResult::Deferred(after) if !runs => {
                self.staged = Some(closure);
                let component = "kernel".to_owned();
                (SwitchOutcome::Deferred { component }, Some(after))
            }
            ActivationResult::Healthy
            | ActivationResult::ProbeFails(_)
            | ActivationResult::Deferred(_) => {
                if !runs {
                    self.run(closure.clone(), now);
                }
                // A switch makes its closure the one of the next boot, also where that runs already.
                self.staged = None;
                let outcome = SwitchOutcome::Completed {
                    observed_closure: closure,
                    exit_code: 0,
                };
                (outcome, None)
            }
        }
    }

    /// Finishes a rollback, whether or not the agent still runs.
    pub fn finish_rollback(
        &mut self,
        closure: ClosureHash,
        fails: bool,
        now: Time,
    ) -> RollbackOutcome {
        if fails {
            let message = "no".to_owned();
            return RollbackOutcome::Failed { message };
        }
        self.run(closure.clone(), now);
        RollbackOutcome::Completed {
            observed_closure: closure,
            exit_code: 0,
        }
    }

    /// The declared probes, as the agent is told.
    pub fn list_probes(&self, rollout_id: RolloutId, generation: u64) -> Input {
        Input::ProbesListed {
            rollout_id,
            generation,
            probes: Some(self.probes()),
        }
    }

    /// Runs a probe, as the agent is told.
    pub fn run_probe(
        &self,
        (rollout_id, generation): (RolloutId, u64),
        probe_name: ProbeName,
        now: Time,
    ) -> Input {
        Input::ProbeRan {
            rollout_id,
            generation,
            reading: self.read(&probe_name, now),
            probe_name,
        }
    }

    /// How the host behaves on a closure.
    pub fn behavior(&self, closure: &ClosureHash) -> ClosureBehavior {
        ClosureBehavior::of(self.seed, &self.name, closure)
    }

    /// The declared probes.
    fn probes(&self) -> Vec<ProbeDeclaration> {
        let declare = |name: String, mode| ProbeDeclaration {
            probe_name: ProbeName::from(name),
            kind: "http".to_owned(),
            mode,
        };
        let enforced = (0..self.shape.enforced)
            .map(|number| declare(format!("check-{number}"), ProbeMode::Enforce));
        let observed = self.shape.observed;
        let observed = observed.then(|| declare("watch".to_owned(), ProbeMode::Observe));
        enforced.chain(observed).collect()
    }

    /// Runs a probe: on a closure with failing probes, the first one fails.
    fn read(&self, probe: &ProbeName, now: Time) -> ProbeReading {
        let is_first = probe.as_str() == "check-0";
        let fails = match self.behavior(&self.running).result {
            ActivationResult::ProbeFails(None) => is_first,
            ActivationResult::ProbeFails(Some(time)) => is_first && now < self.since + time,
            ActivationResult::Healthy
            | ActivationResult::SwitchFails
            | ActivationResult::Deferred(_) => false,
        };
        let status = |fails| {
            if fails {
                ProbeStatus::Fail
            } else {
                ProbeStatus::Pass
            }
        };
        let control = |id: &str, fails| SubResult {
            control_id: id.to_owned(),
            status: status(fails),
            framework: "cis".to_owned(),
            article: None,
            effective_mode: ProbeMode::Enforce,
            override_reason: None,
        };
        let evidence = is_first && self.shape.evidence;
        ProbeReading {
            status: status(fails),
            failure_reason: fails.then(|| "sick".to_owned()),
            sub_results: evidence.then(|| vec![control("c1", fails), control("c2", false)]),
        }
    }
}
