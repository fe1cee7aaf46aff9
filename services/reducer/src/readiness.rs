//! Whether an owner may call itself ready: it must be able to append.

use nixfleet_bus::{AGENTS_PERCENT, LogFill, PublishError};
use nixfleet_proto::mutant;

use crate::ended::Ended;

/// What is known of the last append to the output log of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why nothing could be appended; kept until something is.
    blocked: Option<String>,
}

impl Readiness {
    /// Whether an owner that has just taken the partition over is ready. Its barrier is small: a log that
    /// takes it may be too full for a frame.
    ///
    /// # Errors
    /// Says why nothing could be appended.
    pub fn check(&self) -> Result<(), String> {
        match &self.blocked {
            Some(reason) if !mutant::is("ready-without-append") => Err(format!(
                "{reason}; nothing was appended since the partition was taken over again"
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The partition was taken over again, with this output log. One that has room takes the next frame,
    /// and there may be none to append for long: another owner has appended everything by then.
    pub fn took_over(&mut self, output: &LogFill) {
        if output.percent() < AGENTS_PERCENT {
            self.blocked = None;
        }
    }

    /// An ownership ended.
    pub fn ended(&mut self, ended: &Ended) {
        if let Ended::Failed(error) = ended
            && error.is::<PublishError>()
        {
            self.blocked = Some(format!("{error:#}"));
        }
    }

    /// A frame with so many outcomes was appended. True when that makes the owner ready again.
    pub fn appended(&mut self, outcomes: usize) -> bool {
        outcomes > 0 && self.blocked.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    fn full() -> Ended {
        Ended::failed(PublishError::Full("FLEET_OUT_03".to_owned()))
    }

    #[test]
    fn taking_over_again_does_not_make_an_owner_ready_that_could_not_append() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.check(), Ok(()));
        readiness.ended(&full());
        let reason = readiness.check().unwrap_err();
        assert!(reason.contains("FLEET_OUT_03 is full"), "{reason}");
        // Its barrier and its announcements have no outcomes.
        assert!(!readiness.appended(0));
        assert!(readiness.check().is_err());
        assert!(readiness.appended(1));
        assert_eq!(readiness.check(), Ok(()));
        assert!(!readiness.appended(1));
    }

    #[test]
    fn an_owner_that_finds_room_in_the_log_is_ready_again() {
        let log = |bytes| LogFill {
            created: Timestamp::UNIX_EPOCH,
            first_seq: 1,
            last_seq: 10,
            messages: 10,
            bytes,
            max_bytes: 1_000,
        };
        let mut readiness = Readiness::default();
        readiness.ended(&full());
        readiness.took_over(&log(950));
        assert!(readiness.check().is_err());
        readiness.took_over(&log(500));
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn other_ends_say_nothing_about_the_log() {
        let mut readiness = Readiness::default();
        for ended in [
            Ended::Released,
            Ended::Fenced,
            Ended::Failed(anyhow::anyhow!("the database is away")),
        ] {
            readiness.ended(&ended);
            assert_eq!(readiness.check(), Ok(()));
        }
        readiness.ended(&full());
        readiness.ended(&Ended::Released);
        assert!(readiness.check().is_err());
    }
}
