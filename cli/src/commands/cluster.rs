//! `nixfleet cluster`.

use clap::Args;
use nixfleet_proto::Timestamp;
use serde::Deserialize;

use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, clean, render, table};
use crate::time::short;

/// Services whose leases are partitions, in the order of the work.
const BY_PARTITION: [&str; 3] = ["reducer", "applier", "eventlog"];

/// Fill level of a log, in percent, from which the cursor that prevents trimming is shown.
const SHOW_HOLDER_PERCENT: u64 = 25;

/// Members of the cluster, owners of the partitions and their lag
#[derive(Debug, Args)]
#[command(after_help = "\
LAG IN: input messages not folded. LAG OUT: output frames not applied. LAG ARCHIVE: messages of both logs not \
archived. LOG IN, LOG OUT: how full the logs are, and from 25 % on who needs their oldest message. \"?\": could not be read. \"nobody\": no instance holds it at the moment.")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

/// `GET /v1/cluster`.
#[derive(Debug, Deserialize)]
struct Cluster {
    at: Timestamp,
    services: Vec<Service>,
    leader: Option<Owner>,
    partitions: Vec<Partition>,
    shared: Shared,
    problems: Vec<Problem>,
}

#[derive(Debug, Deserialize)]
struct Service {
    service: String,
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    instance: String,
    version: String,
    since: Timestamp,
    renewed_at: Timestamp,
    holds: Vec<String>,
    declines: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    instance: String,
    epoch: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Partition {
    partition: u16,
    owners: std::collections::BTreeMap<String, Option<Owner>>,
    epoch: Option<u64>,
    input_lag_messages: Option<u64>,
    output_lag_messages: Option<u64>,
    archive_lag_messages: Option<u64>,
    input_log: Option<Log>,
    output_log: Option<Log>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    percent: u64,
    held_by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shared {
    archived_by: Option<Owner>,
    archive_lag_messages: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    service: String,
    key: String,
    instance: Option<String>,
    code: String,
    message: String,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let answer = Client::new(&arguments.connection)?.get(&Request::path(&["v1", "cluster"]))?;
    if arguments.json {
        return stdout::json(&answer);
    }
    stdout::line(&text(&client::read(&answer)?))
}

fn text(cluster: &Cluster) -> String {
    format!(
        "{}   {}\n\n{}\n\n{}\n{}\n\n{}",
        short(cluster.at),
        leader(cluster.leader.as_ref()),
        members(&cluster.services),
        partitions(&cluster.partitions),
        shared(&cluster.shared),
        problems(&cluster.problems),
    )
}

fn leader(leader: Option<&Owner>) -> String {
    match leader {
        Some(Owner {
            instance,
            epoch: Some(epoch),
        }) => {
            format!("planner {} leads, epoch {epoch}", clean(instance))
        }
        Some(Owner {
            instance,
            epoch: None,
        }) => {
            format!("planner {} is taking the lead", clean(instance))
        }
        None => "no planner leads".to_owned(),
    }
}

fn members(services: &[Service]) -> String {
    let mut table = table(&[
        "SERVICE", "INSTANCE", "VERSION", "SINCE", "RENEWED", "HOLDS", "DECLINES",
    ]);
    for service in services {
        for member in &service.members {
            let cells = [
                service.service.clone(),
                member.instance.clone(),
                member.version.clone(),
                short(member.since),
                short(member.renewed_at),
                list(&member.holds),
                list(&member.declines),
            ];
            add_row(&mut table, cells);
        }
        if service.members.is_empty() {
            let mut cells = ["-"; 7].map(str::to_owned);
            cells[0].clone_from(&service.service);
            cells[1] = "none".to_owned();
            add_row(&mut table, cells);
        }
    }
    render(&table)
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() {
        "-".to_owned()
    } else {
        keys.join(" ")
    }
}

fn partitions(partitions: &[Partition]) -> String {
    let mut table = table(&[
        ">PARTITION",
        "REDUCER",
        ">EPOCH",
        ">LAG IN",
        "APPLIER",
        ">LAG OUT",
        "EVENTLOG",
        ">LAG ARCHIVE",
        "LOG IN",
        "LOG OUT",
    ]);
    for partition in partitions {
        let [reducer, applier, eventlog] =
            BY_PARTITION.map(|service| owner(partition.owners.get(service)));
        add_row(
            &mut table,
            [
                partition.partition.to_string(),
                reducer,
                number(partition.epoch),
                number(partition.input_lag_messages),
                applier,
                number(partition.output_lag_messages),
                eventlog,
                number(partition.archive_lag_messages),
                fill(partition.input_log.as_ref()),
                fill(partition.output_log.as_ref()),
            ],
        );
    }
    render(&table)
}

fn owner(owner: Option<&Option<Owner>>) -> String {
    match owner {
        Some(Some(owner)) => owner.instance.clone(),
        Some(None) => "nobody".to_owned(),
        None => "?".to_owned(),
    }
}

/// Fill level of a log, and the holder of its oldest message once the log fills.
fn fill(log: Option<&Log>) -> String {
    match log {
        Some(Log {
            percent,
            held_by: Some(holder),
        }) if *percent >= SHOW_HOLDER_PERCENT => format!("{percent} % {}", clean(holder)),
        Some(Log { percent, .. }) => format!("{percent} %"),
        None => "?".to_owned(),
    }
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn shared(shared: &Shared) -> String {
    let owner = shared
        .archived_by
        .as_ref()
        .map_or("nobody", |owner| owner.instance.as_str());
    let lag = number(shared.archive_lag_messages);
    format!(
        "manifests and dead letters are archived by {}, {lag} messages behind",
        clean(owner)
    )
}

fn problems(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return "no stale or orphaned leases, every partition has an owner".to_owned();
    }
    let mut table = table(&["PROBLEM", "SERVICE", "KEY", "INSTANCE", "WHAT"]);
    for problem in problems {
        let dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        add_row(
            &mut table,
            [
                problem.code.clone(),
                problem.service.clone(),
                dash(&problem.key),
                dash(problem.instance.as_deref().unwrap_or_default()),
                problem.message.clone(),
            ],
        );
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn owner_of(instance: &str, epoch: impl Into<Value>) -> Value {
        json!({"instance": instance, "epoch": epoch.into(), "renewedAt": "2026-05-01T12:00:00Z"})
    }

    fn member_of(instance: &str, holds: &[&str]) -> Value {
        json!({"instance": instance, "version": "0.1.0", "since": "2026-05-01T11:00:00Z",
               "renewedAt": "2026-05-01T11:59:58Z", "holds": holds, "declines": []})
    }

    #[test]
    fn a_cluster_is_shown_as_tables() {
        let answer = json!({
            "at": "2026-05-01T12:00:00Z",
            "services": [
                {"service": "reducer", "members": [member_of("red-1", &["00"]), member_of("red-2", &["01"])]},
                {"service": "applier", "members": [member_of("app-1", &["00", "01"])]},
                {"service": "eventlog", "members": []},
                {"service": "planner", "members": [member_of("plan-1", &["leader"])]},
            ],
            "leader": owner_of("plan-1", 7),
            "partitions": [
                {"partition": 0, "owners": {"reducer": owner_of("red-1", 3), "applier": owner_of("app-1", Value::Null), "eventlog": null},
                 "epoch": 3, "inputSeq": 20, "foldedInputSeq": 18, "inputLagMessages": 2, "outputSeq": 9,
                 "appliedOutputSeq": 9, "outputLagMessages": 0, "archiveLagMessages": 29,
                 "inputLog": {"bytes": 30, "maxBytes": 1000, "percent": 3, "heldBy": "margin"},
                 "outputLog": {"bytes": 710, "maxBytes": 1000, "percent": 71, "heldBy": "archive"}},
                {"partition": 1, "owners": {"reducer": owner_of("red-2", 5), "applier": owner_of("app-1", Value::Null), "eventlog": null},
                 "epoch": 5, "inputSeq": null, "foldedInputSeq": null, "inputLagMessages": null, "outputSeq": 9,
                 "appliedOutputSeq": null, "outputLagMessages": null, "archiveLagMessages": null}],
            "shared": {"archivedBy": null, "archiveLagMessages": 4},
            "problems": [
                {"service": "eventlog", "key": "", "instance": null, "code": "no-members", "message": "no instance of it is a member"}],
        });
        insta::assert_snapshot!(text(&client::read(&answer).unwrap()), @r#"
        2026-05-01 12:00:00   planner plan-1 leads, epoch 7

        SERVICE   INSTANCE  VERSION  SINCE                RENEWED              HOLDS   DECLINES
        reducer   red-1     0.1.0    2026-05-01 11:00:00  2026-05-01 11:59:58  00      -
        reducer   red-2     0.1.0    2026-05-01 11:00:00  2026-05-01 11:59:58  01      -
        applier   app-1     0.1.0    2026-05-01 11:00:00  2026-05-01 11:59:58  00 01   -
        eventlog  none      -        -                    -                    -       -
        planner   plan-1    0.1.0    2026-05-01 11:00:00  2026-05-01 11:59:58  leader  -

        PARTITION  REDUCER  EPOCH  LAG IN  APPLIER  LAG OUT  EVENTLOG  LAG ARCHIVE  LOG IN  LOG OUT
                0  red-1        3       2  app-1          0  nobody             29  3 %     71 % archive
                1  red-2        5       ?  app-1          ?  nobody              ?  ?       ?
        manifests and dead letters are archived by nobody, 4 messages behind

        PROBLEM     SERVICE   KEY  INSTANCE  WHAT
        no-members  eventlog  -    -         no instance of it is a member
        "#);
    }

    #[test]
    fn an_empty_cluster_is_reported() {
        let answer = json!({
            "at": "2026-05-01T12:00:00Z", "services": [], "leader": null, "partitions": [],
            "shared": {"archivedBy": owner_of("log-1", Value::Null), "archiveLagMessages": null}, "problems": [],
        });
        insta::assert_snapshot!(text(&client::read(&answer).unwrap()), @r#"
        2026-05-01 12:00:00   no planner leads

        SERVICE  INSTANCE  VERSION  SINCE  RENEWED  HOLDS  DECLINES

        PARTITION  REDUCER  EPOCH  LAG IN  APPLIER  LAG OUT  EVENTLOG  LAG ARCHIVE  LOG IN  LOG OUT
        manifests and dead letters are archived by log-1, ? messages behind

        no stale or orphaned leases, every partition has an owner
        "#);
    }
}
