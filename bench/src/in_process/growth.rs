//! Stage `growth`: costs per event and per host, and of the start, by size of the fleet.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::Entry;

use super::applied_rows::snapshot_of;
use super::fold::{FRAME_ENTRIES, Partition, frames_of};
use crate::cpu_time::cpu_timed;
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::SyntheticFleet;
use crate::workload::Workload;

/// Largest number of entries folded by one measurement.
const ENTRIES: usize = 200_000;
/// Entries per host of small fleets, which repeat the workload up to twenty times.
const ENTRIES_PER_HOST: usize = 200;
/// Largest cost of an event in the largest fleet, as a multiple of that in the smallest.
const COST_TARGET: f64 = 1.3;
const MEMORY_TARGET: f64 = 1_024.0;

/// Nanoseconds per event of one fleet, a sample per round.
#[derive(Default)]
struct Costs {
    fold: Vec<f64>,
    /// Decoded, folded and encoded.
    turn: Vec<f64>,
}

/// Costs of every size of fleet, smallest first.
pub fn run(sizes: &[usize], rounds: usize) -> Result<Vec<Measurement>> {
    let fleets: Vec<SyntheticFleet> = sizes
        .iter()
        .map(|hosts| SyntheticFleet::of(*hosts))
        .collect();
    let mut costs: Vec<Costs> = sizes.iter().map(|_| Costs::default()).collect();
    // One after the other in every round: they are compared.
    for _ in 0..rounds {
        for (fleet, cost) in fleets.iter().zip(&mut costs) {
            cost.fold.push(fold_cost(fleet)?);
            cost.turn.push(turn_cost(fleet)?);
        }
    }
    let mut measurements = Vec::new();
    for (fleet, cost) in fleets.iter().zip(&costs) {
        for (name, samples) in [("fold", &cost.fold), ("decode, fold, encode", &cost.turn)] {
            let name = format!("{name}, per event");
            measurements
                .push(Measurement::new("growth", name, "ns", samples.clone()).of(fleet.len()));
        }
        measurements.extend(start(fleet, rounds)?);
        measurements.push(memory(fleet.len())?);
    }
    if let [small, .., large] = &*costs {
        for (name, small, large) in [
            ("fold", &small.fold, &large.fold),
            ("decode, fold, encode", &small.turn, &large.turn),
        ] {
            let ratios = large.iter().zip(small).map(|(large, small)| large / small);
            let name = format!("{name}: largest fleet / smallest, per event");
            let measurement = Measurement::new("growth", name, "", ratios.collect());
            measurements.push(measurement.target(Target::AtMost(COST_TARGET)));
        }
    }
    Ok(measurements)
}

/// Nanoseconds per event of the fold by itself.
fn fold_cost(fleet: &SyntheticFleet) -> Result<f64> {
    cost(fleet, |partition, entries| {
        let (accepted, took) = cpu_timed(|| partition.fold(&entries));
        ensure!(accepted == entries.len(), "an entry was refused");
        Ok(took)
    })
}

/// Nanoseconds per event of a whole turn.
fn turn_cost(fleet: &SyntheticFleet) -> Result<f64> {
    cost(fleet, |partition, entries| {
        let frames = frames_of(entries)?;
        let (turned, took) = cpu_timed(|| partition.turn(&frames));
        turned?;
        Ok(took)
    })
}

/// Nanoseconds per event; small fleets repeat the workload.
fn cost(
    fleet: &SyntheticFleet,
    work: impl Fn(&mut Partition, Vec<Entry>) -> Result<Duration>,
) -> Result<f64> {
    let wanted = ENTRIES.min(fleet.len() * ENTRIES_PER_HOST);
    let (mut took, mut count) = (Duration::ZERO, 0);
    while count < wanted {
        let mut partition = Partition::open(fleet);
        let mut workload = Workload::new(fleet);
        while count < wanted {
            let entries: Vec<_> = workload.by_ref().take(20_000).collect();
            if entries.is_empty() {
                break;
            }
            count += entries.len();
            took += work(&mut partition, entries)?;
        }
    }
    Ok(took.as_nanos() as f64 / count as f64)
}

/// Opening the rollout, going on from rows, and the state hash.
fn start(fleet: &SyntheticFleet, rounds: usize) -> Result<Vec<Measurement>> {
    let (mut opens, mut restores, mut whole, mut after) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rounds = if fleet.len() > 200_000 { 1 } else { rounds };
    for _ in 0..rounds {
        let (mut partition, took) = cpu_timed(|| Partition::open(fleet));
        opens.push(took.as_secs_f64() * 1e3);
        let mut workload = Workload::new(fleet);
        let entries: Vec<_> = workload.by_ref().take(100 * FRAME_ENTRIES).collect();
        partition.fold(&entries);
        let snapshot = snapshot_of(&partition.state);
        let pinned = fleet.pinned_set();
        let (restored, took) = cpu_timed(|| PartitionState::restore(snapshot, &pinned));
        let restored = restored.context("restoring")?;
        restores.push(took.as_secs_f64() * 1e3);
        let (hash, took) = cpu_timed(|| restored.hash());
        ensure!(hash == partition.state.hash(), "the restored state differs");
        whole.push(took.as_secs_f64() * 1e3);
        let entries: Vec<_> = workload.by_ref().take(10_000).collect();
        partition.fold(&entries);
        let (_, took) = cpu_timed(|| partition.state.hash());
        after.push(took.as_secs_f64() * 1e3);
    }
    let measurements = [
        ("open the rollout", opens),
        ("restore from rows", restores),
        ("first state hash", whole),
        ("state hash after 10,000 entries", after),
    ];
    let measurement =
        |(name, samples)| Measurement::new("growth", name, "ms", samples).of(fleet.len());
    Ok(measurements.into_iter().map(measurement).collect())
}

/// Memory of a separate process after the whole workload.
fn memory(hosts: usize) -> Result<Measurement> {
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
    let measurement =
        Measurement::new("growth", "reducer memory per host", "bytes", per_host).of(hosts);
    // A small fleet is smaller than the allocation steps of the process.
    Ok(if hosts >= 100_000 {
        measurement.target(Target::AtMost(MEMORY_TARGET))
    } else {
        measurement
    })
}

/// Folds the workload of that many hosts and prints the growth of the process in bytes, manifest included.
///
/// # Errors
/// When the kernel does not report the memory, or an entry is refused.
pub fn probe(hosts: usize) -> Result<()> {
    let before = resident_bytes()?;
    let fleet = SyntheticFleet::of(hosts);
    let mut partition = Partition::open(&fleet);
    let mut workload = Workload::new(&fleet);
    loop {
        let entries: Vec<_> = workload.by_ref().take(1_000).collect();
        if entries.is_empty() {
            break;
        }
        let accepted = partition.fold(&entries);
        ensure!(accepted == entries.len(), "an entry was refused");
    }
    drop(workload);
    println!("{}", resident_bytes()?.saturating_sub(before));
    Ok(())
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading own memory")?;
    // The pages of the program itself are the same for every fleet.
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: u64 = kibibytes
        .context("no RssAnon")?
        .parse()
        .context("RssAnon")?;
    Ok(kibibytes * 1_024)
}
