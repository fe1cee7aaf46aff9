//! Reading an object piece by piece, without a consumer.
//!
//! The client library makes a consumer per object and leaves it to the server to forget it; the
//! server allows a thousand per stream. Whoever loads a fleet with a long history would stand still.

use async_nats::jetstream::Context;
use async_nats::jetstream::object_store::ObjectInfo;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The bytes of an object, held against the size and the digest of its record.
pub(super) async fn read(context: &Context, info: &ObjectInfo) -> Result<Bytes, String> {
    let stream = context
        .get_stream_no_info(format!("OBJ_{}", info.bucket))
        .await
        .map_err(|error| error.to_string())?;
    let subject = format!("$O.{}.C.{}", info.bucket, info.nuid);
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
    check(info, &bytes)?;
    Ok(Bytes::from(bytes))
}

fn check(info: &ObjectInfo, bytes: &[u8]) -> Result<(), String> {
    if bytes.len() != info.size {
        let (found, promised) = (bytes.len(), info.size);
        return Err(format!("it has {found} bytes instead of {promised}"));
    }
    let digest = format!("SHA-256={}", URL_SAFE.encode(Sha256::digest(bytes)));
    match &info.digest {
        Some(promised) if *promised != digest => Err("its digest is another one".to_owned()),
        Some(_) | None => Ok(()),
    }
}
