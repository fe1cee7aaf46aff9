//! One leader plans at a time: whatever is accepted from a planner carries the highest epoch that a
//! barrier announced in this partition, and comes from the process that announced it.
//!
//! Source: docs/semantics.md, entries and legality.

use std::collections::BTreeMap;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{EntryBody, PlanAction};

use super::folded_entry::{CheckResult, FoldedEntry};

/// Who leads each partition in which epoch.
#[derive(Debug, Default)]
pub struct Leaders {
    leads: BTreeMap<Partition, (u64, String)>,
}

impl Leaders {
    /// Looks at an entry that a process wrote.
    ///
    /// # Errors
    /// Names both leaders.
    pub fn check(&mut self, fact: FoldedEntry<'_>, process: &str) -> CheckResult {
        let EntryBody::Plan { epoch, action } = &fact.entry.body else {
            return Ok(());
        };
        if fact.accepted().is_none() {
            return Ok(());
        }
        let leads = self.leads.entry(fact.partition).or_default();
        let what = action.name();
        if matches!(action, PlanAction::Barrier {}) {
            if *epoch <= leads.0 {
                return Err(format!(
                    "{process} begins epoch {epoch} behind epoch {} of {}",
                    leads.0, leads.1
                ));
            }
            *leads = (*epoch, process.to_owned());
        } else if (*epoch, process) != (leads.0, leads.1.as_str()) {
            return Err(format!(
                "{what} of {process} in epoch {epoch} is accepted while {} leads in epoch {}",
                leads.1, leads.0
            ));
        }
        Ok(())
    }
}
