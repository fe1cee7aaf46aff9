//! One turn: decode frames, build rows, and write them with the cursor in one transaction.

mod pinned_manifests;

use std::time::Instant;

use anyhow::Context as _;
use nixfleet_applier::{FrameBatch, SequencedFrame, Turn, TurnBuilder, opened_manifests};
use nixfleet_bus::{Bus, Message, decode_output};
use nixfleet_proto::PinnedSet;
use nixfleet_proto::subject::Partition;
use nixfleet_service::trace_context;
use nixfleet_store::{ApplyError, EncodedRecords, Store};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::config::TurnConfig;

/// Writer of the turns of one partition.
#[derive(Clone)]
pub struct TurnWriter {
    pub partition: Partition,
    pub bus: Bus,
    pub store: Store,
    pub config: TurnConfig,
}

/// Decodes output frames.
///
/// # Errors
/// When a frame cannot be decoded. It is not skipped: the rows would lack its outcomes.
pub fn decode(messages: Vec<Message>) -> anyhow::Result<Vec<SequencedFrame>> {
    let decode = |message: Message| {
        let frame = decode_output(&message).with_context(|| {
            format!(
                "reading output frame {}: a newer release wrote it, or the log is damaged; \
                 upgrade this service",
                message.seq
            )
        })?;
        Ok(SequencedFrame {
            seq: message.seq,
            traceparent: message.traceparent,
            frame,
        })
    };
    messages.into_iter().map(decode).collect()
}

/// A turn that is ready to write, with its frames.
pub struct PreparedTurn {
    batch: FrameBatch,
    pub turn: Turn,
    records: EncodedRecords,
}

impl PreparedTurn {
    pub fn frames(&self) -> usize {
        self.batch.frames()
    }

    pub fn outcomes(&self) -> usize {
        self.batch.outcomes().count()
    }
}

impl TurnWriter {
    /// Builds a turn on another thread, while the turn before is written.
    ///
    /// # Errors
    /// When the bus does not answer, a manifest is missing, or an outcome gives no rows.
    pub async fn prepare(
        &self,
        builder: TurnBuilder,
        batch: FrameBatch,
    ) -> anyhow::Result<PreparedTurn> {
        let mut pinned = PinnedSet::new();
        pinned_manifests::fetch(&self.bus, opened_manifests(batch.outcomes()), &mut pinned).await?;
        let prepare = spawn_blocking(move || {
            let turn = builder.turn(&batch, &pinned)?;
            let records = EncodedRecords::of(&turn.rows)?;
            anyhow::Ok(PreparedTurn {
                batch,
                turn,
                records,
            })
        });
        let mut prepared = prepare.await.context("building a turn")??;
        let cursor = &mut prepared.turn.cursor;
        if let (Some(mark), None) = (cursor.input, &cursor.input_msg_id) {
            let stream = self.bus.names().input_stream(self.partition);
            cursor.input_msg_id = self
                .bus
                .message_id_at(&stream, mark.seq)
                .await
                .with_context(|| format!("looking up the message id at {}", mark.seq))?;
        }
        Ok(prepared)
    }

    /// Writes a turn, in a span that is linked to the traces of its outcomes.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is written then. After a connection failure during the commit the
    /// next attempt reports a conflict.
    pub async fn write(&self, prepared: &PreparedTurn) -> Result<(), ApplyError> {
        let PreparedTurn {
            batch,
            turn:
                Turn {
                    expected,
                    rows,
                    cursor,
                },
            records,
        } = prepared;
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
        trace_context::link_all(&span, batch.traceparents().chain(parents));
        let start = Instant::now();
        let applied = self
            .store
            .apply_encoded(self.partition, *expected, (rows, records), cursor)
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
                "skipped changes of rollouts whose opening is not in the log any more"
            );
        }
        tracing::debug!(partition = %self.partition, out_seq = cursor.out_seq, ?applied, "turn written");
        Ok(())
    }
}
