//! The servers under the tests.

use std::net::TcpStream;
use std::time::Duration;

use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::{
    Nats, Postgres, binaries, monitoring, ports, scratch, shared_nats, test_namespace, wait_for,
};
use rustix::process::Signal;

#[tokio::test]
async fn a_scope_has_its_own_prefix_and_database() {
    let one = test_namespace("own").await.unwrap();
    let two = test_namespace("own").await.unwrap();
    assert_ne!(one.prefix, two.prefix);
    assert_ne!(one.database, two.database);
    nixfleet_harness::postgres::execute(&one.database.url, "CREATE TABLE t (a int)")
        .await
        .unwrap();
}

#[test]
fn the_shared_nats_syncs_every_append() {
    let port = shared_nats().unwrap().monitor_port();
    let varz = monitoring::get(port, "/varz").unwrap().body;
    let varz: serde_json::Value = serde_json::from_str(&varz).unwrap();
    assert_eq!(varz["jetstream"]["config"]["sync_always"], true, "{varz}");
}

#[tokio::test]
async fn private_servers_come_back_on_the_same_port_with_their_data() {
    let mut nats = Nats::start("own").unwrap();
    let url = nats.url();
    nats.kill().unwrap();
    nats.restart().unwrap();
    assert_eq!(nats.url(), url);

    let mut postgres = Postgres::start("own").unwrap();
    let database = postgres.create_database("kept").await.unwrap();
    let statement = "CREATE TABLE kept (a int)";
    nixfleet_harness::postgres::execute(&database.url, statement)
        .await
        .unwrap();
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    nixfleet_harness::postgres::execute(&database.url, "INSERT INTO kept VALUES (1)")
        .await
        .unwrap();
}

/// Longest time for the servers of a demo to start, or to be gone.
const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing_behind() {
    let (mut demo, ports, dir) = started_demo("interrupted").await;
    demo.signal(Signal::INT).unwrap();
    wait_until_closed(&ports).await;
    let ended = wait_for("the demo ends", TIMEOUT, async || demo.exit_status()).await;
    assert_eq!(ended.unwrap().code(), Some(130));
    wait_until_ended(&dir).await;
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing_behind() {
    let (mut demo, ports, dir) = started_demo("killed").await;
    demo.kill().unwrap();
    wait_until_closed(&ports).await;
    wait_until_ended(&dir).await;
}

/// A demo in the middle of its first act, the ports of its servers and gateways, and its folder.
async fn started_demo(name: &str) -> (Process, Vec<u16>, String) {
    let log = scratch::dir(name).unwrap().join("demo.log");
    let mut spec = ProcessSpec::new(
        "demo",
        binaries::workspace_binary("nixfleet-demo").unwrap(),
        log.clone(),
    );
    spec.args = vec!["--hosts".to_owned(), "20".to_owned()];
    let mut demo = Process::start(spec).unwrap();
    let text = wait_for("the demo publishes a release", TIMEOUT, async || {
        demo.check_alive()?;
        let text = std::fs::read_to_string(&log)?;
        Ok(text.contains("published edge@").then_some(text))
    })
    .await
    .unwrap();
    let ports: Vec<u16> = text
        .lines()
        .filter(|line| {
            ["NATS", "Postgres", "agents ", "people "]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .map(port_of)
        .collect();
    assert_eq!(ports.len(), 4, "{text}");
    let mut dirs = text.lines().filter_map(|line| line.strip_prefix("logs"));
    let dir = dirs.next().unwrap().trim().to_owned();
    (demo, ports, dir)
}

/// Waits until no process names the folder in its arguments.
async fn wait_until_ended(dir: &str) {
    wait_for(
        &format!("no process of {dir} is left"),
        TIMEOUT,
        async || {
            let mut left = std::fs::read_dir("/proc")?.filter_map(|entry| {
                let path = entry.ok()?.path().join("cmdline");
                let words = String::from_utf8(std::fs::read(path).ok()?).ok()?;
                words.contains(dir).then(|| words.replace('\0', " "))
            });
            match left.next() {
                Some(words) => anyhow::bail!("{words}"),
                None => Ok(Some(())),
            }
        },
    )
    .await
    .unwrap();
}

/// The port in `… scheme://…127.0.0.1:PORT…`.
fn port_of(line: &str) -> u16 {
    let (_, rest) = line.split_once("127.0.0.1:").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

async fn wait_until_closed(open: &[u16]) {
    for port in open {
        wait_for(
            &format!("nobody listens on port {port}"),
            TIMEOUT,
            async || {
                Ok(TcpStream::connect(ports::local(*port))
                    .is_err()
                    .then_some(()))
            },
        )
        .await
        .unwrap();
    }
}
