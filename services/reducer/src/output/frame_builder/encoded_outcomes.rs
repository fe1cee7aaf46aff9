//! The outcomes of one frame and their JSON. Each host's record is there once
//! ([`nixfleet_proto::record_deduplication`]): an earlier outcome is encoded again without it.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use foldhash::fast::FixedState;
use nixfleet_core::partition;
use nixfleet_proto::{HostRecord, Hostname, Outcome, OutputFrame, RolloutId};

/// Upper estimate of the bytes of a frame beside its outcomes.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 1_024;
/// Bytes reserved for the head of the frame, which is encoded last.
const HEAD_BYTES: usize = FRAME_OVERHEAD_BYTES;

/// Outcomes with their JSON.
#[derive(Debug)]
pub(super) struct EncodedOutcomes {
    list: Vec<Outcome>,
    /// The reserved head, then every outcome in the order of encoding, separated by commas.
    json: Vec<u8>,
    /// Range of each outcome in `json`.
    ranges: Vec<Range<usize>>,
    /// Index of the outcome that carries the record of a host.
    last: HashMap<(RolloutId, Hostname), usize, FixedState>,
    /// Bytes of all outcomes in the frame, with commas.
    bytes: usize,
    /// True when an outcome was encoded twice: the ranges are out of order then.
    is_out_of_order: bool,
}

impl EncodedOutcomes {
    pub(super) fn new(reserved: usize) -> Self {
        let mut json = Vec::with_capacity(HEAD_BYTES + reserved);
        json.resize(HEAD_BYTES, 0);
        Self {
            list: Vec::new(),
            json,
            ranges: Vec::new(),
            last: HashMap::default(),
            bytes: 0,
            is_out_of_order: false,
        }
    }

    /// The outcomes in order, without records that later ones carry.
    pub(super) fn list(&self) -> &[Outcome] {
        &self.list
    }

    /// Bytes of the outcomes in the frame.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the buffer, with outcomes that were encoded again.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.json.len() - HEAD_BYTES
    }

    /// Adds an outcome, or returns it when the sum would exceed `bytes_max`; the first always fits.
    pub(super) fn add(&mut self, outcome: Outcome, bytes_max: usize) -> Option<Outcome> {
        let before = self.json.len();
        if !self.list.is_empty() {
            self.json.push(b',');
        }
        let range = encode(&outcome, &mut self.json);
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
                self.remove_record(earlier, record);
            }
        }
        self.ranges.push(range);
        self.list.push(outcome);
        None
    }

    /// Removes the record of a host, which `next` replaces, from an earlier outcome.
    fn remove_record(&mut self, earlier: usize, next: &HostRecord) {
        let outcome = &mut self.list[earlier];
        let records = outcome.decision.host_records().iter();
        let others = records.filter(|record| record.key() != next.key());
        let others = others.cloned().collect();
        outcome.decision.replace_host_records(others);
        let range = encode(outcome, &mut self.json);
        self.bytes = self.bytes + range.len() - self.ranges[earlier].len();
        self.ranges[earlier] = range;
        self.is_out_of_order = true;
    }

    /// The outcomes, and the JSON of the frame with this head.
    pub(super) fn finish(mut self, head: &[u8]) -> (Vec<Outcome>, Bytes) {
        let payload = match HEAD_BYTES.checked_sub(head.len()) {
            Some(begin) if !self.is_out_of_order => {
                self.json[begin..HEAD_BYTES].copy_from_slice(head);
                self.json.extend_from_slice(OutputFrame::JSON_TAIL);
                Bytes::from(self.json).slice(begin..)
            }
            _ => self.joined(head).into(),
        };
        (self.list, payload)
    }

    fn joined(&self, head: &[u8]) -> Vec<u8> {
        let tail = OutputFrame::JSON_TAIL;
        let mut json = Vec::with_capacity(head.len() + self.bytes + tail.len());
        json.extend_from_slice(head);
        for (number, range) in self.ranges.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            json.extend_from_slice(&self.json[range.clone()]);
        }
        json.extend_from_slice(tail);
        json
    }
}

fn encode(outcome: &Outcome, json: &mut Vec<u8>) -> Range<usize> {
    let begin = json.len();
    partition::write_outcome(outcome, json);
    begin..json.len()
}
