//! The commands that need no server, through the real binary: what they write, print and exit with.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Run, nixfleet};

fn run(arguments: &[&str]) -> Run {
    nixfleet(arguments, b"")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A scratch directory with a signing key, its trust file and a fleet source.
struct Bench {
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new(algorithm: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let bench = Self { scratch };
        let (key, trust) = (bench.path("release.key"), bench.path("trust.json"));
        let arguments = [
            "keygen",
            "--algorithm",
            algorithm,
            "--out",
            text(&key),
            "--trust",
            text(&trust),
        ];
        let made = run(&arguments);
        assert_eq!(made.code, 0, "{}", made.stderr);
        bench.write("fleet.json", &source().to_string());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn release(&self, out: &Path, more: &[&str]) -> Run {
        let (fleet, key) = (self.path("fleet.json"), self.path("release.key"));
        let base = [
            "release",
            text(&fleet),
            "--key",
            text(&key),
            "--out",
            text(out),
        ];
        run(&[&base[..], more].concat())
    }

    fn verify(&self, artifact: &Path, kind: &str, more: &[&str]) -> Run {
        let signature = PathBuf::from(format!("{}.sig", text(artifact)));
        let trust = self.path("trust.json");
        let base = [
            "verify",
            "--artifact",
            text(artifact),
            "--signature",
            text(&signature),
            "--trust",
            text(&trust),
            "--kind",
            kind,
            "--json",
        ];
        run(&[&base[..], more].concat())
    }
}

fn source() -> Value {
    json!({
        "hosts": {
            "web-01": {"system": "x86_64-linux", "tags": ["web"], "channel": "stable", "closureHash": "aaa", "pubkey": null},
            "web-02": {"system": "x86_64-linux", "tags": ["web"], "channel": "stable", "closureHash": "bbb", "pubkey": null},
        },
        "channels": {"stable": {"rolloutPolicy": "p", "reconcileIntervalMinutes": 30, "freshnessWindow": 60, "signingIntervalMinutes": 30}},
        "rolloutPolicies": {"p": {"strategy": "waves", "onHealthFailure": "halt", "waves": [
            {"selector": {"hosts": ["web-01"]}, "soakMinutes": 0.05}, {"selector": {"all": true}, "soakMinutes": 1}]}},
    })
}

const AT: [&str; 4] = ["--commit", "4f1c", "--signed-at", "2026-05-01T12:00:00Z"];
const NOW: [&str; 2] = ["--now", "2026-05-01T12:00:30Z"];

#[test]
fn a_release_is_written_and_every_part_verifies() {
    for algorithm in ["ed25519", "ecdsa-p256"] {
        let bench = Bench::new(algorithm);
        let out = bench.path("out");
        let released = bench.release(&out, &[&AT[..], &["--json"]].concat());
        assert_eq!(released.code, 0, "{}", released.stderr);
        let summary: Value = serde_json::from_str(&released.stdout).unwrap();
        assert_eq!(summary["rollouts"], json!(["stable@4f1c"]));
        let fleet = out.join("fleet.resolved.json");
        let rollout = out.join("rollouts/stable@4f1c.json");
        for (artifact, kind, more) in [
            (&fleet, "fleet", vec![]),
            (&rollout, "rollout", vec![]),
            (&rollout, "rollout", vec!["--rollout-id", "stable@4f1c"]),
        ] {
            let verified = bench.verify(artifact, kind, &[&NOW[..], &more].concat());
            assert_eq!(
                verified.stdout, "{\"result\":\"ok\"}\n",
                "{}",
                verified.stderr
            );
            assert_eq!(verified.code, 0);
        }
        let mut names: Vec<String> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["fleet.resolved.json", "fleet.resolved.json.sig", "rollouts"]
        );
    }
}

#[test]
fn verify_names_the_failed_step() {
    let bench = Bench::new("ed25519");
    let out = bench.path("out");
    assert_eq!(bench.release(&out, &AT).code, 0);
    let fleet = out.join("fleet.resolved.json");
    let rollout = out.join("rollouts/stable@4f1c.json");
    let check = |artifact: &Path, kind: &str, more: &[&str], expected: &str| {
        let run = bench.verify(artifact, kind, more);
        assert_eq!(
            run.stdout,
            format!("{{\"result\":\"{expected}\"}}\n"),
            "{}",
            run.stderr
        );
        assert_eq!(run.code, 1, "{expected}");
        assert!(!run.stderr.is_empty(), "people get the reason");
    };
    check(&fleet, "rollout", &NOW, "Parse");
    check(
        &fleet,
        "fleet",
        &["--now", "2026-05-01T11:58:59Z"],
        "FutureDated",
    );
    check(
        &fleet,
        "fleet",
        &["--now", "2026-05-01T12:01:11Z", "--freshness", "10"],
        "Stale",
    );
    check(&fleet, "fleet", &["--now", "2026-06-01T12:00:00Z"], "Stale");
    check(
        &rollout,
        "rollout",
        &["--now", NOW[1], "--rollout-id", "edge@4f1c"],
        "RolloutIdMismatch",
    );
    let original = fs::read(&fleet).unwrap();
    let damage = |bytes: &[u8]| fs::write(&fleet, bytes).unwrap();
    damage(&original[..original.len() - 1]);
    check(&fleet, "fleet", &NOW, "Parse");
    damage(b"{\"a\":1,\"a\":2}");
    check(&fleet, "fleet", &NOW, "Canonicalize");
    damage(b"{}");
    check(&fleet, "fleet", &NOW, "BadSignature");
    damage(&original);
    let trust = |slot: Value| {
        bench.write(
            "trust.json",
            &json!({"schemaVersion": 1, "ciReleaseKey": slot}).to_string(),
        );
    };
    trust(json!({}));
    check(&fleet, "fleet", &NOW, "NoTrustRoots");
    trust(json!({"current": {"algorithm": "rsa", "public": ""}}));
    check(&fleet, "fleet", &NOW, "UnsupportedAlgorithm");
}

#[test]
fn verify_without_a_result_exits_2() {
    let bench = Bench::new("ed25519");
    let out = bench.path("out");
    assert_eq!(bench.release(&out, &AT).code, 0);
    let fleet = out.join("fleet.resolved.json");
    let check = |artifact: &Path, kind: &str, more: &[&str]| {
        let run = bench.verify(artifact, kind, more);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{kind} {more:?}");
        assert!(!run.stderr.is_empty());
    };
    check(&bench.path("gone.json"), "fleet", &[]);
    check(&fleet, "poem", &[]);
    check(&fleet, "fleet", &["--now", "noon"]);
    check(&fleet, "fleet", &["--freshness", "-1"]);
    check(&fleet, "fleet", &["--rollout-id", "stable@4f1c"]);
    check(&fleet, "rollout", &["--rollout-id", "nonsense"]);
    bench.write("trust.json", "{");
    check(&fleet, "fleet", &[]);
}

#[test]
fn an_incomplete_fleet_is_refused_with_all_faults_and_nothing_written() {
    let bench = Bench::new("ed25519");
    let mut broken = source();
    broken["channels"]["stable"]["rolloutPolicy"] = json!("gone");
    broken["rolloutPolicies"]["p"]["waves"][0]["selector"] = json!({"tag": ["web"]});
    bench.write("fleet.json", &broken.to_string());
    let out = bench.path("out");
    let refused = bench.release(&out, &[]);
    assert_eq!(refused.code, 1);
    for fault in [
        "no rollout policy \"gone\"",
        "unknown key \"tag\"",
        "a commit is needed",
    ] {
        assert!(
            refused.stderr.contains(fault),
            "{fault}: {}",
            refused.stderr
        );
    }
    assert!(!out.exists());
    bench.write("fleet.json", "{");
    assert_eq!(bench.release(&out, &AT).code, 1);
    fs::remove_file(bench.path("release.key")).unwrap();
    assert_eq!(bench.release(&out, &AT).code, 2);
}

#[test]
fn a_newer_release_replaces_the_older() {
    let bench = Bench::new("ed25519");
    let out = bench.path("out");
    assert_eq!(bench.release(&out, &AT).code, 0);
    let newer = ["--commit", "5a5a", "--signed-at", "2026-05-01T13:00:00Z"];
    assert_eq!(bench.release(&out, &newer).code, 0);
    let listed = |name: &str| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(out.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        listed("rollouts"),
        ["stable@5a5a.json", "stable@5a5a.json.sig"]
    );
    // A directory with other files is not moved away.
    fs::write(out.join("README"), "mine").unwrap();
    fs::write(out.join("rollouts/notes.txt"), "mine").unwrap();
    assert_eq!(bench.release(&out, &AT).code, 0);
    assert_eq!(
        listed("rollouts"),
        ["notes.txt", "stable@4f1c.json", "stable@4f1c.json.sig"]
    );
    assert_eq!(
        listed(""),
        [
            "README",
            "fleet.resolved.json",
            "fleet.resolved.json.sig",
            "rollouts"
        ]
    );
    assert_eq!(
        fs::read_dir(bench.scratch.path()).unwrap().count(),
        4,
        "nothing is left behind"
    );
}

#[test]
fn private_keys_are_readable_by_their_owner_only_and_not_overwritten_by_default() {
    let bench = Bench::new("ed25519");
    let key = bench.path("release.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&key).unwrap();
    assert_eq!(run(&["keygen", "--out", text(&key)]).code, 2);
    assert_eq!(fs::read(&key).unwrap(), before);
    let replaced = run(&["keygen", "--out", text(&key), "--force"]);
    assert_eq!(replaced.code, 0);
    assert_ne!(fs::read(&key).unwrap(), before);
    let public: Value = serde_json::from_str(&replaced.stdout).unwrap();
    assert_eq!(public["algorithm"], "ed25519");
    let file: Value = serde_json::from_slice(&fs::read(&key).unwrap()).unwrap();
    assert_eq!(file["public"], public["public"]);
    assert!(!replaced.stdout.contains(file["private"].as_str().unwrap()));
}

#[test]
fn certificates_carry_their_roles() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = text(scratch.path());
    let certs = |arguments: &[&str]| run(&[&["certs", "--dir", dir], arguments].concat());
    assert_eq!(certs(&["agent", "web-01"]).code, 2, "no authority yet");
    assert_eq!(certs(&["ca"]).code, 0);
    let authority = fs::read(scratch.path().join("ca.crt")).unwrap();
    assert_eq!(certs(&["ca"]).code, 0);
    assert_eq!(
        fs::read(scratch.path().join("ca.crt")).unwrap(),
        authority,
        "kept"
    );
    assert_eq!(
        certs(&["server", "--name", "ingest", "--name", "127.0.0.1"]).code,
        0
    );
    assert_eq!(
        certs(&["agent", "web-01", "--count", "3", "--prefix", "edge"]).code,
        0
    );
    assert_eq!(certs(&["person", "ada"]).code, 0);
    assert_eq!(certs(&["ci", "pipeline"]).code, 0);
    let limited = ["person", "eve", "--role", "viewer", "--channel", "stable"];
    assert_eq!(certs(&limited).code, 0);
    assert_eq!(certs(&["person", "eve", "--channel", "No Channel"]).code, 2);
    assert_eq!(certs(&["person", "eve", "--role", "agent"]).code, 2);
    assert_eq!(certs(&["agent", "../evil"]).code, 2);
    for illegal in ["Web-01", "web_01", "agent-web-01.fleet", "-a", "a..b"] {
        assert_eq!(certs(&["agent", illegal]).code, 2, "{illegal}");
    }
    assert_eq!(certs(&["agent"]).code, 2);
    let subject = |name: &str| {
        let pem = fs::read(scratch.path().join(name)).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        pem.parse_x509().unwrap().subject().to_string()
    };
    assert_eq!(subject("agents/web-01.crt"), "CN=web-01");
    assert_eq!(subject("agents/edge-0003.crt"), "CN=edge-0003");
    assert_eq!(subject("people/ada.crt"), "CN=ada, OU=nixfleet-operator");
    assert_eq!(subject("people/eve.crt"), "CN=eve, OU=nixfleet-viewer");
    assert_eq!(subject("ci/pipeline.crt"), "CN=pipeline, OU=nixfleet-ci");
    for key in [
        "ca.key",
        "server.key",
        "agents/web-01.key",
        "people/ada.key",
    ] {
        let mode = scratch
            .path()
            .join(key)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn canonicalize_prints_the_canonical_form_or_a_reason() {
    let check = |input: &[u8], expected: &str| {
        let run = nixfleet(&["debug", "canonicalize"], input);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, expected),
            "{}",
            run.stderr
        );
    };
    check(
        b" { \"b\" : 1.0, \"a\" : [ 2, 1e21 ] }\n",
        "{\"a\":[2,1e+21],\"b\":1}",
    );
    check(b"-0", "0");
    let refused = |input: &[u8], reason: &str| {
        let run = nixfleet(&["debug", "canonicalize"], input);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""));
        assert!(run.stderr.contains(reason), "{reason}: {}", run.stderr);
    };
    refused(b"", "not JSON");
    refused(b"{\"a\":1", "not JSON");
    refused(b"\xff\xfe", "not UTF-8");
    refused(b"{\"a\":1,\"a\":1}", "duplicate key \"a\"");
    refused(b"\"\\ud800\"", "lone surrogate");
    refused(b"[9007199254740993]", "9007199254740993 does not survive");
    refused(&b"[".repeat(100_000), "not JSON");
}

#[test]
fn invalid_debug_input_is_reported_by_line_after_earlier_results() {
    let vectors = include_str!("../../tests/vectors/step.ndjson");
    let case: Value = serde_json::from_str(vectors.lines().next().unwrap()).unwrap();
    let input = format!("{}\nnonsense\n{}\n", case["input"], case["input"]);
    let run = nixfleet(&["debug", "step"], input.as_bytes());
    assert_eq!(run.code, 2);
    assert_eq!(run.stdout.lines().count(), 1);
    assert!(run.stderr.contains("line 2"), "{}", run.stderr);
    for core in ["step", "rollout", "plan"] {
        assert_eq!(nixfleet(&["debug", core], b"").code, 0);
        assert_eq!(nixfleet(&["debug", core], b"{}\n").code, 2);
        assert_eq!(nixfleet(&["debug", core], b"\xff\n").code, 2);
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(
        help.stdout.contains("Exit codes: 0 done"),
        "{}",
        help.stdout
    );
    for command in [
        "keygen",
        "release",
        "certs",
        "status",
        "rollouts",
        "hosts",
        "events",
        "explain",
        "deferrals",
        "clear",
        "unquarantine",
        "verify",
        "debug",
    ] {
        assert_eq!(run(&[command, "--help"]).code, 0, "{command}");
    }
    assert_eq!(run(&["nonsense"]).code, 2);
    assert_eq!(run(&["status"]).code, 2);
}

#[test]
fn revocations_are_added_to_a_signed_list() {
    let bench = Bench::new("ed25519");
    let (list, key) = (bench.path("revocations.json"), bench.path("release.key"));
    let revoke = |more: &[&str]| {
        run(&[
            &["revoke", text(&list), "--key", text(&key), "--json"],
            more,
        ]
        .concat())
    };
    let made = revoke(&["--host", "web-01", "--person", "ada", "--reason", "lost"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let verify = || {
        let trust = bench.path("trust.json");
        let signature = bench.path("revocations.json.sig");
        let arguments = [
            "verify",
            "--artifact",
            text(&list),
            "--signature",
            text(&signature),
            "--trust",
            text(&trust),
            "--kind",
            "revocations",
        ];
        run(&arguments)
    };
    let verified = verify();
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let read = || -> Value { serde_json::from_slice(&fs::read(&list).unwrap()).unwrap() };
    let entries = read()["revocations"].clone();
    assert_eq!(entries[0]["hostname"], "web-01");
    assert_eq!(entries[1]["person"], "ada");
    assert_eq!(entries[1]["reason"], "lost");
    // The next one is later, and adds.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let added = revoke(&["--pipeline", "main", "--before", "2026-01-01T00:00:00Z"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let added: Value = serde_json::from_str(&added.stdout).unwrap();
    assert_eq!((&added["entries"], &added["added"]), (&json!(3), &json!(1)));
    assert_eq!(verify().code, 0);
    // Nobody's changes are signed.
    let forged = fs::read_to_string(&list)
        .unwrap()
        .replace("web-01", "web-02");
    fs::write(&list, forged).unwrap();
    let refused = revoke(&["--host", "web-03"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    for illegal in [["--host", "Web"], ["--person", ""], ["--pipeline", " a"]] {
        assert_eq!(revoke(&illegal).code, 2, "{illegal:?}");
    }
}
