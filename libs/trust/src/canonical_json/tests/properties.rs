use proptest::prelude::*;

use super::*;

fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-(1_i64 << 53)..(1_i64 << 53)).prop_map(Into::into),
        any::<f64>()
            .prop_filter("JSON has finite numbers", |value| value.is_finite())
            .prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_canonical_form_is_its_own_canonical_form(document in documents()) {
        // Pretty printing writes large doubles as integers of other digits; compact does too, so
        // whatever is accepted must be stable.
        let text = serde_json::to_string_pretty(&document).unwrap();
        if let Ok(once) = canonicalize(text.as_bytes()) {
            prop_assert_eq!(&canonicalize(&once).unwrap(), &once);
        }
    }

    #[test]
    fn only_canonical_text_passes_for_it(
        document in documents(),
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let tree = |text: &str| Some(JsonValue::parse(text).ok()?.canonical());
        let mut texts = vec![serde_json::to_string(&document).unwrap()];
        if let Some(form) = tree(&texts[0]) {
            let mut damaged = form.clone();
            damaged[cut.index(form.len())] = byte;
            let shorter = form[..cut.index(form.len())].to_vec();
            texts.extend([form, damaged, shorter].into_iter().flat_map(String::from_utf8));
        }
        for text in texts {
            if canonical_check::is_canonical(&text) {
                prop_assert_eq!(tree(&text), Some(text.into_bytes()));
            }
        }
    }

    #[test]
    fn what_the_tree_prints_passes_for_canonical(
        document in prop::collection::btree_map("[ -!#-\\[\\]-~]{0,5}", documents(), 0..5)
    ) {
        let plain_keys = |text: &str| text.is_ascii() && !text.contains('\\');
        let text = serde_json::to_string(&document).unwrap();
        if let Ok(node) = JsonValue::parse(&text) && plain_keys(&text) {
            let form = String::from_utf8(node.canonical()).unwrap();
            prop_assert!(canonical_check::is_canonical(&form), "{}", form);
        }
    }

    #[test]
    fn every_finite_double_survives(value in any::<f64>()) {
        prop_assume!(value.is_finite());
        let once = canonical(&format!("{value:e}"));
        prop_assert_eq!(once.parse::<f64>().unwrap(), value);
        prop_assert_eq!(&canonical(&once), &once);
    }

    #[test]
    fn integers_survive_exactly_or_are_refused(value in any::<i64>()) {
        let text = value.to_string();
        match canonicalize(text.as_bytes()) {
            Ok(bytes) => prop_assert_eq!(bytes.as_ref(), text.as_bytes()),
            Err(error) => {
                prop_assert!(!error.is_parse());
                prop_assert!(value.unsigned_abs() > 1 << 53);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(once) = canonicalize(&bytes) {
            prop_assert_eq!(&canonicalize(&once).unwrap(), &once);
        }
    }

    #[test]
    fn almost_json_never_panics(text in "[\\[\\]{}\",:0-9eE.+\\-\\\\ud8nul ]{0,40}") {
        if let Ok(once) = canonicalize(text.as_bytes()) {
            prop_assert_eq!(&canonicalize(&once).unwrap(), &once);
        }
        if canonical_check::is_canonical(&text) {
            let node = JsonValue::parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(node.canonical(), text.into_bytes());
        }
    }
}
