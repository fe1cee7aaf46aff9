//! Entries of the input log as text of one trace line.

use std::fmt;

use nixfleet_proto::{EntryBody, PlanAction, Producer};

/// Formats an entry for the trace.
pub struct EntrySummary<'a>(pub &'a EntryBody);

impl fmt::Display for EntrySummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.0;
        let name = match body {
            EntryBody::HostEvent { event, .. } => event.body.name(),
            EntryBody::RecoveryCandidate { .. }
            | EntryBody::Plan { .. }
            | EntryBody::Operator { .. } => body.name(),
        };
        f.write_str(name)?;
        if let Some(rollout_id) = body.rollout_id() {
            write!(f, " {rollout_id}")?;
        }
        if let Some(hostname) = body.hostname() {
            write!(f, " {hostname}")?;
        }
        match body {
            EntryBody::HostEvent {
                producer: Producer::Agent,
                event,
                ..
            } => write!(f, " #{}", event.seq),
            EntryBody::HostEvent {
                producer: Producer::Recovery,
                event,
                ..
            } => write!(f, " recovery #{}", event.seq),
            EntryBody::Plan { epoch, action } => {
                write!(f, " epoch {epoch}")?;
                write_holds(f, action)
            }
            EntryBody::RecoveryCandidate {
                current_closure, ..
            } => write!(f, " runs {current_closure}"),
            EntryBody::Operator { .. } => Ok(()),
        }
    }
}

/// Hosts that a gate blocks, with the reasons.
fn write_holds(f: &mut fmt::Formatter<'_>, action: &PlanAction) -> fmt::Result {
    let PlanAction::BlocksChanged {
        wave, gate, holds, ..
    } = action
    else {
        return Ok(());
    };
    write!(f, " wave {wave} {}", gate.name())?;
    for hold in holds {
        match &hold.hosts {
            Some(hosts) => write!(f, " [{hosts:?}: {}]", hold.reason)?,
            None => write!(f, " [all: {}]", hold.reason)?,
        }
    }
    Ok(())
}
