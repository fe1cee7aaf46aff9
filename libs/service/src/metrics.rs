//! The metrics recorder of the process and its buckets.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Durations from a cheap in-memory step to the longest request.
const SECONDS: [f64; 16] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    15.0, 60.0,
];
/// Batch sizes in powers of two, up to a full batch of full frames.
const COUNTS: [f64; 13] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 2048.0, 16384.0, 262_144.0,
];
/// Message and body sizes.
const BYTES: [f64; 9] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    8_388_608.0,
];

/// Installs the recorder behind the `metrics` macros. The unit suffix of a histogram's name (`_seconds`,
/// `_entries`, `_bytes`) selects its buckets.
///
/// # Errors
/// When a recorder is installed already.
pub fn install(
    service: &'static str,
    version: &'static str,
) -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), &COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .install_recorder()?;
    metrics::gauge!("nixfleet_build_info", "service" => service, "version" => version).set(1.0);
    metrics::gauge!("nixfleet_start_time_seconds", "service" => service).set(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64()),
    );
    Ok(handle)
}
