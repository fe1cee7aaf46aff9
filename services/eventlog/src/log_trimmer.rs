//! Trims the logs of one partition behind every reader that still needs their messages.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{LogKind, LogUsage, Margin, MarginLimits, NeededFrom, trim_position};
use nixfleet_proto::Checkpoints;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_service::CancellationToken;
use tokio::time::{Instant, MissedTickBehavior};

use crate::task_context::TaskContext;
use crate::telemetry;

/// Trimmer of the logs of one partition.
struct Trimmer {
    shared: Arc<TaskContext>,
    partition: Partition,
    logs: [Log; 2],
    /// Checkpoints known to be in the object store.
    stored: Checkpoints,
    started: Instant,
}

/// One log and its margin.
struct Log {
    kind: LogKind,
    stream: String,
    margin: Margin,
}

/// Trims both logs of a partition until stopped.
pub async fn trim_logs(shared: Arc<TaskContext>, partition: Partition, stop: CancellationToken) {
    let names = shared.bus.names();
    let config = &shared.config.trim;
    let limits = MarginLimits {
        age: Duration::from_secs(config.margin_seconds),
        bytes: config.margin_bytes,
    };
    let log = |kind, stream| Log {
        kind,
        stream,
        margin: Margin::new(limits),
    };
    let mut trimmer = Trimmer {
        logs: [
            log(LogKind::Input, names.input_stream(partition)),
            log(LogKind::Output, names.output_stream(partition)),
        ],
        partition,
        stored: Checkpoints::default(),
        started: Instant::now(),
        shared: Arc::clone(&shared),
    };
    let component = telemetry::trim_component(partition);
    let mut tick = tokio::time::interval(Duration::from_millis(config.every_ms));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let trimmed = tokio::select! {
            () = stop.cancelled() => return,
            trimmed = trimmer.turn() => trimmed,
        };
        let state = trimmed.map_err(|error| format!("{error:#}"));
        if let Err(reason) = &state {
            tracing::warn!(%partition, reason, "the logs were not trimmed");
        }
        shared.readiness.set_ready(&component, state);
    }
}

impl Trimmer {
    async fn turn(&mut self) -> anyhow::Result<()> {
        let store = &self.shared.store;
        let cursor = store.cursor(self.partition).await?;
        let mut usages = Vec::new();
        for log in &self.logs {
            let usage = self.shared.bus.log_usage_once(&log.stream).await;
            let usage =
                usage.map_err(|reason| anyhow!("{} does not answer: {reason}", log.stream))?;
            usages.push(usage);
        }
        // Rows of lost streams do not concern these logs.
        let created = usages.first().map(|usage| usage.created);
        let cursor = cursor.filter(|cursor| Some(cursor.stream_created) == created);
        let cursor = match cursor {
            Some(cursor) => Some(self.with_stored_checkpoints(cursor).await?),
            None => None,
        };
        for (index, usage) in usages.iter().enumerate() {
            self.trim_one(index, usage, cursor.as_ref()).await?;
        }
        Ok(())
    }

    /// Drops announced checkpoints from the cursor when an object of them is missing.
    async fn with_stored_checkpoints(&mut self, mut cursor: Cursor) -> anyhow::Result<Cursor> {
        if cursor.checkpoints == self.stored {
            return Ok(cursor);
        }
        let announced = std::mem::take(&mut cursor.checkpoints);
        for named in announced.newest_first() {
            let store = self.shared.bus.checkpoints();
            if !store.holds(self.partition, named).await? {
                tracing::warn!(partition = %self.partition, hash = named.hash,
                    "an announced checkpoint is not in the object store; nothing is trimmed behind it");
                return Ok(cursor);
            }
        }
        self.stored.clone_from(&announced);
        cursor.checkpoints = announced;
        Ok(cursor)
    }

    async fn trim_one(
        &mut self,
        index: usize,
        usage: &LogUsage,
        cursor: Option<&Cursor>,
    ) -> anyhow::Result<()> {
        let Self {
            shared,
            logs,
            started,
            ..
        } = self;
        let Some(log) = logs.get_mut(index) else {
            return Ok(());
        };
        let mark = shared.store.archive_cursor(&log.stream).await?;
        let archived = mark.filter(|mark| mark.stream_created == usage.created);
        let archived = archived.map(|mark| mark.sequence);
        let margin = log.margin.first(usage, started.elapsed());
        let (first_needed, holder) = NeededFrom::of(log.kind, cursor, archived, margin).first();
        telemetry::set_log_usage(&log.stream, usage, holder);
        if let Some(first_kept) = trim_position(usage, first_needed) {
            let trimmed = shared.bus.trim(&log.stream, first_kept).await;
            let count = trimmed.with_context(|| format!("trimming {}", log.stream))?;
            metrics::counter!("nixfleet_log_trimmed_messages_total", "stream" => log.stream.clone())
                .increment(count);
            tracing::debug!(stream = %log.stream, first_kept, count, "trimmed");
        }
        Ok(())
    }
}
