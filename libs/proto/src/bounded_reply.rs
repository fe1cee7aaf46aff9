//! Replies of the control plane within the bounds that its own clients keep.
//!
//! An agent acts on nothing else: whoever answers it may lie, and must not reach its arithmetic, its memory
//! or its disk with a value that no honest control plane sends.
//!
//! Source: docs/wire-protocol.md, limits.

use std::ops::Deref;

use crate::Timestamp;
use crate::bounds::{
    BOOTSTRAP_ROLLOUTS_MAX, INTEGER_MAX, OutOfBounds, TEXT_BYTES_MAX, is_plausible,
};
use crate::wire::{Dispatch, HeartbeatReply, HostSnapshot};

/// A reply whose every value is within its bound.
///
/// [`Bounded::check`] is the only constructor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded<T>(T);

impl<T: Reply> Bounded<T> {
    /// Checks a reply as it came.
    ///
    /// # Errors
    /// The first value out of bounds; nothing of the reply is to be used then.
    pub fn check(reply: T) -> Result<Self, OutOfBounds> {
        reply.check().map(|()| Self(reply))
    }

    /// The reply, which no longer proves its check.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Bounded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A body of the control plane for an agent.
pub trait Reply {
    /// Checks every field.
    ///
    /// # Errors
    /// The first one out of bounds.
    fn check(&self) -> Result<(), OutOfBounds>;
}

impl Reply for HeartbeatReply {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self {
            received_at,
            bootstrap_rollouts,
        } = self;
        time("received_at", *received_at)?;
        let count = bootstrap_rollouts.len();
        if count > BOOTSTRAP_ROLLOUTS_MAX {
            let fault = format!("{count} records are more than {BOOTSTRAP_ROLLOUTS_MAX}");
            return Err(OutOfBounds::new("bootstrap_rollouts", fault));
        }
        bootstrap_rollouts.iter().try_for_each(snapshot)
    }
}

fn snapshot(snapshot: &HostSnapshot) -> Result<(), OutOfBounds> {
    let HostSnapshot {
        rollout_id,
        hostname,
        channel,
        state: _,
        target_closure,
        current_closure_at_dispatch,
        current_closure,
        dispatched_at,
        dispatch_acked_at,
        activation_started_at,
        activation_completed_at,
        soak_due_at,
        last_event_seq,
    } = snapshot;
    text("rolloutId", rollout_id.as_str())?;
    text("hostname", hostname.as_str())?;
    if *channel != rollout_id.channel() {
        return Err(OutOfBounds::new("channel", "is not that of the rollout"));
    }
    text("targetClosure", target_closure.as_str())?;
    for (field, closure) in [
        ("currentClosureAtDispatch", current_closure_at_dispatch),
        ("currentClosure", current_closure),
    ] {
        text(
            field,
            closure.as_ref().map_or("", |closure| closure.as_str()),
        )?;
    }
    time("dispatchedAt", *dispatched_at)?;
    for (field, at) in [
        ("dispatchAckedAt", dispatch_acked_at),
        ("activationStartedAt", activation_started_at),
        ("activationCompletedAt", activation_completed_at),
        ("soakDueAt", soak_due_at),
    ] {
        at.map_or(Ok(()), |at| time(field, at))?;
    }
    if *last_event_seq > INTEGER_MAX {
        let fault = format!("{last_event_seq} is above {INTEGER_MAX}");
        return Err(OutOfBounds::new("lastEventSeq", fault));
    }
    Ok(())
}

impl Reply for Dispatch {
    fn check(&self) -> Result<(), OutOfBounds> {
        let Self {
            hostname,
            rollout_id,
            target_closure,
            soak_due_at,
            soak_minutes: _,
            enqueued_at,
        } = self;
        text("hostname", hostname.as_str())?;
        text("rollout_id", rollout_id.as_str())?;
        text("target_closure", target_closure.as_str())?;
        time("soak_due_at", *soak_due_at)?;
        time("enqueued_at", *enqueued_at)
    }
}

fn text(field: &str, text: &str) -> Result<(), OutOfBounds> {
    if text.len() > TEXT_BYTES_MAX {
        let fault = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
        return Err(OutOfBounds::new(field, fault));
    }
    if text.contains('\0') {
        return Err(OutOfBounds::new(field, "holds a NUL character"));
    }
    Ok(())
}

fn time(field: &str, at: Timestamp) -> Result<(), OutOfBounds> {
    if is_plausible(at) {
        Ok(())
    } else {
        let fault = format!("{at} is not within the years 2000 to 2199");
        Err(OutOfBounds::new(field, fault))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reply() -> Value {
        const AT: &str = "2026-05-01T10:00:00Z";
        json!({"received_at": AT, "bootstrap_rollouts": [{
            "rolloutId": "stable@4f", "hostname": "web-01", "channel": "stable", "state": "Failed",
            "targetClosure": "b", "currentClosureAtDispatch": "a", "currentClosure": "b",
            "dispatchedAt": AT, "dispatchAckedAt": AT, "activationStartedAt": AT,
            "activationCompletedAt": AT, "soakDueAt": AT, "lastEventSeq": 9_223_372_036_854_775_807_u64,
        }]})
    }

    #[track_caller]
    fn check(reply: Value, field: Option<&str>) {
        let reply: HeartbeatReply = serde_json::from_value(reply).unwrap();
        let fault = Bounded::check(reply).err();
        let found = fault.as_ref().map(|fault| fault.field.as_str());
        assert_eq!(found, field, "{fault:?}");
    }

    fn with(field: &str, value: Value) -> Value {
        let mut reply = reply();
        reply["bootstrap_rollouts"][0][field] = value;
        reply
    }

    #[test]
    fn a_reply_passes_the_bounds_of_a_request() {
        check(reply(), None);
        let far = [Value::from(u64::MAX), Value::from(INTEGER_MAX + 1)];
        for seq in far {
            check(with("lastEventSeq", seq), Some("lastEventSeq"));
        }
        for field in [
            "dispatchedAt",
            "dispatchAckedAt",
            "activationStartedAt",
            "activationCompletedAt",
            "soakDueAt",
        ] {
            for year in [
                "1999-12-31T23:59:59Z",
                "2200-01-01T00:00:00Z",
                "+262142-01-01T00:00:00Z",
            ] {
                check(with(field, year.into()), Some(field));
            }
        }
        for field in [
            "targetClosure",
            "currentClosureAtDispatch",
            "currentClosure",
        ] {
            check(with(field, "x".repeat(1024).into()), None);
            check(with(field, "x".repeat(1025).into()), Some(field));
            check(with(field, "a\0b".into()), Some(field));
        }
        check(with("channel", "edge".into()), Some("channel"));
    }

    #[test]
    fn a_reply_has_a_largest_number_of_records() {
        let mut many = reply();
        let one = many["bootstrap_rollouts"][0].clone();
        many["bootstrap_rollouts"] = vec![one.clone(); BOOTSTRAP_ROLLOUTS_MAX].into();
        check(many.clone(), None);
        many["bootstrap_rollouts"] = vec![one; BOOTSTRAP_ROLLOUTS_MAX + 1].into();
        check(many, Some("bootstrap_rollouts"));
    }

    #[test]
    fn a_dispatch_is_bounded() {
        let dispatch = |field: &str, value: &str| {
            let mut dispatch = json!({
                "hostname": "web-01", "rollout_id": "stable@4f", "target_closure": "b",
                "soak_due_at": "2026-05-01T10:00:00Z", "soak_minutes": 1,
                "enqueued_at": "2026-05-01T10:00:00Z",
            });
            dispatch[field] = value.into();
            let dispatch: Dispatch = serde_json::from_value(dispatch).unwrap();
            Bounded::check(dispatch)
                .map(|_| ())
                .map_err(|fault| fault.field)
        };
        let long = "x".repeat(1025);
        assert_eq!(dispatch("target_closure", "b"), Ok(()));
        for (field, value) in [
            ("target_closure", long.as_str()),
            ("soak_due_at", "2200-01-01T00:00:00Z"),
            ("enqueued_at", "1999-01-01T00:00:00Z"),
        ] {
            assert_eq!(dispatch(field, value), Err(field.to_owned()));
        }
    }
}
