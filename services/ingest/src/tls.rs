//! TLS with client certificates: the server's files, the listener's acceptor, and who the peer is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use rustls::ServerConfig;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::identity::{Identity, IdentityError};

/// Sessions kept for resumption: a fleet that reconnects after a restart of the network need not
/// repeat full handshakes. About 1 KiB each.
const RESUMABLE_SESSIONS: usize = 32 * 1024;

/// Certificate files of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsConfig {
    /// Certificate chain of the server, PEM, leaf first.
    pub cert_file: PathBuf,
    /// Private key of the server, PEM; readable by its owner only.
    pub key_file: PathBuf,
    /// Authorities whose client certificates are accepted, PEM.
    pub client_ca_file: PathBuf,
    /// Longest handshake: a peer that does not finish one holds a connection of the bound.
    pub handshake_timeout_seconds: u64,
    /// How often the files are looked at for a renewed certificate.
    pub reload_seconds: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            cert_file: "/etc/nixfleet/tls/server.pem".into(),
            key_file: "/etc/nixfleet/tls/server-key.pem".into(),
            client_ca_file: "/etc/nixfleet/tls/client-ca.pem".into(),
            handshake_timeout_seconds: 10,
            reload_seconds: 60,
        }
    }
}

/// Reads the files and builds what the listener needs.
///
/// A missing client certificate is let through to be answered with a 401 that says so; a certificate
/// that does not verify ends the handshake.
///
/// # Errors
/// Names the file that is missing, unreadable, open to others, or does not hold what it should.
pub fn load(config: &TlsConfig) -> anyhow::Result<Arc<ServerConfig>> {
    check_private(&config.key_file)?;
    let chain = read_certificates(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .with_context(|| format!("reading the key {}", config.key_file.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for authority in read_certificates(&config.client_ca_file)? {
        roots
            .add(authority)
            .with_context(|| format!("using {}", config.client_ca_file.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .context("building the client certificate check")?;
    let mut server = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .with_context(|| format!("using {}", config.cert_file.display()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS);
    Ok(Arc::new(server))
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let reading = || format!("reading certificates from {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .with_context(reading)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(reading)?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "{} holds no certificate",
        path.display()
    );
    Ok(certificates)
}

/// A private key that others may read is no secret any more.
///
/// # Errors
/// When group or others have any permission on the file, or it cannot be read.
pub fn check_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata =
        std::fs::metadata(path).with_context(|| format!("reading the key {}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    // Group read is how key files are handed to service accounts; nothing beyond it is needed.
    anyhow::ensure!(
        mode & 0o037 == 0,
        "the key {} has mode {mode:03o}; group may read it at most, others nothing",
        path.display()
    );
    Ok(())
}

/// Swaps a renewed certificate in, until cancelled; open connections keep the old one.
pub async fn reload(
    config: TlsConfig,
    current: RustlsConfig,
    stop: nixfleet_service::CancellationToken,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(config.reload_seconds));
    let mut loaded = modified(&config);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let found = modified(&config);
        if found == loaded {
            continue;
        }
        match load(&config) {
            Ok(server) => {
                current.reload_from_config(server);
                loaded = found;
                tracing::info!("TLS files reloaded");
            }
            // Files may be half written; the next look decides.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "TLS files not reloaded"),
        }
    }
}

fn modified(config: &TlsConfig) -> [Option<std::time::SystemTime>; 3] {
    [&config.cert_file, &config.key_file, &config.client_ca_file].map(|path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    })
}

/// Who is at the other end of a connection; part of every request on it.
#[derive(Debug, Clone)]
pub enum Peer {
    /// No certificate was presented.
    Anonymous,
    /// A verified certificate that names nobody.
    Unusable(IdentityError),
    /// A verified certificate.
    Known(Arc<Identity>),
}

impl Peer {
    fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        match certificates.and_then(<[_]>::first) {
            None => Self::Anonymous,
            Some(leaf) => match Identity::from_certificate(leaf) {
                Ok(identity) => Self::Known(Arc::new(identity)),
                Err(error) => Self::Unusable(error),
            },
        }
    }
}

/// Accepts TLS connections within a bound, and reads the peer's certificate once per connection.
#[derive(Clone)]
pub struct MutualTls {
    inner: RustlsAcceptor,
    connections: Arc<Semaphore>,
}

impl MutualTls {
    /// At most `connections` at once; further ones are closed without a handshake.
    pub fn new(server: RustlsConfig, handshake: Duration, connections: usize) -> Self {
        Self {
            inner: RustlsAcceptor::new(server).handshake_timeout(handshake),
            connections: Arc::new(Semaphore::new(connections)),
        }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for MutualTls {
    type Stream = <RustlsAcceptor as Accept<TcpStream, S>>::Stream;
    type Service = WithPeer<S>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (inner, connections) = (self.inner.clone(), Arc::clone(&self.connections));
        Box::pin(async move {
            let Ok(permit) = connections.try_acquire_owned() else {
                metrics::counter!("nixfleet_connections_refused_total").increment(1);
                return Err(io::Error::other("too many connections"));
            };
            stream.set_nodelay(true)?;
            let (stream, inner) = inner.accept(stream, service).await.inspect_err(|error| {
                let kind = handshake_fault(error);
                tracing::debug!(%error, kind, "TLS handshake failed");
                metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
            })?;
            let peer = Peer::of(stream.get_ref().1.peer_certificates());
            let open = Arc::new(OpenConnection::new(permit));
            Ok((
                stream,
                WithPeer {
                    inner,
                    peer,
                    _open: open,
                },
            ))
        })
    }
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

/// Counts an open connection for as long as anything of it lives.
#[derive(Debug)]
struct OpenConnection {
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("nixfleet_connections_open").increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!("nixfleet_connections_open").decrement(1.0);
    }
}

/// Puts the peer into every request of a connection.
#[derive(Debug, Clone)]
pub struct WithPeer<S> {
    inner: S,
    peer: Peer,
    _open: Arc<OpenConnection>,
}

impl<S, B> tower::Service<http::Request<B>> for WithPeer<S>
where
    S: tower::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "key").unwrap();
        let check = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            check_private(&path).is_ok()
        };
        assert!(check(0o600));
        assert!(check(0o400));
        assert!(check(0o640));
        for mode in [0o644, 0o660, 0o604, 0o601, 0o777] {
            assert!(!check(mode), "{mode:o}");
        }
        assert!(check_private(&dir.path().join("absent")).is_err());
    }
}
