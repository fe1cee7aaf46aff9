//! Reading ahead: the next batch is made into something on another thread while the caller works on the
//! one before.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::message::Message;
use crate::reader::read_error::ReadError;
use crate::reader::stream_reader::Reader;

/// Batches below this size are not worth another thread.
const INLINE_BYTES: usize = 16 * 1024;

/// What becomes of a batch.
type Make<T> = Arc<dyn Fn(Vec<Message>) -> T + Send + Sync>;

/// A reader whose batches are decoded, or whatever else its user wants of them.
pub struct ReadAhead<T> {
    reader: Reader,
    max: usize,
    make: Make<T>,
    /// A batch that was read and is in the making.
    making: Option<JoinHandle<T>>,
    /// What [`ReadAhead::read_during`] read.
    ready: Option<Result<T, ReadError>>,
}

impl Reader {
    /// Makes each batch of at most `max` messages into something.
    pub fn read_ahead<T: Send + 'static>(
        self,
        max: usize,
        make: impl Fn(Vec<Message>) -> T + Send + Sync + 'static,
    ) -> ReadAhead<T> {
        ReadAhead {
            reader: self,
            max,
            make: Arc::new(make),
            making: None,
            ready: None,
        }
    }
}

impl<T: Send + 'static> ReadAhead<T> {
    /// Waits for the next batch and what is made of it. Dropping the future loses nothing: the next
    /// call goes on where it was.
    ///
    /// # Errors
    /// As [`Reader::next_batch`].
    ///
    /// # Panics
    /// When the making panics.
    pub async fn next(&mut self) -> Result<T, ReadError> {
        match self.ready.take() {
            Some(ready) => ready,
            None => self.read().await,
        }
    }

    /// Waits for some work, and reads the next batch meanwhile.
    pub async fn read_during<W>(&mut self, work: impl Future<Output = W>) -> W {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                read = self.read(), if self.ready.is_none() => self.ready = Some(read),
            }
        }
    }

    /// Takes what was read meanwhile, without waiting for more.
    pub fn take_ready(&mut self) -> Option<Result<T, ReadError>> {
        self.ready.take()
    }

    /// What was read meanwhile, and is not taken yet.
    pub fn ready(&self) -> Option<&T> {
        self.ready.as_ref().and_then(|ready| ready.as_ref().ok())
    }

    async fn read(&mut self) -> Result<T, ReadError> {
        let making = match &mut self.making {
            Some(making) => making,
            none => {
                let batch = self.reader.next_stored(self.max).await?;
                let bytes: usize = batch.iter().map(Message::json_bytes).sum();
                let make = Arc::clone(&self.make);
                let made = move || make(batch.into_iter().map(Message::decoded).collect());
                if bytes < INLINE_BYTES {
                    return Ok(made());
                }
                none.insert(spawn_blocking(made))
            }
        };
        let made = making.await;
        self.making = None;
        made.map_err(tokio::task::JoinError::into_panic)
            .or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// True when there is more to read already.
    pub fn is_behind(&self) -> bool {
        self.ready.is_some() || self.making.is_some() || self.pending() > 0
    }

    /// Messages that were waiting in the stream behind the last one read.
    pub fn pending(&self) -> u64 {
        self.reader.pending()
    }
}
