//! Group commit: entries wait in frames, one open frame per subject. Frames are sent one at a time, in the
//! order in which they were opened.
//!
//! Source: docs/wire-protocol.md, frames.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nixfleet_proto::frame::{MAX_FRAME_BYTES, MAX_FRAME_ENTRIES};
use nixfleet_proto::{Entry, LAYOUT_VERSION, Position, Timestamp};

use crate::clock::{ClockOffset, Stamps};

/// Bytes that a frame adds to its entries, rounded up.
const ENVELOPE_BYTES: usize = 64;

/// Initial capacity for one entry.
const ENTRY_BYTES: usize = 1024;

/// Size limits of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of the message body.
    pub bytes: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            entries: MAX_FRAME_ENTRIES,
            bytes: MAX_FRAME_BYTES,
        }
    }
}

impl FrameLimits {
    /// Most bytes of one entry.
    pub fn entry_bytes(self) -> usize {
        self.bytes.saturating_sub(ENVELOPE_BYTES)
    }

    /// True when one frame can hold both batches.
    pub fn hold(self, batch: &EntryBatch, next: &EntryBatch) -> bool {
        // The added byte is the comma.
        let bytes = batch.bytes() + 1 + next.bytes();
        batch.len() + next.len() <= self.entries && bytes < self.entry_bytes()
    }
}

/// Entries of one subject that are stored together and in order, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryBatch {
    /// The entries as JSON, separated by commas; a frame copies them unchanged.
    json: Vec<u8>,
    entries: usize,
    /// Absent without entries.
    stamps: Option<Stamps>,
}

impl EntryBatch {
    /// A batch of one entry.
    pub fn of(entry: &Entry) -> serde_json::Result<Self> {
        let mut json = Vec::with_capacity(ENTRY_BYTES);
        serde_json::to_writer(&mut json, entry)?;
        Ok(Self {
            json,
            entries: 1,
            stamps: Some(Stamps::of(entry)),
        })
    }

    /// Appends another batch.
    pub fn append(&mut self, other: &Self) {
        if self.entries > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(&other.json);
        self.entries += other.entries;
        self.stamps = match (self.stamps, other.stamps) {
            (Some(stamps), Some(others)) => Some(stamps.join(others)),
            (stamps, others) => stamps.or(others),
        };
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// True when there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Size of the entries in bytes, with the commas between them.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }
}

/// Entries of one subject that go into one message, with a waiter per batch.
#[derive(Debug)]
pub struct Frame<W> {
    /// Subject on which it is published.
    pub subject: String,
    batch: EntryBatch,
    /// Waiters in batch order, each with the index of its first entry.
    pub waiters: Vec<(u32, W)>,
}

impl<W> Frame<W> {
    fn push(&mut self, batch: &EntryBatch, waiter: W) {
        let first = u32::try_from(self.batch.len()).unwrap_or(u32::MAX);
        self.batch.append(batch);
        self.waiters.push((first, waiter));
    }

    /// Number of entries; never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a frame is opened by its first batch"
    )]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Checks the times of the entries before the frame is sent, at this time of the broker.
    ///
    /// # Errors
    /// How far the first or the last of them is off: the fold could reject it.
    pub fn check_clock(&self, broker: Timestamp) -> Result<(), ClockOffset> {
        self.batch
            .stamps
            .map_or(Ok(()), |stamps| stamps.check_before_sending(broker))
    }

    /// True when an acknowledgement at this time of the broker proves that the frame was stored soon enough
    /// after its entries were stamped.
    pub fn was_stored_in_time(&self, broker: Timestamp) -> bool {
        let stamps = self.batch.stamps;
        stamps.is_none_or(|stamps| stamps.were_stored_in_time(broker))
    }

    /// The result for each waiter, in batch order: the position of its first entry, or the common error.
    pub fn answers<E: Clone>(
        self,
        result: Result<u64, E>,
    ) -> impl Iterator<Item = (W, Result<Position, E>)> {
        self.waiters.into_iter().map(move |(index, waiter)| {
            let answer = result.clone().map(|seq| Position { seq, index });
            (waiter, answer)
        })
    }

    /// The message body.
    pub fn body(&self) -> Bytes {
        let mut body = Vec::with_capacity(ENVELOPE_BYTES + self.batch.bytes());
        body.extend_from_slice(br#"{"v":"#);
        body.extend_from_slice(LAYOUT_VERSION.to_string().as_bytes());
        body.extend_from_slice(br#","entries":["#);
        body.extend_from_slice(&self.batch.json);
        body.extend_from_slice(b"]}");
        Bytes::from(body)
    }
}

/// Frames of one partition that wait until the frame before them is acknowledged.
#[derive(Debug)]
pub struct FrameBuffer<W> {
    limits: FrameLimits,
    frames: VecDeque<Frame<W>>,
    /// Number of the newest frame of each subject, counted from the first frame ever opened.
    newest: BTreeMap<String, u64>,
    /// Number of the frame at the front of the queue.
    front: u64,
    in_flight: bool,
}

impl<W> FrameBuffer<W> {
    /// An empty buffer.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            frames: VecDeque::new(),
            newest: BTreeMap::new(),
            front: 0,
            in_flight: false,
        }
    }

    /// Adds a batch to the newest frame of its subject, or opens a new frame at the end. The batch must fit
    /// into one frame.
    pub fn push(&mut self, subject: String, batch: EntryBatch, waiter: W) {
        let open = self
            .newest
            .get(&subject)
            .and_then(|number| usize::try_from(number - self.front).ok())
            .and_then(|index| self.frames.get_mut(index))
            .filter(|frame| self.limits.hold(&frame.batch, &batch));
        if let Some(frame) = open {
            frame.push(&batch, waiter);
            return;
        }
        let number = self.front + self.frames.len() as u64;
        self.newest.insert(subject.clone(), number);
        self.frames.push_back(Frame {
            subject,
            batch,
            waiters: vec![(0, waiter)],
        });
    }

    /// True when the buffer holds exactly one frame and that frame has fewer than `entries` entries.
    pub fn is_small(&self, entries: usize) -> bool {
        match self.frames.front() {
            Some(frame) => self.frames.len() == 1 && frame.len() < entries,
            None => false,
        }
    }

    /// Takes the oldest frame, unless one is in flight: two at once could be stored in the wrong order.
    pub fn take(&mut self) -> Option<Frame<W>> {
        if self.in_flight {
            return None;
        }
        let frame = self.frames.pop_front()?;
        if self.newest.get(&frame.subject) == Some(&self.front) {
            self.newest.remove(&frame.subject);
        }
        self.front += 1;
        self.in_flight = true;
        Some(frame)
    }

    /// Ends the frame in flight: there will be no more answers for it, and the next one may be sent.
    pub fn finish_in_flight(&mut self) {
        self.in_flight = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        entries: 3,
        bytes: 200,
    };

    fn batch(texts: &[&str]) -> EntryBatch {
        let mut batch = EntryBatch::default();
        for text in texts {
            batch.append(&EntryBatch {
                json: serde_json::to_vec(text).unwrap(),
                entries: 1,
                stamps: None,
            });
        }
        batch
    }

    #[test]
    fn one_frame_of_few_entries_is_small() {
        let mut buffer = FrameBuffer::new(LIMITS);
        assert!(!buffer.is_small(3));
        buffer.push("a".to_owned(), batch(&["1", "2"]), 0);
        assert!(buffer.is_small(3) && !buffer.is_small(2));
        buffer.push("b".to_owned(), batch(&["3"]), 0);
        assert!(!buffer.is_small(3), "another frame waits behind it");
    }

    fn drain(buffer: &mut FrameBuffer<u32>) -> Vec<(String, Vec<(u32, u32)>)> {
        let frames = frames(buffer).into_iter();
        frames.map(|frame| (frame.subject, frame.waiters)).collect()
    }

    fn frames(buffer: &mut FrameBuffer<u32>) -> Vec<Frame<u32>> {
        let next = || {
            buffer.finish_in_flight();
            buffer.take()
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn entries_of_a_subject_share_a_frame_and_keep_their_order() {
        let mut buffer = FrameBuffer::new(LIMITS);
        for (number, subject) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
            buffer.push(subject.to_owned(), batch(&["x"]), number as u32);
        }
        let expected = vec![
            ("a".to_owned(), vec![(0, 0), (1, 2), (2, 4)]),
            ("b".to_owned(), vec![(0, 1), (1, 3)]),
        ];
        assert_eq!(drain(&mut buffer), expected);
    }

    #[test]
    fn a_full_frame_is_followed_by_another_of_its_subject() {
        let mut buffer = FrameBuffer::new(LIMITS);
        for number in 0..7 {
            buffer.push("a".to_owned(), batch(&["x"]), number);
        }
        let waiters = drain(&mut buffer).into_iter().map(|(_, waiters)| waiters);
        let sizes: Vec<usize> = waiters.map(|waiters| waiters.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
    }

    #[test]
    fn a_batch_is_never_split() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), batch(&["x", "x"]), 0);
        buffer.push("a".to_owned(), batch(&["y", "y"]), 1);
        buffer.push("a".to_owned(), batch(&["z"]), 2);
        let bodies: Vec<Bytes> = frames(&mut buffer).iter().map(Frame::body).collect();
        assert_eq!(bodies[0], br#"{"v":1,"entries":["x","x"]}"#[..]);
        assert_eq!(bodies[1], br#"{"v":1,"entries":["y","y","z"]}"#[..]);
    }

    #[test]
    fn no_frame_body_exceeds_the_byte_limit() {
        let mut buffer = FrameBuffer::new(LIMITS);
        let text = "y".repeat(60);
        for number in 0..9 {
            buffer.push("a".to_owned(), batch(&[&text]), number);
        }
        let mut seen = 0;
        for frame in frames(&mut buffer) {
            assert!(frame.body().len() <= LIMITS.bytes);
            seen += frame.len();
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn limits_tell_whether_two_batches_fit_into_one_frame() {
        let text = |bytes: usize| "y".repeat(bytes - 2);
        let check = |one: &[&str], two: &[&str]| LIMITS.hold(&batch(one), &batch(two));
        assert!(check(&["x", "x"], &["x"]));
        assert!(!check(&["x", "x"], &["x", "x"]));
        assert!(check(&[&text(100)], &[&text(34)]));
        assert!(!check(&[&text(100)], &[&text(35)]));
    }

    #[test]
    fn a_subject_opens_a_new_frame_after_its_frame_was_sent() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), batch(&["x"]), 0);
        buffer.push("b".to_owned(), batch(&["x"]), 1);
        assert_eq!(buffer.take().unwrap().waiters, [(0, 0)]);
        buffer.push("a".to_owned(), batch(&["x"]), 2);
        assert!(buffer.take().is_none(), "one frame at a time");
        let expected = vec![
            ("b".to_owned(), vec![(0, 1)]),
            ("a".to_owned(), vec![(0, 2)]),
        ];
        assert_eq!(drain(&mut buffer), expected);
        assert!(buffer.newest.is_empty());
    }

    #[test]
    fn each_waiter_gets_its_position_or_the_common_error() {
        let frame = || {
            let mut buffer = FrameBuffer::new(LIMITS);
            buffer.push("a".to_owned(), batch(&["x", "x"]), 'p');
            buffer.push("a".to_owned(), batch(&["x"]), 'q');
            buffer.take().unwrap()
        };
        let stored: Vec<_> = frame().answers(Ok::<_, ()>(9)).collect();
        let at = |index| Ok(Position { seq: 9, index });
        assert_eq!(stored, [('p', at(0)), ('q', at(2))]);
        let lost: Vec<_> = frame().answers(Err("gone")).collect();
        assert_eq!(lost, [('p', Err("gone")), ('q', Err("gone"))]);
    }
}
