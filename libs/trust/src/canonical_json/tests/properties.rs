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

/// The form that the library for the RFC gives for a document in memory.
fn reference(text: &str) -> Option<Vec<u8>> {
    tokens::check(text).ok()?;
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(serde_json_canonicalizer::to_vec(&document).unwrap())
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
        let mut texts = vec![serde_json::to_string(&document).unwrap()];
        if let Some(form) = reference(&texts[0]) {
            let mut damaged = form.clone();
            damaged[cut.index(form.len())] = byte;
            let shorter = form[..cut.index(form.len())].to_vec();
            texts.extend([form, damaged, shorter].into_iter().flat_map(String::from_utf8));
        }
        for text in texts {
            if canonical_check::is_canonical(&text) {
                prop_assert_eq!(reference(&text), Some(text.into_bytes()));
            }
        }
    }

    #[test]
    fn the_form_is_that_of_the_reference_however_keys_are_written(
        document in documents(), escapes in any::<bool>()
    ) {
        let mut text = serde_json::to_string_pretty(&document).unwrap();
        if escapes {
            let ascii = |c: char| if c.is_ascii() { c.to_string() } else {
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect()
            };
            text = text.chars().map(ascii).collect();
        }
        if let Ok(form) = canonicalize(text.as_bytes()) {
            prop_assert_eq!(Some(form.into_owned()), reference(&text));
        }
    }

    #[test]
    fn what_is_written_with_plain_keys_passes_for_canonical(
        document in prop::collection::btree_map("[ -!#-\\[\\]-~]{0,5}", documents(), 0..5)
    ) {
        let plain_keys = |text: &str| text.is_ascii() && !text.contains('\\');
        let text = serde_json::to_string(&document).unwrap();
        if let Ok(form) = canonicalize(text.as_bytes()) && plain_keys(&text) {
            let form = std::str::from_utf8(&form).unwrap();
            prop_assert!(canonical_check::is_canonical(form), "{}", form);
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
            prop_assert_eq!(reference(&text), Some(text.into_bytes()));
        }
    }
}
