//! The scenario of the demo: a bad release, the reasons of its halt, its fix, and checks of the final
//! state.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nixfleet_audit::database::{self, WaveCount};
use nixfleet_audit::{Check, ObservedState, check};

use crate::args::Args;
use crate::explain;
use crate::fault_injection::FaultInjection;
use crate::final_checks;
use crate::fleet::{self, CHANNELS, Release};
use crate::progress::Progress;
use crate::testbed::Testbed;
use nixfleet_harness::progress_printer::Printer;

/// Interval between two observations.
pub const TICK: Duration = Duration::from_millis(500);

/// Consecutive equal observations after which a halt counts as complete.
const SETTLED_TICKS: u32 = 3;

/// Longest time for the last events to reach the database and the archive.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Share of the hosts with the fixed release at which a fault is injected, in percent.
const DISRUPT_AT_PERCENT: i64 = 30;

#[derive(Debug)]
pub struct ScenarioResult {
    /// Final state of hosts, tables and archive.
    pub observed: ObservedState,
    /// Checks of the final state.
    pub checks: Vec<Check>,
    /// From the first publication to the last convergence.
    pub rollout_time: Duration,
    pub total_time: Duration,
}

impl ScenarioResult {
    /// True when every check holds.
    pub fn holds(&self) -> bool {
        check::all_hold(&self.checks)
    }
}

pub struct Scenario<'a> {
    printer: &'a Printer,
    disruption: Option<FaultInjection>,
}

impl<'a> Scenario<'a> {
    /// The scenario with the disruptions of the options.
    pub fn new(args: &Args, printer: &'a Printer) -> Self {
        Self {
            printer,
            disruption: FaultInjection::from_args(args),
        }
    }

    pub async fn run(&self, testbed: &mut Testbed) -> Result<ScenarioResult> {
        let start = Instant::now();
        self.bad_release(testbed).await?;
        self.explain_halt(testbed).await?;
        self.fixed_release(testbed).await?;
        let rollout_time = start.elapsed();
        self.printer
            .heading("Waiting for the last events to be applied and archived");
        let observed = self.catch_up(testbed).await?;
        let checks = final_checks::all(&observed, &testbed.unexpected_exits);
        Ok(ScenarioResult {
            observed,
            checks,
            rollout_time,
            total_time: start.elapsed(),
        })
    }

    async fn bad_release(&self, testbed: &mut Testbed) -> Result<()> {
        self.printer
            .heading("A release whose closure fails its probe on some hosts");
        let release = testbed.publish(Release::Bad).await?;
        for rollout_id in release.rollouts.values() {
            self.printer
                .line(&format!("signed and published {rollout_id}"));
        }
        testbed.start_swarm(testbed.hosts.hostnames(), fleet::profile()?)?;
        let mut progress = Progress::new(self.printer);
        let mut settled = 0;
        while settled < SETTLED_TICKS {
            let waves = self.poll(testbed, &mut progress).await?;
            settled = if is_halted(&waves) { settled + 1 } else { 0 };
            tokio::time::sleep(TICK).await;
        }
        progress.finish();
        Ok(())
    }

    /// The hosts rolled back, the closure is quarantined, the gated channels were not touched.
    async fn explain_halt(&self, testbed: &mut Testbed) -> Result<()> {
        let waves = database::waves(&testbed.database.url).await?;
        let quarantines = database::quarantines(&testbed.database.url).await?;
        self.printer.heading("The rollout has halted");
        for quarantine in &quarantines {
            self.printer.line(&format!("quarantined: {quarantine}"));
        }
        ensure!(!quarantines.is_empty(), "no closure is quarantined");
        for wave in waves.iter().filter(|wave| wave.channel != CHANNELS[0]) {
            let untouched = wave.hosts.keys().all(|state| state == "Pending");
            ensure!(
                untouched,
                "{} is gated, yet its hosts are {:?}",
                wave.rollout_id,
                wave.hosts
            );
        }
        explain::explain_halt(testbed, self.printer).await
    }

    async fn fixed_release(&self, testbed: &mut Testbed) -> Result<()> {
        self.printer.heading("The fixed release");
        let release = testbed.publish(Release::Fixed).await?;
        let wanted: Vec<String> = release.rollouts.values().map(ToString::to_string).collect();
        for rollout_id in &wanted {
            self.printer
                .line(&format!("signed and published {rollout_id}"));
        }
        let mut progress = Progress::new(self.printer);
        let mut disruption = self.disruption;
        loop {
            let waves = self.poll(testbed, &mut progress).await?;
            if let Some(now) = disruption
                && converged_percent(&waves, &wanted) >= DISRUPT_AT_PERCENT
            {
                disruption = None;
                progress.pause();
                now.inject(testbed, self.printer).await?;
            }
            if is_complete(&waves, &wanted) {
                break;
            }
            tokio::time::sleep(TICK).await;
        }
        ensure!(
            disruption.is_none(),
            "all rollouts were complete before the fault was injected"
        );
        progress.finish();
        Ok(())
    }

    /// Polls until hosts, tables and archive are quiescent, or until the timeout.
    async fn catch_up(&self, testbed: &mut Testbed) -> Result<ObservedState> {
        let start = Instant::now();
        loop {
            testbed.supervise(self.printer)?;
            let swarm = testbed.swarm_state()?;
            let observed = nixfleet_audit::observe(&testbed.database.url, swarm).await?;
            if observed.is_quiescent() || start.elapsed() > CATCH_UP {
                return Ok(observed);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Supervises the processes and reads the waves. There are none while the schema is dropped.
    async fn poll(
        &self,
        testbed: &mut Testbed,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<WaveCount>> {
        testbed.supervise(self.printer)?;
        let waves = database::waves(&testbed.database.url)
            .await
            .unwrap_or_default();
        progress.show(&waves);
        Ok(waves)
    }
}

/// True when the first channel is halted with a reverted host and no host is in flight.
fn is_halted(waves: &[WaveCount]) -> bool {
    let mut edge = waves
        .iter()
        .filter(|wave| wave.channel == CHANNELS[0])
        .peekable();
    edge.peek().is_some()
        && edge.all(|wave| {
            wave.rollout_state == "Reverted"
                && wave
                    .hosts
                    .keys()
                    .all(|state| matches!(state.as_str(), "Pending" | "Converged" | "Reverted"))
        })
}

fn is_complete(waves: &[WaveCount], wanted: &[String]) -> bool {
    wanted.iter().all(|rollout_id| {
        let mut found = waves
            .iter()
            .filter(|wave| wave.rollout_id == *rollout_id)
            .peekable();
        found.peek().is_some() && found.all(|wave| wave.rollout_state == "Terminal")
    })
}

fn converged_percent(waves: &[WaveCount], wanted: &[String]) -> i64 {
    let of_wanted = waves
        .iter()
        .filter(|wave| wanted.contains(&wave.rollout_id));
    let (mut hosts, mut converged) = (0, 0);
    for wave in of_wanted {
        hosts += wave.hosts.values().sum::<i64>();
        converged += wave.hosts.get("Converged").copied().unwrap_or(0);
    }
    if hosts == 0 {
        0
    } else {
        converged * 100 / hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(rollout_id: &str, rollout_state: &str, hosts: &[(&str, i64)]) -> WaveCount {
        WaveCount {
            channel: rollout_id.split('@').next().unwrap().to_owned(),
            rollout_id: rollout_id.to_owned(),
            rollout_state: rollout_state.to_owned(),
            wave: 0,
            hosts: hosts.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        }
    }

    #[test]
    fn a_halt_is_settled_when_no_host_of_the_channel_is_in_flight() {
        for (state, hosts, expected) in [
            ("Reverted", [("Pending", 3), ("Reverted", 1)], true),
            ("Reverted", [("Soaking", 3), ("Reverted", 1)], false),
            ("Active", [("Pending", 3), ("Converged", 1)], false),
        ] {
            assert_eq!(
                is_halted(&[wave("edge@1", state, &hosts)]),
                expected,
                "{state}"
            );
        }
        assert!(!is_halted(&[]));
    }

    #[test]
    fn all_expected_rollouts_must_exist_and_be_terminal() {
        let wanted = ["edge@2".to_owned(), "stable@2".to_owned()];
        let edge = wave("edge@2", "Terminal", &[("Converged", 3)]);
        assert!(!is_complete(std::slice::from_ref(&edge), &wanted));
        let stable = wave("stable@2", "Active", &[("Pending", 1)]);
        assert!(!is_complete(&[edge.clone(), stable.clone()], &wanted));
        assert_eq!(converged_percent(&[edge, stable], &wanted), 75);
    }
}
