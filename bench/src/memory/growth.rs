//! What a larger fleet costs: per event, per host, at the start.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nixfleet_core::partition::PartitionState;

use super::fold::{FRAME_ENTRIES, Partition, frames_of};
use super::rows::rows;
use crate::clock::timed;
use crate::fleet::Fleet;
use crate::life::Life;
use crate::report::{Figure, Target, median};

/// Most entries that one measurement folds.
const ENTRIES: usize = 200_000;
/// Entries per host of small fleets: each lives twenty lives.
const ENTRIES_PER_HOST: usize = 200;
/// Largest cost of an event in the largest fleet, as a multiple of that in the smallest.
const COST_TARGET: f64 = 1.3;
/// Most bytes per host.
const MEMORY_TARGET: f64 = 1_024.0;

/// Costs of every size of fleet, smallest first.
///
/// # Errors
/// When the made-up log is refused.
pub fn run(sizes: &[usize], rounds: usize) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut costs: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for hosts in sizes {
        let fleet = Fleet::of(*hosts);
        let cost = costs_of(&fleet, rounds)?;
        for (name, samples) in [("fold", &cost.0), ("decode, fold, encode", &cost.1)] {
            let name = format!("{name}, per event");
            figures.push(Figure::new("growth", name, "ns", samples.clone()).of(*hosts));
        }
        costs.push(cost);
        figures.extend(start(&fleet, rounds)?);
        figures.push(memory(*hosts)?);
    }
    if let (Some(small), Some(large)) = (costs.first(), costs.last())
        && costs.len() > 1
    {
        for (name, small, large) in [
            ("fold", &small.0, &large.0),
            ("decode, fold, encode", &small.1, &large.1),
        ] {
            let ratio = median(large) / median(small);
            let name = format!("{name}: largest fleet / smallest, per event");
            let figure = Figure::new("growth", name, "", vec![ratio]);
            figures.push(figure.target(Target::AtMost(COST_TARGET)));
        }
    }
    Ok(figures)
}

/// Nanoseconds per event, of the fold and of a whole turn.
fn costs_of(fleet: &Fleet, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut folds, mut turns) = (Vec::new(), Vec::new());
    let wanted = ENTRIES.min(fleet.len() * ENTRIES_PER_HOST);
    for _ in 0..rounds {
        let (mut nanoseconds, mut count) = (0.0, 0);
        while count < wanted {
            let mut partition = Partition::open(fleet);
            let mut life = Life::new(fleet);
            loop {
                let entries: Vec<_> = life.by_ref().take(20_000).collect();
                if entries.is_empty() || count >= wanted {
                    break;
                }
                let (accepted, took) = timed(|| partition.fold(&entries));
                ensure!(accepted == entries.len(), "an entry was refused");
                nanoseconds += took.as_nanos() as f64;
                count += entries.len();
            }
        }
        folds.push(nanoseconds / count as f64);
        let (mut nanoseconds, mut count) = (0.0, 0);
        while count < wanted {
            let mut partition = Partition::open(fleet);
            let mut life = Life::new(fleet);
            loop {
                let entries: Vec<_> = life.by_ref().take(20_000).collect();
                if entries.is_empty() || count >= wanted {
                    break;
                }
                count += entries.len();
                let frames = frames_of(entries)?;
                let (turned, took) = timed(|| partition.turn(&frames));
                turned?;
                nanoseconds += took.as_nanos() as f64;
            }
        }
        turns.push(nanoseconds / count as f64);
    }
    Ok((folds, turns))
}

/// Opening the rollout, going on from rows, and the state hash.
fn start(fleet: &Fleet, rounds: usize) -> Result<Vec<Figure>> {
    let (mut opens, mut restores, mut whole, mut after) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rounds = if fleet.len() > 200_000 { 1 } else { rounds };
    for _ in 0..rounds {
        let (mut partition, took) = timed(|| Partition::open(fleet));
        opens.push(took.as_secs_f64() * 1e3);
        let mut life = Life::new(fleet);
        let entries: Vec<_> = life.by_ref().take(100 * FRAME_ENTRIES).collect();
        partition.fold(&entries);
        let snapshot = rows(&partition.state);
        let pinned = fleet.pinned_set();
        let (restored, took) = timed(|| PartitionState::restore(snapshot, &pinned));
        let restored = restored.context("restoring")?;
        restores.push(took.as_secs_f64() * 1e3);
        let (hash, took) = timed(|| restored.hash());
        ensure!(hash == partition.state.hash(), "the restored state differs");
        whole.push(took.as_secs_f64() * 1e3);
        let entries: Vec<_> = life.by_ref().take(10_000).collect();
        partition.fold(&entries);
        let (_, took) = timed(|| partition.state.hash());
        after.push(took.as_secs_f64() * 1e3);
    }
    let figures = [
        ("open the rollout", opens),
        ("restore from rows", restores),
        ("first state hash", whole),
        ("state hash after 10,000 entries", after),
    ];
    let figure = |(name, samples)| Figure::new("growth", name, "ms", samples).of(fleet.len());
    Ok(figures.into_iter().map(figure).collect())
}

/// Memory of a process of its own, in which every host has lived its life.
fn memory(hosts: usize) -> Result<Figure> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program)
        .args(["--probe-memory", &hosts.to_string()])
        .output()
        .context("starting the memory probe")?;
    ensure!(
        output.status.success(),
        "the memory probe ended with {}",
        output.status
    );
    let text = String::from_utf8(output.stdout).context("reading the memory probe")?;
    let bytes: f64 = text.trim().parse().context("reading the memory probe")?;
    let per_host = vec![bytes / hosts as f64];
    let figure = Figure::new("growth", "reducer memory per host", "bytes", per_host).of(hosts);
    // A small fleet is smaller than the steps in which memory is taken.
    Ok(if hosts >= 100_000 {
        figure.target(Target::AtMost(MEMORY_TARGET))
    } else {
        figure
    })
}

/// Folds the lives of that many hosts and prints how many bytes the process grew by, manifest
/// included.
///
/// # Errors
/// When the kernel does not say, or an entry is refused.
pub fn probe(hosts: usize) -> Result<()> {
    let before = resident_bytes()?;
    let fleet = Fleet::of(hosts);
    let mut partition = Partition::open(&fleet);
    let mut life = Life::new(&fleet);
    loop {
        let entries: Vec<_> = life.by_ref().take(1_000).collect();
        if entries.is_empty() {
            break;
        }
        let accepted = partition.fold(&entries);
        ensure!(accepted == entries.len(), "an entry was refused");
    }
    drop(life);
    println!("{}", resident_bytes()?.saturating_sub(before));
    Ok(())
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading own memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: u64 = kibibytes.context("no VmRSS")?.parse().context("VmRSS")?;
    Ok(kibibytes * 1_024)
}
