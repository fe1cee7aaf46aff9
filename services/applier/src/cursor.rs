//! The cursor behind a turn.

use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::{Decision, OutputFrame, Timestamp};

/// The cursor behind these frames and their sequences. The message id at the new input mark comes
/// from the frame; without one it is absent, unless the mark did not move.
///
/// # Panics
/// When there are no frames.
pub fn advance<'a>(
    previous: Option<&Cursor>,
    frames: impl IntoIterator<Item = (u64, &'a OutputFrame)>,
    stream_created: Timestamp,
) -> Cursor {
    let mut frames = frames.into_iter();
    let first = frames.next().expect("a turn has at least one frame");
    let mut cursor = previous
        .cloned()
        .unwrap_or_else(|| Cursor::empty(stream_created));
    cursor.stream_created = stream_created;
    for (seq, frame) in std::iter::once(first).chain(frames) {
        add_frame(&mut cursor, seq, frame);
    }
    cursor
}

fn add_frame(cursor: &mut Cursor, seq: u64, frame: &OutputFrame) {
    cursor.out_seq = seq;
    cursor.epoch = frame.epoch;
    cursor.checkpoints.follow(frame.checkpoints.as_ref());
    if frame.last_input.is_some() && frame.last_input != cursor.input {
        cursor.input = frame.last_input;
        cursor.input_msg_id.clone_from(&frame.last_input_id);
    }
    for outcome in &frame.outcomes {
        cursor.clock = cursor.clock.max(Some(outcome.at));
        if let Decision::Accepted(accepted) = &outcome.decision
            && let Some(epoch) = accepted.leader_epoch
        {
            cursor.leader_epoch = epoch;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::{TimeDelta, Utc};
    use nixfleet_proto::outcome::OutcomeSubject;
    use nixfleet_proto::{Accepted, InputMark, Outcome, Position, Rejection, rejection::Reason};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        chrono::DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn outcome(seconds: i64, decision: Decision) -> Outcome {
        Outcome {
            position: Position { seq: 1, index: 0 },
            at: at(seconds),
            subject: OutcomeSubject {
                entry: "Barrier".into(),
                event: None,
                producer: None,
                rollout_id: None,
                hostname: None,
                actor: None,
            },
            traceparent: None,
            decision,
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

    /// An outcome without a change.
    pub(crate) fn rejected(seconds: i64) -> Outcome {
        let rejection = Rejection::new(Reason::Stale, "seen before");
        outcome(seconds, Decision::Rejected(rejection))
    }

    fn after(previous: Option<&Cursor>, frames: &[(u64, OutputFrame)]) -> Cursor {
        let frames = frames.iter().map(|(seq, frame)| (*seq, frame));
        advance(previous, frames, at(1))
    }

    #[test]
    fn the_cursor_takes_position_epochs_and_clock_from_the_frames() {
        let barrier = Accepted {
            leader_epoch: Some(7),
            ..Accepted::default()
        };
        let rejected = Decision::Rejected(Rejection::new(Reason::Fenced, "old"));
        let frames = [
            (
                4,
                frame(
                    1,
                    Some(9),
                    vec![outcome(5, Decision::Accepted(Box::new(barrier)))],
                ),
            ),
            (5, frame(2, Some(11), vec![outcome(6, rejected)])),
        ];
        let cursor = after(None, &frames);
        assert_eq!(
            (cursor.out_seq, cursor.epoch, cursor.leader_epoch),
            (5, 2, 7)
        );
        assert_eq!(cursor.input.unwrap().seq, 11);
        assert_eq!((cursor.clock, cursor.stream_created), (Some(at(6)), at(1)));
        assert_eq!(cursor.input_msg_id, None);
    }

    #[test]
    fn a_takeover_without_entries_keeps_the_rest_of_the_cursor() {
        let first = after(None, &[(1, frame(1, Some(3), vec![]))]);
        let first = Cursor {
            input_msg_id: Some("a-1".to_owned()),
            clock: Some(at(9)),
            leader_epoch: 4,
            ..first
        };
        let second = after(Some(&first), &[(2, frame(2, Some(3), vec![]))]);
        let expected = Cursor {
            out_seq: 2,
            epoch: 2,
            ..first
        };
        assert_eq!(second, expected);
    }
}
