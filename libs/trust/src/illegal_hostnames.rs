//! All hosts of a fleet whose names are none: reading the fleet stops at the first.

use std::borrow::Cow;
use std::collections::BTreeMap;

use nixfleet_proto::{Hostname, HostnameError};
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
struct Names<'a> {
    #[serde(borrow, default)]
    hosts: BTreeMap<Cow<'a, str>, IgnoredAny>,
}

/// The faults of the keys of `hosts`; none for another document.
pub(crate) fn illegal_hostnames(document: &[u8]) -> Vec<HostnameError> {
    let Ok(Names { hosts }) = serde_json::from_slice(document) else {
        return Vec::new();
    };
    let faults = hosts
        .keys()
        .filter_map(|name| name.parse::<Hostname>().err());
    faults.collect()
}
