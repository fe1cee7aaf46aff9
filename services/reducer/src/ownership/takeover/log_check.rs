//! Check that the logs are the ones from which the rows and the last output frame were written.
//!
//! Sequences are reused when a log loses its end or is restored from a backup. A cursor alone would
//! then skip entries without an error.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_bus::{LastFrame, StreamIdentity};
use nixfleet_proto::mutation_testing;
use nixfleet_proto::snapshot::Cursor;

/// Current state of both logs of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLogs {
    /// Identity of the input stream.
    pub input: StreamIdentity,
    /// Identity of the output stream.
    pub output: StreamIdentity,
    /// Message ids by requested input sequence; absent where no message or id is held.
    pub ids: BTreeMap<u64, String>,
}

/// Position at which the logs continue the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// First output sequence that the rows do not cover.
    pub output_from: u64,
    /// True when the input stream was created again above the cursor: positions continue there.
    pub replaced: bool,
}

/// Contradiction between logs and rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogMismatch {
    /// The log ends before the sequence that the rows cover.
    #[error(
        "the {log} log ends at sequence {last}, but {covered} was held before: the log lost its end; \
         {REMEDY}"
    )]
    LostEnd {
        /// Which log.
        log: &'static str,
        /// Its last sequence.
        last: u64,
        /// What the rows or the frames cover.
        covered: u64,
    },
    /// Another message has the sequence of a folded one.
    #[error(
        "the input log holds another message at sequence {seq} than the one that was folded: the log lost \
         its end and grew again; {REMEDY}"
    )]
    Rewritten {
        /// The sequence.
        seq: u64,
    },
    /// Another stream with the same name holds the sequence of the cursor.
    #[error(
        "the input log was created again or restored and starts at sequence {first}, which is not \
         above the {covered} that the rows cover: {REMEDY}"
    )]
    Restored {
        /// First sequence of the log.
        first: u64,
        /// What the rows cover.
        covered: u64,
    },
    /// Frames between the rows and the log were trimmed.
    #[error(
        "the output log starts at sequence {first}, the rows cover {covered}: what lies between was \
         trimmed before it was applied; write the rows from the archive with `nixfleet db rebuild`"
    )]
    Trimmed {
        /// First sequence of the log.
        first: u64,
        /// What the rows cover.
        covered: u64,
    },
}

/// Keeps tables and archive; agents send again what was not acknowledged.
const REMEDY: &str = "empty the store of NATS, so that its streams are created above the rows";

/// Sequences of the input stream whose message ids [`check`] compares.
pub fn sequences(cursor: Option<&Cursor>, last: Option<&LastFrame>) -> BTreeSet<u64> {
    let covered = cursor.and_then(|cursor| cursor.input);
    let folded = last.and_then(|last| last.frame.last_input);
    covered
        .into_iter()
        .chain(folded)
        .map(|mark| mark.seq)
        .collect()
}

/// Compares the cursor of the rows and the last output frame with the logs.
///
/// # Errors
/// [`LogMismatch`], which names the remedy.
pub fn check(
    cursor: Option<&Cursor>,
    last: Option<&LastFrame>,
    logs: &PartitionLogs,
) -> Result<ResumePoint, LogMismatch> {
    let resume = check_rows(cursor, logs)?;
    if !resume.replaced {
        check_frame(last, logs)?;
    }
    Ok(resume)
}

fn check_rows(cursor: Option<&Cursor>, logs: &PartitionLogs) -> Result<ResumePoint, LogMismatch> {
    let first = logs.output.first_seq.max(1);
    let Some(cursor) = cursor else {
        return Ok(ResumePoint {
            output_from: first,
            replaced: false,
        });
    };
    let (covered, out_seq) = (cursor.input.map_or(0, |mark| mark.seq), cursor.out_seq);
    if out_seq > logs.output.last_seq {
        return Err(LogMismatch::LostEnd {
            log: "output",
            last: logs.output.last_seq,
            covered: out_seq,
        });
    }
    if cursor.stream_created != logs.input.created {
        let first_input = logs.input.first_seq;
        if covered >= first_input {
            let first = first_input;
            return Err(LogMismatch::Restored { first, covered });
        }
        return Ok(ResumePoint {
            output_from: first.max(out_seq + 1),
            replaced: true,
        });
    }
    logs.check_message(covered, cursor.input_msg_id.as_deref())?;
    if out_seq + 1 < first {
        let covered = out_seq;
        return Err(LogMismatch::Trimmed { first, covered });
    }
    Ok(ResumePoint {
        output_from: out_seq + 1,
        replaced: false,
    })
}

/// Compares the input that is folded and not applied yet, as the rows may be behind the frames.
fn check_frame(last: Option<&LastFrame>, logs: &PartitionLogs) -> Result<(), LogMismatch> {
    let Some(frame) = last.map(|last| &last.frame) else {
        return Ok(());
    };
    let folded = frame.last_input.map_or(0, |mark| mark.seq);
    logs.check_message(folded, frame.last_input_id.as_deref())
}

impl PartitionLogs {
    /// Checks that the input log has this message id, unless the message was trimmed.
    fn check_message(&self, seq: u64, id: Option<&str>) -> Result<(), LogMismatch> {
        if mutation_testing::is_active("tail-loss-unseen") {
            return Ok(());
        }
        if seq > self.input.last_seq {
            return Err(LogMismatch::LostEnd {
                log: "input",
                last: self.input.last_seq,
                covered: seq,
            });
        }
        let held = seq > 0 && seq >= self.input.first_seq;
        if held && id.is_some() && id != self.ids.get(&seq).map(String::as_str) {
            return Err(LogMismatch::Rewritten { seq });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{InputMark, OutputFrame, Timestamp};

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

    fn mark(seq: u64) -> Option<InputMark> {
        Some(InputMark {
            seq,
            index: 0,
            of: 1,
        })
    }

    fn cursor(out_seq: u64, input: u64) -> Cursor {
        Cursor {
            out_seq,
            input: mark(input),
            input_msg_id: Some(format!("id-{input}")),
            epoch: 1,
            ..Cursor::empty(created(1))
        }
    }

    /// A last frame that covers this input.
    fn frame(seq: u64, input: u64) -> LastFrame {
        let frame = OutputFrame {
            last_input: mark(input),
            last_input_id: Some(format!("id-{input}")),
            ..OutputFrame::new(1)
        };
        let msg_id = None;
        LastFrame { seq, msg_id, frame }
    }

    /// Logs whose input stream holds these messages under their own ids.
    fn logs(input: StreamIdentity, output: StreamIdentity, held: &[u64]) -> PartitionLogs {
        PartitionLogs {
            input,
            output,
            ids: held.iter().map(|seq| (*seq, format!("id-{seq}"))).collect(),
        }
    }

    fn from(output_from: u64) -> ResumePoint {
        ResumePoint {
            output_from,
            replaced: false,
        }
    }

    #[test]
    fn rows_continue_behind_their_cursor() {
        let (cursor, last) = (cursor(7, 20), frame(9, 25));
        assert_eq!(sequences(Some(&cursor), Some(&last)), [20, 25].into());
        let same = logs(stream(1, 1, 30), stream(1, 1, 9), &[20, 25]);
        assert_eq!(check(Some(&cursor), Some(&last), &same), Ok(from(8)));
        // Trimmed messages are not compared.
        let trimmed = logs(stream(1, 26, 30), stream(1, 8, 9), &[]);
        assert_eq!(check(Some(&cursor), Some(&last), &trimmed), Ok(from(8)));
    }

    #[test]
    fn an_empty_database_starts_at_the_first_frame_of_the_log() {
        let complete = logs(stream(1, 1, 30), stream(1, 1, 9), &[]);
        assert_eq!(check(None, None, &complete), Ok(from(1)));
        let cut = logs(stream(1, 1, 30), stream(1, 5, 9), &[25]);
        assert_eq!(check(None, Some(&frame(9, 25)), &cut), Ok(from(5)));
    }

    #[test]
    fn a_log_created_above_the_cursor_is_continued() {
        let recreated = logs(
            stream(2, 1_000_021, 1_000_020),
            stream(2, 1_000_008, 1_000_007),
            &[],
        );
        let replaced = ResumePoint {
            replaced: true,
            ..from(1_000_008)
        };
        assert_eq!(check(Some(&cursor(7, 20)), None, &recreated), Ok(replaced));
    }

    #[test]
    fn logs_that_contradict_the_rows_are_refused() {
        let check = |logs: &PartitionLogs| check(Some(&cursor(7, 20)), None, logs).unwrap_err();
        let output = stream(1, 1, 9);
        let lost = check(&logs(stream(1, 1, 19), output, &[]));
        assert!(matches!(lost, LogMismatch::LostEnd { log: "input", .. }));
        let lost = check(&logs(stream(1, 1, 30), stream(1, 1, 6), &[20]));
        assert!(matches!(lost, LogMismatch::LostEnd { log: "output", .. }));
        let mut reused = logs(stream(1, 1, 30), output, &[]);
        assert_eq!(check(&reused), LogMismatch::Rewritten { seq: 20 });
        reused.ids.insert(20, "other".to_owned());
        assert_eq!(check(&reused), LogMismatch::Rewritten { seq: 20 });
        let restored = check(&logs(stream(2, 1, 30), output, &[20]));
        assert!(matches!(restored, LogMismatch::Restored { .. }));
        let trimmed = check(&logs(stream(1, 1, 30), stream(1, 9, 9), &[20]));
        assert_eq!(
            trimmed,
            LogMismatch::Trimmed {
                first: 9,
                covered: 7
            }
        );
    }

    /// Without the mark of the frame, entries that replaced lost ones would be skipped.
    #[test]
    fn logs_that_contradict_the_last_frame_are_refused() {
        let check = |logs: &PartitionLogs| check(Some(&cursor(7, 20)), Some(&frame(9, 25)), logs);
        let output = stream(1, 1, 9);
        let lost = check(&logs(stream(1, 1, 24), output, &[20]));
        let expected = LogMismatch::LostEnd {
            log: "input",
            last: 24,
            covered: 25,
        };
        assert_eq!(lost, Err(expected));
        let mut grown = logs(stream(1, 1, 40), output, &[20]);
        grown.ids.insert(25, "other".to_owned());
        assert_eq!(check(&grown), Err(LogMismatch::Rewritten { seq: 25 }));
    }
}
