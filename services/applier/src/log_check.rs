//! Compares tables with logs: where to start reading, or why they do not belong together.

use nixfleet_bus::StreamIdentity;
use nixfleet_proto::mutation_testing;
use nixfleet_proto::snapshot::Cursor;

/// Current state of both logs of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLogs {
    /// Identity of the input stream.
    pub input: StreamIdentity,
    /// Identity of the output stream.
    pub output: StreamIdentity,
    /// Message id at the input mark of the cursor; absent when the message is not held any more.
    pub msg_id: Option<String>,
}

/// Position at which reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// The tables continue with this output sequence.
    Continue(u64),
    /// The tables are empty and the log is complete.
    FromFirst(u64),
    /// The tables are empty and the log was trimmed: rollouts opened before stay unknown.
    FromTrimmed(u64),
    /// The logs were lost and created again above the cursor; the tables are kept.
    AfterLoss(u64),
}

impl StartPosition {
    /// First output sequence to read.
    pub fn seq(self) -> u64 {
        match self {
            Self::Continue(seq)
            | Self::FromFirst(seq)
            | Self::FromTrimmed(seq)
            | Self::AfterLoss(seq) => seq,
        }
    }
}

/// Contradiction between tables and logs; an operator has to decide which of them counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogMismatch {
    /// The input stream was created again at or below the cursor.
    #[error(
        "the input log was created again at sequence {first}, but the tables cover {covered}: empty \
         the store of NATS, so that its streams are created above the tables"
    )]
    Replaced {
        /// First sequence of the new stream.
        first: u64,
        /// Input sequence of the cursor.
        covered: u64,
    },
    /// Another message has the sequence of the cursor.
    #[error(
        "the message at input sequence {seq} is {found:?}, the tables were written from \
         {expected:?}: the log was restored from a backup; empty the store of NATS, so that its \
         streams are created above the tables"
    )]
    OtherMessage {
        /// Input sequence of the cursor.
        seq: u64,
        /// Message id in the cursor.
        expected: String,
        /// Message id in the log.
        found: String,
    },
    /// The output log ends before the cursor.
    #[error(
        "the output log ends at sequence {last}, but the tables cover {covered}: its end was lost; \
         empty the store of NATS, so that its streams are created above the tables"
    )]
    Regressed {
        /// Last sequence of the log.
        last: u64,
        /// Output sequence of the cursor.
        covered: u64,
    },
    /// Frames were trimmed before they were applied.
    #[error(
        "the output log starts at sequence {first}, but {wanted} was not applied yet: it was \
         trimmed, and no checkpoint covers what is missing; write the tables from the archive with \
         `nixfleet db rebuild`"
    )]
    Trimmed {
        /// First sequence of the log.
        first: u64,
        /// First sequence that is not applied.
        wanted: u64,
    },
}

/// True when the log alone cannot bring the tables up to date: they are empty or end before the log
/// begins, and must be restored from a checkpoint first.
pub fn needs_checkpoint(cursor: Option<&Cursor>, logs: &PartitionLogs) -> bool {
    match start(cursor, logs) {
        Ok(StartPosition::FromTrimmed(_)) | Err(LogMismatch::Trimmed { .. }) => {
            !mutation_testing::is_active("applier-ignores-checkpoints")
        }
        Ok(
            StartPosition::Continue(_) | StartPosition::FromFirst(_) | StartPosition::AfterLoss(_),
        )
        | Err(
            LogMismatch::Replaced { .. }
            | LogMismatch::OtherMessage { .. }
            | LogMismatch::Regressed { .. },
        ) => false,
    }
}

/// Compares the cursor with the logs.
///
/// # Errors
/// [`LogMismatch`], which names the remedy.
pub fn start(cursor: Option<&Cursor>, logs: &PartitionLogs) -> Result<StartPosition, LogMismatch> {
    let first = logs.output.first_seq;
    let Some(cursor) = cursor else {
        return Ok(if first <= 1 {
            StartPosition::FromFirst(first)
        } else {
            StartPosition::FromTrimmed(first)
        });
    };
    let covered = cursor.input.map_or(0, |mark| mark.seq);
    let wanted = cursor.out_seq + 1;
    if logs.input.created != cursor.stream_created {
        if logs.input.first_seq <= covered || first < wanted {
            let first = logs.input.first_seq;
            return Err(LogMismatch::Replaced { first, covered });
        }
        return Ok(StartPosition::AfterLoss(first));
    }
    if let (Some(expected), Some(found)) = (&cursor.input_msg_id, &logs.msg_id)
        && expected != found
    {
        return Err(LogMismatch::OtherMessage {
            seq: covered,
            expected: expected.clone(),
            found: found.clone(),
        });
    }
    if logs.output.last_seq < cursor.out_seq {
        return Err(LogMismatch::Regressed {
            last: logs.output.last_seq,
            covered: cursor.out_seq,
        });
    }
    if first > wanted {
        return Err(LogMismatch::Trimmed { first, wanted });
    }
    Ok(StartPosition::Continue(wanted))
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use nixfleet_proto::{InputMark, Timestamp};

    use super::*;

    fn created(number: i64) -> Timestamp {
        chrono::DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(number)
    }

    fn cursor(in_seq: u64, out_seq: u64) -> Cursor {
        Cursor {
            out_seq,
            input: Some(InputMark {
                seq: in_seq,
                index: 0,
                of: 1,
            }),
            input_msg_id: Some("id".to_owned()),
            epoch: 1,
            ..Cursor::empty(created(1))
        }
    }

    fn logs(generation: i64, input: (u64, u64), output: (u64, u64)) -> PartitionLogs {
        let identity = |(first_seq, last_seq)| StreamIdentity {
            created: created(generation),
            first_seq,
            last_seq,
        };
        PartitionLogs {
            input: identity(input),
            output: identity(output),
            msg_id: None,
        }
    }

    #[test]
    fn tables_continue_after_their_cursor() {
        let logs = logs(1, (1, 50), (1, 20));
        assert_eq!(
            start(Some(&cursor(40, 10)), &logs),
            Ok(StartPosition::Continue(11))
        );
        assert_eq!(
            start(Some(&cursor(50, 20)), &logs),
            Ok(StartPosition::Continue(21))
        );
    }

    #[test]
    fn empty_tables_start_at_the_first_frame_of_the_log() {
        assert_eq!(
            start(None, &logs(1, (1, 0), (1, 0))),
            Ok(StartPosition::FromFirst(1))
        );
        assert_eq!(
            start(None, &logs(1, (8, 9), (5, 9))),
            Ok(StartPosition::FromTrimmed(5))
        );
    }

    #[test]
    fn recreated_logs_above_the_cursor_are_continued() {
        let recreated = logs(2, (1_000_051, 1_000_050), (1_000_021, 1_000_020));
        let found = start(Some(&cursor(50, 20)), &recreated);
        assert_eq!(found, Ok(StartPosition::AfterLoss(1_000_021)));
    }

    #[test]
    fn contradicting_logs_halt_the_partition() {
        let cursor = cursor(50, 20);
        let check = |logs: &PartitionLogs| start(Some(&cursor), logs).unwrap_err();
        let recreated = logs(2, (1, 9), (1, 9));
        assert!(matches!(
            check(&recreated),
            LogMismatch::Replaced {
                first: 1,
                covered: 50
            }
        ));
        let trimmed = logs(1, (1, 90), (25, 30));
        assert_eq!(
            check(&trimmed),
            LogMismatch::Trimmed {
                first: 25,
                wanted: 21
            }
        );
        let short = logs(1, (1, 90), (1, 19));
        assert_eq!(
            check(&short),
            LogMismatch::Regressed {
                last: 19,
                covered: 20
            }
        );
        let mut restored = logs(1, (1, 90), (1, 30));
        restored.msg_id = Some("other".to_owned());
        assert!(matches!(
            check(&restored),
            LogMismatch::OtherMessage { seq: 50, .. }
        ));
    }
}
