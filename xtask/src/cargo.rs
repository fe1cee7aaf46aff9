//! Calling cargo and what it built.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lives one level below the root")
}

/// Packages of the control plane.
const SERVICES: [&str; 6] = [
    "nixfleet-ingest",
    "nixfleet-console",
    "nixfleet-reducer",
    "nixfleet-planner",
    "nixfleet-applier",
    "nixfleet-eventlog",
];

/// Builds a program that runs a control plane, and the programs that it starts, and executes it.
pub fn run(program: &str, options: &[String]) -> Result<()> {
    let mut arguments = vec!["build", "--bins"];
    let started = ["nixfleet-swarm", "nixfleet-cli", program];
    arguments.extend(selection(&[&SERVICES[..], &started].concat()));
    cargo(&arguments)?;
    let program = built_program(program)?;
    print_command(&program, options);
    let error = Command::new(&program).args(options).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Builds all programs and tests in one run, so that features are resolved once, and runs the tests.
pub fn test(options: &[String]) -> Result<()> {
    cargo(&["build", "--workspace", "--bins", "--tests"])?;
    // There are no doc tests. One run shows all failures.
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(["--lib", "--bins", "--tests"]);
    arguments.extend(options.iter().map(String::as_str));
    cargo(&arguments)
}

/// Builds the measurements and the programs that they run in release, and becomes them.
pub fn bench(options: &[String]) -> Result<()> {
    run_with_services("nixfleet-bench", options)
}

/// Builds the long run and the programs that it runs in release, and becomes it.
pub fn endurance(options: &[String]) -> Result<()> {
    run_with_services("nixfleet-endurance", options)
}

/// Builds a package and all services in release, and becomes its program of the same name.
fn run_with_services(package: &str, options: &[String]) -> Result<()> {
    let packages = selection(&[&[package][..], &SERVICES].concat());
    release(&packages, package, options)
}

/// The options of cargo that select packages.
fn selection<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let selected = packages.iter().flat_map(|package| ["--package", package]);
    selected.collect()
}

pub fn sim(options: &[String]) -> Result<()> {
    // Mutants are compiled in on request only.
    let features = if options.iter().any(|option| option == "--mutants") {
        "mutants"
    } else {
        ""
    };
    let (package, program) = ("nixfleet-simulation", "nixfleet-sim");
    release(
        &["--package", package, "--features", features],
        program,
        options,
    )
}

/// Builds the selected packages in release and becomes one of their programs.
fn release(selected: &[&str], program: &str, options: &[String]) -> Result<()> {
    cargo(&[&["build", "--release"], selected].concat())?;
    let target = build_folder()?.with_file_name("release");
    let program = target.join(program);
    print_command(&program, options);
    let error = Command::new(&program).args(options).exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}

/// Formatting, lints, layout.
pub fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo(&["test", "--workspace", "--test", "main", "suite::guard"])
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    print_command(Path::new("cargo"), arguments);
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .context("starting cargo")?;
    ensure!(
        status.success(),
        "`cargo {}` ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}

/// The folder of this program: one of cargo's, with those of other profiles beside it.
fn build_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let folder = own.parent().context("a program is in a folder")?;
    Ok(folder.to_owned())
}

/// A program in the directory of this one, where cargo puts all programs.
fn built_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running program")?;
    let path = own.with_file_name(name);
    ensure!(path.is_file(), "{} was not built", path.display());
    Ok(path)
}

/// Shows a command before it runs.
pub fn print_command<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) {
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect();
    eprintln!("xtask: {} {}", program.display(), words.join(" "));
}
