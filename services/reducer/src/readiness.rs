//! Whether an owner may call itself ready: it must be able to append.

use nixfleet_bus::{AGENT_EVENTS_MAX_PERCENT, LogUsage, PublishError};
use nixfleet_proto::mutation_testing;

use crate::ended::Ended;

/// What is known of the output log of one partition and of the last append to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why nothing could be appended; kept until something is.
    blocked: Option<String>,
    /// Why nothing is folded; until the next look at the log.
    short: Option<String>,
}

impl Readiness {
    /// Whether an owner that has just taken the partition over is ready. Its barrier is small: a log that
    /// takes it may be too full for a frame.
    ///
    /// # Errors
    /// Says why nothing could be appended.
    pub fn check(&self) -> Result<(), String> {
        if mutation_testing::is_active("ready-without-append") {
            return Ok(());
        }
        match (&self.blocked, &self.short) {
            (Some(reason), _) => Err(format!(
                "{reason}; nothing was appended since the partition was taken over again"
            )),
            (None, Some(reason)) => Err(reason.clone()),
            (None, None) => Ok(()),
        }
    }

    /// The owner looked at its output log, and whether it has room for what is folded next. One that has room takes the next frame, and there may be none
    /// to append for long: another owner has appended everything by then.
    pub fn look(&mut self, output: &LogUsage, room: Result<(), String>) {
        self.short = room.err();
        if output.percent() < AGENT_EVENTS_MAX_PERCENT {
            self.blocked = None;
        }
    }

    /// An ownership ended.
    pub fn ended(&mut self, ended: &Ended) {
        self.short = None;
        if let Ended::Failed(error) = ended
            && error.is::<PublishError>()
        {
            self.blocked = Some(format!("{error:#}"));
        }
    }

    /// A frame with so many outcomes was appended.
    pub fn appended(&mut self, outcomes: usize) {
        if outcomes > 0 {
            self.blocked = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::tests::log;

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
        readiness.appended(0);
        assert!(readiness.check().is_err());
        readiness.appended(1);
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn an_owner_that_finds_room_in_the_log_is_ready_again() {
        let mut readiness = Readiness::default();
        readiness.ended(&full());
        readiness.look(&log(850), Ok(()));
        assert!(readiness.check().is_err());
        readiness.look(&log(500), Ok(()));
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn an_owner_that_stops_folding_is_not_ready_while_it_owns_the_partition() {
        let mut readiness = Readiness::default();
        let short = Err("nothing is folded".to_owned());
        readiness.look(&log(900), short.clone());
        assert_eq!(readiness.check(), short);
        readiness.look(&log(890), Ok(()));
        assert_eq!(readiness.check(), Ok(()));
        readiness.look(&log(950), short);
        readiness.ended(&Ended::Released);
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
