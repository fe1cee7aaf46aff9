//! Timeouts of slow peers, which the HTTP library lacks.
//!
//! The library bounds the header of an HTTP/1.1 request and finds dead HTTP/2 peers. It waits for ever for
//! the first request of a connection, and for a peer that reads no answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the handshake to the first request.
    pub first_request: Duration,
    /// While an answer is in the socket and none of it is read.
    pub write: Duration,
}

/// Set when the first request of a connection arrived.
pub type FirstRequest = Arc<AtomicBool>;

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its peer takes too long.
#[derive(Debug)]
pub struct TimedStream<S> {
    inner: S,
    first_request: Option<(FirstRequest, Pin<Box<Sleep>>)>,
    write: Duration,
    /// Runs while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    is_stalled: bool,
}

impl<S> TimedStream<S> {
    /// The first request is waited for from now on.
    pub fn new(inner: S, timeouts: Timeouts) -> (Self, FirstRequest) {
        let arrived = FirstRequest::default();
        let deadline = Box::pin(sleep(timeouts.first_request));
        let stream = Self {
            inner,
            first_request: Some((Arc::clone(&arrived), deadline)),
            write: timeouts.write,
            stalled: None,
            is_stalled: false,
        };
        (stream, arrived)
    }

    fn check_first_request(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some((arrived, deadline)) = &mut self.first_request else {
            return Ok(());
        };
        if arrived.load(Ordering::Relaxed) {
            self.first_request = None;
            return Ok(());
        }
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Err(timed_out("no-request", "no request came")),
            Poll::Pending => Ok(()),
        }
    }

    /// Passes the result of a write on, unless there was no progress for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_stalled = false;
            return written;
        }
        let timer = match &mut self.stalled {
            Some(timer) => timer,
            none => none.insert(Box::pin(sleep(self.write))),
        };
        if !self.is_stalled {
            self.is_stalled = true;
            timer.as_mut().reset(Instant::now() + self.write);
        }
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("slow-reader", "no answer was read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(kind: &'static str, message: &'static str) -> io::Error {
    metrics::counter!("nixfleet_hostile_input_total", "kind" => kind).increment(1);
    io::Error::new(io::ErrorKind::TimedOut, message)
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_pending() {
            self.check_first_request(context)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        first_request: Duration::from_secs(10),
        write: Duration::from_secs(5),
    };

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_asks_is_given_up() {
        let (mut peer, stream) = duplex(64);
        let (mut stream, _arrived) = TimedStream::new(stream, TIMEOUTS);
        peer.write_all(b"PRI * HTTP").await.unwrap();
        let started = Instant::now();
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(bytes, b"PRI * HTTP");
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_arrived_may_wait() {
        let (mut peer, stream) = duplex(64);
        let (mut stream, arrived) = TimedStream::new(stream, TIMEOUTS);
        arrived.store(true, Ordering::Relaxed);
        let late = async {
            sleep(Duration::from_secs(1_000)).await;
            peer.write_all(b"x").await.unwrap();
            drop(peer);
        };
        let mut bytes = Vec::new();
        let (read, ()) = futures::join!(stream.read_to_end(&mut bytes), late);
        assert_eq!(read.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_served_and_one_that_stops_is_given_up() {
        let (mut peer, stream) = duplex(1);
        let (mut stream, _arrived) = TimedStream::new(stream, TIMEOUTS);
        let slow = async {
            for _ in 0..20 {
                sleep(Duration::from_secs(4)).await;
                peer.read_u8().await.unwrap();
            }
            peer
        };
        let (written, _peer) = futures::join!(stream.write_all(&[7; 20]), slow);
        written.unwrap();
        stream.write_all(&[7]).await.unwrap();
        let error = stream.write_all(&[7]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
