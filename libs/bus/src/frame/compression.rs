//! The stored form of frames: JSON compressed behind a label of one byte, or plain JSON where compression
//! does not make it smaller.
//!
//! Source: docs/wire-protocol.md, stored form; docs/adr/0012-frames-are-compressed.md.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{self, Cursor};
use std::ops::RangeInclusive;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use crate::frame::decode_error::DecodeError;

/// Sample JSON that writers and readers share. Another dictionary needs another label.
const DICTIONARY: &[u8] = include_bytes!("compression/dictionary-1.json");

/// Compression level of writers, see docs/bench/README.md; readers accept every level.
const LEVEL: i32 = 1;
/// Compression level of small frames, which are written when the load is low.
const SMALL_LEVEL: i32 = 6;
/// Largest JSON that counts as small.
const SMALL_BYTES: usize = 4 * 1024;

/// Label of one zstd frame that was compressed with [`DICTIONARY`].
const ZSTD_DICTIONARY_1: u8 = 0x81;

/// First bytes that are labels. No UTF-8 text, and therefore no JSON, begins with one.
const LABELS: RangeInclusive<u8> = 0x80..=0xbf;

thread_local! {
    // Creating a context costs more than compressing a frame of one entry with it.
    static ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static SMALL_ENCODER: RefCell<Option<Encoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A compressor of one level.
pub struct Encoder {
    context: Compressor<'static>,
}

impl Encoder {
    /// An encoder with a zstd level: negative levels are faster, higher ones compress better.
    ///
    /// # Errors
    /// When memory is exhausted.
    pub fn new(level: i32) -> io::Result<Self> {
        let context = Compressor::with_dictionary(level, DICTIONARY)?;
        Ok(Self { context })
    }

    /// The stored form of a frame's JSON.
    pub fn encode(&mut self, json: &Bytes) -> Bytes {
        let mut stored = Vec::with_capacity(json.len().max(1));
        stored.push(ZSTD_DICTIONARY_1);
        let mut stored = Cursor::new(stored);
        stored.set_position(1);
        // A result that is not smaller does not fit into the buffer, which the library reports as an error.
        match self.context.compress_to_buffer(json, &mut stored) {
            Ok(bytes) if bytes + 1 < json.len() => Bytes::from(stored.into_inner()),
            Ok(_) | Err(_) => json.clone(),
        }
    }
}

/// Like [`Encoder::encode`], with the level of this release for the size and the encoder of the current
/// thread.
pub fn encode(json: &Bytes) -> Bytes {
    let (kept, level) = if json.len() <= SMALL_BYTES {
        (&SMALL_ENCODER, SMALL_LEVEL)
    } else {
        (&ENCODER, LEVEL)
    };
    kept.with_borrow_mut(|kept| {
        let encoder = match kept.take() {
            Some(encoder) => Ok(encoder),
            None => Encoder::new(level),
        };
        match encoder {
            Ok(encoder) => kept.insert(encoder).encode(json),
            // Readers accept plain JSON as well.
            Err(_) => json.clone(),
        }
    })
}

/// The JSON of a stored payload: the payload itself when it has no label, otherwise at most `max`
/// decompressed bytes.
///
/// # Errors
/// [`DecodeError`]; the JSON itself is not validated.
pub fn decode(stored: &[u8], max: usize) -> Result<Cow<'_, [u8]>, DecodeError> {
    match compressed(stored)? {
        Some(frame) => decompress(frame, max).map(Cow::Owned),
        None => Ok(Cow::Borrowed(stored)),
    }
}

/// Size of the JSON of a stored payload, or size of the payload when it cannot be decoded.
pub fn json_bytes(stored: &[u8], max: usize) -> usize {
    let frame = compressed(stored).ok().flatten();
    let bytes = frame.and_then(|frame| content_bytes(frame, max).ok());
    bytes.unwrap_or(stored.len())
}

pub(crate) fn is_labelled(stored: &[u8]) -> bool {
    stored.first().is_some_and(|first| LABELS.contains(first))
}

/// The zstd frame behind the label; `None` without a label.
fn compressed(stored: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    match stored.split_first() {
        Some((&ZSTD_DICTIONARY_1, frame)) => Ok(Some(frame)),
        Some((label, _)) if LABELS.contains(label) => Err(DecodeError::Encoding(*label)),
        Some(_) | None => Ok(None),
    }
}

/// Decompressed size that a zstd frame declares.
fn content_bytes(frame: &[u8], max: usize) -> Result<usize, DecodeError> {
    let bytes = match get_frame_content_size(frame) {
        Ok(Some(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
        Ok(None) => return Err(DecodeError::Compressed("its size is missing")),
        Err(_) => return Err(DecodeError::Compressed("it has no valid header")),
    };
    match bytes {
        // A skippable zstd frame declares a size of 0, too.
        0 => Err(DecodeError::Compressed("it holds nothing")),
        bytes if bytes > max => Err(DecodeError::TooLarge { bytes, max }),
        bytes => Ok(bytes),
    }
}

fn decompress(frame: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let bytes = content_bytes(frame, max)?;
    match find_frame_compressed_size(frame) {
        Ok(length) if length == frame.len() => {}
        Ok(_) => return Err(DecodeError::Compressed("it has trailing bytes")),
        Err(_) => return Err(DecodeError::Compressed("it is not complete")),
    }
    let mut json = Vec::with_capacity(bytes);
    let written = DECODER.with_borrow_mut(|kept| {
        let context = match kept.take() {
            Some(context) => context,
            None => Decompressor::with_dictionary(DICTIONARY)?,
        };
        let context = kept.insert(context);
        context.decompress_to_buffer(frame, &mut json)
    });
    match written {
        Ok(written) if written != bytes => {
            Err(DecodeError::Compressed("its size differs from its header"))
        }
        Ok(_) if is_labelled(&json) => Err(DecodeError::Compressed("it holds a stored payload")),
        Ok(_) => Ok(json),
        Err(_) => Err(DecodeError::Compressed("it cannot be decompressed")),
    }
}

#[cfg(test)]
mod tests;
