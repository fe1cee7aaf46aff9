//! `nixfleet db` as an operator runs it.

use std::time::Duration;

use nixfleet_harness::binaries;
use serde_json::Value;
use tokio::process::Command;

use crate::suite::e2e::testbed::Testbed;

/// Exit code and output of the command.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }
}

/// Timeout for the archive to reach the ends of the logs.
const ARCHIVED: Duration = Duration::from_secs(60);
/// Timeout of one command.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Runs `nixfleet db` with these arguments on the database of a testbed.
pub async fn run(testbed: &Testbed, arguments: &[&str]) -> Run {
    let nats_url = &testbed.stack.config().nats_url;
    run_at((&testbed.database.url, nats_url), arguments).await
}

/// Runs `nixfleet db` on the database and the bus at these URLs.
async fn run_at((url, nats_url): (&str, &str), arguments: &[&str]) -> Run {
    let mut command = Command::new(binaries::workspace_binary("nixfleet").unwrap());
    command
        .arg("db")
        .args(arguments)
        .env("NIXFLEET_DATABASE_URL", url)
        .env("NIXFLEET_BUS_URL", nats_url)
        .kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Replays the archive and compares every table, without a difference. The archive gets time to
/// reach the ends of the logs.
pub async fn verify(testbed: &Testbed) -> Value {
    let config = testbed.stack.config();
    verify_at((&testbed.database.url, &config.nats_url), &config.prefix).await
}

/// Verifies the database against the bus at these URLs, with the streams of a prefix.
pub async fn verify_at(urls: (&str, &str), prefix: &str) -> Value {
    let verified = nixfleet_harness::wait_for("the archive to agree", ARCHIVED, async || {
        let verified = run_at(urls, &["verify", "--json", "--prefix", prefix]).await;
        match verified.code {
            0 => Ok(Some(verified)),
            _ => Err(anyhow::anyhow!("{verified:?}")),
        }
    })
    .await
    .unwrap();
    let report = verified.json();
    let partitions = report["partitions"].as_array().unwrap();
    assert!(!partitions.is_empty(), "{report}");
    report
}

/// Verifies an archive that begins with the first frame of each partition.
pub async fn verify_whole(testbed: &Testbed) {
    let report = verify(testbed).await;
    for partition in report["partitions"].as_array().unwrap() {
        assert_eq!(partition["isWhole"], true, "{report}");
        assert_eq!(partition["decided"], partition["outcomes"], "{report}");
    }
    assert!(report["rows"]["host_rollout_records"].as_u64().unwrap() > 0);
}
