//! Releases: the announced one is followed and verified here, new ones from the source are verified,
//! admitted, stored and announced.
//!
//! Two tasks of a leader's term. Whoever announces first wins: the announcement is fenced with the
//! one before it, so a poll and a push through the gateway cannot cross.

mod announced;
mod known;
mod poll;
mod refusals;
mod restore;
mod trust;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::Bus;
use nixfleet_proto::RolloutId;
use nixfleet_service::CancellationToken;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::source::Source;

pub use restore::restore;

use known::{Current, Known, Superseded};
use trust::Trust;

/// The release tasks of one term.
pub struct Releases {
    known: watch::Receiver<Known>,
    superseded: watch::Sender<Superseded>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Releases {
    /// Starts following, and polling when a source is configured.
    ///
    /// # Errors
    /// When the source cannot be set up.
    pub fn start(bus: &Bus, config: &Config) -> anyhow::Result<Self> {
        let (know, known) = watch::channel(Known::default());
        let (superseded, refs) = watch::channel(Superseded::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let trust = Trust {
            file: config.trust.trust_file.clone(),
            window: Duration::from_secs(config.trust.freshness_minutes * 60),
        };
        let announced = announced::Announced::new(bus.manifests(), trust.clone(), know);
        spawn(&mut tasks, &stop, announced.run());
        if let Some(source) = Source::new(&config.source)? {
            let poll = poll::Poll::new(poll::Parts {
                store: bus.manifests(),
                source,
                trust,
                known: known.clone(),
                superseded: refs,
                config: config.source.clone(),
            });
            spawn(&mut tasks, &stop, poll.run());
        }
        Ok(Self {
            known,
            superseded,
            tasks,
            stop,
        })
    }

    /// Waits until another release is known; `None` when only a refusal changed.
    ///
    /// # Errors
    /// When the tasks have ended.
    pub async fn changed(&mut self) -> anyhow::Result<Option<Arc<Current>>> {
        self.known
            .changed()
            .await
            .context("the release task has ended")?;
        Ok(self.known.borrow_and_update().current.clone())
    }

    /// States which refs must not come back.
    pub fn set_superseded(&self, refs: BTreeSet<RolloutId>) {
        self.superseded.send_if_modified(|before| {
            let is_new = **before != refs;
            if is_new {
                *before = Arc::new(refs);
            }
            is_new
        });
    }

    /// Ends the tasks and waits for them.
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
