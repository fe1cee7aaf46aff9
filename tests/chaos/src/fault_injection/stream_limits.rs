//! Byte limits of streams, lowered to provoke full logs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_nats::jetstream;
use futures::TryStreamExt as _;

use crate::testbed::Testbed;

/// Remaining bytes: room for a few more messages.
const ROOM_BYTES: i64 = 4_096;

/// Previous limits of the lowered streams.
pub struct StreamLimits {
    context: jetstream::Context,
    before: BTreeMap<String, i64>,
}

impl StreamLimits {
    /// Lowers the limit of every stream whose name contains `part` to little more than its size.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn lower(testbed: &Testbed, part: &str) -> Result<Self> {
        let users = &testbed.bus_users;
        let administrator = users.administrator();
        let client = async_nats::ConnectOptions::new()
            .add_root_certificates(users.authority().to_owned())
            .require_tls(true)
            .add_client_certificate(administrator.cert, administrator.key)
            .connect(testbed.nats.url())
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

    /// Restores the limits.
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

/// Sets the limit of a stream from its size, and returns the previous limit.
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
