//! The outcomes of one frame and their JSON, with the record of each host once ([`nixfleet_proto::record_deduplication`]):
//! when a host changes again, the outcome that had its record is written again without it.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::FixedState;
use nixfleet_core::partition;
use nixfleet_proto::{HostRecord, Hostname, Outcome, OutputFrame, RolloutId};

/// Bytes of a frame besides its outcomes, generously.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 1_024;
/// Room for what a frame has before its outcomes, which is known last.
const HEAD_BYTES: usize = FRAME_OVERHEAD_BYTES;

/// Outcomes of a frame.
#[derive(Debug)]
pub(super) struct Outcomes {
    list: Vec<Outcome>,
    /// Behind the room for a head: every outcome in the order of writing, with commas between them.
    json: Vec<u8>,
    /// Where the JSON of each outcome is.
    places: Vec<Range<usize>>,
    /// The outcome that has the record of a host.
    last: HashMap<(RolloutId, Hostname), usize, FixedState>,
    /// Of all outcomes as the frame says them, with commas.
    bytes: usize,
    /// True when one was written twice: then they do not lie in their order.
    is_scattered: bool,
}

impl Outcomes {
    /// None yet, with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        let mut json = Vec::with_capacity(HEAD_BYTES + room);
        json.resize(HEAD_BYTES, 0);
        Self {
            list: Vec::new(),
            json,
            places: Vec::new(),
            last: HashMap::default(),
            bytes: 0,
            is_scattered: false,
        }
    }

    /// In their order, without records that later ones have.
    pub(super) fn list(&self) -> &[Outcome] {
        &self.list
    }

    /// Bytes that they take in the frame.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that were written for them.
    pub(super) fn bytes_written(&self) -> usize {
        self.json.len() - HEAD_BYTES
    }

    /// Adds one, or gives it back when all together would take more than so many bytes; never the first.
    pub(super) fn add(&mut self, outcome: Outcome, bytes_max: usize) -> Option<Outcome> {
        let before = self.json.len();
        if !self.list.is_empty() {
            self.json.push(b',');
        }
        let place = write(&outcome, &mut self.json);
        let bytes = self.json.len() - before;
        if self.bytes + bytes > bytes_max && !self.list.is_empty() {
            self.json.truncate(before);
            return Some(outcome);
        }
        self.bytes += bytes;
        let number = self.list.len();
        for record in outcome.decision.host_records() {
            let host = (record.rollout_id.clone(), record.hostname.clone());
            if let Some(earlier) = self.last.insert(host, number)
                && earlier < number
            {
                self.leave(earlier, record);
            }
        }
        self.places.push(place);
        self.list.push(outcome);
        None
    }

    /// Takes the record of a host, which `next` follows on, out of an outcome.
    fn leave(&mut self, earlier: usize, next: &HostRecord) {
        let outcome = &mut self.list[earlier];
        let records = outcome.decision.host_records().iter();
        let others = records.filter(|record| record.key() != next.key());
        let others = others.cloned().collect();
        outcome.decision.replace_host_records(others);
        let place = write(outcome, &mut self.json);
        self.bytes = self.bytes + place.len() - self.places[earlier].len();
        self.places[earlier] = place;
        self.is_scattered = true;
    }

    /// The frame of this head, as JSON.
    pub(super) fn end(mut self, head: &[u8]) -> (Vec<Outcome>, Bytes) {
        let payload = match HEAD_BYTES.checked_sub(head.len()) {
            Some(begin) if !self.is_scattered => {
                self.json[begin..HEAD_BYTES].copy_from_slice(head);
                self.json.extend_from_slice(OutputFrame::JSON_TAIL);
                Bytes::from(self.json).slice(begin..)
            }
            _ => self.gathered(head).into(),
        };
        (self.list, payload)
    }

    fn gathered(&self, head: &[u8]) -> Vec<u8> {
        let tail = OutputFrame::JSON_TAIL;
        let mut json = Vec::with_capacity(head.len() + self.bytes + tail.len());
        json.extend_from_slice(head);
        for (number, place) in self.places.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&self.json[place.clone()]);
        }
        json.extend_from_slice(tail);
        json
    }
}

/// Where it was written.
fn write(outcome: &Outcome, json: &mut Vec<u8>) -> Range<usize> {
    let begin = json.len();
    partition::write_outcome(outcome, json);
    begin..json.len()
}
