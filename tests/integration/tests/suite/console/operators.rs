//! Views and commands of operators.

use nixfleet_proto::{EntryBody, OperatorCommand, SignatureCheck};
use nixfleet_trust::ConsoleKeys;
use reqwest::Method;
use serde_json::json;

use super::super::gateways::gateway_process::Gateway;

#[tokio::test]
async fn every_view_answers_before_anything_has_happened() {
    let gateway = Gateway::start_console("views", &[]).await;
    let operator = gateway.operator();
    let get = async |path: &str| {
        let answer = operator.get(path).await;
        assert_eq!(
            answer.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&answer.bytes)
        );
        answer.json()
    };
    gateway.publish("4f1c").await;
    assert_eq!(get("/v1/hosts").await["hosts"], json!([]));
    assert_eq!(get("/v1/rollouts").await["rollouts"], json!([]));
    assert_eq!(get("/v1/rollouts?filter=all").await["rollouts"], json!([]));
    assert_eq!(get("/v1/deferrals").await["deferrals"], json!([]));
    assert_eq!(
        get("/v1/rollouts/stable@4f1c/events").await["events"],
        json!([])
    );
    let channel = get("/v1/channels/stable").await;
    assert_eq!(channel["declared_ci_commit"], "4f1c");
    assert_eq!(channel["freshness_window_minutes"], 1440);
    assert_eq!(get("/v1/channels").await["channels"][1], channel);
    let whoami = get("/v1/whoami").await;
    assert_eq!(
        (&whoami["cn"], &whoami["role"]),
        (&json!("ada"), &json!("operator"))
    );
    let status = get("/v1/status").await;
    assert_eq!(status["release"]["commit"], "4f1c");
    assert_eq!(status["channels"][1]["expectedRolloutId"], "stable@4f1c");
    assert_eq!(status["partitions"].as_array().unwrap().len(), 2);
    let host = get("/v1/hosts/web-1").await;
    assert_eq!(host["declared"]["closureHash"], "new-web-1");
    assert_eq!(host["declared"]["opened"], false);
    for (path, code) in [
        ("/v1/hosts/nobody", "unknown-host"),
        ("/v1/channels/nothing", "unknown-channel"),
        ("/v1/rollouts/stable@0000/lifecycle", "unknown-rollout"),
        ("/v1/rollouts/stable@0000/hosts", "unknown-rollout"),
    ] {
        assert_eq!(
            operator.get(path).await.refusal(),
            (404, code.to_owned()),
            "{path}"
        );
    }
    for path in [
        "/v1/rollouts/x/lifecycle",
        "/v1/rollouts/a@4f/events?after=x",
        "/v1/hosts?limit=0",
    ] {
        assert_eq!(operator.get(path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn commands_are_entries_in_the_name_of_the_certificate() {
    let gateway = Gateway::start_console("commands", &[]).await;
    let operator = gateway.operator();
    let path = "/v1/rollouts/stable@4f1c/clearance";
    for body in [json!({}), json!({ "reason": " " })] {
        let answer = operator.post(path, &body).await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid-field".to_owned()),
            "{body}"
        );
    }
    let body = json!({ "reason": "disk replaced", "waivedHosts": ["web-1"], "operator": "eve" });
    let answer = operator.post(path, &body).await;
    assert_eq!(answer.status, 202);
    assert!(answer.json()["position"]["seq"].is_u64());
    let quarantine = "/v1/quarantines/stable/abc-nixos";
    let bare = operator
        .send(operator.request(Method::DELETE, quarantine))
        .await;
    assert_eq!(bare.refusal(), (400, "invalid-field".to_owned()));
    let request = operator.request(
        Method::DELETE,
        &format!("{quarantine}?reason=false%20alarm"),
    );
    assert_eq!(operator.send(request).await.status, 202);
    let keys = std::fs::read(gateway.dir.join("console-keys.json")).unwrap();
    let keys = ConsoleKeys::parse(&keys).unwrap();
    let fleet = gateway.bus.names().prefix().to_owned();
    let commands: Vec<OperatorCommand> = gateway
        .logged()
        .await
        .into_iter()
        .filter_map(|entry| match entry.body {
            EntryBody::Operator { command, origin } => {
                assert_eq!(&*origin.actor.subject, "ada");
                let found = keys.check(&fleet, entry.received_at, (&command, &origin));
                assert_eq!(found, SignatureCheck::Valid);
                Some(command)
            }
            EntryBody::HostEvent { .. }
            | EntryBody::Plan { .. }
            | EntryBody::RecoveryCandidate { .. } => None,
        })
        .collect();
    let expected = [
        OperatorCommand::OperatorClearance {
            rollout_id: "stable@4f1c".parse().unwrap(),
            reason: "disk replaced".into(),
            waived_hosts: ["web-1".into()].into(),
        },
        OperatorCommand::ClearQuarantine {
            channel: "stable".into(),
            closure_hash: "abc-nixos".into(),
            reason: "false alarm".into(),
        },
    ];
    assert_eq!(commands, expected);
}

#[tokio::test]
async fn a_certificate_with_a_channel_limit_sees_and_commands_its_channels_alone() {
    let gateway = Gateway::start_console("channels", &[]).await;
    gateway.publish("4f1c").await;
    let limited = gateway.person_of("operator", &["stable"]);
    let whoami = limited.get("/v1/whoami").await.json();
    assert_eq!(whoami["channels"], json!(["stable"]));
    let status = limited.get("/v1/status").await.json();
    let channels = status["channels"].as_array().unwrap().iter();
    let channels: Vec<_> = channels.map(|channel| &channel["channel"]).collect();
    assert_eq!(channels, ["stable"]);
    let listed = limited.get("/v1/channels").await.json();
    assert_eq!(listed["channels"].as_array().unwrap().len(), 1);
    assert_eq!(limited.get("/v1/hosts/web-1").await.status, 200);
    let denied = (403, "channel-not-allowed".to_owned());
    for path in [
        "/v1/hosts/lab-1",
        "/v1/channels/edge",
        "/v1/rollouts/edge@4f1c/lifecycle",
        "/v1/rollouts/edge@4f1c/hosts",
        "/v1/rollouts/edge@4f1c/events",
    ] {
        assert_eq!(limited.get(path).await.refusal(), denied, "{path}");
    }
    let clearance = json!({ "reason": "disk replaced" });
    let post = async |channel: &str| {
        let path = format!("/v1/rollouts/{channel}@4f1c/clearance");
        limited.post(&path, &clearance).await
    };
    assert_eq!(post("edge").await.refusal(), denied);
    let lift = "/v1/quarantines/edge/abc-nixos?reason=false%20alarm";
    let lifted = limited.send(limited.request(Method::DELETE, lift)).await;
    assert_eq!(lifted.refusal(), denied);
    assert_eq!(gateway.logged().await.len(), 0);
    assert_eq!(post("stable").await.status, 202);
}
