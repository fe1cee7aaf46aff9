//! The archived history of a rollout.

use nixfleet_proto::{Position, RolloutId};
use tokio_postgres::Row;

use super::{EventPage, EventView};
use crate::error::ReadError;
use crate::load::{Key, text_opt};
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use crate::store::Store;

impl Store {
    /// Entries about one rollout with their outcomes from `output_stream`, in log order: at most `limit`
    /// after the position `after`. Lags behind the log as much as the archive does.
    pub async fn rollout_events(
        &self,
        rollout_id: &RolloutId,
        output_stream: &str,
        after: Option<Position>,
        limit: u32,
    ) -> Result<EventPage, ReadError> {
        // The first sequence of a stream is 1, so 0 is before every entry.
        let after = after.unwrap_or_default();
        let seq = i64::try_from(after.seq).unwrap_or(i64::MAX);
        let rows = sql!("rollout_events_page")
            .query(
                &self.client().await?,
                &[
                    &encode(rollout_id.as_str()),
                    &seq,
                    &i64::from(after.index),
                    &i64::from(limit),
                    &encode(output_stream),
                ],
            )
            .await?;
        let events: Vec<EventView> = rows.iter().map(event_view).collect::<Result<_, _>>()?;
        let full = events.len() == limit as usize;
        let last = events.last().filter(|_| full);
        Ok(EventPage {
            next: last.map(|event| event.position),
            events,
        })
    }
}

fn event_view(row: &Row) -> Result<EventView, ReadError> {
    let key = Key::new("event_log", row, 1);
    Ok(EventView {
        position: key.position(row, 1)?,
        ts: row.get(3),
        kind: text_opt(row, 4).unwrap_or_default(),
        hostname: key.hostname_opt(row, 5)?,
        payload: key.json(row.get(6))?,
        outcome: key.json_opt(row.get(7))?,
        traceparent: text_opt(row, 8),
    })
}
