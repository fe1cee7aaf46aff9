//! A batch for one transaction, whose rows may be copied before earlier ones commit.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::Message;
use nixfleet_store::{ArchiveBatch, ArchiveCursor, ArchiveError, ArchiveRow, Store};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::archive::message_rows::{ArchivedMessage, FrameParsing, UNDECODABLE};
use crate::stream::Stream;

/// Maximum of message bytes in one transaction, beside the last message.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Divisor of [`BATCH_BYTES`] that gives the smallest batch worth another connection.
const COPY_AHEAD_DIVISOR: usize = 8;
/// Longest time for which rows copied ahead keep their connection and locks.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Consecutive messages for one transaction, with their rows.
#[derive(Default)]
pub struct PreparedBatch {
    pub messages: Vec<Message>,
    pub rows: Arc<ArchiveBatch>,
    pub traces: Vec<String>,
    pub unread: u64,
    bytes: usize,
    ahead: Option<AheadTransaction>,
}

/// An open transaction into which rows are copied.
struct AheadTransaction {
    commit: oneshot::Sender<ArchiveCursor>,
    archived: AbortOnDropHandle<Result<bool, ArchiveError>>,
}

impl PreparedBatch {
    /// Creates a batch of one message and its rows.
    ///
    /// # Errors
    /// When the sequence does not fit into its column.
    pub fn one(message: &Message, rows: &[ArchiveRow<'_>]) -> Result<Self, ArchiveError> {
        let (mut batch, mut encoded) = (Self::default(), ArchiveBatch::default());
        batch.push(&mut encoded, rows)?;
        batch.messages.push(message.clone());
        batch.rows = Arc::new(encoded);
        Ok(batch)
    }

    fn push(
        &mut self,
        encoded: &mut ArchiveBatch,
        rows: &[ArchiveRow<'_>],
    ) -> Result<(), ArchiveError> {
        for row in rows {
            encoded.push(row)?;
            self.unread += u64::from(row.kind == UNDECODABLE);
            self.traces.extend(row.traceparent.map(str::to_owned));
        }
        Ok(())
    }

    /// Starts to copy the rows while the batch ahead is archived. Must be called within a runtime.
    pub fn copy_ahead(&mut self, store: &Store) {
        if self.ahead.is_some() || self.bytes < BATCH_BYTES / COPY_AHEAD_DIVISOR {
            return;
        }
        let (commit, committed) = oneshot::channel();
        let (store, rows) = (store.clone(), Arc::clone(&self.rows));
        let copying = async move {
            // After the timeout, or without a receiver, the transaction is rolled back.
            let cursor = async { timeout(AHEAD_TIMEOUT, committed).await.ok()?.ok() };
            store.archive_ahead(&rows, cursor).await
        };
        let archived = AbortOnDropHandle::new(tokio::spawn(copying));
        self.ahead = Some(AheadTransaction { commit, archived });
    }

    /// Commits the rows that were copied ahead. False when nothing was committed: the caller
    /// archives the batch in one transaction then, which returns the error.
    pub async fn archive_ahead(&mut self, cursor: &ArchiveCursor) -> bool {
        let Some(ahead) = self.ahead.take() else {
            return false;
        };
        // The receiver is gone only if copying failed.
        let _sent = ahead.commit.send(cursor.clone());
        let reason = match ahead.archived.await {
            Ok(Ok(true)) => return true,
            Ok(Ok(false)) => "the transaction ahead did not commit in time".to_owned(),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(panicked) => panicked.to_string(),
        };
        tracing::info!(
            stream = cursor.stream,
            reason,
            "rows that were copied ahead are copied again"
        );
        false
    }
}

/// Splits messages into batches of about `batch_rows` rows; the rows of one stay together.
///
/// # Errors
/// When a sequence does not fit into its column.
pub fn prepare_batches(
    stream: &Stream,
    messages: Vec<Message>,
    batch_rows: usize,
) -> Result<Vec<PreparedBatch>, ArchiveError> {
    let mut batches = Vec::new();
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let (mut batch, mut encoded) = (PreparedBatch::default(), ArchiveBatch::default());
        for message in messages.by_ref() {
            let read = ArchivedMessage::new(stream, &message, FrameParsing::Fast);
            batch.push(&mut encoded, &read.rows())?;
            batch.bytes += message.payload.len();
            batch.messages.push(message);
            if encoded.len() >= batch_rows || batch.bytes >= BATCH_BYTES {
                break;
            }
        }
        batch.rows = Arc::new(encoded);
        batches.push(batch);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;
    use crate::stream::Content;

    #[test]
    fn batches_are_split_between_messages_and_keep_all_of_them() {
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
                stored_bytes: 0,
            })
            .collect();
        let cut: Vec<Vec<u64>> = prepare_batches(&stream, messages, 3)
            .unwrap()
            .iter()
            .map(|batch| batch.messages.iter().map(|message| message.seq).collect())
            .collect();
        assert_eq!(cut, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
        assert!(prepare_batches(&stream, Vec::new(), 3).unwrap().is_empty());
    }

    #[test]
    fn batches_of_large_messages_are_limited_by_bytes() {
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
            stored_bytes: 0,
        };
        let cut = prepare_batches(&stream, (1..=3).map(message).collect(), 5_000).unwrap();
        let sizes: Vec<_> = cut.iter().map(|batch| batch.messages.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }
}
