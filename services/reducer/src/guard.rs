//! Whether the logs are the ones the rows were written from.
//!
//! Sequences are reused when a log loses its end or comes back from a backup; a cursor alone would
//! then skip entries in silence.

use nixfleet_bus::StreamIdentity;
use nixfleet_proto::snapshot::Cursor;

/// Both logs of a partition as they are now.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The input stream.
    pub input: StreamIdentity,
    /// The output stream.
    pub output: StreamIdentity,
    /// Message id that the input stream holds at the cursor, when it holds that message.
    pub id_at_cursor: Option<String>,
}

/// Where to go on from the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// First output frame that the rows do not cover.
    pub output_from: u64,
    /// The input stream was created anew above the cursor: positions go on there.
    pub replaced: bool,
    /// The rows are gone and the log does not reach back to its beginning.
    pub truncated: bool,
}

/// Logs and rows that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The log is shorter than the rows know.
    #[error(
        "the {log} log ends at sequence {last}, the rows cover {covered}: it lost its end; rebuild \
         the database from the log, or delete the streams so that they are created above the cursors"
    )]
    LostEnd {
        /// Which log.
        log: &'static str,
        /// Its last sequence.
        last: u64,
        /// What the rows cover.
        covered: u64,
    },
    /// Another message has the cursor's sequence.
    #[error(
        "the input log holds another message at sequence {seq} than the one the rows cover: it lost \
         its end and went on; rebuild the database from the log"
    )]
    Rewritten {
        /// The sequence.
        seq: u64,
    },
    /// Another stream with the same name holds the cursor's sequence.
    #[error(
        "the input log was created anew or restored and starts at sequence {first}, which is not \
         above the {covered} that the rows cover: delete the streams so that they are created above \
         the cursors, or rebuild the database from the log"
    )]
    Restored {
        /// First sequence of the log.
        first: u64,
        /// What the rows cover.
        covered: u64,
    },
    /// Frames between the rows and the log are gone.
    #[error(
        "the output log starts at sequence {first}, the rows cover {covered}: what lies between was \
         trimmed before it was applied; drop the schema, so that everything is rebuilt from what the \
         logs still hold"
    )]
    Trimmed {
        /// First sequence of the log.
        first: u64,
        /// What the rows cover.
        covered: u64,
    },
}

/// Holds the rows' cursor against the logs.
///
/// # Errors
/// [`Mismatch`], which names the remedy.
pub fn check(cursor: Option<&Cursor>, logs: &Logs) -> Result<Passed, Mismatch> {
    let first = logs.output.first_seq.max(1);
    let Some(cursor) = cursor else {
        return Ok(Passed {
            output_from: first,
            replaced: false,
            truncated: first > 1,
        });
    };
    let lost_end = |log, last, covered| Err(Mismatch::LostEnd { log, last, covered });
    let (covered, out_seq) = (cursor.input.map_or(0, |mark| mark.seq), cursor.out_seq);
    if out_seq > logs.output.last_seq {
        return lost_end("output", logs.output.last_seq, out_seq);
    }
    if cursor.stream_created != logs.input.created {
        let first_input = logs.input.first_seq;
        if covered >= first_input {
            let first = first_input;
            return Err(Mismatch::Restored { first, covered });
        }
        return Ok(Passed {
            output_from: first.max(out_seq + 1),
            replaced: true,
            truncated: false,
        });
    }
    if covered > logs.input.last_seq {
        return lost_end("input", logs.input.last_seq, covered);
    }
    let held = covered >= logs.input.first_seq && covered > 0;
    if held && cursor.input_msg_id.is_some() && cursor.input_msg_id != logs.id_at_cursor {
        return Err(Mismatch::Rewritten { seq: covered });
    }
    if out_seq + 1 < first {
        let covered = out_seq;
        return Err(Mismatch::Trimmed { first, covered });
    }
    Ok(Passed {
        output_from: out_seq + 1,
        replaced: false,
        truncated: false,
    })
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::snapshot::Origin;
    use nixfleet_proto::{InputMark, Timestamp};

    use super::*;

    fn created(day: u32) -> Timestamp {
        format!("2026-05-{day:02}T10:00:00Z").parse().unwrap()
    }

    fn stream(day: u32, first_seq: u64, last_seq: u64) -> StreamIdentity {
        StreamIdentity {
            created: created(day),
            first_seq,
            last_seq,
        }
    }

    fn cursor(out_seq: u64, input: u64) -> Cursor {
        Cursor {
            out_seq,
            input: Some(InputMark {
                seq: input,
                index: 0,
                of: 1,
            }),
            input_msg_id: Some("id".to_owned()),
            stream_created: created(1),
            epoch: 1,
            leader_epoch: 0,
            clock: None,
            origin: Origin::default(),
        }
    }

    fn logs(input: StreamIdentity, output: StreamIdentity, id: Option<&str>) -> Logs {
        Logs {
            input,
            output,
            id_at_cursor: id.map(str::to_owned),
        }
    }

    fn from(output_from: u64) -> Passed {
        Passed {
            output_from,
            replaced: false,
            truncated: false,
        }
    }

    #[test]
    fn rows_go_on_behind_their_cursor() {
        let cursor = cursor(7, 20);
        let same = logs(stream(1, 1, 30), stream(1, 1, 9), Some("id"));
        assert_eq!(check(Some(&cursor), &same), Ok(from(8)));
        // What was trimmed cannot be compared.
        let trimmed = logs(stream(1, 21, 30), stream(1, 8, 9), None);
        assert_eq!(check(Some(&cursor), &trimmed), Ok(from(8)));
    }

    #[test]
    fn an_empty_database_starts_at_what_the_log_holds() {
        let whole = logs(stream(1, 1, 30), stream(1, 1, 9), None);
        assert_eq!(check(None, &whole), Ok(from(1)));
        let cut = logs(stream(1, 1, 30), stream(1, 5, 9), None);
        let truncated = Passed {
            truncated: true,
            ..from(5)
        };
        assert_eq!(check(None, &cut), Ok(truncated));
    }

    #[test]
    fn a_log_created_above_the_cursor_is_gone_on_with() {
        let anew = logs(
            stream(2, 1_000_021, 1_000_020),
            stream(2, 1_000_008, 1_000_007),
            None,
        );
        let replaced = Passed {
            replaced: true,
            ..from(1_000_008)
        };
        assert_eq!(check(Some(&cursor(7, 20)), &anew), Ok(replaced));
    }

    #[test]
    fn what_contradicts_the_rows_is_refused() {
        let check = |logs: &Logs| check(Some(&cursor(7, 20)), logs).unwrap_err();
        let output = stream(1, 1, 9);
        let lost = check(&logs(stream(1, 1, 19), output, None));
        assert!(matches!(lost, Mismatch::LostEnd { log: "input", .. }));
        let lost = check(&logs(stream(1, 1, 30), stream(1, 1, 6), Some("id")));
        assert!(matches!(lost, Mismatch::LostEnd { log: "output", .. }));
        let reused = check(&logs(stream(1, 1, 30), output, Some("other")));
        assert_eq!(reused, Mismatch::Rewritten { seq: 20 });
        let without = check(&logs(stream(1, 1, 30), output, None));
        assert_eq!(without, Mismatch::Rewritten { seq: 20 });
        let restored = check(&logs(stream(2, 1, 30), output, Some("id")));
        assert!(matches!(restored, Mismatch::Restored { .. }));
        let trimmed = check(&logs(stream(1, 1, 30), stream(1, 9, 9), Some("id")));
        assert_eq!(
            trimmed,
            Mismatch::Trimmed {
                first: 9,
                covered: 7
            }
        );
    }
}
