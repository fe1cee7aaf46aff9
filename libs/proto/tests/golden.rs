//! One golden JSON per wire type: what is written today must be readable for as long as a log lives.

use nixfleet_proto::effects_frame::EffectsFrame;
use nixfleet_proto::fleet::{Meta, RolloutManifest, Selector};
use nixfleet_proto::outcome::{Accepted, OutcomeSubject};
use nixfleet_proto::wire::{EventRequest, HeartbeatReply, HeartbeatRequest, WireEvent};
use nixfleet_proto::{Actor, ActorKind, CommandOrigin, SignatureCheck};
use nixfleet_proto::{
    Decision, Effect, Entry, EntryBody, Gate, HostEvent, HostEventBody, HostRecord, InputFrame,
    InputMark, OperatorCommand, Outcome, OutputFrame, PlanAction, Position, Producer, Reason,
    Rejection, RolloutEvent, RolloutRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Checks that the text reads as `T` and that `T` writes the same JSON again.
fn check<T: Serialize + DeserializeOwned>(golden: &Value) -> T {
    let value: T = serde_json::from_value(golden.clone())
        .unwrap_or_else(|fault| panic!("{fault} in {golden}"));
    assert_eq!(
        &serde_json::to_value(&value).expect("wire types serialise"),
        golden
    );
    value
}

const AT: &str = "2026-05-01T10:00:00.123456789Z";

#[test]
fn every_event_kind_has_its_wire_form() {
    let bodies = [
        json!({"kind":"DispatchAck","currentClosureAtDispatch":"a","receivedAt":AT}),
        json!({"kind":"ActivationStarted","startedAt":AT,"switchMethod":"systemd-run"}),
        json!({"kind":"ActivationCompleted","observedCurrentClosure":"b","exitCode":0,"completedAt":AT}),
        json!({"kind":"ActivationDeferred","component":"dbus","deferredAt":AT}),
        json!({"kind":"ActivationFailed","exitCode":-3,"stderrTail":"no","failedAt":AT}),
        json!({"kind":"ProbeTopologyDeclared","probes":[{"probeName":"http","kind":"http","mode":"enforce"}],"declaredAt":AT}),
        json!({"kind":"ProbeObservedFirst","probeName":"http","mode":"observe","observedAt":AT}),
        json!({"kind":"ProbeResult","probeName":"cis","mode":"enforce","status":"fail","observedAt":AT,"failureReason":"x",
               "subResults":[{"controlId":"1.1","status":"fail","framework":"cis","article":"a","effectiveMode":"enforce","overrideReason":"r"}]}),
        json!({"kind":"ProbeFailureFirst","probeName":"http","mode":"enforce","firstFailedAt":AT}),
        json!({"kind":"Failed","failedAt":AT,"sustainedDurationSecs":120,"failingProbes":["http"],"policyApplied":"rollback-and-halt"}),
        json!({"kind":"RollbackComplete","revertedToClosure":"a","exitCode":0,"completedAt":AT}),
        json!({"kind":"RollbackFailed","reason":"impossible","detail":"no","failedAt":AT}),
        json!({"kind":"Converged","convergedAt":AT,"currentClosure":"b"}),
    ];
    let mut kinds: Vec<&str> = Vec::new();
    for body in bodies {
        let parsed: HostEventBody = check(&body);
        kinds.push(parsed.name());
        let mut wire = body.clone();
        wire["seq"] = json!(u64::MAX);
        let event: WireEvent = check(&wire);
        assert_eq!(
            HostEvent::from(event),
            HostEvent {
                seq: u64::MAX,
                body: parsed
            }
        );
    }
    assert_eq!(kinds, HostEventBody::KINDS);
}

#[test]
fn events_that_are_not_events_are_refused() {
    let refused = [
        json!({"kind":"DispatchReject","seq":1,"receivedAt":AT}),
        json!({"kind":"Converged","convergedAt":AT,"currentClosure":"b"}),
        json!({"kind":"Converged","seq":-1,"convergedAt":AT,"currentClosure":"b"}),
        json!({"kind":"Converged","seq":1.5,"convergedAt":AT,"currentClosure":"b"}),
        json!({"kind":"Converged","seq":"1","convergedAt":AT,"currentClosure":"b"}),
        json!({"kind":"Converged","seq":1,"convergedAt":"yesterday","currentClosure":"b"}),
        json!({"kind":"Converged","seq":1,"convergedAt":AT}),
        json!({"kind":"Converged","seq":1,"convergedAt":AT,"currentClosure":7}),
        json!({"kind":"Failed","seq":1,"failedAt":AT,"sustainedDurationSecs":1,"failingProbes":[],"policyApplied":"panic"}),
        json!({"kind":"RollbackFailed","seq":1,"reason":"later","detail":"","failedAt":AT}),
        json!({"seq":1}),
        json!([]),
        json!(null),
    ];
    for event in refused {
        assert!(
            serde_json::from_value::<WireEvent>(event.clone()).is_err(),
            "{event}"
        );
    }
}

#[test]
fn unknown_keys_and_null_optionals_are_ignored() {
    let request = json!({
        "hostname": "web-01", "rolloutId": "stable@4f", "signature": "00", "later": {"a": 1},
        "event": {"kind":"ProbeResult","seq":4,"probeName":"p","mode":"enforce","status":"pass",
                  "observedAt":AT,"failureReason":null,"subResults":null,"more":1},
    });
    let parsed: EventRequest = serde_json::from_value(request).unwrap();
    assert_eq!(parsed.event.seq, 4);

    let record = json!({
        "rolloutId":"stable@4f","hostname":"web-01","channel":"stable","state":"Pending",
        "targetClosure":"b","soakMinutes":30,"dispatchedAt":AT,"probes":null,"unchanged":null,
        "currentClosure":null,"declaredProbes":null,"lastEventSeq":0,"recoverySeq":null,
    });
    let record: HostRecord = serde_json::from_value(record).unwrap();
    assert!(!record.unchanged && record.declared_probes.is_none());
}

#[test]
fn entries_and_frames_have_their_form() {
    let event = json!({
        "v":1,"receivedAt":AT,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "body":{"entry":"HostEvent","rolloutId":"stable@4f","hostname":"web-01","producer":"agent",
                "event":{"seq":1,"body":{"kind":"Converged","convergedAt":AT,"currentClosure":"b"}}},
    });
    let plan = json!({"v":1,"receivedAt":AT,"body":{"entry":"Plan","epoch":3,
        "action":{"action":"QueueDispatch","hostname":"web-01","rolloutId":"stable@4f","targetClosure":"b","soakMinutes":0.05}}});
    let barrier = json!({"v":1,"receivedAt":AT,"body":{"entry":"Plan","epoch":4,"action":{"action":"Barrier"}}});
    let operator = json!({"v":1,"receivedAt":AT,"body":{"entry":"Operator","command":{"command":"ClearQuarantine",
        "channel":"stable","closureHash":"b","reason":"fixed"},"origin":{"actor":{"kind":"certificate",
        "issuer":"CN=people","subject":"ada"},"idempotencyKey":"k","signature":"c2ln"}}});
    let candidate = json!({"v":1,"receivedAt":AT,"body":{"entry":"RecoveryCandidate","rolloutId":"stable@4f",
        "hostname":"web-01","currentClosure":"b"}});
    let frame: InputFrame =
        check(&json!({"v":1,"entries":[event, plan, barrier, operator, candidate]}));
    let names: Vec<&str> = frame
        .entries
        .iter()
        .map(|entry| entry.body.name())
        .collect();
    assert_eq!(
        names,
        [
            "HostEvent",
            "QueueDispatch",
            "Barrier",
            "ClearQuarantine",
            "RecoveryCandidate"
        ]
    );
}

#[test]
fn plan_actions_have_their_form() {
    for action in [
        json!({"action":"AdvanceWave","rolloutId":"s@4f","fromWave":0,"toWave":2}),
        json!({"action":"SoakElapsed","hostname":"h","rolloutId":"s@4f"}),
        json!({"action":"ConvergeUnchanged","hostname":"h","rolloutId":"s@4f","currentClosure":"b"}),
        json!({"action":"OpenRollout","rolloutId":"s@4f","channel":"s","targetRef":"4f","manifestHash":"00"}),
        json!({"action":"RetentionExpired","rolloutId":"s@4f"}),
        json!({"action":"BlocksChanged","rolloutId":"s@4f","wave":1,"gate":"host-edge","holds":[
            {"reason":"r"},{"reason":"q","hosts":["h"],"cause":{"seq":7,"index":1}}]}),
    ] {
        let parsed: PlanAction = check(&action);
        assert_eq!(action["action"], parsed.name());
    }
    for gate in Gate::ALL {
        assert_eq!(serde_json::to_value(gate).unwrap(), gate.name());
    }
}

#[test]
fn outcomes_and_output_frames_have_their_form() {
    let accepted = json!({
        "position":{"seq":7,"index":0},"at":AT,
        "subject":{"entry":"HostEvent","event":"Converged","producer":"agent","rolloutId":"s@4f","hostname":"h"},
        "accepted":{"events":[{"kind":"RolloutTerminal","rolloutId":"s@4f","at":AT}],
                    "effects":[{"effect":"CancelDispatches","rolloutId":"s@4f"}]},
    });
    let rejected = json!({
        "position":{"seq":7,"index":1},"at":AT,"subject":{"entry":"Barrier"},
        "rejected":{"reason":"fenced","message":"older"},
    });
    let golden = json!({
        "v":1,"epoch":2,"firstInput":{"seq":7,"index":0},"lastInput":{"seq":7,"index":1,"of":2},
        "stateHash":"ab","outcomes":[accepted, rejected],
    });
    let frame: OutputFrame = check(&golden);
    assert_eq!(
        frame.last_input.map(InputMark::next),
        Some(Position { seq: 8, index: 0 })
    );
    assert_eq!(frame.outcomes[1].decision.name(), "fenced");

    let effects: EffectsFrame = serde_json::from_str(&golden.to_string()).unwrap();
    assert_eq!(effects.v, frame.v);
    for (short, full) in effects.outcomes.iter().zip(&frame.outcomes) {
        assert_eq!(short.at, full.at);
        let expected = match &full.decision {
            Decision::Accepted(accepted) => &accepted.effects[..],
            Decision::Rejected(_) => &[],
        };
        assert_eq!(short.accepted.effects, expected);
    }
    assert_eq!(effects.outcomes[0].accepted.effects.len(), 1);
    assert_eq!(effects.outcomes.len(), 2);
}

#[test]
fn a_mark_says_where_to_go_on() {
    let inside = InputMark {
        seq: 5,
        index: 1,
        of: 3,
    };
    assert_eq!(inside.next(), Position { seq: 5, index: 2 });
    let after = InputMark {
        seq: 5,
        index: 2,
        of: 3,
    };
    assert_eq!(after.next(), Position { seq: 6, index: 0 });
}

#[test]
fn heartbeats_keep_the_wire_names() {
    check::<HeartbeatRequest>(&json!({"hostname":"h","current_closure":"b","at":AT}));
    check::<HeartbeatReply>(&json!({"received_at":AT,"bootstrap_rollouts":[{
        "rolloutId":"s@4f","hostname":"h","channel":"s","state":"Soaking","targetClosure":"b",
        "dispatchedAt":AT,"soakDueAt":AT,"lastEventSeq":4}]}));
}

#[test]
fn records_and_artifacts_have_their_form() {
    check::<RolloutRecord>(
        &json!({"rolloutId":"s@4f","channel":"s","targetRef":"4f","state":"Superseded",
        "currentWave":1,"openedAt":AT,"supersededAt":AT,"supersededBy":"s@50","waivedHosts":["h"]}),
    );
    check::<Meta>(&json!({"schemaVersion":1,"signedAt":null,"ciCommit":null}));
    check::<RolloutManifest>(
        &json!({"schemaVersion":1,"displayName":"s@4f","channel":"s","channelRef":"4f",
        "fleetResolvedHash":"00","hostSet":[{"hostname":"h","waveIndex":0,"targetClosure":"b"}],"healthGate":{},
        "disruptionBudgets":[{"selector":{"tags":[],"tagsAny":[],"hosts":[],"channel":null,"all":true},"hosts":["h"],"maxInFlight":1}],
        "meta":{"schemaVersion":1,"signedAt":AT,"ciCommit":"4f","signatureAlgorithm":"ed25519"}}),
    );
    for (selector, summary) in [
        (
            Selector {
                all: true,
                ..Selector::default()
            },
            "all",
        ),
        (
            Selector {
                tags: vec!["b".into(), "a".into()],
                ..Selector::default()
            },
            "tags:a,b",
        ),
        (Selector::default(), "unknown"),
    ] {
        assert_eq!(selector.summary(), summary);
    }
}

/// A rollout event, an effect and a rejection, built by hand, so that a renamed variant is noticed.
#[test]
fn hand_built_values_write_the_documented_names() {
    let id: nixfleet_proto::RolloutId = "s@4f".parse().unwrap();
    let at = serde_json::from_value(json!(AT)).unwrap();
    let outcome = Outcome {
        position: Position { seq: 1, index: 0 },
        at,
        subject: OutcomeSubject {
            entry: "HostEvent".into(),
            event: None,
            producer: Some(Producer::Recovery),
            rollout_id: Some(id.clone()),
            hostname: None,
            actor: None,
        },
        traceparent: None,
        decision: Decision::Accepted(Box::new(Accepted {
            events: vec![RolloutEvent::HostJoined {
                rollout_id: id.clone(),
                at,
            }],
            effects: vec![Effect::HaltLifted {
                channel: id.channel(),
            }],
            ..Accepted::default()
        })),
    };
    let written = serde_json::to_value(&outcome).unwrap();
    assert_eq!(written["accepted"]["events"][0]["kind"], "HostJoined");
    assert_eq!(written["accepted"]["effects"][0]["effect"], "HaltLifted");
    assert_eq!(written["subject"]["producer"], "recovery");
    for reason in Reason::ALL {
        let rejection = serde_json::to_value(Rejection::new(reason, "m")).unwrap();
        assert_eq!(rejection["reason"], reason.name());
    }
    let command = OperatorCommand::OperatorClearance {
        rollout_id: id,
        reason: "r".into(),
        waived_hosts: ["h".into()].into(),
    };
    let origin = Box::new(CommandOrigin {
        actor: Actor {
            kind: ActorKind::Oidc,
            issuer: "https://id.example".into(),
            subject: "ada".into(),
        },
        idempotency_key: "k".into(),
        signature: "c2ln".into(),
        check: SignatureCheck::Valid,
    });
    let entry = Entry::new(at, EntryBody::Operator { command, origin });
    assert_eq!(
        serde_json::to_value(entry).unwrap()["body"]["command"]["waivedHosts"][0],
        "h"
    );
}
