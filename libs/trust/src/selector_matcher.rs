//! Evaluation of selectors for large fleets.

use std::collections::BTreeSet;

use nixfleet_proto::Hostname;
use nixfleet_proto::fleet::{Fleet, FleetHost, Selector};

/// A selector compiled for many hosts: equals `Selector::matches`, with sets instead of lists.
pub(crate) struct Matcher<'s> {
    selector: &'s Selector,
    hosts: BTreeSet<&'s Hostname>,
    and: Vec<Matcher<'s>>,
    not: Option<Box<Matcher<'s>>>,
}

impl<'s> Matcher<'s> {
    pub(crate) fn new(selector: &'s Selector) -> Self {
        Self {
            selector,
            hosts: selector.hosts.iter().collect(),
            and: selector.and.iter().map(Self::new).collect(),
            not: selector
                .not
                .as_deref()
                .map(|part| Box::new(Self::new(part))),
        }
    }

    /// True when any rule matches the host.
    ///
    /// Source: docs/manifests.md, selectors.
    pub(crate) fn matches(&self, hostname: &Hostname, host: &FleetHost) -> bool {
        let Selector {
            tags,
            tags_any,
            channel,
            all,
            hosts: _,
            and: _,
            not: _,
        } = self.selector;
        *all || self.hosts.contains(hostname)
            || channel.as_ref() == Some(&host.channel)
            || (!tags.is_empty() && tags.iter().all(|tag| host.tags.contains(tag)))
            || tags_any.iter().any(|tag| host.tags.contains(tag))
            || (!self.and.is_empty() && self.and.iter().all(|part| part.matches(hostname, host)))
            || self
                .not
                .as_ref()
                .is_some_and(|part| !part.matches(hostname, host))
    }
}

/// The sorted hosts of a fleet that match a selector.
pub(crate) fn resolve(selector: &Selector, fleet: &Fleet) -> Vec<Hostname> {
    let matcher = Matcher::new(selector);
    fleet
        .hosts
        .iter()
        .filter(|(hostname, host)| matcher.matches(hostname, host))
        .map(|(hostname, _)| hostname.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(tags: &[&str], channel: &str) -> FleetHost {
        FleetHost {
            system: "x86_64-linux".into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            channel: channel.into(),
            closure_hash: None,
            pubkey: None,
            pin: None,
        }
    }

    #[test]
    fn each_rule_selects_independently() {
        let web = host(&["web", "eu"], "stable");
        let name = Hostname::from("web-01");
        let check = |json: &str, expected: bool| {
            let selector: Selector = serde_json::from_str(json).unwrap();
            assert_eq!(
                Matcher::new(&selector).matches(&name, &web),
                expected,
                "{json}"
            );
        };
        check(r#"{}"#, false);
        check(r#"{"all":true}"#, true);
        check(r#"{"hosts":["web-01"]}"#, true);
        check(r#"{"hosts":["web-02"]}"#, false);
        check(r#"{"channel":"stable"}"#, true);
        check(r#"{"channel":"edge"}"#, false);
        check(r#"{"tags":["web","eu"]}"#, true);
        check(r#"{"tags":["web","us"]}"#, false);
        check(r#"{"tagsAny":["us","eu"]}"#, true);
        check(r#"{"tagsAny":["us"]}"#, false);
        check(r#"{"tags":["us"],"hosts":["web-01"]}"#, true);
        check(r#"{"and":[{"tags":["web"]},{"channel":"stable"}]}"#, true);
        check(r#"{"and":[{"tags":["web"]},{"channel":"edge"}]}"#, false);
        check(r#"{"and":[]}"#, false);
        check(r#"{"not":{"tags":["db"]}}"#, true);
        check(r#"{"not":{"tags":["web"]}}"#, false);
        check(
            r#"{"and":[{"tags":["web"]},{"not":{"hosts":["web-01"]}}]}"#,
            false,
        );
    }

    fn selectors() -> impl Strategy<Value = Selector> {
        let names = || prop::collection::vec("[abc]", 0..3);
        let leaf = (
            names(),
            names(),
            names(),
            prop::option::of("[xy]"),
            any::<bool>(),
        )
            .prop_map(|(tags, tags_any, hosts, channel, all)| Selector {
                tags,
                tags_any,
                hosts: hosts.iter().map(|name| name.parse().unwrap()).collect(),
                channel: channel.map(Into::into),
                all,
                and: Vec::new(),
                not: None,
            });
        leaf.prop_recursive(3, 8, 3, |inner| {
            (
                prop::collection::vec(inner.clone(), 0..3),
                prop::option::of(inner),
            )
                .prop_map(|(and, not)| Selector {
                    and,
                    not: not.map(Box::new),
                    ..Selector::default()
                })
        })
    }

    proptest! {
        #[test]
        fn a_matcher_equals_its_selector(
            selector in selectors(),
            tags in prop::collection::vec("[abc]", 0..3),
            hostname in "[abc]",
            channel in "[xy]",
        ) {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            let host = host(&tags, &channel);
            let hostname: Hostname = hostname.parse().unwrap();
            prop_assert_eq!(
                Matcher::new(&selector).matches(&hostname, &host),
                selector.matches(&hostname, &host)
            );
        }
    }
}
