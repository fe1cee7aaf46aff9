//! The live loop of an owner: read, fold, write, publish, answer.

mod checkpoint;
mod frames;
mod logs;
mod publishing;

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Heartbeats, LogUsage, MAX_OUTPUT_FRAME_BYTES, OutputLog, ReadAhead};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::turn::{Decoded, decode};
use nixfleet_reducer::{Ended, Owner, OwnerConfig, Seen, Taken, frame_bytes, reserve_bytes};
use nixfleet_service::CancellationToken;
use nixfleet_service::trace::link_all;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::acquire::read_fault;
use crate::answers::{Answers, Patience};
use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::report::{self, SERVICE, Told};

use checkpoint::CheckpointWriter;
use frames::{Turn, frames_of};
use publishing::{Published, Publisher};

pub use logs::HeldLogs;

/// Entries are decoded in pieces of this size: while one is folded, the next is in the making.
const DECODE_BYTES: usize = 512 * 1024;
/// A hash may take this share of the time at most: the state of a large fleet takes seconds.
const HASH_TIME_SHARE: u32 = 50;
/// How often an output log without room is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What an owner tells of its work.
pub enum Progress<'a> {
    /// A frame was appended, and there is room for the next.
    Appended(&'a Told),
    /// The output log was looked at, and whether it leaves its reserve free.
    Looked(&'a LogUsage, Result<(), String>),
}

/// An owner with everything it works on.
pub struct Live {
    bus: Bus,
    artifacts: Artifacts,
    partition: Partition,
    owner: Owner,
    publisher: Publisher,
    reader: ReadAhead<Decoded>,
    /// Read while what came before it was folded.
    decoded: Option<Decoded>,
    answers: Answers,
    heartbeats: Heartbeats,
    seen: Seen,
    flush: Interval,
    look: Interval,
    /// Of the run that waits to be written.
    folded: Option<Turn>,
    hash_not_before: Instant,
    checkpoints: CheckpointWriter,
}

impl Live {
    /// Goes live behind a takeover.
    ///
    /// # Errors
    /// Fails when heartbeats cannot be subscribed.
    pub async fn new(
        (bus, artifacts): (&Bus, Artifacts),
        log: OutputLog,
        (partition, taken): (Partition, Taken),
        held: &HeldLogs,
        config: &Config,
    ) -> Result<Self, Ended> {
        let bounds = OwnerConfig {
            turn_entries: config.fold.turn_entries,
            frame_bytes: frame_bytes(held.output.max_bytes, MAX_OUTPUT_FRAME_BYTES),
            reserve_bytes: reserve_bytes(held.output.max_bytes),
            hash_every_entries: config.fold.hash_every_entries,
            checkpoints: config.checkpoints(),
        };
        let patience = Patience {
            time: Duration::from_secs(config.heartbeat.patience_seconds),
            waiting_max: config.heartbeat.waiting_max,
        };
        let mut flush = tokio::time::interval(Duration::from_secs(config.heartbeat.flush_seconds));
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut owner = Owner::new(taken, held.bytes(), bounds);
        let are_stored = logs::are_stored(bus, partition, owner.checkpoints()).await;
        owner.look(&held.output, are_stored);
        let stream = bus.names().input_stream(partition);
        let next = owner.next();
        let reader = bus.reader(&stream, next.seq);
        let reader = reader
            .with_last_read(owner.last_read())
            .with_batch_bytes(DECODE_BYTES);
        let batch = config.fold.batch_messages;
        Ok(Self {
            publisher: Publisher::start(log, owner.outbox().clone()),
            reader: reader.read_ahead(batch, move |messages| decode(&stream, messages, next)),
            decoded: None,
            answers: Answers::new(bus.clone(), (partition, next), patience),
            heartbeats: bus
                .serve_heartbeats(partition)
                .await
                .map_err(Ended::failed)?,
            seen: Seen::default(),
            flush,
            look,
            folded: None,
            hash_not_before: Instant::now(),
            checkpoints: CheckpointWriter::new(bus.checkpoints(), partition),
            bus: bus.clone(),
            artifacts,
            partition,
            owner,
        })
    }

    /// Whether the output log leaves its reserve free.
    ///
    /// # Errors
    /// Says how full it is.
    pub fn check_room(&self) -> Result<(), String> {
        let stream = self.bus.names().output_stream(self.partition);
        let room = self.owner.check_room();
        room.map_err(|reason| format!("{stream}: {reason}"))
    }

    /// Works until something ends the ownership; `tell` is told how it goes.
    pub async fn live(
        mut self,
        stop: &CancellationToken,
        tell: &mut impl FnMut(Progress<'_>),
    ) -> Ended {
        let ended = loop {
            if let Err(ended) = self.turn(stop, tell).await {
                break ended;
            }
        };
        if matches!(ended, Ended::Released) {
            self.drain(tell).await;
        }
        ended
    }

    /// Folds and writes what can be, then waits for one thing to happen.
    async fn turn(
        &mut self,
        stop: &CancellationToken,
        tell: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Ended> {
        if self.owner.may_take()
            && let Some(decoded) = self.decoded.take()
        {
            self.take(decoded).await?;
        }
        if self.owner.may_fold() {
            // What was handed to the publisher leaves from this thread, before the fold keeps it busy.
            tokio::task::yield_now().await;
        }
        self.fold();
        self.write();
        self.freeze();
        self.answers
            .folded(self.owner.state(), self.owner.next())
            .await;
        let may_take = self.owner.may_take() && self.decoded.is_some();
        let may_go_on = self.owner.may_fold() || may_take;
        // In this order: whoever asks often keeps neither the log nor the clock waiting.
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Ended::Released),
            published = self.publisher.published() => match published {
                Some(published) => self.published(published, tell),
                None => Err(Ended::Failed(anyhow::anyhow!("the publisher ended"))),
            },
            decoded = self.reader.next(), if self.decoded.is_none() => {
                self.decoded = Some(decoded.map_err(read_fault)?);
                report::lag(self.partition, self.reader.pending());
                Ok(())
            }
            written = self.checkpoints.written() => {
                self.announce(written);
                Ok(())
            }
            _ = self.look.tick(), if self.owner.is_short_of_room() => self.look_at_logs(tell).await,
            _ = self.flush.tick() => {
                self.tell_seen().await;
                Ok(())
            }
            progress = self.answers.step() => {
                self.answers.proceed(progress);
                Ok(())
            }
            heartbeat = self.heartbeats.next() => match heartbeat {
                Some((heartbeat, responder)) => {
                    self.seen.note(&heartbeat);
                    self.answers.ask(self.owner.state(), heartbeat, responder).await;
                    Ok(())
                }
                None => Err(Ended::Failed(anyhow::anyhow!("the heartbeat subscription ended"))),
            },
            () = std::future::ready(()), if may_go_on => Ok(()),
        }
    }

    /// Stores what cannot be read, fetches what the rest names, and gives it to the owner.
    async fn take(&mut self, decoded: Decoded) -> Result<(), Ended> {
        for letter in decoded.dead {
            self.bus
                .store_dead_letter(SERVICE, letter)
                .await
                .context("storing a dead letter")
                .map_err(Ended::Failed)?;
        }
        for entry in decoded.items.iter().filter_map(|item| item.entry.as_ref()) {
            report::policy_mismatch(self.owner.state(), entry);
        }
        self.owner.take(decoded.items, decoded.bytes);
        while let Some(hash) = self.owner.lacking().cloned() {
            let fetched = self.artifacts.fetch(&hash).await?;
            self.owner.give(hash, fetched)?;
        }
        Ok(())
    }

    /// Folds the next run unless one waits already.
    fn fold(&mut self) {
        let started = Instant::now();
        let Some(run) = self.owner.fold() else {
            return;
        };
        let span = tracing::info_span!(
            "turn",
            partition = %self.partition,
            first = run.first_input().map(|position| position.seq),
            last = run.last_input().map(|mark| mark.seq),
            outcomes = run.outcomes().len(),
        );
        let parents = run.outcomes().iter();
        link_all(
            &span,
            parents.filter_map(|outcome| outcome.traceparent.as_deref()),
        );
        self.hash();
        self.folded = Some(Turn { span, started });
    }

    /// Adds the state hash when it is due and hashing does not take too much of the time.
    fn hash(&mut self) {
        let now = Instant::now();
        if !self.owner.is_hash_due() || now < self.hash_not_before {
            return;
        }
        self.owner.add_hash();
        let took = now.elapsed();
        metrics::histogram!("nixfleet_state_hash_seconds").record(took);
        self.hash_not_before = Instant::now() + took * HASH_TIME_SHARE;
    }

    /// Hands the frames of the run that waits to the publisher.
    fn write(&mut self) {
        let Some(run) = self.owner.to_write() else {
            return;
        };
        let turn = self.folded.take().unwrap_or_else(Turn::unknown);
        let (frames, told): (Vec<_>, Vec<_>) = frames_of(run).into_iter().unzip();
        let payloads: Vec<_> = frames.iter().map(|folded| folded.payload.clone()).collect();
        self.owner.written(frames);
        for (told, payload) in told.into_iter().zip(payloads) {
            self.publisher.send(turn.clone(), told, payload);
        }
    }

    /// Freezes the state for a checkpoint, when one is due.
    fn freeze(&mut self) {
        if !self.owner.is_checkpoint_due() || !self.checkpoints.is_idle() {
            return;
        }
        let started = Instant::now();
        if let Some(unwritten) = self.owner.begin_checkpoint() {
            metrics::histogram!("nixfleet_checkpoint_freeze_seconds").record(started.elapsed());
            self.checkpoints.write(unwritten);
        }
    }

    /// Names a checkpoint that is stored in the next frame.
    fn announce(&mut self, written: anyhow::Result<CheckpointRef>) {
        let partition = self.partition;
        match written {
            Ok(reference) => {
                let CheckpointRef { bytes, out_seq, .. } = &reference;
                tracing::info!(%partition, bytes, out_seq, "checkpoint stored");
                let payload = self.owner.checkpoint_stored(reference);
                let told = Told::default();
                self.publisher.send(Turn::unknown(), told, payload);
            }
            Err(error) => {
                metrics::counter!("nixfleet_checkpoints_failed_total").increment(1);
                tracing::warn!(%partition, error = format!("{error:#}"),
                    "a checkpoint could not be stored; it is written again");
                self.owner.checkpoint_failed();
            }
        }
    }

    fn published(
        &mut self,
        published: Published,
        tell: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), Ended> {
        let Published {
            told,
            turn,
            announced,
            result,
        } = published;
        let _entered = turn.span.enter();
        let output = result?;
        self.owner.appended(output);
        if let Some(kept) = announced {
            self.checkpoints.delete_others(kept);
        }
        if !self.owner.is_short_of_room() {
            tell(Progress::Appended(&told));
        }
        report::published(&told, turn.started.elapsed());
        Ok(())
    }

    /// Looks whether the output log was trimmed, and whether it can be.
    async fn look_at_logs(&mut self, tell: &mut impl FnMut(Progress<'_>)) -> Result<(), Ended> {
        let stream = self.bus.names().output_stream(self.partition);
        let output = self.bus.log_usage(&stream).await.map_err(Ended::failed)?;
        let known = self.owner.checkpoints();
        let are_stored = logs::are_stored(&self.bus, self.partition, known).await;
        self.owner.look(&output, are_stored);
        tell(Progress::Looked(&output, self.check_room()));
        Ok(())
    }

    /// Says who was seen; a failure keeps it for the next flush.
    async fn tell_seen(&mut self) {
        let reports = self.seen.reports();
        if reports.is_empty() {
            return;
        }
        match self.bus.publish_liveness(&reports).await {
            Ok(()) => self.seen.flushed(),
            Err(error) => tracing::warn!(%error, "last-seen times are kept for the next flush"),
        }
    }

    /// Lets the frames that are written arrive, so that the next owner finds them, and says who was seen.
    async fn drain(&mut self, tell: &mut impl FnMut(Progress<'_>)) {
        self.publisher.close();
        while let Some(published) = self.publisher.published().await {
            if let Err(ended) = self.published(published, tell) {
                tracing::info!(partition = %self.partition, %ended, "the last frame is left open");
            }
        }
        self.tell_seen().await;
    }
}
