//! `deploy/nats-users.conf` on a real server: only eventlog may delete messages of the logs.

use std::path::Path;

use nixfleet_bus::{Bus, BusConfig};
use nixfleet_harness::Nats;
use nixfleet_harness::nats::Authentication;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints};

use super::{config, entry, p0, ready};

const SERVICES: [&str; 6] = [
    "ingest", "console", "reducer", "planner", "applier", "eventlog",
];
/// Partitions of the fleet that the file is for.
const PARTITIONS: u16 = 8;

/// A server with the users of the file.
fn server() -> (Nats, Authentication) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nats-users.conf");
    let users = std::fs::read_to_string(file).unwrap();
    let secured = Authentication::create("users").unwrap();
    let settings = secured.settings_by_certificate(&users);
    (Nats::start_with("users", &settings).unwrap(), secured)
}

/// The certificate identifies the user.
fn login((nats, secured): &(Nats, Authentication), user: &str) -> BusConfig {
    let client = secured.client(user).unwrap();
    BusConfig {
        partitions: PARTITIONS,
        request_timeout_seconds: 1,
        connect_deadline_seconds: 10,
        ca_file: Some(secured.authority()),
        cert_file: Some(client.cert),
        key_file: Some(client.key),
        ..config(&nats.url(), "fleet")
    }
}

async fn connect(server: &(Nats, Authentication), user: &str) -> Bus {
    Bus::connect(login(server, user), user).await.unwrap()
}

#[tokio::test]
async fn only_the_user_of_eventlog_may_trim_a_log() {
    let server = server();
    let applier = ready(login(&server, "applier")).await;
    let input = applier.input();
    for partition in Partition::all(PARTITIONS) {
        for number in 0..3 {
            let appended = input.append(partition, entry("stable@aa", "web-01", number));
            appended.await.unwrap();
        }
    }
    let names = applier.names().clone();
    for user in SERVICES.into_iter().filter(|user| *user != "eventlog") {
        let bus = connect(&server, user).await;
        let stream = names.input_stream(p0());
        bus.trim(&stream, 2).await.unwrap_err();
        assert_eq!(bus.log_usage(&stream).await.unwrap().first_seq, 1, "{user}");
        bus.close().await;
    }
    // Reading each log shows whether the file lists its stream.
    let reducer = connect(&server, "reducer").await;
    let logs = Partition::all(PARTITIONS).flat_map(|partition| {
        let (input, output) = (
            names.input_stream(partition),
            names.output_stream(partition),
        );
        [input, output]
    });
    let refused = logs.map(async |stream| (reducer.trim(&stream, 2).await.is_err(), stream));
    for (is_refused, stream) in futures::future::join_all(refused).await {
        assert!(is_refused, "{stream} may be purged");
    }
    let eventlog = connect(&server, "eventlog").await;
    for partition in Partition::all(PARTITIONS) {
        let stream = names.input_stream(partition);
        assert_eq!(eventlog.trim(&stream, 2).await.unwrap(), 1, "{stream}");
        assert_eq!(eventlog.log_usage(&stream).await.unwrap().first_seq, 2);
    }
    for bus in [reducer, eventlog, applier] {
        bus.close().await;
    }
}

/// Checkpoints that newer ones replace are deleted by reducers: their store is no log.
#[tokio::test]
async fn services_may_delete_checkpoints() {
    let server = server();
    let applier = ready(login(&server, "applier")).await;
    let reducer = connect(&server, "reducer").await;
    let store = reducer.checkpoints();
    let [older, newer] = [1, 2].map(|out_seq| CheckpointRef {
        hash: "00".to_owned(),
        bytes: 5,
        out_seq,
        input: None,
    });
    for stored in [&older, &newer] {
        store.put(p0(), stored, "bytes".into()).await.unwrap();
    }
    let kept = Checkpoints {
        last: Some(newer.clone()),
        previous: None,
    };
    assert_eq!(store.delete_obsolete(p0(), &kept).await.unwrap(), 1);
    assert!(!store.holds(p0(), &older).await.unwrap());
    assert!(store.holds(p0(), &newer).await.unwrap());
    reducer.close().await;
    applier.close().await;
}
