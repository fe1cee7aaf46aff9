//! A way to the server that can fall silent or break, to lose acknowledgements on purpose.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// The server hears the client, the client hears nothing.
    Deaf,
    /// Nothing passes either way, connections stay open.
    Stall,
    /// Connections end and new ones are refused.
    Cut,
}

/// A proxy in front of one server.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Publish acknowledgements that did not pass.
    acks_held_up: Arc<watch::Sender<usize>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens in front of `nats://host:port`.
    pub async fn start(url: &str) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, _) = watch::channel(Mode::Pass);
        let modes = mode.clone();
        let acks_held_up = Arc::new(watch::Sender::new(0));
        let acks = Arc::clone(&acks_held_up);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                let acks = Arc::clone(&acks);
                tokio::spawn(join(client, server, modes.subscribe(), acks));
            }
        });
        Self {
            address,
            mode,
            acks_held_up,
            task,
        }
    }

    /// `nats://…` of the proxy.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Waits until another publish acknowledgement is held up.
    pub async fn holds_up_an_ack(&self) {
        let mut acks = self.acks_held_up.subscribe();
        let more = *acks.borrow_and_update() + 1;
        acks.wait_for(|count| *count >= more).await.unwrap();
    }

    /// Changes what happens to traffic.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.task.abort();
    }
}

async fn join(
    client: TcpStream,
    server: TcpStream,
    mut mode: watch::Receiver<Mode>,
    acks: Arc<watch::Sender<usize>>,
) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (requests, answers) = (mode.clone(), mode.clone());
    tokio::select! {
        () = pump(client_read, server_write, requests, |mode, _| mode == Mode::Stall) => {}
        () = pump(server_read, client_write, answers, |mode, answer| {
            let is_held_up = matches!(mode, Mode::Stall | Mode::Deaf);
            if is_held_up && answer.windows(6).any(|text| text == b"\"seq\":") {
                acks.send_modify(|count| *count += 1);
            }
            is_held_up
        }) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    holds_up: impl Fn(Mode, &[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let passes = |mode: &Mode| !holds_up(*mode, &buffer[..read]);
        if mode.wait_for(passes).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
