//! A TLS connection without an HTTP library, for what no library would send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::gateways::gateway_process::{Gateway, SOON};
use super::super::gateways::test_authority::{Issued, Validity};

/// An open connection.
pub struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    /// Connects as an agent that speaks HTTP/1.1.
    pub async fn agent(gateway: &Gateway, host: &str) -> Self {
        let name = format!("agent-{host}.fleet.test");
        let issued = gateway.authority.client(&name, None, Validity::Now);
        Self::open(gateway, Some(&issued), b"http/1.1")
            .await
            .unwrap()
    }

    /// Connects with this certificate, or with none.
    pub async fn open(
        gateway: &Gateway,
        issued: Option<&Issued>,
        protocol: &[u8],
    ) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", gateway.port())).await?;
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(gateway.authority.pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match issued {
            None => config.with_no_client_auth(),
            Some(Issued { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await?;
        Ok(Self { stream })
    }

    /// Sends bytes; false when the peer has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = self.stream.write_all(bytes).await;
        sent.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Reads the head of an answer and as much of its body as it declares, or what came before the
    /// peer closed.
    pub async fn answer(&mut self) -> String {
        // Longer than the gateway waits for anything.
        let answer = tokio::time::timeout(SOON * 2, self.read()).await;
        answer.expect("an answer or the end of the connection")
    }

    async fn read(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.trim().parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    return text.into_owned();
                }
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await.unwrap_or(0);
            if read == 0 {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            bytes.extend_from_slice(&chunk[..read]);
        }
    }

    /// Waits until the peer closes, for half a minute at most, and says how long that took.
    pub async fn closed(&mut self) -> Duration {
        let started = Instant::now();
        let mut bytes = Vec::new();
        let read = self.stream.read_to_end(&mut bytes);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        assert!(read.is_ok(), "the connection is still open");
        started.elapsed()
    }

    /// Sends the bytes of `text` one by one until the peer closes or all are sent.
    pub async fn drip(&mut self, text: &str, pause: Duration) -> bool {
        let mut tick = tokio::time::interval(pause);
        for byte in text.bytes() {
            tick.tick().await;
            if !self.send(&[byte]).await {
                return false;
            }
        }
        true
    }
}
