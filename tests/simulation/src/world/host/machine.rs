//! The machine under an agent: closures, switches, probes.

use nixfleet_agent::core::{Input, ProbeReading, RollbackOutcome, SwitchOutcome};
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, Hostname, ProbeMode, ProbeName, ProbeStatus, RolloutId};

use super::super::env::Env;
use super::super::event::{AtHost, Event};
use super::super::fate::{Ending, Fate};
use super::Host;
use crate::engine::Time;
use crate::scenario::HostShape;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    name: Hostname,
    shape: HostShape,
    seed: u64,
    running: ClosureHash,
    since: Time,
    staged: Option<ClosureHash>,
}

impl Machine {
    /// A machine on its first closure.
    pub fn new(shape: &HostShape, seed: u64) -> Self {
        Self {
            name: Hostname::from(shape.name.as_str()),
            shape: shape.clone(),
            seed,
            running: ClosureHash::from("installed"),
            since: Time::ZERO,
            staged: None,
        }
    }

    /// What runs.
    pub fn running(&self) -> &ClosureHash {
        &self.running
    }

    /// What was staged runs from here on.
    pub fn boot(&mut self, now: Time) {
        if let Some(staged) = self.staged.take() {
            self.run(staged, now);
        }
    }

    fn run(&mut self, closure: ClosureHash, now: Time) {
        self.running = closure;
        self.since = now;
        self.staged = None;
    }

    fn fate(&self, closure: &ClosureHash) -> Fate {
        Fate::of(self.seed, &self.name, closure)
    }

    /// The declared probes.
    pub fn probes(&self) -> Vec<ProbeDeclaration> {
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

    /// Runs a probe: the first one fails where the closure is sick.
    pub fn read(&self, probe: &ProbeName, now: Time) -> ProbeReading {
        let is_first = probe.as_str() == "check-0";
        let fails = match self.fate(&self.running).ends {
            Ending::Sick(None) => is_first,
            Ending::Sick(Some(time)) => is_first && now < self.since + time,
            Ending::Good | Ending::Fails | Ending::Deferred(_) => false,
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

impl Host {
    pub(super) fn switch(&mut self, rollout_id: RolloutId, closure: ClosureHash, env: &mut Env) {
        let takes = self.machine.fate(&closure).takes;
        env.trace(format_args!("{} switches to {closure}", self.name));
        let event = AtHost::Switched(self.life, rollout_id, closure);
        env.plan(takes, Event::Host(self.id, event));
    }

    /// The machine finishes what an agent began, dead or alive.
    pub(super) fn switched(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Env,
    ) {
        let runs = *self.machine.running() == closure;
        let outcome = match self.machine.fate(&closure).ends {
            Ending::Fails => SwitchOutcome::Failed {
                exit_code: 1,
                stderr_tail: "no".to_owned(),
            },
            Ending::Deferred(after) if !runs => {
                self.machine.staged = Some(closure);
                env.plan(after, Event::Host(self.id, AtHost::Reboot));
                SwitchOutcome::Deferred {
                    component: "kernel".to_owned(),
                }
            }
            Ending::Good | Ending::Sick(_) | Ending::Deferred(_) => {
                if !runs {
                    self.machine.run(closure.clone(), env.now);
                }
                SwitchOutcome::Completed {
                    observed_closure: closure,
                    exit_code: 0,
                }
            }
        };
        if life == self.life {
            let input = Input::SwitchEnded {
                rollout_id,
                outcome,
            };
            self.feed(input, env);
        }
    }

    pub(super) fn roll_back(&mut self, rollout_id: RolloutId, closure: ClosureHash, env: &mut Env) {
        let takes = self.machine.fate(&closure).takes;
        env.trace(format_args!("{} goes back to {closure}", self.name));
        let event = AtHost::RolledBack(self.life, rollout_id, closure);
        env.plan(takes, Event::Host(self.id, event));
    }

    pub(super) fn rolled_back(
        &mut self,
        life: u32,
        rollout_id: RolloutId,
        closure: ClosureHash,
        env: &mut Env,
    ) {
        let outcome = if env.strikes(env.noise.rollback_fails) {
            RollbackOutcome::Failed {
                message: "no".to_owned(),
            }
        } else {
            self.machine.run(closure.clone(), env.now);
            RollbackOutcome::Completed {
                observed_closure: closure,
                exit_code: 0,
            }
        };
        if life == self.life {
            let input = Input::RollbackEnded {
                rollout_id,
                outcome,
            };
            self.feed(input, env);
        }
    }
}
