//! What is missing in the archive of a partition, and which of it a loss explains.

use nixfleet_proto::CheckpointRef;
use nixfleet_replay::Difference;
use nixfleet_store::{ArchivedStream, Audit};
use serde::Serialize;

use super::database_options::Database;
use crate::command_error::CommandError;

/// Sequences of a stream that are not archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    pub stream: String,
    pub first: u64,
    pub last: u64,
    /// The loss that explains it; absent for a gap that nothing explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<&'static str>,
}

impl Gap {
    /// The difference of a gap that no loss explains.
    pub fn difference(&self) -> Option<Difference> {
        let Self {
            stream,
            first,
            last,
            loss,
        } = self;
        loss.is_none().then(|| Difference {
            table: "event_log",
            key: vec![stream.clone()],
            column: String::new(),
            expected: Some(format!("messages {first} to {last}").into()),
            found: None,
        })
    }
}

/// Where the logs of a partition may have gaps.
pub struct Losses<'a> {
    /// The checkpoint behind messages that were trimmed before they were archived.
    pub base: Option<&'a CheckpointRef>,
    /// First sequence of this stream that must be archived behind it.
    pub base_first: u64,
}

/// The gaps of an archived stream, those before its first and behind its last row included.
pub async fn gaps(
    audit: &Audit<'_>,
    archived: &ArchivedStream,
    losses: &Losses<'_>,
) -> Result<Vec<Gap>, CommandError> {
    let mut ranges = audit.gaps(&archived.stream).await.or_database()?;
    let begins = archived
        .generations
        .first()
        .map_or(archived.first, |it| it.first_sequence);
    if archived.first > begins {
        ranges.insert(
            0,
            (begins, archived.first.min(archived.mark.sequence + 1) - 1),
        );
    }
    let last = audit.last_archived(&archived.stream).await.or_database()?;
    let last = last.unwrap_or(archived.mark.sequence);
    if last < archived.mark.sequence {
        ranges.push((last + 1, archived.mark.sequence));
    }
    let loss = |(first, last): (u64, u64)| {
        if archived
            .generations
            .iter()
            .any(|it| it.first_sequence == last + 1)
            && first > begins
        {
            Some("the stream was created again")
        } else if losses.base.is_some() && last < losses.base_first {
            Some("trimmed before it was archived")
        } else {
            None
        }
    };
    let gap = |range: (u64, u64)| Gap {
        stream: archived.stream.clone(),
        first: range.0,
        last: range.1,
        loss: loss(range),
    };
    Ok(ranges.into_iter().map(gap).collect())
}
