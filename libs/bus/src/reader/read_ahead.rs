//! Reading ahead: another thread converts the next batch while the caller works on the current one.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::message::Message;
use crate::reader::read_error::ReadError;
use crate::reader::stream_reader::Reader;

/// Smaller batches are converted on the calling thread.
const INLINE_BYTES: usize = 16 * 1024;

type Convert<T> = Arc<dyn Fn(Vec<Message>) -> T + Send + Sync>;

/// A reader that decodes or otherwise converts its batches.
pub struct ReadAhead<T> {
    reader: Reader,
    max: usize,
    convert: Convert<T>,
    converting: Option<JoinHandle<T>>,
    ready: Option<Result<T, ReadError>>,
}

impl Reader {
    /// Converts each batch of at most `max` messages with `convert`.
    pub fn read_ahead<T: Send + 'static>(
        self,
        max: usize,
        convert: impl Fn(Vec<Message>) -> T + Send + Sync + 'static,
    ) -> ReadAhead<T> {
        ReadAhead {
            reader: self,
            max,
            convert: Arc::new(convert),
            converting: None,
            ready: None,
        }
    }
}

impl<T: Send + 'static> ReadAhead<T> {
    /// Waits for the next converted batch. Dropping the future loses nothing: the next call continues.
    ///
    /// # Panics
    /// When the conversion panics.
    pub async fn next(&mut self) -> Result<T, ReadError> {
        match self.ready.take() {
            Some(ready) => ready,
            None => self.read().await,
        }
    }

    /// Runs `work` to its end and reads the next batch at the same time.
    pub async fn read_during<W>(&mut self, work: impl Future<Output = W>) -> W {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                read = self.read(), if self.ready.is_none() => self.ready = Some(read),
            }
        }
    }

    /// Takes the batch that was read ahead, without waiting for one.
    pub fn take_ready(&mut self) -> Option<Result<T, ReadError>> {
        self.ready.take()
    }

    /// The batch that was read ahead and is not taken yet.
    pub fn ready(&self) -> Option<&T> {
        self.ready.as_ref().and_then(|ready| ready.as_ref().ok())
    }

    async fn read(&mut self) -> Result<T, ReadError> {
        let converting = match &mut self.converting {
            Some(converting) => converting,
            none => {
                let batch = self.reader.next_stored(self.max).await?;
                let bytes: usize = batch.iter().map(Message::json_bytes).sum();
                let convert = Arc::clone(&self.convert);
                let converted = move || convert(batch.into_iter().map(Message::decoded).collect());
                if bytes < INLINE_BYTES {
                    return Ok(converted());
                }
                none.insert(spawn_blocking(converted))
            }
        };
        let converted = converting.await;
        self.converting = None;
        converted
            .map_err(tokio::task::JoinError::into_panic)
            .or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// True when more messages are ready or waiting.
    pub fn is_behind(&self) -> bool {
        self.ready.is_some() || self.converting.is_some() || self.pending() > 0
    }

    /// Messages that waited in the stream behind the last one read.
    pub fn pending(&self) -> u64 {
        self.reader.pending()
    }
}
