//! The connections of one process: publishing, consuming and leases have one each, so that none waits for
//! another.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::BusUser;
use crate::config::BusConfig;

/// A dead peer is detected within two intervals; the client's default is one minute.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Messages that a subscription may hold before the client drops some. Heartbeats time out and are
/// repeated; readers never request so many.
const SUBSCRIPTION_CAPACITY: usize = 16 * 1024;
/// Publishes of all partitions that may wait for their acknowledgement at the same time.
const ACKS_IN_FLIGHT: usize = 4_096;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum ConnectError {
    #[error("the bus configuration is wrong: {0}")]
    Config(String),
    #[error("cannot read the NATS credentials at {path}")]
    Credentials {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no NATS server answered at {url} within {seconds} s")]
    Unreachable {
        url: String,
        seconds: u64,
        #[source]
        source: async_nats::ConnectError,
    },
}

pub(crate) struct Connections {
    pub(crate) publish: Client,
    /// Number of times the publishing connection was made. A server that came back may have lost its data.
    pub(crate) publish_made: watch::Receiver<u64>,
    pub(crate) consume: Client,
    /// Number of times the readers' connection was made. A server that came back may have lost their
    /// consumers.
    pub(crate) consume_made: watch::Receiver<u64>,
    /// Leases have their own connection: a long read or a full log must not delay a renewal.
    pub(crate) lease: Client,
    /// Publishing with the acknowledgement timeout.
    pub(crate) publish_js: Context,
    /// Reads and administration with the request timeout.
    pub(crate) consume_js: Context,
    /// Leases with the acknowledgement timeout.
    pub(crate) lease_js: Context,
}

impl Connections {
    /// Opens all connections and waits for a server until the configured deadline.
    pub(crate) async fn open(config: &BusConfig, name: &str) -> Result<Self, ConnectError> {
        let (publish, publish_made) = connect(config, name, "publish").await?;
        let (consume, consume_made) = connect(config, name, "consume").await?;
        let (lease, _) = connect(config, name, "lease").await?;
        Ok(Self {
            publish_js: context(config, &publish, config.ack_timeout()),
            consume_js: context(config, &consume, config.request_timeout()),
            lease_js: context(config, &lease, config.ack_timeout()),
            publish,
            publish_made,
            consume,
            consume_made,
            lease,
        })
    }

    /// Names the connection that is down, if any.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (client, role) in [
            (&self.publish, "publish"),
            (&self.consume, "consume"),
            (&self.lease, "lease"),
        ] {
            if client.connection_state() != async_nats::connection::State::Connected {
                return Err(format!("the {role} connection to NATS is down"));
            }
        }
        Ok(())
    }

    pub(crate) async fn close(&self) {
        for client in [&self.publish, &self.consume, &self.lease] {
            if let Err(error) = client.drain().await {
                tracing::debug!(%error, "a connection was already closed");
            }
        }
    }
}

fn context(config: &BusConfig, client: &Client, timeout: Duration) -> Context {
    ContextBuilder::new()
        .api_prefix(config.jetstream_prefix())
        .timeout(timeout)
        .max_ack_inflight(ACKS_IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(client.clone())
}

async fn connect(
    config: &BusConfig,
    name: &str,
    role: &'static str,
) -> Result<(Client, watch::Receiver<u64>), ConnectError> {
    let deadline = Instant::now() + Duration::from_secs(config.connect_deadline_seconds);
    let servers: Vec<&str> = config.url.split(',').map(str::trim).collect();
    let mut attempt = 0;
    loop {
        let (count, made) = watch::channel(0);
        let options = options(config, name, (role, count)).await?;
        let source = match options.connect(&servers[..]).await {
            Ok(client) => return Ok((client, made)),
            Err(source) => source,
        };
        if Instant::now() >= deadline {
            return Err(ConnectError::Unreachable {
                url: shown(&config.url),
                seconds: config.connect_deadline_seconds,
                source,
            });
        }
        if attempt == 0 {
            tracing::warn!(url = shown(&config.url), error = %source, "waiting for NATS");
        }
        attempt += 1;
        tokio::time::sleep(reconnect_pause(attempt)).await;
    }
}

async fn options(
    config: &BusConfig,
    name: &str,
    (role, made): (&'static str, watch::Sender<u64>),
) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(format!("{name}/{role}"))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .request_timeout(Some(config.request_timeout()))
        .event_callback(move |event| {
            observe(role, &event);
            if event == Event::Connected {
                made.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
    // A user with an account of its own is sent messages on inboxes of this name only.
    if let Some(user) = BusUser::of_client(name) {
        options = options.custom_inbox_prefix(user.inbox_prefix());
    }
    if let Some(path) = &config.credentials_file {
        options =
            options
                .credentials_file(path)
                .await
                .map_err(|source| ConnectError::Credentials {
                    path: path.display().to_string(),
                    source,
                })?;
    }
    if let Some(path) = &config.ca_file {
        options = options
            .add_root_certificates(path.clone())
            .require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
}

fn reconnect_pause(attempt: usize) -> Duration {
    let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
    Duration::from_millis(100)
        .saturating_mul(attempt)
        .min(RECONNECT_PAUSE_MAX)
}

fn observe(role: &'static str, event: &Event) {
    let name = match event {
        Event::Connected => "connected",
        Event::Disconnected => "disconnected",
        Event::LameDuckMode => "lame_duck",
        Event::Draining => "draining",
        Event::Closed => "closed",
        Event::SlowConsumer(_) => "slow_consumer",
        Event::ServerError(_) => "server_error",
        Event::ClientError(_) => "client_error",
    };
    metrics::counter!("nixfleet_bus_connection_events_total", "role" => role, "event" => name)
        .increment(1);
    match event {
        Event::Connected | Event::Draining | Event::Closed => {
            tracing::info!(role, %event, "NATS connection");
        }
        Event::Disconnected
        | Event::LameDuckMode
        | Event::SlowConsumer(_)
        | Event::ServerError(_)
        | Event::ClientError(_) => tracing::warn!(role, %event, "NATS connection"),
    }
}

/// The server URLs without user, password and token.
fn shown(urls: &str) -> String {
    let host = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.to_owned(),
    };
    let urls: Vec<String> = urls.split(',').map(|url| host(url.trim())).collect();
    urls.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_server_urls_have_no_secrets() {
        let urls = "nats://user:secret@one:4222, nats://token@two:4222,three:4222";
        assert_eq!(shown(urls), "nats://one:4222,nats://two:4222,three:4222");
    }
}
