//! The machine of a host: running and staged closure, probes.

use nixfleet_agent::core::ProbeReading;
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, Hostname, ProbeMode, ProbeName, ProbeStatus};

use crate::engine::Time;
use crate::scenario::HostShape;
use crate::simulation::closure_behavior::{ActivationResult, ClosureBehavior};

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

    /// How the host behaves on a closure.
    pub fn behavior(&self, closure: &ClosureHash) -> ClosureBehavior {
        ClosureBehavior::of(self.seed, &self.name, closure)
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

    /// Runs a probe: on a closure with failing probes, the first one fails.
    pub fn read(&self, probe: &ProbeName, now: Time) -> ProbeReading {
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
