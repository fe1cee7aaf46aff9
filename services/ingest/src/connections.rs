//! The connections of the listener: how many there may be, and who is at the other end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::response::Response;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clients::{Clients, Seat};
use crate::config::Config;
use crate::gateway::{Answering, Gateway};
use crate::identity::Identity;
use crate::patience::{Asked, Patience, Patient};
use crate::peer::Peer;

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
    patience: Patience,
}

impl MutualTls {
    /// Connections beyond the bounds are closed: without a handshake when there are too many in all,
    /// after it when their owner has too many.
    pub fn new(server: RustlsConfig, config: &Config) -> Self {
        let seconds = Duration::from_secs;
        let handshake = seconds(config.tls.handshake_timeout_seconds);
        let limits = &config.limits;
        Self {
            inner: RustlsAcceptor::new(server).handshake_timeout(handshake),
            bounds: Arc::new(Bounds {
                connections: Arc::new(Semaphore::new(limits.connections)),
                anonymous: Arc::new(Semaphore::new(limits.connections_anonymous)),
                clients: Clients::new(limits),
                patience: Patience {
                    first_request: seconds(config.http.header_timeout_seconds),
                    write: seconds(config.http.write_timeout_seconds),
                },
            }),
        }
    }
}

impl Accept<TcpStream, Gateway> for MutualTls {
    type Stream = Patient<<RustlsAcceptor as Accept<TcpStream, Gateway>>::Stream>;
    type Service = Served;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, gateway: Gateway) -> Self::Future {
        let (tls, bounds) = (self.inner.clone(), Arc::clone(&self.bounds));
        Box::pin(async move {
            let permit = Arc::clone(&bounds.connections).try_acquire_owned();
            let permit = permit.map_err(|_| refused("all", "too many connections"))?;
            stream.set_nodelay(true)?;
            let (stream, gateway) = tls.accept(stream, gateway).await.inspect_err(|error| {
                let kind = handshake_fault(error);
                tracing::debug!(%error, kind, "TLS handshake failed");
                metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
            })?;
            let (peer, place) = bounds.seat(stream.get_ref().1.peer_certificates())?;
            let (stream, asked) = Patient::new(stream, bounds.patience);
            let connection = Connection {
                gateway,
                peer,
                asked,
                _open: OpenConnection::new(permit, place),
            };
            Ok((stream, Served(Arc::new(connection))))
        })
    }
}

impl Bounds {
    fn seat(&self, certificates: Option<&[CertificateDer<'_>]>) -> io::Result<(Peer, Place)> {
        let peer = match certificates.and_then(<[_]>::first) {
            None => Peer::Anonymous,
            Some(leaf) => match Identity::from_certificate(leaf) {
                Ok(identity) => {
                    let seat = self.clients.arrive(&identity);
                    let seat = seat.ok_or_else(|| refused("client", "too many of one client"))?;
                    let peer = Peer::Known(Arc::new(identity), Arc::clone(&seat.client));
                    return Ok((peer, Place::Known(seat)));
                }
                Err(error) => Peer::Unusable(error),
            },
        };
        let permit = Arc::clone(&self.anonymous).try_acquire_owned();
        let permit = permit.map_err(|_| refused("anonymous", "too many without a certificate"))?;
        Ok((peer, Place::Anonymous(permit)))
    }
}

fn refused(bound: &'static str, message: &'static str) -> io::Error {
    metrics::counter!("nixfleet_connections_refused_total", "bound" => bound).increment(1);
    io::Error::other(message)
}

/// What broke a handshake, for the metric.
fn handshake_fault(error: &io::Error) -> &'static str {
    use rustls::CertificateError as Fault;
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
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
        None => "tls-connection",
    }
}

/// What a connection takes of the room of its kind.
#[derive(Debug)]
enum Place {
    Anonymous(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
    Known(#[expect(dead_code, reason = "held, not read")] Seat),
}

/// Counts an open connection for as long as anything of it lives.
#[derive(Debug)]
struct OpenConnection {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl OpenConnection {
    fn new(permit: OwnedSemaphorePermit, place: Place) -> Self {
        metrics::gauge!("nixfleet_connections_open").increment(1.0);
        Self {
            _permit: permit,
            _place: place,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!("nixfleet_connections_open").decrement(1.0);
    }
}

/// The gateway as one peer is served by it; cloned for every request.
#[derive(Clone)]
pub struct Served(Arc<Connection>);

struct Connection {
    gateway: Gateway,
    peer: Peer,
    asked: Asked,
    _open: OpenConnection,
}

impl tower::Service<http::Request<Incoming>> for Served {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        let connection = &*self.0;
        connection.asked.store(true, Ordering::Relaxed);
        connection.gateway.answer(connection.peer.clone(), request)
    }
}
