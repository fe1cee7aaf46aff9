//! Follows the announcements of releases.

use std::collections::VecDeque;

use nixfleet_proto::fleet::ReleaseAnnouncement;

use super::{AnnouncementsError, BATCH, ManifestStore, read};
use crate::dead_letter::UndecodableMessage;
use crate::reader::stream_reader::Reader;

/// Releases in the order in which they were announced.
pub struct Announcements {
    store: ManifestStore,
    service: &'static str,
    reader: Option<Reader>,
    /// Read, and not yet stored as dead letters.
    unreadable: VecDeque<UndecodableMessage>,
    /// Read, and not yet returned.
    release: Option<(u64, ReleaseAnnouncement)>,
}

impl ManifestStore {
    /// Follows the releases from the current one on, for a service, which is named in dead letters.
    pub fn follow(&self, service: &'static str) -> Announcements {
        Announcements {
            store: self.clone(),
            service,
            reader: None,
            unreadable: VecDeque::new(),
            release: None,
        }
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
                self.store.pass_over(self.service, letter.clone()).await;
                self.unreadable.pop_front();
            }
            if let Some(release) = self.release.take() {
                return Ok(release);
            }
            self.read_more().await?;
        }
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
