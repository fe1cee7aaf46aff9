//! A simulated machine: closures, probes, network, and the accidents of its [`ClosureBehavior`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, Hostname, ProbeName, ProbeStatus};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::closure_behavior::{ClosureBehavior, Outage, SimulatedCrash};
use crate::profile::{CrashPoint, Failure, Profile};
use nixfleet_agent::activator::Activator;
use nixfleet_agent::core::{ProbeReading, RollbackOutcome, SwitchOutcome};

/// Time from a reboot to a running agent.
const BOOT_TIME: Duration = Duration::from_millis(300);
/// Largest number of pending faults on one host; a closure causes at most one of each kind.
const QUEUED_FAULTS_MAX: usize = 64;

/// The machine under one agent; it outlives the agent's crashes.
#[derive(Debug)]
pub struct SimulatedMachine {
    hostname: Hostname,
    seed: u64,
    profile: Arc<Profile>,
    state: Mutex<State>,
    restarts: mpsc::Sender<AgentRestart>,
    outages: mpsc::Sender<Outage>,
}

#[derive(Debug)]
struct State {
    current: ClosureHash,
    activated_at: Instant,
    staged: Option<ClosureHash>,
    crashed: BTreeSet<ClosureHash>,
    lost_network: BTreeSet<ClosureHash>,
}

/// The agent process exits and restarts.
#[derive(Debug, Clone, Copy)]
pub struct AgentRestart {
    pub after: Duration,
    pub restart_after: Duration,
    /// True when the whole machine reboots into the staged closure.
    pub reboot: bool,
}

/// Faults of a machine, to be injected by its host.
#[derive(Debug)]
pub struct MachineFaults {
    pub restarts: mpsc::Receiver<AgentRestart>,
    pub outages: mpsc::Receiver<Outage>,
}

impl SimulatedMachine {
    /// A machine that runs the profile's initial closure.
    pub fn new(hostname: Hostname, seed: u64, profile: Arc<Profile>) -> (Self, MachineFaults) {
        let (restarts, restarts_out) = mpsc::channel(QUEUED_FAULTS_MAX);
        let (outages, outages_out) = mpsc::channel(QUEUED_FAULTS_MAX);
        let state = State {
            current: profile.initial_closure_of(&hostname),
            activated_at: Instant::now(),
            staged: None,
            crashed: BTreeSet::new(),
            lost_network: BTreeSet::new(),
        };
        let machine = Self {
            hostname,
            seed,
            profile,
            state: Mutex::new(state),
            restarts,
            outages,
        };
        let faults = MachineFaults {
            restarts: restarts_out,
            outages: outages_out,
        };
        (machine, faults)
    }

    /// Boots: a staged closure becomes the running one.
    pub fn boot(&self) {
        let mut state = self.state();
        if let Some(staged) = state.staged.take() {
            state.run(staged);
        }
    }

    pub fn running(&self) -> ClosureHash {
        self.state().current.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, closure: &ClosureHash) -> ClosureBehavior {
        ClosureBehavior::of(&self.profile, self.seed, &self.hostname, closure)
    }

    /// Requests a crash at this point, once per closure; afterwards the future never completes.
    async fn crash_at(&self, point: CrashPoint, outcome: &ClosureBehavior, closure: &ClosureHash) {
        let Some(SimulatedCrash {
            point: at,
            restart_after,
        }) = outcome.crash
        else {
            return;
        };
        if at != point || !self.state().crashed.insert(closure.clone()) {
            return;
        }
        let restart = AgentRestart {
            after: Duration::ZERO,
            restart_after,
            reboot: false,
        };
        // A full queue or a stopped simulation means that this accident does not happen.
        if self.restarts.try_send(restart).is_ok() {
            std::future::pending::<()>().await;
        }
    }

    fn lose_network(&self, outcome: &ClosureBehavior, closure: &ClosureHash) {
        let Some(outage) = outcome.outage else {
            return;
        };
        if self.state().lost_network.insert(closure.clone())
            && self.outages.try_send(outage).is_err()
        {
            tracing::debug!(host = %self.hostname, "outage left out: too many wait");
        }
    }

    async fn switch_to(&self, closure: &ClosureHash) -> SwitchOutcome {
        let outcome = self.outcome(closure);
        self.lose_network(&outcome, closure);
        self.crash_at(CrashPoint::BeforeSwitch, &outcome, closure)
            .await;
        tokio::time::sleep(outcome.switch_time).await;
        if let Some(Failure::Activation { exit_code }) = outcome.failure {
            return SwitchOutcome::Failed {
                exit_code,
                stderr_tail: format!("activating {closure} failed with exit code {exit_code}"),
            };
        }
        let already_runs = self.state().current == *closure;
        if let Some(after) = outcome.reboots_after.filter(|_| !already_runs) {
            let restart = AgentRestart {
                after,
                restart_after: BOOT_TIME,
                reboot: true,
            };
            self.state().staged = Some(closure.clone());
            if self.restarts.try_send(restart).is_ok() {
                return SwitchOutcome::Deferred {
                    component: "kernel".to_owned(),
                };
            }
        }
        self.state().run(closure.clone());
        self.crash_at(CrashPoint::AfterSwitch, &outcome, closure)
            .await;
        SwitchOutcome::Completed {
            observed_closure: closure.clone(),
            exit_code: 0,
        }
    }

    async fn back_to(&self, closure: &ClosureHash) -> RollbackOutcome {
        let left = self.running();
        let outcome = self.outcome(&left);
        tokio::time::sleep(outcome.rollback_time).await;
        self.state().run(closure.clone());
        self.crash_at(CrashPoint::DuringRollback, &outcome, &left)
            .await;
        RollbackOutcome::Completed {
            observed_closure: closure.clone(),
            exit_code: 0,
        }
    }

    fn read_probe(&self, name: &ProbeName) -> ProbeReading {
        let (current, since) = {
            let state = self.state();
            (state.current.clone(), state.activated_at)
        };
        let fails = match self.outcome(&current).failure {
            Some(Failure::Probe {
                probe_name,
                recovers_after_ms,
            }) => {
                probe_name == *name
                    && recovers_after_ms
                        .is_none_or(|ms| since.elapsed() < Duration::from_millis(ms))
            }
            Some(Failure::Activation { .. }) | None => false,
        };
        ProbeReading {
            status: if fails {
                ProbeStatus::Fail
            } else {
                ProbeStatus::Pass
            },
            failure_reason: fails.then(|| format!("{name} does not respond on {current}")),
            sub_results: None,
        }
    }
}

impl State {
    fn run(&mut self, closure: ClosureHash) {
        self.current = closure;
        self.activated_at = Instant::now();
        self.staged = None;
    }
}

impl Activator for SimulatedMachine {
    fn current_closure(&self) -> BoxFuture<'_, ClosureHash> {
        Box::pin(async { self.running() })
    }

    fn switch_method(&self) -> &str {
        "simulated"
    }

    fn switch<'a>(&'a self, closure: &'a ClosureHash) -> BoxFuture<'a, SwitchOutcome> {
        Box::pin(self.switch_to(closure))
    }

    fn roll_back<'a>(&'a self, closure: &'a ClosureHash) -> BoxFuture<'a, RollbackOutcome> {
        Box::pin(self.back_to(closure))
    }

    fn probes(&self) -> BoxFuture<'_, Option<Vec<ProbeDeclaration>>> {
        Box::pin(async { Some(self.profile.probes.clone()) })
    }

    fn probe<'a>(&'a self, name: &'a ProbeName) -> BoxFuture<'a, ProbeReading> {
        Box::pin(async { self.read_probe(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(profile: &str) -> (SimulatedMachine, MachineFaults) {
        let profile = Profile::parse(profile.as_bytes()).unwrap();
        SimulatedMachine::new(Hostname::from("web-01"), 7, Arc::new(profile))
    }

    #[tokio::test(start_paused = true)]
    async fn a_deferred_closure_runs_after_the_reboot() {
        let (machine, mut faults) =
            machine(r#"{"deferral":{"share":1,"rebootAfterMs":{"min":5,"max":5}}}"#);
        let target = ClosureHash::from("b");
        let before = machine.running();
        let outcome = machine.switch(&target).await;
        assert!(matches!(outcome, SwitchOutcome::Deferred { .. }));
        assert_eq!(machine.running(), before);
        assert!(faults.restarts.recv().await.unwrap().reboot);
        machine.boot();
        assert_eq!(machine.running(), target);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_happens_once_per_closure() {
        let (machine, mut faults) = machine(
            r#"{"crash":{"share":1,"points":["after-switch"],"restartAfterMs":{"min":1,"max":1}}}"#,
        );
        let target = ClosureHash::from("b");
        tokio::select! {
            _ = machine.switch(&target) => panic!("the agent must die first"),
            restart = faults.restarts.recv() => assert!(!restart.unwrap().reboot),
        }
        assert_eq!(machine.running(), target, "the switch took");
        let outcome = machine.switch(&target).await;
        assert!(matches!(outcome, SwitchOutcome::Completed { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_fails_on_the_closure_until_it_recovers() {
        let (machine, _accidents) = machine(
            r#"{"failures":[{"closure":"bad","share":1,
                "fails":{"kind":"probe","probeName":"http","recoversAfterMs":1000}}]}"#,
        );
        let name = ProbeName::from("http");
        assert_eq!(machine.probe(&name).await.status, ProbeStatus::Pass);
        machine.switch(&ClosureHash::from("bad")).await;
        assert_eq!(machine.probe(&name).await.status, ProbeStatus::Fail);
        tokio::time::advance(Duration::from_millis(1000)).await;
        assert_eq!(machine.probe(&name).await.status, ProbeStatus::Pass);
    }
}
