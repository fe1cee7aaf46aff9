//! Where a turn leaves the cursor.

use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{OutputFrame, Timestamp, Verdict};

/// The cursor after these frames, given with their sequences; `None` when there are none. The
/// message id at the new input mark is looked up by the caller, so it is absent here unless the
/// mark did not move.
pub fn advance(
    previous: Option<&Cursor>,
    frames: &[(u64, OutputFrame)],
    stream_created: Timestamp,
) -> Option<Cursor> {
    let (out_seq, last) = frames.last()?;
    let before = previous.and_then(|cursor| cursor.input);
    let marks = frames.iter().rev().map(|(_, frame)| frame.last_input);
    let input = marks.flatten().next().or(before);
    let mut cursor = Cursor {
        out_seq: *out_seq,
        input,
        input_msg_id: previous
            .filter(|_| input == before)
            .and_then(|cursor| cursor.input_msg_id.clone()),
        stream_created,
        epoch: last.epoch,
        leader_epoch: previous.map_or(0, |cursor| cursor.leader_epoch),
        clock: previous.and_then(|cursor| cursor.clock),
        origin: previous.map_or_else(Origin::default, |cursor| cursor.origin),
    };
    for outcome in frames.iter().flat_map(|(_, frame)| &frame.outcomes) {
        cursor.clock = cursor.clock.max(Some(outcome.at));
        if let Verdict::Accepted(accepted) = &outcome.verdict
            && let Some(epoch) = accepted.leader_epoch
        {
            cursor.leader_epoch = epoch;
        }
    }
    Some(cursor)
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Utc};
    use nixfleet_proto::outcome::OutcomeSubject;
    use nixfleet_proto::{Accepted, InputMark, Outcome, Position, Rejection, rejection::Reason};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        chrono::DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn outcome(seconds: i64, verdict: Verdict) -> Outcome {
        Outcome {
            position: Position { seq: 1, index: 0 },
            at: at(seconds),
            subject: OutcomeSubject {
                entry: "Barrier".to_owned(),
                event: None,
                producer: None,
                rollout_id: None,
                hostname: None,
            },
            traceparent: None,
            verdict,
        }
    }

    fn frame(epoch: u64, mark: Option<u64>, outcomes: Vec<Outcome>) -> OutputFrame {
        OutputFrame {
            last_input: mark.map(|seq| InputMark {
                seq,
                index: 0,
                of: 1,
            }),
            outcomes,
            ..OutputFrame::new(epoch)
        }
    }

    #[test]
    fn no_frame_moves_no_cursor() {
        assert_eq!(advance(None, &[], at(0)), None);
    }

    #[test]
    fn the_cursor_takes_position_epochs_and_clock_from_the_frames() {
        let barrier = Accepted {
            leader_epoch: Some(7),
            ..Accepted::default()
        };
        let rejected = Verdict::Rejected(Rejection::new(Reason::Fenced, "old"));
        let frames = [
            (
                4,
                frame(
                    1,
                    Some(9),
                    vec![outcome(5, Verdict::Accepted(Box::new(barrier)))],
                ),
            ),
            (5, frame(2, Some(11), vec![outcome(6, rejected)])),
        ];
        let cursor = advance(None, &frames, at(1)).unwrap();
        assert_eq!(
            (cursor.out_seq, cursor.epoch, cursor.leader_epoch),
            (5, 2, 7)
        );
        assert_eq!(cursor.input.unwrap().seq, 11);
        assert_eq!((cursor.clock, cursor.stream_created), (Some(at(6)), at(1)));
        assert_eq!(cursor.input_msg_id, None);
    }

    #[test]
    fn a_takeover_without_entries_keeps_what_was_known() {
        let first = advance(None, &[(1, frame(1, Some(3), vec![]))], at(1)).unwrap();
        let first = Cursor {
            input_msg_id: Some("a-1".to_owned()),
            clock: Some(at(9)),
            leader_epoch: 4,
            ..first
        };
        let second = advance(Some(&first), &[(2, frame(2, Some(3), vec![]))], at(1)).unwrap();
        let expected = Cursor {
            out_seq: 2,
            epoch: 2,
            ..first
        };
        assert_eq!(second, expected);
    }
}
