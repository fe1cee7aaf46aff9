//! Becoming the owner: shut older owners out, then build the state.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{
    Bus, LastFrameError, OutputLog, PublishError, ReadError, StreamIdentity, decode_output,
};
use nixfleet_core::partition::{AbsorbError, PartitionState};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{InputMark, OutputFrame, Position, Verdict};
use nixfleet_store::{ReadError as RowError, Store};

use crate::ended::Ended;
use crate::folder::Start;
use crate::guard::{self, Logs, Passed};
use crate::manifests::Manifests;

/// What a takeover needs.
#[derive(Clone)]
pub struct Takeover {
    /// The bus.
    pub bus: Bus,
    /// The rows.
    pub store: Arc<Store>,
    /// The partition.
    pub partition: Partition,
}

/// A partition that is owned and hydrated.
pub struct Taken {
    /// The state at the barrier.
    pub state: PartitionState,
    /// What its rollouts pin.
    pub manifests: Manifests,
    /// This owner's epoch.
    pub epoch: u64,
    /// Sequence of the barrier: the fence of the next frame.
    pub out_seq: u64,
    /// Where to go on.
    pub start: Start,
}

impl Takeover {
    /// Publishes the barrier, loads the rows and absorbs the frames behind them.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn run(&self) -> Result<Taken, Ended> {
        let log = self.bus.output(self.partition);
        let cursor = self.cursor().await?;
        let barrier = self.shut_out(&log, cursor.as_ref()).await?;
        let snapshot = self
            .store
            .load_partition(self.partition)
            .await
            .map_err(|error| row_fault(error, "loading the rows"))?;
        let passed = self.guard(snapshot.cursor.as_ref()).await?;
        if passed.truncated {
            tracing::warn!(partition = %self.partition, from = passed.output_from,
                "rebuilt: the rows are gone and the log does not reach back to its beginning");
        }
        let mut manifests = Manifests::new(self.bus.manifests());
        let state = restore(snapshot, &mut manifests).await?;
        let mut hydration = Hydration {
            state,
            manifests,
            truncated: passed.truncated,
        };
        self.absorb(&mut hydration, passed.output_from, barrier.seq)
            .await?;
        let next = self.next(barrier.last_input, passed).await?;
        Ok(Taken {
            state: hydration.state,
            manifests: hydration.manifests,
            epoch: barrier.epoch,
            out_seq: barrier.seq,
            start: Start {
                last_input: barrier.last_input,
                next,
            },
        })
    }

    async fn cursor(&self) -> Result<Option<Cursor>, Ended> {
        self.store
            .schema_ready()
            .await
            .map_err(|error| row_fault(error, "checking the schema"))?;
        self.store
            .cursor(self.partition)
            .await
            .map_err(|error| row_fault(error, "reading the cursor"))
    }

    /// From the barrier on, no older owner can append.
    async fn shut_out(&self, log: &OutputLog, cursor: Option<&Cursor>) -> Result<Barrier, Ended> {
        let last = log.last().await.map_err(|error| match error {
            LastFrameError::Leader(_) => Ended::failed(error),
            LastFrameError::Undecodable { .. } => Ended::halted(error),
        })?;
        let (expected, epoch, last_input) = match last {
            Some(last) => (last.seq, last.frame.epoch, last.frame.last_input),
            // An output log that was created anew knows less than the rows.
            None => (
                0,
                cursor.map_or(0, |cursor| cursor.epoch),
                cursor.and_then(|cursor| cursor.input),
            ),
        };
        let frame = OutputFrame {
            last_input,
            ..OutputFrame::new(epoch + 1)
        };
        let seq = log
            .publish(&frame, expected)
            .await
            .map_err(|error| match error {
                PublishError::Fenced { .. } => Ended::Fenced,
                PublishError::TooLarge { .. } | PublishError::Unavailable(_) => {
                    Ended::failed(error)
                }
            })?;
        tracing::info!(partition = %self.partition, epoch = frame.epoch, seq, "took over");
        Ok(Barrier {
            seq,
            epoch: frame.epoch,
            last_input,
        })
    }

    async fn guard(&self, cursor: Option<&Cursor>) -> Result<Passed, Ended> {
        let input = self.bus.names().input_stream(self.partition);
        let output = self.bus.names().output_stream(self.partition);
        let id_at_cursor = match cursor.and_then(|cursor| cursor.input) {
            None => None,
            Some(mark) => self
                .bus
                .message_id_at(&input, mark.seq)
                .await
                .context("reading the message at the cursor")
                .map_err(Ended::Failed)?,
        };
        let logs = Logs {
            input: self.identity(&input).await?,
            output: self.identity(&output).await?,
            id_at_cursor,
        };
        guard::check(cursor, &logs).map_err(Ended::halted)
    }

    async fn identity(&self, stream: &str) -> Result<StreamIdentity, Ended> {
        self.bus
            .stream_identity(stream)
            .await
            .with_context(|| format!("looking at {stream}"))
            .map_err(Ended::Failed)
    }

    /// Absorbs the frames from `from` up to the barrier.
    async fn absorb(
        &self,
        hydration: &mut Hydration,
        from: u64,
        barrier: u64,
    ) -> Result<(), Ended> {
        let stream = self.bus.names().output_stream(self.partition);
        let mut reader = self.bus.reader(&stream, from);
        let mut next = from;
        while next <= barrier {
            let messages = reader.next_batch(64).await.map_err(read_fault)?;
            for message in messages {
                let frame = decode_output(&message)
                    .with_context(|| format!("reading output frame {}", message.seq))
                    .map_err(Ended::Halted)?;
                next = message.seq + 1;
                hydration
                    .absorb(&frame)
                    .await
                    .map_err(|ended| at_frame(ended, message.seq))?;
            }
        }
        tracing::info!(partition = %self.partition, from, to = barrier,
            rollouts = hydration.state.rollouts().len(), "hydrated");
        Ok(())
    }

    /// The first input that no frame covers.
    async fn next(&self, last: Option<InputMark>, passed: Passed) -> Result<Position, Ended> {
        let after = last.map_or(Position { seq: 1, index: 0 }, InputMark::next);
        if !passed.replaced {
            // What was trimmed unread is found by the reader.
            return Ok(after);
        }
        let stream = self.bus.names().input_stream(self.partition);
        let identity = self.identity(&stream).await?;
        let first = Position {
            seq: identity.first_seq,
            index: 0,
        };
        Ok(after.max(first))
    }
}

/// The frame that shuts older owners out.
struct Barrier {
    seq: u64,
    epoch: u64,
    last_input: Option<InputMark>,
}

/// A state on its way to the barrier.
struct Hydration {
    state: PartitionState,
    manifests: Manifests,
    /// The log has no beginning: outcomes of rollouts that were opened before it are passed over.
    truncated: bool,
}

impl Hydration {
    async fn absorb(&mut self, frame: &OutputFrame) -> Result<(), Ended> {
        for outcome in &frame.outcomes {
            if let Verdict::Accepted(accepted) = &outcome.verdict
                && let Some(opened) = &accepted.opened
            {
                self.manifests.ensure(&opened.manifest_hash).await?;
            }
            match self.state.absorb(outcome, self.manifests.pinned()) {
                Ok(()) => {}
                Err(AbsorbError::UnknownRollout(_)) if self.truncated => {}
                Err(error) => return Err(Ended::halted(error)),
            }
        }
        // A state that lacks what came before the log cannot have the hash of one that does not.
        if let (Some(expected), false) = (&frame.state_hash, self.truncated) {
            let actual = self.state.hash();
            if actual != *expected {
                return Err(Ended::Halted(anyhow!(
                    "the rows and frames give the state {actual}, its owner had {expected}: drop \
                     the schema, so that the rows are written again from the log"
                )));
            }
        }
        Ok(())
    }
}

fn at_frame(ended: Ended, seq: u64) -> Ended {
    match ended {
        Ended::Halted(error) => Ended::Halted(error.context(format!("absorbing frame {seq}"))),
        Ended::Failed(error) => Ended::Failed(error.context(format!("absorbing frame {seq}"))),
        Ended::Released | Ended::Fenced => ended,
    }
}

async fn restore(
    snapshot: PartitionSnapshot,
    manifests: &mut Manifests,
) -> Result<PartitionState, Ended> {
    for row in &snapshot.rollouts {
        manifests.ensure(&row.manifest_hash).await?;
    }
    PartitionState::restore(snapshot, manifests.pinned())
        .context("restoring the state from the rows")
        .map_err(Ended::Halted)
}

/// A schema that is not there yet comes with the applier; rows that cannot be read do not mend.
fn row_fault(error: RowError, doing: &'static str) -> Ended {
    if error.retryable() {
        Ended::Failed(anyhow::Error::new(error).context(doing))
    } else {
        Ended::Halted(anyhow::Error::new(error).context(doing))
    }
}

/// A reader that cannot go on: streams that appear or leaders that move are waited for elsewhere.
pub fn read_fault(error: ReadError) -> Ended {
    match error {
        ReadError::Missing { .. } | ReadError::Replaced { .. } => Ended::failed(error),
        ReadError::Trimmed { .. } => Ended::Halted(anyhow::Error::new(error).context(
            "entries were trimmed before they were folded; delete the streams, so that they are \
             created above the cursors, and let agents send again",
        )),
        ReadError::Gap { .. } | ReadError::Regressed { .. } => Ended::halted(error),
    }
}
