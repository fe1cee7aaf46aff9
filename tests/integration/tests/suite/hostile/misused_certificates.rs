//! Certificates that are good for something else, or no more.

use chrono::Utc;
use nixfleet_harness::wait_for;
use rcgen::{DnType, DnValue};
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
    let illegal = (400, "invalid-field".to_owned());
    for (host, refusal) in [
        ("lab-1", &mismatch),
        ("web-1.fleet.test", &mismatch),
        ("agent-web-1.fleet.test", &mismatch),
        ("WEB-1", &illegal),
        ("web-1 ", &illegal),
        ("web-1\u{200b}", &illegal),
        ("", &illegal),
    ] {
        let answer = agent.post(EVENTS, &event(host, 1)).await;
        assert_eq!(answer.refusal(), *refusal, "{host}");
        let heartbeat = json!({ "hostname": host, "at": Utc::now() });
        let answer = agent.post("/v1/agent/heartbeat", &heartbeat).await;
        assert_eq!(answer.refusal(), *refusal, "{host}");
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
    let unread = (503, "not-ready".to_owned());
    assert_eq!(operator.get("/v1/status").await.refusal(), unread);
    let path = "/v1/rollouts/stable@4f1c/clearance";
    let clearance = json!({ "reason": "before" });
    gateway.revoke(json!([]), Utc::now() - chrono::TimeDelta::seconds(60));
    wait_for("the list is in force", SOON, async || {
        let answer = operator.get("/v1/whoami").await;
        Ok((answer.status == 200).then_some(()))
    })
    .await
    .unwrap();
    let document = json!({
        "schemaVersion": 1,
        "revocations": [{ "person": "ada", "notBefore": "2021-01-01T00:00:00Z" }],
        "meta": { "schemaVersion": 1, "signedAt": Utc::now(), "ciCommit": null },
    });
    let (bytes, signature) = gateway.sign(&document);
    let write = |bytes: &[u8], signature: &[u8]| {
        std::fs::write(gateway.dir.join("revocations.json.sig"), signature).unwrap();
        std::fs::write(gateway.dir.join("revocations.json"), bytes).unwrap();
    };
    // Signed by nobody: changes nothing.
    write(&bytes, &[7; 64]);
    wait_for("the list was read", SOON, async || {
        let tail = gateway.process.tail();
        let is_refused = tail.contains("the signature is not that of a trusted key");
        Ok(is_refused.then_some(()))
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

/// Certificates of the right authority whose subject two readers could read differently.
#[tokio::test]
async fn a_certificate_that_could_be_read_in_two_ways_is_refused() {
    let hosts = Gateway::start("subjects", &[]).await;
    hosts.publish("4f1c").await;
    let people = hosts.other(&[]).await;
    let text = |text: &str| DnValue::Utf8String(text.to_owned());
    let name = |name: &str| (DnType::CommonName, text(name));
    let unit = |unit: &str| (DnType::OrganizationalUnitName, text(unit));
    let again = |last: u64, value: &str| (DnType::CustomDnType(vec![2, 5, 4, last]), text(value));
    let bmp = |text: &str| DnValue::BmpString(text.try_into().unwrap());
    let teletex = |text: &str| DnValue::TeletexString(text.try_into().unwrap());
    let operator = "nixfleet-operator";
    let subjects: Vec<(&str, Vec<(DnType, DnValue)>)> = vec![
        ("two names", vec![name("web-1"), again(3, "lab-1")]),
        (
            "two names of a person",
            vec![name("ada"), unit(operator), again(3, "bob")],
        ),
        (
            "two units",
            vec![name("ada"), unit("it"), again(11, operator)],
        ),
        (
            "a name as BMPString",
            vec![(DnType::CommonName, bmp("web-1"))],
        ),
        (
            "a role as T61String",
            vec![
                name("web-1"),
                (DnType::OrganizationalUnitName, teletex(operator)),
            ],
        ),
        (
            "a role as BMPString",
            vec![name("ada"), (DnType::OrganizationalUnitName, bmp(operator))],
        ),
        (
            "a misspelt role",
            vec![name("web-1"), unit("nixfleet-Operator")],
        ),
        (
            "a name with a hidden character",
            vec![name("ada\u{200b}"), unit(operator)],
        ),
        ("a host in upper case", vec![name("WEB-1")]),
        (
            "an unreadable attribute that nobody asks for",
            vec![name("web-1"), (DnType::OrganizationName, bmp("Example"))],
        ),
    ];
    let refused = (401, "client-certificate-unusable".to_owned());
    for (what, subject) in subjects {
        for (gateway, path) in [(&hosts, UNKNOWN_ROLLOUT), (&people, "/v1/whoami")] {
            let issued = gateway.authority.of_subject(&subject);
            let answer = gateway.client_with(Some(&issued)).get(path).await;
            assert_eq!(answer.refusal(), refused, "{what}");
        }
    }
    // Two attributes in one part of the name.
    for (gateway, path) in [(&hosts, UNKNOWN_ROLLOUT), (&people, "/v1/whoami")] {
        let issued = gateway.authority.of_joined_subject("web-1", operator);
        let answer = gateway.client_with(Some(&issued)).get(path).await;
        assert_eq!(answer.refusal(), refused);
    }
}
