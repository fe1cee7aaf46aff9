//! Names and texts of a fleet that people see and that logs and tables hold: bounded, and without characters that
//! nobody sees.

use std::fmt::Display;

use nixfleet_proto::bounds::{REASON_BYTES_MAX, TEXT_BYTES_MAX};
use nixfleet_proto::fleet::{
    Channel, ChannelEdge, DisruptionBudget, Fleet, FleetHost, HostEdge, Meta, Pin, PolicyWave,
    RolloutManifest, RolloutPolicy, Selector,
};
use nixfleet_proto::hidden_character;
use nixfleet_proto::id::is_channel_name;
use nixfleet_proto::{ClosureHash, Hostname};
use serde_json::{Map, Value};

use super::fault::{Fault, Findings};

/// Checks every text of a fleet. Each structure is taken apart by its fields, so that a new one cannot be
/// forgotten.
pub(super) fn check_texts(fleet: &Fleet, findings: &mut Findings) {
    let Fleet {
        schema_version: _,
        hosts,
        channels,
        rollout_policies,
        // Names of channels and hosts, which are checked as such.
        waves: _,
        edges,
        channel_edges,
        disruption_budgets,
        meta,
    } = fleet;
    let mut check = Check(findings);
    for (hostname, host) in hosts {
        check.host(hostname, host);
    }
    for (name, channel) in channels {
        check.channel(name.as_str(), channel);
    }
    for (name, policy) in rollout_policies {
        check.policy(name, policy);
    }
    for (
        index,
        HostEdge {
            gated: _,
            gates: _,
            reason,
        },
    ) in edges.iter().enumerate()
    {
        check.reason(format_args!("edges[{index}].reason"), reason.as_deref());
    }
    for (
        index,
        ChannelEdge {
            gates: _,
            gated: _,
            reason,
        },
    ) in channel_edges.iter().enumerate()
    {
        check.reason(
            format_args!("channelEdges[{index}].reason"),
            reason.as_deref(),
        );
    }
    for (index, budget) in disruption_budgets.iter().enumerate() {
        let DisruptionBudget {
            selector,
            max_in_flight: _,
            max_in_flight_pct: _,
        } = budget;
        check.selector(
            format_args!("disruptionBudgets[{index}].selector"),
            selector,
        );
    }
    check.meta(meta);
}

/// Checks the texts of a rollout manifest that its fleet does not decide.
pub(super) fn check_manifest_texts(manifest: &RolloutManifest, findings: &mut Findings) {
    let channel = &manifest.channel;
    let mut check = Check(findings);
    let at = |key| format!("rollout manifest of {channel}: {key}");
    check.name(|| at("displayName"), &manifest.display_name);
    check.object(&at("healthGate"), &manifest.health_gate);
    for budget in &manifest.disruption_budgets {
        check.selector(at("disruptionBudgets"), &budget.selector);
    }
    check.meta(&manifest.meta);
}

/// Checks the texts of a value that no program reads.
pub(crate) fn check_free_value(at: &str, value: &Value, findings: &mut Findings) {
    Check(findings).value(at, value);
}

struct Check<'f>(&'f mut Findings);

impl Check<'_> {
    fn host(&mut self, hostname: &Hostname, host: &FleetHost) {
        let FleetHost {
            system,
            tags,
            channel: _,
            closure_hash,
            pubkey,
            pin,
        } = host;
        let at = |key| format!("hosts.{hostname}.{key}");
        self.name(|| at("system"), system);
        for tag in tags {
            self.name(|| at("tags"), tag);
        }
        if let Some(closure) = closure_hash {
            self.closure(|| at("closureHash"), closure);
        }
        self.name(|| at("pubkey"), pubkey.as_deref().unwrap_or_default());
        if let Some(pin) = pin {
            let Pin {
                commit,
                reason,
                expires_at: _,
            } = &**pin;
            self.name(|| at("pin.commit"), commit);
            self.text(|| at("pin.reason"), reason, REASON_BYTES_MAX);
        }
    }

    fn channel(&mut self, name: &str, channel: &Channel) {
        let Channel {
            rollout_policy,
            reconcile_interval_minutes: _,
            freshness_window: _,
            signing_interval_minutes: _,
        } = channel;
        // A name of other characters is a fault of its own.
        if is_channel_name(name) {
            self.name(|| "channels".to_owned(), name);
        }
        self.name(|| format!("channels.{name}.rolloutPolicy"), rollout_policy);
    }

    fn policy(&mut self, name: &str, policy: &RolloutPolicy) {
        let RolloutPolicy {
            strategy,
            waves,
            health_gate,
            on_health_failure: _,
        } = policy;
        self.name(|| "rolloutPolicies".to_owned(), name);
        self.name(|| format!("rolloutPolicies.{name}.strategy"), strategy);
        for (index, wave) in waves.iter().enumerate() {
            let PolicyWave {
                selector,
                soak_minutes: _,
            } = wave;
            self.selector(
                format_args!("rolloutPolicies.{name}.waves[{index}].selector"),
                selector,
            );
        }
        self.object(&format!("rolloutPolicies.{name}.healthGate"), health_gate);
    }

    fn selector(&mut self, at: impl Display, selector: &Selector) {
        let Selector {
            tags,
            tags_any,
            hosts: _,
            channel: _,
            all: _,
            and,
            not,
        } = selector;
        for tag in tags {
            self.name(|| format!("{at}.tags"), tag);
        }
        for tag in tags_any {
            self.name(|| format!("{at}.tagsAny"), tag);
        }
        for (index, part) in and.iter().enumerate() {
            self.selector(format!("{at}.and[{index}]"), part);
        }
        if let Some(part) = not {
            self.selector(format!("{at}.not"), part);
        }
    }

    fn meta(&mut self, meta: &Meta) {
        let Meta {
            schema_version: _,
            signed_at: _,
            ci_commit,
            signature_algorithm,
        } = meta;
        self.name(
            || "meta.ciCommit".to_owned(),
            ci_commit.as_deref().unwrap_or_default(),
        );
        let algorithm = signature_algorithm.as_deref().unwrap_or_default();
        self.name(|| "meta.signatureAlgorithm".to_owned(), algorithm);
    }

    /// Keys and texts of a free value; nesting is bounded as in every artifact.
    fn object(&mut self, at: &str, fields: &Map<String, Value>) {
        for (key, value) in fields {
            self.name(|| at.to_owned(), key);
            self.value(&format!("{at}.{key}"), value);
        }
    }

    fn value(&mut self, at: &str, value: &Value) {
        match value {
            Value::String(text) => self.text(|| at.to_owned(), text, REASON_BYTES_MAX),
            Value::Array(items) => items.iter().for_each(|item| self.value(at, item)),
            Value::Object(fields) => self.object(at, fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn reason(&mut self, at: impl Display, reason: Option<&str>) {
        self.text(
            || at.to_string(),
            reason.unwrap_or_default(),
            REASON_BYTES_MAX,
        );
    }

    fn name(&mut self, at: impl Fn() -> String, name: &str) {
        self.text(at, name, TEXT_BYTES_MAX);
    }

    /// A closure is a base name of a path: without slashes and spaces.
    fn closure(&mut self, at: impl Fn() -> String, closure: &ClosureHash) {
        let name = closure.as_str();
        let is_base_name = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if name.is_empty() {
            self.fault(
                at(),
                name,
                "must not be empty; null takes a host out of rollouts",
            );
        } else if is_base_name {
            self.name(at, name);
        } else {
            self.fault(
                at(),
                name,
                "must be printable ASCII without spaces and slashes",
            );
        }
    }

    fn text(&mut self, at: impl Fn() -> String, text: &str, bytes_max: usize) {
        if text.len() > bytes_max {
            let reason = match bytes_max {
                TEXT_BYTES_MAX => "is longer than 1024 bytes",
                _ => "is longer than 8192 bytes",
            };
            self.fault(at(), text, reason);
        } else if hidden_character(text).is_some() {
            self.fault(
                at(),
                text,
                "has a control, bidirectional or invisible character",
            );
        }
    }

    fn fault(&mut self, at: String, text: &str, reason: &'static str) {
        self.0.fault(Fault::NameIllegal {
            at: visible(&at),
            name: text.chars().take(80).collect(),
            reason,
        });
    }
}

/// A place without the characters that are at fault in it.
fn visible(at: &str) -> String {
    if hidden_character(at).is_some() {
        at.escape_debug().collect()
    } else {
        at.to_owned()
    }
}
