//! The bytes of wire types, entries, outcomes, frames, records and messages, by samples of every kind.

use nixfleet_proto::fleet::{ReleaseAnnouncement, RolloutAnnouncement};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::wire::{
    Dispatch, EventAnswer, EventRequest, HeartbeatReply, HeartbeatRequest, LivenessFlush,
    OwnerHeartbeat, OwnerReply, PROTOCOL_VERSION,
};
use nixfleet_proto::{
    Entry, HostEventBody, HostRecord, InputFrame, LAYOUT_VERSION, Outcome, OutputFrame, Pinned,
    Reason, RolloutEvent, RolloutRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const AT: &str = "2026-05-01T10:00:00.123456789Z";

type Sample = (String, Vec<u8>);

/// What the type writes for a value that this JSON describes, every key of it included.
fn sample<T: Serialize + DeserializeOwned>(name: impl Into<String>, json: &Value) -> Sample {
    let name = name.into();
    let value: T = serde_json::from_value(json.clone()).expect(&name);
    let bytes = serde_json::to_vec(&value).expect(&name);
    let written: Value = serde_json::from_slice(&bytes).expect(&name);
    assert_eq!(&written, json, "{name}");
    (name, bytes)
}

/// The text of a tag, which names a variant.
fn tag<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().expect("a tag is a text")
}

/// One event of each kind, with every optional key.
fn events() -> Vec<Value> {
    let events = vec![
        json!({"kind":"DispatchAck","currentClosureAtDispatch":"a","receivedAt":AT}),
        json!({"kind":"ActivationStarted","startedAt":AT,"switchMethod":"systemd-run"}),
        json!({"kind":"ActivationCompleted","observedCurrentClosure":"b","exitCode":0,"completedAt":AT}),
        json!({"kind":"ActivationDeferred","component":"dbus","deferredAt":AT}),
        json!({"kind":"ActivationFailed","exitCode":-3,"stderrTail":"no \u{0}\u{fc}","failedAt":AT}),
        json!({"kind":"ProbeTopologyDeclared","declaredAt":AT,
            "probes":[{"probeName":"http","kind":"http","mode":"enforce"}]}),
        json!({"kind":"ProbeObservedFirst","probeName":"http","mode":"observe","observedAt":AT}),
        json!({"kind":"ProbeResult","probeName":"cis","mode":"enforce","status":"fail","observedAt":AT,
            "failureReason":"x","subResults":[{"controlId":"1.1","status":"fail","framework":"cis",
            "article":"a","effectiveMode":"enforce","overrideReason":"r"}]}),
        json!({"kind":"ProbeFailureFirst","probeName":"http","mode":"enforce","firstFailedAt":AT}),
        json!({"kind":"Failed","failedAt":AT,"sustainedDurationSecs":120,"failingProbes":["http"],
            "policyApplied":"rollback-and-halt"}),
        json!({"kind":"RollbackComplete","revertedToClosure":"a","exitCode":0,"completedAt":AT}),
        json!({"kind":"RollbackFailed","reason":"impossible","detail":"no","failedAt":AT}),
        json!({"kind":"Converged","convergedAt":AT,"currentClosure":"b"}),
    ];
    let kinds: Vec<_> = events.iter().map(|event| tag(event, "kind")).collect();
    assert_eq!(kinds, HostEventBody::KINDS);
    events
}

#[test]
fn wire_types_keep_their_bytes() {
    let snapshot = json!({"rolloutId":"s@4f","hostname":"h","channel":"s","state":"Soaking",
        "targetClosure":"b","currentClosureAtDispatch":"a","currentClosure":"b","dispatchedAt":AT,
        "dispatchAckedAt":AT,"activationStartedAt":AT,"activationCompletedAt":AT,"soakDueAt":AT,
        "lastEventSeq":4});
    let reply = json!({"received_at":AT,"bootstrap_rollouts":[snapshot]});
    let request = json!({"hostname":"h","rollout_id":"s@4f","current_closure":"b","at":AT});
    let dispatch = json!({"hostname":"h","rollout_id":"s@4f","target_closure":"b","soak_due_at":AT,
        "soak_minutes":0.05,"enqueued_at":AT});
    let mut samples = vec![
        sample::<EventAnswer>("event-answer", &json!({"status":200})),
        sample::<HeartbeatRequest>("heartbeat", &request),
        sample::<HeartbeatReply>("heartbeat-reply", &reply),
        sample::<Dispatch>("dispatch", &dispatch),
    ];
    samples.extend(events().into_iter().map(|mut event| {
        let name = tag(&event, "kind").to_owned();
        event["seq"] = json!(u64::MAX);
        let request = json!({"hostname":"h","rolloutId":"s@4f","event":event});
        sample::<EventRequest>(name, &request)
    }));
    nixfleet_encodings::check("wire", PROTOCOL_VERSION, samples);
}

fn entry(body: &Value) -> Value {
    json!({"v":1,"receivedAt":AT,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "body":body})
}

/// One entry of each kind.
fn entries() -> Vec<Sample> {
    let plan = |action: &Value| json!({"entry":"Plan","epoch":u64::MAX,"action":action});
    let actions = [
        json!({"action":"AdvanceWave","rolloutId":"s@4f","fromWave":0,"toWave":2}),
        json!({"action":"SoakElapsed","hostname":"h","rolloutId":"s@4f"}),
        json!({"action":"ConvergeUnchanged","hostname":"h","rolloutId":"s@4f","currentClosure":"b"}),
        json!({"action":"QueueDispatch","hostname":"h","rolloutId":"s@4f","targetClosure":"b",
            "soakMinutes":0.05}),
        json!({"action":"OpenRollout","rolloutId":"s@4f","channel":"s","targetRef":"4f",
            "manifestHash":"00"}),
        json!({"action":"RetentionExpired","rolloutId":"s@4f"}),
        json!({"action":"BlocksChanged","rolloutId":"s@4f","wave":1,"gate":"host-edge","holds":[
            {"reason":"r"},{"reason":"q","hosts":["h"],"cause":{"seq":7,"index":1}}]}),
        json!({"action":"Barrier"}),
    ];
    let commands = [
        json!({"command":"OperatorClearance","rolloutId":"s@4f","reason":"r",
            "waivedHosts":["h"]}),
        json!({"command":"ClearQuarantine","channel":"s","closureHash":"b",
            "reason":"fixed"}),
    ];
    let candidate = json!({"entry":"RecoveryCandidate","rolloutId":"s@4f","hostname":"h",
        "currentClosure":"b"});
    let mut samples = vec![sample::<Entry>("RecoveryCandidate", &entry(&candidate))];
    samples.extend(events().into_iter().map(|event| {
        let name = format!("HostEvent-{}", tag(&event, "kind"));
        let body = json!({"entry":"HostEvent","rolloutId":"s@4f","hostname":"h","producer":"agent",
            "event":{"seq":1,"body":event}});
        sample::<Entry>(name, &entry(&body))
    }));
    let actions = actions.iter();
    samples.extend(
        actions.map(|action| sample::<Entry>(tag(action, "action"), &entry(&plan(action)))),
    );
    samples.extend(commands.iter().map(|command| {
        let body = json!({"entry":"Operator","command":command,"origin":{"actor":{"kind":"certificate",
            "issuer":"CN=people","subject":"ada"},"idempotencyKey":"k","signature":"c2ln"}});
        sample::<Entry>(tag(command, "command"), &entry(&body))
    }));
    samples
}

#[test]
fn entries_keep_their_bytes() {
    nixfleet_encodings::check("entry", LAYOUT_VERSION, entries());
}

fn host_record() -> Value {
    json!({"rolloutId":"s@4f","hostname":"h","channel":"s","state":"Failed","targetClosure":"b",
        "soakMinutes":0.5,"dispatchedAt":AT,"currentClosureAtDispatch":"a","currentClosure":"b",
        "revertedTo":"a","dispatchAckedAt":AT,"activationStartedAt":AT,"activationCompletedAt":AT,
        "activationFailedAt":AT,"probeObservedFirstAt":AT,"probeFailureFirstAt":AT,"soakDueAt":AT,
        "convergedAt":AT,"failedAt":AT,"policyApplied":"halt","revertedAt":AT,
        "probes":{"http":{"status":"fail","mode":"enforce","lastObservedAt":AT,"lastPassAt":AT,
            "failureReason":"x","failingControls":[{"controlId":"1.1","framework":"cis"}]}},
        "declaredProbes":[{"probeName":"http","kind":"http","mode":"enforce"}],
        "convergenceClaim":{"convergedAt":AT,"currentClosure":"b"},"unchanged":true,
        "lastEventSeq":u64::MAX,"recoverySeq":1})
}

/// A key apart from the others, because samples keep their bytes.
fn host_without_rollback() -> Value {
    let mut record = host_record();
    record["rollbackFailed"] = json!("impossible");
    record
}

fn rollout_record() -> Value {
    json!({"rolloutId":"s@4f","channel":"s","targetRef":"4f","state":"Superseded","currentWave":1,
        "openedAt":AT,"terminalAt":AT,"supersededAt":AT,"supersededBy":"s@50","waivedHosts":["h"]})
}

fn budget() -> Value {
    json!({"selector":{"tags":["t"],"tagsAny":[],"hosts":[],"channel":null,"all":false},"hosts":["h"],
        "maxInFlight":1,"maxInFlightPct":5})
}

fn checkpoints() -> Value {
    let reference =
        json!({"hash":"c0","bytes":u64::MAX,"outSeq":9,"input":{"seq":7,"index":1,"of":2}});
    json!({"last":reference,"previous":reference})
}

#[test]
fn records_keep_their_bytes() {
    let pending = json!({"rolloutId":"s@4f","hostname":"h","channel":"s","state":"Pending",
        "targetClosure":"b","soakMinutes":30,"dispatchedAt":AT,"probes":{},"lastEventSeq":0,
        "recoverySeq":0});
    let pinned = json!({"onHealthFailure":"halt","waves":[{"soakMinutes":5}],
        "hostSet":[{"hostname":"h","waveIndex":0,"targetClosure":"b","staged":false}],
        "disruptionBudgets":[budget()]});
    let cursor = json!({"outSeq":9,"input":{"seq":7,"index":1,"of":2},"inputMsgId":"m",
        "streamCreated":AT,"epoch":u64::MAX,"leaderEpoch":3,"clock":AT,"origin":{"own":2,"owner":1},
        "checkpoints":checkpoints()});
    let samples = [
        sample::<HostRecord>("host-pending", &pending),
        sample::<HostRecord>("host-with-every-key", &host_record()),
        sample::<HostRecord>("host-without-rollback", &host_without_rollback()),
        sample::<RolloutRecord>("rollout", &rollout_record()),
        sample::<Pinned>("pinned", &pinned),
        sample::<Cursor>("cursor", &cursor),
    ];
    nixfleet_encodings::check("record", LAYOUT_VERSION, samples);
}

fn outcome(decision: (&str, &Value)) -> Value {
    let mut outcome = json!({"position":{"seq":7,"index":0},"at":AT,"traceparent":"t",
        "subject":{"entry":"HostEvent","event":"Converged","producer":"recovery","rolloutId":"s@4f",
            "hostname":"h"}});
    outcome[decision.0] = decision.1.clone();
    outcome
}

fn rollout_events() -> Vec<Value> {
    let events = vec![
        json!({"kind":"RolloutOpened","rolloutId":"s@4f","channel":"s","targetRef":"4f","at":AT}),
        json!({"kind":"HostJoined","rolloutId":"s@4f","at":AT}),
        json!({"kind":"HostStateChanged","rolloutId":"s@4f","hostname":"h","from":"Soaking","to":"Failed",
            "rollback":"expected","at":AT}),
        json!({"kind":"WaveAdvanced","rolloutId":"s@4f","fromWave":0,"toWave":1,"at":AT}),
        json!({"kind":"RolloutTerminal","rolloutId":"s@4f","at":AT}),
        json!({"kind":"SuccessorOpened","supersededRolloutId":"s@4f","successorRolloutId":"s@50",
            "at":AT}),
        json!({"kind":"RetentionExpired","rolloutId":"s@4f","at":AT}),
        json!({"kind":"OperatorClearance","rolloutId":"s@4f","operator":"ops","reason":"r",
            "waivedHosts":["h"],"at":AT}),
    ];
    let kinds: Vec<_> = events.iter().map(|event| tag(event, "kind")).collect();
    assert_eq!(kinds, RolloutEvent::KINDS);
    events
}

fn effects() -> Vec<Value> {
    vec![
        json!({"effect":"ReplaceProbeFailures","rolloutId":"s@4f","hostname":"h","probeName":"p",
            "failures":[{"controlId":"1.1","framework":"cis"}],"observedAt":AT}),
        json!({"effect":"InsertQuarantine","channel":"s","closureHash":"b"}),
        json!({"effect":"RemoveQuarantine","channel":"s","closureHash":"b"}),
        json!({"effect":"InsertDispatch","rolloutId":"s@4f","hostname":"h","targetClosure":"b",
            "soakMinutes":5}),
        json!({"effect":"RemoveDispatch","rolloutId":"s@4f","hostname":"h"}),
        json!({"effect":"CancelDispatches","rolloutId":"s@4f"}),
        json!({"effect":"SetRecoveryCandidate","rolloutId":"s@4f","hostname":"h","currentClosure":"b"}),
        json!({"effect":"RecordTransition","rolloutId":"s@4f","hostname":"h","from":"Pending",
            "to":"Activating","at":AT}),
        json!({"effect":"RecordRolloutTransition","rolloutId":"s@4f","from":"Active","to":"Terminal",
            "at":AT}),
        json!({"effect":"UpdateCurrentWave","rolloutId":"s@4f","wave":1}),
        json!({"effect":"HaltLifted","channel":"s"}),
        json!({"effect":"ReplaceBlocks","rolloutId":"s@4f","wave":1,"gate":"halt",
            "holds":[{"reason":"r"}]}),
    ]
}

#[test]
fn outcomes_keep_their_bytes() {
    let accepted = |name: &str, key: &str, value: Value| {
        sample::<Outcome>(name, &outcome(("accepted", &json!({key: value}))))
    };
    let opened = json!({"rolloutId":"s@4f","manifestHash":"00"});
    let mut samples = vec![
        accepted("opened", "opened", opened),
        accepted("hosts", "hosts", json!([host_record()])),
        accepted("rollouts", "rollouts", json!([rollout_record()])),
        accepted("leader-epoch", "leaderEpoch", json!(u64::MAX)),
    ];
    let events = rollout_events().into_iter();
    samples.extend(events.map(|event| accepted(tag(&event, "kind"), "events", json!([event]))));
    let effects = effects().into_iter();
    samples
        .extend(effects.map(|effect| accepted(tag(&effect, "effect"), "effects", json!([effect]))));
    samples.extend(Reason::ALL.map(|reason| {
        let rejection = json!({"reason":reason.name(),"message":"m"});
        sample::<Outcome>(reason.name(), &outcome(("rejected", &rejection)))
    }));
    nixfleet_encodings::check("outcome", LAYOUT_VERSION, samples);
}

#[test]
fn frames_keep_their_bytes() {
    let entry = json!({"entry":"Plan","epoch":4,"action":{"action":"Barrier"}});
    let rejected = json!({"reason":"fenced","message":"older"});
    let output = json!({"v":1,"epoch":2,"firstInput":{"seq":7,"index":0},
        "lastInput":{"seq":7,"index":1,"of":2},"lastInputId":"m","rebuiltFrom":3,"stateHash":"ab",
        "checkpoints":checkpoints(),"announcedAt":8,
        "outcomes":[outcome(("accepted", &json!({}))), outcome(("rejected", &rejected))]});
    let samples = [
        sample::<InputFrame>("input", &json!({"v":1,"entries":[self::entry(&entry)]})),
        sample::<OutputFrame>("output", &output),
        sample::<OutputFrame>("barrier", &json!({"v":1,"epoch":2,"outcomes":[]})),
    ];
    nixfleet_encodings::check("frame", LAYOUT_VERSION, samples);
}

#[test]
fn messages_keep_their_bytes() {
    let artifact = json!({"hash":"00","signature":"c2ln","signedAt":AT});
    let rollout = json!({"v":1,"rolloutId":"s@4f","artifact":artifact});
    let request = json!({"hostname":"h","current_closure":"b","at":AT});
    let samples = [
        sample::<ReleaseAnnouncement>(
            "release",
            &json!({"v":1,"fleet":artifact,"rollouts":{"s":rollout}}),
        ),
        sample::<RolloutAnnouncement>("rollout-manifest", &rollout),
        sample::<LivenessFlush>(
            "liveness",
            &json!({"v":1,"hosts":[{"hostname":"h","channel":"s","lastSeenAt":AT,"currentClosure":"b"}]}),
        ),
        sample::<OwnerHeartbeat>(
            "heartbeat",
            &json!({"channel":"s","receivedAt":AT,"request":request}),
        ),
        sample::<OwnerReply>(
            "heartbeat-reply",
            &json!({"reply":{"received_at":AT},"replayFrom":4}),
        ),
    ];
    nixfleet_encodings::check("message", LAYOUT_VERSION, samples);
}
