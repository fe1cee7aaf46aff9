//! Converts rows of the archive to frames and entries.
//!
//! Source: docs/storage.md, the archive.

use nixfleet_proto::frame::{MAX_FRAME_BYTES, MAX_FRAME_ENTRIES};
use nixfleet_proto::{
    Checkpoints, Entry, InputFrame, InputMark, LAYOUT_VERSION, Outcome, OutputFrame, Position,
    StoredAt,
};
use serde::Deserialize;

use crate::replay::InputItem;

/// Kind of a message that is archived undecoded.
const UNDECODABLE: &str = "undecodable";

/// One row of an archived message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveRow<'a> {
    /// Index in the message; -1 for an output frame.
    pub index: i32,
    /// Kind of the payload.
    pub kind: &'a str,
    /// JSON text.
    pub payload: &'a str,
    /// The outcomes of an output frame, as the JSON text of an array.
    pub outcomes: Option<&'a str>,
}

/// An invalid row of the archive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("archived message {sequence}, row {index}: {fault}")]
pub struct ArchiveRowError {
    /// Sequence of the message.
    pub sequence: u64,
    /// Index of the row.
    pub index: i32,
    /// The fault.
    pub fault: String,
}

/// An archived output frame, without its outcomes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Frame {
    v: u32,
    epoch: u64,
    #[serde(default)]
    first_input: Option<Position>,
    #[serde(default)]
    last_input: Option<InputMark>,
    #[serde(default)]
    last_input_id: Option<String>,
    #[serde(default)]
    rebuilt_from: Option<u64>,
    #[serde(default)]
    state_hash: Option<String>,
    #[serde(default)]
    checkpoints: Option<Checkpoints>,
    #[serde(default)]
    announced_at: Option<u64>,
}

/// An undecoded message.
#[derive(Deserialize)]
struct Undecoded {
    #[serde(default)]
    text: Option<String>,
}

/// The output frame of these rows.
pub fn output_frame(
    sequence: u64,
    rows: &[ArchiveRow<'_>],
) -> Result<OutputFrame, ArchiveRowError> {
    let bad = |index, fault: String| ArchiveRowError {
        sequence,
        index,
        fault,
    };
    let [head] = rows else {
        return Err(bad(-1, format!("{} rows instead of one", rows.len())));
    };
    if head.index != -1 {
        return Err(bad(head.index, format!("{} instead of a frame", head.kind)));
    }
    let frame: Frame =
        serde_json::from_str(head.payload).map_err(|fault| bad(-1, fault.to_string()))?;
    let outcomes = head.outcomes.unwrap_or("[]");
    let outcomes: Vec<Outcome> =
        serde_json::from_str(outcomes).map_err(|fault| bad(-1, fault.to_string()))?;
    Ok(OutputFrame {
        v: frame.v,
        epoch: frame.epoch,
        first_input: frame.first_input,
        last_input: frame.last_input,
        last_input_id: frame.last_input_id,
        rebuilt_from: frame.rebuilt_from,
        state_hash: frame.state_hash,
        checkpoints: frame.checkpoints,
        announced_at: frame.announced_at,
        outcomes,
    })
}

/// The input items of these rows: entries, or one item for an undecodable message. `stored_at` is the time of
/// the message.
pub fn input_items(
    (sequence, stored_at): (u64, StoredAt),
    rows: &[ArchiveRow<'_>],
) -> Result<Vec<InputItem>, ArchiveRowError> {
    let entries = match rows {
        [row] if row.kind == UNDECODABLE => undecoded_entries(row.payload),
        rows => Some(entries(sequence, rows)?),
    };
    let Some(entries) = entries else {
        let (index, of) = (0, 1);
        return Ok(vec![InputItem {
            mark: InputMark {
                seq: sequence,
                index,
                of,
            },
            stored_at,
            entry: None,
        }]);
    };
    let of = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let items = (0..).zip(entries).map(|(index, entry)| InputItem {
        mark: InputMark {
            seq: sequence,
            index,
            of,
        },
        stored_at,
        entry: Some(entry),
    });
    Ok(items.collect())
}

fn entries(sequence: u64, rows: &[ArchiveRow<'_>]) -> Result<Vec<Entry>, ArchiveRowError> {
    let entry = |(index, row): (i32, &ArchiveRow<'_>)| {
        let bad = |fault: String| ArchiveRowError {
            sequence,
            index: row.index,
            fault,
        };
        if row.index != index {
            return Err(bad(format!("row {index} is missing")));
        }
        serde_json::from_str(row.payload).map_err(|fault| bad(fault.to_string()))
    };
    (0..).zip(rows).map(entry).collect()
}

/// The entries of an undecoded message that its owner could read: the database rejected it, the owner did not.
fn undecoded_entries(payload: &str) -> Option<Vec<Entry>> {
    let undecoded: Undecoded = serde_json::from_str(payload).ok()?;
    let text = undecoded.text?;
    let frame: InputFrame = serde_json::from_str(&text).ok()?;
    let is_read = text.len() <= MAX_FRAME_BYTES
        && frame.v == LAYOUT_VERSION
        && (1..=MAX_FRAME_ENTRIES).contains(&frame.entries.len())
        && frame.entries.iter().all(|entry| entry.v == LAYOUT_VERSION);
    is_read.then_some(frame.entries)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    const ENTRY: &str = r#"{"v":1,"receivedAt":"2026-01-01T00:00:00Z","body":{"entry":
        "RecoveryCandidate","rolloutId":"stable@4f","hostname":"h","currentClosure":"c"}}"#;

    fn row<'a>(index: i32, kind: &'a str, payload: &'a str) -> ArchiveRow<'a> {
        ArchiveRow {
            index,
            kind,
            payload,
            outcomes: None,
        }
    }

    fn message() -> (u64, StoredAt) {
        (9, StoredAt::new(Timestamp::UNIX_EPOCH))
    }

    /// Index, number of entries in the message and whether it was read, of each item.
    fn check(rows: &[ArchiveRow<'_>], expected: &[(u32, u32, bool)]) {
        let items = input_items(message(), rows).unwrap();
        let items: Vec<_> = items
            .iter()
            .map(|item| (item.mark.index, item.mark.of, item.entry.is_some()))
            .collect();
        assert_eq!(items, expected);
    }

    #[test]
    fn entries_are_restored_with_their_indices() {
        let kind = "RecoveryCandidate";
        let rows = [row(0, kind, ENTRY), row(1, kind, ENTRY)];
        check(&rows, &[(0, 2, true), (1, 2, true)]);
        let gap = [row(0, kind, ENTRY), row(2, kind, ENTRY)];
        assert_eq!(input_items(message(), &gap).unwrap_err().index, 2);
        assert!(input_items(message(), &[row(0, kind, "{}")]).is_err());
    }

    #[test]
    fn undecodable_messages_are_one_item_unless_the_owner_could_read_them() {
        check(
            &[row(0, UNDECODABLE, r#"{"reason":"r","base64":"AA=="}"#)],
            &[(0, 1, false)],
        );
        check(
            &[row(0, UNDECODABLE, r#"{"reason":"r","text":"{"}"#)],
            &[(0, 1, false)],
        );
        let text = format!(r#"{{"v":1,"entries":[{ENTRY},{ENTRY}]}}"#);
        let kept = serde_json::json!({ "reason": "r", "text": text }).to_string();
        check(&[row(0, UNDECODABLE, &kept)], &[(0, 2, true), (1, 2, true)]);
        let newer = kept.replace(r#"{\"v\":1,\"entries\""#, r#"{\"v\":2,\"entries\""#);
        check(&[row(0, UNDECODABLE, &newer)], &[(0, 1, false)]);
    }

    #[test]
    fn a_frame_is_restored_with_its_outcomes() {
        let outcome = r#"{"position":{"seq":3,"index":1},"at":"2026-01-01T00:00:00Z",
            "subject":{"entry":"Barrier"},"rejected":{"reason":"fenced","message":"no"}}"#;
        let head = r#"{"v":1,"epoch":2,"firstInput":{"seq":3,"index":1},
            "lastInput":{"seq":3,"index":1,"of":2}}"#;
        let outcomes = format!("[{outcome}]");
        let row = |outcomes| ArchiveRow {
            outcomes,
            ..row(-1, "frame", head)
        };
        let frame = output_frame(7, &[row(Some(&*outcomes))]).unwrap();
        assert_eq!((frame.epoch, frame.outcomes.len()), (2, 1));
        assert_eq!(frame.last_input.unwrap().of, 2);
        assert!(output_frame(7, &[row(None)]).unwrap().outcomes.is_empty());
        assert!(output_frame(7, &[row(Some("[{}]"))]).is_err());
        assert!(output_frame(7, &[row(None), row(None)]).is_err());
        assert!(output_frame(7, &[]).is_err());
    }
}
