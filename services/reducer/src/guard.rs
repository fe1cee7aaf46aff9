//! Whether the logs are the ones that the rows and the last output frame were written from.
//!
//! Sequences are reused when a log loses its end or comes back from a backup; a cursor alone would
//! then skip entries in silence.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_bus::{LastFrame, StreamIdentity};
use nixfleet_proto::mutation_testing;
use nixfleet_proto::snapshot::Cursor;

/// Both logs of a partition as they are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// The input stream.
    pub input: StreamIdentity,
    /// The output stream.
    pub output: StreamIdentity,
    /// Message ids that the input stream holds at the sequences that were asked for; those of
    /// messages it does not hold, or that have none, are absent.
    pub ids: BTreeMap<u64, String>,
}

/// Where to go on from the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// First output frame that the rows do not cover.
    pub output_from: u64,
    /// The input stream was created anew above the cursor: positions go on there.
    pub replaced: bool,
}

/// Logs and rows that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The log is shorter than the rows know.
    #[error(
        "the {log} log ends at sequence {last}, but {covered} was there before: it lost its end; \
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
    /// Another message has the sequence of one that was folded.
    #[error(
        "the input log holds another message at sequence {seq} than the one that was folded: it lost \
         its end and went on; {REMEDY}"
    )]
    Rewritten {
        /// The sequence.
        seq: u64,
    },
    /// Another stream with the same name holds the cursor's sequence.
    #[error(
        "the input log was created anew or restored and starts at sequence {first}, which is not \
         above the {covered} that the rows cover: {REMEDY}"
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
         trimmed before it was applied; write the rows from the archive with `nixfleet db rebuild`"
    )]
    Trimmed {
        /// First sequence of the log.
        first: u64,
        /// What the rows cover.
        covered: u64,
    },
}

/// The tables and the archive are kept; agents send again what was not acknowledged.
const REMEDY: &str = "empty the store of NATS, so that its streams are created above the rows";

/// The sequences of the input stream whose message ids [`check`] compares.
pub fn sequences(cursor: Option<&Cursor>, last: Option<&LastFrame>) -> BTreeSet<u64> {
    let covered = cursor.and_then(|cursor| cursor.input);
    let folded = last.and_then(|last| last.frame.last_input);
    covered
        .into_iter()
        .chain(folded)
        .map(|mark| mark.seq)
        .collect()
}

/// Holds the rows' cursor and the last output frame against the logs.
///
/// # Errors
/// [`Mismatch`], which names the remedy.
pub fn check(
    cursor: Option<&Cursor>,
    last: Option<&LastFrame>,
    logs: &Logs,
) -> Result<Passed, Mismatch> {
    let passed = check_rows(cursor, logs)?;
    if !passed.replaced {
        check_frame(last, logs)?;
    }
    Ok(passed)
}

fn check_rows(cursor: Option<&Cursor>, logs: &Logs) -> Result<Passed, Mismatch> {
    let first = logs.output.first_seq.max(1);
    let Some(cursor) = cursor else {
        return Ok(Passed {
            output_from: first,
            replaced: false,
        });
    };
    let (covered, out_seq) = (cursor.input.map_or(0, |mark| mark.seq), cursor.out_seq);
    if out_seq > logs.output.last_seq {
        return Err(Mismatch::LostEnd {
            log: "output",
            last: logs.output.last_seq,
            covered: out_seq,
        });
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
        });
    }
    logs.check_message(covered, cursor.input_msg_id.as_deref())?;
    if out_seq + 1 < first {
        let covered = out_seq;
        return Err(Mismatch::Trimmed { first, covered });
    }
    Ok(Passed {
        output_from: out_seq + 1,
        replaced: false,
    })
}

/// The rows may be behind the frames: what was folded and not applied yet is compared by the frames.
fn check_frame(last: Option<&LastFrame>, logs: &Logs) -> Result<(), Mismatch> {
    let Some(frame) = last.map(|last| &last.frame) else {
        return Ok(());
    };
    let folded = frame.last_input.map_or(0, |mark| mark.seq);
    logs.check_message(folded, frame.last_input_id.as_deref())
}

impl Logs {
    /// The input log still has the message with this id at a sequence that was folded, unless it is
    /// so old that it was trimmed.
    fn check_message(&self, seq: u64, id: Option<&str>) -> Result<(), Mismatch> {
        if mutation_testing::is_active("tail-loss-unseen") {
            return Ok(());
        }
        if seq > self.input.last_seq {
            return Err(Mismatch::LostEnd {
                log: "input",
                last: self.input.last_seq,
                covered: seq,
            });
        }
        let held = seq > 0 && seq >= self.input.first_seq;
        if held && id.is_some() && id != self.ids.get(&seq).map(String::as_str) {
            return Err(Mismatch::Rewritten { seq });
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

    /// The last frame, which covers this input.
    fn frame(seq: u64, input: u64) -> LastFrame {
        let frame = OutputFrame {
            last_input: mark(input),
            last_input_id: Some(format!("id-{input}")),
            ..OutputFrame::new(1)
        };
        let msg_id = None;
        LastFrame { seq, msg_id, frame }
    }

    /// Logs whose input holds these messages under their own ids.
    fn logs(input: StreamIdentity, output: StreamIdentity, held: &[u64]) -> Logs {
        Logs {
            input,
            output,
            ids: held.iter().map(|seq| (*seq, format!("id-{seq}"))).collect(),
        }
    }

    fn from(output_from: u64) -> Passed {
        Passed {
            output_from,
            replaced: false,
        }
    }

    #[test]
    fn rows_go_on_behind_their_cursor() {
        let (cursor, last) = (cursor(7, 20), frame(9, 25));
        assert_eq!(sequences(Some(&cursor), Some(&last)), [20, 25].into());
        let same = logs(stream(1, 1, 30), stream(1, 1, 9), &[20, 25]);
        assert_eq!(check(Some(&cursor), Some(&last), &same), Ok(from(8)));
        // What was trimmed cannot be compared.
        let trimmed = logs(stream(1, 26, 30), stream(1, 8, 9), &[]);
        assert_eq!(check(Some(&cursor), Some(&last), &trimmed), Ok(from(8)));
    }

    #[test]
    fn an_empty_database_starts_at_what_the_log_holds() {
        let whole = logs(stream(1, 1, 30), stream(1, 1, 9), &[]);
        assert_eq!(check(None, None, &whole), Ok(from(1)));
        let cut = logs(stream(1, 1, 30), stream(1, 5, 9), &[25]);
        assert_eq!(check(None, Some(&frame(9, 25)), &cut), Ok(from(5)));
    }

    #[test]
    fn a_log_created_above_the_cursor_is_gone_on_with() {
        let anew = logs(
            stream(2, 1_000_021, 1_000_020),
            stream(2, 1_000_008, 1_000_007),
            &[],
        );
        let replaced = Passed {
            replaced: true,
            ..from(1_000_008)
        };
        assert_eq!(check(Some(&cursor(7, 20)), None, &anew), Ok(replaced));
    }

    #[test]
    fn what_contradicts_the_rows_is_refused() {
        let check = |logs: &Logs| check(Some(&cursor(7, 20)), None, logs).unwrap_err();
        let output = stream(1, 1, 9);
        let lost = check(&logs(stream(1, 1, 19), output, &[]));
        assert!(matches!(lost, Mismatch::LostEnd { log: "input", .. }));
        let lost = check(&logs(stream(1, 1, 30), stream(1, 1, 6), &[20]));
        assert!(matches!(lost, Mismatch::LostEnd { log: "output", .. }));
        let mut reused = logs(stream(1, 1, 30), output, &[]);
        assert_eq!(check(&reused), Mismatch::Rewritten { seq: 20 });
        reused.ids.insert(20, "other".to_owned());
        assert_eq!(check(&reused), Mismatch::Rewritten { seq: 20 });
        let restored = check(&logs(stream(2, 1, 30), output, &[20]));
        assert!(matches!(restored, Mismatch::Restored { .. }));
        let trimmed = check(&logs(stream(1, 1, 30), stream(1, 9, 9), &[20]));
        assert_eq!(
            trimmed,
            Mismatch::Trimmed {
                first: 9,
                covered: 7
            }
        );
    }

    /// The rows are behind; without the frames' own mark, entries that took the place of lost ones
    /// would be passed over.
    #[test]
    fn what_contradicts_the_last_frame_is_refused() {
        let check = |logs: &Logs| check(Some(&cursor(7, 20)), Some(&frame(9, 25)), logs);
        let output = stream(1, 1, 9);
        let lost = check(&logs(stream(1, 1, 24), output, &[20]));
        let expected = Mismatch::LostEnd {
            log: "input",
            last: 24,
            covered: 25,
        };
        assert_eq!(lost, Err(expected));
        let mut grown = logs(stream(1, 1, 40), output, &[20]);
        grown.ids.insert(25, "other".to_owned());
        assert_eq!(check(&grown), Err(Mismatch::Rewritten { seq: 25 }));
    }
}
