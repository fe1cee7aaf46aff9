//! Agents with real connections, certificates and signatures against a small control plane.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of a test fail it like the test itself"
)]

#[path = "against_gateway/control.rs"]
mod control;
#[path = "against_gateway/tls.rs"]
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_agent::core::AgentConfig;
use nixfleet_proto::{ClosureHash, HostState, Hostname};
use nixfleet_swarm::agent_certificates::Certificates;
use nixfleet_swarm::profile::Profile;
use nixfleet_swarm::run::{SwarmConfig, run};
use nixfleet_swarm::swarm_state::SwarmState;
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, ReleaseBundle, ReleaseStamp, TrustFile, build_release};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use control::{Control, Lie};
use tls::Authority;

static PROVIDER: Once = Once::new();

/// Longest time for agents to finish what they do.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_secret(Algorithm::Ed25519, &[seed; 32]).unwrap()
}

fn targets(count: usize, closure: &str) -> BTreeMap<Hostname, ClosureHash> {
    (1..=count)
        .map(|n| {
            (
                format!("web-{n:02}").parse::<Hostname>().unwrap(),
                closure.into(),
            )
        })
        .collect()
}

fn release(targets: &BTreeMap<Hostname, ClosureHash>, key: &SigningKey) -> ReleaseBundle {
    release_of("4f1c", targets, key)
}

fn release_of(
    commit: &str,
    targets: &BTreeMap<Hostname, ClosureHash>,
    key: &SigningKey,
) -> ReleaseBundle {
    let hosts: serde_json::Map<_, _> = targets
        .iter()
        .map(|(hostname, closure)| {
            let host = serde_json::json!({ "system": "x86_64-linux", "tags": [],
                "channel": "stable", "closureHash": closure, "pubkey": null });
            (hostname.to_string(), host)
        })
        .collect();
    let fleet = serde_json::json!({
        "schemaVersion": 1, "hosts": hosts,
        "channels": { "stable": { "rolloutPolicy": "p", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "p": { "strategy": "waves", "onHealthFailure": "rollback-and-halt",
                                    "waves": [ { "selector": { "all": true }, "soakMinutes": 0 } ] } },
    });
    let stamp = ReleaseStamp {
        signed_at: chrono::Utc::now(),
        commit: Some(commit.to_owned()),
    };
    build_release(fleet.to_string().as_bytes(), &stamp, key)
        .map_err(|error| error.faults)
        .unwrap()
        .bundle
}

/// A running swarm against a control plane.
struct Swarm {
    control: Control,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
    state_file: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Swarm {
    async fn start(count: usize, profile: &str) -> Self {
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap();
        });
        let authority = Authority::new();
        let scratch = tempfile::tempdir().unwrap();
        let (certificate, key_file) = authority.write(scratch.path());
        let control = Control::start(&authority).await;
        let state_file = scratch.path().join("state.json");
        let config = SwarmConfig {
            // The first of two gateways does not listen; half of the agents select it first.
            url: format!("https://127.0.0.1:9,https://{}", control.address),
            ca_pem: authority.certificate_pem.clone().into_bytes(),
            certificates: Certificates::authority(&certificate, &key_file).unwrap(),
            trust: TrustFile::of(key(7).public()),
            hostnames: targets(count, "b").into_keys().collect(),
            profile: Profile::parse(profile.as_bytes()).unwrap(),
            seed: 7,
            config: AgentConfig {
                heartbeat_interval: TimeDelta::milliseconds(500),
                heartbeat_settle: TimeDelta::milliseconds(50),
                probe_interval: TimeDelta::milliseconds(200),
                sustained_failure: TimeDelta::milliseconds(600),
                retry_first: TimeDelta::milliseconds(50),
                retry_max: TimeDelta::milliseconds(200),
                ..AgentConfig::default()
            },
            fleet_hosts_max: 1_000,
            starts_per_second: 1_000,
            state_file: Some(state_file.clone()),
            admin: None,
            progress_interval: None,
        };
        let shutdown = CancellationToken::new();
        Self {
            control,
            running: tokio::spawn(run(config, shutdown.clone())),
            shutdown,
            state_file,
            _scratch: scratch,
        }
    }

    /// The state that the swarm wrote last.
    fn state(&self) -> Option<SwarmState> {
        let written = std::fs::read(&self.state_file).ok()?;
        Some(serde_json::from_slice(&written).unwrap())
    }

    /// Stops swarm and control plane, and reads the last state of the swarm.
    async fn stop(self) -> SwarmState {
        self.shutdown.cancel();
        let state_file = self.state_file.clone();
        let stopped = tokio::time::timeout(STOP_PATIENCE, self.running).await;
        stopped.expect("the swarm stops").unwrap().unwrap();
        self.control.stop().await;
        serde_json::from_slice(&std::fs::read(state_file).unwrap()).unwrap()
    }
}

/// An event whose response was lost is sent again, and one that was inferred while the reply was lost is
/// reported; all other rejections are faults.
fn assert_only_stale(rejected: &[String]) {
    let inferred = ["ActivationCompleted", "RollbackComplete"];
    let expected = |text: &String| {
        text.contains(" stale: ")
            || text.contains(" illegal: ") && inferred.iter().any(|kind| text.contains(kind))
    };
    assert!(rejected.iter().all(expected), "{rejected:?}");
}

const QUICK: &str = r#""activationMs":{"min":20,"max":80},"rollbackMs":{"min":20,"max":80}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_release_converges_in_order_over_mutual_tls() {
    let swarm = Swarm::start(5, &format!("{{{QUICK}}}")).await;
    let targets = targets(5, "b");
    swarm.control.publish(&release(&targets, &key(7)), &targets);
    let all = |k: &control::Knowledge| k.all_are(HostState::Converged);
    swarm.control.until("every host converged", all).await;
    {
        let status = swarm.control.status();
        assert_eq!(status.rejected, Vec::<String>::new());
        assert_eq!(status.traces.len() as u64, status.requests);
        for kinds in status.events.values() {
            assert_eq!(
                kinds.join(" "),
                "DispatchAck ActivationStarted ActivationCompleted ProbeTopologyDeclared \
                 ProbeObservedFirst ProbeResult Converged"
            );
        }
    }
    let state = swarm.stop().await;
    // The agents may stop before the last responses.
    let totals = &state.totals;
    assert_eq!(totals.accepted_events + totals.pending_events, 35);
    assert_eq!(state.totals.refused_events, 0);
    assert_eq!(state.dispatch_latency_ms.count, 5);
    assert!(
        state
            .hosts
            .values()
            .all(|host| host.current_closure.as_str() == "b")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_signed_by_another_key_is_not_activated() {
    let swarm = Swarm::start(2, &format!("{{{QUICK}}}")).await;
    let targets = targets(2, "b");
    swarm.control.publish(&release(&targets, &key(8)), &targets);
    swarm
        .control
        .until("both refused the manifest", |_| {
            let state = swarm.state();
            state.is_some_and(|state| {
                let mut hosts = state.hosts.values();
                hosts.all(|host| !host.refused_dispatches.is_empty())
            })
        })
        .await;
    assert!(swarm.control.status().events.is_empty());
    let state = swarm.stop().await;
    for host in state.hosts.values() {
        assert_eq!(host.refused_dispatches[0].reason, "bad-signature");
        assert_eq!(
            host.current_closure.as_str().split('-').next(),
            Some("initial")
        );
        assert!(host.rollouts.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_crash_after_the_switch_are_recovered_or_report_it() {
    let crash =
        r#""crash":{"share":1,"points":["after-switch"],"restartAfterMs":{"min":50,"max":200}}"#;
    let swarm = Swarm::start(5, &format!("{{{QUICK},{crash}}}")).await;
    let targets = targets(5, "b");
    swarm.control.publish(&release(&targets, &key(7)), &targets);
    let all = |k: &control::Knowledge| k.all_are(HostState::Converged);
    swarm.control.until("every host converged", all).await;
    {
        let status = swarm.control.status();
        assert_only_stale(&status.rejected);
        assert!(
            status
                .records
                .values()
                .all(|record| record.recovery_seq <= 1)
        );
    }
    assert_eq!(swarm.stop().await.totals.crashes, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_faults_together_end_in_agreement_of_agents_and_control_plane() {
    let faults = r#""failures":[{"closure":"b","share":0.3,"fails":{"kind":"probe","probeName":"http"}},
          {"closure":"b","share":0.2,"fails":{"kind":"activation","exitCode":3}}],
        "deferral":{"share":0.2,"rebootAfterMs":{"min":100,"max":300}},
        "crash":{"share":0.5,"points":["before-switch","after-switch","during-rollback"],
                 "restartAfterMs":{"min":50,"max":200}},
        "offline":{"share":0.3,"startsAfterMs":{"min":0,"max":200},"durationMs":{"min":100,"max":500}}"#;
    let swarm = Swarm::start(40, &format!("{{{QUICK},{faults}}}")).await;
    let targets = targets(40, "b");
    swarm.control.status().unavailable = 20;
    swarm.control.publish(&release(&targets, &key(7)), &targets);
    swarm
        .control
        .until("every host converged or went back", |k| {
            let mut states = k.records.values().map(|record| record.state);
            states.all(|state| matches!(state, HostState::Converged | HostState::Reverted))
        })
        .await;
    // The agents' state may lag by one heartbeat.
    swarm
        .control
        .until("the agents know", |k| {
            let Some(known) = swarm.state() else {
                return false;
            };
            k.states().iter().all(|(hostname, expected)| {
                let mut rollouts = known.hosts[hostname].rollouts.values();
                rollouts.any(|rollout| rollout.state == *expected)
            })
        })
        .await;
    let (states, rejected) = {
        let status = swarm.control.status();
        (status.states(), status.rejected.clone())
    };
    let state = swarm.stop().await;
    assert_only_stale(&rejected);
    assert!(states.values().any(|state| *state == HostState::Reverted));
    for (hostname, expected) in &states {
        let host = &state.hosts[hostname];
        let rollout = host.rollouts.values().next().unwrap();
        assert_eq!(rollout.state, *expected, "{hostname}: {host:?}");
        let initial = host.current_closure.as_str().starts_with("initial");
        assert_eq!(initial, *expected == HostState::Reverted, "{hostname}");
    }
    assert!(state.totals.crashes > 0 && state.totals.reboots > 0 && state.totals.outages > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_of_the_control_plane_move_no_host_and_end_no_agent() {
    let swarm = Swarm::start(3, &format!("{{{QUICK}}}")).await;
    let targets = targets(3, "b");
    swarm.control.publish(&release(&targets, &key(7)), &targets);
    let all = |k: &control::Knowledge| k.all_are(HostState::Converged);
    swarm.control.until("every host converged", all).await;
    let lies: [(&str, Lie); 5] = [
        ("a failure nobody reported", |lie| {
            lie["state"] = "Failed".into()
        }),
        ("the last sequence", |lie| {
            lie["lastEventSeq"] = u64::MAX.into()
        }),
        ("a usable sequence too few", |lie| {
            lie["lastEventSeq"] = i64::MAX.into()
        }),
        ("another century", |lie| {
            lie["dispatchedAt"] = "+262142-12-31T23:59:59Z".into();
        }),
        ("a text without end", |lie| {
            lie["currentClosureAtDispatch"] = "x".repeat(900_000).into();
        }),
    ];
    for (what, lie) in lies {
        swarm.control.lie(Some(lie));
        let told = swarm.control.status().lies;
        let several = |k: &control::Knowledge| k.lies >= told + 12;
        swarm.control.until(what, several).await;
        let state = swarm.state().unwrap();
        for (hostname, host) in &state.hosts {
            assert!(host.running, "{what}: {hostname}");
            assert_eq!(host.current_closure.as_str(), "b", "{what}: {hostname}");
            let mut states = host.rollouts.values().map(|rollout| rollout.state);
            assert!(
                states.all(|state| state == HostState::Converged),
                "{what}: {host:?}"
            );
        }
    }
    swarm.control.lie(None);
    let next = crate::targets(3, "c");
    swarm
        .control
        .publish(&release_of("5a2d", &next, &key(7)), &next);
    swarm
        .control
        .until("every host converged again", |k| {
            let mut records = k
                .records
                .iter()
                .filter(|((id, _), _)| id.as_str() == "stable@5a2d");
            records.all(|(_, record)| record.state == HostState::Converged)
        })
        .await;
    let state = swarm.stop().await;
    let mut closures = state
        .hosts
        .values()
        .map(|host| host.current_closure.as_str());
    assert!(closures.all(|closure| closure == "c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_refused_event_does_not_block_later_ones() {
    let swarm = Swarm::start(1, &format!("{{{QUICK}}}")).await;
    let targets = targets(1, "b");
    swarm
        .control
        .status()
        .refused_kinds
        .insert("ActivationStarted");
    swarm.control.publish(&release(&targets, &key(7)), &targets);
    let all = |k: &control::Knowledge| k.all_are(HostState::Converged);
    swarm.control.until("the host converged", all).await;
    let state = swarm.stop().await;
    let letters = &state.hosts["web-01"].refused_events;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].status, letters[0].code.as_str()),
        (409, "refused")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_events_are_sent_as_an_array_or_one_by_one_without_array_support() {
    for arrays_refused in [false, true] {
        let swarm = Swarm::start(3, &format!("{{{QUICK}}}")).await;
        let targets = targets(3, "b");
        {
            let mut status = swarm.control.status();
            // Events queue behind the first refusals.
            status.unavailable = 9;
            status.arrays_refused = arrays_refused;
        }
        swarm.control.publish(&release(&targets, &key(7)), &targets);
        let all = |k: &control::Knowledge| k.all_are(HostState::Converged);
        swarm.control.until("every host converged", all).await;
        let (arrays, rejected) = {
            let status = swarm.control.status();
            (status.arrays, status.rejected.clone())
        };
        assert_eq!(rejected, Vec::<String>::new());
        assert_eq!(arrays == 0, arrays_refused, "{arrays} arrays");
        let state = swarm.stop().await;
        assert_eq!(state.totals.refused_events, 0);
    }
}
