//! Where a stream is taken up again, or why it must not be.

use nixfleet_bus::StreamIdentity;
use nixfleet_store::ArchiveMark;

/// Where archiving goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Last archived sequence, the fence of the next batch; 0 when nothing is archived.
    pub archived: u64,
    /// First sequence to read.
    pub next: u64,
    /// The archive does not go on from what it has: a replay begins at a checkpoint here.
    pub is_new_part: bool,
    /// What people should know.
    pub notice: Option<&'static str>,
}

/// Why a stream is not archived any further until somebody has decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The stream ends before what was archived of it.
    #[error(
        "{stream} ends at {last} but {archived} is archived: the log lost its end or was restored \
         from a copy. Remedy: empty the store of NATS, so that its streams are created above that"
    )]
    Shortened {
        /// The stream.
        stream: String,
        /// Its last sequence.
        last: u64,
        /// Last archived sequence.
        archived: u64,
    },
    /// Another stream of the same name uses sequences that are archived.
    #[error(
        "{stream} is another stream than the one archived up to {archived}, and it uses the same \
         sequences. Remedy: empty the store of NATS, so that its streams are created above that"
    )]
    Replaced {
        /// The stream.
        stream: String,
        /// Last archived sequence.
        archived: u64,
    },
}

/// Holds the stream against the archive's cursor. `contiguous` says that nothing is removed from the
/// middle of the stream.
///
/// # Errors
/// [`Stop`], when going on would lose or mix up messages in silence.
pub fn resume(
    stream: &str,
    mark: Option<&ArchiveMark>,
    identity: StreamIdentity,
    contiguous: bool,
) -> Result<Start, Stop> {
    let stream = stream.to_owned();
    let first = identity.first_seq;
    let Some(mark) = mark else {
        return Ok(Start {
            archived: 0,
            next: first,
            is_new_part: first > 1,
            notice: (first > 1).then_some("the archive begins in the middle of the stream"),
        });
    };
    let archived = mark.sequence;
    if mark.stream_created != identity.created {
        if first <= archived {
            return Err(Stop::Replaced { stream, archived });
        }
        return Ok(Start {
            archived,
            next: first,
            is_new_part: false,
            notice: Some("the stream was created again; what it held unarchived is lost"),
        });
    }
    if identity.last_seq < archived {
        return Err(Stop::Shortened {
            stream,
            last: identity.last_seq,
            archived,
        });
    }
    if contiguous && first > archived + 1 {
        return Ok(Start {
            archived,
            next: first,
            is_new_part: true,
            notice: Some(
                "messages were trimmed before they were archived: the archive was older than the log",
            ),
        });
    }
    Ok(Start {
        archived,
        next: archived + 1,
        is_new_part: false,
        notice: None,
    })
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    fn created(number: i64) -> Timestamp {
        Timestamp::from_timestamp_nanos(number)
    }

    /// Archived up to (creation, sequence), stream (creation, first, last).
    fn check(
        mark: Option<(i64, u64)>,
        (made, first_seq, last_seq): (i64, u64, u64),
        expected: Result<(u64, u64), &str>,
    ) {
        let mark = mark.map(|(made, sequence)| ArchiveMark {
            sequence,
            stream_created: created(made),
        });
        let identity = StreamIdentity {
            created: created(made),
            first_seq,
            last_seq,
        };
        let found = match resume("S", mark.as_ref(), identity, true) {
            Ok(start) => Ok((start.archived, start.next)),
            Err(Stop::Shortened { .. }) => Err("shortened"),
            Err(Stop::Replaced { .. }) => Err("replaced"),
        };
        assert_eq!(found, expected, "{mark:?} {identity:?}");
    }

    #[test]
    fn the_archive_goes_on_behind_its_cursor() {
        check(None, (1, 1, 0), Ok((0, 1)));
        check(None, (1, 40, 90), Ok((0, 40)));
        check(Some((1, 7)), (1, 1, 7), Ok((7, 8)));
        check(Some((1, 7)), (1, 8, 7), Ok((7, 8)));
        check(Some((1, 7)), (1, 3, 90), Ok((7, 8)));
    }

    #[test]
    fn an_archive_that_is_older_than_the_log_goes_on_in_a_new_part() {
        check(Some((1, 7)), (1, 9, 90), Ok((7, 9)));
        let part = |mark: Option<u64>, first_seq| {
            let mark = mark.map(|sequence| ArchiveMark {
                sequence,
                stream_created: created(1),
            });
            let identity = StreamIdentity {
                created: created(1),
                first_seq,
                last_seq: 90,
            };
            resume("S", mark.as_ref(), identity, true)
                .unwrap()
                .is_new_part
        };
        assert!(part(Some(7), 9) && part(None, 9));
        assert!(!part(Some(7), 8) && !part(None, 1));
    }

    #[test]
    fn lost_ends_stop_it() {
        check(Some((1, 7)), (1, 1, 6), Err("shortened"));
    }

    #[test]
    fn a_stream_created_above_the_cursor_is_taken_up() {
        check(Some((1, 7)), (2, 1_000_007, 1_000_006), Ok((7, 1_000_007)));
        check(Some((1, 7)), (2, 1, 90), Err("replaced"));
        check(Some((1, 7)), (2, 1, 3), Err("replaced"));
    }

    #[test]
    fn holes_are_normal_where_only_the_last_messages_are_kept() {
        let mark = ArchiveMark {
            sequence: 7,
            stream_created: created(1),
        };
        let identity = StreamIdentity {
            created: created(1),
            first_seq: 20,
            last_seq: 30,
        };
        let start = resume("S", Some(&mark), identity, false).unwrap();
        assert_eq!((start.archived, start.next), (7, 8));
    }
}
