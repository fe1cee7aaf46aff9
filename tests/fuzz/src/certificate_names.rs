//! Certificates built from the fuzzer's choice of names: an accepted one has exactly the names and limits
//! that it was built with.

use std::collections::BTreeSet;

use nixfleet_proto::ChannelName;
use nixfleet_proto::id::is_channel_name;

use super::identity::{ChannelLimit, Identity};

/// Last part of the object identifiers of subject attributes: CN, L, O, OU, and one that few know.
const ATTRIBUTES: [u8; 5] = [3, 7, 10, 11, 65];
const COMMON_NAME: u8 = 3;
const UNIT: u8 = 11;
/// Tags of texts: UTF-8, printable, IA5, Teletex, BMP and universal.
const TEXTS: [u8; 6] = [0x0c, 0x13, 0x16, 0x14, 0x1e, 0x1c];
/// Tags of alternative names: mail, DNS, URI, registered id.
const ALTERNATIVES: [u8; 4] = [0x81, 0x82, 0x86, 0x88];
const URI: u8 = 0x86;
const LIMIT: &str = "urn:nixfleet:channel:";
/// Beginnings that the fuzzer need not find.
const BEGINNINGS: [&str; 6] = [
    "",
    "nixfleet-",
    "nixfleet-admin",
    "agent-",
    LIMIT,
    "urn:NixFleet",
];

/// The names of a certificate: tags and contents.
#[derive(Debug, Default)]
struct Names {
    subject: Vec<Attribute>,
    alternatives: Vec<(u8, Vec<u8>)>,
}

#[derive(Debug)]
struct Attribute {
    kind: u8,
    text: u8,
    content: Vec<u8>,
}

/// A certificate of chosen names is refused, or means exactly these names.
pub fn certificate_names(data: &[u8]) {
    let names = Names::read(data);
    let Ok(identity) = Identity::from_certificate(&names.certificate()) else {
        return;
    };
    let of_kind = |kind| names.subject.iter().filter(move |name| name.kind == kind);
    let common: Vec<_> = of_kind(COMMON_NAME).collect();
    assert_eq!(common.len(), 1, "{names:?} is {identity:?}");
    assert_eq!(identity.common_name.as_bytes(), common[0].content);
    assert!(of_kind(UNIT).count() <= 1, "{names:?} is {identity:?}");
    let limits = names.alternatives.iter().filter(|(tag, _)| *tag == URI);
    let limits = limits.filter_map(|(_, uri)| std::str::from_utf8(uri).ok()?.strip_prefix(LIMIT));
    let limits: BTreeSet<ChannelName> = limits
        .inspect(|channel| assert!(is_channel_name(channel), "{names:?} is {identity:?}"))
        .map(|channel| ChannelName::from(channel.to_owned()))
        .collect();
    match &identity.channels {
        ChannelLimit::All => assert!(limits.is_empty(), "{names:?} is {identity:?}"),
        ChannelLimit::Only(channels) => assert_eq!(*channels, limits),
    }
}

impl Names {
    /// One name after the other: its kind, its beginning, its length and its content.
    fn read(mut data: &[u8]) -> Self {
        let mut names = Self::default();
        while let [kind, beginning, length, rest @ ..] = data {
            let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            data = rest;
            let beginning = BEGINNINGS[usize::from(*beginning) % BEGINNINGS.len()];
            let content = [beginning.as_bytes(), content].concat();
            let choice = usize::from(kind / 2);
            if kind % 2 == 0 {
                names.subject.push(Attribute {
                    kind: ATTRIBUTES[choice % ATTRIBUTES.len()],
                    text: TEXTS[choice / ATTRIBUTES.len() % TEXTS.len()],
                    content,
                });
            } else {
                let tag = ALTERNATIVES[choice % ALTERNATIVES.len()];
                names.alternatives.push((tag, content));
            }
        }
        names
    }

    /// A certificate that can be read; nobody signed it.
    fn certificate(&self) -> Vec<u8> {
        let algorithm = sequence(&[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
        let validity = sequence(&[
            &tagged(0x17, b"260101000000Z"),
            &tagged(0x17, b"360101000000Z"),
        ]);
        let attributes = self.subject.iter().map(|name| {
            let text = tagged(name.text, &name.content);
            let kind = [0x06, 3, 0x55, 4, name.kind];
            tagged(0x31, &sequence(&[&kind, &text]))
        });
        let subject = tagged(0x30, &attributes.collect::<Vec<_>>().concat());
        let curve = [
            &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..],
            &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        ];
        let key = sequence(&[&sequence(&curve), &tagged(0x03, &[0, 4])]);
        let names = self.alternatives.iter();
        let names: Vec<_> = names.map(|(tag, content)| tagged(*tag, content)).collect();
        let names = tagged(0x04, &tagged(0x30, &names.concat()));
        let extension = sequence(&[&[0x06, 3, 0x55, 0x1d, 17], &names]);
        let extensions = tagged(0xa3, &sequence(&[&extension]));
        let to_sign = sequence(&[
            &[0xa0, 3, 2, 1, 2],
            &[2, 1, 1],
            &algorithm,
            &sequence(&[]),
            &validity,
            &subject,
            &key,
            if self.alternatives.is_empty() {
                &[]
            } else {
                &extensions
            },
        ]);
        sequence(&[&to_sign, &algorithm, &tagged(0x03, &[0])])
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// An element of DER.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let length = match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![short],
        _ => [&[0x83][..], &(length as u32).to_be_bytes()[1..]].concat(),
    };
    [&[tag][..], &length, content].concat()
}
