//! The JSON size of outcomes, which a frame limits.
//!
//! Serializing an outcome only to count its bytes costs several times its decision, and few outcomes come
//! near the limit. The fold therefore computes an upper bound from the lengths of texts and lists, and
//! counts exactly only above the limit.

use std::io;

use nixfleet_proto::action::Hold;
use nixfleet_proto::frame::MAX_OUTPUT_FRAME_BYTES;
use nixfleet_proto::host::{FailedControl, ProbeRecord};
use nixfleet_proto::outcome::Opened;
use nixfleet_proto::{
    Accepted, Decision, Effect, HostRecord, Outcome, Reason, Rejection, RolloutEvent, RolloutRecord,
};

/// Most bytes of one outcome as JSON with the comma after it: a frame has room for at least one.
pub const MAX_OUTCOME_BYTES: usize = MAX_OUTPUT_FRAME_BYTES - 16 * 1024;

/// Upper bound of the keys, numbers, times and state names in any one of the structures below: the
/// largest, a host record, has 30 keys.
const FIXED: usize = 2_048;
/// JSON escapes a control character with six bytes.
const ESCAPED: usize = 6;

/// Replaces an outcome that exceeds a frame by a rejection: its entry must not stop the partition.
pub(super) fn reject_oversized(outcome: &mut Outcome) {
    if size_bound(outcome) <= MAX_OUTCOME_BYTES {
        return;
    }
    let bytes = json_bytes(outcome);
    if bytes > MAX_OUTCOME_BYTES {
        let message = format!("what follows takes {bytes} bytes, more than {MAX_OUTCOME_BYTES}");
        outcome.decision = Decision::Rejected(Rejection::new(Reason::Invariant, message));
    }
}

/// Appends the JSON of an outcome.
///
/// # Panics
/// Never: an outcome has text keys only, and writing to memory cannot fail.
pub fn write_outcome(outcome: &Outcome, json: &mut Vec<u8>) {
    let before = json.len();
    serde_json::to_writer(&mut *json, outcome)
        .expect("an outcome has text keys only, and writing to memory cannot fail");
    let bytes = json.len() - before;
    debug_assert!(bytes < size_bound(outcome), "the bound is too low");
}

/// Bytes of the outcome as JSON with the comma after it.
pub(super) fn json_bytes(outcome: &Outcome) -> usize {
    struct Count(usize);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(1);
    serde_json::to_writer(&mut count, outcome)
        .expect("an outcome has text keys only, and counting cannot fail");
    count.0
}

/// Upper bound of [`json_bytes`].
pub(super) fn size_bound(outcome: &Outcome) -> usize {
    let subject = &outcome.subject;
    let of_subject = text(&subject.entry)
        + maybe(subject.event.as_deref())
        + maybe(subject.rollout_id.as_ref())
        + maybe(subject.hostname.as_ref())
        + maybe(outcome.traceparent.as_deref());
    let of_decision = match &outcome.decision {
        Decision::Accepted(accepted) => accepted_bound(accepted),
        Decision::Rejected(rejection) => text(&rejection.message),
    };
    FIXED + of_subject + of_decision
}

fn accepted_bound(accepted: &Accepted) -> usize {
    let Accepted {
        opened,
        hosts,
        rollouts,
        events,
        effects,
        leader_epoch: _,
    } = accepted;
    let opened = opened.iter().map(|opened| {
        let Opened {
            rollout_id,
            manifest_hash,
        } = opened;
        text(rollout_id) + text(manifest_hash)
    });
    opened.sum::<usize>()
        + hosts.iter().map(|record| host(record)).sum::<usize>()
        + rollouts.iter().map(rollout).sum::<usize>()
        + events.iter().map(event).sum::<usize>()
        + effects.iter().map(effect).sum::<usize>()
}

fn host(record: &HostRecord) -> usize {
    let names = text(&record.rollout_id) + text(&record.hostname) + text(&record.channel);
    let closures = text(&record.target_closure)
        + maybe(record.current_closure_at_dispatch.as_ref())
        + maybe(record.current_closure.as_ref())
        + maybe(record.reverted_to.as_ref());
    let claim = record.convergence_claim.iter();
    let claim = claim.map(|claim| text(&claim.current_closure));
    let probes = record.probes.iter().map(|(name, record)| {
        let ProbeRecord {
            failure_reason,
            failing_controls,
            ..
        } = record;
        let controls = failing_controls.iter().flat_map(|controls| controls.iter());
        FIXED + text(name) + maybe(failure_reason.as_deref()) + controls.map(control).sum::<usize>()
    });
    let declared = record.declared_probes.as_deref().unwrap_or_default();
    let declared = declared
        .iter()
        .map(|probe| FIXED + text(&probe.probe_name) + text(&probe.kind));
    FIXED + names + closures + claim.chain(probes).chain(declared).sum::<usize>()
}

fn control(control: &FailedControl) -> usize {
    let FailedControl {
        control_id,
        framework,
    } = control;
    FIXED + maybe(control_id.as_deref()) + maybe(framework.as_deref())
}

fn rollout(record: &RolloutRecord) -> usize {
    let names = text(&record.rollout_id) + text(&record.channel) + text(&record.target_ref);
    let waived = record.waived_hosts.iter().map(text);
    FIXED + names + maybe(record.superseded_by.as_ref()) + waived.sum::<usize>()
}

fn event(event: &RolloutEvent) -> usize {
    use RolloutEvent as E;
    let texts = match event {
        E::RolloutOpened {
            rollout_id,
            channel,
            target_ref,
            ..
        } => text(rollout_id) + text(channel) + text(target_ref),
        E::HostStateChanged {
            rollout_id,
            hostname,
            ..
        } => text(rollout_id) + text(hostname),
        E::HostJoined { rollout_id, .. }
        | E::WaveAdvanced { rollout_id, .. }
        | E::RolloutTerminal { rollout_id, .. }
        | E::RetentionExpired { rollout_id, .. } => text(rollout_id),
        E::SuccessorOpened {
            superseded_rollout_id,
            successor_rollout_id,
            ..
        } => text(superseded_rollout_id) + text(successor_rollout_id),
        E::OperatorClearance {
            rollout_id,
            operator,
            reason,
            waived_hosts,
            ..
        } => {
            let waived = waived_hosts.iter().map(text);
            text(rollout_id) + text(operator) + text(reason) + waived.sum::<usize>()
        }
    };
    FIXED + texts
}

fn effect(effect: &Effect) -> usize {
    use Effect as E;
    let texts = match effect {
        E::ReplaceProbeFailures {
            rollout_id,
            hostname,
            probe_name,
            failures,
            ..
        } => {
            let failures = failures.iter().map(control).sum::<usize>();
            text(rollout_id) + text(hostname) + text(probe_name) + failures
        }
        E::InsertQuarantine {
            channel,
            closure_hash,
        }
        | E::RemoveQuarantine {
            channel,
            closure_hash,
        } => text(channel) + text(closure_hash),
        E::InsertDispatch {
            rollout_id,
            hostname,
            target_closure,
            ..
        } => text(rollout_id) + text(hostname) + text(target_closure),
        E::RemoveDispatch {
            rollout_id,
            hostname,
        }
        | E::RecordTransition {
            rollout_id,
            hostname,
            ..
        } => text(rollout_id) + text(hostname),
        E::SetRecoveryCandidate {
            rollout_id,
            hostname,
            current_closure,
        } => text(rollout_id) + text(hostname) + maybe(current_closure.as_ref()),
        E::CancelDispatches { rollout_id }
        | E::RecordRolloutTransition { rollout_id, .. }
        | E::UpdateCurrentWave { rollout_id, .. } => text(rollout_id),
        E::HaltLifted { channel } => text(channel),
        E::ReplaceBlocks {
            rollout_id, holds, ..
        } => text(rollout_id) + holds.iter().map(hold).sum::<usize>(),
    };
    FIXED + texts
}

fn hold(hold: &Hold) -> usize {
    let Hold {
        reason,
        hosts,
        cause: _,
    } = hold;
    let hosts = hosts.iter().flatten().map(text);
    FIXED + text(reason) + hosts.sum::<usize>()
}

/// A text with its quotes and a separator.
fn text(text: &(impl AsRef<str> + ?Sized)) -> usize {
    ESCAPED * text.as_ref().len() + 4
}

fn maybe<T: AsRef<str> + ?Sized>(text: Option<&T>) -> usize {
    text.map_or(0, self::text)
}
