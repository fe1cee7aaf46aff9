use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::wire::WireEvent;

/// The reference: serde's own attribute.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
enum Derived {
    Plain {},
    Full {
        some_text: String,
        number: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maybe: Option<Vec<i8>>,
    },
}

/// The same enum with `tagged_enum!`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
enum Ours {
    Plain {},
    Full {
        some_text: String,
        number: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maybe: Option<Vec<i8>>,
    },
}
tagged_enum!(Ours, "kind");

impl From<Derived> for Ours {
    fn from(derived: Derived) -> Self {
        match derived {
            Derived::Plain {} => Self::Plain {},
            Derived::Full {
                some_text,
                number,
                maybe,
            } => Self::Full {
                some_text,
                number,
                maybe,
            },
        }
    }
}

#[track_caller]
fn check(json: &str) {
    let derived = serde_json::from_str::<Derived>(json).map(Ours::from);
    let ours = serde_json::from_str::<Ours>(json);
    match (derived, ours) {
        (Ok(derived), Ok(ours)) => assert_eq!(derived, ours, "{json}"),
        (Err(_), Err(_)) => {}
        (derived, ours) => panic!("{json}: {derived:?} and {ours:?}"),
    }
}

#[test]
fn reading_equals_the_serde_attribute() {
    check(r#"{"kind":"Full","someText":"a","number":1}"#);
    check(r#"{"number":18446744073709551615,"kind":"Full","someText":"a\n","maybe":[-1]}"#);
    check(r#"{"someText":"a","number":1,"maybe":null,"kind":"Full","more":{"x":[1.5]}}"#);
    check(r#"{"k\u0069nd":"Pl\u0061in"}"#);
    check(r#"{"more":1,"kind":"Plain"}"#);
    check(r#"{"kind":"Full","someText":"a"}"#);
    check(r#"{"kind":"Full","someText":1,"number":1}"#);
    check(r#"{"someText":1,"kind":"Full","number":1}"#);
    check(r#"{"kind":"Full","someText":"a","someText":"b","number":1}"#);
    check(r#"{"kind":"Plain","kind":"Plain"}"#);
    check(r#"{"kind":"Plain","k\u0069nd":"Full"}"#);
    check(r#"{"x":1,"x":2,"kind":"Plain","x":3}"#);
    check(r#"{"kind":"Other"}"#);
    check(r#"{"kind":7}"#);
    check(r#"{"kind":null}"#);
    check(r#"{"someText":"a"}"#);
    check("{}");
    check("7");
    check(r#""Plain""#);
    check("null");
    check(r#"{"kind":"Plain""#);
}

#[test]
fn errors_name_the_fault() {
    let fault = |json| serde_json::from_str::<Ours>(json).unwrap_err().to_string();
    assert!(fault("{}").starts_with("missing field `kind`"));
    assert!(fault(r#"{"kind":"Other"}"#).starts_with("unknown variant `Other`"));
    assert!(fault(r#"{"kind":"Full","someText":"a"}"#).starts_with("missing field `number`"));
    assert!(fault("7").contains(r#"expected an object with the field "kind""#));
}

#[test]
fn the_sequence_of_an_event_may_be_at_any_place() {
    let fields = [
        r#""seq":7"#,
        r#""kind":"ActivationDeferred""#,
        r#""component":"dbus""#,
        r#""deferredAt":"2026-01-01T00:00:00Z""#,
    ];
    let expected: WireEvent = serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap();
    assert_eq!(
        (expected.seq, expected.body.name()),
        (7, "ActivationDeferred")
    );
    for turn in 0..fields.len() {
        let mut turned = fields;
        turned.rotate_left(turn);
        for json in [
            turned.join(","),
            turned.iter().rev().copied().collect::<Vec<_>>().join(","),
        ] {
            let event: WireEvent = serde_json::from_str(&format!("{{{json}}}")).unwrap();
            assert_eq!(event, expected, "{json}");
        }
    }
    let without = serde_json::from_str::<WireEvent>(&format!("{{{}}}", fields[1..].join(",")));
    assert!(
        without
            .unwrap_err()
            .to_string()
            .starts_with("missing field `seq`")
    );
    let text = format!("{{{}}}", fields.join(","));
    for bad in [
        text.replace('7', "\"7\""),
        text.replace("\"seq\":7", "\"seq\":7,\"seq\":7"),
        text.replace('}', ",\"seq\":8}"),
        text.replace('}', ",\"kind\":\"ActivationDeferred\"}"),
    ] {
        assert!(serde_json::from_str::<WireEvent>(&bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn writing_equals_the_serde_attribute(
        some_text: String, number: u64, maybe: Option<Vec<i8>>,
    ) {
        let json = serde_json::to_string(&Derived::Full {
            some_text: some_text.clone(), number, maybe: maybe.clone(),
        }).unwrap();
        let ours = Ours::Full { some_text, number, maybe };
        prop_assert_eq!(&serde_json::to_string(&ours).unwrap(), &json);
        prop_assert_eq!(serde_json::from_str::<Ours>(&json).unwrap(), ours);
        prop_assert_eq!(serde_json::to_string(&Ours::Plain {}).unwrap(), r#"{"kind":"Plain"}"#);
    }
}
