//! The announcements of releases: the newest one, those before it, and new ones.

use std::collections::VecDeque;
use std::time::Duration;

use nixfleet_proto::fleet::ReleaseAnnouncement;
use tokio::time::Instant;

use super::{AnnouncementsError, ManifestStore};
use crate::dead_letter::UndecodableMessage;
use crate::frame::decode::read_release_announcement;
use crate::frame::decode_error::DecodeError;
use crate::message::Message;
use crate::reader::stream_reader::Reader;

/// Announcements that are read at once.
const BATCH: usize = 64;

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

/// Announcements before another one. Only their sequences are in memory.
pub struct EarlierAnnouncements {
    store: ManifestStore,
    seqs: Vec<u64>,
}

/// Releases in the order in which they were announced.
pub struct Announcements {
    store: ManifestStore,
    service: &'static str,
    reader: Option<Reader>,
    /// Read, and not yet stored as dead letters.
    unreadable: VecDeque<UndecodableMessage>,
    /// Read, and not yet returned.
    release: Option<(u64, ReleaseAnnouncement)>,
    /// Returned, and returned again at this time.
    again: Option<(Instant, (u64, ReleaseAnnouncement))>,
}

impl ManifestStore {
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
                release: self.earlier_than(last_seq).await?.next().await?,
                unreadable: Some(letter),
            },
        })
    }

    /// The announcements of releases before a sequence. Reads the whole stream, which is short: it keeps some
    /// announcements per subject.
    pub async fn earlier_than(&self, seq: u64) -> Result<EarlierAnnouncements, AnnouncementsError> {
        let stream = self.bus.names().manifest_stream();
        let subject = self.bus.names().manifest_fleet();
        let first = self.bus.stream_identity(&stream).await?.first_seq;
        let mut reader = self.bus.reader(&stream, first);
        let mut seqs = Vec::new();
        while reader.next_seq() < seq {
            let batch = reader.next_stored(BATCH).await?;
            let earlier = batch
                .iter()
                .filter(|message| message.seq < seq && message.subject == subject);
            seqs.extend(earlier.map(|message| message.seq));
        }
        let store = self.clone();
        Ok(EarlierAnnouncements { store, seqs })
    }

    /// Follows the releases from the current one on, for a service, which is named in dead letters.
    pub fn follow(&self, service: &'static str) -> Announcements {
        Announcements {
            store: self.clone(),
            service,
            reader: None,
            unreadable: VecDeque::new(),
            release: None,
            again: None,
        }
    }
}

impl EarlierAnnouncements {
    /// The next earlier release that can be read; `None` when there is no other.
    ///
    /// # Errors
    /// [`AnnouncementsError`], when the bus does not answer.
    pub async fn next(&mut self) -> Result<Option<(u64, ReleaseAnnouncement)>, AnnouncementsError> {
        let stream = self.store.bus.names().manifest_stream();
        while let Some(seq) = self.seqs.pop() {
            let message = self.store.bus.message_at(&stream, seq).await?;
            if let Some(Ok(release)) = message.map(|message| read(&stream, &message)) {
                return Ok(Some((seq, release)));
            }
        }
        Ok(None)
    }
}

impl Announcements {
    /// Returns the current release first, then each newer one when it is announced; of several new ones
    /// only the last. Announcements that cannot be read become dead letters and are passed over. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// [`AnnouncementsError`]; the next call starts again at the current release.
    pub async fn next(&mut self) -> Result<(u64, ReleaseAnnouncement), AnnouncementsError> {
        loop {
            while let Some(letter) = self.unreadable.front() {
                self.store
                    .store_as_dead_letter(self.service, letter.clone())
                    .await;
                self.unreadable.pop_front();
            }
            if let Some(release) = self.release.take() {
                self.again = None;
                return Ok(release);
            }
            let Some(at) = self.again.as_ref().map(|(at, _)| *at) else {
                self.read_more().await?;
                continue;
            };
            tokio::select! {
                read = self.read_more() => read?,
                () = tokio::time::sleep_until(at) => {
                    self.release = self.again.take().map(|(_, release)| release);
                }
            }
        }
    }

    /// Returns a release again after a pause, unless a newer one comes first.
    pub fn repeat(&mut self, pause: Duration, release: (u64, ReleaseAnnouncement)) {
        self.again = Some((Instant::now() + pause, release));
    }

    async fn read_more(&mut self) -> Result<(), AnnouncementsError> {
        let names = self.store.bus.names().clone();
        let (stream, subject) = (names.manifest_stream(), names.manifest_fleet());
        let Some(reader) = &mut self.reader else {
            let newest = self.store.newest().await?;
            let from = newest.last_seq + 1;
            self.reader = Some(self.store.bus.reader(&stream, from));
            self.unreadable.extend(newest.unreadable);
            self.release = newest.release;
            return Ok(());
        };
        let batch = match reader.next_batch(BATCH).await {
            Ok(batch) => batch,
            Err(error) => {
                self.reader = None;
                return Err(error.into());
            }
        };
        for message in batch.iter().filter(|message| message.subject == subject) {
            match read(&stream, message) {
                Ok(release) => self.release = Some((message.seq, release)),
                Err(letter) => self.unreadable.push_back(letter),
            }
        }
        Ok(())
    }
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
