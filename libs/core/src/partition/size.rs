//! How much of a frame an outcome takes.

use std::io;

use nixfleet_proto::{Outcome, Reason, Rejection, Verdict};

use super::MAX_OUTCOME_BYTES;

/// Bytes of the outcome as JSON with the comma behind it. An outcome that no frame can hold becomes
/// a rejection: the entry that caused it must not stop its partition.
pub(super) fn fit(outcome: &mut Outcome) -> usize {
    let bytes = json_bytes(outcome);
    if bytes <= MAX_OUTCOME_BYTES {
        return bytes;
    }
    let message = format!("what follows takes {bytes} bytes, more than {MAX_OUTCOME_BYTES}");
    outcome.verdict = Verdict::Rejected(Rejection::new(Reason::Invariant, message));
    json_bytes(outcome)
}

fn json_bytes(outcome: &Outcome) -> usize {
    struct Count(usize);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(1);
    serde_json::to_writer(&mut count, outcome)
        .expect("an outcome has text keys only, and a counter takes every byte");
    count.0
}
