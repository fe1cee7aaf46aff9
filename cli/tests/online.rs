//! Online commands, through the real binary and real mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/server.rs"]
mod server;
mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use server::Server;
use support::{Run, nixfleet, nixfleet_with};

/// Certificates of a development authority.
struct Certs {
    scratch: tempfile::TempDir,
}

impl Certs {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().to_str().unwrap();
        for what in [&["ca"][..], &["server"], &["person", "ada"]] {
            let made = nixfleet(&[&["certs", "--dir", dir], what].concat(), b"");
            assert_eq!(made.code, 0, "{}", made.stderr);
        }
        Self { scratch }
    }

    fn dir(&self) -> &Path {
        self.scratch.path()
    }

    fn ask(&self, url: &str, command: &[&str]) -> Run {
        let path = |name: &str| self.dir().join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (
            path("ca.crt"),
            path("people/ada.crt"),
            path("people/ada.key"),
        );
        let connection = ["--url", url, "--ca", &ca, "--cert", &cert, "--key", &key];
        nixfleet(&[command, &connection].concat(), b"")
    }
}

fn ok(body: Value) -> (u16, String) {
    (200, body.to_string())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    let body = json!({"code": code, "message": "because", "retryable": false});
    (status, body.to_string())
}

fn event(seq: u64) -> Value {
    json!({"seq": seq, "index": 0, "ts": "2026-05-01T12:00:00Z", "kind": "Converged", "host": "web-01",
        "payload": {}, "outcome": {"accepted": {}}})
}

#[test]
fn a_context_keeps_commands_short() {
    let certs = Certs::new();
    let answer = json!({"rollouts": [], "hostStatesTruncated": false});
    let server = Server::start(certs.dir(), vec![ok(answer.clone()), ok(answer)]);
    let file = certs.dir().join("contexts.json");
    let run = |arguments: &[&str]| nixfleet_with(&file, arguments, b"");
    let path = |name: &str| certs.dir().join(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (
        path("ca.crt"),
        path("people/ada.crt"),
        path("people/ada.key"),
    );

    let without = run(&["rollouts"]);
    assert_eq!(without.code, 2);
    assert!(
        without.stderr.contains("nixfleet context set"),
        "{}",
        without.stderr
    );
    for (name, url) in [
        ("prod", server.url()),
        ("test", "https://127.0.0.1:1".to_owned()),
    ] {
        let files = ["--ca", &ca, "--cert", &cert, "--key", &key];
        let set = run(&[&["context", "set", name, "--url", &url], &files[..]].concat());
        assert_eq!(set.code, 0, "{}", set.stderr);
    }
    // The first one is the current one; options go before it.
    assert_eq!(run(&["rollouts"]).code, 0);
    assert_eq!(run(&["rollouts", "--context", "test"]).code, 3);
    assert_eq!(run(&["context", "use", "test"]).code, 0);
    assert_eq!(run(&["rollouts"]).code, 3);
    assert_eq!(run(&["rollouts", "--url", &server.url()]).code, 0);
    let listed = run(&["context", "list"]).stdout;
    assert!(
        listed.lines().any(|line| line.starts_with("*        test")),
        "{listed}"
    );

    assert_eq!(run(&["context", "use", "tset"]).code, 2);
    assert_eq!(run(&["context", "remove", "test"]).code, 0);
    assert_eq!(run(&["rollouts"]).code, 2, "no context is the current one");
    let http = run(&[
        "context", "set", "x", "--url", "http://a", "--ca", &ca, "--cert", &cert, "--key", &key,
    ]);
    assert_eq!(http.code, 2);
}

#[test]
fn responses_are_shown_as_table_or_json() {
    let certs = Certs::new();
    let answer = json!({"rollouts": [], "hostStatesTruncated": false, "future": 1});
    let server = Server::start(certs.dir(), vec![ok(answer.clone()), ok(answer.clone())]);
    let table = certs.ask(&server.url(), &["rollouts"]);
    assert_eq!((table.code, table.stderr.as_str()), (0, ""));
    assert!(
        table.stdout.starts_with("ROLLOUT  STATE"),
        "{}",
        table.stdout
    );
    let json = certs.ask(&server.url(), &["rollouts", "--filter", "all", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap(), answer);
    let asked = server.asked();
    assert!(
        asked[0]
            .0
            .starts_with("GET /v1/rollouts?filter=current HTTP/1.1"),
        "{}",
        asked[0].0
    );
    assert!(
        asked[0].0.contains("x-nixfleet-protocol: 1"),
        "{}",
        asked[0].0
    );
    assert!(
        asked[1].0.starts_with("GET /v1/rollouts?filter=all "),
        "{}",
        asked[1].0
    );
}

#[test]
fn exit_codes_distinguish_refusals_from_unavailability() {
    let certs = Certs::new();
    let answers = vec![
        refusal(404, "unknown-host"),
        refusal(403, "role-not-allowed"),
        refusal(503, "database-unavailable"),
        (502, "<html>".to_owned()),
        (200, "<html>".to_owned()),
        ok(json!({"surprise": true})),
    ];
    let server = Server::start(certs.dir(), answers);
    let check = |code: i32, said: &str| {
        let run = certs.ask(&server.url(), &["explain", "web-01"]);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (code, ""),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    };
    check(1, "because (unknown-host, 404 Not Found)");
    check(1, "role-not-allowed");
    check(3, "database-unavailable");
    check(3, "502");
    check(3, "something else than JSON");
    check(3, "another shape");
}

#[test]
fn refused_certificates_and_unreachable_servers_have_their_own_exit_codes() {
    let certs = Certs::new();
    let strangers = Certs::new();
    let server = Server::start(certs.dir(), vec![ok(json!({}))]);
    assert_eq!(
        strangers.ask(&server.url(), &["status"]).code,
        3,
        "an unknown authority"
    );
    // No process listens on the discard port.
    let nobody = certs.ask("https://127.0.0.1:9", &["status"]);
    assert_eq!(nobody.code, 3);
    assert!(
        nobody.stderr.contains("no answer from https://127.0.0.1:9"),
        "{}",
        nobody.stderr
    );
    assert_eq!(certs.ask("http://127.0.0.1:9", &["status"]).code, 2);
    assert_eq!(certs.ask("nonsense", &["status"]).code, 2);
    assert_eq!(
        certs.ask(&server.url(), &["events", "no-rollout-id"]).code,
        2
    );
    fs::write(certs.dir().join("people/ada.key"), "nonsense").unwrap();
    assert_eq!(certs.ask(&server.url(), &["status"]).code, 2);
    assert!(server.asked().is_empty(), "nobody got through");
}

#[test]
fn a_name_that_no_host_can_have_is_refused_without_a_request() {
    let certs = Certs::new();
    let server = Server::start(certs.dir(), vec![refusal(404, "unknown-host")]);
    let told = certs.ask(&server.url(), &["explain", "rack/../web 1?x"]);
    assert_eq!(told.code, 2);
    assert!(server.asked().is_empty());
}

#[test]
fn all_pages_of_hosts_are_read_and_filtered() {
    let certs = Certs::new();
    let host = |name: &str, state: &str| {
        json!({"hostname": name, "channel": "stable", "lastRolloutId": "stable@4f", "rolloutState": state, "wave": 0,
            "currentClosureHash": null, "lastCheckinAt": null, "quarantinedClosure": null})
    };
    let answers = vec![
        ok(json!({"hosts": [host("a", "Failed"), host("b", "Pending")], "next": "b/stable@4f"})),
        ok(json!({"hosts": [host("c", "Failed")]})),
    ];
    let server = Server::start(certs.dir(), answers);
    let run = certs.ask(&server.url(), &["hosts", "--state", "Failed", "--json"]);
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let names: Vec<&str> = found["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["hostname"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "c"]);
    assert!(
        server.asked()[1].0.contains("after=b%2Fstable%404f"),
        "{}",
        server.asked()[1].0
    );
}

#[test]
fn following_resumes_after_a_server_restart() {
    let certs = Certs::new();
    let page = |events: Vec<Value>| ok(json!({"rollout_id": "stable@4f", "events": events}));
    let answers = vec![
        ok(json!({"rollout_id": "stable@4f", "events": [event(1)], "next": "1.0"})),
        refusal(503, "log-unavailable"),
        page(vec![]),
        page(vec![event(2), event(3)]),
    ];
    let server = Server::start(certs.dir(), answers);
    let run = certs.ask(
        &server.url(),
        &["events", "stable@4f", "--follow", "--limit", "3", "--json"],
    );
    assert_eq!(run.code, 0, "{}", run.stderr);
    let seqs: Vec<u64> = run
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert!(run.stderr.contains("log-unavailable"));
    let asked = server.asked();
    assert!(!asked[0].0.contains("after="), "{}", asked[0].0);
    for (head, _) in &asked[1..] {
        assert!(head.contains("after=1.0"), "{head}");
    }
}

#[test]
fn commands_send_their_reason() {
    let certs = Certs::new();
    let appended = || {
        (
            202,
            json!({"partition": 3, "position": {"seq": 8, "index": 0}}).to_string(),
        )
    };
    let server = Server::start(certs.dir(), vec![appended(), appended()]);
    let clear = [
        "clear",
        "stable@4f",
        "--reason",
        "repaired",
        "--waive",
        "web-01",
    ];
    let run = certs.ask(&server.url(), &clear);
    assert!(
        run.stdout
            .starts_with("appended as entry 8.0 of partition 3"),
        "{}",
        run.stderr
    );
    let lift = [
        "unquarantine",
        "stable",
        "aaa-nixos",
        "--reason",
        "false alarm",
    ];
    assert_eq!(certs.ask(&server.url(), &lift).code, 0);
    let asked = server.asked();
    assert!(
        asked[0]
            .0
            .starts_with("POST /v1/rollouts/stable@4f/clearance "),
        "{}",
        asked[0].0
    );
    assert_eq!(
        serde_json::from_str::<Value>(&asked[0].1).unwrap(),
        json!({"reason": "repaired", "waivedHosts": ["web-01"]})
    );
    assert!(
        asked[1]
            .0
            .starts_with("DELETE /v1/quarantines/stable/aaa-nixos?reason=false"),
        "{}",
        asked[1].0
    );
}

#[test]
fn a_refused_push_writes_nothing_and_lists_the_faults() {
    let certs = Certs::new();
    let path = |name: &str| certs.dir().join(name).to_str().unwrap().to_owned();
    let source = json!({
        "hosts": {"web-01": {"system": "x", "channel": "stable", "closureHash": "aaa", "pubkey": null}},
        "channels": {"stable": {"rolloutPolicy": "p", "reconcileIntervalMinutes": 1, "freshnessWindow": 60, "signingIntervalMinutes": 1}},
        "rolloutPolicies": {"p": {"strategy": "all-at-once", "onHealthFailure": "halt"}},
    });
    fs::write(certs.dir().join("fleet.json"), source.to_string()).unwrap();
    assert_eq!(nixfleet(&["keygen", "--out", &path("key")], b"").code, 0);
    let fault = json!({"code": "release-refused", "message": "no", "retryable": false,
        "faults": [{"code": "older", "message": "signed before the accepted one"}]});
    let accepted = json!({"accepted": true, "renewed": false, "notices": []});
    let server = Server::start(certs.dir(), vec![(422, fault.to_string()), ok(accepted)]);
    let push = || {
        let (fleet, key, out) = (path("fleet.json"), path("key"), path("out"));
        let (ca, cert, client_key) = (
            path("ca.crt"),
            path("people/ada.crt"),
            path("people/ada.key"),
        );
        let arguments = [
            "release",
            &fleet,
            "--key",
            &key,
            "--commit",
            "4f",
            "--out",
            &out,
            "--push",
            &server.url(),
            "--ca",
            &ca,
            "--client-cert",
            &cert,
            "--client-key",
            &client_key,
        ];
        nixfleet(&arguments, b"")
    };
    let refused = push();
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("signed before the accepted one"),
        "{}",
        refused.stderr
    );
    assert!(!certs.dir().join("out").exists());
    let taken = push();
    assert_eq!(taken.code, 0, "{}", taken.stderr);
    assert!(taken.stdout.ends_with("accepted\n"), "{}", taken.stdout);
    assert!(certs.dir().join("out/fleet.resolved.json").exists());
    let body: Value = serde_json::from_str(&server.asked()[1].1).unwrap();
    assert!(
        body["fleet"]["artifact"].is_string()
            && body["rollouts"]["stable"]["signature"].is_string()
    );
}
