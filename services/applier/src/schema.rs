//! The schema of the database, and the stream positions that its tables cover.

use anyhow::Context as _;
use nixfleet_bus::SequenceFloors;
use nixfleet_proto::subject::Names;
use nixfleet_store::{ReadError, Store};

pub async fn migrate(store: &Store) -> anyhow::Result<()> {
    let report = store.migrate().await.context("migrating the database")?;
    if !report.applied.is_empty() {
        tracing::warn!(applied = ?report.applied, "the schema was created again");
    }
    Ok(())
}

/// Positions that tables and archive cover; lost streams are created above them.
pub async fn floors(store: &Store, names: &Names) -> Result<SequenceFloors, ReadError> {
    let floors = SequenceFloors::of_cursors(names, &store.cursors().await?);
    let archived = store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}
