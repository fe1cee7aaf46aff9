//! How full a log is, and trimming it.

use async_nats::jetstream::stream::Info;

use crate::Bus;
use crate::leader::{Attempt, LeaderError, patiently, stream_info};
use crate::message::StreamIdentity;
use crate::trim::LogFill;

impl LogFill {
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
    /// What a stream holds.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn log_fill(&self, stream: &str) -> Result<LogFill, LeaderError> {
        let context = &self.connections().consume_js;
        let info = patiently(stream, || stream_info(context, stream)).await?;
        Ok(LogFill::new(&info))
    }

    /// Deletes the messages of a stream before this sequence; gives how many there were. Only one user of
    /// the bus may do that: see docs/security.md.
    ///
    /// # Errors
    /// [`LeaderError`].
    pub async fn trim(&self, stream: &str, first_kept: u64) -> Result<u64, LeaderError> {
        let unavailable = |reason: String| LeaderError::Unavailable {
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

    /// What a stream holds, asked once: for those who ask again and again.
    ///
    /// # Errors
    /// Says why there was no answer.
    pub async fn log_fill_now(&self, stream: &str) -> Result<LogFill, String> {
        match stream_info(&self.connections().consume_js, stream).await {
            Ok(info) => Ok(LogFill::new(&info)),
            Err(Attempt::Missing) => Err("it does not exist".to_owned()),
            Err(Attempt::Retry(reason)) => Err(reason),
        }
    }
}
