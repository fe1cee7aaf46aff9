//! What unsigned bytes may cost before their signature is looked at.

use std::time::Duration;

use nixfleet_proto::Timestamp;
use nixfleet_proto::fleet::Fleet;
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{ActiveKeys, Algorithm, Freshness, VerifyError, verify};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const BYTES: usize = 128 * 1024;

/// A part that is repeated with a number in place of `#`.
fn repeated(open: &str, part: &str, close: &str, bytes: usize) -> String {
    let mut text = String::from(open);
    let mut number = 0_u32;
    while text.len() < bytes {
        text.push_str(&part.replace('#', &format!("{number:x}")));
        text.push(',');
        number += 1;
    }
    text.pop();
    text + close
}

fn documents(bytes: usize) -> Vec<String> {
    let deep = format!("{}1{}", "{\"b\":[".repeat(60), "],\"a\":0}".repeat(60));
    vec![
        repeated(" [", "[]", "]", bytes),
        repeated(" [", "{}", "]", bytes),
        repeated(" [", "0", "]", bytes),
        repeated(" [", "1e20", "]", bytes),
        repeated(" [", "5e-324", "]", bytes),
        repeated(" [", "\"\"", "]", bytes),
        repeated(" [", "\"\\n\"", "]", bytes),
        repeated(" [", "{\"\":0}", "]", bytes),
        repeated(" [", "{\"b\":0,\"a\":0}", "]", bytes),
        repeated(" [", "{\"b\":{\"b\":0,\"\":0},\"\":0}", "]", bytes),
        repeated(" [", &deep, "]", bytes),
        repeated("{\"z\":0,", "\"#\":0", "}", bytes),
        repeated("{\"z\":0,", "\"\\u0061#\":0", "}", bytes),
        repeated("{\"z\":0,", "\"ö#\":{}", "}", bytes),
        "[".repeat(bytes),
        "{\"\":".repeat(bytes / 5),
        format!(" \"{}\"", "\\u0000".repeat(bytes / 6)),
        format!(" {}", "9".repeat(bytes)),
        format!("[\"{}", " ".repeat(bytes)),
    ]
}

#[test]
fn unsigned_bytes_cost_at_most_four_times_their_size() {
    let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
    let freshness = Freshness {
        now,
        window: Duration::from_secs(60),
    };
    // Vectors double: some of these sizes are just above such a step.
    let sizes = [BYTES, BYTES + BYTES / 8, BYTES + BYTES / 3, BYTES * 3 / 2];
    for (algorithm, sizes) in [
        (Algorithm::Ed25519, &sizes[..]),
        (Algorithm::EcdsaP256, &[BYTES]),
    ] {
        let key = SigningKey::from_secret(algorithm, &[7; 32]).unwrap();
        let keys = ActiveKeys {
            keys: vec![key.public()],
            reject_before: None,
        };
        for size in sizes {
            for text in documents(*size) {
                let before = MEMORY.current_usage();
                MEMORY.reset_peak_usage();
                let refused = verify::<Fleet>(text.as_bytes(), &[1; 64], &keys, freshness);
                let cost = MEMORY.peak_usage() - before;
                let start: String = text.chars().take(40).collect();
                assert!(refused.is_err(), "{start}");
                let ratio = cost as f64 / text.len() as f64;
                assert!(ratio <= 4.0, "{start}: {ratio:.2} bytes per byte");
                if matches!(refused, Err(VerifyError::BadSignature)) {
                    println!("{start}: {ratio:.2}");
                }
            }
        }
    }
}
