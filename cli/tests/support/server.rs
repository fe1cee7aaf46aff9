//! An HTTPS server that requires client certificates and sends prepared responses.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Received requests: request line and headers, and the body.
pub type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A server on a free port of this machine; its thread ends with the process.
pub struct Server {
    address: SocketAddr,
    asked: Asked,
}

impl Server {
    /// Serves with the certificates of `nixfleet certs`; each request gets the next response.
    pub fn start(certs: &Path, answers: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(config(certs));
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            while let Ok((stream, _)) = listener.accept() {
                serve(stream, Arc::clone(&config), &mut answers, &log);
            }
        });
        Self { address, asked }
    }

    /// Base URL of the server.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Received requests.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn config(certs: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(certs.join("ca.crt")).unwrap())
        .unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certs.join("server.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(certs.join("server.key")).unwrap(),
        )
        .unwrap()
}

/// Answers the requests of one connection; a failed handshake ends it.
fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answers: &mut impl Iterator<Item = (u16, String)>,
    log: &Asked,
) {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let Some(request) = read_request(&mut stream) else {
        return;
    };
    log.lock().unwrap().push(request);
    let (status, body) = answers.next().unwrap_or((500, "{}".to_owned()));
    let response = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let sent = stream.write_all(response.as_bytes()).and_then(|()| {
        stream.conn.send_close_notify();
        stream.flush()
    });
    sent.unwrap();
}

fn read_request(stream: &mut impl Read) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
            let length: usize = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse().unwrap());
            if bytes.len() >= head + 4 + length {
                let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
                let head = String::from_utf8_lossy(&bytes[..head]).into_owned();
                return Some((head, body));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
