//! `nixfleet-chaos`: breaks real servers and services under load, and checks that nothing is lost or
//! done twice.
//!
//! It starts everything itself, breaks it by a schedule that follows from a seed, and at the end holds
//! the hosts, the logs, a replay of them, the tables and the archive against each other. It must never
//! mend anything by means that an operator or a supervisor would not have. Start reading at
//! [`schedule`], [`strike`] and [`verdict`].
//!
//! Exit codes: 0 everything holds, 1 something does not, 2 wrong options, 130 interrupted.

mod accounts;
mod archive;
mod args;
mod conduct;
mod fault;
mod fleet;
mod incident;
mod log_sizes;
mod logs;
mod publisher;
mod recorder;
mod replay;
mod report;
mod sampler;
mod schedule;
mod settle;
mod strike;
mod verdict;
mod verified;
mod waits;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::Args;
use fleet::Hosts;
use nixfleet_harness::program;
use nixfleet_harness::say::Say;
use publisher::Publisher;
use recorder::Recorder;
use sampler::{Sampler, Windows};
use verdict::Evidence;
use world::World;

fn main() -> ExitCode {
    let args = Args::parse();
    let say = Say::new(args.json);
    program::run("chaos", say, chaos(&args, say))
}

async fn chaos(args: &Args, say: Say) -> Result<bool> {
    let hosts = Hosts::new(args.hosts);
    let mut world = World::start(args, &hosts, say).await?;
    for line in world.addresses() {
        say.line(&line);
    }
    let ran = under_fire(args, hosts, &mut world, say).await;
    if args.keep {
        if let Err(error) = &ran {
            say.line(&format!("failed: {error:#}"));
        }
        say.line("everything keeps running until Ctrl-C");
        std::future::pending::<()>().await;
    }
    let holds = ran?;
    world.stop().context("stopping everything")?;
    Ok(holds)
}

/// The run and its judgement; false when something does not hold.
async fn under_fire(args: &Args, hosts: Hosts, world: &mut World, say: Say) -> Result<bool> {
    let bus = logs::connect(world.nats.url()).await?;
    let mut recorder = Recorder::start(bus.clone(), say);
    let publisher = Publisher::start(hosts, world.operators()?, args.seed)?;
    let sampler = Sampler::start(Windows {
        swarm_port: world.swarm_port(),
        nats_port: world.nats.monitor_port(),
        database_url: world.database.url.clone(),
    });
    let course = tokio::select! {
        course = conduct::run(world, &sampler, (args, say)) => course?,
        // Without a log the run shows nothing.
        error = recorder.failed() => return Err(error),
    };
    say.now("the last release");
    let published = publisher.finish().await?;
    let (facts, open) = settle::settle(world, say).await?;
    let samples = sampler.finish().await?;
    let logs = recorder.finish().await?;
    say.now("comparing hosts, logs, replay, tables and archive");
    let evidence = Evidence {
        facts,
        open,
        incidents: course.incidents,
        faults: course.faults,
        samples,
        logs,
        log_limit: args.log_limit(),
    };
    let verdict = verdict::judge(world, &bus, evidence).await?;
    bus.close().await;
    report::print(&verdict, &published, (args, say))?;
    Ok(verdict.holds())
}
