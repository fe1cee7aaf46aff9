//! Stage `eventlog`: all streams to the archive.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use nixfleet_harness::{Database, Service, wait_for};
use nixfleet_store::Store;
use tokio_postgres::Client;

use super::partition_logs::{POLL_INTERVAL, TIMEOUT};
use super::postgres_client::connect;
use super::postgres_client::{copy_in, copy_out};
use super::process_usage::UsageMeter;
use super::reducer::FoldedLog;
use super::release;
use super::testbed::{self, postgres};
use super::{Options, progress};
use crate::measurements::{Measurement, Target};

const TARGET: f64 = 0.70;
/// Rows after which a transaction is closed, as the event log's `archive.batch_rows`.
const BATCH_ROWS: i64 = 5_000;
/// Bytes of outcomes after which it is closed, as the event log does.
const BATCH_BYTES: i64 = 8 * 1024 * 1024;

/// Last archived sequences by stream.
type Cursors = BTreeMap<String, u64>;

/// Entries and outcomes per second from the streams to the archive.
///
/// # Errors
/// When a server or program is missing, or rows are missing in the archive.
pub async fn run(options: Options) -> Result<Vec<Measurement>> {
    let release = release::build(&release::shape_of(options.hosts))?;
    progress!("eventlog: making the logs of {} hosts", options.hosts);
    let folded = FoldedLog::make(&release).await?;
    let (mut rates, mut baselines, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let mut archive_copy = None;
    for round in 1..=options.rounds {
        let (database, rate, usage) = archive(&folded).await?;
        rates.push(rate);
        if archive_copy.is_none() {
            archive_copy = Some(ArchiveCopy::take(&database).await?);
        }
        let archive_copy = archive_copy.as_ref().context("the archive was not read")?;
        baselines.push(archive_copy.write().await?);
        progress!(
            "eventlog {round}/{}: {rate:.0} items/s, baseline {:.0}; {usage}",
            options.rounds,
            baselines[round - 1]
        );
        notes.push(usage);
    }
    let measurement = Measurement::new("eventlog", "streams to archive", "items/s", rates)
        .of(options.hosts)
        .against("bare COPY of the same rows", baselines)
        .target(Target::RatioAtLeast(TARGET));
    Ok(vec![measurement.noting(notes)])
}

/// Runs the service on a new database until both logs are archived. Returns the entries, outcomes and
/// frames per second after the first transactions, and the CPU usage.
async fn archive(folded: &FoldedLog) -> Result<(Database, f64, String)> {
    let (database, store) = testbed::create_database().await?;
    let mut stack = folded.testbed.launch(&[Service::Eventlog], &database)?;
    let eventlog = stack.instance(Service::Eventlog, 0)?.pid();
    let names = folded.bus.names();
    let mut ends = Cursors::new();
    for stream in [
        names.input_stream(folded.partition),
        names.output_stream(folded.partition),
    ] {
        let last = folded.bus.stream_identity(&stream).await?.last_seq;
        ends.insert(stream, last);
    }
    let (begun, first) = reach(&store, |cursors| !cursors.is_empty()).await?;
    let meter = UsageMeter::start([
        ("eventlog", eventlog),
        ("postgres", postgres()?.pid()),
        ("nats", folded.testbed.nats.pid()),
    ])?;
    let (ended, _) = reach(&store, |cursors| *cursors == ends).await?;
    let usage = meter.cores()?;
    stack.stop()?;
    store.close();
    let client = connect(&database.url).await?;
    let all = items(&client, &ends).await?;
    let before = items(&client, &first).await?;
    let entries: usize = folded.frames.iter().map(|frame| frame.entries).sum();
    let expected = 2 * entries + folded.frames.len();
    ensure!(
        usize::try_from(all)? == expected,
        "the archive has {all} items, the streams make {expected}"
    );
    ensure!(
        all > before,
        "all rows were in the first transactions; increase --hosts"
    );
    let rate = (all - before) as f64 / (ended - begun).as_secs_f64();
    Ok((database, rate, usage))
}

/// Waits until the cursors satisfy `arrived`; returns the time of the observation and the cursors.
async fn reach(store: &Store, arrived: impl Fn(&Cursors) -> bool) -> Result<(Instant, Cursors)> {
    wait_for("the archive", TIMEOUT, async || {
        let cursors = store.archive_cursors().await?;
        let cursors: Cursors = cursors
            .into_iter()
            .map(|(stream, mark)| (stream, mark.sequence))
            .collect();
        if arrived(&cursors) {
            return Ok(Some((Instant::now(), cursors)));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        Ok(None)
    })
    .await
}

/// Archived entries, outcomes and frames up to these sequences.
async fn items(client: &Client, cursors: &Cursors) -> Result<i64> {
    let query = "SELECT count(*) FROM nixfleet.archive_items WHERE stream = $1 AND sequence <= $2";
    let mut total = 0;
    for (stream, sequence) in cursors {
        let sequence = i64::try_from(*sequence)?;
        let row = client.query_one(query, &[stream, &sequence]).await?;
        total += row.get::<_, i64>(0);
    }
    Ok(total)
}

/// Consecutive messages of a stream for one transaction.
struct Batch {
    stream: String,
    first: i64,
    last: i64,
    rows: i64,
    /// Bytes of outcomes.
    bytes: i64,
}

impl Batch {
    fn takes(&self, next: &Self) -> bool {
        self.stream == next.stream && self.rows < BATCH_ROWS && self.bytes < BATCH_BYTES
    }

    fn take(&mut self, next: &Self) {
        self.last = next.last;
        self.rows += next.rows;
        self.bytes += next.bytes;
    }
}

/// An archive in the COPY format of Postgres, one batch per transaction, by stream.
struct ArchiveCopy {
    streams: Vec<Vec<Vec<Bytes>>>,
    rows: i64,
    /// Number of archived entries, outcomes and frames.
    items: i64,
}

impl ArchiveCopy {
    async fn take(database: &Database) -> Result<Self> {
        let client = connect(&database.url).await?;
        let count = "SELECT count(*) FROM nixfleet.archive_items";
        let items = client.query_one(count, &[]).await?.get(0);
        let query = "SELECT stream, sequence, count(*),
                            coalesce(sum(octet_length(outcomes::text)), 0)::bigint
                     FROM nixfleet.event_log
                     GROUP BY stream, sequence ORDER BY stream, sequence";
        let mut pieces: Vec<Batch> = Vec::new();
        let mut total = 0;
        for row in client.query(query, &[]).await? {
            let next = Batch {
                stream: row.get(0),
                first: row.get(1),
                last: row.get(1),
                rows: row.get(2),
                bytes: row.get(3),
            };
            total += next.rows;
            match pieces.last_mut() {
                Some(piece) if piece.takes(&next) => piece.take(&next),
                Some(_) | None => pieces.push(next),
            }
        }
        let mut streams: BTreeMap<String, Vec<Vec<Bytes>>> = BTreeMap::new();
        for piece in pieces {
            let Batch {
                stream,
                first,
                last,
                ..
            } = piece;
            // Names of streams contain no SQL metacharacters.
            let rows = format!(
                "(SELECT * FROM nixfleet.event_log WHERE stream = '{stream}'
                 AND sequence BETWEEN {first} AND {last} ORDER BY sequence, index)"
            );
            let bytes = copy_out(&client, &rows).await?;
            streams.entry(stream).or_default().push(bytes);
        }
        Ok(Self {
            streams: streams.into_values().collect(),
            rows: total,
            items,
        })
    }

    /// Copies the archive into a new database, with one connection per stream, as the event log does;
    /// returns entries, outcomes and frames per second.
    async fn write(&self) -> Result<f64> {
        let (database, store) = testbed::create_database().await?;
        store.close();
        let owner = connect(&database.url).await?;
        let days = "SELECT nixfleet.ensure_event_log_day(current_date + n)::text
                    FROM generate_series(-1, 1) AS n";
        owner.execute(days, &[]).await?;
        let url = database.url_of(Service::Eventlog);
        let clients = try_join_all(self.streams.iter().map(|_| connect(&url))).await?;
        let started = Instant::now();
        let pairs = clients.iter().zip(&self.streams);
        let written = try_join_all(pairs.map(|(client, pieces)| copy(client, pieces))).await?;
        let seconds = started.elapsed().as_secs_f64();
        let written: u64 = written.iter().sum();
        ensure!(
            i64::try_from(written)? == self.rows,
            "{written} of {} rows were copied",
            self.rows
        );
        Ok(self.items as f64 / seconds)
    }
}

async fn copy(client: &Client, pieces: &[Vec<Bytes>]) -> Result<u64> {
    let mut rows = 0;
    for piece in pieces {
        rows += copy_in(client, "nixfleet.event_log", piece).await?;
    }
    Ok(rows)
}
