//! One turn: a batch of messages becomes rows and a cursor, in one transaction.

use std::time::{Duration, Instant};

use nixfleet_bus::Message;
use nixfleet_proto::Timestamp;
use nixfleet_service::trace;
use nixfleet_store::{ArchiveCursor, ArchiveError, Store};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::artifacts::{ArtifactError, Artifacts};
use crate::chunk::Chunk;
use crate::rows::{Read, Reading};
use crate::stream::Stream;

/// Pause before a transaction is tried again; the database is restarting or busy.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The archive of one stream.
pub struct Archive {
    /// Where to.
    pub store: Store,
    /// The stream.
    pub stream: Stream,
    /// When the stream was created.
    pub created: Timestamp,
    /// Last archived sequence.
    pub archived: u64,
    /// The bytes that announcements name; for the stream that holds them.
    pub artifacts: Option<Artifacts>,
}

impl Archive {
    /// Archives what was read, in order, and says how many rows it made. Waits while the database is away.
    ///
    /// # Errors
    /// [`ArchiveError`] that waiting cannot cure; after a conflict the cursor must be read again.
    /// The messages before the failed transaction are archived.
    pub async fn turn(&mut self, chunks: Vec<Chunk>) -> Result<usize, ArchiveError> {
        let started = Instant::now();
        let mut total = 0;
        let mut chunks = chunks.into_iter().peekable();
        while let Some(chunk) = chunks.next() {
            if let Some(next) = chunks.peek_mut() {
                next.copy_ahead(&self.store);
            }
            self.copy_artifacts(&chunk.messages).await?;
            let span = tracing::info_span!("archive", stream = %self.stream.name,
                messages = chunk.messages.len(), rows = chunk.batch.len());
            trace::link_all(&span, chunk.traces.iter().map(String::as_str));
            total += chunk.batch.len();
            self.archive(chunk).instrument(span).await?;
        }
        metrics::histogram!("nixfleet_turn_seconds", "service" => "eventlog")
            .record(started.elapsed());
        metrics::histogram!("nixfleet_turn_entries", "service" => "eventlog").record(total as f64);
        Ok(total)
    }

    /// Before the rows that name them, so that the archive is complete at every moment.
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

    async fn archive(&mut self, mut chunk: Chunk) -> Result<(), ArchiveError> {
        match self.write(&mut chunk).await {
            Err(ArchiveError::Db(error)) => {
                let error = anyhow::Error::new(error);
                tracing::warn!(stream = %self.stream.name, error = format!("{error:#}"),
                    "the database refuses a batch, trying its messages one by one");
            }
            written => {
                // Letting go of thousands of messages takes a while, in which the next can be written.
                spawn_blocking(move || drop(chunk));
                return written;
            }
        }
        for message in chunk.messages {
            let read = Read::new(&self.stream, &message, Reading::Full);
            let mut chunk = Chunk::one(&message, &read.rows())?;
            let reason = match self.write(&mut chunk).await {
                Err(ArchiveError::Db(error)) => format!("{:#}", anyhow::Error::new(error)),
                written => {
                    written?;
                    continue;
                }
            };
            tracing::error!(stream = %self.stream.name, seq = message.seq, reason,
                "the database refuses a message, it is archived as bytes");
            let read = Read::undecodable(&self.stream, &message, &reason);
            let mut chunk = Chunk::one(&message, &read.rows())?;
            self.write(&mut chunk).await?;
        }
        Ok(())
    }

    /// One transaction.
    async fn write(&mut self, chunk: &mut Chunk) -> Result<(), ArchiveError> {
        let Some(last) = chunk.messages.last() else {
            return Ok(());
        };
        let cursor = ArchiveCursor {
            stream: self.stream.name.clone(),
            previous_sequence: self.archived,
            sequence: last.seq,
            stream_created: self.created,
        };
        if !chunk.archive_ahead(&cursor).await {
            self.insist(chunk, &cursor).await?;
        }
        self.archived = cursor.sequence;
        count(chunk);
        Ok(())
    }

    /// Tries until the database answers.
    async fn insist(&self, chunk: &Chunk, cursor: &ArchiveCursor) -> Result<(), ArchiveError> {
        let mut reported = false;
        loop {
            match self.store.archive(&chunk.batch, cursor).await {
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

fn count(chunk: &Chunk) {
    metrics::counter!("nixfleet_archived_rows_total").increment(chunk.batch.len() as u64);
    if chunk.unread > 0 {
        metrics::counter!("nixfleet_hostile_input_total", "kind" => "undecodable-message")
            .increment(chunk.unread);
    }
}
