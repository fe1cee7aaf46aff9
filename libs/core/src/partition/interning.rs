//! One copy of what many hosts have in common.
//!
//! Records that come over the wire or out of rows bring texts and lists of their own. A state of a
//! million hosts keeps them once; nothing is decided by it.

use std::sync::Arc;

use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{ClosureHash, HostRecord};

/// Most distinct lists that are kept: hosts of one rollout differ little in what they probe.
const LISTS_MAX: usize = 32;

/// Probe lists that hosts of a rollout declared.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeListPool(Vec<Arc<[ProbeDeclaration]>>);

/// Derived: two states that differ in nothing else are the same state.
impl PartialEq for ProbeListPool {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ProbeListPool {}

impl ProbeListPool {
    /// Lets a record use the list that is kept, when it is equal.
    pub(super) fn intern_probes(&self, record: &mut HostRecord) {
        if let Some(declared) = &mut record.declared_probes
            && let Some(kept) = self.0.iter().find(|kept| *kept == declared)
        {
            *declared = Arc::clone(kept);
        }
    }

    /// The record as the state keeps it, in place of `before`.
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

    /// Shares what the record names more than once, and its probe list with other hosts.
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
