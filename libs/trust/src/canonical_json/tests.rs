mod properties;

use super::*;

fn canonical(input: &str) -> String {
    let form = canonicalize(input.as_bytes()).unwrap_or_else(|error| {
        panic!("{input}: {error}");
    });
    String::from_utf8(form.into_owned()).unwrap()
}

fn refusal(input: &[u8]) -> CanonicalizeError {
    canonicalize(input).expect_err(&String::from_utf8_lossy(input))
}

/// Source: RFC 8785, appendix B: bits of a double and how it is printed.
const NUMBERS: [(u64, &str); 27] = [
    (0x0000_0000_0000_0000, "0"),
    (0x8000_0000_0000_0000, "0"),
    (0x0000_0000_0000_0001, "5e-324"),
    (0x8000_0000_0000_0001, "-5e-324"),
    (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
    (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
    (0x4340_0000_0000_0000, "9007199254740992"),
    (0xc340_0000_0000_0000, "-9007199254740992"),
    (0x4430_0000_0000_0000, "295147905179352830000"),
    (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
    (0x44b5_2d02_c7e1_4af6, "1e+23"),
    (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
    (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
    (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
    (0x444b_1ae4_d6e2_ef50, "1e+21"),
    (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
    (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
    (0x41b3_de43_5555_5553, "333333333.3333332"),
    (0x41b3_de43_5555_5554, "333333333.33333325"),
    (0x41b3_de43_5555_5555, "333333333.3333333"),
    (0x41b3_de43_5555_5556, "333333333.3333334"),
    (0x41b3_de43_5555_5557, "333333333.33333343"),
    (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
    (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    (0x4059_0000_0000_0000, "100"),
    (0x3ff8_0000_0000_0000, "1.5"),
    (0x4330_0000_0000_0000, "4503599627370496"),
];

#[test]
fn numbers_are_printed_as_the_rfc_prints_them() {
    for (bits, expected) in NUMBERS {
        assert_eq!(
            canonical(expected),
            expected,
            "printed once, printed the same"
        );
        let value = f64::from_bits(bits);
        assert_eq!(canonical(&format!("{value:e}")), expected);
    }
}

#[test]
fn the_example_of_the_rfc_comes_out_as_printed() {
    let input = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    assert_eq!(
        canonical(input),
        r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
}

#[test]
fn keys_are_sorted_by_utf16_code_units() {
    // Source: RFC 8785, section 3.2.3. The emoji is a surrogate pair and sorts before U+FB33,
    // although its code point is larger.
    let input = r#"{
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\ud83d\ude00": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis"
    }"#;
    let output = canonical(input);
    let order = [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ];
    let places: Vec<usize> = order
        .iter()
        .map(|name| output.find(name).unwrap())
        .collect();
    assert!(places.is_sorted(), "{output}");
    assert!(output.starts_with("{\"\\r\":"), "{output}");
}

#[test]
fn layout_is_dropped_and_order_of_arrays_kept() {
    let check = |input: &str, expected: &str| assert_eq!(canonical(input), expected);
    check(" [ 3 , 1 , 2 ] ", "[3,1,2]");
    check(
        "{\"b\":{\"d\":1,\"c\":[{}]},\"a\":[]}",
        r#"{"a":[],"b":{"c":[{}],"d":1}}"#,
    );
    check(
        "\"\\u0061\\/\\u001f\\u007f\\b\\f\\n\\r\\t\"",
        "\"a/\\u001f\u{7f}\\b\\f\\n\\r\\t\"",
    );
    check("\"\\ud83d\\ude00\"", "\"😀\"");
    check("\"\\u0000\"", "\"\\u0000\"");
    check("{\"\":1}", r#"{"":1}"#);
    check("{\"a\\\\\":\"}{][,-1e999\"}", r#"{"a\\":"}{][,-1e999"}"#);
    check("null", "null");
}

#[test]
fn numbers_that_keep_their_value_pass() {
    let check = |input: &str, expected: &str| assert_eq!(canonical(input), expected, "{input}");
    check("-0", "0");
    check("-0.0e7", "0");
    check("0e99999999999999999999", "0");
    check("1.0", "1");
    check("10e-1", "1");
    check("0.10", "0.1");
    check("9007199254740991", "9007199254740991");
    check("9007199254740992", "9007199254740992");
    check("-9007199254740994", "-9007199254740994");
    check("1E21", "1e+21");
    check("100000000000000000000000", "1e+23");
    check("1424953923781206.25", "1424953923781206.2");
    check("5e-324", "5e-324");
    check("3.141592653589793238462643", "3.141592653589793");
}

#[test]
fn numbers_that_would_change_are_refused() {
    let check = |input: &str, expected: NumberFault| {
        for text in [
            input.to_owned(),
            format!("-{input}"),
            format!("{{\"a\":[{input}]}}"),
        ] {
            match refusal(text.as_bytes()) {
                CanonicalizeError::Number { fault, .. } => assert_eq!(fault, expected, "{text}"),
                other @ (CanonicalizeError::TooLarge { .. }
                | CanonicalizeError::NotUtf8 { .. }
                | CanonicalizeError::NotJson { .. }
                | CanonicalizeError::TooDeep { .. }
                | CanonicalizeError::DuplicateKey { .. }
                | CanonicalizeError::LoneSurrogate { .. }) => panic!("{text}: {other}"),
            }
        }
    };
    check("9007199254740993", NumberFault::Inexact);
    check("9007199254740993.0", NumberFault::Inexact);
    check("900719925474099.3e1", NumberFault::Inexact);
    check("18446744073709551615", NumberFault::Inexact);
    check("18446744073709551616", NumberFault::Inexact);
    check("12345678901234567890", NumberFault::Inexact);
    check("123456789012345678901234567890", NumberFault::Inexact);
    check("1e400", NumberFault::Overflow);
    check("1e99999999999999999999", NumberFault::Overflow);
    check("1.8e308", NumberFault::Overflow);
    check("1e-400", NumberFault::Underflow);
    check("1e-99999999999999999999", NumberFault::Underflow);
    check("2e-324", NumberFault::Underflow);
}

#[test]
fn text_that_is_no_json_is_a_parse_fault() {
    let inputs: [&[u8]; 22] = [
        b"",
        b" ",
        b"{",
        b"[1,",
        b"{\"a\":1",
        b"\"a",
        b"{\"a\" 1}",
        b"[1,]",
        b"{,}",
        b"nul",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"1 2",
        b"{}x",
        b"\xff",
        b"\"\xc3\x28\"",
        b"\xef\xbb\xbf{}",
        b"'a'",
        b"\"a\nb\"",
        b"NaN",
    ];
    for input in inputs {
        let error = refusal(input);
        assert!(error.is_parse(), "{input:?}: {error}");
    }
    assert!(matches!(
        refusal(b"\"\\x\""),
        CanonicalizeError::NotJson { .. }
    ));
    assert!(matches!(
        refusal(b"\"\xed\xa0\x80\""),
        CanonicalizeError::NotUtf8 { valid_up_to: 1 }
    ));
}

#[test]
fn duplicate_keys_are_refused_at_any_depth() {
    let check = |input: &str, key: &str| {
        assert_eq!(
            refusal(input.as_bytes()),
            CanonicalizeError::DuplicateKey { key: key.into() }
        );
    };
    check(r#"{"a":1,"a":1}"#, "a");
    check(r#"{"a":1,"b":2,"a":1}"#, "a");
    check(r#"[{"x":[{"k":1,"\u006b":2}]}]"#, "k");
    check(r#"{"":1,"":2}"#, "");
    assert_eq!(
        canonical(r#"{"a":{"a":1},"b":{"a":1}}"#),
        r#"{"a":{"a":1},"b":{"a":1}}"#
    );
    let long = "k".repeat(500);
    let CanonicalizeError::DuplicateKey { key } =
        refusal(format!("{{\"{long}\":1,\"{long}\":2}}").as_bytes())
    else {
        panic!("a duplicate key");
    };
    assert_eq!(key.chars().count(), 81);
}

#[test]
fn lone_surrogates_are_refused_in_texts_and_keys() {
    for input in [
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\ude00\ud83d""#,
        r#""\ud83dx""#,
        r#""\ud83d\n""#,
        r#"["a",{"\ud800":1}]"#,
        r#""\ud800\ud800""#,
        r#""\ude00a""#,
    ] {
        let error = refusal(input.as_bytes());
        assert!(
            matches!(error, CanonicalizeError::LoneSurrogate { .. }),
            "{input}: {error}"
        );
        assert!(!error.is_parse());
    }
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(canonical(&nested(DEPTH_MAX)), nested(DEPTH_MAX));
    assert_eq!(
        refusal(nested(DEPTH_MAX + 1).as_bytes()),
        CanonicalizeError::TooDeep { offset: DEPTH_MAX }
    );
    assert!(matches!(
        refusal(nested(1_000_000).as_bytes()),
        CanonicalizeError::TooDeep { .. }
    ));
    let objects = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    assert!(matches!(
        refusal(objects.as_bytes()),
        CanonicalizeError::TooDeep { .. }
    ));
    // Brackets in texts are no nesting.
    assert!(canonicalize(format!("\"{}\"", "[".repeat(1000)).as_bytes()).is_ok());
}

#[test]
fn an_oversized_artifact_is_refused_unread() {
    let bytes = vec![0_u8; ARTIFACT_BYTES_MAX + 1];
    let error = refusal(&bytes);
    assert!(matches!(error, CanonicalizeError::TooLarge { .. }));
    assert!(error.is_parse());
}

#[test]
fn content_is_what_is_left_without_the_signing() {
    let hash = |text: &str| hashes_of(&canonicalize(text.as_bytes()).unwrap()).content;
    let base = hash(r#"{"a":1,"meta":{"x":1},"fleetResolvedHash":"f"}"#);
    assert_eq!(hash(r#"{"fleetResolvedHash":"g","meta":null,"a":1}"#), base);
    assert_eq!(base, canonical_hash(br#"{ "a" : 1.0 }"#).unwrap());
    assert_ne!(hash(r#"{"a":2}"#), base);
    assert_ne!(hash(r#"{"a":1,"b":{"meta":1}}"#), hash(r#"{"a":1,"b":{}}"#));
    let around = hash(r#"{"a":1,"fleetResolvedHash":"f","h":[2],"meta":{},"z":3}"#);
    assert_eq!(around, hash(r#"{"a":1,"h":[2],"z":3}"#));
    let empty = canonical_hash(b"{}").unwrap();
    assert_eq!(hash(r#"{"fleetResolvedHash":"f","meta":{}}"#), empty);
    for text in ["{}", r#"{"a":1,"meta":[],"z":{}}"#, r#"{"meta":1}"#, "[1]"] {
        let whole = hashes_of(text.as_bytes()).whole;
        assert_eq!(whole, canonical_hash(text.as_bytes()).unwrap(), "{text}");
    }
}

#[test]
fn what_is_canonical_is_borrowed() {
    let check = |text: &str, borrowed: bool| {
        let form = canonicalize(text.as_bytes()).unwrap();
        assert_eq!(matches!(form, Cow::Borrowed(_)), borrowed, "{text}");
    };
    check("{}", true);
    check(
        r#"{"":0,"A":[],"a":{"b":[1,-2,0.5,1e+30]},"b":"\u001f\n\"ö"}"#,
        true,
    );
    check(r#"[true,false,null,123456789012345,"\\"]"#, true);
    for changed in [
        "{} ",
        "[1, 2]",
        "-0",
        "1.0",
        "1e3",
        "0.10",
        r#"{"b":1,"a":1}"#,
        r#""\/""#,
        r#""\u0041""#,
        r#""\u001F""#,
        r#""\u0008""#,
        r#""\u007f""#,
    ] {
        check(changed, false);
    }
    // Right as it is: keys beyond ASCII have an order of their own, which the fast check does not know.
    check(r#"{"ö":1}"#, false);
}

#[test]
fn hashes_are_sha256_in_lower_case() {
    assert_eq!(
        canonical_hash(b" {} ").unwrap().as_str(),
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    );
}
