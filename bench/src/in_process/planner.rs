//! The planner by itself: a view in memory, plans out of it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use nixfleet_core::partition::PartitionState;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_plan::{FleetView, Release, plan};
use nixfleet_proto::fleet::{Channel, Fleet as FleetDocument, ManifestHost, Meta, RolloutManifest};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Entry, EntryBody, HostState, Outcome, PlanAction, Position, StoredAt, Timestamp,
};

use super::applied_rows::snapshot_of;
use crate::cpu_time::cpu_timed;
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::{SyntheticFleet, at};
use crate::workload::{EPOCH, Workload};

/// Target in milliseconds for the release of a wave of 100,000 hosts.
const RELEASE_TARGET: f64 = 250.0;
/// Target in milliseconds for a run without work for a million hosts.
const TICK_TARGET: f64 = 1.0;

/// Measurements of every size of fleet.
pub fn run(sizes: &[usize], rounds: usize) -> Result<Vec<Measurement>> {
    let mut measurements = Vec::new();
    for hosts in sizes {
        let rounds = if *hosts > 200_000 {
            rounds.min(3)
        } else {
            rounds
        };
        measurements.extend(of(*hosts, rounds)?);
    }
    Ok(measurements)
}

#[derive(Default)]
struct Samples {
    release: Vec<f64>,
    follow: Vec<f64>,
    pass: Vec<f64>,
    load: Vec<f64>,
    held: Vec<f64>,
    steady: Vec<f64>,
}

/// A fleet whose second wave has the given number of hosts and may start; the third wave has as many.
fn of(hosts: usize, rounds: usize) -> Result<Vec<Measurement>> {
    let fleet = SyntheticFleet::new(&[(hosts / 100).max(1), hosts, hosts]);
    let mut samples = Samples::default();
    for _ in 0..rounds {
        sample(&fleet, &mut samples)?;
    }
    let per_second = |samples: &[f64]| {
        let rates = samples.iter().map(|ms| hosts as f64 / ms * 1e3);
        rates.collect::<Vec<_>>()
    };
    let measurement =
        |name: &str, samples| Measurement::new("planner", name, "ms", samples).of(hosts);
    let released = measurement("release a wave", samples.release.clone());
    let is_judged = |least: usize, measurement: Measurement, target| {
        if hosts >= least {
            measurement.target(target)
        } else {
            measurement
        }
    };
    let tick = Target::AtMost(TICK_TARGET);
    let held = measurement("steady tick, a wave held", samples.held);
    let steady = measurement("steady tick, a wave at work", samples.steady);
    let rate = per_second(&samples.release);
    Ok(vec![
        if hosts == 100_000 {
            released.target(Target::AtMost(RELEASE_TARGET))
        } else {
            released
        },
        Measurement::new("planner", "release a wave", "hosts/s", rate)
            .of(hosts)
            .against("one pass over the records", per_second(&samples.pass)),
        measurement("follow the outcomes of the release", samples.follow),
        measurement("load the view", samples.load),
        is_judged(1_000_000, held, tick),
        is_judged(1_000_000, steady, tick),
    ])
}

fn sample(fleet: &SyntheticFleet, samples: &mut Samples) -> Result<()> {
    let milliseconds = |took: std::time::Duration| took.as_secs_f64() * 1e3;
    let pinned = fleet.pinned_set();
    let (mut state, mut seq) = (PartitionState::new(), 1);
    let mut apply = |state: &mut PartitionState, entry: &Entry| -> (Position, Outcome) {
        seq += 1;
        let position = Position { seq, index: 0 };
        let stored_at = StoredAt::new(entry.received_at);
        (position, state.apply(position, stored_at, entry, &pinned))
    };
    for entry in &Workload::opening_entries(fleet) {
        apply(&mut state, entry);
    }
    let first = fleet
        .pinned
        .host_set
        .iter()
        .filter(|host| host.wave_index == 0)
        .count();
    let mut now = at(0);
    for entry in Workload::new(fleet).take(first * crate::workload::STEPS) {
        now = entry.received_at;
        apply(&mut state, &entry);
    }
    let mut view = FleetView::new();
    view.set_release(release(fleet, now));
    let snapshot = snapshot_of(&state);
    let (loaded, took) = cpu_timed(|| view.load(partition(), snapshot, &pinned));
    loaded.context("loading the view")?;
    samples.load.push(milliseconds(took));
    let (done, took) = cpu_timed(|| pass(&view));
    ensure!(done == first, "{done} of {first} hosts are done");
    samples.pass.push(milliseconds(took));

    let (outcomes, took) = release_wave(&mut view, now, |action| {
        let entry = Entry::new(
            now,
            EntryBody::Plan {
                epoch: EPOCH,
                action,
            },
        );
        apply(&mut state, &entry)
    })?;
    samples.release.push(milliseconds(took));
    let (followed, took) = cpu_timed(|| {
        outcomes
            .iter()
            .try_for_each(|outcome| view.apply_outcome(partition(), outcome, &pinned))
    });
    followed.context("following the outcomes")?;
    samples.follow.push(milliseconds(took));
    settle(
        &mut view,
        now,
        |action| {
            let entry = Entry::new(
                now,
                EntryBody::Plan {
                    epoch: EPOCH,
                    action,
                },
            );
            apply(&mut state, &entry)
        },
        &pinned,
    )?;
    samples.held.push(tick(&view, now)?);
    samples.steady.push(tick(&view, now)?);
    Ok(())
}

fn partition() -> Partition {
    Partition::new(0)
}

/// Visits every record once: a lower bound for a planner that visits every host.
fn pass(view: &FleetView) -> usize {
    let hosts = view
        .rollouts()
        .values()
        .flat_map(|rollout| rollout.hosts().values());
    hosts
        .filter(|host| black_box(host.state) == HostState::Converged)
        .count()
}

/// Plans and publishes until the wave is out; folding, which is the reducer's work, is not counted.
fn release_wave(
    view: &mut FleetView,
    now: Timestamp,
    mut fold: impl FnMut(PlanAction) -> (Position, Outcome),
) -> Result<(Vec<Outcome>, std::time::Duration)> {
    let mut outcomes = Vec::new();
    let mut total = std::time::Duration::ZERO;
    loop {
        let (planned, took) = cpu_timed(|| plan(view, now));
        total += took;
        let mut published = Vec::with_capacity(planned.actions.len());
        for action in planned.actions {
            let (position, outcome) = fold(action.clone());
            published.push((position, action));
            outcomes.push(outcome);
        }
        let ((), took) = cpu_timed(|| {
            for (position, action) in published {
                view.action_appended(partition(), position, action);
            }
        });
        total += took;
        if !planned.is_capped {
            return Ok((outcomes, total));
        }
    }
}

/// Plans and folds until a run plans nothing, so that blocks are recorded.
fn settle(
    view: &mut FleetView,
    now: Timestamp,
    mut fold: impl FnMut(PlanAction) -> (Position, Outcome),
    pinned: &nixfleet_plan::PinnedSet,
) -> Result<()> {
    for _ in 0..10 {
        let actions = plan(view, now).actions;
        if actions.is_empty() {
            return Ok(());
        }
        for action in actions {
            let (position, outcome) = fold(action.clone());
            view.action_appended(partition(), position, action);
            view.apply_outcome(partition(), &outcome, pinned)
                .context("following")?;
        }
    }
    anyhow::bail!("the planner still plans actions after 10 rounds; expected none")
}

/// Milliseconds of a run without work; the minimum of many, because a run is short.
fn tick(view: &FleetView, now: Timestamp) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let (planned, took) = cpu_timed(|| plan(view, now));
        ensure!(
            planned.actions.is_empty(),
            "a tick plans {} actions",
            planned.actions.len()
        );
        best = best.min(took.as_secs_f64() * 1e3);
    }
    Ok(best)
}

/// The release that the fleet's rollout belongs to.
fn release(fleet: &SyntheticFleet, signed_at: Timestamp) -> Release {
    let meta = Meta {
        schema_version: 1,
        signed_at: Some(signed_at),
        ci_commit: Some(fleet.rollout_id.target_ref().to_string()),
        signature_algorithm: None,
    };
    let channel = fleet.rollout_id.channel();
    let manifest = RolloutManifest {
        schema_version: 1,
        display_name: "bench".to_owned(),
        channel: channel.clone(),
        channel_ref: fleet.rollout_id.target_ref(),
        fleet_resolved_hash: fleet.manifest_hash.clone(),
        host_set: fleet
            .pinned
            .host_set
            .iter()
            .map(|host| ManifestHost {
                hostname: host.hostname.clone(),
                wave_index: host.wave_index,
                target_closure: host.target_closure.clone(),
            })
            .collect(),
        health_gate: serde_json::Map::new(),
        disruption_budgets: fleet.pinned.disruption_budgets.clone(),
        meta: meta.clone(),
    };
    let document = FleetDocument {
        schema_version: 1,
        hosts: BTreeMap::new(),
        channels: BTreeMap::from([(
            channel.clone(),
            Channel {
                rollout_policy: "waves".to_owned(),
                reconcile_interval_minutes: 5,
                freshness_window: 100_000,
                signing_interval_minutes: 60,
            },
        )]),
        rollout_policies: BTreeMap::new(),
        waves: BTreeMap::new(),
        edges: Vec::new(),
        channel_edges: Vec::new(),
        disruption_budgets: Vec::new(),
        meta,
    };
    let of_channel = ChannelManifest {
        manifest: Arc::new(manifest),
        hash: fleet.manifest_hash.clone(),
    };
    Release::new(Arc::new(document), BTreeMap::from([(channel, of_channel)]))
}
