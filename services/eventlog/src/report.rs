//! What health and metrics say of the streams that this instance works on.

use metrics::gauge;
use nixfleet_bus::{LogHolder, LogUsage};
use nixfleet_proto::subject::Partition;
use nixfleet_service::Readiness;

use crate::stream::Unit;

/// Name of the part of the process that archives a stream.
pub fn archive_component(stream: &str) -> String {
    format!("archive {stream}")
}

/// Name of the part of the process that trims the logs of a partition.
pub fn trim_component(partition: Partition) -> String {
    format!("trim {partition}")
}

/// States whether somebody has to decide before a stream is archived any further.
pub fn archive_stopped(stream: &str, is_stopped: bool) {
    let stopped = f64::from(u8::from(is_stopped));
    gauge!("nixfleet_archive_stopped", "stream" => stream.to_owned()).set(stopped);
}

/// States how full a log is, and who keeps its oldest message.
pub fn log_fill(stream: &str, fill: &LogUsage, holder: LogHolder) {
    set_log_fill(stream, (fill.bytes, fill.max_bytes), Some(holder));
}

/// Others work on these streams now: what was wrong with them here says nothing any more.
pub fn forget(readiness: &Readiness, unit: &Unit) {
    for stream in &unit.streams {
        readiness.set_ready(&archive_component(&stream.name), Ok(()));
        archive_stopped(&stream.name, false);
        gauge!("nixfleet_archive_lag_messages", "stream" => stream.name.clone()).set(0.0);
    }
    if let Some(partition) = unit.partition {
        readiness.set_ready(&trim_component(partition), Ok(()));
        for stream in &unit.streams {
            set_log_fill(&stream.name, (0, 0), None);
        }
    }
}

fn set_log_fill(stream: &str, (bytes, max_bytes): (u64, u64), holder: Option<LogHolder>) {
    gauge!("nixfleet_log_bytes", "stream" => stream.to_owned()).set(bytes as f64);
    gauge!("nixfleet_log_max_bytes", "stream" => stream.to_owned()).set(max_bytes as f64);
    for other in LogHolder::ALL {
        let held = f64::from(u8::from(Some(other) == holder));
        gauge!("nixfleet_log_held_by",
            "stream" => stream.to_owned(), "holder" => other.name())
        .set(held);
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::subject::Names;

    use super::*;
    use crate::stream::units;

    #[test]
    fn an_instance_is_ready_again_when_it_gave_back_what_it_could_not_do() {
        let units = units(&Names::new("fleet"), 1);
        let readiness = Readiness::default();
        let parts = ["archive FLEET_IN_00", "archive FLEET_OUT_00", "trim 00"];
        for part in parts {
            readiness.set_ready(part, Err("the database does not answer".to_owned()));
        }
        readiness.set_ready("archive FLEET_DEAD", Err("a hole".to_owned()));
        forget(&readiness, &units[0]);
        assert!(parts.iter().all(|part| readiness.is_ready(part)));
        assert!(
            !readiness.is_ready("archive FLEET_DEAD"),
            "it is of another unit"
        );
        forget(&readiness, &units[1]);
        assert!(readiness.report().ready);
    }
}
