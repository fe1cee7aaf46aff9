//! Members, owners and takeovers of real processes, as reported by `GET /v1/cluster`.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nixfleet_harness::release::Signer;
use nixfleet_harness::{
    Operator, Service, Stack, StackConfig, scratch, shared_nats, shared_postgres, unique_prefix,
    wait_for,
};
use serde_json::Value;

/// Timeout of starts and takeovers; a loaded machine may be many times slower.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The default lease TTL.
const TTL: Duration = Duration::from_secs(10);
/// Limit of a takeover without an expiry: a record just before its renewal remains valid for seven more
/// seconds.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A takeover that waits for one expiry, not for two.
const AFTER_EXPIRY: Duration = Duration::from_secs(TTL.as_secs() + 5);

async fn stack(name: &str) -> Stack {
    let dir = scratch::dir(name).unwrap();
    let trust = Signer::development().unwrap().write_trust(&dir).unwrap();
    let database = shared_postgres()
        .unwrap()
        .create_database(name)
        .await
        .unwrap();
    let mut config = StackConfig::new(dir, trust).unwrap();
    config.nats_url = shared_nats().unwrap().url();
    config.prefix = unique_prefix(name);
    config.database_url = database.url;
    config.instances = 2;
    for service in [
        Service::Reducer,
        Service::Applier,
        Service::Eventlog,
        Service::Planner,
    ] {
        config.set(service, "lease.ttl_seconds", TTL.as_secs().to_string());
        config.set(service, "lease.renew_seconds", "3");
    }
    Stack::start(config).await.unwrap()
}

/// Waits until the cluster satisfies a condition, and returns the time it took.
async fn until(
    operator: &Operator,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> (Value, Duration) {
    let from = Instant::now();
    let last = std::cell::RefCell::new(Value::Null);
    let cluster = wait_for(what, TIMEOUT, async || {
        let cluster = operator.get("/v1/cluster").await?;
        if wanted(&cluster) {
            return Ok(Some(cluster));
        }
        *last.borrow_mut() = cluster;
        Ok(None)
    });
    let cluster = cluster.await;
    let cluster = cluster.unwrap_or_else(|error| panic!("{error:#}: {:#}", last.borrow()));
    (cluster, from.elapsed())
}

/// The instances of a service with how many leases they hold.
fn loads(cluster: &Value, service: &str) -> Vec<(String, usize)> {
    let services = cluster["services"].as_array().unwrap();
    let found = services.iter().find(|it| it["service"] == service).unwrap();
    let members = found["members"].as_array().unwrap().iter();
    members
        .map(|member| {
            let instance = member["instance"].as_str().unwrap().to_owned();
            (instance, member["holds"].as_array().unwrap().len())
        })
        .collect()
}

fn shares(cluster: &Value, service: &str) -> Vec<usize> {
    let mut shares: Vec<_> = loads(cluster, service)
        .into_iter()
        .map(|(_, load)| load)
        .collect();
    shares.sort_unstable();
    shares
}

fn owners(cluster: &Value, service: &str) -> Vec<String> {
    let partitions = cluster["partitions"].as_array().unwrap().iter();
    partitions
        .map(|it| {
            it["owners"][service]["instance"]
                .as_str()
                .unwrap_or("nobody")
                .to_owned()
        })
        .collect()
}

fn is_settled(cluster: &Value) -> bool {
    let at_work = |partition: &Value| {
        partition["epoch"].as_u64().is_some_and(|epoch| epoch > 0)
            && partition["owners"]["reducer"]["epoch"] == partition["epoch"]
            && partition["inputLagMessages"] == 0
            && partition["outputLagMessages"] == 0
            && partition["archiveLagMessages"] == 0
    };
    shares(cluster, "reducer") == [2, 2]
        && shares(cluster, "applier") == [2, 2]
        && shares(cluster, "eventlog") == [2, 3]
        && shares(cluster, "planner") == [0, 1]
        && cluster["leader"]["epoch"].is_u64()
        && cluster["problems"].as_array().unwrap().is_empty()
        && cluster["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .all(at_work)
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_partitions_after_stops_kills_and_restarts() {
    let mut stack = stack("cluster").await;
    let operator = stack.operator(0).unwrap();
    let (before, _) = until(&operator, "an even share for everyone", is_settled).await;
    assert_eq!(before["partitions"].as_array().unwrap().len(), 4);

    // A graceful stop waits for no expiry.
    let stopped_at = Instant::now();
    stack
        .instance(Service::Reducer, 0)
        .unwrap()
        .request_stop()
        .unwrap();
    let is_alone = |cluster: &Value| {
        owners(cluster, "reducer")
            .iter()
            .all(|owner| owner.starts_with("reducer-1"))
    };
    let (after, took) = until(&operator, "the other reducer owns everything", is_alone).await;
    assert!(took < AT_ONCE, "{took:?}");
    println!(
        "graceful stop of a reducer: taken over after {:?}",
        stopped_at.elapsed()
    );
    let kept =
        |(before, after): (&String, &String)| before.starts_with("reducer-1") && before == after;
    let (old, new) = (owners(&before, "reducer"), owners(&after, "reducer"));
    assert_eq!(old.iter().zip(&new).filter(|pair| kept(*pair)).count(), 2);
    stack.instance(Service::Reducer, 0).unwrap().stop().unwrap();

    // It restarts under another identity and takes only its share.
    stack
        .instance(Service::Reducer, 0)
        .unwrap()
        .restart()
        .unwrap();
    let (after, _) = until(&operator, "an even share again", is_settled).await;
    let still = owners(&after, "reducer")
        .into_iter()
        .filter(|owner| new.contains(owner));
    assert_eq!(still.count(), 2);

    // The leader is killed: the other planner takes over with a higher epoch.
    let leader = after["leader"]["instance"].as_str().unwrap().to_owned();
    let epoch = after["leader"]["epoch"].as_u64().unwrap();
    let number = usize::from(leader.starts_with("planner-1"));
    stack
        .instance(Service::Planner, number)
        .unwrap()
        .kill()
        .unwrap();
    let has_followed = |cluster: &Value| {
        let now = &cluster["leader"];
        now["instance"] != leader.as_str() && now["epoch"].as_u64().is_some_and(|now| now > epoch)
    };
    let (_, took) = until(&operator, "the other planner leads", has_followed).await;
    println!("kill -9 of the leader: the next one leads after {took:?}");
    assert!(took < AFTER_EXPIRY, "{took:?}");

    // So does an applier, whose rows must not stop.
    stack.instance(Service::Applier, 0).unwrap().kill().unwrap();
    let is_replaced = |cluster: &Value| {
        let owners: BTreeSet<String> = owners(cluster, "applier").into_iter().collect();
        owners.len() == 1 && owners.iter().all(|owner| owner.starts_with("applier-1"))
    };
    let (after, took) = until(
        &operator,
        "the other applier applies everything",
        is_replaced,
    )
    .await;
    println!("kill -9 of an applier: taken over after {took:?}");
    assert!(took < AFTER_EXPIRY, "{took:?}");
    assert_eq!(loads(&after, "applier").len(), 1);
    stack.start_all().unwrap();
    until(&operator, "everything as before", is_settled).await;
    stack.stop().unwrap();
}
