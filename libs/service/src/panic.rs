//! Panic handling: every panic is logged and ends the process.
//!
//! A process in which a single task died looks alive and does half its work. The exception is a request
//! whose panic is caught and answered with an error; it runs inside [`contained`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static CONTAINED: ();
}

static STOP: OnceLock<CancellationToken> = OnceLock::new();
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs a future whose caller catches panics, so that they do not end the process. They are still logged
/// and counted.
pub async fn contained<F: Future>(future: F) -> F::Output {
    CONTAINED.scope((), future).await
}

/// True when a panic must end the process.
pub(crate) fn happened() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

/// Logs every panic of the process; a panic that is not contained cancels `stop`.
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
