//! The baseline of the reducer: the same pulls and the same fenced publishes, without a fold.

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nixfleet_bus::{Bus, OutputLog, PublishError};
use nixfleet_proto::subject::Partition;

use super::partition_logs::OutputMessage;

/// Largest number of messages per read, as the reducer's `fold.batch_messages`.
const BATCH: usize = 512;

/// Reads the input log of `from` and publishes to the output log of `to` the frames that a reducer has made
/// of it: each frame once all entries that it covers have been read, one in flight, as the reducer does.
pub async fn replay(
    (from, to): (&Bus, &Bus),
    partition: Partition,
    frames: &[OutputMessage],
) -> Result<()> {
    let mut reader = from.reader(&from.names().input_stream(partition), 1);
    let log = to.output(partition);
    let (mut read, mut fence) = (0, 0);
    let mut waiting = frames.iter().peekable();
    let mut in_flight: Option<BoxFuture<'static, Result<u64, PublishError>>> = None;
    loop {
        let ready = waiting.peek().is_none_or(|frame| frame.covers <= read);
        if in_flight.is_none() && ready {
            let Some(frame) = waiting.next() else {
                return Ok(());
            };
            in_flight = Some(publish(log.clone(), frame, fence).boxed());
            continue;
        }
        tokio::select! {
            published = maybe(&mut in_flight) => {
                in_flight = None;
                fence = published.context("publishing a frame")?;
            }
            messages = reader.next_stored(BATCH), if !ready => {
                let messages = messages.context("reading the input log")?;
                read = messages.last().map_or(read, |message| message.seq);
            }
        }
    }
}

fn publish(
    log: OutputLog,
    frame: &OutputMessage,
    fence: u64,
) -> impl Future<Output = Result<u64, PublishError>> + Send + use<> {
    // As plain JSON: bare publishes of compressed frames are no work that a fold could be compared with.
    let payload = frame.payload.clone();
    async move {
        let stored = log.publish_stored(payload, fence, None).await?;
        Ok(stored.seq)
    }
}

async fn maybe(
    in_flight: &mut Option<BoxFuture<'static, Result<u64, PublishError>>>,
) -> Result<u64, PublishError> {
    match in_flight {
        Some(publish) => publish.await,
        None => std::future::pending().await,
    }
}
