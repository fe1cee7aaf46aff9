//! The newest signed document that a service obeyed: a floor that its restarts keep.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use nixfleet_proto::{ManifestHash, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Bus;
use crate::bus::backoff::pauses;

/// Writers of one floor at the same time, at most; each of them wins once.
const ATTEMPTS: u32 = 16;

/// Time of signing and hash of a signed document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedFloor {
    /// Time of signing.
    pub signed_at: Timestamp,
    /// Hash of the canonical form.
    pub hash: ManifestHash,
}

/// A floor cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the floor {key} cannot be read or written: {reason}")]
pub struct SignedFloorError {
    key: String,
    reason: String,
}

impl Bus {
    /// The floor of this key; `None` before the first.
    ///
    /// # Errors
    /// When the bus does not answer or the record is damaged.
    pub async fn signed_floor(&self, key: &str) -> Result<Option<SignedFloor>, SignedFloorError> {
        Ok(self.stored_floor(key).await?.0)
    }

    /// Raises the floor of this key, unless it is as high or higher.
    ///
    /// # Errors
    /// As [`Bus::signed_floor`]; it may have been raised then.
    pub async fn raise_signed_floor(
        &self,
        key: &str,
        floor: &SignedFloor,
    ) -> Result<(), SignedFloorError> {
        let fault = |reason: String| SignedFloorError {
            key: key.to_owned(),
            reason,
        };
        let payload = serde_json::to_vec(floor).map_err(|error| fault(error.to_string()))?;
        let payload = Bytes::from(payload);
        let (mut reason, mut pauses) = (String::new(), pauses());
        for _ in 0..ATTEMPTS {
            let (stored, revision) = self.stored_floor(key).await?;
            if stored.is_some_and(|stored| stored.signed_at >= floor.signed_at) {
                return Ok(());
            }
            let mut headers = HeaderMap::new();
            headers.insert(
                NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
                async_nats::HeaderValue::from(revision),
            );
            let context = &self.connections().consume_js;
            let subject = self.floor_subject(key);
            let sent = context.publish_with_headers(subject, headers, payload.clone());
            let stored = match sent.await {
                Ok(acknowledgement) => acknowledgement.await,
                Err(error) => Err(error),
            };
            match stored {
                Ok(_) => return Ok(()),
                // Another instance was first, or nobody answered: the next read tells.
                Err(error) => reason = error.to_string(),
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
        Err(fault(reason))
    }

    /// The floor and its revision, 0 before the first, from the leader of the bucket. A floor that an
    /// administrator deleted is none.
    async fn stored_floor(
        &self,
        key: &str,
    ) -> Result<(Option<SignedFloor>, u64), SignedFloorError> {
        let fault = |reason: String| SignedFloorError {
            key: key.to_owned(),
            reason,
        };
        let bucket = format!("KV_{}", self.names().meta_bucket());
        let stream = self
            .connections()
            .consume_js
            .get_stream_no_info(&bucket)
            .await;
        let stream = stream.map_err(|error| fault(error.to_string()))?;
        let subject = self.floor_subject(key);
        match stream.get_last_raw_message_by_subject(&subject).await {
            // The marker of a deletion.
            Ok(message) if message.payload.is_empty() => Ok((None, message.sequence)),
            Ok(message) => {
                let floor = serde_json::from_slice(&message.payload);
                let floor =
                    floor.map_err(|error| fault(format!("its record is damaged: {error}")))?;
                Ok((Some(floor), message.sequence))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((None, 0)),
            Err(error) => Err(fault(error.to_string())),
        }
    }

    fn floor_subject(&self, key: &str) -> String {
        format!("$KV.{}.floor.{key}", self.names().meta_bucket())
    }
}
