//! The plain HTTP listener for probes and metrics, separate from the listener of the service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Faults;
use crate::readiness::Readiness;

/// Interval at which histograms are aggregated, so that memory does not grow between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Configuration of the admin listener and of the shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminConfig {
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seconds in which the process must stop after the first signal.
    pub drain_seconds: u64,
}

impl AdminConfig {
    /// The loopback interface on this port: health and metrics are for neighbours whom the configuration names. And 25 s to stop: less than the 30 s after which supervisors kill.
    pub fn on_port(port: u16) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            drain_seconds: 25,
        }
    }

    /// Adds the faults of this section, whose dotted key is `section`.
    pub fn validate(&self, section: &str, faults: &mut Faults) {
        let key = format!("{section}.drain_seconds");
        faults.require_range(&key, self.drain_seconds, 1..=600);
    }
}

#[derive(Clone)]
struct Admin {
    version: &'static str,
    started: Instant,
    readiness: Readiness,
    metrics: PrometheusHandle,
}

/// A bound listener that is not served yet.
pub(crate) struct Listener {
    listener: TcpListener,
    state: Admin,
}

pub(crate) async fn bind(
    config: &AdminConfig,
    version: &'static str,
    readiness: Readiness,
    metrics: PrometheusHandle,
) -> anyhow::Result<Listener> {
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("binding the health listener to {}", config.listen))?;
    let address = listener.local_addr().context("reading the bound address")?;
    tracing::info!(%address, "health and metrics listener");
    let state = Admin {
        version,
        started: Instant::now(),
        readiness,
        metrics,
    };
    Ok(Listener { listener, state })
}

impl Listener {
    /// Serves until `stop`, which is cancelled after the work has drained: probes must see a stopping
    /// process as alive.
    pub(crate) async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let metrics = self.state.metrics.clone();
        let server = axum::serve(self.listener, router(self.state))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let upkeep = async {
            let mut tick = tokio::time::interval(UPKEEP);
            loop {
                tick.tick().await;
                metrics.run_upkeep();
            }
        };
        tokio::select! {
            served = server => served.context("serving health and metrics"),
            () = upkeep => Ok(()),
        }
    }
}

fn router(state: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

async fn healthz(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "ok": true,
        "version": admin.version,
        "uptimeSeconds": admin.started.elapsed().as_secs(),
    }))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        admin.metrics.render(),
    )
        .into_response()
}
