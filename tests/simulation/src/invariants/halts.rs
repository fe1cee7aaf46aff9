//! No host is dispatched or found unchanged while its rollout is halted or finished, or its closure is
//! quarantined on its channel; and only what a console signed lifts a halt or a quarantine.
//!
//! Source: docs/semantics.md, legality.

use std::collections::BTreeSet;

use nixfleet_proto::{
    ChannelName, ClosureHash, EntryBody, HostEventBody, HostState, OperatorCommand,
};

use crate::simulated_console;

use super::folded_entry::{CheckResult, FoldedEntry, is_running};

/// # Errors
/// When a command without a console's signature was accepted.
fn check_signature(folded: FoldedEntry<'_>) -> CheckResult {
    match &folded.entry.body {
        EntryBody::Operator { origin, command }
            if folded.accepted().is_some() && !simulated_console::is_signed(origin) =>
        {
            Err(format!("nobody signed {command:?}, which was accepted"))
        }
        EntryBody::HostEvent { .. }
        | EntryBody::RecoveryCandidate { .. }
        | EntryBody::Plan { .. }
        | EntryBody::Operator { .. } => Ok(()),
    }
}

/// Closures after a rollback.
#[derive(Debug, Default)]
pub struct Halts {
    quarantined: BTreeSet<(ChannelName, ClosureHash)>,
}

impl Halts {
    /// Checks an entry.
    ///
    /// # Errors
    /// Names what should have held the host.
    pub fn check(&mut self, folded: FoldedEntry<'_>) -> CheckResult {
        check_signature(folded)?;
        self.record(folded);
        let Some(started) = folded.started_host() else {
            return Ok(());
        };
        let (rollout, record) = (started.rollout, &started.host.record);
        let who = format!("{} in {}", record.hostname, record.rollout_id);
        // An unchanged host may be the last of its rollout.
        if started.is_dispatch && !is_running(rollout) {
            return Err(format!("{who} is dispatched in {:?}", rollout.record.state));
        }
        let failed = rollout.hosts.values().find(|host| {
            let hostname = &host.record.hostname;
            host.record.state == HostState::Failed
                && !rollout.record.waived_hosts.contains(hostname)
        });
        if let Some(failed) = failed {
            let hostname = &failed.record.hostname;
            return Err(format!("{who} starts although {hostname} failed"));
        }
        let closure = (record.channel.clone(), record.target_closure.clone());
        if self.quarantined.contains(&closure) {
            return Err(format!("{who} starts with a quarantined closure"));
        }
        Ok(())
    }

    fn record(&mut self, folded: FoldedEntry<'_>) {
        if folded.accepted().is_none() {
            return;
        }
        match &folded.entry.body {
            EntryBody::HostEvent {
                rollout_id,
                hostname,
                event,
                ..
            } if matches!(event.body, HostEventBody::RollbackComplete { .. }) => {
                let rollout = folded.rollout(rollout_id);
                if let Some(host) = rollout.and_then(|rollout| rollout.hosts.get(hostname)) {
                    let closure = host.record.target_closure.clone();
                    self.quarantined.insert((rollout_id.channel(), closure));
                }
            }
            EntryBody::Operator {
                command:
                    OperatorCommand::ClearQuarantine {
                        channel,
                        closure_hash,
                        ..
                    },
                ..
            } => {
                let closure = (channel.clone(), closure_hash.clone());
                self.quarantined.remove(&closure);
            }
            EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Plan { .. }
            | EntryBody::Operator { .. } => {}
        }
    }
}
