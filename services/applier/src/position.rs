//! Where to start reading: the guard against a log that was trimmed, lost or replaced.

use nixfleet_bus::StreamIdentity;
use nixfleet_proto::mutation_testing;
use nixfleet_proto::snapshot::Cursor;

/// What the broker says about the two logs of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// The input stream.
    pub input: StreamIdentity,
    /// The output stream.
    pub output: StreamIdentity,
    /// Message id at the cursor's input mark; absent when the message is not held any more.
    pub msg_id: Option<String>,
}

/// Where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The tables go on with this output sequence.
    Continue(u64),
    /// The tables are empty and the log is whole.
    FromFirst(u64),
    /// The tables are empty and the beginning of the log is gone: what it opened stays unknown.
    FromTrimmed(u64),
    /// The logs were lost and created anew above the cursor; the tables are kept.
    AfterLoss(u64),
}

impl Start {
    /// The first output sequence to read.
    pub fn seq(self) -> u64 {
        match self {
            Self::Continue(seq)
            | Self::FromFirst(seq)
            | Self::FromTrimmed(seq)
            | Self::AfterLoss(seq) => seq,
        }
    }
}

/// Tables and log do not belong together; somebody has to decide which of them counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The stream was created anew at or below the cursor.
    #[error(
        "the input log was created anew at sequence {first}, but the tables cover {covered}: empty \
         the store of NATS, so that its streams are created above the tables"
    )]
    Replaced {
        /// First sequence of the new stream.
        first: u64,
        /// Input sequence of the cursor.
        covered: u64,
    },
    /// Another message is at the cursor's position.
    #[error(
        "the message at input sequence {seq} is {found:?}, the tables were written from \
         {expected:?}: the log was restored from a backup; empty the store of NATS, so that its \
         streams are created above the tables"
    )]
    OtherMessage {
        /// The position.
        seq: u64,
        /// Id the cursor remembers.
        expected: String,
        /// Id the log holds.
        found: String,
    },
    /// The log ends before the cursor.
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
    /// Frames that were never applied are gone.
    #[error(
        "the output log starts at sequence {first}, but {wanted} was not applied yet: it was \
         trimmed, and no checkpoint covers what is missing; write the tables from the archive with \
         `nixfleet db rebuild`"
    )]
    Trimmed {
        /// First sequence held.
        first: u64,
        /// First sequence not applied.
        wanted: u64,
    },
}

/// True when the log alone does not bring the tables to its end: they are gone or older than what it
/// holds, and a checkpoint has to be written first.
pub fn needs_checkpoint(cursor: Option<&Cursor>, logs: &Logs) -> bool {
    match start(cursor, logs) {
        Ok(Start::FromTrimmed(_)) | Err(GuardError::Trimmed { .. }) => {
            !mutation_testing::is_active("applier-ignores-checkpoints")
        }
        Ok(Start::Continue(_) | Start::FromFirst(_) | Start::AfterLoss(_))
        | Err(
            GuardError::Replaced { .. }
            | GuardError::OtherMessage { .. }
            | GuardError::Regressed { .. },
        ) => false,
    }
}

/// Decides where to start.
///
/// # Errors
/// [`GuardError`], which names the remedy.
pub fn start(cursor: Option<&Cursor>, logs: &Logs) -> Result<Start, GuardError> {
    let first = logs.output.first_seq;
    let Some(cursor) = cursor else {
        return Ok(if first <= 1 {
            Start::FromFirst(first)
        } else {
            Start::FromTrimmed(first)
        });
    };
    let covered = cursor.input.map_or(0, |mark| mark.seq);
    let wanted = cursor.out_seq + 1;
    if logs.input.created != cursor.stream_created {
        if logs.input.first_seq <= covered || first < wanted {
            let first = logs.input.first_seq;
            return Err(GuardError::Replaced { first, covered });
        }
        return Ok(Start::AfterLoss(first));
    }
    if let (Some(expected), Some(found)) = (&cursor.input_msg_id, &logs.msg_id)
        && expected != found
    {
        return Err(GuardError::OtherMessage {
            seq: covered,
            expected: expected.clone(),
            found: found.clone(),
        });
    }
    if logs.output.last_seq < cursor.out_seq {
        return Err(GuardError::Regressed {
            last: logs.output.last_seq,
            covered: cursor.out_seq,
        });
    }
    if first > wanted {
        return Err(GuardError::Trimmed { first, wanted });
    }
    Ok(Start::Continue(wanted))
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

    fn logs(generation: i64, input: (u64, u64), output: (u64, u64)) -> Logs {
        let identity = |(first_seq, last_seq)| StreamIdentity {
            created: created(generation),
            first_seq,
            last_seq,
        };
        Logs {
            input: identity(input),
            output: identity(output),
            msg_id: None,
        }
    }

    #[test]
    fn tables_go_on_after_their_cursor() {
        let logs = logs(1, (1, 50), (1, 20));
        assert_eq!(start(Some(&cursor(40, 10)), &logs), Ok(Start::Continue(11)));
        assert_eq!(start(Some(&cursor(50, 20)), &logs), Ok(Start::Continue(21)));
    }

    #[test]
    fn empty_tables_start_with_what_the_log_holds() {
        assert_eq!(
            start(None, &logs(1, (1, 0), (1, 0))),
            Ok(Start::FromFirst(1))
        );
        assert_eq!(
            start(None, &logs(1, (8, 9), (5, 9))),
            Ok(Start::FromTrimmed(5))
        );
    }

    #[test]
    fn logs_created_above_the_cursor_are_followed() {
        let anew = logs(2, (1_000_051, 1_000_050), (1_000_021, 1_000_020));
        let found = start(Some(&cursor(50, 20)), &anew);
        assert_eq!(found, Ok(Start::AfterLoss(1_000_021)));
    }

    #[test]
    fn logs_that_do_not_belong_to_the_tables_stop_the_partition() {
        let cursor = cursor(50, 20);
        let check = |logs: &Logs| start(Some(&cursor), logs).unwrap_err();
        let anew = logs(2, (1, 9), (1, 9));
        assert!(matches!(
            check(&anew),
            GuardError::Replaced {
                first: 1,
                covered: 50
            }
        ));
        let trimmed = logs(1, (1, 90), (25, 30));
        assert_eq!(
            check(&trimmed),
            GuardError::Trimmed {
                first: 25,
                wanted: 21
            }
        );
        let short = logs(1, (1, 90), (1, 19));
        assert_eq!(
            check(&short),
            GuardError::Regressed {
                last: 19,
                covered: 20
            }
        );
        let mut restored = logs(1, (1, 90), (1, 30));
        restored.msg_id = Some("other".to_owned());
        assert!(matches!(
            check(&restored),
            GuardError::OtherMessage { seq: 50, .. }
        ));
    }
}
