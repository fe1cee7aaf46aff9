//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

/// Interval between two evaluations of a condition.
pub const POLL: Duration = Duration::from_millis(25);

/// Evaluates `condition` until it returns a value or the deadline passes; a single evaluation may not
/// exceed the deadline either.
///
/// `condition` returns `Ok(Some(value))` when it holds, `Ok(None)` or an error when not yet; the error of
/// the timeout contains the last one.
///
/// # Errors
/// When the deadline passes.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match tokio::time::timeout(deadline, condition()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the last evaluation did not end")),
        };
        if start.elapsed() > deadline {
            let waited = start.elapsed().as_secs_f64();
            match last {
                Some(error) => {
                    return Err(error.context(format!("{what}: not after {waited:.1} s")));
                }
                None => bail!("{what}: not after {waited:.1} s"),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// As [`wait_for`], without a runtime, for starting servers.
///
/// # Errors
/// When the deadline passes.
pub fn wait_blocking<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("{what}: not after {:.1} s", start.elapsed().as_secs_f64());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_evaluation_that_never_ends_is_cut_at_the_deadline() {
        let timeout = Duration::from_millis(50);
        let waited = wait_for("silence", timeout, async || {
            std::future::pending::<Result<Option<()>>>().await
        });
        let error = tokio::time::timeout(Duration::from_secs(30), waited).await;
        let error = format!("{:#}", error.unwrap().unwrap_err());
        assert!(error.contains("silence: not after"), "{error}");
        assert!(error.contains("did not end"), "{error}");
    }
}
