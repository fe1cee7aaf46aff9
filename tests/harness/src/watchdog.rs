//! Ends every child when this program ends, however it ends.
//!
//! Destructors do not run on SIGKILL, on `process::exit` or for statics. So each program starts one small
//! shell that reads a pipe whose only writing end the program holds. At the end of the pipe the shell kills
//! all registered processes and all others that carry the owner id in their environment, because a child
//! may start before its registration. The shell runs in its own process group, so that Ctrl-C on a terminal
//! does not reach it first.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Environment variable of every child that names its owner.
pub const OWNER_VARIABLE: &str = "NIXFLEET_CHILD_OF";

const SCRIPT: &str = include_str!("watchdog.sh");

/// Signal that stops a registered process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGKILL.
    Kill,
    /// SIGQUIT, which Postgres needs to take its own children and shared memory along.
    Quit,
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

/// Registers a child.
///
/// # Errors
/// When no shell can be started.
pub fn register(pid: u32, stop_signal: StopSignal) -> Result<()> {
    send_line(&format!("+ {pid} {}\n", stop_signal.name()))
}

/// Removes a child that has ended and was waited for.
///
/// # Errors
/// When the watchdog has exited.
pub fn deregister(pid: u32) -> Result<()> {
    send_line(&format!("- {pid}\n"))
}

/// Registers a directory to remove.
///
/// # Errors
/// When no shell can be started.
pub fn remove_at_end(dir: &Path) -> Result<()> {
    send_line(&format!("d {}\n", dir.display()))
}

/// Value of [`OWNER_VARIABLE`].
///
/// # Errors
/// When the shell cannot be started; an owner id would have no effect then.
pub fn owner_id() -> Result<&'static str> {
    pipe()?;
    Ok(name())
}

fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        format!("{}-{}", std::process::id(), since.as_nanos())
    })
}

fn send_line(line: &str) -> Result<()> {
    let mut pipe = pipe()?.lock().unwrap_or_else(PoisonError::into_inner);
    pipe.write_all(line.as_bytes())
        .and_then(|()| pipe.flush())
        .context("the watchdog of the test processes has exited")
}

fn pipe() -> Result<&'static Mutex<ChildStdin>> {
    static PIPE: OnceLock<Result<Mutex<ChildStdin>, String>> = OnceLock::new();
    PIPE.get_or_init(|| start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn start() -> Result<Mutex<ChildStdin>> {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "nixfleet-watchdog"])
        .env("mark", format!("{OWNER_VARIABLE}={}", name()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting /bin/sh as a watchdog")?;
    let stdin = shell.stdin.take().context("the watchdog has no pipe")?;
    Ok(Mutex::new(stdin))
}
