//! Injection and repair of faults.

mod stream_limits;

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{TimeDelta, Utc};
use nixfleet_harness::{ProxyMode, Service, wait_for};
use nixfleet_proto::Timestamp;

use crate::fault::{CLOCK_STEP, ConnectionFailure, Fault, FaultScope, Kind, Server, Target};
use crate::testbed::{InstanceId, Testbed};
use stream_limits::StreamLimits;

/// Longest time for a process to stop; services drain for at most 25 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Delays of a chunk between Postgres and its clients; a statement takes several chunks.
const SLOW: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(150)];

/// How a process was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interruption {
    /// `kill -9`.
    Killed,
    /// SIGTERM.
    Stopped,
    /// SIGSTOP.
    Paused,
}

/// An interrupted process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterruptedProcess {
    /// The process.
    pub id: InstanceId,
    /// The interruption.
    pub interruption: Interruption,
    /// Time of the signal.
    pub at: Timestamp,
}

/// An injected fault.
pub struct InjectedFault {
    fault: Fault,
    /// Processes that the fault interrupted.
    pub interrupted: Vec<InterruptedProcess>,
    limits: Option<StreamLimits>,
}

/// Injects a fault.
///
/// # Errors
/// When the fault cannot be injected.
pub async fn inject(testbed: &mut Testbed, mut fault: Fault) -> Result<InjectedFault> {
    if let Kind::Kill(target) | Kind::Stop(target) | Kind::Pause(target) = fault.kind {
        fault.number = testbed.instances_by_load(target)[fault.number];
    }
    let mut injected = InjectedFault {
        fault,
        interrupted: Vec::new(),
        limits: None,
    };
    match fault.kind {
        Kind::Kill(target) => {
            injected.interrupted = take(testbed, (target, fault.number), Interruption::Killed)?
        }
        Kind::Stop(target) => {
            injected.interrupted = take(testbed, (target, fault.number), Interruption::Stopped)?
        }
        Kind::Pause(target) => {
            injected.interrupted = take(testbed, (target, fault.number), Interruption::Paused)?
        }
        Kind::KillNats => testbed.nats.kill()?,
        Kind::KillPostgres => testbed.postgres.kill()?,
        Kind::QuitPostgres => testbed.postgres.quit()?,
        Kind::FullInput => injected.limits = Some(StreamLimits::lower(testbed, "_IN_").await?),
        Kind::FullOutput => {
            injected.limits = Some(StreamLimits::lower(testbed, "_OUT_").await?);
        }
        Kind::FullDisk => {
            // Either all writes fail, or the largest log fails in the middle of its next message.
            let most = match fault.number {
                0 => 0,
                _ => testbed.nats.largest_message_block()? + 100,
            };
            testbed.nats.limit_file_size(Some(most))?;
        }
        Kind::SlowPostgres => {
            let slow = ProxyMode::Slow(SLOW[fault.number % SLOW.len()]);
            testbed.set_proxy_mode(Server::Postgres, (FaultScope::All, 0), slow);
        }
        Kind::StepClock => {
            let step = match fault.number {
                0 => CLOCK_STEP,
                _ => -CLOCK_STEP,
            };
            testbed.gateway_clocks[fault.number].step(step)?;
        }
        Kind::BreakConnection(server, failure) => {
            let mode = match failure {
                ConnectionFailure::Cut => ProxyMode::Cut,
                ConnectionFailure::Stall => ProxyMode::Stalled,
                ConnectionFailure::HoldReplies => ProxyMode::HoldReplies,
            };
            testbed.set_proxy_mode(server, (fault.scope, fault.number), mode);
        }
    }
    Ok(injected)
}

impl InjectedFault {
    /// The fault.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Repairs the fault and returns violations.
    ///
    /// # Errors
    /// When a process or server does not start again.
    pub async fn repair(self, testbed: &mut Testbed) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        match self.fault.kind {
            Kind::Kill(_) => {
                for process in &self.interrupted {
                    start(testbed, process.id)?;
                }
            }
            Kind::Stop(_) => faults = self.start_stopped(testbed).await?,
            Kind::Pause(_) => {
                for process in &self.interrupted {
                    let InstanceId { service, number } = process.id;
                    testbed.stack.instance(service, number)?.resume()?;
                    testbed.down.remove(&process.id);
                }
            }
            Kind::KillNats => testbed.nats.restart()?,
            Kind::KillPostgres | Kind::QuitPostgres => testbed.postgres.restart()?,
            Kind::FullInput | Kind::FullOutput => {
                let limits = self.limits.context("the limits are known")?;
                limits.restore().await?;
            }
            Kind::FullDisk => {
                testbed.nats.limit_file_size(None)?;
                // After a failed write nats-server refuses to write to that log until it is restarted.
                testbed.nats.restart()?;
            }
            Kind::SlowPostgres => {
                testbed.set_proxy_mode(Server::Postgres, (FaultScope::All, 0), ProxyMode::Pass);
            }
            Kind::StepClock => {
                testbed.gateway_clocks[self.fault.number].step(TimeDelta::zero())?;
            }
            Kind::BreakConnection(server, _) => {
                let whom = (self.fault.scope, self.fault.number);
                testbed.set_proxy_mode(server, whom, ProxyMode::Pass);
            }
        }
        Ok(faults)
    }

    /// Waits for the end of processes that were asked to stop, and restarts them.
    async fn start_stopped(&self, testbed: &mut Testbed) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for process in &self.interrupted {
            let InstanceId { service, number } = process.id;
            let instance = testbed.stack.instance(service, number)?;
            let name = instance.name();
            let what = format!("the end of {name}");
            let ended = wait_for(&what, STOP_TIMEOUT, async || instance.exit_status()).await;
            match ended {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    faults.push(format!("{name} was stopped and exited with {status}"));
                }
                Err(error) => {
                    faults.push(format!("{error:#}"));
                    instance.kill()?;
                }
            }
            start(testbed, process.id)?;
        }
        Ok(faults)
    }
}

/// Interrupts the processes of a target.
fn take(
    testbed: &mut Testbed,
    (target, number): (Target, usize),
    interruption: Interruption,
) -> Result<Vec<InterruptedProcess>> {
    let services = match target {
        Target::Node => Service::ALL.to_vec(),
        Target::One(service) => vec![service],
    };
    let mut interrupted = Vec::new();
    for service in services {
        let id = InstanceId { service, number };
        testbed.down.insert(id);
        let instance = testbed.stack.instance(service, number)?;
        let at = Utc::now();
        match interruption {
            Interruption::Killed => instance.kill()?,
            Interruption::Stopped => instance.request_stop()?,
            Interruption::Paused => instance.pause()?,
        }
        interrupted.push(InterruptedProcess {
            id,
            interruption,
            at,
        });
    }
    Ok(interrupted)
}

fn start(testbed: &mut Testbed, id: InstanceId) -> Result<()> {
    let InstanceId { service, number } = id;
    testbed.stack.instance(service, number)?.restart()?;
    testbed.down.remove(&id);
    Ok(())
}
