//! Readiness of an owner: it must be able to append.

use nixfleet_bus::{AGENT_EVENTS_MAX_PERCENT, LogUsage, PublishError};
use nixfleet_proto::mutation_testing;

use crate::ownership::ownership_end::OwnershipEnd;

/// Readiness of one partition, from its output log and the last append to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Error of the last append; kept until an append succeeds.
    append_error: Option<String>,
    /// Reason why nothing is folded, as of the last observation of the log.
    capacity_error: Option<String>,
}

impl Readiness {
    /// Checks whether an owner is ready. A successful takeover is not enough: its barrier is small,
    /// and the log may be too full for a frame.
    ///
    /// # Errors
    /// States why no frame can be appended.
    pub fn check(&self) -> Result<(), String> {
        if mutation_testing::is_active("ready-without-append") {
            return Ok(());
        }
        match (&self.append_error, &self.capacity_error) {
            (Some(reason), _) => Err(format!(
                "{reason}; nothing was appended since the last takeover of the partition"
            )),
            (None, Some(reason)) => Err(reason.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Takes an observation of the output log and the result of its capacity check. A log with
    /// capacity takes the next frame, even if another owner has appended all of them.
    pub fn observe_log(&mut self, output: &LogUsage, capacity: Result<(), String>) {
        self.capacity_error = capacity.err();
        if output.percent() < AGENT_EVENTS_MAX_PERCENT {
            self.append_error = None;
        }
    }

    /// Takes the end of an ownership.
    pub fn ownership_ended(&mut self, ended: &OwnershipEnd) {
        self.capacity_error = None;
        if let OwnershipEnd::Failed(error) = ended
            && error.is::<PublishError>()
        {
            self.append_error = Some(format!("{error:#}"));
        }
    }

    /// Takes an appended frame with this number of outcomes.
    pub fn appended(&mut self, outcomes: usize) {
        if outcomes > 0 {
            self.append_error = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::log_capacity::tests::log;

    fn full() -> OwnershipEnd {
        OwnershipEnd::failed(PublishError::Full("FLEET_OUT_03".to_owned()))
    }

    #[test]
    fn a_takeover_after_a_failed_append_is_not_ready() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.check(), Ok(()));
        readiness.ownership_ended(&full());
        let reason = readiness.check().unwrap_err();
        assert!(reason.contains("FLEET_OUT_03 is full"), "{reason}");
        // Barriers and announcements have no outcomes.
        readiness.appended(0);
        assert!(readiness.check().is_err());
        readiness.appended(1);
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn an_owner_is_ready_again_when_the_log_has_capacity() {
        let mut readiness = Readiness::default();
        readiness.ownership_ended(&full());
        readiness.observe_log(&log(850), Ok(()));
        assert!(readiness.check().is_err());
        readiness.observe_log(&log(500), Ok(()));
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn an_owner_that_stops_folding_is_not_ready() {
        let mut readiness = Readiness::default();
        let full = Err("nothing is folded".to_owned());
        readiness.observe_log(&log(900), full.clone());
        assert_eq!(readiness.check(), full);
        readiness.observe_log(&log(890), Ok(()));
        assert_eq!(readiness.check(), Ok(()));
        readiness.observe_log(&log(950), full);
        readiness.ownership_ended(&OwnershipEnd::Released);
        assert_eq!(readiness.check(), Ok(()));
    }

    #[test]
    fn other_ends_do_not_change_readiness() {
        let mut readiness = Readiness::default();
        for ended in [
            OwnershipEnd::Released,
            OwnershipEnd::Fenced,
            OwnershipEnd::Failed(anyhow::anyhow!("the database is away")),
        ] {
            readiness.ownership_ended(&ended);
            assert_eq!(readiness.check(), Ok(()));
        }
        readiness.ownership_ended(&full());
        readiness.ownership_ended(&OwnershipEnd::Released);
        assert!(readiness.check().is_err());
    }
}
