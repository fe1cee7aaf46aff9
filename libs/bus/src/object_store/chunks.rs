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
use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo, ObjectOptions, ObjectStore};
use async_nats::jetstream::stream::Stream;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::Bus;

/// Size of a chunk; well below the server's default message limit of 1 MiB.
const CHUNK_BYTES: usize = 512 * 1024;
const IN_FLIGHT: usize = 4;

pub(crate) async fn open(bus: &Bus, bucket: String) -> Result<ObjectStore, String> {
    let store = bus.connections().consume_js.get_object_store(bucket).await;
    store.map_err(|error| error.to_string())
}

/// The record of an object, also of a deleted one; `None` when there is none.
pub(crate) async fn find(store: &ObjectStore, name: &str) -> Result<Option<ObjectInfo>, String> {
    match store.info(name).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
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

fn record_of(info: &ObjectInfo) -> String {
    format!("$O.{}.M.{}", info.bucket, URL_SAFE.encode(&info.name))
}

/// Stores the record of an object and replaces the previous record.
async fn record(context: &Context, info: &ObjectInfo) -> Result<(), String> {
    let subject = record_of(info);
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
    purge_subject(context, info, record_of(info)).await?;
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
    let stream = stream_of(context, info).await?;
    let purged = stream.purge().filter(subject).await;
    purged.map(drop).map_err(|error| error.to_string())
}

async fn stream_of(context: &Context, info: &ObjectInfo) -> Result<Stream<()>, String> {
    let stream = context.get_stream_no_info(format!("OBJ_{}", info.bucket));
    stream.await.map_err(|error| error.to_string())
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
pub(crate) async fn read(context: &Context, info: &ObjectInfo) -> Result<Bytes, String> {
    let stream = stream_of(context, info).await?;
    let subject = chunks_of(&info.bucket, &info.nuid);
    let mut bytes = Vec::with_capacity(info.size);
    let mut next = None;
    for _ in 0..info.chunks {
        let chunk = stream
            .direct_get_next_for_subject(subject.as_str(), next)
            .await
            .map_err(|error| error.to_string())?;
        next = Some(chunk.sequence + 1);
        if bytes.len() + chunk.payload.len() > info.size {
            return Err(format!("it has more than {} bytes", info.size));
        }
        bytes.extend_from_slice(&chunk.payload);
    }
    let info = info.clone();
    let checked = tokio::task::spawn_blocking(move || check(&info, &bytes).map(|()| bytes));
    let bytes = checked.await.map_err(|error| error.to_string())??;
    Ok(Bytes::from(bytes))
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
