//! Why hosts are where they are: what `nixfleet explain` says.

use anyhow::{Context, Result, ensure};
use nixfleet_audit::database;
use nixfleet_harness::dev;
use tokio::process::Command;

use crate::fleet::CHANNELS;
use crate::stage::Stage;
use nixfleet_harness::say::Say;

/// How many unfinished hosts a failure explains.
const UNFINISHED_SHOWN: i64 = 5;

/// One host of each kind: rolled back, held by the halt, held by the channel edges.
///
/// # Errors
/// When there is no such host or `explain` fails.
pub async fn why_it_halted(stage: &Stage, say: &Say) -> Result<()> {
    for (channel, state) in [
        (CHANNELS[0], "Reverted"),
        (CHANNELS[0], "Pending"),
        (CHANNELS[1], "Pending"),
        (CHANNELS[2], "Pending"),
    ] {
        let Some(hostname) = any_host(stage, channel, state).await? else {
            // Every host of the first channel may have been dispatched before the first one failed.
            ensure!(
                (channel, state) == (CHANNELS[0], "Pending"),
                "no host of {channel} is {state}"
            );
            continue;
        };
        say.line(&format!("\n$ nixfleet explain {hostname}"));
        say.line(explain(stage, &hostname).await?.trim_end());
    }
    Ok(())
}

/// After a failure: which hosts are not done, and why. Failing itself must not hide the failure.
pub async fn what_is_not_done(stage: &mut Stage, say: &Say) {
    if let Err(error) = try_what_is_not_done(stage, say).await {
        say.line(&format!("no more is known: {error:#}"));
    }
}

async fn try_what_is_not_done(stage: &Stage, say: &Say) -> Result<()> {
    say.title("What is not done");
    for wave in database::waves(&stage.database.url).await? {
        say.line(&format!(
            "{} wave {} ({}): {:?}",
            wave.rollout_id, wave.wave, wave.rollout_state, wave.hosts
        ));
    }
    let rows = database::query(
        &stage.database.url,
        "SELECT h.hostname FROM host_rollout_records h JOIN rollouts r USING (rollout_id)
         WHERE r.state NOT IN ('Superseded', 'Pruned') AND h.state <> 'Converged'
         ORDER BY (h.state = 'Pending'), h.rollout_id, h.hostname LIMIT $1",
        &[&UNFINISHED_SHOWN],
    )
    .await?;
    for row in rows {
        let hostname: String = row.get(0);
        say.line(&format!("\n$ nixfleet explain {hostname}"));
        say.line(explain(stage, &hostname).await?.trim_end());
    }
    Ok(())
}

async fn any_host(stage: &Stage, channel: &str, state: &str) -> Result<Option<String>> {
    let rows = database::query(
        &stage.database.url,
        "SELECT h.hostname FROM host_rollout_records h JOIN rollouts r USING (rollout_id)
         WHERE h.channel = $1 AND h.state = $2 AND r.state NOT IN ('Superseded', 'Pruned')
         ORDER BY h.hostname LIMIT 1",
        &[&channel, &state],
    )
    .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

async fn explain(stage: &Stage, hostname: &str) -> Result<String> {
    let config = stage.stack.config();
    let output = Command::new(dev::binary("nixfleet")?)
        .args(["explain", hostname])
        .env("NIXFLEET_URL", stage.stack.url(0)?)
        .env("NIXFLEET_CA", &config.authority.cert)
        .env("NIXFLEET_CERT", &config.operator.cert)
        .env("NIXFLEET_KEY", &config.operator.key)
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
