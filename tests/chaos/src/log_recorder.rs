//! Recordings of both logs of every partition, taken during the run because logs are trimmed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, ensure};
use nixfleet_bus::{Bus, Message};
use nixfleet_proto::subject::Partition;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::partition_logs::{PartitionLogs, Recordings};
use nixfleet_harness::progress_printer::Printer;

/// Messages per read.
const BATCH: usize = 512;

/// Last sequences by stream; present once the run is over.
type Ends = Option<BTreeMap<String, u64>>;

/// Recordings of all logs, one task each.
pub struct Recorder {
    bus: Bus,
    ends: watch::Sender<Ends>,
    tasks: JoinSet<Result<(String, Vec<Message>)>>,
}

impl Recorder {
    /// Records every log from its first message.
    pub fn start(bus: Bus, printer: Printer) -> Self {
        let (ends, until) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for stream in streams(&bus) {
            let (bus, until) = (bus.clone(), until.clone());
            tasks.spawn(async move {
                let recorded = record(&bus, &stream, until).await;
                let recorded = recorded.with_context(|| format!("{stream} was not recorded whole"));
                if let Err(error) = &recorded {
                    printer.timed_line(&format!("RECORDING ENDED: {error:#}"));
                }
                Ok((stream, recorded?))
            });
        }
        Self { bus, ends, tasks }
    }

    /// Waits until a recording ends early; returns the reason.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok((stream, _)))) => anyhow!("the recording of {stream} ended early"),
            Some(Err(error)) => anyhow::Error::from(error).context("a recording panicked"),
            None => anyhow!("no message is recorded"),
        }
    }

    /// Records up to the ends of the logs.
    ///
    /// # Errors
    /// When a recording is incomplete, or a log differs from its recording.
    pub async fn finish(mut self) -> Result<Vec<PartitionLogs>> {
        let mut ends = BTreeMap::new();
        for stream in streams(&self.bus) {
            let identity = self.bus.stream_identity(&stream).await?;
            ends.insert(stream, identity.last_seq);
        }
        self.ends.send_replace(Some(ends));
        let mut recordings = Recordings::new();
        while let Some(recorded) = self.tasks.join_next().await {
            let (stream, messages) = recorded.context("a recording panicked")??;
            recordings.insert(stream, messages);
        }
        for (stream, recorded) in &recordings {
            compare(&self.bus, stream, recorded).await?;
        }
        let partitions = Partition::all(self.bus.partitions());
        let logs = partitions
            .map(|partition| PartitionLogs::read(self.bus.names(), partition, &recordings));
        logs.collect()
    }
}

/// The input log and the output log of every partition.
fn streams(bus: &Bus) -> Vec<String> {
    let names = bus.names();
    let both = |partition| {
        [
            names.input_stream(partition),
            names.output_stream(partition),
        ]
    };
    Partition::all(bus.partitions()).flat_map(both).collect()
}

/// Records a log. The reader survives restarts of its server; it fails when the log is trimmed past it, is
/// replaced or loses its end.
async fn record(bus: &Bus, stream: &str, mut until: watch::Receiver<Ends>) -> Result<Vec<Message>> {
    let mut reader = bus.reader(stream, 1);
    let mut messages = Vec::new();
    loop {
        let end = until
            .borrow_and_update()
            .as_ref()
            .map(|ends| ends.get(stream).copied());
        if end.is_some_and(|end| end.unwrap_or(0) < reader.next_seq()) {
            return Ok(messages);
        }
        tokio::select! {
            batch = reader.next_stored(BATCH) => messages.extend(batch?),
            changed = until.changed() => changed.context("the recorder was dropped")?,
        }
    }
}

/// Compares what a log still holds with its recording: stored messages must not change.
async fn compare(bus: &Bus, stream: &str, recorded: &[Message]) -> Result<()> {
    let identity = bus.stream_identity(stream).await?;
    let recorded_to = recorded.last().map_or(0, |message| message.seq);
    let mut recorded = recorded
        .iter()
        .skip_while(|message| message.seq < identity.first_seq);
    let mut reader = bus.reader(stream, identity.first_seq);
    while reader.next_seq() <= recorded_to {
        for message in reader.next_stored(BATCH).await? {
            if message.seq > recorded_to {
                break;
            }
            ensure!(
                recorded.next() == Some(&message),
                "{stream} contains another message at {} than the recording",
                message.seq
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nixfleet_bus::{BusConfig, SequenceFloors};
    use nixfleet_harness::shared_nats;
    use nixfleet_harness::unique_prefix;
    use nixfleet_proto::{Entry, EntryBody};

    use super::*;

    async fn append(bus: &Bus, count: usize) {
        let input = bus.input();
        for number in 0..count {
            let body = EntryBody::RecoveryCandidate {
                rollout_id: "stable@aa".parse().unwrap(),
                hostname: "web-01".into(),
                current_closure: number.to_string().into(),
            };
            let entry = Entry::new(input.now(), body);
            input.append(Partition::new(0), entry).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_recording_is_complete_or_reports_trimmed_messages() {
        let config = BusConfig {
            url: shared_nats().unwrap().url(),
            prefix: unique_prefix("recorder"),
            partitions: 1,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "test").await.unwrap();
        bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
        let stream = bus.names().input_stream(Partition::new(0));
        let printer = Printer::new(false);
        let recorder = Recorder::start(bus.clone(), printer);
        append(&bus, 5).await;
        let logs = recorder.finish().await.unwrap();
        let found: Vec<u64> = logs[0].inputs.iter().map(|input| input.seq).collect();
        assert_eq!(found, [1, 2, 3, 4, 5]);

        assert_eq!(bus.trim(&stream, 4).await.unwrap(), 3);
        let mut late = Recorder::start(bus.clone(), printer);
        let error = format!("{:#}", late.failed().await);
        assert!(
            error.contains(&stream) && error.contains("trimmed"),
            "{error}"
        );
        bus.close().await;
    }
}
