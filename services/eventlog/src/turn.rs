//! One turn: a batch of messages becomes rows and a cursor, in one transaction.

use std::time::{Duration, Instant};

use nixfleet_bus::Message;
use nixfleet_proto::Timestamp;
use nixfleet_service::trace;
use nixfleet_store::{ArchiveCursor, ArchiveError, ArchiveRow, Store};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::artifacts::{ArtifactError, Artifacts};
use crate::rows::{Reading, rows, undecodable};
use crate::stream::Stream;

/// Pause before a transaction is tried again; the database is restarting or busy.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Most bytes of messages in one transaction, beside the last message.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;

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

/// Rows of consecutive messages for one transaction.
pub struct Chunk {
    messages: Vec<Message>,
    rows: Vec<ArchiveRow>,
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
        for chunk in chunks {
            self.copy_artifacts(&chunk.messages).await?;
            let span = tracing::info_span!("archive", stream = %self.stream.name,
                messages = chunk.messages.len(), rows = chunk.rows.len());
            let parents = chunk
                .rows
                .iter()
                .filter_map(|row| row.traceparent.as_deref());
            trace::link_all(&span, parents);
            total += chunk.rows.len();
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
                    tracing::warn!(error = %error_chain(&error), "waiting to archive artifacts");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn archive(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match self.write(&chunk).await {
            Err(ArchiveError::Db(error)) => {
                tracing::warn!(stream = %self.stream.name, error = %error_chain(&error),
                    "the database refuses a batch, trying its messages one by one");
            }
            written => {
                // Letting go of thousands of texts takes a while, in which the next can be written.
                spawn_blocking(move || drop(chunk));
                return written;
            }
        }
        for message in chunk.messages {
            let mut chunk = Chunk {
                rows: rows(&self.stream, &message, Reading::Full),
                messages: vec![message.clone()],
            };
            let reason = match self.write(&chunk).await {
                Err(ArchiveError::Db(error)) => error_chain(&error),
                written => {
                    written?;
                    continue;
                }
            };
            tracing::error!(stream = %self.stream.name, seq = message.seq, reason,
                "the database refuses a message, it is archived as bytes");
            chunk.rows = vec![undecodable(&self.stream, &message, &reason)];
            self.write(&chunk).await?;
        }
        Ok(())
    }

    /// One transaction, tried until the database answers.
    async fn write(&mut self, chunk: &Chunk) -> Result<(), ArchiveError> {
        let Some(last) = chunk.messages.last() else {
            return Ok(());
        };
        let cursor = ArchiveCursor {
            stream: self.stream.name.clone(),
            previous_sequence: self.archived,
            sequence: last.seq,
            stream_created: self.created,
        };
        let mut reported = false;
        loop {
            match self.store.archive(&chunk.rows, &cursor).await {
                Ok(()) => {
                    self.archived = last.seq;
                    count(&chunk.rows);
                    return Ok(());
                }
                Err(error) if error.retryable() => {
                    if !reported {
                        tracing::warn!(stream = %self.stream.name, error = %error_chain(&error),
                            "waiting for the database");
                    }
                    reported = true;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Makes the rows of a batch and cuts it where they are enough for a transaction; a message stays whole.
pub fn chunks(stream: &Stream, messages: Vec<Message>, batch_rows: usize) -> Vec<Chunk> {
    let empty = || Chunk {
        messages: Vec::new(),
        rows: Vec::new(),
    };
    let (mut chunks, mut open, mut bytes) = (Vec::new(), empty(), 0);
    for message in messages {
        open.rows.extend(rows(stream, &message, Reading::Quick));
        bytes += message.payload.len();
        open.messages.push(message);
        if open.rows.len() >= batch_rows || bytes >= BATCH_BYTES {
            chunks.push(std::mem::replace(&mut open, empty()));
            bytes = 0;
        }
    }
    if !open.messages.is_empty() {
        chunks.push(open);
    }
    chunks
}

fn count(rows: &[ArchiveRow]) {
    metrics::counter!("nixfleet_archived_rows_total").increment(rows.len() as u64);
    let unread = rows
        .iter()
        .filter(|row| row.kind == crate::rows::UNDECODABLE)
        .count();
    if unread > 0 {
        metrics::counter!("nixfleet_hostile_input_total", "kind" => "undecodable-message")
            .increment(unread as u64);
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Content;

    #[test]
    fn a_batch_is_cut_between_messages_and_keeps_all_of_them() {
        let stream = Stream {
            name: "S".to_owned(),
            content: Content::Dead,
        };
        let messages: Vec<_> = (1..=7)
            .map(|seq| Message {
                seq,
                subject: "s".to_owned(),
                msg_id: None,
                traceparent: None,
                time: Timestamp::UNIX_EPOCH,
                payload: "{}".into(),
            })
            .collect();
        let cut: Vec<Vec<u64>> = chunks(&stream, messages, 3)
            .iter()
            .map(|chunk| chunk.rows.iter().map(|row| row.sequence).collect())
            .collect();
        assert_eq!(cut, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
        assert!(chunks(&stream, Vec::new(), 3).is_empty());
    }

    #[test]
    fn large_messages_fill_a_transaction_by_their_bytes() {
        let stream = Stream {
            name: "S".to_owned(),
            content: Content::Dead,
        };
        let message = |seq| Message {
            seq,
            subject: "s".to_owned(),
            msg_id: None,
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload: vec![b' '; BATCH_BYTES / 2].into(),
        };
        let cut = chunks(&stream, (1..=3).map(message).collect(), 5_000);
        let sizes: Vec<_> = cut.iter().map(|chunk| chunk.messages.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }
}
