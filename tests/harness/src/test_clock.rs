//! A wrong clock for the processes of a test, set while they run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use chrono::TimeDelta;

use crate::scratch;

/// The setting of a service that names the file of its wrong clock.
pub const CLOCK_SETTING: &str = "bus.test_clock_file";

/// A clock that is right until it is stepped. All processes that are started with its file have it.
#[derive(Debug, Clone)]
pub struct TestClock {
    file: PathBuf,
}

impl TestClock {
    /// A right clock.
    ///
    /// # Errors
    /// When there is no room for its file.
    pub fn new(name: &str) -> Result<Self> {
        let file = scratch::dir(&format!("clock-{name}"))?.join("offset_ms");
        let clock = Self { file };
        clock.step(TimeDelta::zero())?;
        Ok(clock)
    }

    /// The value of [`CLOCK_SETTING`].
    pub fn setting(&self) -> String {
        self.file.display().to_string()
    }

    /// Sets the clock so far ahead of the right time, or back. Processes notice it within 50 ms.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&self, offset: TimeDelta) -> Result<()> {
        // Renamed, so that nobody reads half a number.
        let next = self.file.with_extension("next");
        std::fs::write(&next, offset.num_milliseconds().to_string())
            .and_then(|()| std::fs::rename(&next, &self.file))
            .with_context(|| format!("writing {}", self.file.display()))
    }
}
