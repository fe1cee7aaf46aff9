//! Stage `reducer`: input log to output log.

use anyhow::{Result, ensure};
use nixfleet_bus::Bus;
use nixfleet_harness::Service;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Position, Timestamp};

use super::partition_logs::{self, OutputMessage, Size};
use super::process_usage::UsageMeter;
use super::reducer_baseline::replay;
use super::release::{self, Release};
use super::testbed::{self, Testbed};
use super::{Options, progress};
use crate::measurements::{Measurement, Target};

const TARGET: f64 = 0.70;

/// Entries per second from the input log to the output log.
pub async fn run(options: Options) -> Result<Vec<Measurement>> {
    let release = release::build(&release::shape_of(options.hosts))?;
    let (mut rates, mut baselines, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut sizes = Vec::new();
    for round in 1..=options.rounds {
        let folded = FoldedLog::make(&release).await?;
        let (seconds, entries) = folded.pace()?;
        rates.push(entries as f64 / seconds);
        let seconds = baseline(&folded).await?;
        baselines.push(entries as f64 / seconds);
        progress!(
            "reducer {round}/{}: {:.0} entries/s, baseline {:.0}; {}",
            options.rounds,
            rates[round - 1],
            baselines[round - 1],
            folded.usage
        );
        sizes.push((folded.size(), entries));
        notes.push(folded.usage);
    }
    let measurement = Measurement::new("reducer", "log to log", "entries/s", rates)
        .of(options.hosts)
        .against("pull and fenced publish alone", baselines)
        .target(Target::RatioAtLeast(TARGET));
    let size = partition_logs::size_measurement("reducer", "output", &sizes).of(options.hosts);
    Ok(vec![measurement.noting(notes), size])
}

pub struct FoldedLog {
    /// Servers of the testbed.
    pub testbed: Testbed,
    pub bus: Bus,
    pub partition: Partition,
    /// Messages that the reducer wrote.
    pub frames: Vec<OutputMessage>,
    pub usage: String,
}

impl FoldedLog {
    /// Fills the input log, folds it with the service's program, stops that, and reads what it wrote.
    pub async fn make(release: &Release) -> Result<Self> {
        let testbed = Testbed::start()?;
        let bus = testbed.bus().await?;
        release::store(&bus, release).await?;
        let partition = Partition::of(&release.fleet.rollout_id.channel(), bus.partitions());
        let (last, entries) =
            partition_logs::fill_input_log(&bus, partition, &release.fleet).await?;
        let usage = fold(&testbed, &bus, (partition, last)).await?;
        let frames = partition_logs::read_output_log(&bus, partition).await?;
        let answered: usize = frames.iter().map(|frame| frame.entries).sum();
        ensure!(
            answered == entries,
            "{entries} entries have {answered} outcomes"
        );
        Ok(Self {
            testbed,
            bus,
            partition,
            frames,
            usage,
        })
    }

    fn size(&self) -> Size {
        let sizes = self.frames.iter().map(|frame| frame.size);
        sizes.fold(Size::default(), std::ops::Add::add)
    }

    fn pace(&self) -> Result<(f64, usize)> {
        let times: Vec<Timestamp> = self.frames.iter().map(|frame| frame.at).collect();
        let entries: Vec<usize> = self.frames.iter().map(|frame| frame.entries).collect();
        partition_logs::throughput(&times, &entries)
    }
}

async fn fold(
    testbed: &Testbed,
    bus: &Bus,
    (partition, last): (Partition, Position),
) -> Result<String> {
    let (database, store) = testbed::create_database().await?;
    let mut stack = testbed.launch(&[Service::Reducer], &database)?;
    let reducer = stack.instance(Service::Reducer, 0)?.pid();
    partition_logs::wait_for_first_frame(bus, partition).await?;
    let meter = UsageMeter::start([("reducer", reducer), ("nats", testbed.nats.pid())])?;
    partition_logs::wait_until_folded(bus, partition, last).await?;
    let usage = meter.cores()?;
    stack.stop()?;
    store.close();
    Ok(usage)
}

/// Seconds that the same frames take without a fold.
async fn baseline(folded: &FoldedLog) -> Result<f64> {
    let other = folded.testbed.other_bus().await?;
    replay((&folded.bus, &other), folded.partition, &folded.frames).await?;
    let frames = partition_logs::frames_of(&other, folded.partition).await?;
    ensure!(
        frames.len() == folded.frames.len(),
        "the baseline lost a frame"
    );
    let times: Vec<Timestamp> = frames.iter().map(|(message, _)| message.time).collect();
    let entries: Vec<usize> = folded.frames.iter().map(|frame| frame.entries).collect();
    let (seconds, _) = partition_logs::throughput(&times, &entries)?;
    other.close().await;
    Ok(seconds)
}
