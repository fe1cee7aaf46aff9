//! Writing the rows of quarantined closures.

use deadpool_postgres::Transaction;
use nixfleet_proto::subject::Partition;

use super::record_updates::StampColumns;
use crate::apply::apply_result::ApplyResult;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::column_time;
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use nixfleet_proto::turn_rows::TurnRows;

pub(super) async fn quarantines(
    transaction: &Transaction<'_>,
    partition: Partition,
    rows: &TurnRows,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    if !rows.quarantines_removed.is_empty() {
        let keys = rows.quarantines_removed.iter();
        let (channels, closures): (Vec<_>, Vec<_>) = keys
            .map(|(channel, closure)| (encode(channel.as_str()), encode(closure.as_str())))
            .unzip();
        applied.rows += sql!("quarantines_delete")
            .execute(transaction, &[&channels, &closures])
            .await?;
    }
    if rows.quarantines_inserted.is_empty() {
        return Ok(());
    }
    let (mut channels, mut closures, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    for ((channel, closure), stamp) in &rows.quarantines_inserted {
        channels.push(encode(channel.as_str()));
        closures.push(encode(closure.as_str()));
        times.push(column_time(stamp.at));
        stamps.push(stamp)?;
    }
    applied.rows += sql!("quarantines_insert")
        .execute(
            transaction,
            &[
                &i32::from(partition.number()),
                &channels,
                &closures,
                &times,
                &stamps.seqs,
                &stamps.indexes,
            ],
        )
        .await?;
    Ok(())
}
