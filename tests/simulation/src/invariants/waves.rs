//! No wave is bypassed: a wave begins when every host of the wave before is done, and no host of a later wave
//! or without a wave starts.
//!
//! Source: docs/semantics.md, legality and rollout machine.

use std::collections::BTreeMap;

use nixfleet_core::partition::Rollout;
use nixfleet_proto::{PlanAction, RolloutId};

use super::folded_entry::{CheckResult, FoldedEntry, is_done};

/// The wave of each rollout, according to the log.
#[derive(Debug, Default)]
pub struct Waves {
    reached: BTreeMap<RolloutId, u32>,
}

impl Waves {
    /// Checks an entry.
    ///
    /// # Errors
    /// Names the wave.
    pub fn check(&mut self, folded: FoldedEntry<'_>) -> CheckResult {
        if let Some(opened) = folded
            .accepted()
            .and_then(|accepted| accepted.opened.as_ref())
        {
            let rollout = folded.rollout(&opened.rollout_id);
            let first = rollout
                .and_then(|rollout| waves(rollout).min())
                .unwrap_or(0);
            self.reached.insert(opened.rollout_id.clone(), first);
        }
        if let Some(PlanAction::AdvanceWave {
            rollout_id,
            from_wave,
            to_wave,
        }) = folded.action()
        {
            return self.advance(folded, rollout_id, (*from_wave, *to_wave));
        }
        let Some(started) = folded.started_host() else {
            return Ok(());
        };
        let record = &started.host.record;
        let reached = self.reached.get(&record.rollout_id).copied();
        if !started.host.staged {
            return Err(format!("{} is in no wave and starts", record.hostname));
        }
        if reached.is_none_or(|reached| started.host.wave > reached) {
            return Err(format!(
                "{} of wave {} starts, {} has reached {reached:?}",
                record.hostname, started.host.wave, record.rollout_id
            ));
        }
        Ok(())
    }

    fn advance(
        &mut self,
        folded: FoldedEntry<'_>,
        id: &RolloutId,
        (from, to): (u32, u32),
    ) -> CheckResult {
        let Some(rollout) = folded.rollout(id) else {
            return Err(format!("{id} advances and does not exist"));
        };
        if self.reached.get(id) != Some(&from) {
            return Err(format!("{id} leaves wave {from}, which it was not at"));
        }
        let unfinished = rollout.hosts.values().find(|host| {
            host.staged && host.wave == from && !is_done(rollout, &host.record.hostname)
        });
        if let Some(host) = unfinished {
            let hostname = &host.record.hostname;
            return Err(format!("{id} leaves wave {from} before {hostname} is done"));
        }
        if waves(rollout).filter(|wave| *wave > from).min() != Some(to) {
            return Err(format!("{id} goes from wave {from} to {to}"));
        }
        self.reached.insert(id.clone(), to);
        Ok(())
    }
}

/// Waves that have hosts.
fn waves(rollout: &Rollout) -> impl Iterator<Item = u32> {
    rollout
        .hosts
        .values()
        .filter(|host| host.staged)
        .map(|host| host.wave)
}
