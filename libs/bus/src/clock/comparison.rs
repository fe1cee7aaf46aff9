//! Compares the clock of this process with the broker's, all the time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use nixfleet_proto::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::entry_clock::EntryClock;
use super::{CLOCK_OFFSET_MAX, ClockOffset};

/// How often the broker's time is asked for. Each time one input log is asked, because each has its own leader.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Longest round trip of a measurement; the error is half of it.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);
/// How often a test's file is read.
const TEST_FILE_EVERY: Duration = Duration::from_millis(50);
const TEST_FILE_NEVER: Duration = Duration::from_secs(3600);

/// The clock of this process, and where it is compared.
#[derive(Debug)]
pub(crate) struct ClockComparison {
    clock: EntryClock,
    context: Context,
    /// Names of all input logs.
    streams: Vec<String>,
}

#[derive(Deserialize)]
struct StreamTime {
    /// Time of the answer, since NATS 2.10.
    ts: Option<Timestamp>,
    error: Option<jetstream::Error>,
}

impl ClockComparison {
    pub(crate) fn new(context: Context, streams: Vec<String>, test_file: Option<PathBuf>) -> Self {
        Self {
            clock: EntryClock::new(test_file),
            context,
            streams,
        }
    }

    /// The time of this process.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether this clock may stamp entries.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.clock.offset() {
            None => Err("the clock was not compared with the broker's yet".to_owned()),
            Some(offset) if offset.is_accepted() => Ok(()),
            Some(offset) => Err(format!(
                "the clock of this machine is {offset}, more than {} s: correct whichever is wrong",
                CLOCK_OFFSET_MAX.num_seconds()
            )),
        }
    }

    /// The broker's time now, according to the leader of an input log; asks for it the first time.
    pub(crate) async fn broker_now(&self, stream: &str) -> Result<Timestamp, String> {
        if let Some(now) = self.clock.broker_now(stream) {
            return Ok(now);
        }
        self.measure(stream).await?;
        let now = self.clock.broker_now(stream);
        now.ok_or_else(|| "the broker's time is unknown".to_owned())
    }

    /// Compares the clock with that of one input log after the other until the bus closes.
    pub(crate) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut reading = tokio::time::interval(TEST_FILE_EVERY);
        let mut measuring = tokio::time::interval(MEASURE_EVERY);
        measuring.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streams = self.streams.iter().cycle();
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = reading.tick() => match self.clock.is_test() {
                    true => self.clock.read_test_file(),
                    false => reading.reset_after(TEST_FILE_NEVER),
                },
                _ = measuring.tick() => {
                    let Some(stream) = streams.next() else { return };
                    tokio::select! {
                        () = closing.cancelled() => return,
                        () = self.compare(stream) => {}
                    }
                }
            }
        }
    }

    async fn compare(&self, stream: &str) {
        if let Err(reason) = self.measure(stream).await {
            tracing::debug!(reason, "the clock was not compared with the broker's");
        }
        if let Some(ClockOffset(offset)) = self.clock.offset() {
            metrics::gauge!("nixfleet_clock_offset_seconds")
                .set(offset.num_milliseconds() as f64 / 1e3);
        }
    }

    async fn measure(&self, stream: &str) -> Result<(), String> {
        let sent = Instant::now();
        let asked = stream_time(&self.context, stream);
        let answered = tokio::time::timeout(ROUND_TRIP_MAX, asked).await;
        let broker = answered.map_err(|_| "the broker does not tell its time".to_owned())??;
        self.clock.answered(stream, (sent, Instant::now()), broker);
        Ok(())
    }
}

async fn stream_time(context: &Context, stream: &str) -> Result<Timestamp, String> {
    let answer: StreamTime = context
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .map_err(|error| error.to_string())?;
    match (answer.error, answer.ts) {
        (Some(error), _) => Err(error.to_string()),
        (None, Some(broker)) => Ok(broker),
        (None, None) => Err("the server does not tell its time".to_owned()),
    }
}
