//! Creates a dropped schema again at run time.

use anyhow::Context as _;
use nixfleet_store::Store;

pub async fn migrate(store: &Store) -> anyhow::Result<()> {
    let report = store.migrate().await.context("migrating the database")?;
    if !report.applied.is_empty() {
        tracing::warn!(applied = ?report.applied, "the schema was created again");
    }
    Ok(())
}
