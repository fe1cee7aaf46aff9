//! Driving a replay with what the archive holds.

use std::collections::BTreeSet;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use indicatif::ProgressBar;
use nixfleet_checkpoint::Checkpoint;
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_proto::{CheckpointRef, OutputFrame, Position};
use nixfleet_replay::{InputItem, Replay, ReplayError};
use nixfleet_store::{ArchivedStream, Audit};

use super::archive_reader::{Frames, Inputs};
use super::artifact_source::Artifacts;
use super::database_options::Database;
use crate::command_error::CommandError;

/// An archive as of one instant.
pub struct ArchiveReplayer<'a> {
    audit: &'a Audit<'a>,
    names: &'a Names,
    artifacts: Artifacts<'a>,
    /// Entries that were folded and are not archived, within the archived range of their log.
    missing: Vec<Position>,
}

/// A replay that went to its end.
#[derive(Debug, Clone, Copy)]
pub struct Replayed {
    /// Time at which the last frame was stored.
    pub ts: DateTime<Utc>,
}

impl<'a> ArchiveReplayer<'a> {
    /// A source that reads through an audit.
    pub fn new(audit: &'a Audit<'a>, names: &'a Names, artifacts: Artifacts<'a>) -> Self {
        Self {
            audit,
            names,
            artifacts,
            missing: Vec::new(),
        }
    }

    /// The entries that the last replay missed in the archive.
    pub fn take_missing(&mut self) -> Vec<Position> {
        std::mem::take(&mut self.missing)
    }

    /// Replays a partition up to this output sequence. The inner error is an archive that ends or
    /// breaks before it.
    ///
    /// # Errors
    /// Those of the database; exit code 1 when an artifact is missing or the archive is damaged.
    pub async fn replay(
        &mut self,
        replay: &mut Replay,
        partition: Partition,
        to: u64,
    ) -> Result<Result<Replayed, String>, CommandError> {
        let stream = self.names.output_stream(partition);
        let Some(output) = self.audit.archived(&stream).await.or_database()? else {
            return Ok(Err("nothing is archived".to_owned()));
        };
        let base = self.audit.base(&stream).await.or_database()?;
        let mut from = match &base {
            Some(base) => base.next_output(),
            None => output.first,
        };
        let followed = loop {
            *replay = match &base {
                Some(base) => self.restored(partition, base).await?,
                None => Replay::new(),
            };
            match self.follow(replay, partition, &output, (from, to)).await? {
                // The tables were lost and rebuilt from later frames only.
                Err(ReplayError::OriginConflict(fault)) if fault.owner > from => from = fault.owner,
                followed => break followed,
            }
        };
        let last = replay.out_seq();
        Ok(match followed {
            Ok(Some(ts)) if last == to => Ok(Replayed { ts }),
            Ok(_) => Err(format!("the archived frames end at {last} instead of {to}")),
            Err(fault) => Err(fault.to_string()),
        })
    }

    /// The state at a checkpoint whose bytes are archived.
    async fn restored(
        &self,
        partition: Partition,
        named: &CheckpointRef,
    ) -> Result<Replay, CommandError> {
        let refused = |fault: String| {
            CommandError::refused(anyhow!(
                "checkpoint {} from which the archive of partition {partition} continues: {fault}",
                named.hash
            ))
        };
        let bytes = self.artifacts.checkpoint(named).await?;
        let bytes = bytes.ok_or_else(|| refused("its bytes are not archived".to_owned()))?;
        let read = Checkpoint::decode(&bytes, partition.number(), named);
        let checkpoint = read.map_err(|error| refused(format!("{:#}", anyhow!(error))))?;
        Replay::from_checkpoint(checkpoint).map_err(refused)
    }

    /// The archived input stream of a partition.
    pub async fn archived_input(
        &self,
        partition: Partition,
    ) -> Result<Option<ArchivedStream>, CommandError> {
        let stream = self.names.input_stream(partition);
        self.audit.archived(&stream).await.or_database()
    }

    async fn follow(
        &mut self,
        replay: &mut Replay,
        partition: Partition,
        output: &ArchivedStream,
        (from, to): (u64, u64),
    ) -> Result<Result<Option<DateTime<Utc>>, ReplayError>, CommandError> {
        let input = self.archived_input(partition).await?;
        let archived = input
            .as_ref()
            .map(|input| input.first..=input.mark.sequence);
        self.missing.clear();
        let mut inputs = Inputs::open(self.audit, input.as_ref()).await?;
        let mut frames = Frames::open(self.audit, output, (from, to)).await?;
        let progress = ProgressBar::new((to + 1).saturating_sub(from));
        progress.set_prefix(format!("partition {partition}"));
        let mut last = None;
        while let Some(next) = frames.next().await? {
            let items = match Replay::folded(&next.frame) {
                Some((first, last)) => inputs.take(first, last).await?,
                None => Vec::new(),
            };
            if let Some(archived) = &archived {
                let missing = missing_entries(&next.frame, &items);
                self.missing
                    .extend(missing.filter(|at| archived.contains(&at.seq)));
            }
            self.pin(replay, &next.frame, &items).await?;
            if let Err(fault) = replay.apply_frame(next.out_seq, &next.frame, &items) {
                progress.abandon();
                return Ok(Err(fault));
            }
            progress.set_position(next.out_seq.saturating_sub(from) + 1);
            last = Some(next.ts);
        }
        progress.finish_and_clear();
        Ok(Ok(last))
    }

    /// Pins the manifests of a frame and its entries: a manifest that the frame opens is required, one that
    /// an entry merely names is not.
    async fn pin(
        &mut self,
        replay: &mut Replay,
        frame: &OutputFrame,
        items: &[InputItem],
    ) -> Result<(), CommandError> {
        for hash in Replay::manifests_named(frame) {
            if !replay.is_pinned(hash) {
                let pinned = self.artifacts.get(hash).await?;
                replay.pin(hash.clone(), pinned);
            }
        }
        let entries = items.iter().filter_map(|item| item.entry.as_ref());
        for hash in entries.filter_map(|entry| entry.body.opens()) {
            if !replay.is_pinned(hash)
                && let Some(pinned) = self.artifacts.find(hash).await?
            {
                replay.pin(hash.clone(), pinned);
            }
        }
        Ok(())
    }
}

/// The positions of outcomes whose entries are not among the items.
fn missing_entries(frame: &OutputFrame, items: &[InputItem]) -> impl Iterator<Item = Position> {
    let present: BTreeSet<Position> = items.iter().map(InputItem::position).collect();
    let positions = frame.outcomes.iter().map(|outcome| outcome.position);
    positions.filter(move |position| !present.contains(position))
}
