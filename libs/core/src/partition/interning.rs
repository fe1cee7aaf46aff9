//! Interning: one copy of the texts and lists that many records share.
//!
//! Records from the wire or from rows have their own allocations. The state of a million hosts shares equal
//! ones to save memory; no decision depends on it.

use std::sync::Arc;

use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, HostRecord};

/// Most distinct lists: hosts of one rollout have few different probe lists.
const LISTS_MAX: usize = 32;

/// Distinct probe lists of the hosts of a rollout.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeListPool(Vec<Arc<[ProbeDeclaration]>>);

/// Always equal: derived data does not distinguish states.
impl PartialEq for ProbeListPool {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ProbeListPool {}

impl ProbeListPool {
    /// Replaces the probe list of a record by an equal one of the pool.
    pub(super) fn intern_probes(&self, record: &mut HostRecord) {
        if let Some(declared) = &mut record.declared_probes
            && let Some(kept) = self.0.iter().find(|kept| *kept == declared)
        {
            *declared = Arc::clone(kept);
        }
    }

    /// The interned form of the next record of a host, after `before`.
    pub(super) fn intern_next(
        &mut self,
        record: &Arc<HostRecord>,
        before: &HostRecord,
    ) -> Arc<HostRecord> {
        if record.hostname.is_shared_with(&before.hostname) {
            self.add(record);
            return Arc::clone(record);
        }
        let mut own = HostRecord::clone(record);
        own.rollout_id = before.rollout_id.clone();
        own.hostname = before.hostname.clone();
        own.channel = before.channel.clone();
        if own.target_closure == before.target_closure {
            own.target_closure = before.target_closure.clone();
        }
        self.intern(&mut own);
        Arc::new(own)
    }

    /// Shares repeated closures within the record, and its probe list with other hosts.
    pub(super) fn intern(&mut self, record: &mut HostRecord) {
        let target = record.target_closure.clone();
        let share = |closure: &mut ClosureHash| {
            if *closure == target {
                *closure = target.clone();
            }
        };
        record.current_closure.iter_mut().for_each(share);
        let claim = record.convergence_claim.iter_mut();
        claim.for_each(|claim| share(&mut claim.current_closure));
        if let (Some(reverted_to), Some(before)) =
            (&mut record.reverted_to, &record.current_closure_at_dispatch)
            && reverted_to == before
        {
            *reverted_to = before.clone();
        }
        if record.reverted_to.is_some() && record.reverted_to == record.current_closure {
            record.current_closure.clone_from(&record.reverted_to);
        }
        self.add(record);
        self.intern_probes(record);
    }

    fn add(&mut self, record: &HostRecord) {
        if let Some(declared) = &record.declared_probes
            && self.0.len() < LISTS_MAX
            && !self.0.iter().any(|kept| kept == declared)
        {
            self.0.push(Arc::clone(declared));
        }
    }
}
