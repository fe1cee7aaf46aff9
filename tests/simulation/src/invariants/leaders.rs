//! One leader plans at a time: whatever is accepted from a planner carries the highest epoch that a
//! barrier announced in this partition, and comes from the process that announced it.
//!
//! Source: docs/semantics.md, entries and legality.

use std::collections::BTreeMap;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, PlanAction};

use super::folded_entry::{CheckResult, FoldedEntry};

/// The leader of each partition.
#[derive(Debug, Default)]
pub struct Leaders {
    leads: BTreeMap<Partition, Leader>,
}

#[derive(Debug, Default)]
struct Leader {
    epoch: u64,
    process: String,
}

impl Leaders {
    /// Checks an entry that a process wrote.
    ///
    /// # Errors
    /// Names both leaders.
    pub fn check(&mut self, folded: FoldedEntry<'_>, process: &str) -> CheckResult {
        let EntryBody::Plan { epoch, action } = &folded.entry.body else {
            return Ok(());
        };
        if folded.accepted().is_none() {
            return Ok(());
        }
        let leads = self.leads.entry(folded.partition).or_default();
        let what = action.name();
        if matches!(action, PlanAction::Barrier {}) {
            if *epoch <= leads.epoch {
                return Err(format!(
                    "{process} begins epoch {epoch} after epoch {} of {}",
                    leads.epoch, leads.process
                ));
            }
            *leads = Leader {
                epoch: *epoch,
                process: process.to_owned(),
            };
        } else if (*epoch, process) != (leads.epoch, leads.process.as_str()) {
            return Err(format!(
                "{what} of {process} in epoch {epoch} is accepted while {} leads in epoch {}",
                leads.process, leads.epoch
            ));
        }
        Ok(())
    }
}
