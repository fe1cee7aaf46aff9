//! Requests for the usage of a log, and for trimming it.

use async_nats::jetstream::stream::Info;

use crate::Bus;
use crate::message::StreamIdentity;
use crate::reader::leader_reads::{
    LeaderReadError, ReadFailure, retry_until_answered, stream_info,
};
use crate::retention::log_usage::LogUsage;

impl LogUsage {
    fn new(info: &Info) -> Self {
        let StreamIdentity {
            created,
            first_seq,
            last_seq,
        } = StreamIdentity::new(info);
        Self {
            created,
            first_seq,
            last_seq,
            messages: info.state.messages,
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
        }
    }
}

impl Bus {
    /// Usage of a stream.
    pub async fn log_usage(&self, stream: &str) -> Result<LogUsage, LeaderReadError> {
        let context = &self.connections().consume_js;
        let info = retry_until_answered(stream, || stream_info(context, stream)).await?;
        Ok(LogUsage::new(&info))
    }

    /// Deletes the messages of a stream before this sequence, and returns their number. Only one user of
    /// the bus has the permission: see docs/security.md.
    pub async fn trim(&self, stream: &str, first_kept: u64) -> Result<u64, LeaderReadError> {
        let unavailable = |reason: String| LeaderReadError::Unavailable {
            stream: stream.to_owned(),
            reason,
        };
        let context = &self.connections().consume_js;
        let handle = context.get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(error.to_string()))?;
        let purged = handle.purge().sequence(first_kept).await;
        let purged = purged.map_err(|error| unavailable(error.to_string()))?;
        Ok(purged.purged)
    }

    /// Usage of a stream from a single attempt; for callers that poll.
    pub async fn log_usage_once(&self, stream: &str) -> Result<LogUsage, String> {
        match stream_info(&self.connections().consume_js, stream).await {
            Ok(info) => Ok(LogUsage::new(&info)),
            Err(ReadFailure::Missing) => Err("it does not exist".to_owned()),
            Err(ReadFailure::Retry(reason)) => Err(reason),
        }
    }
}
