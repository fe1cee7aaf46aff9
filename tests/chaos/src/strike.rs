//! Breaking things and mending them again.

mod logs;

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use nixfleet_harness::{Mode, Service, wait_for};
use nixfleet_proto::Timestamp;

use crate::fault::{Break, Fault, Kind, Scope, Server, Target};
use crate::world::{Which, World};
use logs::Limits;

/// Longest time a stopped process may take; services drain for at most 25 s.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// Delay of every piece between Postgres and its clients: a statement takes several of them.
const SLOW: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(150)];

/// How a process was taken from its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// `kill -9`.
    Killed,
    /// SIGTERM.
    Stopped,
    /// SIGSTOP.
    Paused,
}

/// A process that was taken from its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// The process.
    pub which: Which,
    /// How.
    pub how: How,
    /// When the signal was sent.
    pub at: Timestamp,
}

/// A fault that is there.
pub struct Struck {
    fault: Fault,
    /// Processes it took from their work.
    pub victims: Vec<Victim>,
    limits: Option<Limits>,
}

/// Breaks it.
///
/// # Errors
/// When it cannot be broken.
pub async fn strike(world: &mut World, mut fault: Fault) -> Result<Struck> {
    if let Kind::Kill(target) | Kind::Stop(target) | Kind::Pause(target) = fault.kind {
        fault.number = world.rank(target)[fault.number];
    }
    let mut struck = Struck {
        fault,
        victims: Vec::new(),
        limits: None,
    };
    match fault.kind {
        Kind::Kill(target) => struck.victims = take(world, (target, fault.number), How::Killed)?,
        Kind::Stop(target) => struck.victims = take(world, (target, fault.number), How::Stopped)?,
        Kind::Pause(target) => struck.victims = take(world, (target, fault.number), How::Paused)?,
        Kind::KillNats => world.nats.kill()?,
        Kind::KillPostgres => world.postgres.kill()?,
        Kind::QuitPostgres => world.postgres.quit()?,
        Kind::FullInput => struck.limits = Some(Limits::tighten(&world.nats.url(), "_IN_").await?),
        Kind::FullOutput => {
            struck.limits = Some(Limits::tighten(&world.nats.url(), "_OUT_").await?);
        }
        Kind::FullDisk => {
            // Either nothing can be written at all, or the largest log breaks off in the middle of
            // its next message.
            let most = match fault.number {
                0 => 0,
                _ => world.nats.largest_block()? + 100,
            };
            world.nats.limit_files(Some(most))?;
        }
        Kind::SlowPostgres => {
            let slow = Mode::Slow(SLOW[fault.number % SLOW.len()]);
            world.set_ways(Server::Postgres, (Scope::All, 0), slow);
        }
        Kind::Sever(server, how) => {
            let mode = match how {
                Break::Cut => Mode::Cut,
                Break::Stall => Mode::Stalled,
                Break::Deaf => Mode::Deaf,
            };
            world.set_ways(server, (fault.scope, fault.number), mode);
        }
    }
    Ok(struck)
}

impl Struck {
    /// What it is.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Mends it, and says what must not have happened on the way.
    ///
    /// # Errors
    /// When something does not start again.
    pub async fn mend(self, world: &mut World) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        match self.fault.kind {
            Kind::Kill(_) => {
                for victim in &self.victims {
                    start(world, victim.which)?;
                }
            }
            Kind::Stop(_) => faults = self.start_stopped(world).await?,
            Kind::Pause(_) => {
                for victim in &self.victims {
                    let (service, number) = victim.which;
                    world.stack.instance(service, number)?.resume()?;
                    world.down.remove(&victim.which);
                }
            }
            Kind::KillNats => world.nats.restart()?,
            Kind::KillPostgres | Kind::QuitPostgres => world.postgres.restart()?,
            Kind::FullInput | Kind::FullOutput => {
                let limits = self.limits.context("the limits are known")?;
                limits.restore().await?;
            }
            Kind::FullDisk => {
                world.nats.limit_files(None)?;
                // nats-server does not write to a log again in which it failed once.
                world.nats.restart()?;
            }
            Kind::SlowPostgres => {
                world.set_ways(Server::Postgres, (Scope::All, 0), Mode::Pass);
            }
            Kind::Sever(server, _) => {
                let whom = (self.fault.scope, self.fault.number);
                world.set_ways(server, whom, Mode::Pass);
            }
        }
        Ok(faults)
    }

    /// Starts processes that were asked to stop, once they have.
    async fn start_stopped(&self, world: &mut World) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        for victim in &self.victims {
            let (service, number) = victim.which;
            let instance = world.stack.instance(service, number)?;
            let name = instance.name();
            let what = format!("the end of {name}");
            let ended = wait_for(&what, STOP_PATIENCE, async || instance.ended()).await;
            match ended {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    faults.push(format!("{name} was asked to stop and ended with {status}"));
                }
                Err(error) => {
                    faults.push(format!("{error:#}"));
                    instance.kill()?;
                }
            }
            start(world, victim.which)?;
        }
        Ok(faults)
    }
}

/// Takes processes from their work.
fn take(world: &mut World, (target, number): (Target, usize), how: How) -> Result<Vec<Victim>> {
    let services = match target {
        Target::Node => Service::ALL.to_vec(),
        Target::One(service) => vec![service],
    };
    let mut victims = Vec::new();
    for service in services {
        let which = (service, number);
        world.down.insert(which);
        let instance = world.stack.instance(service, number)?;
        let at = Utc::now();
        match how {
            How::Killed => instance.kill()?,
            How::Stopped => instance.ask_to_stop()?,
            How::Paused => instance.pause()?,
        }
        victims.push(Victim { which, how, at });
    }
    Ok(victims)
}

fn start(world: &mut World, which: Which) -> Result<()> {
    let (service, number) = which;
    world.stack.instance(service, number)?.restart()?;
    world.down.remove(&which);
    Ok(())
}
