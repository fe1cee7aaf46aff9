//! Group commit: entries wait in frames, one open frame per subject, and leave in the order in which
//! their frames were opened, one at a time.
//!
//! Source: docs/wire-protocol.md, frames.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use nixfleet_proto::frame::{MAX_FRAME_BYTES, MAX_FRAME_ENTRIES};
use nixfleet_proto::{Entry, LAYOUT_VERSION, Position};

/// Bytes of a frame around its entries, rounded up.
const ENVELOPE_BYTES: usize = 64;

/// Room for an entry of the usual size.
const ENTRY_BYTES: usize = 1024;

/// Bounds of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of the whole message body.
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
    /// Most bytes one entry may have.
    pub fn entry_bytes(self) -> usize {
        self.bytes.saturating_sub(ENVELOPE_BYTES)
    }

    /// True when one frame can hold both, the second behind the first.
    pub fn hold(self, run: &EntryBatch, next: &EntryBatch) -> bool {
        // One more for the comma.
        let bytes = run.bytes() + 1 + next.bytes();
        run.len() + next.len() <= self.entries && bytes < self.entry_bytes()
    }
}

/// Entries of one subject that are stored together, in their order, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryBatch {
    /// The entries as JSON, separated by commas: copied into a frame as they are.
    json: Vec<u8>,
    entries: usize,
}

impl EntryBatch {
    /// A run of one entry.
    ///
    /// # Errors
    /// When the entry cannot be written as JSON.
    pub fn of(entry: &Entry) -> serde_json::Result<Self> {
        let mut json = Vec::with_capacity(ENTRY_BYTES);
        serde_json::to_writer(&mut json, entry)?;
        Ok(Self { json, entries: 1 })
    }

    /// Adds another one behind.
    pub fn append(&mut self, other: &Self) {
        if self.entries > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(&other.json);
        self.entries += other.entries;
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes of all entries with the commas between them.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }
}

/// Entries of one subject on their way to one message, each run with whoever waits for it.
#[derive(Debug)]
pub struct Frame<W> {
    /// Where it is published.
    pub subject: String,
    run: EntryBatch,
    /// In the order of the runs, each with the place of its first entry.
    pub waiters: Vec<(u32, W)>,
}

impl<W> Frame<W> {
    fn push(&mut self, run: &EntryBatch, waiter: W) {
        let first = u32::try_from(self.run.len()).unwrap_or(u32::MAX);
        self.run.append(run);
        self.waiters.push((first, waiter));
    }

    /// Entries in it; never 0.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a frame is opened by its first run"
    )]
    pub fn len(&self) -> usize {
        self.run.len()
    }

    /// What everyone who waits is told, in the order of the runs: the place of his first entry, or
    /// the error of all.
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
        let mut body = Vec::with_capacity(ENVELOPE_BYTES + self.run.bytes());
        body.extend_from_slice(br#"{"v":"#);
        body.extend_from_slice(LAYOUT_VERSION.to_string().as_bytes());
        body.extend_from_slice(br#","entries":["#);
        body.extend_from_slice(&self.run.json);
        body.extend_from_slice(b"]}");
        Bytes::from(body)
    }
}

/// Frames of one partition that wait for the acknowledgement of the frame before them.
#[derive(Debug)]
pub struct FrameBuffer<W> {
    limits: FrameLimits,
    frames: VecDeque<Frame<W>>,
    /// Number of the newest frame of each subject, counted from the first frame ever opened.
    newest: BTreeMap<String, u64>,
    /// Number of the frame at the front.
    front: u64,
    /// A frame left and is not known to be stored.
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

    /// Adds a run to the newest frame of its subject, or opens one behind all others. A run must
    /// fit into one frame.
    pub fn push(&mut self, subject: String, run: EntryBatch, waiter: W) {
        let open = self
            .newest
            .get(&subject)
            .and_then(|number| usize::try_from(number - self.front).ok())
            .and_then(|index| self.frames.get_mut(index))
            .filter(|frame| self.limits.hold(&frame.run, &run));
        if let Some(frame) = open {
            frame.push(&run, waiter);
            return;
        }
        let number = self.front + self.frames.len() as u64;
        self.newest.insert(subject.clone(), number);
        self.frames.push_back(Frame {
            subject,
            run,
            waiters: vec![(0, waiter)],
        });
    }

    /// True when nothing waits but one frame of fewer than `enough` entries.
    pub fn is_small(&self, enough: usize) -> bool {
        match self.frames.front() {
            Some(frame) => self.frames.len() == 1 && frame.len() < enough,
            None => false,
        }
    }

    /// The frame that has waited longest, unless one is in flight: two at once could be stored in
    /// the wrong order.
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

    /// Nothing more will be heard of the frame in flight: the next may leave.
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

    fn run(texts: &[&str]) -> EntryBatch {
        let mut run = EntryBatch::default();
        for text in texts {
            run.append(&EntryBatch {
                json: serde_json::to_vec(text).unwrap(),
                entries: 1,
            });
        }
        run
    }

    #[test]
    fn one_frame_of_few_entries_is_small() {
        let mut buffer = FrameBuffer::new(LIMITS);
        assert!(!buffer.is_small(3));
        buffer.push("a".to_owned(), run(&["1", "2"]), 0);
        assert!(buffer.is_small(3) && !buffer.is_small(2));
        buffer.push("b".to_owned(), run(&["3"]), 0);
        assert!(!buffer.is_small(3), "another one waits behind it");
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
            buffer.push(subject.to_owned(), run(&["x"]), number as u32);
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
            buffer.push("a".to_owned(), run(&["x"]), number);
        }
        let waiters = drain(&mut buffer).into_iter().map(|(_, waiters)| waiters);
        let sizes: Vec<usize> = waiters.map(|waiters| waiters.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
    }

    #[test]
    fn a_run_is_never_divided() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), run(&["x", "x"]), 0);
        buffer.push("a".to_owned(), run(&["y", "y"]), 1);
        buffer.push("a".to_owned(), run(&["z"]), 2);
        let bodies: Vec<Bytes> = frames(&mut buffer).iter().map(Frame::body).collect();
        assert_eq!(bodies[0], br#"{"v":1,"entries":["x","x"]}"#[..]);
        assert_eq!(bodies[1], br#"{"v":1,"entries":["y","y","z"]}"#[..]);
    }

    #[test]
    fn no_body_is_over_the_byte_limit() {
        let mut buffer = FrameBuffer::new(LIMITS);
        let text = "y".repeat(60);
        for number in 0..9 {
            buffer.push("a".to_owned(), run(&[&text]), number);
        }
        let mut seen = 0;
        for frame in frames(&mut buffer) {
            assert!(frame.body().len() <= LIMITS.bytes);
            seen += frame.len();
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn what_no_frame_can_hold_is_known_before() {
        let text = |bytes: usize| "y".repeat(bytes - 2);
        let check = |one: &[&str], two: &[&str]| LIMITS.hold(&run(one), &run(two));
        assert!(check(&["x", "x"], &["x"]));
        assert!(!check(&["x", "x"], &["x", "x"]));
        assert!(check(&[&text(100)], &[&text(34)]));
        assert!(!check(&[&text(100)], &[&text(35)]));
    }

    #[test]
    fn a_subject_can_be_opened_again_after_its_frame_left() {
        let mut buffer = FrameBuffer::new(LIMITS);
        buffer.push("a".to_owned(), run(&["x"]), 0);
        buffer.push("b".to_owned(), run(&["x"]), 1);
        assert_eq!(buffer.take().unwrap().waiters, [(0, 0)]);
        buffer.push("a".to_owned(), run(&["x"]), 2);
        assert!(buffer.take().is_none(), "one frame at a time");
        let expected = vec![
            ("b".to_owned(), vec![(0, 1)]),
            ("a".to_owned(), vec![(0, 2)]),
        ];
        assert_eq!(drain(&mut buffer), expected);
        assert!(buffer.newest.is_empty());
    }

    #[test]
    fn everyone_in_a_frame_gets_his_place_in_it_or_the_error_of_all() {
        let frame = || {
            let mut buffer = FrameBuffer::new(LIMITS);
            buffer.push("a".to_owned(), run(&["x", "x"]), 'p');
            buffer.push("a".to_owned(), run(&["x"]), 'q');
            buffer.take().unwrap()
        };
        let stored: Vec<_> = frame().answers(Ok::<_, ()>(9)).collect();
        let at = |index| Ok(Position { seq: 9, index });
        assert_eq!(stored, [('p', at(0)), ('q', at(2))]);
        let lost: Vec<_> = frame().answers(Err("gone")).collect();
        assert_eq!(lost, [('p', Err("gone")), ('q', Err("gone"))]);
    }
}
