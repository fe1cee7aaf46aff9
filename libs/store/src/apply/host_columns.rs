//! The typed columns of a host row, besides its record, as arrays for one statement.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use nixfleet_proto::{ClosureHash, HostRecord, Timestamp};
use tokio_postgres::types::{ToSql, Type};

use crate::parameter_encoding::column_value::column_time;
use crate::parameter_encoding::nul_escape::encode;

/// Number of times in a record that transitions set, in the order of `hosts_update.sql`.
const MOMENTS: usize = 10;

type Moment = Option<DateTime<Utc>>;
type Text<'a> = Option<Cow<'a, str>>;

/// One array for each column that a transition may change.
#[derive(Debug, Default)]
pub(super) struct HostColumns<'a> {
    states: Vec<&'static str>,
    closures_at_dispatch: Vec<Text<'a>>,
    closures: Vec<Text<'a>>,
    reverted_to: Vec<Text<'a>>,
    moments: [Vec<Moment>; MOMENTS],
    policies: Vec<Option<&'static str>>,
    unchanged: Vec<bool>,
    // As text, because these numbers are unsigned and the widest integer of Postgres is too narrow.
    event_seqs: Vec<String>,
    recovery_seqs: Vec<String>,
}

impl<'a> HostColumns<'a> {
    pub(super) fn push(&mut self, record: &'a HostRecord) {
        self.states.push(record.state.name());
        self.closures_at_dispatch
            .push(text(record.current_closure_at_dispatch.as_ref()));
        self.closures.push(text(record.current_closure.as_ref()));
        self.reverted_to.push(text(record.reverted_to.as_ref()));
        for (column, at) in self.moments.iter_mut().zip(moments(record)) {
            column.push(at.map(column_time));
        }
        self.policies
            .push(record.policy_applied.map(|policy| policy.name()));
        self.unchanged.push(record.unchanged);
        self.event_seqs.push(record.last_event_seq.to_string());
        self.recovery_seqs.push(record.recovery_seq.to_string());
    }

    /// The arrays in the order of `hosts_update.sql`, with their types.
    pub(super) fn params(&self) -> impl Iterator<Item = (&(dyn ToSql + Sync), Type)> {
        let first: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.states, Type::TEXT_ARRAY),
            (&self.closures_at_dispatch, Type::TEXT_ARRAY),
            (&self.closures, Type::TEXT_ARRAY),
            (&self.reverted_to, Type::TEXT_ARRAY),
        ];
        let moments = self.moments.iter();
        let moments = moments.map(|column| (column as _, Type::TIMESTAMPTZ_ARRAY));
        let last: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.policies, Type::TEXT_ARRAY),
            (&self.unchanged, Type::BOOL_ARRAY),
            (&self.event_seqs, Type::TEXT_ARRAY),
            (&self.recovery_seqs, Type::TEXT_ARRAY),
        ];
        first.into_iter().chain(moments).chain(last)
    }
}

fn text(closure: Option<&ClosureHash>) -> Text<'_> {
    closure.map(|closure| encode(closure.as_str()))
}

fn moments(record: &HostRecord) -> [Option<Timestamp>; MOMENTS] {
    [
        record.dispatch_acked_at,
        record.activation_started_at,
        record.activation_completed_at,
        record.activation_failed_at,
        record.probe_observed_first_at,
        record.probe_failure_first_at,
        record.soak_due_at,
        record.converged_at,
        record.failed_at,
        record.reverted_at,
    ]
}
