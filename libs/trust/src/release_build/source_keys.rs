//! Keys of a fleet source. Readers ignore keys that they do not know, so a misspelt one would drop its rule unsaid:
//! here every key is known, carried or a fault.

use std::fmt;

use serde_json::{Map, Value};

use crate::admission::{Fault, Findings, check_free_value};

/// Keys that other producers of the format write and that no program of this project reads, in any object of the
/// fleet: signed as they are.
const CARRIED: [&str; 2] = ["compliance", "complianceFrameworks"];
/// Part of the characters that must be the same in a key that is suggested.
const LIKENESS_MIN: f64 = 0.6;

/// What a value may be.
enum Shape {
    /// A value, or an object with any keys.
    Free,
    List(&'static Shape),
    /// An object whose keys are names.
    Named(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
    Selector,
}

use Shape::{Free, List, Named, Object, Selector};

static FLEET: Shape = Object(&[
    ("schemaVersion", Free),
    ("hosts", Named(&HOST)),
    ("channels", Named(&CHANNEL)),
    ("rolloutPolicies", Named(&POLICY)),
    ("waves", Named(&List(&WAVE))),
    ("edges", List(&HOST_EDGE)),
    ("channelEdges", List(&CHANNEL_EDGE)),
    ("disruptionBudgets", List(&BUDGET)),
    ("meta", META),
]);
static HOST: Shape = Object(&[
    ("system", Free),
    ("tags", Free),
    ("channel", Free),
    ("closureHash", Free),
    ("pubkey", Free),
    ("pin", PIN),
]);
const PIN: Shape = Object(&[("commit", Free), ("reason", Free), ("expiresAt", Free)]);
static CHANNEL: Shape = Object(&[
    ("rolloutPolicy", Free),
    ("reconcileIntervalMinutes", Free),
    ("freshnessWindow", Free),
    ("signingIntervalMinutes", Free),
]);
static POLICY: Shape = Object(&[
    ("strategy", Free),
    ("waves", List(&POLICY_WAVE)),
    ("healthGate", Free),
    ("onHealthFailure", Free),
]);
static POLICY_WAVE: Shape = Object(&[("selector", Selector), ("soakMinutes", Free)]);
static WAVE: Shape = Object(&[("hosts", Free), ("soakMinutes", Free)]);
static HOST_EDGE: Shape = Object(&[("gated", Free), ("gates", Free), ("reason", Free)]);
static CHANNEL_EDGE: Shape = Object(&[
    ("gates", Free),
    ("before", Free),
    ("gated", Free),
    ("after", Free),
    ("reason", Free),
]);
static BUDGET: Shape = Object(&[
    ("selector", Selector),
    ("maxInFlight", Free),
    ("maxInFlightPct", Free),
]);
const META: Shape = Object(&[
    ("schemaVersion", Free),
    ("signedAt", Free),
    ("ciCommit", Free),
    ("signatureAlgorithm", Free),
]);
static SELECTOR: Shape = Object(&[
    ("tags", Free),
    ("tagsAny", Free),
    ("hosts", Free),
    ("channel", Free),
    ("all", Free),
    ("and", List(&Selector)),
    ("not", Selector),
]);

/// Values of carried keys, by the JSON pointer of their object.
#[derive(Debug, Default)]
pub(super) struct CarriedValues(Vec<(String, String, Value)>);

impl CarriedValues {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds them to the document that is signed, where their objects still are.
    pub(super) fn add_to(self, document: &mut Value) {
        for (pointer, key, value) in self.0 {
            if let Some(Value::Object(object)) = document.pointer_mut(&pointer) {
                object.insert(key, value);
            }
        }
    }
}

/// Finds unknown keys; gives the values of carried ones.
pub(super) fn check(source: &Value, findings: &mut Findings) -> CarriedValues {
    let mut check = Check {
        findings,
        carried: CarriedValues::default(),
    };
    check.value(source, &FLEET, None);
    check.carried
}

/// A place in the document: rendered for findings only, since a fleet has a million hosts.
#[derive(Clone, Copy)]
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl Place<'_> {
    fn pointer(&self) -> String {
        let parent = self.parent.map(Place::pointer).unwrap_or_default();
        match self.step {
            Step::Key(key) => format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => format!("{parent}/{index}"),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.parent, self.step) {
            (Some(parent), Step::Key(key)) => write!(f, "{parent}.{}", key.escape_debug()),
            (None, Step::Key(key)) => write!(f, "{}", key.escape_debug()),
            (Some(parent), Step::Index(index)) => write!(f, "{parent}[{index}]"),
            (None, Step::Index(index)) => write!(f, "[{index}]"),
        }
    }
}

struct Check<'f> {
    findings: &'f mut Findings,
    carried: CarriedValues,
}

impl Check<'_> {
    /// A value of another type is an error of the reader.
    fn value(&mut self, value: &Value, shape: &Shape, place: Option<&Place<'_>>) {
        match (shape, value) {
            (Selector, _) => self.value(value, &SELECTOR, place),
            (List(items), Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    let step = Step::Index(index);
                    self.value(
                        value,
                        items,
                        Some(&Place {
                            parent: place,
                            step,
                        }),
                    );
                }
            }
            (Named(items), Value::Object(values)) => {
                for (name, value) in values {
                    let step = Step::Key(name);
                    self.value(
                        value,
                        items,
                        Some(&Place {
                            parent: place,
                            step,
                        }),
                    );
                }
            }
            (Object(keys), Value::Object(values)) => self.object(values, keys, place),
            (Free | List(_) | Named(_) | Object(_), _) => {}
        }
    }

    fn object(
        &mut self,
        values: &Map<String, Value>,
        keys: &[(&'static str, Shape)],
        place: Option<&Place<'_>>,
    ) {
        for (key, value) in values {
            let here = Place {
                parent: place,
                step: Step::Key(key),
            };
            if let Some((_, shape)) = keys.iter().find(|(known, _)| known == key) {
                self.value(value, shape, Some(&here));
            } else if CARRIED.contains(&key.as_str()) {
                check_free_value(&here.to_string(), value, self.findings);
                let pointer = place.map(Place::pointer).unwrap_or_default();
                self.carried.0.push((pointer, key.clone(), value.clone()));
            } else {
                self.findings.fault(Fault::UnknownKey {
                    at: place.map_or_else(|| "fleet".to_owned(), Place::to_string),
                    key: key.chars().take(80).collect(),
                    nearest: nearest(key, keys.iter().map(|(known, _)| *known)),
                });
            }
        }
    }
}

fn nearest(key: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let key = key.to_lowercase();
    let like = |known: &str| strsim::normalized_damerau_levenshtein(&key, &known.to_lowercase());
    let most = known
        .map(|known| (like(known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    most.filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .map(|(_, known)| known)
}
