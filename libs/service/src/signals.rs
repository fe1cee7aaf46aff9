//! Signals: the first one starts the shutdown, the second one ends the process.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after the second signal.
const EXIT_FORCED: i32 = 1;

/// Handlers of SIGTERM and SIGINT, installed when this value is created.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn catch() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    /// Cancels `shutdown` on the first signal, and ends the process on the second.
    pub(crate) async fn watch(mut self, shutdown: CancellationToken) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping");
        shutdown.cancel();
        let name = self.next().await;
        tracing::warn!(signal = name, "second signal, ending without draining");
        std::process::exit(EXIT_FORCED);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
