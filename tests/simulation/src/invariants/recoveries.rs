//! An owner recovers missed transitions only, each once; a recovered entry is rejected only when an entry about
//! the host came into the log after the owner read its end.
//!
//! Source: docs/semantics.md, heartbeats and recovery.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, Hostname, Producer, RolloutId};

use super::folded_entry::{CheckResult, FoldedEntry};

type Key = (RolloutId, Hostname);

/// How far owners read, and the last entry about each host.
#[derive(Debug, Default)]
pub struct Recoveries {
    /// Last sequence of the log when a process last recovered a transition of a host.
    looked: BTreeMap<(String, Key), u64>,
    /// Sequence of the last entry about a host.
    last: BTreeMap<(Partition, Key), u64>,
    /// Sequence of the last entry about no single host.
    set_wide: BTreeMap<Partition, u64>,
}

impl Recoveries {
    /// An owner is about to append these entries, having read up to a sequence.
    ///
    /// # Errors
    /// Names an entry that is recovered twice.
    pub fn begins(&mut self, process: &str, looked: u64, entries: &[Entry]) -> CheckResult {
        let mut seen = BTreeSet::new();
        for entry in entries {
            let Some(key) = key(&entry.body) else {
                continue;
            };
            if !seen.insert(key.clone()) {
                return Err(format!("{process} recovers {} of {} twice", key.1, key.0));
            }
            self.looked.insert((process.to_owned(), key), looked);
        }
        Ok(())
    }

    /// Looks at an entry; `process` wrote it.
    ///
    /// # Errors
    /// Names an unneeded recovery.
    pub fn check(&mut self, folded: FoldedEntry<'_>, process: &str) -> CheckResult {
        let seq = folded.outcome.position.seq;
        let Some(key) = key(&folded.entry.body) else {
            self.set_wide.insert(folded.partition, seq);
            return Ok(());
        };
        let of_host = self.last.insert((folded.partition, key.clone()), seq);
        let before = of_host.max(self.set_wide.get(&folded.partition).copied());
        if !is_recovery(&folded.entry.body) || folded.accepted().is_some() {
            return Ok(());
        }
        let looked = self.looked.get(&(process.to_owned(), key.clone()));
        let Some(looked) = looked.copied() else {
            return Ok(());
        };
        // A log that ends before was replaced since.
        let is_replaced = seq <= looked;
        if is_replaced || before.is_some_and(|before| before > looked) {
            return Ok(());
        }
        Err(format!(
            "{process} read up to {looked} and recovered {} of {} at {seq} without need",
            key.1, key.0
        ))
    }
}

fn key(body: &EntryBody) -> Option<Key> {
    Some((body.rollout_id()?.clone(), body.hostname()?.clone()))
}

fn is_recovery(body: &EntryBody) -> bool {
    let producer = Producer::Recovery;
    matches!(body, EntryBody::HostEvent { producer: p, .. } if *p == producer)
}
