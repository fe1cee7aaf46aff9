//! Plain HTTP GET requests to the monitoring and health listeners on the loopback address.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use serde::Deserialize;

use crate::ports;

/// Timeout of a connection, a read or a write.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest response read; monitors send a few kilobytes, metrics some hundred.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// Status and body of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// Sends `GET http://127.0.0.1:port/path`.
///
/// HTTP/1.0, so the response ends with the connection and is never chunked.
///
/// # Errors
/// When no response arrives in time or the response is not HTTP.
pub fn get(port: u16, path: &str) -> Result<HttpResponse> {
    let mut stream = TcpStream::connect_timeout(&ports::local(port), TIMEOUT)
        .with_context(|| format!("connecting to port {port}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_RESPONSE_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {path} from port {port}"))?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("{path} on port {port}"))
}

/// State of a stream, as nats-server reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// Messages that it holds.
    pub messages: u64,
    /// Bytes of them, as its limit counts them.
    pub bytes: u64,
    /// Sequence of the first one; one above the last when it holds none.
    pub first_seq: u64,
    /// Sequence of the newest message, even if it was deleted.
    pub last_seq: u64,
}

#[derive(Deserialize)]
struct Accounts {
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    state: StreamState,
}

/// The streams of a nats-server by name, buckets and object stores included, from its monitor.
///
/// # Errors
/// When the monitor is unreachable.
pub fn nats_streams(port: u16) -> Result<BTreeMap<String, StreamState>> {
    let answer = get(port, "/jsz?streams=true")?;
    let accounts: Accounts =
        serde_json::from_str(&answer.body).context("reading /jsz of nats-server")?;
    let accounts = accounts.account_details.into_iter();
    let streams = accounts.flat_map(|account| account.stream_detail);
    Ok(streams.map(|stream| (stream.name, stream.state)).collect())
}

fn parse(text: &str) -> Result<HttpResponse> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the response is not HTTP")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("the response has no status")?;
    Ok(HttpResponse {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let answer = parse("HTTP/1.1 503 Busy\r\nA: b\r\n\r\nnot yet\r\n").unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, "not yet\r\n");
        assert!(parse("SSH-2.0").is_err());
    }
}
