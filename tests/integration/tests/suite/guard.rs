//! The layout guard: what the architecture forbids, found in the dependency graph and the files.

mod alerts;
mod layers;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Crates that decide; they act on nothing.
const PURE: [&str; 6] = ["proto", "core", "plan", "trust", "checkpoint", "replay"];
/// What a deciding crate must not reach, at any depth.
const IMPURE: [&str; 11] = [
    "tokio",
    "async-nats",
    "tokio-postgres",
    "postgres",
    "deadpool-postgres",
    "tracing",
    "rand",
    "getrandom",
    "reqwest",
    "metrics",
    "opentelemetry",
];
/// Which of our crates each of our crates may use.
const ALLOWED: [(&str, &[&str]); 29] = [
    ("proto", &[]),
    ("core", &["proto"]),
    ("plan", &["proto", "core"]),
    ("trust", &["proto"]),
    ("bus", &["proto"]),
    ("store", &["proto"]),
    ("service", &[]),
    ("checkpoint", &["proto"]),
    ("replay", &["proto", "core", "checkpoint"]),
    ("http", &["proto", "trust", "bus", "store", "service"]),
    ("ingest", &["proto", "http", "bus", "store", "service"]),
    (
        "console",
        &["proto", "plan", "trust", "http", "bus", "store", "service"],
    ),
    (
        "reducer",
        &[
            "proto",
            "core",
            "trust",
            "checkpoint",
            "bus",
            "store",
            "service",
        ],
    ),
    (
        "planner",
        &["proto", "core", "plan", "trust", "bus", "store", "service"],
    ),
    (
        "applier",
        &["proto", "trust", "checkpoint", "bus", "store", "service"],
    ),
    ("eventlog", &["proto", "bus", "store", "service"]),
    ("agent", &["proto", "core", "trust"]),
    ("swarm", &["agent", "proto", "trust"]),
    (
        "cli",
        &[
            "bus",
            "proto",
            "core",
            "plan",
            "trust",
            "checkpoint",
            "replay",
            "store",
        ],
    ),
    ("xtask", &[]),
    // Tests and what they share.
    ("encodings", &[]),
    ("harness", &["proto", "bus", "trust"]),
    ("audit", &["proto", "core", "store", "swarm"]),
    ("demo", &["proto", "trust", "harness", "audit", "swarm"]),
    ("endurance", &["proto", "bus", "store", "harness", "audit"]),
    (
        "chaos",
        &[
            "proto", "core", "trust", "bus", "store", "harness", "audit", "swarm",
        ],
    ),
    (
        "bench",
        &[
            "proto",
            "core",
            "plan",
            "trust",
            "checkpoint",
            "bus",
            "store",
            "applier",
            "harness",
        ],
    ),
    (
        "simulation",
        &[
            "proto",
            "core",
            "plan",
            "trust",
            "checkpoint",
            "bus",
            "reducer",
            "planner",
            "applier",
            "agent",
        ],
    ),
    ("integration", &[]),
];
const SERVICES: [&str; 6] = [
    "ingest", "console", "reducer", "planner", "applier", "eventlog",
];
/// Longest source file, its tests not counted.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..")
        .canonicalize()
        .expect("the workspace is above its tests")
}

/// Of the platform this runs on: packages of others were never downloaded.
fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--locked", "--offline", "--filter-platform", &platform];
    let mut command = MetadataCommand::new();
    command
        .manifest_path(manifest)
        .other_options(options.map(str::to_owned));
    command.exec().expect("cargo knows its own workspace")
}

fn package<'a>(metadata: &'a Metadata, short: &str) -> &'a Package {
    let name = format!("nixfleet-{short}");
    let mut packages = metadata.workspace_packages().into_iter();
    packages
        .find(|package| package.name == name.as_str())
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Names of everything a package links, at any depth, for the normal build.
fn reached(metadata: &Metadata, from: &PackageId) -> BTreeSet<String> {
    let resolve = metadata
        .resolve
        .as_ref()
        .expect("metadata was asked for dependencies");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open = vec![from];
    let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let mut kinds = dependency.dep_kinds.iter();
            let is_normal = kinds.any(|kind| kind.kind == DependencyKind::Normal);
            if is_normal && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter()
        .map(|id| metadata[id].name.to_string())
        .collect()
}

#[test]
fn deciding_crates_reach_no_runtime_client_logger_or_random_source() {
    let metadata = metadata();
    for short in PURE {
        let reached = reached(&metadata, &package(&metadata, short).id);
        let found: Vec<_> = IMPURE
            .iter()
            .filter(|name| reached.contains(**name))
            .collect();
        assert!(found.is_empty(), "nixfleet-{short} reaches {found:?}");
    }
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let short = package
            .name
            .strip_prefix("nixfleet-")
            .expect("one prefix for all");
        let row = ALLOWED.iter().find(|(name, _)| *name == short);
        let (_, allowed) = row.unwrap_or_else(|| panic!("ALLOWED lacks {short}"));
        for dependency in &package.dependencies {
            let Some(ours) = dependency.name.strip_prefix("nixfleet-") else {
                continue;
            };
            let is_test = dependency.kind == DependencyKind::Development;
            let is_allowed = allowed.contains(&ours) || (is_test && !SERVICES.contains(&ours));
            assert!(is_allowed, "nixfleet-{short} must not use nixfleet-{ours}");
        }
    }
    for short in ["applier", "eventlog"] {
        let reached = reached(&metadata, &package(&metadata, short).id);
        for decider in ["nixfleet-core", "nixfleet-plan"] {
            assert!(
                !reached.contains(decider),
                "nixfleet-{short} reaches {decider}"
            );
        }
    }
}

#[test]
fn packages_are_named_after_their_folders() {
    for package in metadata().workspace_packages() {
        let folder = package
            .manifest_path
            .parent()
            .and_then(|dir| dir.file_name());
        let expected = folder.map(|folder| format!("nixfleet-{folder}"));
        assert_eq!(Some(package.name.to_string()), expected);
    }
}

#[test]
fn services_have_the_same_rooms() {
    for service in SERVICES {
        let source = root().join("services").join(service).join("src");
        for room in ["main.rs", "config.rs", "run.rs"] {
            assert!(source.join(room).is_file(), "{service} has no {room}");
        }
    }
}

/// Files of the repository: what git tracks or would track.
fn files() -> Vec<PathBuf> {
    let root = root();
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(&root)
        .output()
        .expect("git lists the files of the checkout");
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let names = names.split('\0').filter(|name| !name.is_empty());
    names
        .map(|name| root.join(name))
        .filter(|path| path.is_file())
        .collect()
}

/// Lines of a source file before its tests.
fn lines_without_tests(text: &str) -> usize {
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count()
}

#[test]
fn no_source_file_is_too_long() {
    let root = root();
    for path in files() {
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let relative = path.strip_prefix(&root).expect("files are below the root");
        // Packages below `tests` have sources like others.
        let in_package = relative.strip_prefix("tests").unwrap_or(relative);
        let is_test = in_package
            .components()
            .any(|part| part.as_os_str() == "tests");
        if !is_source || is_test || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
        let lines = lines_without_tests(&text);
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_project_stands_alone() {
    // Split, so that this file does not contain what it looks for.
    let outside = ["..", "/shared"].concat();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        assert!(
            !text.contains(&outside),
            "{} points outside",
            path.display()
        );
    }
}

#[test]
fn vectors_equal_their_origin_where_it_is_at_hand() {
    let ours = root().join("tests/vectors");
    let names = ["step.ndjson", "rollout.ndjson", "plan.ndjson", "README.md"];
    let origin = root().join("..").join("shared").join("vectors");
    for name in names {
        let kept = std::fs::read(ours.join(name)).expect("the vectors are kept with the code");
        if let Ok(original) = std::fs::read(origin.join(name)) {
            assert!(
                kept == original,
                "tests/vectors/{name} differs from its origin"
            );
        }
    }
}

#[test]
fn documents_link_to_what_exists() {
    let root = root();
    for path in files() {
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        if !is_page || path.starts_with(root.join("tests/vectors")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("pages are UTF-8");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
        {
            let target = link.0.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = path.parent().expect("a page is in a folder");
            assert!(
                folder.join(target).exists(),
                "{}: no {target}",
                path.display()
            );
        }
    }
}
