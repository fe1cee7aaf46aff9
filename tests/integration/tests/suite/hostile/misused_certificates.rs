//! Certificates that are good for something else, or no more.

use chrono::Utc;
use nixfleet_harness::wait_for;
use serde_json::json;

use super::super::gateways::gateway_process::{Gateway, SOON, UNKNOWN_ROLLOUT, event};
use super::super::gateways::test_authority::Validity;
use super::raw_connection::Raw;
use super::{EVENTS, serves};

#[tokio::test]
async fn a_host_speaks_for_itself_alone() {
    let gateway = Gateway::start_without_release("otherhost", &[]).await;
    gateway.publish("4f1c").await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    let mismatch = (403, "hostname-mismatch".to_owned());
    for host in [
        "lab-1",
        "WEB-1",
        "web-1 ",
        "web-1.fleet.test",
        "agent-web-1.fleet.test",
        "",
    ] {
        assert_eq!(
            agent.post(EVENTS, &event(host, 1)).await.refusal(),
            mismatch,
            "{host}"
        );
        let heartbeat = json!({ "hostname": host, "at": Utc::now() });
        let answer = agent.post("/v1/agent/heartbeat", &heartbeat).await;
        assert_eq!(answer.refusal(), mismatch, "{host}");
    }
    serves(&gateway, &honest, 1).await;
    assert_eq!(gateway.logged().await.len(), 1);
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_connection() {
    let gateway = Gateway::start("ending", &[]).await;
    let name = "agent-web-1.fleet.test";
    let issued = gateway.authority.client(name, None, Validity::Seconds(8));
    let agent = gateway.client_with(Some(&issued));
    assert_eq!(agent.post(EVENTS, &event("web-1", 1)).await.status, 204);
    let refused = wait_for("the certificate has ended", SOON, async || {
        let answer = agent.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status == 401).then_some(answer))
    });
    let expected = (401, "client-certificate-expired".to_owned());
    assert_eq!(refused.await.unwrap().refusal(), expected);
    // Nor does it open another one, from the next second on.
    wait_for("the handshake is refused", SOON, async || {
        let Ok(mut raw) = Raw::open(&gateway, Some(&issued), b"http/1.1").await else {
            return Ok(Some(()));
        };
        let request = "GET /v1/rollouts/none HTTP/1.1\r\nHost: localhost\r\n\r\n";
        raw.send(request.as_bytes()).await;
        let answer = raw.answer().await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        Ok(answer.is_empty().then_some(()))
    })
    .await
    .unwrap();
    assert!(gateway.hostile("client-certificate-expired").await >= 2.0);
    assert_eq!(gateway.logged().await.len(), 1);
}

#[tokio::test]
async fn a_revoked_operator_commands_nothing_and_a_new_certificate_does() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let gateway = Gateway::start_console("revokedop", &[list, "trust.revocations_seconds=1"]).await;
    let operator = gateway.operator();
    assert_eq!(operator.get("/v1/status").await.status, 200);
    let document = json!({
        "schemaVersion": 1,
        "revocations": [{ "hostname": "ada", "notBefore": "2021-01-01T00:00:00Z" }],
        "meta": { "schemaVersion": 1, "signedAt": Utc::now(), "ciCommit": null },
    });
    let (bytes, signature) = gateway.sign(&document);
    let write = |bytes: &[u8], signature: &[u8]| {
        std::fs::write(gateway.dir.join("revocations.json.sig"), signature).unwrap();
        std::fs::write(gateway.dir.join("revocations.json"), bytes).unwrap();
    };
    // Signed by nobody: changes nothing.
    write(&bytes, &[7; 64]);
    let path = "/v1/rollouts/stable@4f1c/clearance";
    let clearance = json!({ "reason": "before" });
    wait_for("the list was read", SOON, async || {
        Ok(gateway
            .process
            .tail()
            .contains("revocations not loaded")
            .then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(operator.post(path, &clearance).await.status, 202);
    write(&bytes, &signature);
    let refused = wait_for("the list is in force", SOON, async || {
        let answer = operator.get("/v1/whoami").await;
        Ok((answer.status == 401).then_some(()))
    });
    refused.await.unwrap();
    let revoked = (401, "client-certificate-revoked".to_owned());
    assert_eq!(operator.post(path, &clearance).await.refusal(), revoked);
    assert_eq!(gateway.logged().await.len(), 1);
}
