use super::*;
use crate::test_release::{key, p256_key};

#[test]
fn a_key_file_gives_the_key_back() {
    for signer in [key(7), p256_key(7)] {
        let file = serde_json::to_vec(&signer.to_file()).unwrap();
        let again = SigningKey::parse(&file).unwrap();
        assert_eq!(again.public(), signer.public());
        assert_eq!(again.sign(b"x"), signer.sign(b"x"));
    }
}

#[test]
fn secrets_never_show() {
    let file = key(7).to_file();
    for text in [format!("{file:?}"), format!("{:?}", key(7))] {
        assert!(!text.contains(&file.private), "{text}");
    }
    let broken = format!("{{\"private\":\"{}\"", file.private);
    let error = SigningKey::parse(broken.as_bytes()).unwrap_err();
    assert!(!format!("{error:?}").contains(&file.private));
}

#[test]
fn a_broken_key_file_is_refused() {
    let check = |change: &dyn Fn(&mut KeyFile), expected: &str| {
        let mut file = p256_key(7).to_file();
        change(&mut file);
        let error = SigningKey::parse(&serde_json::to_vec(&file).unwrap()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&|file| file.schema_version = 2, "schema version 2");
    check(&|file| file.private = "AAAA".into(), "32 bytes");
    check(&|file| file.private = STANDARD.encode([0; 32]), "32 bytes");
    check(
        &|file| file.private = STANDARD.encode([0xff; 32]),
        "32 bytes",
    );
    check(
        &|file| file.public = key(1).public().public,
        "does not belong",
    );
    check(
        &|file| file.algorithm = Algorithm::Ed25519,
        "does not belong",
    );
}
