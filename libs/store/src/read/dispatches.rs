//! Pending dispatches.

use nixfleet_proto::Hostname;

use super::{DispatchRow, DispatchSnapshot};
use crate::cursor;
use crate::error::ReadError;
use crate::load::{Key, read_transaction, text_opt};
use crate::parameter_encoding::nul_escape::decode;
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::stored_json::DispatchRecord;
use crate::transaction::commit;

impl Store {
    /// All pending dispatches with their cursors, as of one instant.
    pub async fn dispatches(&self) -> Result<DispatchSnapshot, ReadError> {
        let mut client = self.client().await?;
        let transaction = read_transaction(&mut client).await?;
        let cursors = cursor::select_all(&transaction).await?;
        let mut dispatches = Vec::new();
        for row in &sql!("dispatches_all").query(&transaction, &[]).await? {
            let key = Key::new("dispatch_queue", row, 2);
            let record: DispatchRecord = key.json(row.get(2))?;
            dispatches.push(DispatchRow {
                hostname: Hostname::from(&*decode(row.get(1))),
                rollout_id: key.rollout_id(row, 0)?,
                target_closure: record.target_closure,
                soak_minutes: record.soak_minutes,
                enqueued_at: record.enqueued_at,
                position: key.position(row, 3)?,
                traceparent: text_opt(row, 5),
            });
        }
        commit(transaction).await?;
        Ok(DispatchSnapshot {
            cursors,
            dispatches,
        })
    }
}
