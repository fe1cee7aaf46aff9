//! Objects in chunks, in the layout that all object store clients use.
//!
//! The client library creates a consumer for each object that it reads and leaves its deletion to the
//! server. The server allows a thousand consumers per stream, so loading a fleet with a long history would
//! stall. The library also writes chunks of 64 KiB and waits for each, thousands of them for a large fleet.
//!
//! Source: NATS ADR-20, object store.

use std::collections::{HashMap, VecDeque};

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use async_nats::jetstream::stream::{DirectGetError, DirectGetErrorKind, Stream};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::reader::leader_reads::{ReadFailure, found};

/// Size of a chunk; well below the server's default message limit of 1 MiB.
const CHUNK_BYTES: usize = 512 * 1024;
const IN_FLIGHT: usize = 4;
/// Longer names are in no record: the subject of their record would end the connection.
const NAME_BYTES_MAX: usize = 256;

/// Why an object cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The bus gave no answer.
    #[error("{0}")]
    Unanswered(String),
    /// The bus answered, and what it holds is not the object.
    #[error("{0}")]
    Damaged(String),
}

impl From<ReadFault> for String {
    fn from(fault: ReadFault) -> Self {
        fault.to_string()
    }
}

/// The record of an object, also of a deleted one; `None` when the bus has none.
pub(crate) async fn find(
    context: &Context,
    (bucket, name): (String, &str),
) -> Result<Option<ObjectInfo>, ReadFault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Ok(None);
    }
    let stream = stream_of(context, &bucket).await?;
    let subject = record_of(&bucket, name);
    let record = match stream.direct_get_last_for_subject(subject.as_str()).await {
        Ok(record) => record.payload,
        // A replica may be behind, the leader is not.
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
            let last = stream.get_last_raw_message_by_subject(&subject).await;
            match found(last) {
                Ok(Some(record)) => record.payload,
                Ok(None) => return Ok(None),
                Err(ReadFailure::Missing) => {
                    return Err(ReadFault::Unanswered(format!(
                        "there is no bucket {bucket}"
                    )));
                }
                Err(ReadFailure::Retry(reason)) => return Err(ReadFault::Unanswered(reason)),
            }
        }
        Err(error) => return Err(ReadFault::Unanswered(error.to_string())),
    };
    let info: ObjectInfo = serde_json::from_slice(&record)
        .map_err(|error| ReadFault::Damaged(format!("its record cannot be read: {error}")))?;
    // Whatever the record says, its chunks are in its own bucket.
    Ok(Some(ObjectInfo { bucket, ..info }))
}

/// Stores an object by bucket and name, and replaces the previous one. The object is invisible until its
/// record is stored.
pub(crate) async fn write(
    context: &Context,
    (bucket, name): (String, &str),
    bytes: Bytes,
    before: Option<ObjectInfo>,
) -> Result<(), String> {
    let nuid = nuid::next().to_string();
    let all = bytes.clone();
    // Hashing a large artifact takes a while; its chunks are sent in the meantime.
    let digest = tokio::task::spawn_blocking(move || digest_of(&all));
    let subject = chunks_of(&bucket, &nuid);
    let mut acks: VecDeque<PublishAckFuture> = VecDeque::new();
    let mut rest = bytes.clone();
    let mut chunks = 0;
    while !rest.is_empty() {
        let chunk = rest.split_to(CHUNK_BYTES.min(rest.len()));
        acks.push_back(sent(context.publish(subject.clone(), chunk)).await?);
        chunks += 1;
        if acks.len() == IN_FLIGHT
            && let Some(first) = acks.pop_front()
        {
            stored(first).await?;
        }
    }
    for ack in acks {
        stored(ack).await?;
    }
    let digest = digest.await.map_err(|error| error.to_string())?;
    let info = ObjectInfo {
        name: name.to_owned(),
        description: None,
        metadata: HashMap::new(),
        headers: None,
        options: Some(ObjectOptions {
            link: None,
            max_chunk_size: Some(CHUNK_BYTES),
        }),
        nuid,
        size: bytes.len(),
        chunks,
        modified: Some(async_nats::datetime::now()),
        digest: Some(digest),
        deleted: false,
        bucket,
    };
    record(context, &info).await?;
    match before {
        Some(before) if !before.nuid.is_empty() => purge(context, &before).await,
        Some(_) | None => Ok(()),
    }
}

fn chunks_of(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

fn record_of(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", URL_SAFE.encode(name))
}

/// Stores the record of an object and replaces the previous record.
async fn record(context: &Context, info: &ObjectInfo) -> Result<(), String> {
    let subject = record_of(&info.bucket, &info.name);
    let record = serde_json::to_vec(info).map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_ROLLUP, "sub");
    let record = context.publish_with_headers(subject, headers, record.into());
    stored(sent(record).await?).await
}

/// Deletes an object and its record. The client library would keep a record that marks the object as
/// deleted, which nothing removes.
pub(crate) async fn remove(context: &Context, info: &ObjectInfo) -> Result<(), String> {
    // The record goes first, so that nobody reads an object without its chunks.
    purge_subject(context, info, record_of(&info.bucket, &info.name)).await?;
    purge(context, info).await
}

async fn purge(context: &Context, info: &ObjectInfo) -> Result<(), String> {
    purge_subject(context, info, chunks_of(&info.bucket, &info.nuid)).await
}

async fn purge_subject(
    context: &Context,
    info: &ObjectInfo,
    subject: String,
) -> Result<(), String> {
    let stream = stream_of(context, &info.bucket).await?;
    let purged = stream.purge().filter(subject).await;
    purged.map(drop).map_err(|error| error.to_string())
}

async fn stream_of(context: &Context, bucket: &str) -> Result<Stream<()>, ReadFault> {
    let stream = context.get_stream_no_info(format!("OBJ_{bucket}"));
    let stream = stream.await;
    stream.map_err(|error| ReadFault::Unanswered(error.to_string()))
}

async fn sent<E: std::fmt::Display>(
    publish: impl Future<Output = Result<PublishAckFuture, E>>,
) -> Result<PublishAckFuture, String> {
    publish.await.map_err(|error| error.to_string())
}

async fn stored(ack: PublishAckFuture) -> Result<(), String> {
    ack.await.map(drop).map_err(|error| error.to_string())
}

/// The bytes of an object, verified against size and digest of its record.
pub(crate) async fn read(context: &Context, info: &ObjectInfo) -> Result<Bytes, ReadFault> {
    let stream = stream_of(context, &info.bucket).await?;
    let subject = chunks_of(&info.bucket, &info.nuid);
    let mut bytes = Vec::with_capacity(info.size);
    let mut next = None;
    for _ in 0..info.chunks {
        let chunk = stream.direct_get_next_for_subject(subject.as_str(), next);
        let chunk = chunk.await.map_err(|error| unread_chunk(&error))?;
        next = Some(chunk.sequence + 1);
        if bytes.len() + chunk.payload.len() > info.size {
            let promised = info.size;
            return Err(ReadFault::Damaged(format!(
                "it has more than {promised} bytes"
            )));
        }
        bytes.extend_from_slice(&chunk.payload);
    }
    let info = info.clone();
    let checked = tokio::task::spawn_blocking(move || check(&info, &bytes).map(|()| bytes));
    let checked = checked.await;
    let bytes = checked.map_err(|error| ReadFault::Unanswered(error.to_string()))?;
    bytes.map(Bytes::from).map_err(ReadFault::Damaged)
}

fn unread_chunk(error: &DirectGetError) -> ReadFault {
    let reason = error.to_string();
    match error.kind() {
        DirectGetErrorKind::NotFound | DirectGetErrorKind::InvalidSubject => {
            ReadFault::Damaged(format!("a part of it is missing: {reason}"))
        }
        DirectGetErrorKind::TimedOut
        | DirectGetErrorKind::Request
        | DirectGetErrorKind::ErrorResponse(..)
        | DirectGetErrorKind::Other => ReadFault::Unanswered(reason),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(digest(&SHA256, bytes)))
}

fn check(info: &ObjectInfo, bytes: &[u8]) -> Result<(), String> {
    if bytes.len() != info.size {
        let (found, promised) = (bytes.len(), info.size);
        return Err(format!("it has {found} bytes instead of {promised}"));
    }
    let digest = digest_of(bytes);
    match &info.digest {
        Some(promised) if *promised != digest => {
            Err("its digest does not match its record".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}
