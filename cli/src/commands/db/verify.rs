//! `nixfleet db verify`.

mod row_comparison;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use nixfleet_bus::Bus;
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{MAX_PARTITIONS, Names, Partition};
use nixfleet_replay::{Difference, Replay, expected_rows};
use nixfleet_store::{ArchivedStream, Audit, Store};
use tokio::time::Instant;

use super::archive_gaps::{Gap, Losses, gaps};
use super::archive_replayer::ArchiveReplayer;
use super::artifact_source::Artifacts;
use super::database_options::{Connection, Database};
use super::stream_comparison::{self, Streams};
use super::verify_result::{PartitionResult, VerifyResult};
use crate::command_error::CommandError;
use crate::stdout;

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Replays the archive and compares every domain table with what follows from it
#[derive(Debug, Args)]
#[command(after_help = "\
Each archived entry is decided again, each published outcome is followed, and the tables are held\n\
against the state at their cursor, all as of one instant; services may go on meanwhile. One partition\n\
at a time is in memory, as in a reducer. The rows of the archive are compared with the streams as far as\n\
these still hold them, and a gap that no loss of a stream explains is a difference.\n\
Exit code 0: no difference. 1: differences, or the archive is damaged. 3: the database or the bus cannot\n\
be reached, or the archive is behind the tables.")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    streams: Streams,
    /// Prefix of the streams, bus.prefix of the services
    #[arg(long, value_name = "NAME", default_value = "fleet")]
    prefix: String,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u16>,
    /// Directory with the releases, for artifacts that are not in the archive
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Timeout in seconds for an archive that is behind the tables
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    /// Largest number of differences shown
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    limit: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let store = arguments.connection.open()?;
    let names = Names::new(arguments.prefix.as_str());
    let only = arguments.partition.map(Partition::new);
    await_archive(&store, &names, only, Duration::from_secs(arguments.wait)).await?;
    let mut session = store.audit_session().await.or_database()?;
    let audit = session.begin().await.or_database()?;
    let bus = arguments.streams.connect(&arguments.prefix).await?;
    let artifacts = Artifacts::new(&store, arguments.manifests.as_deref())?;
    let mut verification = Verification {
        audit: &audit,
        names: &names,
        bus: bus.as_ref(),
        source: ArchiveReplayer::new(&audit, &names, artifacts),
        result: VerifyResult::new(arguments.limit),
    };
    verification.result.stream_messages = verification.bus.map(|_| 0);
    verification.partitions(only).await?;
    let result = verification.result;
    if arguments.json {
        stdout::json(&result)?;
    } else {
        result.print()?;
    }
    if result.difference_count == 0 {
        Ok(())
    } else {
        Err(CommandError::negative())
    }
}

/// Waits until the archive contains the frames that the tables cover now, and their input. Input may be
/// lost permanently together with its server: outcomes without input count as unchecked after the timeout.
async fn await_archive(
    store: &Store,
    names: &Names,
    only: Option<Partition>,
    timeout: Duration,
) -> Result<(), CommandError> {
    let wanted = store.cursors().await.or_database()?;
    let wanted = wanted
        .into_iter()
        .filter(|(partition, _)| only.is_none_or(|only| only == *partition));
    let deadline = Instant::now() + timeout;
    for (partition, cursor) in wanted {
        let stream = names.output_stream(partition);
        let covered = cursor.out_seq;
        let archived = archived_up_to(store, &stream, covered, deadline).await?;
        if archived < covered {
            return Err(CommandError::unreachable(anyhow!(
                "{stream} is archived up to {archived} and the tables cover {covered}: is an \
                 eventlog running? --wait gives it more time, --prefix names other streams"
            )));
        }
        if let Some(input) = cursor.input {
            let stream = names.input_stream(partition);
            archived_up_to(store, &stream, input.seq, deadline).await?;
        }
    }
    Ok(())
}

/// The last archived sequence of a stream, as soon as it is `wanted` and at the deadline at the latest.
async fn archived_up_to(
    store: &Store,
    stream: &str,
    wanted: u64,
    deadline: Instant,
) -> Result<u64, CommandError> {
    loop {
        let mark = store.archive_cursor(stream).await.or_database()?;
        let archived = mark.map_or(0, |mark| mark.sequence);
        if archived >= wanted || Instant::now() >= deadline {
            return Ok(archived);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

struct Verification<'a> {
    audit: &'a Audit<'a>,
    names: &'a Names,
    /// Absent when the streams are not compared.
    bus: Option<&'a Bus>,
    source: ArchiveReplayer<'a>,
    result: VerifyResult,
}

impl<'a> Verification<'a> {
    async fn partitions(&mut self, only: Option<Partition>) -> Result<(), CommandError> {
        let cursors = self.audit.cursors().await.or_database()?;
        for partition in Partition::all(MAX_PARTITIONS) {
            let cursor = cursors.iter().find(|(number, _)| *number == partition);
            if only.is_some_and(|only| only != partition) {
                continue;
            }
            self.partition(partition, cursor.map(|(_, cursor)| cursor))
                .await?;
        }
        self.result.rows = self.audit.row_counts().await.or_database()?;
        if only.is_none() {
            for stream in [self.names.manifest_stream(), self.names.dead_stream()] {
                if let Some(archived) = self.audit.archived(&stream).await.or_database()? {
                    self.stream(None, &archived).await?;
                }
            }
            self.leftovers();
        }
        Ok(())
    }

    /// Replays up to the cursor, then compares. A partition without a cursor has no rows.
    async fn partition(
        &mut self,
        partition: Partition,
        cursor: Option<&Cursor>,
    ) -> Result<(), CommandError> {
        let number = partition.number();
        let mut summary = PartitionResult::new(number);
        let mut replay = Replay::new();
        let gaps = self.logs(partition).await?;
        if let Some(cursor) = cursor {
            let stream = self.names.output_stream(partition);
            let archived = self.audit.archived(&stream).await.or_database()?;
            summary.first = archived.map(|archived| archived.first);
            summary.last = Some(cursor.out_seq);
            let covered = cursor.out_seq;
            let replayed = self.source.replay(&mut replay, partition, covered).await?;
            self.missing_entries(partition, &gaps);
            if let Err(fault) = replayed {
                summary.cover(replay.coverage());
                self.result.partitions.push(summary);
                let broken = Difference {
                    table: "archive",
                    key: vec![stream],
                    column: String::new(),
                    expected: Some(format!("frames up to {covered}").into()),
                    found: Some(fault.into()),
                };
                self.result.add(Some(number), vec![broken]);
                return Ok(());
            }
        }
        summary.cover(replay.coverage());
        self.result.add(Some(number), replay.differences());
        self.compare_rows(&replay, partition, &mut summary).await?;
        if cursor.is_some() || summary.rows > 0 {
            self.result.partitions.push(summary);
        }
        Ok(())
    }

    /// Looks for gaps in the archived logs of a partition, and compares these with the streams.
    async fn logs(&mut self, partition: Partition) -> Result<Vec<Gap>, CommandError> {
        let number = Some(partition.number());
        let output = self.names.output_stream(partition);
        let base = self.audit.base(&output).await.or_database()?;
        let base = base.as_ref();
        let firsts = [
            (
                self.names.input_stream(partition),
                base.map_or(0, CheckpointRef::first_input),
            ),
            (output, base.map_or(0, CheckpointRef::next_output)),
        ];
        let mut all = Vec::new();
        for (stream, base_first) in firsts {
            let Some(archived) = self.audit.archived(&stream).await.or_database()? else {
                continue;
            };
            let losses = Losses { base, base_first };
            let gaps = gaps(self.audit, &archived, &losses).await?;
            self.result
                .add(number, gaps.iter().filter_map(Gap::difference).collect());
            let explained = gaps.iter().filter(|gap| gap.loss.is_some());
            self.result.gaps.extend(explained.cloned());
            all.extend(gaps);
            self.stream(number, &archived).await?;
        }
        Ok(all)
    }

    /// Entries whose outcomes are archived and that are not, although others of their message are.
    fn missing_entries(&mut self, partition: Partition, gaps: &[Gap]) {
        let stream = self.names.input_stream(partition);
        let is_in_gap = |seq: u64| {
            let mut gaps = gaps.iter().filter(|gap| gap.stream == stream);
            gaps.any(|gap| (gap.first..=gap.last).contains(&seq))
        };
        let missing = self.source.take_missing().into_iter();
        let missing = missing
            .filter(|at| !is_in_gap(at.seq))
            .map(|at| Difference {
                table: "event_log",
                key: vec![stream.clone(), format!("{}.{}", at.seq, at.index)],
                column: String::new(),
                expected: Some("an entry".into()),
                found: None,
            });
        let missing = missing.collect();
        self.result.add(Some(partition.number()), missing);
    }

    async fn stream(
        &mut self,
        partition: Option<u16>,
        archived: &ArchivedStream,
    ) -> Result<(), CommandError> {
        let Some(bus) = self.bus else {
            return Ok(());
        };
        let compared = stream_comparison::compare(bus, self.audit, archived).await?;
        let messages = self.result.stream_messages.get_or_insert_default();
        *messages += compared.messages;
        self.result.add(partition, compared.differences);
        Ok(())
    }

    /// Rows that no partition and no rollout claims.
    fn leftovers(&mut self) {
        let compared: u64 = self
            .result
            .partitions
            .iter()
            .map(|p| p.rows + p.uncovered)
            .sum();
        let there: u64 = expected_rows::TABLES
            .iter()
            .filter_map(|table| self.result.rows.get(*table))
            .sum();
        let is_whole = self.result.partitions.iter().all(|p| p.is_whole);
        if is_whole && there > compared && self.result.difference_count == 0 {
            let surplus = Difference {
                table: "any",
                key: Vec::new(),
                column: String::new(),
                expected: Some(compared.into()),
                found: Some(format!("{there} rows: some belong to no rollout").into()),
            };
            self.result.add(None, vec![surplus]);
        }
    }
}
