//! The users of the bus on a real server: each may do what the table says, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, client::RequestErrorKind};
use futures::StreamExt as _;
use nixfleet_bus::{
    Bus, BusAccess, BusConfig, BusUser, LayoutError, SequenceFloors, UndecodableMessage,
    decode_input,
};
use nixfleet_harness::Nats;
use nixfleet_harness::nats::BusUsers;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints, OutputFrame};

use super::{config, entry, p0, read};

const PARTITIONS: u16 = 2;

struct Server {
    nats: Nats,
    users: BusUsers,
    access: BusAccess,
}

impl Server {
    fn start(name: &str) -> Self {
        let users = BusUsers::create(name, "fleet", PARTITIONS).unwrap();
        Self {
            nats: Nats::start_for(name, &users).unwrap(),
            users,
            access: BusAccess::new("fleet", PARTITIONS),
        }
    }

    fn login(&self, user: BusUser) -> BusConfig {
        let limits = BusConfig {
            partitions: PARTITIONS,
            request_timeout_seconds: 2,
            connect_deadline_seconds: 10,
            ..config(&self.nats.url(), "fleet")
        };
        self.users.login(user, limits)
    }

    async fn bus(&self, user: BusUser) -> Bus {
        let name = format!("{}-test", user.name());
        Bus::connect(self.login(user), &name).await.unwrap()
    }

    /// A client without the checks of our own library.
    async fn client(&self, user: BusUser) -> Client {
        let login = self.login(user);
        ConnectOptions::new()
            .add_root_certificates(login.ca_file.unwrap())
            .require_tls(true)
            .add_client_certificate(login.cert_file.unwrap(), login.key_file.unwrap())
            .request_timeout(Some(Duration::from_secs(2)))
            .connect(self.nats.url())
            .await
            .unwrap()
    }

    /// The layout, made by the planner.
    async fn planned(name: &str) -> (Self, Bus) {
        let server = Self::start(name);
        let planner = server.bus(BusUser::Planner).await;
        planner
            .ensure_layout(&SequenceFloors::default())
            .await
            .unwrap();
        (server, planner)
    }
}

#[test]
fn configuration_and_documentation_are_those_of_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let committed = std::fs::read_to_string(root.join("deploy/nats-users.conf")).unwrap();
    let wanted = BusAccess::new("fleet", BusConfig::default().partitions).nats_accounts();
    assert!(
        committed == wanted,
        "run `nixfleet bus users > deploy/nats-users.conf`"
    );
    let documented = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    assert!(
        documented.contains(&BusAccess::markdown()),
        "docs/security.md needs this table:\n{}",
        BusAccess::markdown()
    );
}

/// A subject that a pattern matches and that changes nothing.
fn concrete(pattern: &str) -> String {
    let is_stream = pattern.contains(".STREAM.");
    let token = |token: &str| match token {
        "*" if is_stream => "FLEET_IN_00".to_owned(),
        "*" => "00".to_owned(),
        // The API for one consumer takes one token.
        ">" if pattern.contains(".CONSUMER.DELETE.") || pattern.contains(".CONSUMER.INFO.") => {
            "x".to_owned()
        }
        ">" => "x.y".to_owned(),
        plain => plain.to_owned(),
    };
    let tokens: Vec<_> = pattern.split('.').map(token).collect();
    tokens.join(".")
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// Subjects of all classes: those of every user, and some that nobody has.
fn probes(access: &BusAccess) -> BTreeSet<String> {
    let granted = BusUser::ALL.into_iter();
    let granted = granted.flat_map(|user| access.publishes(user));
    let nobody = [
        "JS.fleet.STREAM.DELETE.FLEET_OUT_00",
        "JS.fleet.STREAM.MSG.DELETE.FLEET_OUT_00",
        "$JS.API.STREAM.DELETE.FLEET_OUT_00",
        "$JS.API.STREAM.PURGE.FLEET_OUT_00",
        "$JS.API.STREAM.CREATE.OTHER",
        "fleet.in.00.other.x",
        "fleet.dead.applier.FLEET_IN_00.1",
        "$KV.fleet-leases.lease.other.x",
        "$SYS.REQ.SERVER.PING",
    ];
    granted
        .map(|pattern| concrete(&pattern))
        .chain(nobody.map(str::to_owned))
        // Without a consumer nobody answers these; the services' own work shows them.
        .filter(|subject| !subject.contains(".MSG.NEXT.") && !subject.starts_with("$JS.FC."))
        .collect()
}

/// Whether anybody answers a request of this client.
async fn is_answered(client: &Client, subject: String) -> bool {
    match client.request(subject.clone(), "probe".into()).await {
        // The account's own JetStream, which is not there.
        Ok(answer) => !String::from_utf8_lossy(&answer.payload).contains("10039"),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => false,
        Err(error) => panic!("{subject}: {error}"),
    }
}

async fn answer_all(client: Client, subject: &str) {
    let mut requests = client.subscribe(subject.to_owned()).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                client.publish(reply, "answer".into()).await.unwrap();
            }
        }
    });
}

#[tokio::test]
async fn every_user_reaches_the_subjects_of_its_rights_and_no_other() {
    let (server, planner) = Server::planned("rights").await;
    answer_all(server.client(BusUser::Reducer).await, "fleet.hb.*").await;
    answer_all(server.client(BusUser::Applier).await, "fleet.liveness").await;
    let mut wrong = Vec::new();
    let mut tried = 0;
    for user in BusUser::ALL {
        let client = server.client(user).await;
        let granted = server.access.publishes(user);
        for subject in probes(&server.access) {
            let is_granted = granted.iter().any(|pattern| matches(pattern, &subject));
            // The server hears its own subscription on what it serves.
            let heartbeat = user == BusUser::Reducer && subject.starts_with("fleet.hb.");
            if heartbeat || user == BusUser::Applier && subject == "fleet.liveness" {
                continue;
            }
            tried += 1;
            if is_answered(&client, subject.clone()).await != is_granted {
                wrong.push(format!(
                    "{} on {subject}: granted {is_granted}",
                    user.name()
                ));
            }
        }
    }
    assert!(tried > 300, "{tried}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    planner.close().await;
}

/// Answers stay in the account of whoever asked, whatever permissions that user has.
#[tokio::test]
async fn answers_reach_no_other_account() {
    let (server, planner) = Server::planned("replies").await;
    let subject = "fleet.answers";
    let mut others = Vec::new();
    for user in [BusUser::Planner, BusUser::Reducer, BusUser::Eventlog] {
        let client = server.client(user).await;
        let subscription = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        others.push((user, client, subscription));
    }
    let client = server.client(BusUser::Ingest).await;
    for pattern in server.access.publishes(BusUser::Ingest) {
        let sent = client.publish_with_reply(concrete(&pattern), subject, "".into());
        sent.await.unwrap();
    }
    client.flush().await.unwrap();
    for (user, _, subscription) in &mut others {
        let heard = tokio::time::timeout(Duration::from_millis(500), subscription.next()).await;
        assert!(heard.is_err(), "{}", user.name());
    }
    planner.close().await;
}

#[tokio::test]
async fn only_the_planner_creates_streams_and_the_others_say_what_is_missing() {
    let server = Server::start("creating");
    let floors = SequenceFloors::default();
    let reducer = server.bus(BusUser::Reducer).await;
    let error = reducer.compare_layout(&floors).await.unwrap_err();
    assert!(matches!(error, LayoutError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("start the planner"), "{error}");

    let planner = server.bus(BusUser::Planner).await;
    planner.ensure_layout(&floors).await.unwrap();
    reducer.compare_layout(&floors).await.unwrap();
    let stream = planner.names().input_stream(p0());
    let bytes = async || planner.log_usage(&stream).await.unwrap().max_bytes;
    let before = bytes().await;
    let wider = BusConfig {
        input_max_bytes: before * 2,
        ..server.login(BusUser::Applier)
    };
    let applier = Bus::connect(wider, "applier-test").await.unwrap();
    applier.compare_layout(&floors).await.unwrap();
    assert_eq!(bytes().await, before);
    for bus in [reducer, planner, applier] {
        bus.close().await;
    }
}

#[tokio::test]
async fn a_gateway_cannot_write_entries_of_others_on_its_own_subject() {
    let (server, planner) = Server::planned("classes").await;
    let ingest = server.client(BusUser::Ingest).await;
    // A recovery entry, which reducers write, on the subject of events.
    let recovery = serde_json::json!({ "v": 1, "entries": [entry("a@aa", "h", 0)] });
    let stored = ingest
        .request("fleet.in.00.event.a.aa", recovery.to_string().into())
        .await
        .unwrap();
    let stored = String::from_utf8_lossy(&stored.payload).into_owned();
    assert!(stored.contains("\"seq\":1"), "{stored}");
    let eventlog = server.bus(BusUser::Eventlog).await;
    let stream = eventlog.names().input_stream(p0());
    let read = read(&mut eventlog.reader(&stream, 1), 1).await;
    let error = decode_input(&read[0]).unwrap_err();
    assert_eq!(error.name(), "subject", "{error}");
    eventlog.close().await;
    planner.close().await;
}

#[tokio::test]
async fn only_the_user_of_eventlog_may_trim_a_log() {
    let (server, planner) = Server::planned("trimming").await;
    let reducer = server.bus(BusUser::Reducer).await;
    let input = reducer.input();
    for partition in Partition::all(PARTITIONS) {
        for number in 0..3 {
            let appended = input.append(partition, entry("stable@aa", "web-01", number));
            appended.await.unwrap();
        }
    }
    let names = planner.names().clone();
    for user in BusUser::ALL
        .into_iter()
        .filter(|user| *user != BusUser::Eventlog)
    {
        let bus = server.bus(user).await;
        let stream = names.input_stream(p0());
        bus.trim(&stream, 2).await.unwrap_err();
        assert_eq!(
            bus.log_usage(&stream).await.unwrap().first_seq,
            1,
            "{user:?}"
        );
        bus.close().await;
    }
    let eventlog = server.bus(BusUser::Eventlog).await;
    for partition in Partition::all(PARTITIONS) {
        let stream = names.input_stream(partition);
        assert_eq!(eventlog.trim(&stream, 2).await.unwrap(), 1, "{stream}");
        assert_eq!(eventlog.log_usage(&stream).await.unwrap().first_seq, 2);
    }
    for bus in [reducer, eventlog, planner] {
        bus.close().await;
    }
}

/// What a reducer does: frames, checkpoints, their deletion, and dead letters.
#[tokio::test]
async fn a_reducer_writes_frames_checkpoints_and_dead_letters() {
    let (server, planner) = Server::planned("reducing").await;
    let reducer = server.bus(BusUser::Reducer).await;
    let log = reducer.output(p0());
    assert_eq!(log.publish(&OutputFrame::new(1), 0).await, Ok(1));
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
    let letter = UndecodableMessage {
        stream: reducer.names().input_stream(p0()),
        seq: 1,
        subject: "fleet.in.00.event.a.aa".to_owned(),
        reason: "test".to_owned(),
        payload: "x".into(),
    };
    let stored = reducer.store_dead_letter("reducer", letter).await;
    assert_eq!(stored, Ok(Some(1)));
    assert_eq!(reducer.manifests().current().await.unwrap(), None);
    reducer.close().await;
    planner.close().await;
}
