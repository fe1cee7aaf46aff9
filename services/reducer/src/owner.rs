//! The live loop of an owner: read, fold, publish, answer.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_bus::{Bus, Heartbeats, MAX_OUTPUT_FRAME_BYTES, OutputLog, PublishError, Reader};
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use nixfleet_service::trace::{link_all, traceparent_of};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::Span;

use crate::config::Config;
use crate::ended::Ended;
use crate::folder::{Folder, Item, Limits};
use crate::heartbeat::{Patience, Recovery};
use crate::liveness::Seen;
use crate::manifests::Manifests;
use crate::report;
use crate::takeover::{Taken, read_fault};
use crate::turn;

/// A hash may take this share of the time at most: the state of a large fleet takes seconds.
const HASH_TIME_SHARE: u32 = 20;

/// A folded frame that waits for its turn on the bus.
struct Run {
    frame: OutputFrame,
    span: Span,
    started: Instant,
}

/// What became of a published run.
struct Published {
    run: Run,
    result: Result<u64, PublishError>,
}

/// The owner of one partition.
pub struct Owner {
    bus: Bus,
    partition: Partition,
    log: OutputLog,
    reader: Reader,
    folder: Folder,
    manifests: Manifests,
    recovery: Recovery,
    heartbeats: Heartbeats,
    seen: Seen,
    flush: Interval,
    out_seq: u64,
    ready: Option<Run>,
    publishing: Option<BoxFuture<'static, Published>>,
    batch_messages: usize,
    hashing: Hashing,
}

/// When the next state hash is due.
struct Hashing {
    every: u64,
    entries: u64,
    not_before: Instant,
}

impl Owner {
    /// Goes live behind a takeover.
    ///
    /// # Errors
    /// Fails when heartbeats cannot be subscribed.
    pub async fn new(
        bus: &Bus,
        partition: Partition,
        config: &Config,
        taken: Taken,
    ) -> Result<Self, Ended> {
        let limits = Limits {
            entries: config.fold.turn_entries,
            bytes: MAX_OUTPUT_FRAME_BYTES,
        };
        let patience = Patience {
            time: Duration::from_secs(config.heartbeat.patience_seconds),
            waiting_max: config.heartbeat.waiting_max,
        };
        let mut flush = tokio::time::interval(Duration::from_secs(config.heartbeat.flush_seconds));
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stream = bus.names().input_stream(partition);
        Ok(Self {
            log: bus.output(partition),
            reader: bus.reader(&stream, taken.start.next.seq),
            folder: Folder::new(taken.state, taken.epoch, taken.start, limits),
            manifests: taken.manifests,
            recovery: Recovery::new(bus.clone(), partition, patience),
            heartbeats: bus
                .serve_heartbeats(partition)
                .await
                .map_err(Ended::failed)?,
            seen: Seen::default(),
            flush,
            out_seq: taken.out_seq,
            ready: None,
            publishing: None,
            batch_messages: config.fold.batch_messages,
            hashing: Hashing {
                every: config.fold.hash_every_entries,
                entries: 0,
                not_before: Instant::now(),
            },
            bus: bus.clone(),
            partition,
        })
    }

    /// Works until something ends the ownership.
    pub async fn live(mut self, stop: &CancellationToken) -> Ended {
        let ended = loop {
            if let Err(ended) = self.turn(stop).await {
                break ended;
            }
        };
        if matches!(ended, Ended::Released) {
            self.drain().await;
        }
        ended
    }

    /// Folds and publishes what can be, then waits for one thing to happen.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<(), Ended> {
        self.fold();
        self.publish();
        self.recovery
            .folded(self.folder.state(), self.folder.next())
            .await;
        if self.ready.is_none() && self.folder.has_work() {
            // Something folds while the frame before is in flight; heartbeats get a word in between.
            tokio::task::yield_now().await;
        }
        let may_read = !self.folder.has_work();
        let may_fold = self.ready.is_none() && self.folder.has_work();
        tokio::select! {
            () = stop.cancelled() => Err(Ended::Released),
            published = maybe(&mut self.publishing) => self.published(published),
            messages = self.reader.next_batch(self.batch_messages), if may_read => {
                let messages = messages.map_err(read_fault)?;
                report::lag(self.partition, self.reader.pending());
                self.take(messages).await
            }
            heartbeat = self.heartbeats.next() => match heartbeat {
                Some((heartbeat, responder)) => {
                    self.seen.note(&heartbeat);
                    self.recovery.ask(self.folder.state(), heartbeat, responder).await;
                    Ok(())
                }
                None => Err(Ended::Failed(anyhow::anyhow!("the heartbeat subscription ended"))),
            },
            progress = self.recovery.step() => {
                self.recovery.proceed(progress);
                Ok(())
            }
            _ = self.flush.tick() => {
                self.seen.flush(&self.bus).await;
                Ok(())
            }
            () = std::future::ready(()), if may_fold => Ok(()),
        }
    }

    async fn take(&mut self, messages: Vec<nixfleet_bus::Message>) -> Result<(), Ended> {
        let stream = self.reader.stream().to_owned();
        let items = turn::decode(&self.bus, &stream, messages, self.folder.next()).await?;
        turn::prepare(&mut self.manifests, &items).await?;
        for entry in items.iter().filter_map(|item: &Item| item.entry.as_ref()) {
            report::policy_mismatch(self.folder.state(), entry);
        }
        self.folder.queue(items);
        Ok(())
    }

    /// Folds the next frame unless one waits already.
    fn fold(&mut self) {
        if self.ready.is_some() {
            return;
        }
        let started = Instant::now();
        let Some(mut frame) = self.folder.run(self.manifests.pinned()) else {
            return;
        };
        self.hash(&mut frame);
        let span = tracing::info_span!(
            "turn",
            partition = %self.partition,
            first = frame.first_input.map(|position| position.seq),
            last = frame.last_input.map(|mark| mark.seq),
            outcomes = frame.outcomes.len(),
        );
        let parents = frame.outcomes.iter();
        link_all(
            &span,
            parents.filter_map(|outcome| outcome.traceparent.as_deref()),
        );
        if !self.folder.has_work() {
            // Nothing that waits names a manifest that no rollout uses yet.
            self.manifests.sweep(self.folder.state());
        }
        self.ready = Some(Run {
            frame,
            span,
            started,
        });
    }

    /// Adds the state hash when it is due and what it would hash is what the frame ends with.
    fn hash(&mut self, frame: &mut OutputFrame) {
        self.hashing.entries += frame.outcomes.len() as u64;
        let due = self.hashing.entries >= self.hashing.every;
        let now = Instant::now();
        if !due || !self.folder.is_at_frame_end() || now < self.hashing.not_before {
            return;
        }
        frame.state_hash = Some(self.folder.state().hash());
        let took = now.elapsed();
        metrics::histogram!("nixfleet_state_hash_seconds").record(took);
        self.hashing.entries = 0;
        self.hashing.not_before = Instant::now() + took * HASH_TIME_SHARE;
    }

    /// Sends the frame that waits unless one is in flight.
    fn publish(&mut self) {
        if self.publishing.is_some() {
            return;
        }
        let Some(run) = self.ready.take() else {
            return;
        };
        let (log, expected) = (self.log.clone(), self.out_seq);
        self.publishing = Some(
            async move {
                let traceparent = traceparent_of(&run.span);
                let result = log
                    .publish_traced(&run.frame, expected, traceparent.as_deref())
                    .await;
                Published { run, result }
            }
            .boxed(),
        );
    }

    fn published(&mut self, published: Published) -> Result<(), Ended> {
        self.publishing = None;
        let Published { run, result } = published;
        let _entered = run.span.enter();
        match result {
            Ok(seq) => {
                self.out_seq = seq;
                report::published(&run.frame, run.started.elapsed());
                Ok(())
            }
            Err(PublishError::Fenced { .. }) => Err(Ended::Fenced),
            Err(error @ PublishError::TooLarge { .. }) => Err(Ended::halted(error)),
            Err(error @ PublishError::Unavailable(_)) => Err(Ended::failed(error)),
        }
    }

    /// Lets the frame in flight arrive, so that the next owner finds it, and says who was seen.
    async fn drain(&mut self) {
        if self.publishing.is_some() {
            let published = maybe(&mut self.publishing).await;
            if let Err(ended) = self.published(published) {
                tracing::info!(partition = %self.partition, %ended, "the last frame is left open");
            }
        }
        self.seen.flush(&self.bus).await;
    }
}

/// Waits for the frame in flight, or for ever when there is none.
async fn maybe(publishing: &mut Option<BoxFuture<'static, Published>>) -> Published {
    match publishing {
        Some(publishing) => publishing.await,
        None => std::future::pending().await,
    }
}
