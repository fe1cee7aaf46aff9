//! TCP proxy that can delay, hold or cut connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ports;

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Treatment of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Forwards all traffic.
    Pass,
    /// Forwards all traffic with a delay per chunk.
    Slow(Duration),
    /// Forwards requests and holds replies.
    HoldReplies,
    /// Keeps connections open without forwarding in either direction.
    Stalled,
    /// Closes connections, new ones too.
    Cut,
}

/// The two directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl ProxyMode {
    /// The delay of a chunk; `None` while it is held.
    fn pause(self, direction: Direction) -> Option<Duration> {
        match (self, direction) {
            (Self::Pass, _) | (Self::HoldReplies, Direction::ToServer) => Some(Duration::ZERO),
            (Self::Slow(pause), _) => Some(pause),
            (Self::HoldReplies, Direction::ToClient) | (Self::Stalled | Self::Cut, _) => None,
        }
    }
}

/// State that the connections of a proxy watch.
#[derive(Debug, Clone, Copy)]
struct State {
    mode: ProxyMode,
    /// Number of cuts: a cut may end before a connection observes its mode.
    cuts: u64,
}

/// A proxy in front of one server; connections end with it.
#[derive(Debug)]
pub struct Proxy {
    server: SocketAddr,
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port in front of `server`, which need not run yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(ports::local(0))
            .await
            .context("binding a proxy")?;
        let address = listener.local_addr()?;
        let (state, states) = watch::channel(State {
            mode: ProxyMode::Pass,
            cuts: 0,
        });
        Ok(Self {
            server,
            address,
            state,
            task: tokio::spawn(accept(listener, server, states)),
        })
    }

    /// Address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the address in a URL of the server by that of the proxy.
    pub fn proxied_url(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string())
    }

    /// Changes the mode for open and new connections.
    pub fn set(&self, mode: ProxyMode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.cuts += u64::from(mode == ProxyMode::Cut);
        });
    }

    /// Closes the open connections and drops their held bytes; new connections are forwarded.
    pub fn reconnect(&self) {
        self.set(ProxyMode::Cut);
        self.set(ProxyMode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, states: watch::Receiver<State>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let now = *states.borrow();
                if now.mode != ProxyMode::Cut {
                    open.spawn(forward(client, server, (states.clone(), now.cuts)));
                }
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// Carries one connection until either end or the proxy ends it.
async fn forward(
    client: TcpStream,
    server: SocketAddr,
    (state, cuts): (watch::Receiver<State>, u64),
) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    // Nagle delays of the proxy would resemble a slow server.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut cut = state.clone();
    tokio::select! {
        () = copy_direction(client_read, server_write, (state.clone(), Direction::ToServer)) => {}
        () = copy_direction(server_read, client_write, (state, Direction::ToClient)) => {}
        _ = cut.wait_for(|state| state.cuts > cuts) => {}
    }
}

async fn copy_direction(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (mut state, direction): (watch::Receiver<State>, Direction),
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let mut pause = Duration::ZERO;
        let passes = |state: &State| match state.mode.pause(direction) {
            Some(given) => {
                pause = given;
                true
            }
            None => false,
        };
        if state.wait_for(passes).await.is_err() {
            return;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Echoes all input.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(ports::local(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, word: &[u8; 4]) -> std::io::Result<[u8; 4]> {
        stream.write_all(word).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn traffic_is_forwarded_delayed_held_and_cut() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, b"pass").await.unwrap(), *b"pass");

        proxy.set(ProxyMode::Slow(Duration::from_millis(60)));
        let start = Instant::now();
        assert_eq!(ask(&mut stream, b"slow").await.unwrap(), *b"slow");
        assert!(start.elapsed() >= Duration::from_millis(120), "both ways");

        for mode in [ProxyMode::Stalled, ProxyMode::HoldReplies] {
            proxy.set(mode);
            let held = tokio::time::timeout(Duration::from_millis(100), ask(&mut stream, b"held"));
            assert!(held.await.is_err(), "{mode:?}");
            proxy.set(ProxyMode::Pass);
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"held", "nothing is lost by {mode:?}");
        }

        proxy.set(ProxyMode::Cut);
        assert!(ask(&mut stream, b"gone").await.is_err());
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(ask(&mut again, b"gone").await.is_err());
        proxy.set(ProxyMode::Pass);
        let mut back = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut back, b"back").await.unwrap(), *b"back");

        proxy.reconnect();
        assert!(ask(&mut back, b"gone").await.is_err());
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut again, b"once").await.unwrap(), *b"once");
    }

    #[test]
    fn urls_are_rewritten_to_the_proxy() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], 5432));
        let proxy = runtime.block_on(Proxy::start(server)).unwrap();
        let expected = format!("postgres://u:p@{}/db", proxy.address());
        assert_eq!(
            proxy.proxied_url("postgres://u:p@127.0.0.1:5432/db"),
            expected
        );
    }
}
