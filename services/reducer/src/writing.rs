//! Writing frames: what was folded becomes JSON, and is cut where a frame is full.
//!
//! Nothing of the state is needed for it, so that another thread can write one run while the owner folds
//! the next: writing takes twice as long as folding.

use std::sync::Arc;

use bytes::Bytes;
use nixfleet_core::partition;
use nixfleet_proto::left::Left;
use nixfleet_proto::{InputMark, Outcome, OutputFrame, Position, mutant};

use crate::folder::Item;

/// Bytes of a frame besides its outcomes, generously.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 1_024;

/// Where an item of a run was.
#[derive(Debug)]
struct Mark {
    mark: InputMark,
    msg_id: Option<Arc<str>>,
    /// False for an undecodable message.
    has_outcome: bool,
}

/// What was folded in one go, to be written.
#[derive(Debug)]
pub struct Run {
    /// All of it, as it is when one frame can hold it.
    frame: OutputFrame,
    /// Of all items.
    marks: Vec<Mark>,
    /// Most bytes of the outcomes of a frame.
    bytes_max: usize,
    /// Bytes that the outcomes probably take: room is made for them once.
    bytes_expected: usize,
}

/// A frame, ready to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The frame.
    pub frame: OutputFrame,
    /// Its outcomes, which whoever has the payload may let go.
    pub entries: usize,
    /// All of it as JSON.
    pub payload: Bytes,
}

/// A frame as far as it was written.
struct Written {
    /// Without its end.
    json: Vec<u8>,
    /// Bytes before its outcomes.
    head: usize,
    /// Outcomes that are in it.
    fitting: usize,
}

impl Run {
    pub(crate) fn new(epoch: u64, items: usize, bytes_max: usize) -> Self {
        let mut frame = OutputFrame::new(epoch);
        frame.outcomes.reserve_exact(items);
        Self {
            frame,
            marks: Vec::with_capacity(items),
            bytes_max,
            bytes_expected: 0,
        }
    }

    /// Adds what was folded of an item; an undecodable one has no outcome.
    pub(crate) fn add(&mut self, item: Item, outcome: Option<Outcome>) {
        self.frame.first_input.get_or_insert(item.position());
        self.marks.push(Mark {
            mark: item.mark,
            msg_id: item.msg_id,
            has_outcome: outcome.is_some(),
        });
        self.frame.outcomes.extend(outcome);
    }

    /// Ends it where its last item is; `None` when there was none.
    pub(crate) fn ended(mut self, bytes_expected: usize) -> Option<Self> {
        self.bytes_expected = bytes_expected.min(self.bytes_max);
        self.end()?;
        Some(self)
    }

    fn end(&mut self) -> Option<()> {
        let last = self.marks.last()?;
        self.frame.last_input = Some(last.mark);
        self.frame.last_input_id = last.msg_id.as_deref().map(str::to_owned);
        Some(())
    }

    /// The frame that it is when it is not cut.
    pub fn frame(&self) -> &OutputFrame {
        &self.frame
    }

    /// Adds the hash of the state that it ends with.
    pub(crate) fn add_hash(&mut self, hash: String) {
        self.frame.state_hash = Some(hash);
    }

    /// Writes it into frames, none larger than the limit unless it has one outcome only.
    pub fn write(self) -> Vec<Folded> {
        let mut frames = Vec::with_capacity(1);
        let mut next = Some(self);
        while let Some(run) = next {
            let (folded, rest) = run.write_frame();
            frames.push(folded);
            next = rest;
        }
        frames
    }

    /// Writes one frame, and gives back what it cannot hold.
    fn write_frame(mut self) -> (Folded, Option<Self>) {
        let left = Left::by(&mut self.frame.outcomes);
        let mut written = self.outcomes();
        if written.fitting == self.frame.outcomes.len() {
            return (self.folded(written.json), None);
        }
        let rest = if left.is_empty() {
            self.split_off(written.fitting)
        } else {
            // It ends earlier, and needs what was left to outcomes behind its end.
            left.put_back(&mut self.frame.outcomes);
            let rest = self.split_off(self.outcomes().fitting);
            Left::by(&mut self.frame.outcomes);
            written = self.outcomes();
            rest
        };
        let outcomes = &written.json[written.head..];
        let mut json = self.head(outcomes.len());
        json.extend_from_slice(outcomes);
        (self.folded(json), rest)
    }

    /// Writes as many outcomes as fit, one at least.
    fn outcomes(&self) -> Written {
        let mut json = self.head(self.bytes_expected);
        let head = json.len();
        for (place, outcome) in self.frame.outcomes.iter().enumerate() {
            let end = json.len();
            if place > 0 {
                json.push(b',');
            }
            partition::write(outcome, &mut json);
            if json.len() - head > self.bytes_max && place > 0 {
                json.truncate(end);
                return Written {
                    json,
                    head,
                    fitting: place,
                };
            }
        }
        Written {
            json,
            head,
            fitting: self.frame.outcomes.len(),
        }
    }

    /// The frame as far as its outcomes, with room for these.
    fn head(&self, bytes: usize) -> Vec<u8> {
        let mut json = Vec::with_capacity(FRAME_OVERHEAD_BYTES + bytes);
        self.frame
            .write_head(&mut json)
            .expect("a frame has text keys only, and memory takes every byte");
        json
    }

    fn folded(self, mut json: Vec<u8>) -> Folded {
        json.extend_from_slice(OutputFrame::JSON_TAIL);
        Folded {
            entries: self.frame.outcomes.len(),
            frame: self.frame,
            payload: json.into(),
        }
    }

    /// Cuts it before an outcome, which is not the first. The hash is that of the end.
    fn split_off(&mut self, place: usize) -> Option<Self> {
        let outcomes = self.marks.iter().enumerate();
        let mut outcomes = outcomes.filter(|(_, mark)| mark.has_outcome);
        let (first, _) = outcomes.nth(place)?;
        let mut rest = Self {
            frame: OutputFrame {
                state_hash: self.frame.state_hash.take(),
                outcomes: self.frame.outcomes.split_off(place),
                ..OutputFrame::new(self.frame.epoch)
            },
            marks: self.marks.split_off(first),
            bytes_max: self.bytes_max,
            bytes_expected: self.bytes_expected,
        };
        if mutant::is("owner-drop-at-split") {
            rest.marks.remove(0);
            rest.frame.outcomes.remove(0);
        }
        self.end()?;
        let InputMark { seq, index, .. } = rest.marks.first()?.mark;
        rest.frame.first_input = Some(Position { seq, index });
        rest.end()?;
        Some(rest)
    }
}
