//! What goes into one transaction, and may be copied there before its turn has come.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::Message;
use nixfleet_store::{ArchiveBatch, ArchiveCursor, ArchiveError, ArchiveRow, Store};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::rows::{Read, Reading, UNDECODABLE};
use crate::stream::Stream;

/// Most bytes of messages in one transaction, beside the last message.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Part of [`BATCH_BYTES`] from which on copying ahead is worth another connection.
const WORTH_IT: usize = 8;
/// How long what was copied ahead keeps its connection and its locks: what it waits for may need
/// them to get on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Consecutive messages for one transaction, and what they become there.
#[derive(Default)]
pub struct Chunk {
    /// The messages.
    pub messages: Vec<Message>,
    /// Their rows.
    pub batch: Arc<ArchiveBatch>,
    /// Traces that the rows belong to.
    pub traces: Vec<String>,
    /// Rows of messages that cannot be read.
    pub unread: u64,
    bytes: usize,
    ahead: Option<Ahead>,
}

/// A transaction that is being filled.
struct Ahead {
    turn: oneshot::Sender<ArchiveCursor>,
    archived: AbortOnDropHandle<Result<bool, ArchiveError>>,
}

impl Chunk {
    /// One message with its rows.
    ///
    /// # Errors
    /// When its sequence does not fit into the column.
    pub fn one(message: &Message, rows: &[ArchiveRow<'_>]) -> Result<Self, ArchiveError> {
        let (mut chunk, mut batch) = (Self::default(), ArchiveBatch::default());
        chunk.push(&mut batch, rows)?;
        chunk.messages.push(message.clone());
        chunk.batch = Arc::new(batch);
        Ok(chunk)
    }

    fn push(
        &mut self,
        batch: &mut ArchiveBatch,
        rows: &[ArchiveRow<'_>],
    ) -> Result<(), ArchiveError> {
        for row in rows {
            batch.push(row)?;
            self.unread += u64::from(row.kind == UNDECODABLE);
            self.traces.extend(row.traceparent.map(str::to_owned));
        }
        Ok(())
    }

    /// Begins to copy the rows, while those before them are still being archived. To be called in a
    /// runtime.
    pub fn copy_ahead(&mut self, store: &Store) {
        if self.ahead.is_some() || self.bytes < BATCH_BYTES / WORTH_IT {
            return;
        }
        let (turn, turned) = oneshot::channel();
        let (store, batch) = (store.clone(), Arc::clone(&self.batch));
        let copying = async move {
            // Too late, or nobody waits for it any more: taken back either way.
            let turn = async { timeout(PATIENCE, turned).await.ok()?.ok() };
            store.archive_ahead(&batch, turn).await
        };
        let archived = AbortOnDropHandle::new(tokio::spawn(copying));
        self.ahead = Some(Ahead { turn, archived });
    }

    /// Archives what was copied ahead, now that its turn has come. False when nothing is archived:
    /// it is to be done in one go then, which tells why.
    pub async fn archive_ahead(&mut self, cursor: &ArchiveCursor) -> bool {
        let Some(ahead) = self.ahead.take() else {
            return false;
        };
        // It is heard unless the copying failed.
        let _heard = ahead.turn.send(cursor.clone());
        let reason = match ahead.archived.await {
            Ok(Ok(true)) => return true,
            Ok(Ok(false)) => "its turn did not come in time".to_owned(),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(panicked) => panicked.to_string(),
        };
        tracing::info!(
            stream = cursor.stream,
            reason,
            "what was copied ahead is copied again"
        );
        false
    }
}

/// Makes the rows of a batch and cuts it where they are enough for a transaction; a message stays whole.
///
/// # Errors
/// When a sequence does not fit into its column.
pub fn chunks(
    stream: &Stream,
    messages: Vec<Message>,
    batch_rows: usize,
) -> Result<Vec<Chunk>, ArchiveError> {
    let mut chunks = Vec::new();
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let (mut chunk, mut batch) = (Chunk::default(), ArchiveBatch::default());
        for message in messages.by_ref() {
            let read = Read::new(stream, &message, Reading::Quick);
            chunk.push(&mut batch, &read.rows())?;
            chunk.bytes += message.payload.len();
            chunk.messages.push(message);
            if batch.len() >= batch_rows || chunk.bytes >= BATCH_BYTES {
                break;
            }
        }
        chunk.batch = Arc::new(batch);
        chunks.push(chunk);
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

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
                stored_bytes: 0,
            })
            .collect();
        let cut: Vec<Vec<u64>> = chunks(&stream, messages, 3)
            .unwrap()
            .iter()
            .map(|chunk| chunk.messages.iter().map(|message| message.seq).collect())
            .collect();
        assert_eq!(cut, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
        assert!(chunks(&stream, Vec::new(), 3).unwrap().is_empty());
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
            stored_bytes: 0,
        };
        let cut = chunks(&stream, (1..=3).map(message).collect(), 5_000).unwrap();
        let sizes: Vec<_> = cut.iter().map(|chunk| chunk.messages.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }
}
