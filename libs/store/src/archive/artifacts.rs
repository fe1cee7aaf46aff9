//! The signed artifacts of archived releases; this copy outlives the object store.

use nixfleet_proto::{CheckpointRef, ManifestHash};

use crate::error::{ArchiveError, DbError, ReadError};
use crate::parameter_encoding::column_value::column_seq;
use crate::parameter_encoding::nul_escape::{decode_json, encode};
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::transaction::{begin, commit};

/// Size of a part. A column value may have 1 GiB, a message should be much smaller.
const PART_BYTES: usize = 8 * 1024 * 1024;

impl Store {
    /// Archives the bytes of an artifact under its hash. Archiving it again has no effect.
    pub async fn archive_artifact(
        &self,
        hash: &ManifestHash,
        bytes: &[u8],
    ) -> Result<(), ArchiveError> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client).await?;
        // An empty artifact has one empty part, because an absent artifact has none.
        let parts = bytes
            .chunks(PART_BYTES)
            .chain(bytes.is_empty().then_some(bytes));
        for (number, part) in (0_i32..).zip(parts) {
            sql!("artifact_insert")
                .execute(&transaction, &[&encode(hash.as_str()), &number, &part])
                .await?;
        }
        commit(transaction).await?;
        Ok(())
    }

    /// Archives the checkpoint from which a replay continues at `first_sequence` of an output stream.
    ///
    /// # Panics
    /// Never: a reference always has a JSON form.
    pub async fn archive_base(
        &self,
        stream: &str,
        first_sequence: u64,
        (checkpoint, bytes): (&CheckpointRef, &[u8]),
    ) -> Result<(), ArchiveError> {
        // The artifact comes first, so that an archived base always has its bytes.
        self.archive_artifact(&ManifestHash::from(checkpoint.hash.as_str()), bytes)
            .await?;
        let first = column_seq("the first sequence", first_sequence)?;
        let out_seq = column_seq("the output sequence", checkpoint.out_seq)?;
        let reference = serde_json::to_string(checkpoint)
            .expect("a reference has text keys only, and memory takes every byte");
        sql!("archive_base_insert")
            .execute(
                &self.client().await?,
                &[&encode(stream), &first, &out_seq, &reference],
            )
            .await?;
        Ok(())
    }

    /// True when the artifact is archived.
    pub async fn is_artifact_archived(&self, hash: &ManifestHash) -> Result<bool, DbError> {
        let row = sql!("artifact_exists")
            .query_opt(&self.client().await?, &[&encode(hash.as_str())])
            .await?;
        Ok(row.is_some())
    }

    /// The archived bytes of an artifact; `None` when it is not archived. The caller checks the content
    /// hash.
    pub async fn artifact(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, DbError> {
        let rows = sql!("artifact_select")
            .query(&self.client().await?, &[&encode(hash.as_str())])
            .await?;
        let parts: Vec<&[u8]> = rows.iter().map(|row| row.get(0)).collect();
        Ok((!parts.is_empty()).then(|| parts.concat()))
    }

    /// The last release announced on this stream, as JSON; `None` when none is archived.
    pub async fn last_archived_release(&self, stream: &str) -> Result<Option<String>, ReadError> {
        let row = sql!("archive_last_release")
            .query_opt(&self.client().await?, &[&encode(stream)])
            .await?;
        Ok(row.map(|row| decode_json(row.get(0)).into_owned()))
    }
}
