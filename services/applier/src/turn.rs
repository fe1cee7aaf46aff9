//! One turn: outcomes read, rows and cursor written, together or not at all.

use std::time::Instant;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Message, decode_output};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Outcome, OutputFrame, PinnedSet, Timestamp};
use nixfleet_service::trace;
use nixfleet_store::{ApplyError, Store, TurnRows};
use tracing::Instrument as _;

use crate::coalesce::{coalesce, manifests_named};
use crate::config::TurnConfig;
use crate::cursor::advance;
use crate::pinned;

/// The partition a turn is for and what it needs.
#[derive(Clone)]
pub struct Turns {
    pub partition: Partition,
    pub bus: Bus,
    pub store: Store,
    pub config: TurnConfig,
}

/// Frames that are applied in one transaction.
#[derive(Debug)]
pub struct Batch {
    frames: Vec<(u64, OutputFrame)>,
    traceparents: Vec<String>,
}

impl Batch {
    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.frames.iter().flat_map(|(_, frame)| &frame.outcomes)
    }
}

/// Reads messages as frames and cuts them into batches of at most about `outcomes_max` outcomes.
///
/// # Errors
/// When a frame cannot be read. It is not passed over: the rows would miss what it says.
pub fn batches(messages: Vec<Message>, outcomes_max: usize) -> anyhow::Result<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    for message in messages {
        let frame = decode_output(&message).with_context(|| {
            format!(
                "reading output frame {}: a newer release wrote it, or the log is damaged; \
                 upgrade this service",
                message.seq
            )
        })?;
        let size = frame.outcomes.len();
        if batches.is_empty() || size > room {
            room = outcomes_max.max(size);
            batches.push(Batch {
                frames: Vec::new(),
                traceparents: Vec::new(),
            });
        }
        room -= size;
        let batch = batches
            .last_mut()
            .expect("one was pushed when there was none");
        batch.traceparents.extend(message.traceparent);
        batch.frames.push((message.seq, frame));
    }
    Ok(batches)
}

impl Turns {
    /// Everything a turn writes, worked out before the transaction begins.
    ///
    /// # Errors
    /// When the bus does not answer, a manifest is missing, or an outcome makes no sense.
    pub async fn prepare(
        &self,
        batch: &Batch,
        previous: Option<&Cursor>,
        stream_created: Timestamp,
    ) -> anyhow::Result<(TurnRows, Cursor)> {
        let mut pinned = PinnedSet::new();
        pinned::fetch(&self.bus, manifests_named(batch.outcomes()), &mut pinned).await?;
        let rows = coalesce(batch.outcomes(), &pinned)?;
        let mut cursor = advance(previous, &batch.frames, stream_created)
            .context("a batch has at least one frame")?;
        if let (Some(mark), None) = (cursor.input, &cursor.input_msg_id) {
            let stream = self.bus.names().input_stream(self.partition);
            cursor.input_msg_id = self
                .bus
                .message_id_at(&stream, mark.seq)
                .await
                .with_context(|| format!("looking up the message id at {}", mark.seq))?;
        }
        Ok((rows, cursor))
    }

    /// Writes a turn in its own span, linked to the traces of its outcomes.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is written then, unless the connection broke at the commit, which the
    /// next attempt sees as a conflict.
    pub async fn write(
        &self,
        batch: &Batch,
        rows: &TurnRows,
        previous: Option<&Cursor>,
        cursor: &Cursor,
    ) -> Result<(), ApplyError> {
        let outcomes = batch.outcomes().count();
        let span = tracing::info_span!(
            "turn",
            partition = %self.partition,
            out_seq = cursor.out_seq,
            outcomes,
            rows = rows.len(),
        );
        let parents = batch
            .outcomes()
            .filter_map(|outcome| outcome.traceparent.as_deref());
        let frames = batch.traceparents.iter().map(String::as_str);
        trace::link_all(&span, frames.chain(parents));
        let start = Instant::now();
        let from = previous.map_or(0, |cursor| cursor.out_seq);
        let applied = self
            .store
            .apply_turn(self.partition, from, rows, cursor)
            .instrument(span)
            .await?;
        metrics::histogram!("nixfleet_turn_seconds", "service" => "applier")
            .record(start.elapsed().as_secs_f64());
        metrics::histogram!("nixfleet_turn_entries", "service" => "applier")
            .record(outcomes as f64);
        metrics::counter!("nixfleet_rows_written_total").increment(applied.rows);
        if applied.orphans > 0 {
            metrics::counter!("nixfleet_orphan_rows_total").increment(applied.orphans);
            tracing::warn!(
                partition = %self.partition,
                orphans = applied.orphans,
                "changes of rollouts whose opening is not in the log any more were passed over"
            );
        }
        tracing::debug!(partition = %self.partition, out_seq = cursor.out_seq, ?applied, "applied");
        Ok(())
    }
}
