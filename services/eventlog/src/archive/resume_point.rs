//! The position at which archiving a stream resumes, or the reason why it must not.

use nixfleet_bus::StreamIdentity;
use nixfleet_store::ArchiveMark;

/// Position at which archiving resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// Last archived sequence, which fences the next batch; 0 for an empty archive.
    pub archived: u64,
    pub next: u64,
    /// True when messages are missing before `next`: a replay needs a checkpoint there.
    pub is_new_part: bool,
    pub notice: Option<&'static str>,
}

/// Why archiving must stop until an operator has acted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The stream ends before the last archived sequence.
    #[error(
        "{stream} ends at {last} but {archived} is archived: the log lost its end or was restored \
         from a copy. Remedy: empty the store of NATS, so that its streams are created above that"
    )]
    Shortened {
        stream: String,
        last: u64,
        archived: u64,
    },
    /// Another stream of the same name uses archived sequences.
    #[error(
        "{stream} is another stream than the one archived up to {archived}, and it uses the same \
         sequences. Remedy: empty the store of NATS, so that its streams are created above that"
    )]
    Replaced { stream: String, archived: u64 },
}

/// Compares a stream with the archive cursor. A `contiguous` one has no gaps in its middle.
///
/// # Errors
/// [`ResumeError`], when archiving would lose or mix messages without an error.
pub fn find_resume_point(
    stream: &str,
    mark: Option<&ArchiveMark>,
    identity: StreamIdentity,
    contiguous: bool,
) -> Result<ResumePoint, ResumeError> {
    let stream = stream.to_owned();
    let first = identity.first_seq;
    let Some(mark) = mark else {
        return Ok(ResumePoint {
            archived: 0,
            next: first,
            is_new_part: first > 1,
            notice: (first > 1).then_some("the archive begins in the middle of the stream"),
        });
    };
    let archived = mark.sequence;
    if mark.stream_created != identity.created {
        if first <= archived {
            return Err(ResumeError::Replaced { stream, archived });
        }
        return Ok(ResumePoint {
            archived,
            next: first,
            is_new_part: false,
            notice: Some("the stream was created again; messages that were not archived are lost"),
        });
    }
    if identity.last_seq < archived {
        return Err(ResumeError::Shortened {
            stream,
            last: identity.last_seq,
            archived,
        });
    }
    if contiguous && first > archived + 1 {
        return Ok(ResumePoint {
            archived,
            next: first,
            is_new_part: true,
            notice: Some(
                "messages were trimmed before they were archived: the archive was older than the log",
            ),
        });
    }
    Ok(ResumePoint {
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

    /// Arguments: archived up to (creation, sequence), stream (creation, first, last).
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
        let found = match find_resume_point("S", mark.as_ref(), identity, true) {
            Ok(start) => Ok((start.archived, start.next)),
            Err(ResumeError::Shortened { .. }) => Err("shortened"),
            Err(ResumeError::Replaced { .. }) => Err("replaced"),
        };
        assert_eq!(found, expected, "{mark:?} {identity:?}");
    }

    #[test]
    fn archiving_resumes_behind_the_cursor() {
        check(None, (1, 1, 0), Ok((0, 1)));
        check(None, (1, 40, 90), Ok((0, 40)));
        check(Some((1, 7)), (1, 1, 7), Ok((7, 8)));
        check(Some((1, 7)), (1, 8, 7), Ok((7, 8)));
        check(Some((1, 7)), (1, 3, 90), Ok((7, 8)));
    }

    #[test]
    fn a_gap_before_the_log_begins_a_new_part() {
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
            find_resume_point("S", mark.as_ref(), identity, true)
                .unwrap()
                .is_new_part
        };
        assert!(part(Some(7), 9) && part(None, 9));
        assert!(!part(Some(7), 8) && !part(None, 1));
    }

    #[test]
    fn a_stream_that_lost_its_end_is_refused() {
        check(Some((1, 7)), (1, 1, 6), Err("shortened"));
    }

    #[test]
    fn a_recreated_stream_above_the_cursor_is_continued() {
        check(Some((1, 7)), (2, 1_000_007, 1_000_006), Ok((7, 1_000_007)));
        check(Some((1, 7)), (2, 1, 90), Err("replaced"));
        check(Some((1, 7)), (2, 1, 3), Err("replaced"));
    }

    #[test]
    fn gaps_are_ignored_in_a_stream_that_keeps_last_messages() {
        let mark = ArchiveMark {
            sequence: 7,
            stream_created: created(1),
        };
        let identity = StreamIdentity {
            created: created(1),
            first_seq: 20,
            last_seq: 30,
        };
        let start = find_resume_point("S", Some(&mark), identity, false).unwrap();
        assert_eq!((start.archived, start.next), (7, 8));
    }
}
