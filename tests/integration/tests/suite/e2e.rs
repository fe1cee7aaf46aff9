//! A release through the whole system: real servers, real processes, real TLS.

pub mod test_fleet;
pub mod testbed;

use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig};
use nixfleet_harness::nats::{Authentication, BusUsers, Cluster};
use nixfleet_harness::{Nats, Service, console_key, postgres};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Actor, ActorKind, OperatorCommand};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, sign_command};
use serde_json::json;

use test_fleet::{HOSTS, profile};
use testbed::Testbed;

#[tokio::test]
async fn a_release_reaches_every_host_and_the_archive() {
    let mut testbed = Testbed::shared("e2erelease", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    assert_eq!(testbed.state_of("edge@aa01").await, "Superseded");
    testbed.stop();
}

#[tokio::test]
async fn a_failing_closure_is_rolled_back_quarantined_and_holds_the_next_channel() {
    let mut testbed = Testbed::shared("e2ehalt", 1).await;
    testbed.publish("bad1").await;
    testbed.start_swarm(&profile("edge-bad1", 1.0));
    testbed.wait_until_state("edge@bad1", "Reverted").await;
    let quarantined =
        testbed.count("SELECT count(*) FROM nixfleet.quarantined_closures WHERE channel = 'edge'");
    assert_eq!(quarantined.await, 1);
    let held = testbed.operator.get("/v1/hosts/stable-00").await.unwrap();
    let blocks = held["records"][0]["blocks"].to_string();
    assert!(blocks.contains("channel-edges"), "{held}");
    let moved = testbed.count(
        "SELECT count(*) FROM nixfleet.host_rollout_records WHERE channel = 'stable' AND state <> 'Pending'",
    );
    assert_eq!(moved.await, 0);
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    testbed.stop();
}

/// A neighbour on the bus, with the rights of a console even, lifts a quarantine in an operator's name.
#[tokio::test]
async fn a_command_that_no_console_signed_is_rejected_and_archived_as_such() {
    let mut testbed = Testbed::shared("e2eforged", 1).await;
    testbed.publish("bad1").await;
    testbed.start_swarm(&profile("edge-bad1", 1.0));
    testbed.wait_until_state("edge@bad1", "Reverted").await;
    let quarantined = "SELECT count(*) FROM nixfleet.quarantined_closures WHERE channel = 'edge'";
    testbed
        .wait("the quarantine is in the tables", async |testbed| {
            (testbed.count(quarantined).await == 1).then_some(())
        })
        .await;
    let stack = testbed.stack.config();
    let config = BusConfig {
        url: stack.nats_url.clone(),
        prefix: stack.prefix.clone(),
        partitions: stack.partitions,
        ..BusConfig::default()
    };
    let neighbour = Bus::connect(config, "neighbour").await.unwrap();
    let closure = testbed
        .text("SELECT closure_hash FROM nixfleet.quarantined_closures")
        .await;
    let actor = Actor {
        kind: ActorKind::Certificate,
        issuer: "CN=people".to_owned(),
        subject: "ada".to_owned(),
    };
    let command = OperatorCommand::ClearQuarantine {
        channel: "edge".into(),
        closure_hash: closure.as_str().into(),
        reason: "false alarm".to_owned(),
    };
    let partition = Partition::of(&"edge".into(), stack.partitions);
    // Its own key, and the right one for another fleet.
    let stranger = SigningKey::from_secret(Algorithm::Ed25519, &[1; 32]).unwrap();
    let console = console_key::development().unwrap();
    for (key, fleet) in [(&stranger, &*stack.prefix), (&console, "other")] {
        let origin = (actor.clone(), "forged".to_owned());
        let entry = sign_command(key, (fleet, Utc::now()), origin, command.clone()).unwrap();
        neighbour.input().append(partition, entry).await.unwrap();
    }
    let rejected = "SELECT count(*) FROM nixfleet.archive_items WHERE kind = 'rejected'
        AND payload #>> '{rejected,reason}' = 'unsigned'
        AND payload #>> '{subject,actor,subject}' = 'ada'";
    testbed
        .wait("both are archived as rejected", async |testbed| {
            (testbed.count(rejected).await == 2).then_some(())
        })
        .await;
    assert_eq!(testbed.count(quarantined).await, 1);

    // The same command of the console is obeyed.
    let path = format!("/v1/quarantines/edge/{closure}?reason=false%20alarm");
    testbed.operator.delete(&path).await.unwrap();
    testbed
        .wait("the quarantine is lifted", async |testbed| {
            (testbed.count(quarantined).await == 0).then_some(())
        })
        .await;
    neighbour.close().await;
    testbed.stop();
}

#[tokio::test]
async fn hosts_that_lose_their_disks_in_the_middle_of_a_rollout_converge() {
    let mut testbed = Testbed::shared("e2edisk", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    // Neither agents nor machines remember the rollout.
    testbed.stop_swarm();
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    testbed.stop();
}

#[tokio::test]
async fn two_instances_of_each_service_agree() {
    let mut testbed = Testbed::shared("e2etwo", 2).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    // The owners of all partitions are killed; the other processes take over.
    for service in [Service::Reducer, Service::Planner, Service::Applier] {
        testbed.stack.instance(service, 0).unwrap().kill().unwrap();
    }
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
}

#[tokio::test]
async fn killing_any_service_loses_nothing() {
    let mut testbed = Testbed::shared("e2ekill", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    for service in Service::ALL {
        // Somewhere in the middle: each waits for some more hosts than the one before.
        testbed.wait_for_progress().await;
        let instance = testbed.stack.instance(service, 0).unwrap();
        instance.kill().unwrap();
        instance.restart().unwrap();
    }
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    testbed.stop();
}

#[tokio::test]
async fn a_wiped_database_is_rebuilt_from_the_log() {
    let mut testbed = Testbed::shared("e2ewipe", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    testbed.stack.kill_all().unwrap();
    postgres::execute(&testbed.database.url, "DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    testbed.stack.start_all().unwrap();
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    testbed.stop();
}

#[tokio::test]
async fn heartbeats_restore_state_lost_by_log_and_database() {
    let mut nats = Nats::start("e2elost").unwrap();
    let mut testbed = Testbed::polling("e2elost", &nats).await;
    testbed.write_release("aa01");
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;

    testbed.stack.kill_all().unwrap();
    nats.stop().unwrap();
    nats.erase().unwrap();
    nats.restart().unwrap();
    postgres::execute(&testbed.database.url, "DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    testbed.stack.start_all().unwrap();

    // Without a push or a command: the release is polled, the hosts report.
    testbed.wait_until_terminal("aa01").await;
    let unchanged = testbed
        .count("SELECT count(*) FROM nixfleet.host_rollout_records WHERE state = 'Converged'");
    assert_eq!(unchanged.await, HOSTS.len() as i64);
    testbed.stop();
}

#[tokio::test]
async fn every_service_works_with_the_rights_of_its_user() {
    let users = BusUsers::create("e2eusers", "fleet", 2).unwrap();
    let nats = Nats::start_for("e2eusers", &users).unwrap();
    let mut testbed = Testbed::with_users("e2eusers", &nats, &users).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    let cluster = testbed.operator.get("/v1/cluster").await.unwrap();
    assert!(cluster["leader"]["instance"].is_string(), "{cluster}");
    for partition in cluster["partitions"].as_array().unwrap() {
        let known = ["inputSeq", "foldedInputSeq", "outputSeq"];
        let is_known = known.map(|key| partition[key].is_u64());
        assert_eq!(is_known, [true; 3], "{partition}");
    }
    testbed.stop();
}

#[tokio::test]
async fn a_secured_cluster_survives_the_loss_of_a_server() {
    let secured = Authentication::create("e2ecluster").unwrap();
    let mut cluster = Cluster::start("e2ecluster", &secured.settings()).unwrap();
    let mut testbed = Testbed::clustered("e2ecluster", &cluster, &secured).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    let first = cluster.servers().next().unwrap().to_owned();
    cluster.server(&first).unwrap().kill().unwrap();
    testbed.wait_until_terminal("aa01").await;
    cluster.server(&first).unwrap().restart().unwrap();
    testbed.publish_when_possible("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    testbed.stop();
}
