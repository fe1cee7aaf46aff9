//! `nixfleet status`.

use clap::Args;
use comfy_table::Table;
use nixfleet_proto::RolloutId;

use crate::api_responses::{self, ChannelStatus, PartitionStatus, Status};
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, or_dash, render, table};
use crate::time::short;

/// Channels with their rollouts, waves and hosts by state
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let answer = Client::new(&arguments.connection)?.get(&Request::path(&["v1", "status"]))?;
    if arguments.json {
        return stdout::json(&answer);
    }
    stdout::line(&text(&client::read(&answer)?))
}

fn text(status: &Status) -> String {
    let release = match &status.release {
        Some(release) => format!(
            "release {} signed {} for {} hosts",
            or_dash(release.commit.as_ref()),
            short(release.signed_at),
            release.hosts
        ),
        None => "no release accepted yet".to_owned(),
    };
    let mut table = table(&[
        "CHANNEL",
        "ROLLOUT",
        "STATE",
        ">WAVE",
        ">HOSTS",
        "HOSTS BY STATE",
        "OPENED",
    ]);
    for channel in &status.channels {
        add_channel(&mut table, channel);
    }
    format!(
        "{}   {release}\n{}\n\n{}",
        short(status.at),
        lag(&status.partitions),
        render(&table)
    )
}

fn lag(partitions: &[PartitionStatus]) -> String {
    let behind: Vec<String> = partitions
        .iter()
        .filter(|partition| partition.lag_messages > 0)
        .map(|partition| format!("{}: {}", partition.partition, partition.lag_messages))
        .collect();
    if behind.is_empty() {
        format!("all {} partitions applied", partitions.len())
    } else {
        format!(
            "messages not applied yet by partition: {}",
            behind.join(", ")
        )
    }
}

/// Adds a row per rollout, and one for an expected rollout that is not open.
fn add_channel(table: &mut Table, channel: &ChannelStatus) {
    let name = channel.channel.to_string();
    let expected = channel.expected_rollout_id.as_ref();
    let is_open = |id: &RolloutId| {
        let mut rollouts = channel.rollouts.iter();
        rollouts.any(|rollout| rollout.rollout_id == *id)
    };
    if expected.map_or(channel.rollouts.is_empty(), |id| !is_open(id)) {
        let state = match expected {
            Some(_) => "not opened",
            None => "no hosts",
        };
        let [wave, hosts, states, opened] = ["-"; 4].map(str::to_owned);
        let (id, state) = (or_dash(expected), state.to_owned());
        add_row(
            table,
            [name.clone(), id, state, wave, hosts, states, opened],
        );
    }
    for rollout in &channel.rollouts {
        add_row(
            table,
            [
                name.clone(),
                rollout.rollout_id.to_string(),
                rollout.state.name().to_owned(),
                api_responses::wave_of(rollout.current_wave, rollout.waves),
                rollout.hosts.to_string(),
                api_responses::states(&rollout.hosts_by_state),
                short(rollout.opened_at),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_shown_as_tables() {
        let status = json!({
            "at": "2026-05-01T12:00:00Z",
            "release": {"seq": 3, "commit": "4f1c", "signedAt": "2026-05-01T11:00:00Z", "fleetHash": "x", "hosts": 5},
            "channels": [
                {"channel": "edge", "expectedRolloutId": "edge@4f1c", "rollouts": [
                    {"rolloutId": "edge@4f1c", "targetRef": "4f1c", "state": "Active", "currentWave": 1, "waves": 3,
                     "hosts": 4, "hostsByState": {"Converged": 2, "Soaking": 1, "Pending": 1}, "openedAt": "2026-05-01T11:01:00Z"}]},
                {"channel": "empty", "expectedRolloutId": null, "rollouts": []},
                {"channel": "stable", "expectedRolloutId": "stable@4f1c", "rollouts": [
                    {"rolloutId": "stable@0a", "targetRef": "0a", "state": "Terminal", "currentWave": 0, "waves": 1,
                     "hosts": 1, "hostsByState": {"Converged": 1}, "openedAt": "2026-04-01T11:01:00Z"}]},
            ],
            "partitions": [
                {"partition": 0, "inputSeq": 9, "appliedInputSeq": 9, "lagMessages": 0, "outputSeq": 4, "appliedOutputSeq": 4},
                {"partition": 1, "inputSeq": 9, "appliedInputSeq": 2, "lagMessages": 7, "outputSeq": 4, "appliedOutputSeq": 4}],
        });
        insta::assert_snapshot!(text(&client::read(&status).unwrap()), @r#"
        2026-05-01 12:00:00   release 4f1c signed 2026-05-01 11:00:00 for 5 hosts
        messages not applied yet by partition: 1: 7

        CHANNEL  ROLLOUT      STATE         WAVE  HOSTS  HOSTS BY STATE                     OPENED
        edge     edge@4f1c    Active      1 of 3      4  1 Pending, 1 Soaking, 2 Converged  2026-05-01 11:01:00
        empty    -            no hosts         -      -  -                                  -
        stable   stable@4f1c  not opened       -      -  -                                  -
        stable   stable@0a    Terminal    0 of 1      1  1 Converged                        2026-04-01 11:01:00
        "#);
        let empty = json!({"at": "2026-05-01T12:00:00Z", "release": null, "channels": [], "partitions": []});
        insta::assert_snapshot!(text(&client::read(&empty).unwrap()), @r#"
        2026-05-01 12:00:00   no release accepted yet
        all 0 partitions applied

        CHANNEL  ROLLOUT  STATE  WAVE  HOSTS  HOSTS BY STATE  OPENED
        "#);
    }
}
