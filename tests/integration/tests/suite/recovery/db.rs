//! `nixfleet db` as an operator runs it.

use std::process::Command;

use nixfleet_harness::dev;
use serde_json::Value;

use crate::suite::e2e::world::World;

/// How it ended and what it said.
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

/// Longest time until the archive has reached the logs.
const ARCHIVED: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs `nixfleet db` with these arguments on the database and the streams of a world.
pub async fn run(world: &World, arguments: &[&str]) -> Run {
    let mut command = Command::new(dev::binary("nixfleet").unwrap());
    command
        .arg("db")
        .args(arguments)
        .env("NIXFLEET_DATABASE_URL", &world.database.url);
    let command_line = format!("{arguments:?}");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect(&command_line);
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Replays the archive and compares every table: nothing may differ, everything is decided again. The
/// archive follows the logs, so it is given its time to reach them.
pub async fn verify(world: &World) -> Value {
    let prefix = world.stack.config().prefix.clone();
    let verified = nixfleet_harness::wait_for("the archive to agree", ARCHIVED, async || {
        let verified = run(world, &["verify", "--json", "--prefix", &prefix]).await;
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

/// The same of an archive that begins with the first frame of each partition.
pub async fn verify_whole(world: &World) {
    let report = verify(world).await;
    for partition in report["partitions"].as_array().unwrap() {
        assert_eq!(partition["isWhole"], true, "{report}");
        assert_eq!(partition["decided"], partition["outcomes"], "{report}");
    }
    assert!(report["rows"]["host_rollout_records"].as_u64().unwrap() > 0);
}
