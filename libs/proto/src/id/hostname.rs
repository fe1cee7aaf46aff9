//! Names of machines: one grammar, wherever they come from.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::shortened;
use crate::str_deserialize;

text!(
    /// Name of a machine, unique in the fleet: labels of `a-z 0-9 -` with dots between them, 63 bytes each and 253 in
    /// all. A label neither begins nor ends with `-`.
    ///
    /// Source: RFC 1123, section 2.1, in lower case; docs/manifests.md, names.
    Hostname
);

/// Longest hostname in bytes.
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The text is not a hostname.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a hostname: {fault}")]
pub struct HostnameError {
    text: String,
    fault: &'static str,
}

impl HostnameError {
    /// The text, shortened.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it, and what is right.
    pub fn fault(&self) -> &'static str {
        self.fault
    }

    fn new(text: &str, fault: &'static str) -> Self {
        Self {
            text: shortened(text),
            fault,
        }
    }
}

impl Hostname {
    /// The host that a certificate with this common name is for: `<host>` of `agent-<host>.<suffix>`, else the name
    /// itself.
    ///
    /// # Errors
    /// When that is not a hostname.
    ///
    /// Source: docs/wire-protocol.md, identity.
    pub fn of_common_name(common_name: &str) -> Result<Self, HostnameError> {
        let whole: Self = common_name.parse()?;
        let rest = common_name.strip_prefix("agent-");
        match rest.and_then(|rest| rest.split_once('.')) {
            Some((host, _)) => host.parse(),
            None => Ok(whole),
        }
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        match fault(text.as_bytes()) {
            None => Ok(Self(text.into())),
            Some(fault) => Err(HostnameError::new(text, fault)),
        }
    }
}

/// For names that a program writes itself. What comes from outside is parsed.
impl From<&'static str> for Hostname {
    /// # Panics
    /// When it is not a hostname.
    #[track_caller]
    fn from(literal: &'static str) -> Self {
        literal.parse().expect("the literal is a hostname")
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        str_deserialize::parse(deserializer, str::parse)
    }
}

/// One pass: every entry and record names its host.
fn fault(text: &[u8]) -> Option<&'static str> {
    let mut label = 0;
    let mut last = b'.';
    for &byte in text {
        label += 1;
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'-' if last != b'.' => {}
            b'-' => return Some("a label must not begin with '-'"),
            b'.' => {
                if let Some(fault) = end_fault(last) {
                    return Some(fault);
                }
                label = 0;
            }
            b'A'..=b'Z' => return Some("its letters must be lower case"),
            _ => return Some("it must consist of a-z, 0-9, '-' and '.'"),
        }
        if label > LABEL_BYTES_MAX {
            return Some("a label has more than 63 bytes");
        }
        last = byte;
    }
    if text.len() > HOSTNAME_BYTES_MAX {
        return Some("it has more than 253 bytes");
    }
    end_fault(last)
}

/// The fault of a label whose last byte this is; a dot for a label without bytes.
fn end_fault(last: u8) -> Option<&'static str> {
    match last {
        b'.' => Some("it, or a label of it, is empty"),
        b'-' => Some("a label must not end with '-'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_made_of_labels() {
        let labels = [63, 63, 63, 61].map(|length| "a".repeat(length));
        let longest = labels.join(".");
        assert_eq!(longest.len(), HOSTNAME_BYTES_MAX);
        for text in [
            "a",
            "0",
            "web-1",
            "a--b",
            "xn--4ca",
            "web-1.rack-2.example",
            &longest,
        ] {
            assert_eq!(
                text.parse::<Hostname>().map(|name| name.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_hostname_names_its_fault() {
        let check = |text: &str, fault: &str| {
            let error = text.parse::<Hostname>().unwrap_err();
            assert!(error.fault().contains(fault), "{text:?}: {error}");
            let json = serde_json::to_string(text).unwrap();
            let error = serde_json::from_str::<Hostname>(&json).unwrap_err();
            assert!(error.to_string().contains(fault), "{text:?}: {error}");
        };
        for empty in ["", ".", "a.", ".a", "a..b"] {
            check(empty, "empty");
        }
        check("-a", "begin with '-'");
        check("a.-b", "begin with '-'");
        check("a-", "end with '-'");
        check("a-.b", "end with '-'");
        check("Web-1", "lower case");
        for byte in 0..=u8::MAX {
            let legal = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            let text = format!("a{}b", char::from(byte));
            assert_eq!(text.parse::<Hostname>().is_ok(), legal, "{text:?}");
        }
        for hidden in [
            "a\u{200b}b",
            "a\u{202e}b",
            "a b",
            "ä",
            "a_b",
            "a/b",
            "a@b",
            "*",
        ] {
            check(hidden, "must consist of");
        }
        check(&"a".repeat(64), "63 bytes");
    }

    #[test]
    fn a_name_of_the_longest_size_and_one_byte_is_none() {
        let text = format!(
            "{}.ab",
            [
                "a".repeat(63),
                "a".repeat(63),
                "a".repeat(63),
                "a".repeat(59)
            ]
            .join(".")
        );
        assert_eq!(text.len(), HOSTNAME_BYTES_MAX + 1);
        assert_eq!(
            text.parse::<Hostname>().unwrap_err().fault(),
            "it has more than 253 bytes"
        );
    }

    #[test]
    fn a_common_name_is_for_one_host() {
        let host = |name: &str| Hostname::of_common_name(name).map(|host| host.to_string());
        let check = |name: &str, expected: &str| assert_eq!(host(name), Ok(expected.to_owned()));
        check("web-1", "web-1");
        check("web-1.rack", "web-1.rack");
        check("agent-web-1", "agent-web-1");
        check("agent-web-1.fleet.example", "web-1");
        for none in [
            "agent-.fleet",
            "agent--a.b",
            "agent-a.",
            "agent-A.b",
            "agent-a.b c",
            "",
        ] {
            assert!(host(none).is_err(), "{none}");
        }
    }
}
