//! The TLS listener of a gateway, from the bound socket to the last answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use nixfleet_bus::Bus;
use nixfleet_service::{CancellationToken, Context};
use tokio::net::TcpListener;

use crate::access::Access;
use crate::access::revocations::{PART, Source};
use crate::config::{HttpConfig, LimitsConfig, TrustConfig};
use crate::connections::{Gateway, MutualTls, Unidentified};
use crate::tls::{self, TlsConfig};

/// Share of the drain that open requests get before their connections are closed; the rest is for
/// appends that still wait for their acknowledgement.
const DRAIN_SHARE: f64 = 0.6;

/// A bound socket and the certificates it serves with.
pub struct Listener {
    socket: TcpListener,
    certificates: RustlsConfig,
    tls: TlsConfig,
    http: HttpConfig,
    limits: LimitsConfig,
}

/// What is kept current while a gateway runs.
pub struct Reloads<'a> {
    /// The checks that use it.
    pub access: &'a Arc<Access>,
    /// The files.
    pub trust: &'a TrustConfig,
    /// Keeps the time of the newest list of revocations.
    pub bus: &'a Bus,
    /// The gateway's name: each has a list of its own.
    pub service: &'static str,
    /// Ends it.
    pub stop: &'a CancellationToken,
}

impl Listener {
    /// Reads the certificates and binds the address.
    ///
    /// # Errors
    /// Names the file or the address that cannot be used.
    pub async fn bind(
        tls: &TlsConfig,
        http: &HttpConfig,
        limits: &LimitsConfig,
    ) -> anyhow::Result<Self> {
        let certificates = RustlsConfig::from_config(tls::load(tls)?);
        let socket = TcpListener::bind(http.listen)
            .await
            .with_context(|| format!("binding to {}", http.listen))?;
        Ok(Self {
            socket,
            certificates,
            tls: tls.clone(),
            http: http.clone(),
            limits: limits.clone(),
        })
    }

    /// Starts the tasks that keep certificates and revocations current until `stop`. From here on a configured
    /// list of revocations that is not read yet refuses everyone.
    pub fn spawn_reloads<C>(&self, context: &Context<C>, reloads: Reloads<'_>) {
        let Reloads {
            access,
            trust,
            bus,
            service,
            stop,
        } = reloads;
        let reload = tls::reload(self.tls.clone(), self.certificates.clone(), stop.clone());
        context.tasks.spawn("tls", async {
            reload.await;
            Ok(())
        });
        if let Some(source) = Source::new(trust) {
            let (access, readiness, stop) =
                (Arc::clone(access), context.readiness.clone(), stop.clone());
            let every = Duration::from_secs(trust.revocations_seconds);
            readiness.expect(&[PART]);
            access.revoked.expect();
            let bus = bus.clone();
            context.tasks.spawn("revocations", async move {
                let reading = (every, readiness);
                let revoked = &access.revoked;
                source.follow(revoked, (bus, service), reading, stop).await;
                Ok(())
            });
        }
    }

    /// Serves until the shutdown, then lets open requests finish within their share of `drain`.
    pub async fn serve<G: Gateway>(
        self,
        gateway: G,
        drain: Duration,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let address = self.socket.local_addr().context("reading the address")?;
        let (http, limits) = (&self.http, &self.limits);
        let acceptor = MutualTls::new(self.certificates, (&self.tls, http, limits));
        let handle = Handle::<std::net::SocketAddr>::new();
        let mut server = Server::from_listener(self.socket)
            .acceptor(acceptor)
            .handle(handle.clone());
        let keep_alive = Duration::from_secs(http.keep_alive_seconds);
        let builder = server.http_builder();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(http.header_timeout_seconds))
            .max_buf_size(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(keep_alive)
            .max_concurrent_streams(limits.streams_per_connection)
            .initial_connection_window_size(limits.http2_window_bytes)
            .initial_stream_window_size(limits.http2_window_bytes)
            .max_header_list_size(limits.header_bytes);
        tracing::info!(%address, "listening");
        let served = server.serve(tower::service_fn(move |_address| {
            std::future::ready(Ok::<_, Infallible>(Unidentified(gateway.clone())))
        }));
        tokio::pin!(served);
        tokio::select! {
            served = &mut served => return served.context("serving"),
            () = shutdown.cancelled() => {
                handle.graceful_shutdown(Some(drain.mul_f64(DRAIN_SHARE)));
            }
        }
        served.await.context("serving")
    }
}
