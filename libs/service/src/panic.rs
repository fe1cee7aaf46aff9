//! Panics are logged and end the process, wherever they happen.
//!
//! A task that dies alone leaves a process that looks alive and does half its work. The exception is
//! a request that catches its own panic and answers an error: it says so with [`contained`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static CONTAINED: ();
}

static STOP: OnceLock<CancellationToken> = OnceLock::new();
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs a future whose panics are caught and answered further up, so that they do not end the
/// process. They are logged and counted all the same.
pub async fn contained<F: Future>(future: F) -> F::Output {
    CONTAINED.scope((), future).await
}

/// True when a panic ended, or should end, the process.
pub(crate) fn happened() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

/// Logs every panic of the process; one that is not contained cancels `stop`.
pub(crate) fn install(stop: CancellationToken) {
    if STOP.set(stop).is_err() {
        return;
    }
    std::panic::set_hook(Box::new(|info| {
        let contained = CONTAINED.try_with(|()| ()).is_ok();
        let message = info.payload_as_str().unwrap_or("(no message)");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("(unnamed)");
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(message, location, thread, contained, %backtrace, "panic");
        metrics::counter!("nixfleet_panics_total").increment(1);
        if !contained {
            PANICKED.store(true, Ordering::SeqCst);
            if let Some(stop) = STOP.get() {
                stop.cancel();
            }
        }
    }));
}
