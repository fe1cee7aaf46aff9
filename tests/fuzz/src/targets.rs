//! The targets: decoding never panics, and a decoded value survives encoding and decoding.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_bus::{MAX_OUTPUT_FRAME_BYTES, Message, compression, decode_output, read_input};
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::subject::{Names, Partition, escape};
use nixfleet_proto::wire::EventRequest;
use nixfleet_proto::{
    ChannelName, Entry, EntryBody, Hostname, InputFrame, OutputFrame, Producer, RolloutId,
    Timestamp,
};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{
    Algorithm, Findings, Freshness, ReleaseBundle, ReleaseStamp, Signed, TrustFile, admit,
    build_release, canonicalize, check_fleet, verify, verify_release,
};

#[path = "agent_replies.rs"]
mod agent_replies;
#[path = "announcements.rs"]
mod announcements;
#[path = "certificate_names.rs"]
mod certificate_names;
#[path = "../../../libs/http/src/access"]
mod access {
    pub mod identity;
}

use access::identity;

pub use agent_replies::{dispatch_reply, event_answers, heartbeat_reply, snapshots};
pub use announcements::{release_announcement, rollout_announcement};
pub use certificate_names::certificate_names;

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its seeds.
pub const TARGETS: [Target; 18] = [
    ("input_frame", input_frame),
    ("output_frame", output_frame),
    ("frame_encoding", frame_encoding),
    ("wire_event", wire_event),
    ("wire_events", wire_events),
    ("fleet", fleet),
    ("rollout", rollout),
    ("trust_file", trust_file),
    ("subject", subject),
    ("certificate", certificate),
    ("certificate_names", certificate_names),
    ("canonical", canonical),
    ("heartbeat_reply", heartbeat_reply),
    ("dispatch_reply", dispatch_reply),
    ("event_answers", event_answers),
    ("snapshots", snapshots),
    ("release_announcement", release_announcement),
    ("rollout_announcement", rollout_announcement),
];

fn message(payload: Vec<u8>) -> Message {
    Message {
        seq: 1,
        subject: "fleet.in.00.event.stable.4f".to_owned(),
        msg_id: None,
        traceparent: None,
        time: Timestamp::UNIX_EPOCH,
        payload: payload.into(),
        stored_bytes: 0,
    }
}

fn written(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what was read can be written")
}

/// An input frame that decodes is encoded and decoded as the same.
pub fn input_frame(data: &[u8]) {
    let Ok(frame) = read_input(data) else {
        return;
    };
    assert!(!frame.entries.is_empty());
    for entry in &frame.entries {
        let partition = Partition::new(0);
        let subject = Names::new("fleet").input(partition, &entry.body);
        check_subject(&subject);
    }
    let again: InputFrame = serde_json::from_slice(&written(&frame)).expect("reads back");
    assert_eq!(again, frame);
}

/// An output frame that decodes is encoded and decoded as the same.
pub fn output_frame(data: &[u8]) {
    let Ok(frame) = decode_output(&message(data.to_vec())) else {
        return;
    };
    let again: OutputFrame = serde_json::from_slice(&written(&frame)).expect("reads back");
    assert_eq!(again, frame);
}

/// A stored payload is refused or decoded within the bound, and JSON values survive storage unchanged.
pub fn frame_encoding(data: &[u8]) {
    const MAX: usize = MAX_OUTPUT_FRAME_BYTES;
    let decoded = compression::decode(data, MAX);
    let labelled = data
        .first()
        .is_some_and(|first| (0x80..=0xbf).contains(first));
    if let Ok(json) = &decoded {
        assert!(json.len() <= MAX || !labelled);
        assert_eq!(compression::json_bytes(data, MAX), json.len());
    }
    let json = bytes::Bytes::copy_from_slice(data);
    if !labelled {
        let stored = compression::encode(&json);
        assert!(stored.len() <= json.len());
        let read = compression::decode(&stored, MAX.max(json.len()));
        assert_eq!(read.expect("what was stored is read"), &json[..]);
    }
}

/// An event becomes an entry that every reader reads as the same.
pub fn wire_event(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<EventRequest>(data) {
        check_event(request);
    }
}

/// The same for each item of an array.
pub fn wire_events(data: &[u8]) {
    if let Ok(requests) = serde_json::from_slice::<Vec<EventRequest>>(data) {
        requests.into_iter().take(100).for_each(check_event);
    }
}

fn check_event(request: EventRequest) {
    let again: EventRequest = serde_json::from_slice(&written(&request)).expect("reads back");
    assert_eq!(again, request);
    let entry = Entry::new(
        Timestamp::UNIX_EPOCH,
        EntryBody::HostEvent {
            rollout_id: request.rollout_id,
            hostname: request.hostname,
            producer: Producer::Agent,
            event: request.event.into(),
        },
    );
    check_subject(&Names::new("fleet").input(Partition::new(3), &entry.body));
    let again: Entry = serde_json::from_slice(&written(&entry)).expect("reads back");
    assert_eq!(again, entry);
}

fn key() -> SigningKey {
    SigningKey::from_secret(Algorithm::Ed25519, &[7; 32]).expect("a constant")
}

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).expect("a constant")
}

const DAY: Duration = Duration::from_secs(86_400);

/// Every fleet is checked without a panic; a fleet that can be built passes verification.
pub fn fleet(data: &[u8]) {
    if let Ok(fleet) = serde_json::from_slice::<Fleet>(data) {
        let again: Fleet = serde_json::from_slice(&written(&fleet)).expect("reads back");
        assert_eq!(again, fleet);
        let mut findings = Findings::default();
        check_fleet(&fleet, &mut findings);
    }
    let trust = TrustFile::of(key().public());
    if let Ok((bytes, signature)) = key().sign_json(data) {
        let bundle = ReleaseBundle {
            fleet: Signed {
                bytes,
                signature: signature.to_vec(),
            },
            rollouts: BTreeMap::new(),
        };
        if let Ok(release) = verify_release(&bundle, &trust, now(), Duration::MAX) {
            let _judged = admit(&release, None, &|_| false);
        }
    }
    let stamp = ReleaseStamp {
        signed_at: now(),
        commit: Some("4f1c".to_owned()),
    };
    if let Ok(built) = build_release(data, &stamp, &key()) {
        let release = verify_release(&built.bundle, &trust, now(), DAY);
        let release = release.expect("what was built verifies");
        let admission = admit(&release, None, &|_| false).expect("what was built is admitted");
        assert!(!admission.renewed);
        let again = admit(&release, Some(&release.accepted()), &|_| false);
        assert!(again.expect("is admitted again").renewed);
    }
}

/// A rollout manifest that verifies is the one that was signed.
pub fn rollout(data: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<RolloutManifest>(data) else {
        return;
    };
    let again: RolloutManifest = serde_json::from_slice(&written(&manifest)).expect("reads back");
    assert_eq!(again, manifest);
    let rollout_id = manifest.rollout_id();
    check_subject(&Names::new("fleet").manifest_rollout(&rollout_id));
    if let Ok((bytes, signature)) = key().sign_json(data) {
        let keys = TrustFile::of(key().public()).release_keys(now());
        let freshness = Freshness {
            now: now(),
            window: Duration::MAX,
        };
        if let Ok(verified) = verify::<RolloutManifest>(&bytes, &signature, &keys, freshness) {
            // The canonical form of -0 is 0, so the received document may differ in that.
            let signed: RolloutManifest = serde_json::from_slice(&bytes).expect("was read before");
            assert_eq!(verified.payload(), &signed);
        }
        let mut broken = signature;
        broken[0] ^= 1;
        assert!(verify::<RolloutManifest>(&bytes, &broken, &keys, freshness).is_err());
    }
}

/// A trust file returns its keys without a panic at any time, and survives encoding.
pub fn trust_file(data: &[u8]) {
    let Ok(trust) = TrustFile::parse(data) else {
        return;
    };
    for at in [Timestamp::MIN_UTC, now(), Timestamp::MAX_UTC] {
        let _keys = trust.release_keys(at);
        let _keys = trust.org_root_keys(at);
        let _notices = trust.notices(at);
    }
    let again = TrustFile::parse(&written(&trust)).expect("reads back");
    assert_eq!(again, trust);
}

fn check_subject(subject: &str) {
    for token in subject.split('.') {
        assert!(!token.is_empty(), "{subject:?}");
        assert!(!token.contains(['*', '>']), "{subject:?}");
        assert!(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "{subject:?}"
        );
    }
}

/// Whatever a name is, it becomes one legal token, and different names become different ones.
pub fn subject(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let token = escape(&text);
    check_subject(&token);
    assert_eq!(token.split('.').count(), 1);
    // A text of one NUL has the token of an empty text; no name may be either.
    if text != "\0" {
        assert_eq!(unescape(&token), text.as_bytes(), "two names share a token");
    }
    let (one, two) = text.split_at(text.floor_char_boundary(text.len() / 2));
    if one != two {
        assert_ne!(escape(one), escape(two));
    }
    for count in [1, 8, 256] {
        assert!(Partition::of(&ChannelName::from(&*text), count).number() < count);
    }
    if let Ok(id) = RolloutId::parse_strict(&text) {
        let joined = format!("{}@{}", id.channel(), id.target_ref());
        assert_eq!(joined, id.as_str());
        check_subject(&Names::new("fleet").manifest_rollout(&id));
    }
    if let Ok(id) = text.parse::<RolloutId>() {
        check_subject(&Names::new("fleet").manifest_rollout(&id));
    }
}

/// Decodes a token.
fn unescape(token: &str) -> Vec<u8> {
    let bytes = token.as_bytes();
    if token == "%" {
        // An empty text.
        return Vec::new();
    }
    let mut text = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let hex = std::str::from_utf8(&bytes[at + 1..at + 3]).expect("two digits");
            text.push(u8::from_str_radix(hex, 16).expect("hexadecimal"));
            at += 3;
        } else {
            text.push(bytes[at]);
            at += 1;
        }
    }
    text
}

/// A certificate names one client with one role, or nobody.
pub fn certificate(data: &[u8]) {
    let Ok(identity) = identity::Identity::from_certificate(data) else {
        return;
    };
    assert!(!identity.name.is_empty() && identity.name.len() <= 253);
    assert!(identity.common_name.contains(&*identity.name));
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    assert!(identity.common_name.bytes().all(printable));
    let is_agent = identity.role == identity::Role::Agent;
    let host = is_agent.then(|| {
        identity
            .name
            .parse::<Hostname>()
            .expect("a host has a hostname")
    });
    assert_eq!(identity.host, host);
    assert!(identity.role == identity::Role::Agent || identity::PEOPLE.contains(&identity.role));
    let channel = ChannelName::from("stable".to_owned());
    let is_unlimited = identity.channels == identity::ChannelLimit::All;
    assert!(identity.sees(&channel) || !is_unlimited);
}

/// The canonical form is a fixed point, and equals the text as a JSON value.
pub fn canonical(data: &[u8]) {
    let Ok(form) = canonicalize(data) else {
        return;
    };
    assert_eq!(canonicalize(&form).expect("is canonical"), form);
    let before: serde_json::Value = serde_json::from_slice(data).expect("was JSON");
    let after: serde_json::Value = serde_json::from_slice(&form).expect("is JSON");
    assert!(same(&before, &after), "{before} became {after}");
}

/// Equal up to how a number is written.
fn same(one: &serde_json::Value, two: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one.as_f64() == two.as_f64(),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            let found = |(key, value)| two.get(key).is_some_and(|other| same(value, other));
            one.len() == two.len() && one.iter().all(found)
        }
        (one, two) => one == two,
    }
}
