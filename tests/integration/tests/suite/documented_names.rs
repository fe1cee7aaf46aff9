//! Names that documents give exist in the programs: configuration keys of services, commands and options of
//! `nixfleet`, tasks of `cargo xtask`. Metrics are in `guard::telemetry`, files in `guard`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nixfleet_harness::Service;
use nixfleet_harness::binaries::{checkout, workspace_binary};

/// Documents of past states.
const HISTORY: [&str; 2] = ["CHANGELOG.md", "docs/adr"];
/// In code marks, and no command: the text that a console signs before an operator's command.
const NO_COMMAND: &str = "operator command v1";
/// Ends of the names of files.
const FILES: [&str; 4] = [".rs", ".json", ".toml", ".md"];
/// Ends a command in a line of a shell.
const END_OF_COMMAND: [char; 6] = ['#', '<', '>', '|', ';', '&'];

/// Code of a document: inline, and each line of a fenced block.
struct Span {
    page: PathBuf,
    code: String,
    is_fenced: bool,
}

fn spans() -> Vec<Span> {
    let mut pages = vec![
        checkout().join("README.md"),
        checkout().join("CONTRIBUTING.md"),
    ];
    add_pages(&checkout().join("docs"), &mut pages);
    let mut spans = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut is_fenced = false;
        for line in text.replace("\\\n", " ").lines() {
            if line.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
                continue;
            }
            let code = match is_fenced {
                true => vec![line],
                false => line.split('`').skip(1).step_by(2).collect(),
            };
            spans.extend(code.into_iter().map(|code| Span {
                page: page.clone(),
                code: code.to_owned(),
                is_fenced,
            }));
        }
    }
    spans
}

fn add_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(checkout()).unwrap();
        if HISTORY.iter().any(|past| relative.starts_with(past)) {
            continue;
        }
        if path.is_dir() {
            add_pages(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// What the documents say after a program's name, with the pages that say it.
fn calls(program: &str) -> BTreeMap<String, BTreeSet<PathBuf>> {
    let mut calls: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for span in spans() {
        let code = span.code.trim_start().trim_start_matches("$ ");
        let Some(arguments) = code.strip_prefix(program) else {
            continue;
        };
        if !arguments.is_empty() && !arguments.starts_with(' ') {
            continue;
        }
        let end = arguments.find(END_OF_COMMAND).unwrap_or(arguments.len());
        let arguments = arguments[..end].trim();
        if arguments != NO_COMMAND {
            calls
                .entry(arguments.to_owned())
                .or_default()
                .insert(span.page);
        }
    }
    calls
}

/// Runs words of a shell, without the variables of users.
fn shell(words: &str) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", words]).env_clear();
    shell.output().unwrap()
}

#[test]
fn documented_commands_and_options_are_accepted() {
    let program = workspace_binary("nixfleet").unwrap();
    let calls = calls("nixfleet");
    assert!(calls.len() > 30, "{} commands are documented", calls.len());
    let mut faults = Vec::new();
    for (arguments, pages) in calls {
        // What stands for a number, a host or a value of the reader.
        let example = arguments
            .replace(" N", " 1")
            .replace(" HOST", " web-1")
            .replace('$', "_");
        let output = shell(&format!("{} {example} --help", program.display()));
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            faults.push(format!("nixfleet {arguments} in {pages:?}: {said}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn documented_tasks_exist() {
    let program = workspace_binary("nixfleet-xtask").unwrap();
    let mut faults = Vec::new();
    for (arguments, pages) in calls("cargo xtask") {
        let task = arguments.split(' ').next().unwrap_or_default();
        let help = Command::new(&program)
            .args(["help", task])
            .output()
            .unwrap();
        if !help.status.success() {
            faults.push(format!("cargo xtask {task} in {pages:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// True for `section.key`, and not for a file.
fn is_dotted(code: &str) -> bool {
    if FILES.iter().any(|extension| code.ends_with(extension)) {
        return false;
    }
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        let mut rest = bytes.clone();
        bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && rest.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    code.contains('.') && code.split('.').all(is_word)
}

fn service(service: Service, arguments: &[&str]) -> String {
    let program = workspace_binary(&format!("nixfleet-{service}")).unwrap();
    let mut command = Command::new(program);
    let output = command.args(arguments).env_clear().output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn documented_configuration_keys_exist() {
    let mut keys: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for span in spans().into_iter().filter(|span| !span.is_fenced) {
        let key = span.code.split('=').next().unwrap_or_default().trim();
        if is_dotted(key) {
            keys.entry(key.to_owned()).or_default().insert(span.page);
        }
    }
    let is_unknown = |of: Service, key: &str| {
        let said = service(of, &["--check-config", "--set", &format!("{key}=0")]);
        // A service without the section names that one.
        let ends = key.match_indices('.').map(|(end, _)| end);
        let mut names = ends.chain([key.len()]).map(|end| &key[..end]);
        names.any(|name| said.contains(&format!("{name}: unknown key")))
    };
    let sections: BTreeSet<String> = Service::ALL
        .into_iter()
        .flat_map(|of| tables(&service(of, &["--print-config"])))
        .collect();
    assert!(sections.contains("bus"), "{sections:?}");
    let mut faults = Vec::new();
    let mut known = 0;
    for (key, pages) in keys {
        let section = key.split('.').next().unwrap_or_default();
        if !sections.contains(section) {
            continue;
        }
        if Service::ALL.into_iter().all(|of| is_unknown(of, &key)) {
            faults.push(format!("{key} in {pages:?}"));
        } else {
            known += 1;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(known > 30, "{known} keys are documented");
}

/// Names of the tables of a configuration.
fn tables(toml: &str) -> Vec<String> {
    let headers = toml.lines().filter_map(|line| line.strip_prefix('['));
    headers
        .filter_map(|header| header.split([']', '.']).next())
        .map(str::to_owned)
        .collect()
}
