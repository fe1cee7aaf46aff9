//! Reads that the stream's leader answers. A follower may be behind, which recovery must not see.

use std::time::Duration;

use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageError};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::jetstream::{message::StreamMessage, stream::Info};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::Bus;
use crate::bus::backoff::pauses;
use crate::message::{Message, StreamIdentity, timestamp};

/// How long an unanswered read is repeated; longer than a leader election.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum LeaderReadError {
    #[error("there is no stream {0}")]
    Missing(String),
    #[error("stream {stream} does not answer: {reason}")]
    Unavailable { stream: String, reason: String },
}

impl StreamIdentity {
    pub(crate) fn new(info: &Info) -> Self {
        let state = &info.state;
        let first_seq = match state.messages {
            0 => state.last_sequence + 1,
            _ => state.first_sequence,
        };
        Self {
            created: timestamp(info.created),
            first_seq,
            last_seq: state.last_sequence,
        }
    }
}

pub(crate) enum ReadFailure {
    Missing,
    Retry(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Err { error: jetstream::Error },
    Ok(Box<Info>),
}

/// Requests a stream's state from the leader once.
pub(crate) async fn stream_info(context: &Context, stream: &str) -> Result<Info, ReadFailure> {
    let answer: Answer = context
        .request(format!("STREAM.INFO.{stream}"), &json!({}))
        .await
        .map_err(|error| ReadFailure::Retry(error.to_string()))?;
    match answer {
        Answer::Ok(info) => Ok(*info),
        Answer::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Err(ReadFailure::Missing)
        }
        Answer::Err { error } => Err(ReadFailure::Retry(error.to_string())),
    }
}

impl Bus {
    /// Creation time and range of a stream.
    pub async fn stream_identity(&self, stream: &str) -> Result<StreamIdentity, LeaderReadError> {
        let context = &self.connections().consume_js;
        let info = retry_until_answered(stream, || stream_info(context, stream)).await?;
        Ok(StreamIdentity::new(&info))
    }

    /// The message at a sequence; `None` when the stream does not hold it.
    pub async fn message_at(
        &self,
        stream: &str,
        seq: u64,
    ) -> Result<Option<Message>, LeaderReadError> {
        let handle = self.connections().consume_js.get_stream_no_info(stream);
        let handle = handle.await.map_err(|error| illegal(stream, &error))?;
        retry_until_answered(stream, || async {
            found(handle.get_raw_message(seq).await)
        })
        .await
    }

    /// The id of the message at a sequence; `None` when the stream does not hold it or the publisher set no
    /// id.
    pub async fn message_id_at(
        &self,
        stream: &str,
        seq: u64,
    ) -> Result<Option<String>, LeaderReadError> {
        let message = self.message_at(stream, seq).await?;
        Ok(message.and_then(|message| message.msg_id))
    }

    /// The last message of a stream.
    pub async fn last_message(&self, stream: &str) -> Result<Option<Message>, LeaderReadError> {
        self.last_by_subject(stream, ">").await
    }

    /// The last message of a subject, which may contain wildcards.
    pub(crate) async fn last_by_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Message>, LeaderReadError> {
        let handle = self.connections().consume_js.get_stream_no_info(stream);
        let handle = handle.await.map_err(|error| illegal(stream, &error))?;
        retry_until_answered(stream, || async {
            found(handle.get_last_raw_message_by_subject(subject).await)
        })
        .await
    }
}

/// Converts one answer to a message, `None`, or a failure.
pub(crate) fn found(
    answer: Result<StreamMessage, RawMessageError>,
) -> Result<Option<Message>, ReadFailure> {
    let error = match answer {
        Ok(raw) => {
            let headers = Some(&raw.headers);
            let message = Message::new(
                raw.sequence,
                raw.subject.as_str(),
                headers,
                raw.time,
                raw.payload.clone(),
            );
            return Ok(Some(message.decoded()));
        }
        Err(error) => error,
    };
    match error.kind() {
        LastRawMessageErrorKind::NoMessageFound => Ok(None),
        LastRawMessageErrorKind::JetStream(answer)
            if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
        {
            Err(ReadFailure::Missing)
        }
        LastRawMessageErrorKind::JetStream(answer) => Err(ReadFailure::Retry(answer.to_string())),
        LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
            Err(ReadFailure::Retry(error.to_string()))
        }
    }
}

fn illegal(stream: &str, error: &impl std::fmt::Display) -> LeaderReadError {
    LeaderReadError::Unavailable {
        stream: stream.to_owned(),
        reason: error.to_string(),
    }
}

pub(crate) async fn retry_until_answered<T, F>(
    stream: &str,
    mut read: impl FnMut() -> F,
) -> Result<T, LeaderReadError>
where
    F: Future<Output = Result<T, ReadFailure>>,
{
    let deadline = Instant::now() + TIMEOUT;
    let mut pauses = pauses();
    loop {
        let reason = match read().await {
            Ok(value) => return Ok(value),
            Err(ReadFailure::Missing) => return Err(LeaderReadError::Missing(stream.to_owned())),
            Err(ReadFailure::Retry(reason)) => reason,
        };
        if Instant::now() >= deadline {
            let stream = stream.to_owned();
            return Err(LeaderReadError::Unavailable { stream, reason });
        }
        tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
    }
}
