//! The alert rules: what they ask for exists, and what they point to as well.

use std::collections::BTreeSet;

use super::{SERVICES, files, root};

/// Begins the name of each metric.
const PREFIX: &str = "nixfleet_";

fn rules() -> String {
    std::fs::read_to_string(root().join("deploy/alerts.yml")).unwrap()
}

/// What follows on a key, once per line that has it.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim().trim_start_matches("- "));
    lines
        .filter_map(|line| line.strip_prefix(key))
        .map(str::trim)
        .collect()
}

/// Every word that begins like a metric, names of crates apart.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let is_metric = |word: &&str| {
        let name = word.strip_prefix(PREFIX);
        name.is_some_and(|name| !SERVICES.contains(&name))
    };
    words.filter(is_metric).collect()
}

/// The sources of services and libraries in one text.
fn sources() -> String {
    let root = root();
    let is_source = |path: &std::path::PathBuf| {
        let relative = path.strip_prefix(&root).unwrap();
        let is_ours = relative.starts_with("services") || relative.starts_with("libs");
        is_ours && relative.extension().is_some_and(|end| end == "rs")
    };
    let sources = files().into_iter().filter(is_source);
    sources
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let (rules, sources) = (rules(), sources());
    let asked = metrics(&rules);
    assert!(asked.len() > 5, "{asked:?}");
    let is_unknown = |name: &&&str| !sources.contains(&format!("\"{name}\""));
    let unknown: Vec<_> = asked.iter().filter(is_unknown).collect();
    assert!(unknown.is_empty(), "no service has {unknown:?}");
}

#[test]
fn alerts_name_a_page_and_are_explained() {
    let rules = rules();
    let alerts = values(&rules, "alert:");
    let pages = values(&rules, "runbook_url:");
    assert_eq!(alerts.len(), pages.len(), "each alert has one page");
    for page in pages {
        assert!(root().join(page).is_file(), "there is no {page}");
    }
    let watching = root().join("docs/operations/watching.md");
    let watching = std::fs::read_to_string(watching).unwrap();
    let is_missing = |alert: &&&str| !watching.contains(&format!("| `{alert}` |"));
    let missing: Vec<_> = alerts.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "watching.md lacks {missing:?}");
}

#[test]
fn metrics_in_the_documents_exist() {
    let sources = sources();
    for page in ["watching.md", "log-full.md", "running.md"] {
        let text = std::fs::read_to_string(root().join("docs/operations").join(page)).unwrap();
        let is_unknown = |name: &&&str| !sources.contains(&format!("\"{name}\""));
        let named = metrics(&text);
        let unknown: Vec<_> = named.iter().filter(is_unknown).collect();
        assert!(unknown.is_empty(), "{page} names {unknown:?}");
    }
}
