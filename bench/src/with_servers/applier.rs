//! Stage `applier`: output log to tables.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nixfleet_applier::{PartitionLogs, SequencedFrame, Turn, TurnBuilder, split_batches};
use nixfleet_core::partition::PinnedSet;
use nixfleet_harness::{Database, Service, wait_for};
use nixfleet_proto::HostState;
use nixfleet_store::Store;

use super::applier_baseline::{Columns, Tables};
use super::partition_logs::{POLL_INTERVAL, TIMEOUT, frames_of};
use super::postgres_client::connect;
use super::process_usage::UsageMeter;
use super::reducer::FoldedLog;
use super::release::{self, Release};
use super::testbed::{self, postgres};
use super::{Options, progress};
use crate::measurements::{Measurement, Target};

const TARGET: f64 = 0.70;
/// Outcomes of one transaction, as the applier's `turn.outcomes_max`.
const OUTCOMES_MAX: usize = 5_000;

/// Entries and rows per second from the output log to the tables.
///
/// # Errors
/// When a server or program is missing, or the tables differ from the log.
pub async fn run(options: Options) -> Result<Vec<Measurement>> {
    let release = release::build(&release::shape_of(options.hosts))?;
    progress!("applier: making an output log of {} hosts", options.hosts);
    let folded = FoldedLog::make(&release).await?;
    let turns = turns(&folded, &release).await?;
    let (mut rates, mut baselines, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let mut notes = Vec::new();
    let rows_per_entry = rows_per_entry(&turns)?;
    for round in 1..=options.rounds {
        let (entries_per_second, usage) = apply(&folded, options.hosts).await?;
        rates.push(entries_per_second * rows_per_entry);
        baselines.push(baseline(&turns, Tables::Real).await?);
        plain.push(baseline(&turns, Tables::Plain).await?);
        let last = round - 1;
        progress!(
            "applier {round}/{}: {entries_per_second:.0} entries/s, {:.0} rows/s, baseline {:.0}, \
             plain tables {:.0}; {usage}",
            options.rounds,
            rates[last],
            baselines[last],
            plain[last],
        );
        notes.push(usage);
    }
    let entries = rates.iter().map(|rate| rate / rows_per_entry).collect();
    Ok(vec![
        Measurement::new("applier", "output log to tables", "rows/s", rates)
            .of(options.hosts)
            .against("bare UNNEST of the same rows", baselines)
            .target(Target::RatioAtLeast(TARGET))
            .noting(notes),
        Measurement::new("applier", "output log to tables", "entries/s", entries).of(options.hosts),
        Measurement::new(
            "applier",
            "bare UNNEST into tables without derived columns",
            "rows/s",
            plain,
        )
        .of(options.hosts),
    ])
}

/// A transaction of the baseline, and the number of entries that it covers.
struct Step {
    turn: Turn,
    entries: usize,
}

/// The transactions of the whole log as an applier with full batches makes them.
async fn turns(folded: &FoldedLog, release: &Release) -> Result<Vec<Step>> {
    let (bus, partition) = (&folded.bus, folded.partition);
    let names = bus.names();
    let logs = PartitionLogs {
        input: bus.stream_identity(&names.input_stream(partition)).await?,
        output: bus.stream_identity(&names.output_stream(partition)).await?,
        msg_id: None,
    };
    let (mut builder, _) = TurnBuilder::start(None, &logs)?;
    let frames = frames_of(bus, partition).await?;
    let frames = (1..).zip(frames).map(|(seq, (_, frame))| SequencedFrame {
        seq,
        traceparent: None,
        frame,
    });
    let pinned: PinnedSet = release.fleet.pinned_set();
    let mut steps = Vec::new();
    for batch in split_batches(frames.collect(), OUTCOMES_MAX) {
        let turn = builder.turn(&batch, &pinned)?;
        builder.written(turn.cursor.clone());
        let entries = batch.outcomes().count();
        steps.push(Step { turn, entries });
    }
    Ok(steps)
}

/// Changed rows per entry, without the opening of the rollout.
fn rows_per_entry(steps: &[Step]) -> Result<f64> {
    let steady = steps.iter().filter(|step| step.turn.rows.opened.is_empty());
    let (mut rows, mut entries) = (0, 0);
    for step in steady {
        rows += Columns::of(&step.turn.rows)?.rows();
        entries += step.entries;
    }
    ensure!(entries > 0, "the log is too short; ask for more hosts");
    Ok(rows as f64 / entries as f64)
}

/// Runs the service on a new database until the tables are at the end of the log. Returns the entries per
/// second after the first transaction, which opens the rollout, and the CPU usage.
async fn apply(folded: &FoldedLog, hosts: usize) -> Result<(f64, String)> {
    let (database, store) = testbed::create_database().await?;
    let mut stack = folded.testbed.launch(&[Service::Applier], &database)?;
    let applier = stack.instance(Service::Applier, 0)?.pid();
    let (begun, first) = reach(&store, folded, 1).await?;
    let meter = UsageMeter::start([
        ("applier", applier),
        ("postgres", postgres()?.pid()),
        ("nats", folded.testbed.nats.pid()),
    ])?;
    let end = folded.frames.len() as u64;
    let (ended, _) = reach(&store, folded, end).await?;
    let usage = meter.cores()?;
    stack.stop()?;
    check(&database, hosts).await?;
    store.close();
    let behind = folded.frames.iter().skip(usize::try_from(first)?);
    let entries: usize = behind.map(|frame| frame.entries).sum();
    ensure!(
        entries > 0,
        "the log fits into one transaction; ask for more hosts"
    );
    Ok((entries as f64 / (ended - begun).as_secs_f64(), usage))
}

/// Waits until the cursor covers an output sequence; returns the time of the observation and the cursor.
async fn reach(store: &Store, folded: &FoldedLog, seq: u64) -> Result<(Instant, u64)> {
    wait_for("the tables", TIMEOUT, async || {
        let cursor = store.cursor(folded.partition).await?;
        let at = cursor.map_or(0, |cursor| cursor.out_seq);
        let seen = (at >= seq).then(|| (Instant::now(), at));
        if seen.is_none() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(seen)
    })
    .await
}

async fn check(database: &Database, hosts: usize) -> Result<()> {
    let client = connect(&database.url).await?;
    let query = "SELECT count(*) FROM nixfleet.host_rollout_records WHERE state = $1";
    let row = client
        .query_one(query, &[&HostState::Converged.name()])
        .await?;
    let converged: i64 = row.get(0);
    ensure!(
        usize::try_from(converged)? == hosts,
        "{converged} of {hosts} hosts are converged in the tables"
    );
    Ok(())
}

/// Rows per second of the prepared statements, without the opening, on a new database, in the transactions
/// of the applier.
async fn baseline(steps: &[Step], tables: Tables) -> Result<f64> {
    let (database, store) = testbed::create_database().await?;
    let opening = steps
        .iter()
        .rposition(|step| !step.turn.rows.opened.is_empty());
    let opening = opening.context("no rollout is opened in the log")?;
    for step in &steps[..=opening] {
        let (turn, partition) = (&step.turn, nixfleet_proto::subject::Partition::new(0));
        let applied = store.apply_turn(partition, turn.expected, &turn.rows, &turn.cursor);
        applied.await.context("writing the opening")?;
    }
    store.close();
    let columns = steps[opening + 1..]
        .iter()
        .map(|step| Columns::of(&step.turn.rows));
    let columns: Vec<Columns> = columns.collect::<Result<_>>()?;
    let mut writer = tables.writer(&database).await?;
    let started = Instant::now();
    let mut rows = 0;
    for columns in &columns {
        rows += writer.write(columns).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let expected: usize = columns.iter().map(Columns::rows).sum();
    ensure!(
        rows == expected as u64,
        "{rows} of {expected} rows were written"
    );
    Ok(rows as f64 / seconds)
}
