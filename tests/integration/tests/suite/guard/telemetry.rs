//! Names of metrics and spans: `docs/operations/watching.md` lists each once, and the sources, the alert
//! rules and the documents use no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{files, lines_without_tests, root};

const LIST: &str = "docs/operations/watching.md";
/// Begins the name of each metric.
const PREFIX: &str = "nixfleet_";
/// What Prometheus adds to the name of a histogram.
const SERIES: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Units that a name ends with.
const UNITS: [&str; 4] = ["seconds", "bytes", "messages", "entries"];

/// A metric or a span: kind (and unit), crates that emit it, and labels or fields.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Use {
    kind: String,
    crates: BTreeSet<String>,
    labels: BTreeSet<String>,
}

type Uses = BTreeMap<String, Use>;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The cells of the rows of the list whose first cell begins with this.
fn rows(list: &str, first: &str) -> Vec<Vec<String>> {
    let rows = list.lines().filter_map(|line| line.strip_prefix("| "));
    let rows = rows.filter(|row| row.starts_with(first));
    let cells = |row: &str| row.replace('`', "").trim_end_matches(['|', ' ']).to_owned();
    rows.map(|row| {
        cells(row)
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

fn words(cell: &str) -> BTreeSet<String> {
    let words = cell.split(',').map(str::trim);
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Rows of the list, with the unit of a metric behind its kind.
fn listed() -> (Uses, Uses) {
    let list = read(&root().join(LIST));
    let mut metrics = Uses::new();
    for row in rows(&list, "`nixfleet_") {
        let [name, kind, unit, labels, crates, _] = &row[..] else {
            panic!("{LIST}: six cells expected in {row:?}");
        };
        check_unit(name, kind, unit);
        let entry = Use {
            kind: kind.clone(),
            crates: words(crates),
            labels: words(labels),
        };
        assert!(
            metrics.insert(name.clone(), entry).is_none(),
            "{name} is listed twice"
        );
    }
    let mut spans = Uses::new();
    for row in rows(&list, "span `") {
        let [name, crates, labels, _] = &row[..] else {
            panic!("{LIST}: four cells expected in {row:?}");
        };
        let entry = Use {
            kind: "span".to_owned(),
            crates: words(crates),
            labels: words(labels),
        };
        let name = format!("{} {crates}", name.trim_start_matches("span "));
        assert!(
            spans.insert(name.clone(), entry).is_none(),
            "{name} is listed twice"
        );
    }
    (metrics, spans)
}

/// A counter ends with `_total`; a time, a size and a number of messages or entries end with their unit;
/// a histogram has a unit, because its buckets follow from it.
fn check_unit(name: &str, kind: &str, unit: &str) {
    let (base, is_total) = match name.strip_suffix("_total") {
        Some(base) => (base, true),
        None => (name, false),
    };
    assert_eq!(
        is_total,
        kind == "counter",
        "{name}: counters, and no others, end with _total"
    );
    let suffix = UNITS
        .iter()
        .find(|unit| base.ends_with(&format!("_{unit}")));
    match unit {
        "0 or 1" => assert!(
            kind == "gauge" && suffix.is_none(),
            "{name}: a gauge without a unit"
        ),
        "count" => assert!(
            kind != "histogram" && suffix.is_none(),
            "{name}: the unit is its suffix"
        ),
        unit => assert_eq!(suffix, Some(&unit), "{name}: the name ends with its unit"),
    }
}

/// Sources of the programs with the crate that each belongs to, without tests.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut sources = Vec::new();
    for path in files() {
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let parts: Vec<&str> = relative.split('/').collect();
        let name = match parts[..] {
            ["libs" | "services", name, "src", ..] | [name @ ("agent" | "swarm"), "src", ..] => {
                name
            }
            _ => continue,
        };
        if relative.ends_with(".rs") && !relative.ends_with("tests.rs") {
            let text = read(&path);
            let lines: Vec<&str> = text.lines().take(lines_without_tests(&text)).collect();
            sources.push((name.to_owned(), lines.join("\n")));
        }
    }
    sources
}

/// The arguments of each call of a macro.
fn calls<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begins = text
        .match_indices(name)
        .filter(|(at, _)| !text[..*at].ends_with('_'));
    begins
        .map(|(at, _)| arguments(&text[at + name.len()..]))
        .collect()
}

/// Everything up to the parenthesis that closes the call.
fn arguments(text: &str) -> &str {
    let (mut depth, mut is_text) = (1, false);
    for (at, sign) in text.char_indices() {
        match sign {
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("a call that does not end: {text}");
}

/// Arguments at the commas that belong to the call itself.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut is_text) = (Vec::new(), 0, 0, false);
    for (at, sign) in arguments.char_indices() {
        match sign {
            '"' => is_text = !is_text,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' | ']' | '}' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                parts.push(arguments[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[begin..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn text(literal: &str) -> &str {
    let text = literal
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    text.unwrap_or_else(|| panic!("the name is one literal: {literal}"))
}

/// Every metric that the sources emit.
fn emitted(sources: &[(String, String)]) -> Uses {
    let mut found = Uses::new();
    for (name, source) in sources {
        for kind in ["counter", "gauge", "histogram"] {
            for call in calls(source, &format!("{kind}!(")) {
                let parts = split(call);
                let labels = parts[1..].iter().map(|part| {
                    let label = part.split_once("=>").map(|(label, _)| text(label.trim()));
                    label.unwrap_or_else(|| {
                        panic!("a label is written as \"name\" => value: {part}")
                    })
                });
                let entry = found.entry(text(parts[0]).to_owned()).or_default();
                assert!(
                    entry.kind.is_empty() || entry.kind == kind,
                    "{} has two kinds",
                    parts[0]
                );
                entry.kind = kind.to_owned();
                entry.crates.insert(name.clone());
                entry.labels.extend(labels.map(str::to_owned));
            }
        }
    }
    found
}

/// Every span that the sources open, by name and crate.
fn opened(sources: &[(String, String)]) -> Uses {
    let mut found = Uses::new();
    for (name, source) in sources {
        let is_attribute = |attribute| source.contains(attribute);
        assert!(
            !["#[instrument", "#[tracing::instrument"]
                .into_iter()
                .any(is_attribute),
            "{name}: open a span with a macro that names it"
        );
        for level in ["error", "warn", "info", "debug", "trace"] {
            for call in calls(source, &format!("{level}_span!(")) {
                let parts = split(call);
                let fields = parts[1..].iter().map(|part| {
                    let field = part.split('=').next().unwrap_or_default();
                    field.trim().trim_start_matches(['%', '?']).to_owned()
                });
                let entry = found
                    .entry(format!("{} {name}", text(parts[0])))
                    .or_default();
                entry.kind = "span".to_owned();
                entry.crates.insert(name.clone());
                entry.labels.extend(fields);
            }
        }
    }
    found
}

fn differences(listed: &Uses, used: &Uses) -> Vec<String> {
    let names: BTreeSet<_> = listed.keys().chain(used.keys()).collect();
    let differences =
        names
            .into_iter()
            .filter_map(|name| match (listed.get(name), used.get(name)) {
                (Some(listed), Some(used)) if listed == used => None,
                (Some(listed), Some(used)) => Some(format!(
                    "{name} is listed as {listed:?}, the code has {used:?}"
                )),
                (Some(_), None) => Some(format!("{name} is listed, and no code has it")),
                (None, _) => Some(format!("{name} is not listed")),
            });
    differences.collect()
}

#[test]
fn metrics_and_spans_are_those_of_the_list() {
    let sources = sources();
    let (metrics, spans) = listed();
    assert!(
        metrics.len() > 50 && spans.len() > 3,
        "{metrics:#?} {spans:#?}"
    );
    let mut found = differences(&metrics, &emitted(&sources));
    found.extend(differences(&spans, &opened(&sources)));
    assert!(
        found.is_empty(),
        "compare {LIST} with the code:\n{}",
        found.join("\n")
    );
}

#[test]
fn rules_and_documents_name_metrics_of_the_list() {
    let (metrics, _) = listed();
    let root = root();
    for path in files() {
        let relative = path.strip_prefix(&root).unwrap();
        let is_page = relative.extension().is_some_and(|end| end == "md");
        // The change log names what was renamed.
        let is_exempt = relative.starts_with("tests/vectors") || relative.ends_with("CHANGELOG.md");
        if is_exempt || !(is_page || relative.starts_with("deploy")) {
            continue;
        }
        let text = read(&path);
        let is_sign = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        for word in text
            .split(is_sign)
            .filter_map(|word| word.strip_prefix(PREFIX))
        {
            let metric = format!("{PREFIX}{word}");
            let series = SERIES.iter().find_map(|suffix| metric.strip_suffix(suffix));
            let is_known = [Some(metric.as_str()), series]
                .into_iter()
                .flatten()
                .any(|name| metrics.contains_key(name));
            // A crate, or a user of the database.
            let is_other = !word.contains('_');
            assert!(
                is_known || is_other,
                "{} names {metric}, which {LIST} does not list",
                relative.display()
            );
        }
    }
}

#[test]
fn a_name_a_kind_and_a_label_that_differ_are_found() {
    let source = |text: &str| emitted(&[("bus".to_owned(), text.to_owned())]);
    let used = source(
        "counter!(\"a_total\", \"log\" => name(\"x)\")).increment(1);\n metrics::gauge!(\n\"b\"\n).set(1.0)",
    );
    assert_eq!(used["a_total"].labels, words("log"));
    assert_eq!(differences(&used, &used), Vec::<String>::new());
    for other in [
        "counter!(\"a_total\", \"log\" => 1); gauge!(\"c\")",
        "counter!(\"a_total\", \"log\" => 1); counter!(\"b\")",
        "counter!(\"a_total\", \"stream\" => 1); gauge!(\"b\")",
    ] {
        assert!(!differences(&used, &source(other)).is_empty(), "{other}");
    }
}

#[test]
#[should_panic(expected = "the name ends with its unit")]
fn a_unit_that_the_name_lacks_is_found() {
    check_unit("nixfleet_turn", "histogram", "seconds");
}
