//! Releases: the announced release is followed and verified; new releases from the source are
//! verified, admitted, stored and announced.
//!
//! Two tasks of a leadership. The announcement is fenced with the one before it, so of a poll and a
//! push through the gateway at the same time one fails.

mod announcement_follower;
mod archive_restore;
mod latest_release;
mod refusal_log;
pub mod source;
mod source_poller;
mod trust_settings;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::Bus;
use nixfleet_proto::RolloutId;
use nixfleet_service::CancellationToken;
use nixfleet_trust::ReleaseFloor;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use source::Source;

pub use archive_restore::restore_release;

use latest_release::{AnnouncedRelease, ReleaseState, SupersededRollouts};
use trust_settings::TrustSettings;

/// Release tasks of one leadership.
pub struct Releases {
    state: watch::Receiver<ReleaseState>,
    superseded: watch::Sender<SupersededRollouts>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Releases {
    /// Starts to follow announcements, and to poll the source if one is configured. `floor` is what this process
    /// accepted before, `superseded` are the rollouts whose refs must not be released again.
    ///
    /// # Errors
    /// When the source cannot be set up.
    pub fn start(
        bus: &Bus,
        config: &Config,
        floor: Arc<Mutex<ReleaseFloor>>,
        superseded: BTreeSet<RolloutId>,
    ) -> anyhow::Result<Self> {
        let (publish_state, state) = watch::channel(ReleaseState::default());
        let (superseded, refs) = watch::channel(Arc::new(superseded));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let trust = TrustSettings {
            file: config.trust.trust_file.clone(),
            window: Duration::from_secs(config.trust.freshness_minutes * 60),
        };
        let announced = announcement_follower::AnnouncementFollower::new(
            bus.manifests(),
            trust.clone(),
            publish_state,
            (Arc::clone(&floor), refs.clone()),
        );
        spawn(&mut tasks, &stop, announced.run());
        if let Some(source) = Source::new(&config.source)? {
            let poll = source_poller::SourcePoller::new(source_poller::PollerParts {
                store: bus.manifests(),
                source,
                trust,
                state: state.clone(),
                superseded: refs,
                floor,
                config: config.source.clone(),
            });
            spawn(&mut tasks, &stop, poll.run());
        }
        Ok(Self {
            state,
            superseded,
            tasks,
            stop,
        })
    }

    /// Waits for another verified release; `None` when only a refusal changed.
    ///
    /// # Errors
    /// When the tasks have ended.
    pub async fn changed(&mut self) -> anyhow::Result<Option<Arc<AnnouncedRelease>>> {
        self.state
            .changed()
            .await
            .context("the release task has ended")?;
        Ok(self.state.borrow_and_update().current.clone())
    }

    /// Sets the rollouts whose refs must not be released again.
    pub fn set_superseded(&self, refs: BTreeSet<RolloutId>) {
        self.superseded.send_if_modified(|before| {
            let is_new = **before != refs;
            if is_new {
                *before = Arc::new(refs);
            }
            is_new
        });
    }

    pub async fn join(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn spawn(
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}
