//! One turn: the rows of a batch of messages and the cursor are written in one transaction.

use std::time::{Duration, Instant};

use nixfleet_bus::Message;
use nixfleet_proto::Timestamp;
use nixfleet_service::trace_context;
use nixfleet_store::{ArchiveCursor, ArchiveError, Store};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::archive::artifacts::{ArtifactError, Artifacts};
use crate::archive::message_rows::{ArchivedMessage, FrameParsing};
use crate::archive::prepared_batch::PreparedBatch;
use crate::stream::Stream;

/// Pause before a transaction is tried again while the database is restarting or busy.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The archive of one stream.
pub struct ArchiveWriter {
    pub store: Store,
    pub stream: Stream,
    pub created: Timestamp,
    pub archived: u64,
    /// Copier of announced artifacts, for the stream of announcements.
    pub artifacts: Option<Artifacts>,
}

impl ArchiveWriter {
    /// Archives batches in order and returns the number of rows; waits for the database.
    ///
    /// # Errors
    /// [`ArchiveError`] that is not retryable; after a conflict the cursor must be read again.
    /// Messages before the failed transaction are archived.
    pub async fn turn(&mut self, batches: Vec<PreparedBatch>) -> Result<usize, ArchiveError> {
        let started = Instant::now();
        let mut total = 0;
        let mut batches = batches.into_iter().peekable();
        while let Some(batch) = batches.next() {
            if let Some(next) = batches.peek_mut() {
                next.copy_ahead(&self.store);
            }
            self.copy_artifacts(&batch.messages).await?;
            let span = tracing::info_span!("archive", stream = %self.stream.name,
                messages = batch.messages.len(), rows = batch.rows.len());
            trace_context::link_all(&span, batch.traces.iter().map(String::as_str));
            total += batch.rows.len();
            self.archive(batch).instrument(span).await?;
        }
        metrics::histogram!("nixfleet_turn_seconds", "service" => "eventlog")
            .record(started.elapsed());
        metrics::histogram!("nixfleet_turn_entries", "service" => "eventlog").record(total as f64);
        Ok(total)
    }

    /// Copies artifacts before the rows that name them: the archive is always complete.
    async fn copy_artifacts(&mut self, messages: &[Message]) -> Result<(), ArchiveError> {
        let Some(artifacts) = &mut self.artifacts else {
            return Ok(());
        };
        loop {
            match artifacts.archive(messages).await {
                Ok(()) => return Ok(()),
                Err(ArtifactError::Archive(error)) if !error.retryable() => return Err(error),
                Err(error) => {
                    let error = anyhow::Error::new(error);
                    tracing::warn!(error = format!("{error:#}"), "waiting to archive artifacts");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn archive(&mut self, mut batch: PreparedBatch) -> Result<(), ArchiveError> {
        match self.write(&mut batch).await {
            Err(ArchiveError::Db(error)) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(stream = %self.stream.name, error = format!("{error:#}"),
                    "the database refused a batch; archiving its messages one by one");
            }
            written => {
                // Dropping many messages takes time, in which the next batch can be written.
                spawn_blocking(move || drop(batch));
                return written;
            }
        }
        for message in batch.messages {
            let read = ArchivedMessage::new(&self.stream, &message, FrameParsing::Full);
            let mut batch = PreparedBatch::one(&message, &read.rows())?;
            let reason = match self.write(&mut batch).await {
                Err(ArchiveError::Db(error)) => format!("{:#}", anyhow::Error::new(error)),
                written => {
                    written?;
                    continue;
                }
            };
            tracing::error!(stream = %self.stream.name, seq = message.seq, reason,
                "the database refused a message; archiving it as bytes");
            let read = ArchivedMessage::undecodable(&self.stream, &message, &reason);
            let mut batch = PreparedBatch::one(&message, &read.rows())?;
            self.write(&mut batch).await?;
        }
        Ok(())
    }

    async fn write(&mut self, batch: &mut PreparedBatch) -> Result<(), ArchiveError> {
        let Some(last) = batch.messages.last() else {
            return Ok(());
        };
        let cursor = ArchiveCursor {
            stream: self.stream.name.clone(),
            previous_sequence: self.archived,
            sequence: last.seq,
            stream_created: self.created,
        };
        if !batch.archive_ahead(&cursor).await {
            self.archive_with_retry(batch, &cursor).await?;
        }
        self.archived = cursor.sequence;
        count(batch);
        Ok(())
    }

    /// Retries until the database answers.
    async fn archive_with_retry(
        &self,
        batch: &PreparedBatch,
        cursor: &ArchiveCursor,
    ) -> Result<(), ArchiveError> {
        let mut reported = false;
        loop {
            match self.store.archive(&batch.rows, cursor).await {
                Err(error) if error.retryable() => {
                    if !reported {
                        let error = anyhow::Error::new(error);
                        tracing::warn!(stream = %self.stream.name, error = format!("{error:#}"),
                            "waiting for the database");
                    }
                    reported = true;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                tried => return tried,
            }
        }
    }
}

fn count(batch: &PreparedBatch) {
    metrics::counter!("nixfleet_archived_rows_total").increment(batch.rows.len() as u64);
    if batch.unread > 0 {
        metrics::counter!("nixfleet_hostile_input_total", "kind" => "undecodable-message")
            .increment(batch.unread);
    }
}
