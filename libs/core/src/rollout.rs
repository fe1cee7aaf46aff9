//! The state machine of one rollout.
//!
//! Source: docs/semantics.md, rollout machine.

mod validate;

use std::collections::BTreeSet;

use nixfleet_proto::rollout::Rollback;
use nixfleet_proto::{
    ChannelName, ChannelRef, Effect, HostState, Hostname, Pinned, Reason, Rejection, RolloutEvent,
    RolloutId, RolloutRecord, RolloutState, Timestamp,
};

pub use validate::validate;

/// Result of an accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct RolloutStep {
    /// The next record.
    pub next: RolloutRecord,
    /// Effects, in order: the transition, the wave, then the others.
    pub effects: Vec<Effect>,
}

/// The fields of a new rollout.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "same names and meanings as in `RolloutRecord`")]
pub struct NewRollout {
    pub rollout_id: RolloutId,
    pub channel: ChannelName,
    pub target_ref: ChannelRef,
    pub opened_at: Timestamp,
}

/// The record of a rollout in `Opening`, at its first wave with hosts.
///
/// # Errors
/// `invariant` when there is no host.
pub fn open(new: NewRollout, pinned: &Pinned) -> Result<RolloutRecord, Rejection> {
    if pinned.host_set.is_empty() {
        return Err(Rejection::new(
            Reason::Invariant,
            "the rollout has no hosts",
        ));
    }
    let staged = pinned.host_set.iter().filter(|host| host.staged);
    Ok(RolloutRecord {
        rollout_id: new.rollout_id,
        channel: new.channel,
        target_ref: new.target_ref,
        state: RolloutState::Opening,
        current_wave: staged.map(|host| host.wave_index).min().unwrap_or(0),
        opened_at: new.opened_at,
        terminal_at: None,
        superseded_at: None,
        superseded_by: None,
        waived_hosts: BTreeSet::new(),
    })
}

/// Applies one event to a rollout.
///
/// # Errors
/// `illegal`; the record stays as it is.
#[expect(clippy::too_many_lines, reason = "the transition table is one match")]
pub fn step(record: &RolloutRecord, event: &RolloutEvent) -> Result<RolloutStep, Rejection> {
    use RolloutEvent as E;
    let illegal = || Err(Rejection::illegal(record.state.name(), event.name()));
    match record.state {
        RolloutState::Opening => match event {
            E::HostJoined { at, .. } => moved(record, RolloutState::Active, *at),
            E::SuccessorOpened {
                successor_rollout_id: successor,
                at,
                ..
            } => supersede(record, successor, *at),
            E::RolloutOpened { .. } | E::HostStateChanged { .. } => illegal(),
            E::WaveAdvanced { .. } | E::RolloutTerminal { .. } => illegal(),
            E::RetentionExpired { .. } | E::OperatorClearance { .. } => illegal(),
        },
        RolloutState::Active | RolloutState::Converging => match event {
            E::HostJoined { .. } => unchanged(record),
            E::HostStateChanged {
                hostname,
                to,
                rollback,
                at,
                ..
            } => follow_host(record, hostname, (*to, *rollback), *at),
            E::WaveAdvanced {
                from_wave,
                to_wave,
                at,
                ..
            } => advance(record, (*from_wave, *to_wave), *at),
            E::RolloutTerminal { at, .. } => terminate(record, *at),
            E::SuccessorOpened {
                successor_rollout_id: successor,
                at,
                ..
            } => supersede(record, successor, *at),
            E::OperatorClearance { waived_hosts, .. } => waive(record, waived_hosts),
            E::RolloutOpened { .. } | E::RetentionExpired { .. } => illegal(),
        },
        RolloutState::Terminal => match event {
            E::HostJoined { .. } | E::HostStateChanged { .. } => unchanged(record),
            E::RolloutTerminal { .. } => unchanged(record),
            E::SuccessorOpened {
                successor_rollout_id: successor,
                at,
                ..
            } => supersede(record, successor, *at),
            E::RolloutOpened { .. } | E::WaveAdvanced { .. } => illegal(),
            E::RetentionExpired { .. } | E::OperatorClearance { .. } => illegal(),
        },
        RolloutState::Reverted => match event {
            E::HostJoined { .. } | E::HostStateChanged { .. } => unchanged(record),
            E::WaveAdvanced { .. } | E::RolloutTerminal { .. } => unchanged(record),
            E::SuccessorOpened {
                successor_rollout_id: successor,
                at,
                ..
            } => supersede(record, successor, *at),
            E::OperatorClearance {
                waived_hosts, at, ..
            } => clear(record, waived_hosts, *at),
            E::RolloutOpened { .. } | E::RetentionExpired { .. } => illegal(),
        },
        RolloutState::Failed => match event {
            E::HostJoined { .. } => unchanged(record),
            E::HostStateChanged {
                hostname, to, at, ..
            } => follow_host_of_failed(record, hostname, *to, *at),
            E::WaveAdvanced { .. } | E::RolloutTerminal { .. } => unchanged(record),
            E::SuccessorOpened {
                successor_rollout_id: successor,
                at,
                ..
            } => supersede(record, successor, *at),
            E::OperatorClearance {
                waived_hosts, at, ..
            } => clear(record, waived_hosts, *at),
            E::RolloutOpened { .. } | E::RetentionExpired { .. } => illegal(),
        },
        RolloutState::Superseded => match event {
            E::HostJoined { .. } | E::HostStateChanged { .. } => unchanged(record),
            E::WaveAdvanced { .. } | E::RolloutTerminal { .. } => unchanged(record),
            E::SuccessorOpened { .. } => unchanged(record),
            E::RetentionExpired { at, .. } => moved(record, RolloutState::Pruned, *at),
            E::RolloutOpened { .. } | E::OperatorClearance { .. } => illegal(),
        },
        RolloutState::Pruned => illegal(),
    }
}

type Stepped = Result<RolloutStep, Rejection>;

fn unchanged(record: &RolloutRecord) -> Stepped {
    Ok(RolloutStep {
        next: record.clone(),
        effects: Vec::new(),
    })
}

/// Changes the state. A rollout that becomes final cancels its queued dispatches; one that leaves a
/// halted state lifts the halt.
fn moved(record: &RolloutRecord, to: RolloutState, at: Timestamp) -> Stepped {
    let rollout_id = record.rollout_id.clone();
    let mut effects = vec![Effect::RecordRolloutTransition {
        rollout_id: rollout_id.clone(),
        from: record.state,
        to,
        at,
    }];
    if to.is_final() {
        effects.push(Effect::CancelDispatches { rollout_id });
    }
    if record.state.is_halted() && !to.is_halted() {
        effects.push(Effect::HaltLifted {
            channel: record.channel.clone(),
        });
    }
    let next = RolloutRecord {
        state: to,
        ..record.clone()
    };
    Ok(RolloutStep { next, effects })
}

fn follow_host(
    record: &RolloutRecord,
    hostname: &Hostname,
    (to, rollback): (HostState, Option<Rollback>),
    at: Timestamp,
) -> Stepped {
    if record.waived_hosts.contains(hostname) {
        return unchanged(record);
    }
    match (to, rollback) {
        (HostState::Reverted, _) => moved(record, RolloutState::Reverted, at),
        // An absent field means that no rollback follows.
        (HostState::Failed, Some(Rollback::None) | None) => moved(record, RolloutState::Failed, at),
        (HostState::Failed, Some(Rollback::Expected)) => unchanged(record),
        (HostState::Pending | HostState::Activating | HostState::Deferred, _) => unchanged(record),
        (HostState::Soaking | HostState::Converged, _) => unchanged(record),
    }
}

fn follow_host_of_failed(
    record: &RolloutRecord,
    hostname: &Hostname,
    to: HostState,
    at: Timestamp,
) -> Stepped {
    if to == HostState::Reverted && !record.waived_hosts.contains(hostname) {
        moved(record, RolloutState::Reverted, at)
    } else {
        unchanged(record)
    }
}

/// A later wave makes the rollout Active; without one it is Converging.
fn advance(record: &RolloutRecord, (from, to): (u32, u32), at: Timestamp) -> Stepped {
    if to <= from {
        return enter(record, RolloutState::Converging, at);
    }
    let mut step = enter(record, RolloutState::Active, at)?;
    raise_wave(&mut step, to);
    Ok(step)
}

fn enter(record: &RolloutRecord, to: RolloutState, at: Timestamp) -> Stepped {
    if record.state == to {
        unchanged(record)
    } else {
        moved(record, to, at)
    }
}

/// The current wave never decreases.
fn raise_wave(step: &mut RolloutStep, wave: u32) {
    if wave > step.next.current_wave {
        step.next.current_wave = wave;
        step.effects.push(Effect::UpdateCurrentWave {
            rollout_id: step.next.rollout_id.clone(),
            wave,
        });
    }
}

fn terminate(record: &RolloutRecord, at: Timestamp) -> Stepped {
    let mut step = moved(record, RolloutState::Terminal, at)?;
    step.next.terminal_at = Some(at);
    Ok(step)
}

fn supersede(record: &RolloutRecord, successor: &RolloutId, at: Timestamp) -> Stepped {
    let mut step = moved(record, RolloutState::Superseded, at)?;
    step.next.superseded_at = Some(at);
    step.next.superseded_by = Some(successor.clone());
    Ok(step)
}

fn waive(record: &RolloutRecord, hosts: &BTreeSet<Hostname>) -> Stepped {
    let mut step = unchanged(record)?;
    step.next.waived_hosts.extend(hosts.iter().cloned());
    Ok(step)
}

fn clear(record: &RolloutRecord, hosts: &BTreeSet<Hostname>, at: Timestamp) -> Stepped {
    let mut step = moved(record, RolloutState::Active, at)?;
    step.next.waived_hosts.extend(hosts.iter().cloned());
    Ok(step)
}
