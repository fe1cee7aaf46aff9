//! Logs at their byte limits.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_nats::jetstream;
use futures::TryStreamExt as _;

/// Room that is left: a few more messages fit, then none.
const ROOM_BYTES: i64 = 4_096;

/// The limits of some streams before they were tightened.
pub struct StreamLimits {
    context: jetstream::Context,
    before: BTreeMap<String, i64>,
}

impl StreamLimits {
    /// Tightens every stream whose name contains `part` to little more than it holds.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn tighten(url: &str, part: &str) -> Result<Self> {
        let client = async_nats::connect(url)
            .await
            .context("connecting to nats-server")?;
        let context = jetstream::new(client);
        let mut names = context.stream_names();
        let mut before = BTreeMap::new();
        while let Some(name) = names.try_next().await.context("listing the streams")? {
            if name.contains(part) {
                let limit = set(&context, &name, |used| used + ROOM_BYTES).await?;
                before.insert(name, limit);
            }
        }
        drop(names);
        Ok(Self { context, before })
    }

    /// Puts the limits back.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn restore(self) -> Result<()> {
        for (name, limit) in &self.before {
            set(&self.context, name, |_| *limit).await?;
        }
        Ok(())
    }
}

/// Sets the limit of one stream from the bytes it holds, and returns the one before.
async fn set(
    context: &jetstream::Context,
    name: &str,
    limit: impl FnOnce(i64) -> i64,
) -> Result<i64> {
    let stream = context
        .get_stream(name)
        .await
        .with_context(|| format!("looking at {name}"))?;
    let info = stream.cached_info();
    let mut config = info.config.clone();
    let before = config.max_bytes;
    config.max_bytes = limit(i64::try_from(info.state.bytes)?);
    context
        .update_stream(config)
        .await
        .with_context(|| format!("changing the limit of {name}"))?;
    Ok(before)
}
