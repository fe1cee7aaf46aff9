//! Runs `nixfleet db verify`, which compares a replay of the archive with every table.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nixfleet_bus::BusConfig;
use serde_json::Value;
use tokio::process::Command;

/// Longest time until the archive has reached the tables.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Exit code for an archive that is behind the tables.
const BEHIND: i32 = 3;

/// The result of the replay.
#[derive(Debug, Default)]
pub struct VerifyResult {
    /// Replayed outcomes.
    pub outcomes: u64,
    /// Compared rows.
    pub rows: u64,
    /// Rows with a difference.
    pub differences: u64,
    /// Differences and errors, for people.
    pub faults: Vec<String>,
}

/// Runs the command until the archive has caught up.
///
/// # Errors
/// When the command cannot be run.
pub async fn verify(database_url: &str, bus: &BusConfig) -> Result<VerifyResult> {
    let file = |file: &Option<PathBuf>| file.clone().context("the bus has users with files");
    let options = [
        ("--bus-ca", file(&bus.ca_file)?),
        ("--bus-cert", file(&bus.cert_file)?),
        ("--bus-key", file(&bus.key_file)?),
    ];
    let start = Instant::now();
    loop {
        let output = Command::new(nixfleet_harness::binaries::workspace_binary("nixfleet")?)
            .args(["db", "verify", "--json", "--bus-url", &bus.url])
            .args(
                options
                    .iter()
                    .flat_map(|(name, file)| [OsStr::new(name), file.as_os_str()]),
            )
            .args([
                "--bus-api-prefix",
                bus.api_prefix.as_deref().unwrap_or_default(),
            ])
            .env("NIXFLEET_DATABASE_URL", database_url)
            .kill_on_drop(true)
            .output()
            .await
            .context("starting nixfleet")?;
        if output.status.code() == Some(BEHIND) && start.elapsed() < TIMEOUT {
            tokio::time::sleep(RETRY_INTERVAL).await;
            continue;
        }
        let mut verify_result = read(&output.stdout);
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim_end().to_owned();
            let fault = format!("`nixfleet db verify` ended with {}: {said}", output.status);
            verify_result.faults.push(fault);
        }
        return Ok(verify_result);
    }
}

/// Parses the JSON output; without a document the exit code is the result.
fn read(document: &[u8]) -> VerifyResult {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let partitions = document["partitions"].as_array().into_iter().flatten();
    let tables = document["rows"].as_object().into_iter().flatten();
    VerifyResult {
        outcomes: partitions.filter_map(|it| it["outcomes"].as_u64()).sum(),
        rows: tables.filter_map(|(_, rows)| rows.as_u64()).sum(),
        differences: document["differenceCount"].as_u64().unwrap_or(0),
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_results_are_summed_over_partitions() {
        let verify_result = read(
            br#"{"partitions": [{"outcomes": 3}, {"outcomes": 4}], "differenceCount": 2,
                 "rows": {"rollouts": 1, "host_rollout_records": 5}}"#,
        );
        let found = (
            verify_result.outcomes,
            verify_result.rows,
            verify_result.differences,
        );
        assert_eq!(found, (7, 6, 2));
        assert_eq!(read(b"no document").outcomes, 0);
    }
}
