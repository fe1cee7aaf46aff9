//! The archived logs of one partition, in order.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use nixfleet_proto::{InputMark, OutputFrame, Position, StoredAt, Timestamp};
use nixfleet_replay::archive_rows::{input_items, output_frame};
use nixfleet_replay::{ArchiveRow, InputItem};
use nixfleet_store::{ArchivedMessage, ArchivedStream, Audit, MessageReader};

use super::database_options::Database;
use crate::command_error::CommandError;

/// A frame with its position.
pub struct Frame {
    pub out_seq: u64,
    /// Time at which the stream stored the frame, in microseconds.
    pub ts: DateTime<Utc>,
    pub frame: OutputFrame,
}

/// The output frames that count, in order.
///
/// Archived frames that took effect. A log that was lost and created again starts with a takeover, whose
/// input mark tells which earlier frames the tables cover. Archived frames after those never took effect.
pub struct Frames<'a> {
    audit: &'a Audit<'a>,
    stream: String,
    ranges: VecDeque<RangeInclusive<u64>>,
    reader: Option<MessageReader<'a>>,
    /// The next sequence within a range.
    expected: Option<u64>,
}

impl<'a> Frames<'a> {
    /// The frames from one output sequence to another, both included.
    pub async fn open(
        audit: &'a Audit<'a>,
        archived: &ArchivedStream,
        (from, to): (u64, u64),
    ) -> Result<Self, CommandError> {
        let mut ranges: VecDeque<RangeInclusive<u64>> = VecDeque::new();
        ranges.push_back(from..=to);
        let starts = archived.generations.iter();
        for start in starts.map(|generation| generation.first_sequence) {
            let is_within = |last: &RangeInclusive<u64>| last.contains(&start);
            let Some(before) = ranges.back().filter(|last| is_within(last)).cloned() else {
                continue;
            };
            if start == *before.start() {
                continue;
            }
            ranges.pop_back();
            let mut first = audit
                .messages(&archived.stream, start, start)
                .await
                .or_database()?;
            let survived = match first.next().await.or_database()? {
                Some(message) => {
                    let mark = read(&message)?.last_input;
                    let frame = audit.frame_covering(&archived.stream, start, mark);
                    frame.await.or_database()?
                }
                None => None,
            };
            // Without that frame the sequence has a hole there, which the replay reports.
            ranges.push_back(*before.start()..=survived.unwrap_or(start - 1));
            ranges.push_back(start..=to);
        }
        Ok(Self {
            audit,
            stream: archived.stream.clone(),
            ranges,
            reader: None,
            expected: None,
        })
    }

    /// The next frame; absent at the end.
    ///
    /// # Errors
    /// As [`Frames::open`].
    pub async fn next(&mut self) -> Result<Option<Frame>, CommandError> {
        loop {
            if self.reader.is_none() {
                let Some(range) = self.ranges.pop_front() else {
                    return Ok(None);
                };
                let reader = self
                    .audit
                    .messages(&self.stream, *range.start(), *range.end());
                self.reader = Some(reader.await.or_database()?);
                self.expected = None;
            }
            let Some(reader) = &mut self.reader else {
                continue;
            };
            match reader.next().await.or_database()? {
                Some(message) => {
                    let sequence = message.sequence;
                    if self.expected.is_some_and(|expected| expected != sequence) {
                        return Err(CommandError::refused(anyhow!(
                            "the archive of {} has a hole before {sequence}: what happened in it is \
                             not known; restore the database from a backup that has it",
                            self.stream
                        )));
                    }
                    self.expected = Some(sequence + 1);
                    return Ok(Some(Frame {
                        out_seq: message.sequence,
                        ts: message.ts,
                        frame: read(&message)?,
                    }));
                }
                None => self.reader = None,
            }
        }
    }
}

/// The archived input, read beside the frames that fold it.
pub struct Inputs<'a> {
    reader: Option<MessageReader<'a>>,
    items: VecDeque<InputItem>,
}

impl<'a> Inputs<'a> {
    /// The whole archived input of a stream.
    pub async fn open(
        audit: &'a Audit<'a>,
        archived: Option<&ArchivedStream>,
    ) -> Result<Self, CommandError> {
        let reader = match archived {
            Some(archived) => {
                let (from, to) = (archived.first, archived.mark.sequence);
                let messages = audit.messages(&archived.stream, from, to).await;
                Some(messages.or_database()?)
            }
            None => None,
        };
        Ok(Self {
            reader,
            items: VecDeque::new(),
        })
    }

    /// The archived items of the positions from `first` to `last`. Calls must have rising positions.
    ///
    /// # Errors
    /// Those of the database; exit code 1 when the archive is damaged.
    pub async fn take(
        &mut self,
        first: Position,
        last: InputMark,
    ) -> Result<Vec<InputItem>, CommandError> {
        let end = last.next();
        let mut taken = Vec::new();
        loop {
            while self.items.front().is_some_and(|item| item.position() < end) {
                let item = self.items.pop_front();
                taken.extend(item.filter(|item| item.position() >= first));
            }
            if !self.items.is_empty() {
                return Ok(taken);
            }
            let Some(reader) = &mut self.reader else {
                return Ok(taken);
            };
            match reader.next().await.or_database()? {
                Some(message) => {
                    let stored = (message.sequence, StoredAt::new(message.ts));
                    let items = input_items(stored, &rows(&message));
                    self.items.extend(items.map_err(damaged)?);
                }
                None => self.reader = None,
            }
        }
    }
}

/// Creation time of the input stream from which a frame stored at `ts` was folded.
pub fn input_created(input: &ArchivedStream, ts: DateTime<Utc>) -> Timestamp {
    let created = input
        .generations
        .iter()
        .map(|generation| generation.created);
    let before = created.clone().filter(|created| *created <= ts).max();
    before
        .or(created.min())
        .unwrap_or(input.mark.stream_created)
}

fn read(message: &ArchivedMessage) -> Result<OutputFrame, CommandError> {
    output_frame(message.sequence, &rows(message)).map_err(damaged)
}

fn rows(message: &ArchivedMessage) -> Vec<ArchiveRow<'_>> {
    message
        .rows
        .iter()
        .map(|row| ArchiveRow {
            index: row.index,
            kind: &row.kind,
            payload: &row.payload,
            outcomes: row.outcomes.as_deref(),
        })
        .collect()
}

fn damaged(fault: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::refused(anyhow!(fault).context("the archive is damaged"))
}
