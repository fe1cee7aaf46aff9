//! One turn: outcomes read, rows and cursor written, together or not at all.

use std::time::Instant;

use anyhow::Context as _;
use nixfleet_applier::{Batch, Follower, Frame, Turn, manifests_named};
use nixfleet_bus::{Bus, Message, decode_output};
use nixfleet_proto::PinnedSet;
use nixfleet_proto::subject::Partition;
use nixfleet_service::trace;
use nixfleet_store::{ApplyError, EncodedRecords, Store};
use tokio::task::spawn_blocking;
use tracing::Instrument as _;

use crate::config::TurnConfig;
use crate::pinned;

/// The partition a turn is for and what it needs.
#[derive(Clone)]
pub struct Turns {
    pub partition: Partition,
    pub bus: Bus,
    pub store: Store,
    pub config: TurnConfig,
}

/// Reads messages as frames.
///
/// # Errors
/// When a frame cannot be read. It is not passed over: the rows would miss what it says.
pub fn decode(messages: Vec<Message>) -> anyhow::Result<Vec<Frame>> {
    let decode = |message: Message| {
        let frame = decode_output(&message).with_context(|| {
            format!(
                "reading output frame {}: a newer release wrote it, or the log is damaged; \
                 upgrade this service",
                message.seq
            )
        })?;
        Ok(Frame {
            seq: message.seq,
            traceparent: message.traceparent,
            frame,
        })
    };
    messages.into_iter().map(decode).collect()
}

/// A turn that is worked out, with the frames it is made of.
pub struct Prepared {
    batch: Batch,
    /// What it writes.
    pub turn: Turn,
    records: EncodedRecords,
}

impl Prepared {
    /// Frames it is made of.
    pub fn frames(&self) -> usize {
        self.batch.frames()
    }

    /// Outcomes of these.
    pub fn outcomes(&self) -> usize {
        self.batch.outcomes().count()
    }
}

impl Turns {
    /// Everything a turn writes, worked out on another thread: the turn before may be written meanwhile.
    ///
    /// # Errors
    /// When the bus does not answer, a manifest is missing, or an outcome makes no sense.
    pub async fn prepare(&self, follower: Follower, batch: Batch) -> anyhow::Result<Prepared> {
        let mut pinned = PinnedSet::new();
        pinned::fetch(&self.bus, manifests_named(batch.outcomes()), &mut pinned).await?;
        let prepare = spawn_blocking(move || {
            let turn = follower.turn(&batch, &pinned)?;
            let records = EncodedRecords::of(&turn.rows)?;
            anyhow::Ok(Prepared {
                batch,
                turn,
                records,
            })
        });
        let mut prepared = prepare.await.context("working out a turn")??;
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

    /// Writes a turn in its own span, linked to the traces of its outcomes.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is written then, unless the connection broke at the commit, which the
    /// next attempt sees as a conflict.
    pub async fn write(&self, prepared: &Prepared) -> Result<(), ApplyError> {
        let Prepared {
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
        trace::link_all(&span, batch.traceparents().chain(parents));
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
                "changes of rollouts whose opening is not in the log any more were passed over"
            );
        }
        tracing::debug!(partition = %self.partition, out_seq = cursor.out_seq, ?applied, "applied");
        Ok(())
    }
}
