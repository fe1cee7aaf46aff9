//! Three servers: after the loss of any of them, acknowledged messages are neither lost, duplicated nor
//! reordered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream;
use futures::future::try_join_all;
use nixfleet_bus::{Bus, BusConfig};
use nixfleet_harness::nats::Cluster;
use nixfleet_harness::wait_for;
use nixfleet_proto::{OutputFrame, Position};

use super::group_commit::{entries, whole_log};
use super::{SOON, config, entry, p0, ready};

/// Hosts that send events.
const HOSTS: usize = 10;

/// Name of the server that leads a stream.
async fn leader(cluster: &Cluster, stream: &str) -> String {
    let client = async_nats::connect(cluster.url().split(',').collect::<Vec<_>>()).await;
    let context = jetstream::new(client.unwrap());
    wait_for("a leader", SOON, async || {
        let stream = context.get_stream(stream).await?;
        let members = stream.cached_info().cluster.clone();
        Ok(members.and_then(|members| members.leader))
    })
    .await
    .unwrap()
}

/// Hosts that send one event after the other until they shall stop.
async fn run_hosts(bus: Bus, stop: Arc<AtomicBool>) -> Vec<(Position, String, usize)> {
    let hosts = (0..HOSTS).map(|host| {
        let (input, stop) = (bus.input(), Arc::clone(&stop));
        tokio::spawn(async move {
            let host = format!("host-{host}");
            let mut told = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = told.len();
                let position = input.append(p0(), entry("stable@aa", &host, number)).await;
                told.push((position.unwrap(), host.clone(), number));
            }
            told
        })
    });
    let told = try_join_all(hosts).await.unwrap().into_iter().flatten();
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

/// An owner that publishes fenced frames one after the other until it is stopped; returns their number.
async fn run_owner(bus: Bus, stop: Arc<AtomicBool>) -> u64 {
    let log = bus.output(p0());
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        let stored = log.publish(&OutputFrame::new(last + 1), last).await;
        assert_eq!(stored.unwrap(), last + 1);
        last += 1;
    }
    last
}

async fn grown(bus: &Bus, stream: &str, by: u64) {
    let before = bus.stream_identity(stream).await.unwrap().last_seq;
    wait_for("the log to grow", SOON, async || {
        let last = bus.stream_identity(stream).await?.last_seq;
        Ok((last >= before + by).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_stream_leaders_neither_lose_nor_duplicate_acknowledged_messages() {
    let mut cluster = Cluster::start("replicas", "").unwrap();
    let replicated = BusConfig {
        replicas: 3,
        ..config(&cluster.url(), "fleet")
    };
    let bus = ready(replicated).await;
    let (input, output) = (
        bus.names().input_stream(p0()),
        bus.names().output_stream(p0()),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let hosts = tokio::spawn(run_hosts(bus.clone(), Arc::clone(&stop)));
    let owner = tokio::spawn(run_owner(bus.clone(), Arc::clone(&stop)));
    for log in [&input, &output] {
        grown(&bus, log, 20).await;
        let leads = leader(&cluster, log).await;
        cluster.server(&leads).unwrap().kill().unwrap();
        // Two of three servers accept writes.
        grown(&bus, log, 20).await;
        cluster.server(&leads).unwrap().restart().unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let (told, frames) = (hosts.await.unwrap(), owner.await.unwrap());
    assert_eq!(entries(&whole_log(&bus).await), told);
    let last = bus.stream_identity(&output).await.unwrap().last_seq;
    assert_eq!(last, frames, "each frame is there once");
    bus.close().await;
}
