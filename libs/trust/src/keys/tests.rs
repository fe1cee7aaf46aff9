use super::*;
use crate::test_release::{key, p256_key};

fn active(keys: &[TrustedKey]) -> ActiveKeys {
    ActiveKeys {
        keys: keys.to_vec(),
        reject_before: None,
    }
}

fn trusted(algorithm: &str, bytes: &[u8]) -> TrustedKey {
    TrustedKey {
        algorithm: algorithm.to_owned(),
        public: STANDARD.encode(bytes),
    }
}

struct Pieces<'m>(&'m [u8]);

impl Message for Pieces<'_> {
    fn write_to(&self, sink: &mut dyn FnMut(&[u8])) {
        self.0.chunks(3).for_each(sink);
    }
}

impl ActiveKeys {
    fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> Result<(), NoMatch> {
        self.verify(&Pieces(message), signature)
    }
}

const MESSAGE: &[u8] = b"{\"a\":1}";

#[test]
fn both_algorithms_verify_their_own_signatures_only() {
    for signer in [key(1), p256_key(1)] {
        let signature = signer.sign(MESSAGE);
        let keys = active(&[signer.public()]);
        assert_eq!(keys.verify_bytes(MESSAGE, &signature), Ok(()));
        assert_eq!(
            keys.verify_bytes(b"{\"a\":2}", &signature),
            Err(NoMatch::Bad)
        );
        let mut broken = signature;
        broken[5] ^= 1;
        assert_eq!(keys.verify_bytes(MESSAGE, &broken), Err(NoMatch::Bad));
        for wrong in [
            &signature[..63],
            &[signature.as_slice(), b"x"].concat(),
            b"",
            &[0; 64],
        ] {
            assert_eq!(keys.verify_bytes(MESSAGE, wrong), Err(NoMatch::Bad));
        }
        let other = active(&[key(2).public(), p256_key(2).public()]);
        assert_eq!(other.verify_bytes(MESSAGE, &signature), Err(NoMatch::Bad));
    }
}

#[test]
fn any_trusted_key_may_match_and_malformed_ones_do_not_hide_it() {
    let keys = active(&[
        trusted("rsa-4096", b"whatever"),
        trusted("ed25519", b"short"),
        TrustedKey {
            algorithm: "ed25519".into(),
            public: "not base64!".into(),
        },
        key(2).public(),
        key(1).public(),
    ]);
    assert_eq!(keys.verify_bytes(MESSAGE, &key(1).sign(MESSAGE)), Ok(()));
    assert_eq!(
        keys.verify_bytes(MESSAGE, &key(3).sign(MESSAGE)),
        Err(NoMatch::Bad)
    );
}

#[test]
fn unsupported_means_that_no_key_has_a_known_algorithm() {
    let signature = key(1).sign(MESSAGE);
    let check = |keys: &[TrustedKey], expected: NoMatch| {
        assert_eq!(
            active(keys).verify_bytes(MESSAGE, &signature),
            Err(expected)
        );
    };
    let rsa = trusted("rsa", b"x");
    let future = trusted("ml-dsa", b"y");
    check(
        &[rsa.clone(), future.clone()],
        NoMatch::Unsupported("rsa".into()),
    );
    check(
        &[future.clone(), rsa.clone()],
        NoMatch::Unsupported("ml-dsa".into()),
    );
    check(
        &[rsa.clone(), trusted("ed25519", b"malformed")],
        NoMatch::Bad,
    );
    check(&[rsa, key(2).public()], NoMatch::Bad);
    // Names are exact.
    check(
        &[trusted("Ed25519", &[1; 32])],
        NoMatch::Unsupported("Ed25519".into()),
    );
}

#[test]
fn a_high_s_signature_is_the_same_signature() {
    let signer = p256_key(1);
    let signature = p256::ecdsa::Signature::from_slice(&signer.sign(MESSAGE)).unwrap();
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    assert_ne!(signature.to_bytes(), other.to_bytes());
    let keys = active(&[signer.public()]);
    for form in [signature, other] {
        assert_eq!(keys.verify_bytes(MESSAGE, &form.to_bytes()), Ok(()));
    }
}

#[test]
fn a_malleable_ed25519_signature_is_refused() {
    // S + L is the same scalar in another encoding; strict verification wants the reduced one.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut signature = key(1).sign(MESSAGE);
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    let keys = active(&[key(1).public()]);
    assert_eq!(keys.verify_bytes(MESSAGE, &signature), Err(NoMatch::Bad));
}

#[test]
fn a_key_of_small_order_believes_nothing() {
    // The identity: without the strict checks it accepts R = identity, S = 0 for every message.
    let mut identity = [0_u8; 32];
    identity[0] = 1;
    let weak = trusted("ed25519", &identity);
    assert_eq!(weak.check(), Err(KeyError::NoPoint));
    let mut signature = [0_u8; 64];
    signature[0] = 1;
    assert_eq!(
        active(&[weak]).verify_bytes(MESSAGE, &signature),
        Err(NoMatch::Bad)
    );
}

#[test]
fn a_key_says_what_is_wrong_with_it() {
    let check = |key: TrustedKey, expected: KeyError| assert_eq!(key.check(), Err(expected));
    check(trusted("rsa", b""), KeyError::Unsupported("rsa".into()));
    check(
        trusted("ed25519", &[1; 31]),
        KeyError::Length {
            expected: 32,
            actual: 31,
        },
    );
    check(
        trusted("ecdsa-p256", &[4; 65]),
        KeyError::Length {
            expected: 64,
            actual: 65,
        },
    );
    check(trusted("ecdsa-p256", &[0; 64]), KeyError::NoPoint);
    let unpadded = key(1).public().public.trim_end_matches('=').to_owned();
    check(
        TrustedKey {
            algorithm: "ed25519".into(),
            public: unpadded,
        },
        KeyError::NotBase64,
    );
    assert_eq!(key(1).public().check(), Ok(Algorithm::Ed25519));
    assert_eq!(p256_key(1).public().check(), Ok(Algorithm::EcdsaP256));
}

/// Source: RFC 8032, section 7.1, test 2.
#[test]
fn an_ed25519_vector_of_its_rfc_verifies() {
    let public = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let signature = hex::decode(concat!(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    ));
    let keys = active(&[trusted("ed25519", &public.unwrap())]);
    assert_eq!(keys.verify_bytes(&[0x72], &signature.unwrap()), Ok(()));
}

/// Source: RFC 6979, section A.2.5, SHA-256, message "sample"; its S is the high one.
#[test]
fn a_p256_vector_of_its_rfc_verifies() {
    let public = hex::decode(concat!(
        "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
        "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
    ));
    let signature = hex::decode(concat!(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
    ));
    let keys = active(&[trusted("ecdsa-p256", &public.unwrap())]);
    assert_eq!(keys.verify_bytes(b"sample", &signature.unwrap()), Ok(()));
}
