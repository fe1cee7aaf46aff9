//! The loop of an owner: read, fold, build frames, publish, answer heartbeats.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Heartbeats, LogUsage, MAX_OUTPUT_FRAME_BYTES, OutputLog, ReadAhead};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::batch_decoding::{Decoded, decode};
use nixfleet_reducer::{
    HydratedPartition, LastSeen, Owner, OwnerConfig, OwnershipEnd, frame_bytes, reserve_bytes,
};
use nixfleet_service::CancellationToken;
use nixfleet_service::trace_context::link_all;
use nixfleet_trust::ConsoleKeys;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::heartbeat_responder::{HeartbeatLimits, HeartbeatResponder};
use super::takeover_driver::read_fault;
use crate::config::Config;
use crate::manifests::ManifestReader;
use crate::telemetry::{self, FrameSummary, SERVICE};

use super::checkpoint_writer::CheckpointWriter;
use super::log_usage::{self, PartitionLogUsage};
use super::publisher::{Published, Publisher};
use super::turn_frames::{Turn, frames_of};

/// Messages are decoded in pieces of this size: one piece is folded while the next is decoded.
const DECODE_BYTES: usize = 512 * 1024;
/// State hashes, which take seconds for a large fleet, take at most 1/50 of the time.
const HASH_TIME_DIVISOR: u32 = 50;
/// Interval of observations of a full output log.
const OBSERVE_EVERY: Duration = Duration::from_millis(500);

/// Progress of an owner.
pub enum Progress<'a> {
    /// A frame was appended, and the log has capacity for the next.
    Appended(&'a FrameSummary),
    /// The output log was observed, with the result of its capacity check.
    Observed(&'a LogUsage, Result<(), String>),
}

/// An owner with its clients and tasks.
pub struct LiveLoop {
    bus: Bus,
    manifests: ManifestReader,
    partition: Partition,
    owner: Owner,
    publisher: Publisher,
    reader: ReadAhead<Decoded>,
    /// The next piece, decoded while the one before was folded.
    decoded: Option<Decoded>,
    heartbeat_responder: HeartbeatResponder,
    heartbeats: Heartbeats,
    last_seen: LastSeen,
    flush: Interval,
    observe: Interval,
    /// Turn of the frame that is not built yet.
    unbuilt_turn: Option<Turn>,
    hash_not_before: Instant,
    checkpoints: CheckpointWriter,
}

impl LiveLoop {
    /// Creates the loop after a takeover.
    pub async fn new(
        (bus, manifests, keys): (&Bus, ManifestReader, Arc<ConsoleKeys>),
        log: OutputLog,
        (partition, taken): (Partition, HydratedPartition),
        usage: &PartitionLogUsage,
        config: &Config,
    ) -> Result<Self, OwnershipEnd> {
        let bounds = OwnerConfig {
            turn_entries: config.fold.turn_entries,
            frame_bytes: frame_bytes(usage.output.max_bytes, MAX_OUTPUT_FRAME_BYTES),
            reserve_bytes: reserve_bytes(usage.output.max_bytes),
            hash_every_entries: config.fold.hash_every_entries,
            checkpoints: config.checkpoints(),
        };
        let limits = HeartbeatLimits {
            timeout: Duration::from_secs(config.heartbeat.patience_seconds),
            waiting_max: config.heartbeat.waiting_max,
        };
        let mut flush = tokio::time::interval(Duration::from_secs(config.heartbeat.flush_seconds));
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut observe = tokio::time::interval(OBSERVE_EVERY);
        observe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut owner = Owner::new(taken, usage.bytes(), bounds);
        let are_stored =
            log_usage::are_checkpoints_stored(bus, partition, owner.checkpoints()).await;
        owner.observe_log(&usage.output, are_stored);
        let stream = bus.names().input_stream(partition);
        let next = owner.next();
        let reader = bus.reader(&stream, next.seq);
        let reader = reader
            .with_last_read(owner.last_read())
            .with_batch_bytes(DECODE_BYTES);
        let batch = config.fold.batch_messages;
        let fleet = bus.names().prefix().to_owned();
        Ok(Self {
            publisher: Publisher::start(log, owner.publish_queue().clone()),
            reader: reader.read_ahead(batch, move |messages| {
                let mut decoded = decode(&stream, messages, next);
                decoded.check_commands(|entry| keys.check_entry(&fleet, entry));
                decoded
            }),
            decoded: None,
            heartbeat_responder: HeartbeatResponder::new(bus.clone(), (partition, next), limits),
            heartbeats: bus
                .serve_heartbeats(partition)
                .await
                .map_err(OwnershipEnd::failed)?,
            last_seen: LastSeen::default(),
            flush,
            observe,
            unbuilt_turn: None,
            hash_not_before: Instant::now(),
            checkpoints: CheckpointWriter::new(bus.checkpoints(), partition),
            bus: bus.clone(),
            manifests,
            partition,
            owner,
        })
    }

    /// Checks that the output log leaves its reserve free.
    ///
    /// # Errors
    /// States the fill of the log.
    pub fn check_output_capacity(&self) -> Result<(), String> {
        let stream = self.bus.names().output_stream(self.partition);
        let checked = self.owner.check_output_capacity();
        checked.map_err(|reason| format!("{stream}: {reason}"))
    }

    /// Runs until the ownership ends; `report` receives the progress.
    pub async fn run(
        mut self,
        stop: &CancellationToken,
        report: &mut impl FnMut(Progress<'_>),
    ) -> OwnershipEnd {
        let ended = loop {
            if let Err(ended) = self.turn(stop, report).await {
                break ended;
            }
        };
        if matches!(ended, OwnershipEnd::Released) {
            self.drain(report).await;
        }
        ended
    }

    /// Folds and builds frames, then waits for one event.
    async fn turn(
        &mut self,
        stop: &CancellationToken,
        report: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), OwnershipEnd> {
        if self.owner.may_take()
            && let Some(decoded) = self.decoded.take()
        {
            self.take(decoded).await?;
        }
        if self.owner.may_fold() {
            // Lets the publisher send from this thread before the fold occupies it.
            tokio::task::yield_now().await;
        }
        self.fold();
        self.publish();
        self.begin_checkpoint();
        self.heartbeat_responder
            .advance(self.owner.state(), self.owner.next())
            .await;
        let may_take = self.owner.may_take() && self.decoded.is_some();
        let may_go_on = self.owner.may_fold() || may_take;
        // In this order, so that frequent heartbeats delay neither the log nor the timers.
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(OwnershipEnd::Released),
            published = self.publisher.published() => match published {
                Some(published) => self.published(published, report),
                None => Err(OwnershipEnd::Failed(anyhow::anyhow!("the publisher ended"))),
            },
            decoded = self.reader.next(), if self.decoded.is_none() => {
                self.decoded = Some(decoded.map_err(read_fault)?);
                telemetry::set_lag(self.partition, self.reader.pending());
                Ok(())
            }
            written = self.checkpoints.written() => {
                self.announce(written);
                Ok(())
            }
            _ = self.observe.tick(), if self.owner.is_output_full() => self.observe_logs(report).await,
            _ = self.flush.tick() => {
                self.publish_last_seen().await;
                Ok(())
            }
            result = self.heartbeat_responder.step() => {
                self.heartbeat_responder.step_done(result);
                Ok(())
            }
            heartbeat = self.heartbeats.next() => match heartbeat {
                Some((heartbeat, responder)) => {
                    self.last_seen.record(&heartbeat);
                    self.heartbeat_responder.receive(self.owner.state(), heartbeat, responder).await;
                    Ok(())
                }
                None => Err(OwnershipEnd::Failed(anyhow::anyhow!("the heartbeat subscription ended"))),
            },
            () = std::future::ready(()), if may_go_on => Ok(()),
        }
    }

    /// Stores dead letters, fetches manifests, and gives the items to the owner.
    async fn take(&mut self, decoded: Decoded) -> Result<(), OwnershipEnd> {
        for letter in decoded.dead {
            self.bus
                .store_dead_letter(SERVICE, letter)
                .await
                .context("storing a dead letter")
                .map_err(OwnershipEnd::Failed)?;
        }
        for entry in decoded.items.iter().filter_map(|item| item.entry.as_ref()) {
            telemetry::report_policy_mismatch(self.owner.state(), entry);
        }
        self.owner.take(decoded.items, decoded.bytes);
        while let Some(hash) = self.owner.missing_manifest().cloned() {
            let fetched = self.manifests.fetch(&hash).await?;
            self.owner.add_manifest(hash, fetched)?;
        }
        Ok(())
    }

    /// Folds the next frame, unless one waits already.
    fn fold(&mut self) {
        let started = Instant::now();
        let Some(builder) = self.owner.fold() else {
            return;
        };
        let span = tracing::info_span!(
            "turn",
            partition = %self.partition,
            first = builder.first_input().map(|position| position.seq),
            last = builder.last_input().map(|mark| mark.seq),
            outcomes = builder.outcomes().len(),
        );
        let parents = builder.outcomes().iter();
        link_all(
            &span,
            parents.filter_map(|outcome| outcome.traceparent.as_deref()),
        );
        self.hash();
        self.unbuilt_turn = Some(Turn { span, started });
    }

    /// Adds the state hash when it is due and its share of the time is not used up.
    fn hash(&mut self) {
        let now = Instant::now();
        if !self.owner.is_hash_due() || now < self.hash_not_before {
            return;
        }
        self.owner.add_hash();
        let took = now.elapsed();
        metrics::histogram!("nixfleet_state_hash_seconds").record(took);
        self.hash_not_before = Instant::now() + took * HASH_TIME_DIVISOR;
    }

    /// Builds the frames of the turn and hands them to the publisher.
    fn publish(&mut self) {
        let Some(builder) = self.owner.take_frame_builder() else {
            return;
        };
        let turn = self.unbuilt_turn.take().unwrap_or_else(Turn::unknown);
        let (frames, summaries): (Vec<_>, Vec<_>) = frames_of(builder).into_iter().unzip();
        let payloads: Vec<_> = frames.iter().map(|built| built.payload.clone()).collect();
        self.owner.written(frames);
        for (summary, payload) in summaries.into_iter().zip(payloads) {
            self.publisher.send(turn.clone(), summary, payload);
        }
    }

    fn begin_checkpoint(&mut self) {
        if !self.owner.is_checkpoint_due() || !self.checkpoints.is_idle() {
            return;
        }
        let started = Instant::now();
        if let Some(frozen) = self.owner.begin_checkpoint() {
            metrics::histogram!("nixfleet_checkpoint_freeze_seconds").record(started.elapsed());
            self.checkpoints.write(frozen);
        }
    }

    /// Announces a stored checkpoint in the next frame.
    fn announce(&mut self, written: anyhow::Result<CheckpointRef>) {
        let partition = self.partition;
        match written {
            Ok(reference) => {
                let CheckpointRef { bytes, out_seq, .. } = &reference;
                tracing::info!(%partition, bytes, out_seq, "checkpoint stored");
                let payload = self.owner.checkpoint_stored(reference);
                let summary = FrameSummary::default();
                self.publisher.send(Turn::unknown(), summary, payload);
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
        report: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), OwnershipEnd> {
        let Published {
            summary,
            turn,
            announced,
            result,
        } = published;
        let _entered = turn.span.enter();
        let bytes = result?;
        self.owner.appended(bytes);
        if let Some(kept) = announced {
            self.checkpoints.delete_others(kept);
        }
        if !self.owner.is_output_full() {
            report(Progress::Appended(&summary));
        }
        telemetry::frame_published(&summary, turn.started.elapsed());
        Ok(())
    }

    /// Observes the output log and the announced checkpoints.
    async fn observe_logs(
        &mut self,
        report: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), OwnershipEnd> {
        let stream = self.bus.names().output_stream(self.partition);
        let output = self
            .bus
            .log_usage(&stream)
            .await
            .map_err(OwnershipEnd::failed)?;
        let known = self.owner.checkpoints();
        let are_stored = log_usage::are_checkpoints_stored(&self.bus, self.partition, known).await;
        self.owner.observe_log(&output, are_stored);
        report(Progress::Observed(&output, self.check_output_capacity()));
        Ok(())
    }

    async fn publish_last_seen(&mut self) {
        let reports = self.last_seen.reports();
        if reports.is_empty() {
            return;
        }
        match self.bus.publish_liveness(&reports).await {
            Ok(()) => self.last_seen.clear(),
            Err(error) => {
                tracing::warn!(%error, "last-seen times were not published; they are kept for the next interval")
            }
        }
    }

    /// Waits for the queued frames, so that the next owner finds them.
    async fn drain(&mut self, report: &mut impl FnMut(Progress<'_>)) {
        self.publisher.close();
        while let Some(published) = self.publisher.published().await {
            if let Err(ended) = self.published(published, report) {
                tracing::info!(partition = %self.partition, %ended, "the result of the last frame is unknown");
            }
        }
        self.publish_last_seen().await;
    }
}
