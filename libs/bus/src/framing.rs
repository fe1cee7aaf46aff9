//! Group commit, the pure part: entries wait in frames, one open frame per subject, and leave in
//! the order in which their frames were opened.
//!
//! Source: docs/wire-protocol.md, frames.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use serde::Serialize;
use serde_json::value::RawValue;

/// Bytes of a frame around its entries, rounded up.
const ENVELOPE_BYTES: usize = 64;

/// Bounds of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLimits {
    /// Most entries.
    pub(crate) entries: usize,
    /// Most bytes of the whole message body.
    pub(crate) bytes: usize,
}

impl FrameLimits {
    /// Most bytes one entry may have.
    pub(crate) fn entry_bytes(self) -> usize {
        self.bytes.saturating_sub(ENVELOPE_BYTES)
    }
}

/// Entries of one subject on their way to one message, each with whoever waits for it.
#[derive(Debug)]
pub(crate) struct Frame<W> {
    /// Where it is published.
    pub(crate) subject: String,
    entries: Vec<Box<RawValue>>,
    /// In the order of the entries.
    pub(crate) waiters: Vec<W>,
    bytes: usize,
}

#[derive(Serialize)]
struct FrameBody<'a> {
    v: u32,
    entries: &'a [Box<RawValue>],
}

impl<W> Frame<W> {
    fn new(subject: String) -> Self {
        Self {
            subject,
            entries: Vec::new(),
            waiters: Vec::new(),
            bytes: ENVELOPE_BYTES,
        }
    }

    fn has_room(&self, entry: &RawValue, limits: FrameLimits) -> bool {
        self.entries.len() < limits.entries && self.bytes + entry.get().len() < limits.bytes
    }

    fn push(&mut self, entry: Box<RawValue>, waiter: W) {
        // One more for the comma.
        self.bytes += entry.get().len() + 1;
        self.entries.push(entry);
        self.waiters.push(waiter);
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The message body.
    pub(crate) fn body(&self) -> Bytes {
        let body = FrameBody {
            v: LAYOUT_VERSION,
            entries: &self.entries,
        };
        let bytes = serde_json::to_vec(&body).expect("raw JSON always serialises");
        Bytes::from(bytes)
    }
}

/// Frames of one partition that wait for the acknowledgement of the frame before them.
#[derive(Debug)]
pub(crate) struct FrameBuffer<W> {
    limits: FrameLimits,
    frames: VecDeque<Frame<W>>,
    /// Number of the newest frame of each subject, counted from the first frame ever opened.
    newest: BTreeMap<String, u64>,
    /// Number of the frame at the front.
    front: u64,
}

impl<W> FrameBuffer<W> {
    /// An empty buffer.
    pub(crate) fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            frames: VecDeque::new(),
            newest: BTreeMap::new(),
            front: 0,
        }
    }

    /// Adds an entry to the newest frame of its subject, or opens one behind all others.
    pub(crate) fn push(&mut self, subject: String, entry: Box<RawValue>, waiter: W) {
        let open = self
            .newest
            .get(&subject)
            .and_then(|number| usize::try_from(number - self.front).ok())
            .and_then(|index| self.frames.get_mut(index))
            .filter(|frame| frame.has_room(&entry, self.limits));
        if let Some(frame) = open {
            frame.push(entry, waiter);
            return;
        }
        let number = self.front + self.frames.len() as u64;
        self.newest.insert(subject.clone(), number);
        let mut frame = Frame::new(subject);
        frame.push(entry, waiter);
        self.frames.push_back(frame);
    }

    /// The frame that has waited longest.
    pub(crate) fn take(&mut self) -> Option<Frame<W>> {
        let frame = self.frames.pop_front()?;
        if self.newest.get(&frame.subject) == Some(&self.front) {
            self.newest.remove(&frame.subject);
        }
        self.front += 1;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        entries: 3,
        bytes: 200,
    };

    fn entry(text: &str) -> Box<RawValue> {
        serde_json::value::to_raw_value(text).unwrap()
    }

    fn drain(buffer: &mut FrameBuffer<u32>) -> Vec<(String, Vec<u32>)> {
        std::iter::from_fn(|| buffer.take().map(|frame| (frame.subject, frame.waiters))).collect()
    }

    #[test]
    fn entries_of_a_subject_share_a_frame_and_keep_their_order() {
        let mut buffer = FrameBuffer::new(LIMITS);
        for (number, subject) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
            buffer.push(subject.to_owned(), entry("x"), number as u32);
        }
        let expected = vec![
            ("a".to_owned(), vec![0, 2, 4]),
            ("b".to_owned(), vec![1, 3]),
        ];
        assert_eq!(drain(&mut buffer), expected);
    }

    #[test]
    fn a_full_frame_is_followed_by_another_of_its_subject() {
        let mut buffer = FrameBuffer::new(LIMITS);
        for number in 0..7 {
            buffer.push("a".to_owned(), entry("x"), number);
        }
        let sizes: Vec<_> = drain(&mut buffer).into_iter().map(|(_, w)| w).collect();
        assert_eq!(sizes, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    }

    #[test]
    fn no_body_is_over_the_byte_limit() {
        let mut buffer = FrameBuffer::new(LIMITS);
        for number in 0..9 {
            buffer.push("a".to_owned(), entry(&"y".repeat(60)), number);
        }
        let mut seen = 0;
        while let Some(frame) = buffer.take() {
            assert!(frame.body().len() <= LIMITS.bytes);
            seen += frame.len();
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn a_subject_can_be_opened_again_after_its_frame_left() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), entry("x"), 0);
        buffer.push("b".to_owned(), entry("x"), 1);
        assert_eq!(buffer.take().unwrap().waiters, [0]);
        buffer.push("a".to_owned(), entry("x"), 2);
        let expected = vec![("b".to_owned(), vec![1]), ("a".to_owned(), vec![2])];
        assert_eq!(drain(&mut buffer), expected);
        assert!(buffer.newest.is_empty());
    }

    #[test]
    fn a_body_reads_back_as_an_input_frame_envelope() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), entry("x"), 0);
        let body = buffer.take().unwrap().body();
        assert_eq!(&body[..], br#"{"v":1,"entries":["x"]}"#);
    }
}
