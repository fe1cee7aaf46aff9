//! Artifacts of releases in the object store, and their announcements.

pub(crate) mod announcements;

use async_nats::jetstream::object_store::ObjectInfo;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use nixfleet_proto::fleet::{ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::{ManifestHash, RolloutId};

use crate::Bus;
use crate::bus::backoff::pauses;
use crate::dead_letter::UndecodableMessage;
use crate::frame::decode::{
    ANNOUNCEMENT_BYTES_MAX, read_release_announcement, read_rollout_announcement,
};
use crate::frame::decode_error::DecodeError;
use crate::message::Message;
use crate::object_store::chunks;
use crate::publish::error::PublishError;
use crate::publish::fenced_publishing::Fenced;
use crate::publish::log_writer::Fence;
use crate::publish::outgoing_message::OutgoingMessage;
use crate::reader::leader_reads::LeaderReadError;
use crate::reader::read_error::ReadError;

/// Objects that are read at the same time. They are written one by one: a server that reads an object whose
/// chunks are mixed with those of another keeps both in memory.
const READS_AT_ONCE: usize = 2;
/// Announcements that are read at once.
const BATCH: usize = 64;
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
        let before = self.info(hash).await.map_err(fail)?;
        // Objects are named by content: an object of the same size is the same, and a damaged one has
        // another size.
        let is_same = |info: &ObjectInfo| !info.deleted && info.size == bytes.len();
        if before.as_ref().is_some_and(is_same) {
            return Ok(());
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
        let mut reason = String::new();
        let mut pauses = pauses();
        for _ in 0..READ_ATTEMPTS {
            match self.try_get(hash).await? {
                Ok(found) => return Ok(found),
                Err(text) => reason = text,
            }
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
        Err(ManifestError::Unavailable {
            hash: hash.clone(),
            verb: "loaded",
            reason,
        })
    }

    /// The bytes of every artifact of a release, in the order of [`ReleaseAnnouncement::artifacts`].
    pub async fn get_all(
        &self,
        release: &ReleaseAnnouncement,
    ) -> Result<Vec<Option<Bytes>>, ManifestError> {
        let loads = release.artifacts().map(|artifact| self.get(&artifact.hash));
        // Collected first: a stream over a borrowing closure is not `Send`.
        let loads: Vec<_> = loads.collect();
        futures::stream::iter(loads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await
    }

    /// One attempt; a retry may fix the inner error.
    async fn try_get(
        &self,
        hash: &ManifestHash,
    ) -> Result<Result<Option<Bytes>, String>, ManifestError> {
        let info = match self.info(hash).await {
            Ok(Some(info)) if !info.deleted => info,
            Ok(_) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(reason)),
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

    /// The current release with its sequence: the newest one that can be read.
    pub async fn current(&self) -> Result<Option<(u64, ReleaseAnnouncement)>, AnnouncementsError> {
        Ok(self.newest().await?.release)
    }

    /// The end of the announcements, read through the leader. Announcements that cannot be read are passed
    /// over: whoever wrote them, the release before them stays.
    pub async fn newest(&self) -> Result<NewestAnnouncement, AnnouncementsError> {
        let stream = self.bus.names().manifest_stream();
        let subject = self.bus.names().manifest_fleet();
        let Some(last) = self.bus.last_by_subject(&stream, &subject).await? else {
            return Ok(NewestAnnouncement::default());
        };
        let last_seq = last.seq;
        Ok(match read(&stream, &last) {
            Ok(release) => NewestAnnouncement {
                last_seq,
                release: Some((last_seq, release)),
                unreadable: None,
            },
            Err(letter) => NewestAnnouncement {
                last_seq,
                release: self.last_readable_before(last_seq).await?,
                unreadable: Some(letter),
            },
        })
    }

    /// Reads the whole stream, which is short: it keeps some announcements per subject.
    async fn last_readable_before(
        &self,
        seq: u64,
    ) -> Result<Option<(u64, ReleaseAnnouncement)>, AnnouncementsError> {
        let stream = self.bus.names().manifest_stream();
        let subject = self.bus.names().manifest_fleet();
        let first = self.bus.stream_identity(&stream).await?.first_seq;
        let mut reader = self.bus.reader(&stream, first);
        let mut found = None;
        while reader.next_seq() < seq {
            let batch = reader.next_batch(BATCH).await?;
            let earlier = batch.iter().filter(|message| message.seq < seq);
            for message in earlier.filter(|message| message.subject == subject) {
                if let Ok(release) = read(&stream, message) {
                    found = Some((message.seq, release));
                }
            }
        }
        Ok(found)
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

    async fn info(&self, hash: &ManifestHash) -> Result<Option<ObjectInfo>, String> {
        let store = chunks::open(&self.bus, self.bus.names().manifest_bucket()).await?;
        chunks::find(&store, hash.as_str()).await
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

/// The end of the announcements of releases.
#[derive(Debug, Default)]
pub struct NewestAnnouncement {
    /// Sequence of the last announcement, readable or not, which the next one has to name; 0 without one.
    pub last_seq: u64,
    /// The newest release that can be read, with its sequence.
    pub release: Option<(u64, ReleaseAnnouncement)>,
    /// The last announcement, when it cannot be read.
    pub unreadable: Option<UndecodableMessage>,
}

fn read(stream: &str, message: &Message) -> Result<ReleaseAnnouncement, UndecodableMessage> {
    read_release_announcement(&message.payload).map_err(|error: DecodeError| UndecodableMessage {
        stream: stream.to_owned(),
        seq: message.seq,
        subject: message.subject.clone(),
        reason: error.to_string(),
        payload: message.payload.clone(),
    })
}

impl ManifestStore {
    /// Stores an announcement that cannot be read as a dead letter, and counts it. A dead letter that cannot be
    /// stored holds nobody up.
    pub async fn pass_over(&self, service: &'static str, letter: UndecodableMessage) {
        metrics::counter!("nixfleet_manifest_refusals_total", "fault" => "unreadable").increment(1);
        let seq = letter.seq;
        if let Err(error) = self.bus.store_dead_letter(service, letter).await {
            tracing::warn!(seq, %error, "an announcement that cannot be read is no dead letter");
        }
    }
}
