//! Output of `nixfleet explain` for selected hosts.

use anyhow::{Context, Result, ensure};
use nixfleet_audit::database;
use nixfleet_harness::binaries;
use tokio::process::Command;

use crate::fleet::CHANNELS;
use crate::testbed::Testbed;
use nixfleet_harness::progress_printer::Printer;

/// Unfinished hosts that are explained after a failure.
const UNFINISHED_SHOWN: i64 = 5;

/// Explains a host of each kind: rolled back, held by the halt, held by the channel edges.
pub async fn explain_halt(testbed: &Testbed, printer: &Printer) -> Result<()> {
    for (channel, state) in [
        (CHANNELS[0], "Reverted"),
        (CHANNELS[0], "Pending"),
        (CHANNELS[1], "Pending"),
        (CHANNELS[2], "Pending"),
    ] {
        let Some(hostname) = any_host(testbed, channel, state).await? else {
            // Every host of the first channel may have been dispatched before the first one failed.
            ensure!(
                (channel, state) == (CHANNELS[0], "Pending"),
                "no host of {channel} is {state}"
            );
            continue;
        };
        printer.line(&format!("\n$ nixfleet explain {hostname}"));
        printer.line(explain(testbed, &hostname).await?.trim_end());
    }
    Ok(())
}

/// After a failure: which hosts are not done, and why. Failing itself must not hide the failure.
pub async fn explain_unfinished(testbed: &mut Testbed, printer: &Printer) {
    if let Err(error) = try_explain_unfinished(testbed, printer).await {
        printer.line(&format!("no more is known: {error:#}"));
    }
}

async fn try_explain_unfinished(testbed: &Testbed, printer: &Printer) -> Result<()> {
    printer.heading("What is not done");
    for wave in database::waves(&testbed.database.url).await? {
        printer.line(&format!(
            "{} wave {} ({}): {:?}",
            wave.rollout_id, wave.wave, wave.rollout_state, wave.hosts
        ));
    }
    let rows = database::query(
        &testbed.database.url,
        "SELECT h.hostname FROM host_rollout_records h JOIN rollouts r USING (rollout_id)
         WHERE r.state NOT IN ('Superseded', 'Pruned') AND h.state <> 'Converged'
         ORDER BY (h.state = 'Pending'), h.rollout_id, h.hostname LIMIT $1",
        &[&UNFINISHED_SHOWN],
    )
    .await?;
    for row in rows {
        let hostname: String = row.get(0);
        printer.line(&format!("\n$ nixfleet explain {hostname}"));
        printer.line(explain(testbed, &hostname).await?.trim_end());
    }
    Ok(())
}

async fn any_host(testbed: &Testbed, channel: &str, state: &str) -> Result<Option<String>> {
    let rows = database::query(
        &testbed.database.url,
        "SELECT h.hostname FROM host_rollout_records h JOIN rollouts r USING (rollout_id)
         WHERE h.channel = $1 AND h.state = $2 AND r.state NOT IN ('Superseded', 'Pruned')
         ORDER BY h.hostname LIMIT 1",
        &[&channel, &state],
    )
    .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

async fn explain(testbed: &Testbed, hostname: &str) -> Result<String> {
    let output = Command::new(binaries::workspace_binary("nixfleet")?)
        .args(["explain", hostname])
        .envs(testbed.operator_env()?)
        .kill_on_drop(true)
        .output()
        .await
        .context("starting nixfleet")?;
    ensure!(
        output.status.success(),
        "`nixfleet explain {hostname}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
