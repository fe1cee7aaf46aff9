//! Records that are said once in a frame: the last outcome that changed a host has its record, those
//! before it leave it out. A host that drains its queue changes many times in one frame.
//!
//! Source: docs/adr/0011-a-frame-says-each-record-once.md.

use std::collections::HashMap;
use std::sync::Arc;

use crate::host::HostRecord;
use crate::id::{Hostname, RolloutId};
use crate::outcome::Outcome;

/// Places of the last outcomes of a frame that have the record of a host.
pub type LastRecords<'a> = HashMap<(&'a RolloutId, &'a Hostname), usize>;

/// Where the record of each host is said for the last time.
pub fn last_records(outcomes: &[Outcome]) -> LastRecords<'_> {
    let records = outcomes.iter().enumerate().flat_map(|(place, outcome)| {
        let records = outcome.verdict.host_records().iter();
        records.map(move |record| (record.key(), place))
    });
    records.collect()
}

/// What outcomes left to later ones.
#[derive(Debug, Default)]
pub struct Left {
    /// The records they had, by their places.
    before: Vec<(usize, Vec<Arc<HostRecord>>)>,
}

impl Left {
    /// Takes the records out of these outcomes that a later one has.
    pub fn by(outcomes: &mut [Outcome]) -> Self {
        let last = last_records(outcomes);
        let outcomes_before = outcomes.iter().enumerate();
        let leaving = outcomes_before.filter_map(|(place, outcome)| {
            let records = outcome.verdict.host_records();
            let is_last = |record: &&Arc<HostRecord>| last.get(&record.key()) == Some(&place);
            let is_left = !records.iter().all(|record| is_last(&record));
            is_left.then(|| (place, records.iter().filter(is_last).cloned().collect()))
        });
        let mut before: Vec<_> = leaving.collect();
        exchange(outcomes, &mut before);
        Self { before }
    }

    /// True when each outcome has all its records.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// Gives the outcomes back what they had.
    pub fn put_back(mut self, outcomes: &mut [Outcome]) {
        exchange(outcomes, &mut self.before);
    }
}

fn exchange(outcomes: &mut [Outcome], records: &mut [(usize, Vec<Arc<HostRecord>>)]) {
    for (place, records) in records {
        let others = std::mem::take(records);
        *records = outcomes[*place].verdict.replace_host_records(others);
    }
}
