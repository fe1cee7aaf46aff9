//! The reducer, log to log.

use anyhow::{Result, ensure};
use nixfleet_bus::Bus;
use nixfleet_harness::Service;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Position, Timestamp};

use super::log::{self, Size, Written};
use super::release::{self, Release};
use super::replay::replay;
use super::usage::Meter;
use super::world::{self, World};
use super::{Options, say};
use crate::report::{Figure, Target};

/// Least part of the limit.
const TARGET: f64 = 0.70;

/// Entries per second from the input log to the output log.
///
/// # Errors
/// When a server or program is missing, or an entry of the made-up log is refused.
pub async fn run(options: Options) -> Result<Vec<Figure>> {
    let release = release::build(&release::shape_of(options.hosts))?;
    let (mut rates, mut limits, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut sizes = Vec::new();
    for round in 1..=options.rounds {
        let folded = Folded::make(&release).await?;
        let (seconds, entries) = folded.pace()?;
        rates.push(entries as f64 / seconds);
        let seconds = limit(&folded).await?;
        limits.push(entries as f64 / seconds);
        say!(
            "reducer {round}/{}: {:.0} entries/s, limit {:.0}; {}",
            options.rounds,
            rates[round - 1],
            limits[round - 1],
            folded.usage
        );
        sizes.push((folded.size(), entries));
        notes.push(folded.usage);
    }
    let figure = Figure::new("reducer", "log to log", "entries/s", rates)
        .of(options.hosts)
        .against("pull and fenced publish alone", limits)
        .target(Target::RatioAtLeast(TARGET));
    let size = log::size_figure("reducer", "output", &sizes).of(options.hosts);
    Ok(vec![figure.noting(notes), size])
}

/// A world whose input log was folded by a real reducer.
pub struct Folded {
    /// Its servers.
    pub world: World,
    /// Its bus.
    pub bus: Bus,
    /// The one partition.
    pub partition: Partition,
    /// What the reducer wrote.
    pub frames: Vec<Written>,
    /// Who was busy while it did.
    pub usage: String,
}

impl Folded {
    /// Fills the input log, folds it with the service's program, stops that, and reads what it wrote.
    ///
    /// # Errors
    /// When a server or program is missing, or an entry is refused.
    pub async fn make(release: &Release) -> Result<Self> {
        let world = World::start()?;
        let bus = world.bus().await?;
        release::store(&bus, release).await?;
        let partition = Partition::of(&release.fleet.rollout_id.channel(), bus.partitions());
        let (last, entries) = log::fill(&bus, partition, &release.fleet).await?;
        let usage = fold(&world, &bus, (partition, last)).await?;
        let frames = log::written(&bus, partition).await?;
        let answered: usize = frames.iter().map(|frame| frame.entries).sum();
        ensure!(
            answered == entries,
            "{entries} entries have {answered} outcomes"
        );
        Ok(Self {
            world,
            bus,
            partition,
            frames,
            usage,
        })
    }

    /// What its frames take in the output log.
    fn size(&self) -> Size {
        let sizes = self.frames.iter().map(|frame| frame.size);
        sizes.fold(Size::default(), std::ops::Add::add)
    }

    fn pace(&self) -> Result<(f64, usize)> {
        let times: Vec<Timestamp> = self.frames.iter().map(|frame| frame.at).collect();
        let entries: Vec<usize> = self.frames.iter().map(|frame| frame.entries).collect();
        log::pace(&times, &entries)
    }
}

/// Runs the service until the whole log is folded.
async fn fold(
    world: &World,
    bus: &Bus,
    (partition, last): (Partition, Position),
) -> Result<String> {
    let (database, store) = world::database().await?;
    let mut stack = world.launch(&[Service::Reducer], &database)?;
    let reducer = stack.instance(Service::Reducer, 0)?.pid();
    log::begun(bus, partition).await?;
    let meter = Meter::start([("reducer", reducer), ("nats", world.nats.pid())])?;
    log::folded(bus, partition, last).await?;
    let usage = meter.cores()?;
    stack.stop()?;
    store.close();
    Ok(usage)
}

/// Seconds that the same frames take without a fold.
async fn limit(folded: &Folded) -> Result<f64> {
    let other = folded.world.other_bus().await?;
    replay((&folded.bus, &other), folded.partition, &folded.frames).await?;
    let frames = log::frames_of(&other, folded.partition).await?;
    ensure!(
        frames.len() == folded.frames.len(),
        "the limit lost a frame"
    );
    let times: Vec<Timestamp> = frames.iter().map(|(message, _)| message.time).collect();
    let entries: Vec<usize> = folded.frames.iter().map(|frame| frame.entries).collect();
    let (seconds, _) = log::pace(&times, &entries)?;
    other.close().await;
    Ok(seconds)
}
