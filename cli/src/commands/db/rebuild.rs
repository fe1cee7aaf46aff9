//! `nixfleet db rebuild`.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{MAX_PARTITIONS, Names, Partition};
use nixfleet_proto::turn_rows::turns_from_snapshot;
use nixfleet_replay::{Difference, Replay};
use nixfleet_store::{ArchivedStream, Audit, Rebuild, RebuildError, Store};
use serde::Serialize;

use super::archive_reader::input_created;
use super::archive_replayer::{ArchiveReplayer, Replayed};
use super::artifact_source::Artifacts;
use super::database_options::{Connection, Database, unreachable};
use crate::command_error::{CommandError, InputContext};
use crate::stdout;
use crate::table::{add_row, or_dash, render, table};

/// Rebuilds the domain tables from the archive
#[derive(Debug, Args)]
#[command(after_help = "\
For tables that nixfleet db verify finds wrong, and for tables that are older than the logs when no\n\
checkpoint can be used: appliers write tables that are gone or older than the logs by themselves. An\n\
archive that misses a part is replayed from the checkpoint behind it.\n\
Stop every applier first; leave eventlog running, so that the archive reaches the end of the log. All\n\
tables change in one transaction: readers wait, and what fails changes nothing. Afterwards appliers\n\
and reducers go on exactly behind what was rebuilt. `hosts` comes from heartbeats and stays.\n\
Exit code 1: refused, nothing is changed. 3: the database cannot be reached.")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Prefix of the streams, bus.prefix of the services
    #[arg(long, value_name = "NAME", default_value = "fleet")]
    prefix: String,
    /// Directory with the releases, for artifacts that are not in the archive
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Rebuild although the archive does not start at the first entry: older rollouts are lost
    #[arg(long)]
    accept_loss: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Print one JSON object; needs --yes
    #[arg(long)]
    json: bool,
}

/// A partition to rebuild.
struct Planned {
    partition: Partition,
    archived: ArchivedStream,
    /// The checkpoint from which the archive is replayed if the archive has a gap.
    base: Option<CheckpointRef>,
    /// Output sequence that the tables cover.
    covered: Option<u64>,
}

impl Planned {
    /// First output sequence that is replayed.
    fn begins(&self) -> u64 {
        let base = self.base.as_ref().map(CheckpointRef::next_output);
        base.unwrap_or(self.archived.first)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    partition: u16,
    /// Output sequence that the tables cover after the rebuild.
    out_seq: u64,
    rollouts: usize,
    rows: u64,
    /// Published outcomes that the fold contradicts; they were followed all the same.
    contradicted: usize,
}

pub async fn run(arguments: &Arguments) -> Result<(), CommandError> {
    if arguments.json && !arguments.yes {
        return Err(CommandError::input(anyhow!(
            "--json needs --yes, because it leaves no way to ask"
        )));
    }
    let store = arguments.connection.open()?;
    let names = Names::new(arguments.prefix.as_str());
    let mut session = store.audit_session().await.or_database()?;
    let audit = session.begin().await.or_database()?;
    let plan = plan(&store, &audit, &names).await?;
    check(&plan, arguments.accept_loss)?;
    if !arguments.yes {
        confirm(&plan)?;
    }
    let artifacts = Artifacts::new(&store, arguments.manifests.as_deref())?;
    let mut source = ArchiveReplayer::new(&audit, &names, artifacts);
    let mut writing = store.rebuild_session().await.or_database()?;
    let rebuild = writing.begin().await.map_err(|error| match error {
        RebuildError::InUse { .. } => CommandError::refused(error),
        RebuildError::Db(error) => unreachable(error),
    })?;
    let mut done = Vec::new();
    for planned in &plan {
        done.push(rebuild_one(&mut source, &rebuild, planned).await?);
    }
    rebuild.commit().await.or_database()?;
    print_result(&done, arguments.json)
}

/// Lists the archived partitions. The cursors are read on another connection, because a lock held by the
/// audit would exclude the rebuild.
async fn plan(
    store: &Store,
    audit: &Audit<'_>,
    names: &Names,
) -> Result<Vec<Planned>, CommandError> {
    let cursors = store.cursors().await.or_database()?;
    let mut plan = Vec::new();
    for partition in Partition::all(MAX_PARTITIONS) {
        let stream = names.output_stream(partition);
        let archived = audit.archived(&stream).await.or_database()?;
        let cursor = cursors.iter().find(|(number, _)| *number == partition);
        let covered = cursor.map(|(_, cursor)| cursor.out_seq);
        match (archived, covered) {
            (Some(archived), covered) => plan.push(Planned {
                partition,
                archived,
                base: audit.base(&stream).await.or_database()?,
                covered,
            }),
            (None, Some(_)) => {
                return Err(CommandError::refused(anyhow!(
                    "nothing of {stream} is archived, and partition {partition} has rows that \
                     would be lost; is --prefix right?"
                )));
            }
            (None, None) => {}
        }
    }
    if plan.is_empty() {
        return Err(CommandError::refused(anyhow!(
            "no output stream with the prefix {} is archived",
            names.prefix()
        )));
    }
    Ok(plan)
}

fn check(plan: &[Planned], accepts_loss: bool) -> Result<(), CommandError> {
    let is_cut = |planned: &&Planned| planned.archived.first > 1 && planned.base.is_none();
    let cut = plan.iter().find(is_cut);
    match cut {
        Some(planned) if !accepts_loss => Err(CommandError::refused(anyhow!(
            "the archive of {} begins at {}, not with the first frame: rollouts that were opened \
             before would be lost. Restore a backup of the database instead, or accept that with \
             --accept-loss",
            planned.archived.stream,
            planned.archived.first
        ))),
        _ => Ok(()),
    }
}

fn confirm(plan: &[Planned]) -> Result<(), CommandError> {
    let mut shown = table(&[">PARTITION", ">TABLES AT", ">ARCHIVE FROM", ">REBUILT TO"]);
    for planned in plan {
        let cells = [
            planned.partition.to_string(),
            or_dash(planned.covered),
            planned.begins().to_string(),
            planned.archived.mark.sequence.to_string(),
        ];
        add_row(&mut shown, cells);
    }
    eprintln!("{}", render(&shown));
    if plan
        .iter()
        .any(|p| p.covered > Some(p.archived.mark.sequence))
    {
        eprintln!("The archive is behind the tables: appliers will need the log from there on.");
    }
    eprint!("Replace the domain tables with the state of the archive? Type yes: ");
    std::io::stderr()
        .flush()
        .or_input_error(|| "asking".to_owned())?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.or_input_error(|| "reading the confirmation".to_owned())?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(CommandError::refused(anyhow!(
        "not confirmed, no change was made"
    )))
}

async fn rebuild_one(
    source: &mut ArchiveReplayer<'_>,
    rebuild: &Rebuild<'_>,
    planned: &Planned,
) -> Result<Done, CommandError> {
    let partition = planned.partition;
    let last = planned.archived.mark.sequence;
    let mut replay = Replay::new();
    let replayed = source.replay(&mut replay, partition, last).await?;
    let Replayed { ts } = replayed.map_err(|fault| {
        let what = format!("partition {partition} cannot be rebuilt: {fault}");
        CommandError::refused(anyhow!(what))
    })?;
    let contradicted = replay.differences();
    for difference in &contradicted {
        warn(partition, difference);
    }
    let input = source.archived_input(partition).await?;
    let input =
        input.with_context(|| format!("the input of partition {partition} is not archived"));
    let cursor = cursor(&replay, &input.map_err(CommandError::refused)?, ts);
    let mut written = 0;
    let snapshot = replay.state().freeze().rows(cursor.clone());
    for rows in turns_from_snapshot(&snapshot) {
        let applied = rebuild.write(partition, &rows).await.map_err(unreachable)?;
        written += applied.rows;
    }
    rebuild
        .set_cursor(partition, &cursor)
        .await
        .map_err(unreachable)?;
    Ok(Done {
        partition: partition.number(),
        out_seq: cursor.out_seq,
        rollouts: replay.state().rollouts().len(),
        rows: written,
        contradicted: contradicted.len(),
    })
}

/// The cursor that the applier would have written.
fn cursor(replay: &Replay, input: &ArchivedStream, ts: chrono::DateTime<chrono::Utc>) -> Cursor {
    Cursor {
        out_seq: replay.out_seq(),
        input: replay.last_input(),
        input_msg_id: replay.last_input_id().map(str::to_owned),
        stream_created: input_created(input, ts),
        epoch: replay.epoch(),
        leader_epoch: replay.state().leader_epoch(),
        clock: replay.clock(),
        origin: replay.origin(),
        checkpoints: replay.checkpoints().clone(),
    }
}

fn warn(partition: Partition, difference: &Difference) {
    eprintln!(
        "nixfleet: partition {partition}: the fold contradicts {} {} {}",
        difference.table,
        difference.key.join(" "),
        difference.column
    );
}

fn print_result(done: &[Done], json: bool) -> Result<(), CommandError> {
    if json {
        return stdout::json(&done);
    }
    let mut shown = table(&[">PARTITION", ">TABLES AT", ">ROLLOUTS", ">ROWS"]);
    for done in done {
        let cells = [
            done.partition.to_string(),
            done.out_seq.to_string(),
            done.rollouts.to_string(),
            done.rows.to_string(),
        ];
        add_row(&mut shown, cells);
    }
    stdout::line(&render(&shown))?;
    stdout::line("rebuilt; start the appliers, then check with: nixfleet db verify")
}
