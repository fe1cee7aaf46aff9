//! The connections of the listener: how many there may be, and who is at the other end.

pub mod client_limits;
pub mod peer;
mod slow_peer;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service as _;

use self::client_limits::{Clients, ConnectionSlot};
use self::peer::Peer;
use self::slow_peer::{FirstRequest, TimedStream, Timeouts};
use crate::access::identity::Identity;
use crate::config::{HttpConfig, LimitsConfig};
use crate::tls::TlsConfig;

/// A service that learns who asks.
pub trait Gateway: Clone + Send + Sync + 'static {
    /// The answer to a request.
    type Answering: Future<Output = Result<Response, Infallible>> + Send + 'static;

    /// Answers a request of a peer.
    fn answer(&self, peer: Peer, request: http::Request<Incoming>) -> Self::Answering;
}

/// A router as a gateway: its middleware finds the [`Peer`] in the extensions of the request.
#[derive(Clone)]
pub struct RouterGateway(pub Router);

impl Gateway for RouterGateway {
    type Answering = RouteFuture<Infallible>;

    fn answer(&self, peer: Peer, request: http::Request<Incoming>) -> Self::Answering {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        self.0.clone().call(request)
    }
}

/// The gateway before a connection tells who asks: every client is unidentified.
#[derive(Clone)]
pub struct Unidentified<G>(pub G);

impl<G: Gateway> tower::Service<http::Request<Incoming>> for Unidentified<G> {
    type Response = Response;
    type Error = Infallible;
    type Future = G::Answering;

    fn poll_ready(&mut self, _context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        self.0.answer(Peer::Anonymous, request)
    }
}

/// Accepts TLS connections within bounds, and reads the peer's certificate once per connection.
#[derive(Clone)]
pub struct MutualTls {
    inner: RustlsAcceptor,
    bounds: Arc<Bounds>,
}

struct Bounds {
    connections: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    clients: Arc<Clients>,
    timeouts: Timeouts,
}

impl MutualTls {
    /// Connections beyond the bounds are closed: without a handshake when there are too many in all,
    /// after it when their owner has too many.
    pub fn new(
        server: RustlsConfig,
        (tls, http, limits): (&TlsConfig, &HttpConfig, &LimitsConfig),
    ) -> Self {
        let seconds = Duration::from_secs;
        let handshake = seconds(tls.handshake_timeout_seconds);
        Self {
            inner: RustlsAcceptor::new(server).handshake_timeout(handshake),
            bounds: Arc::new(Bounds {
                connections: Arc::new(Semaphore::new(limits.connections)),
                anonymous: Arc::new(Semaphore::new(limits.connections_anonymous)),
                clients: Clients::new(limits),
                timeouts: Timeouts {
                    first_request: seconds(http.header_timeout_seconds),
                    write: seconds(http.write_timeout_seconds),
                },
            }),
        }
    }
}

impl<G: Gateway> Accept<TcpStream, Unidentified<G>> for MutualTls {
    type Stream = TimedStream<<RustlsAcceptor as Accept<TcpStream, Unidentified<G>>>::Stream>;
    type Service = Identified<G>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, gateway: Unidentified<G>) -> Self::Future {
        let (tls, bounds) = (self.inner.clone(), Arc::clone(&self.bounds));
        Box::pin(async move {
            let permit = Arc::clone(&bounds.connections).try_acquire_owned();
            let permit = permit.map_err(|_| refused("all", "too many connections"))?;
            stream.set_nodelay(true)?;
            let (stream, gateway) = tls.accept(stream, gateway).await.inspect_err(|error| {
                let kind = handshake_fault(error);
                tracing::debug!(%error, kind, "TLS handshake failed");
                if let Some(kind) = kind {
                    metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
                }
            })?;
            let (peer, slot) = bounds.admit(stream.get_ref().1.peer_certificates())?;
            let (stream, first_request) = TimedStream::new(stream, bounds.timeouts);
            let connection = Connection {
                gateway: gateway.0,
                peer,
                first_request,
                _open: OpenConnection::new(permit, slot),
            };
            Ok((stream, Identified(Arc::new(connection))))
        })
    }
}

impl Bounds {
    fn admit(&self, certificates: Option<&[CertificateDer<'_>]>) -> io::Result<(Peer, Slot)> {
        let peer = match certificates.and_then(<[_]>::first) {
            None => Peer::Anonymous,
            Some(leaf) => match Identity::from_certificate(leaf) {
                Ok(identity) => {
                    let slot = self.clients.connect(&identity);
                    let slot = slot.ok_or_else(|| refused("client", "too many of one client"))?;
                    let peer = Peer::Known(Arc::new(identity), Arc::clone(&slot.client));
                    return Ok((peer, Slot::Known(slot)));
                }
                Err(error) => Peer::Unusable(error),
            },
        };
        let permit = Arc::clone(&self.anonymous).try_acquire_owned();
        let permit = permit.map_err(|_| refused("anonymous", "too many without a certificate"))?;
        Ok((peer, Slot::Anonymous(permit)))
    }
}

fn refused(bound: &'static str, message: &'static str) -> io::Error {
    metrics::counter!("nixfleet_connections_refused_total", "bound" => bound).increment(1);
    io::Error::other(message)
}

/// What broke a handshake, for the metric; nothing when the peer left, as health checks of load balancers do.
fn handshake_fault(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError as Fault;
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let kind = match tls {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            if matches!(fault, Fault::Expired | Fault::ExpiredContext { .. }) {
                "client-certificate-expired"
            } else if matches!(fault, Fault::UnknownIssuer) {
                "client-certificate-foreign"
            } else {
                "client-certificate-invalid"
            }
        }
        Some(_) => "tls-handshake",
        None => {
            let left = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
            if left.contains(&error.kind()) {
                return None;
            }
            "tls-connection"
        }
    };
    Some(kind)
}

/// The share of its kind's bound that a connection holds.
#[derive(Debug)]
enum Slot {
    Anonymous(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
    Known(#[expect(dead_code, reason = "held, not read")] ConnectionSlot),
}

/// Counts an open connection for as long as anything of it lives.
#[derive(Debug)]
struct OpenConnection {
    _permit: OwnedSemaphorePermit,
    _slot: Slot,
}

impl OpenConnection {
    fn new(permit: OwnedSemaphorePermit, slot: Slot) -> Self {
        metrics::gauge!("nixfleet_connections_open").increment(1.0);
        Self {
            _permit: permit,
            _slot: slot,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!("nixfleet_connections_open").decrement(1.0);
    }
}

/// The gateway for the peer of one connection; cloned for every request.
pub struct Identified<G>(Arc<Connection<G>>);

struct Connection<G> {
    gateway: G,
    peer: Peer,
    first_request: FirstRequest,
    _open: OpenConnection,
}

impl<G> Clone for Identified<G> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<G: Gateway> tower::Service<http::Request<Incoming>> for Identified<G> {
    type Response = Response;
    type Error = Infallible;
    type Future = G::Answering;

    fn poll_ready(&mut self, _context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let connection = &*self.0;
        connection.first_request.store(true, Ordering::Relaxed);
        connection.gateway.answer(connection.peer.clone(), request)
    }
}
