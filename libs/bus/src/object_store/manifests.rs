//! Artifacts of releases in the object store, and their announcements.

pub(crate) mod announcements;
mod refusals;

use async_nats::jetstream::object_store::ObjectInfo;
use bytes::Bytes;
use futures::StreamExt as _;
use nixfleet_proto::fleet::{ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::{ManifestHash, RolloutId};

use crate::Bus;
use crate::bus::backoff::pauses;
use crate::frame::decode::{ANNOUNCEMENT_BYTES_MAX, read_rollout_announcement};
use crate::frame::decode_error::DecodeError;
use crate::object_store::chunks::{self, ReadFault};
use crate::publish::error::PublishError;
use crate::publish::fenced_publishing::Fenced;
use crate::publish::log_writer::Fence;
use crate::publish::outgoing_message::OutgoingMessage;
use crate::reader::leader_reads::LeaderReadError;
use crate::reader::read_error::ReadError;

/// Objects that are read at the same time. They are written one by one: a server that reads an object whose
/// chunks are mixed with those of another keeps both in memory.
const READS_AT_ONCE: usize = 2;
/// Size of all objects of a release, in largest objects: the manifests name the hosts of the fleet, so together
/// they are no larger than it.
const RELEASE_OBJECTS: u64 = 2;
/// Attempts to read one object while another writer replaces it or the server is unreachable.
const READ_ATTEMPTS: usize = 5;

/// Why an artifact cannot be stored or loaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ManifestError {
    #[error("artifact {hash} has {bytes} bytes, the limit is {max}")]
    TooLarge {
        hash: ManifestHash,
        bytes: u64,
        /// `bus.manifest_max_object_bytes`.
        max: u64,
    },
    #[error("artifact {hash} is damaged: {reason}")]
    Damaged { hash: ManifestHash, reason: String },
    /// The bus does not answer; a retry may help.
    #[error("artifact {hash} cannot be {verb}: {reason}")]
    Unavailable {
        hash: ManifestHash,
        /// The operation, as a participle.
        verb: &'static str,
        reason: String,
    },
}

/// Why the announced release is unknown.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum AnnouncementsError {
    #[error(transparent)]
    Leader(#[from] LeaderReadError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the announcement at sequence {seq} cannot be read")]
    Undecodable {
        seq: u64,
        #[source]
        source: DecodeError,
    },
}

/// Access to artifacts and announcements; cheap to clone.
#[derive(Clone)]
pub struct ManifestStore {
    bus: Bus,
}

impl ManifestStore {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Stores the bytes of an artifact under its hash. Storing it again has no effect.
    pub async fn put(&self, hash: &ManifestHash, bytes: Bytes) -> Result<(), ManifestError> {
        self.bound(hash, bytes.len() as u64)?;
        let fail = |reason| ManifestError::Unavailable {
            hash: hash.clone(),
            verb: "stored",
            reason,
        };
        let before = match self.info(hash).await {
            Ok(before) => before,
            Err(ReadFault::Damaged(_)) => None,
            Err(ReadFault::Unanswered(reason)) => return Err(fail(reason)),
        };
        if let Some(info) = before.as_ref().filter(|info| is_stored(info, &bytes)) {
            match chunks::read(&self.bus.connections().consume_js, info).await {
                Ok(stored) if stored == bytes => return Ok(()),
                // Storing it again repairs it.
                Ok(_) | Err(ReadFault::Damaged(_)) => {}
                Err(ReadFault::Unanswered(reason)) => return Err(fail(reason)),
            }
        }
        let context = &self.bus.connections().consume_js;
        let place = (self.bus.names().manifest_bucket(), hash.as_str());
        chunks::write(context, place, bytes, before)
            .await
            .map_err(fail)
    }

    /// The bytes of an artifact as they were received; `None` when it is not stored. The transport digest
    /// is verified here, the caller checks the content hash.
    pub async fn get(&self, hash: &ManifestHash) -> Result<Option<Bytes>, ManifestError> {
        let mut fault = ReadFault::Unanswered(String::new());
        let mut pauses = pauses();
        for _ in 0..READ_ATTEMPTS {
            match self.try_get(hash).await? {
                Ok(found) => return Ok(found),
                Err(again) => fault = again,
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
        let hash = hash.clone();
        Err(match fault {
            ReadFault::Damaged(reason) => ManifestError::Damaged { hash, reason },
            ReadFault::Unanswered(reason) => ManifestError::Unavailable {
                hash,
                verb: "loaded",
                reason,
            },
        })
    }

    /// The bytes of every artifact of a release, in the order of [`ReleaseAnnouncement::artifacts`]. The inner
    /// error is the bus's answer that it does not hold one of them: artifacts are stored before the release is
    /// announced, so that one that is missing is not on its way.
    ///
    /// # Errors
    /// [`ManifestError::Unavailable`], when the bus does not answer.
    pub async fn get_all(
        &self,
        release: &ReleaseAnnouncement,
    ) -> Result<Result<Vec<Bytes>, String>, ManifestError> {
        let loads = release
            .artifacts()
            .map(|artifact| self.get_stored(&artifact.hash));
        // Collected first: a stream over a borrowing closure is not `Send`.
        let loads: Vec<_> = loads.collect();
        let mut loads = futures::stream::iter(loads).buffered(READS_AT_ONCE);
        let max = self.bus.config().manifest_max_object_bytes;
        let max = max.saturating_mul(RELEASE_OBJECTS);
        let (mut objects, mut total) = (Vec::new(), 0);
        while let Some(object) = loads.next().await {
            let object = match object? {
                Ok(object) => object,
                Err(reason) => return Ok(Err(reason)),
            };
            total += object.len() as u64;
            if total > max {
                return Ok(Err(format!("its artifacts have more than {max} bytes")));
            }
            objects.push(object);
        }
        Ok(Ok(objects))
    }

    /// The bytes of an artifact, or why it cannot be used whenever the bus is asked.
    async fn get_stored(
        &self,
        hash: &ManifestHash,
    ) -> Result<Result<Bytes, String>, ManifestError> {
        match self.get(hash).await {
            Ok(Some(bytes)) => Ok(Ok(bytes)),
            Ok(None) => Ok(Err(format!("artifact {hash} is not in the object store"))),
            Err(error @ (ManifestError::TooLarge { .. } | ManifestError::Damaged { .. })) => {
                Ok(Err(error.to_string()))
            }
            Err(error @ ManifestError::Unavailable { .. }) => Err(error),
        }
    }

    /// One attempt; a retry may fix the inner error.
    async fn try_get(
        &self,
        hash: &ManifestHash,
    ) -> Result<Result<Option<Bytes>, ReadFault>, ManifestError> {
        let info = match self.info(hash).await {
            Ok(Some(info)) if !info.deleted => info,
            Ok(_) => return Ok(Ok(None)),
            Err(fault) => return Ok(Err(fault)),
        };
        self.bound(hash, info.size as u64)?;
        let read = chunks::read(&self.bus.connections().consume_js, &info).await;
        Ok(read.map(Some))
    }

    /// Announces a release whose artifacts are stored: each rollout manifest on its own subject, then the
    /// release, which is the commit point. `expected_seq` is the sequence of the current release, 0 when
    /// there is none. Returns the new sequence.
    ///
    /// # Errors
    /// [`PublishError`]; `Fenced` when another release was announced in the meantime.
    pub async fn announce(
        &self,
        release: &ReleaseAnnouncement,
        expected_seq: u64,
    ) -> Result<u64, PublishError> {
        for rollout in release.rollouts.values() {
            let subject = self.bus.names().manifest_rollout(&rollout.rollout_id);
            let message = self.message(subject, &self.bus.ids().next(), rollout)?;
            self.bus.publish_plain(message).await?;
        }
        let id = self.bus.ids().next();
        let subject = self.bus.names().manifest_fleet();
        let message = self
            .message(subject.clone(), &id, release)?
            .fenced(expected_seq);
        let fenced = Fenced {
            bus: &self.bus,
            stream: &self.bus.names().manifest_stream(),
            log: &subject,
            id: &id,
            fence: &Fence {
                seq: expected_seq,
                subject: None,
            },
            generation: self.bus.known_streams().generation(),
        };
        fenced.publish(&message).await
    }

    fn message(
        &self,
        subject: String,
        id: &str,
        body: &impl serde::Serialize,
    ) -> Result<OutgoingMessage, PublishError> {
        let payload = serde_json::to_vec(body)
            .map_err(|error| PublishError::Unavailable(format!("not serialisable: {error}")))?;
        let (bytes, max) = (payload.len(), ANNOUNCEMENT_BYTES_MAX);
        if bytes > max {
            return Err(PublishError::TooLarge { bytes, max });
        }
        let stream = self.bus.names().manifest_stream();
        Ok(OutgoingMessage::new(
            &stream,
            subject,
            id,
            Bytes::from(payload),
        ))
    }

    /// The announcement of one rollout manifest, read through the leader; `None` when the stream has none.
    pub async fn rollout(
        &self,
        rollout_id: &RolloutId,
    ) -> Result<Option<RolloutAnnouncement>, AnnouncementsError> {
        let stream = self.bus.names().manifest_stream();
        let subject = self.bus.names().manifest_rollout(rollout_id);
        let Some(message) = self.bus.last_by_subject(&stream, &subject).await? else {
            return Ok(None);
        };
        let seq = message.seq;
        let rollout = read_rollout_announcement(&message.payload);
        rollout
            .map(Some)
            .map_err(|source| AnnouncementsError::Undecodable { seq, source })
    }

    /// Whether a rollout manifest was announced, read through the leader.
    pub async fn is_announced(&self, rollout_id: &RolloutId) -> Result<bool, LeaderReadError> {
        let stream = self.bus.names().manifest_stream();
        let subject = self.bus.names().manifest_rollout(rollout_id);
        let last = self.bus.last_by_subject(&stream, &subject).await?;
        Ok(last.is_some())
    }

    async fn info(&self, hash: &ManifestHash) -> Result<Option<ObjectInfo>, ReadFault> {
        let place = (self.bus.names().manifest_bucket(), hash.as_str());
        chunks::find(&self.bus.connections().consume_js, place).await
    }

    fn bound(&self, hash: &ManifestHash, bytes: u64) -> Result<(), ManifestError> {
        let max = self.bus.config().manifest_max_object_bytes;
        if bytes <= max {
            return Ok(());
        }
        Err(ManifestError::TooLarge {
            hash: hash.clone(),
            bytes,
            max,
        })
    }
}

fn is_stored(info: &ObjectInfo, bytes: &Bytes) -> bool {
    !info.deleted && info.size == bytes.len()
}
