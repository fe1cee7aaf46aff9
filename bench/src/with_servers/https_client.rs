//! HTTPS clients with certificates: hyper on rustls, one connection each.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use nixfleet_harness::pki::Pair;
use nixfleet_proto::wire::{PROTOCOL_HEADER, PROTOCOL_VERSION};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection, for one request at a time.
pub type Sender = SendRequest<Full<Bytes>>;

/// Connects with a certificate.
pub async fn open(address: SocketAddr, authority: &Pair, identity: &Pair) -> Result<Sender> {
    let tls = TlsConnector::from(Arc::new(tls(authority, identity)?));
    let stream = TcpStream::connect(address).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let stream = tls.connect(name, stream).await.context("shaking hands")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // A connection that breaks fails the request that is open on it.
    tokio::spawn(connection);
    Ok(sender)
}

fn tls(authority: &Pair, identity: &Pair) -> Result<rustls::ClientConfig> {
    nixfleet_harness::operator::install_tls();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.cert)?)?;
    let chain = vec![CertificateDer::from_pem_file(&identity.cert)?];
    let key = PrivateKeyDer::from_pem_file(&identity.key)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(config.with_client_auth_cert(chain, key)?)
}

/// A request with a JSON body, or with none.
pub fn json(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
        .body(Full::new(body))?)
}

/// Sends a request and reads the whole response.
pub async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes)> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, body))
}

/// Pushes an encoded release, and waits for the response without a timeout.
pub async fn publish(operator: &mut Sender, upload: Bytes) -> Result<()> {
    let request = json(Method::PUT, "/v1/manifests", upload)?;
    let (status, body) = exchange(operator, request).await?;
    ensure!(
        status == StatusCode::OK,
        "a release got {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}
