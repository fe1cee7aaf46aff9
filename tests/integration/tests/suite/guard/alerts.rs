//! The alert rules: each has a page and an explanation. `telemetry` compares their metrics with the list.

use super::root;

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
