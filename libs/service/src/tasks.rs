//! Supervised tasks: each one is joined at the end, and the failure of one ends the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Spawns the tasks of a process; clones share one set.
///
/// A task that returns an error or panics cancels the shutdown token: the others stop in order and the
/// process fails. A task that returns `Ok` has finished its work.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: u64,
    running: BTreeMap<u64, String>,
    failures: Vec<String>,
}

impl Tasks {
    /// An empty set that cancels `shutdown` when a task fails.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            shutdown,
            shared: Arc::default(),
        }
    }

    /// Starts a task; `name` appears in logs and in the error when the task does not stop in time.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name = name.into();
        let id = {
            let mut shared = self.lock();
            shared.next += 1;
            let id = shared.next;
            shared.running.insert(id, name.clone());
            id
        };
        let work: JoinHandle<anyhow::Result<()>> = tokio::spawn(future.in_current_span());
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let failure = match work.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(error) => Some(error.to_string()),
            };
            tasks.lock().running.remove(&id);
            if let Some(failure) = failure {
                tracing::error!(task = name, error = failure, "task failed, stopping");
                tasks.lock().failures.push(format!("{name}: {failure}"));
                tasks.shutdown.cancel();
            }
        });
    }

    /// Names of the running tasks, sorted.
    pub fn running(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock().running.values().cloned().collect();
        names.sort();
        names
    }

    /// Failures so far, as `name: reason`.
    pub fn failures(&self) -> Vec<String> {
        self.lock().failures.clone()
    }

    /// Waits until every task has ended, at most `limit`; false when some still run.
    pub async fn join(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> (Tasks, CancellationToken) {
        let shutdown = CancellationToken::new();
        (Tasks::new(shutdown.clone()), shutdown)
    }

    #[tokio::test]
    async fn a_finished_task_does_not_stop_the_process() {
        let (tasks, shutdown) = tasks();
        tasks.spawn("done", async { Ok(()) });
        assert!(tasks.join(Duration::from_secs(5)).await);
        assert!(!shutdown.is_cancelled());
        assert!(tasks.failures().is_empty());
    }

    #[tokio::test]
    async fn a_failed_task_stops_the_others() {
        let (tasks, shutdown) = tasks();
        tasks.spawn("waits", async move {
            shutdown.cancelled().await;
            Ok(())
        });
        tasks.spawn("fails", async { anyhow::bail!("no luck") });
        assert!(tasks.join(Duration::from_secs(5)).await);
        assert_eq!(tasks.failures(), ["fails: no luck"]);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let (tasks, shutdown) = tasks();
        tasks.spawn("panics", async { panic!("boom") });
        shutdown.cancelled().await;
        assert!(tasks.join(Duration::from_secs(5)).await);
        assert!(
            tasks.failures()[0].contains("boom"),
            "{:?}",
            tasks.failures()
        );
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_listed() {
        let (tasks, _shutdown) = tasks();
        tasks.spawn("stuck", std::future::pending());
        assert!(!tasks.join(Duration::from_millis(10)).await);
        assert_eq!(tasks.running(), ["stuck"]);
    }
}
