//! Runs one seed: the attack, the takeover, and the convergence of the fleet.

use std::time::Duration;

use super::attacked_host::AttackedHost;
use super::coverage::Coverage;
use super::genuine_releases::{ATTACK, GenuineRelease, START};
use super::honest_control_plane::HonestControlPlane;
use super::host_event::{HostEvent, HostFault};
use super::run_state::{ControlPlane, RunState};
use crate::engine::trace::Output;
use crate::engine::{Rng, Time, Trace};
use crate::invariant_monitor::Violation;

/// Longest time from the takeover to the convergence of the fleet.
const RECOVERY_MAX: Duration = Duration::from_secs(3_600);
/// Most events of a run; more means that an agent repeats itself without end.
const EVENTS_MAX: u64 = 100_000;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByzantineRun {
    /// The violated invariant.
    pub violation: Option<Violation>,
    /// What was reached.
    pub coverage: Coverage,
    /// Events of the run.
    pub events: u64,
    /// Hash of the trace.
    pub trace_hash: u64,
    /// The trace, when it was kept.
    pub lines: Vec<String>,
}

/// A run in progress.
struct Attack {
    run_state: RunState,
    hosts: Vec<AttackedHost>,
    events: u64,
}

/// Runs a seed.
pub fn run(seed: u64, output: Output) -> ByzantineRun {
    let mut attack = Attack::begin(seed, Trace::new(output));
    attack.play(START + ATTACK);
    attack.raise();
    let Attack {
        mut run_state,
        hosts,
        events,
    } = attack;
    for host in &hosts {
        host.count_walks(&mut run_state);
    }
    ByzantineRun {
        violation: run_state.violation,
        coverage: run_state.coverage,
        events,
        trace_hash: run_state.trace.hash(),
        lines: run_state.trace.kept().to_vec(),
    }
}

/// The command that repeats a run.
pub fn command(seed: u64) -> String {
    format!("cargo xtask sim --byzantine --seed {seed} --trace")
}

impl Attack {
    fn begin(seed: u64, trace: Trace) -> Self {
        let mut run_state = RunState::new(seed, trace);
        let shapes = run_state.genuine.shape.hosts.clone();
        let hosts = shapes.iter().enumerate().map(|(number, shape)| {
            let skew_ms = *run_state.rng.pick(&[0, 0, -20_000, 20_000]);
            AttackedHost::new(number, shape, seed, skew_ms)
        });
        let hosts: Vec<_> = hosts.collect();
        for number in 0..hosts.len() {
            let pause = Duration::from_millis(run_state.rng.below(5_000));
            run_state.schedule(pause, number, HostEvent::Start);
        }
        let mut attack = Self {
            run_state,
            hosts,
            events: 0,
        };
        attack.schedule_faults(seed);
        attack
    }

    /// A few faults of each host.
    fn schedule_faults(&mut self, seed: u64) {
        let mut rng = Rng::new(seed, "faults of hosts");
        for number in 0..self.hosts.len() {
            for _ in 0..rng.below(5) {
                let fault = match rng.below(10) {
                    0..=4 => HostFault::Crash,
                    5..=7 => HostFault::PowerLoss,
                    8 => HostFault::LostDisk,
                    _ => HostFault::Reinstallation,
                };
                let pause = Duration::from_millis(rng.below(ATTACK.as_millis() as u64));
                let event = HostEvent::Fault(fault);
                self.run_state.schedule(pause, number, event);
            }
        }
    }

    fn play(&mut self, until: Time) {
        while self.run_state.now < until && self.run_state.violation.is_none() {
            let Some((number, event)) = self.run_state.next_event() else {
                return;
            };
            self.events += 1;
            if self.events > EVENTS_MAX {
                let message = format!("more than {EVENTS_MAX} events");
                self.run_state.check("bounded", Err(message));
            }
            self.hosts[number].take(event, &mut self.run_state);
        }
    }

    /// An honest control plane takes over, and CI signs a release, or the last one again.
    fn raise(&mut self) {
        let begun = self.run_state.now;
        if let ControlPlane::Hostile(hostile) = &mut self.run_state.control_plane {
            self.run_state.coverage.add(&hostile.coverage);
        }
        self.run_state.crash_rate = 0;
        let release = self.run_state.genuine.sign_last(begun);
        let honest = HonestControlPlane::new(release, begun);
        self.run_state.control_plane = ControlPlane::Honest(Box::new(honest));
        self.run_state
            .trace(format_args!("an honest control plane takes over"));
        let until = begun + RECOVERY_MAX;
        loop {
            if self.run_state.violation.is_some() {
                return;
            }
            let Some(problem) = self.unconverged() else {
                break;
            };
            if self.run_state.now >= until {
                return self.run_state.check("converges", Err(problem));
            }
            self.play(self.run_state.now + Duration::from_secs(5));
        }
        let took = self.run_state.now - begun;
        self.run_state.coverage.recovery_seconds = took.as_secs();
    }

    fn unconverged(&self) -> Option<String> {
        let ControlPlane::Honest(honest) = &self.run_state.control_plane else {
            return None;
        };
        let release: &GenuineRelease = self.run_state.genuine.releases.last()?;
        honest.unconverged(release).or_else(|| {
            self.hosts.iter().find_map(|host| {
                let target = &release.targets.get(&host.name)?.closure;
                let running = host.machine.running();
                (running != target).then(|| format!("{} runs {running}", host.name))
            })
        })
    }
}
