//! Readiness and metrics of the streams that this instance works on.

use metrics::gauge;
use nixfleet_bus::{LogHolder, LogUsage};
use nixfleet_proto::subject::Partition;
use nixfleet_service::Readiness;

use crate::stream::LeaseUnit;

/// Name of the archiver of a stream in readiness reports.
pub fn archive_component(stream: &str) -> String {
    format!("archive {stream}")
}

/// Name of the log trimmer of a partition in readiness reports.
pub fn trim_component(partition: Partition) -> String {
    format!("trim {partition}")
}

pub fn set_archive_stopped(stream: &str, is_stopped: bool) {
    let stopped = f64::from(u8::from(is_stopped));
    gauge!("nixfleet_archive_stopped", "stream" => stream.to_owned()).set(stopped);
}

pub fn set_log_usage(stream: &str, usage: &LogUsage, holder: LogHolder) {
    set_log_gauges(stream, (usage.bytes, usage.max_bytes), Some(holder));
}

/// Resets readiness and metrics of streams that another instance works on from now on.
pub fn reset(readiness: &Readiness, unit: &LeaseUnit) {
    for stream in &unit.streams {
        readiness.set_ready(&archive_component(&stream.name), Ok(()));
        set_archive_stopped(&stream.name, false);
        gauge!("nixfleet_archive_lag_messages", "stream" => stream.name.clone()).set(0.0);
    }
    if let Some(partition) = unit.partition {
        readiness.set_ready(&trim_component(partition), Ok(()));
        for stream in &unit.streams {
            set_log_gauges(&stream.name, (0, 0), None);
        }
    }
}

fn set_log_gauges(stream: &str, (bytes, max_bytes): (u64, u64), holder: Option<LogHolder>) {
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
    fn an_instance_is_ready_again_after_it_released_a_failed_unit() {
        let units = units(&Names::new("fleet"), 1);
        let readiness = Readiness::default();
        let components = ["archive FLEET_IN_00", "archive FLEET_OUT_00", "trim 00"];
        for component in components {
            readiness.set_ready(component, Err("the database does not answer".to_owned()));
        }
        readiness.set_ready("archive FLEET_DEAD", Err("a gap".to_owned()));
        reset(&readiness, &units[0]);
        assert!(
            components
                .iter()
                .all(|component| readiness.is_ready(component))
        );
        assert!(
            !readiness.is_ready("archive FLEET_DEAD"),
            "it belongs to another unit"
        );
        reset(&readiness, &units[1]);
        assert!(readiness.report().ready);
    }
}
