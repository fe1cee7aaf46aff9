//! Stage `flood`: latency of other hosts' events while one host floods the gateway, with the limits of production.

use std::time::Duration;

use anyhow::Result;
use nixfleet_harness::FloodingHost;
use tokio::sync::watch;

use super::agent_events::AgentEvents;
use super::control_plane::ControlPlane;
use super::load_generator::{self, Agent, LoadPlan};
use super::release;
use super::{Options, progress};
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::SyntheticFleet;

const STAGE: &str = "flood";
/// Other hosts, each with its certificate and its connection.
const AGENTS: usize = 100;
/// Events per second of all other hosts: a fifth of what the limits of production grant each of them.
const RATE: f64 = 1_000.0;
/// Connections of the flooding host, each with one request open.
const CONNECTIONS: usize = 8;
/// Target: the 99th percentile with the flood, divided by that without.
const TARGET: f64 = 1.5;

#[derive(Default)]
struct Samples {
    flooded: Vec<f64>,
    quiet: Vec<f64>,
    notes: Vec<String>,
}

/// The 99th percentile of the responses to other hosts, with the flood and without it in turn.
///
/// # Errors
/// When a server or program is missing, or an event of another host is refused.
pub async fn run(options: Options) -> Result<Vec<Measurement>> {
    let release = release::build(&release::shape_of(AGENTS + 1))?;
    let control_plane = ControlPlane::start_with_default_limits().await?;
    control_plane.announce(&release).await?;
    let fleet = &release.fleet;
    let events = (0..AGENTS).map(|number| AgentEvents::of(fleet, number));
    let mut agents = control_plane.agents(events.collect()).await?;
    let time = Duration::from_secs(options.seconds);
    let mut samples = Samples::default();
    for round in 0..options.rounds {
        // The order alternates: the second load runs with more pending writes.
        for is_flooded in [round % 2 == 1, round % 2 == 0] {
            if is_flooded {
                let host = flood(&control_plane, fleet)?;
                let p99 = p99(&mut agents, time).await?;
                samples.flooded.push(p99);
                samples.notes.push(format!("{:?}", host.finish().await?));
            } else {
                samples.quiet.push(p99(&mut agents, time).await?);
            }
        }
        progress!(
            "{STAGE} {}/{}: p99 {:.1} ms, without the flood {:.1} ms; {}",
            round + 1,
            options.rounds,
            samples.flooded[round],
            samples.quiet[round],
            samples.notes[round],
        );
    }
    drop(agents);
    control_plane.stop()?;
    let name = "p99 of other hosts' events during a flood";
    let measurement = Measurement::new(STAGE, name, "ms", samples.flooded)
        .against("without the flood", samples.quiet)
        .target(Target::RatioAtMost(TARGET))
        .noting(samples.notes);
    Ok(vec![measurement])
}

fn flood(control_plane: &ControlPlane, fleet: &SyntheticFleet) -> Result<FloodingHost> {
    let (_, rollout) = watch::channel(Some(fleet.rollout_id.clone()));
    let authority = &control_plane.testbed.config.authority;
    let hostname = &fleet.pinned.host_set[AGENTS].hostname;
    FloodingHost::start(
        (&[control_plane.url()], authority),
        hostname,
        &rollout,
        CONNECTIONS,
    )
}

async fn p99(agents: &mut Vec<Agent>, time: Duration) -> Result<f64> {
    let plan = LoadPlan {
        events: 1,
        time,
        rate: Some(RATE),
    };
    let load_result = load_generator::run(agents, AGENTS, plan).await?;
    Ok(load_result.quantile(0.99))
}
