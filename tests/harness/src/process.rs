//! Child processes that never outlive this process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::watchdog::{self, StopSignal};

/// Bytes of a log quoted in an error message.
const TAIL_BYTES: i64 = 4_000;

/// A program with its arguments and environment.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// For messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Standard output and standard error are appended here.
    pub log: PathBuf,
    /// User and group to run as; needs root.
    pub user: Option<(u32, u32)>,
    /// Directory to run in; absent means ours.
    pub dir: Option<PathBuf>,
    /// Signal with which the watchdog stops the process.
    pub stop_signal: StopSignal,
}

impl ProcessSpec {
    /// A recipe without arguments, environment or user.
    pub fn new(name: impl Into<String>, program: PathBuf, log: PathBuf) -> Self {
        Self {
            name: name.into(),
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            log,
            user: None,
            dir: None,
            stop_signal: StopSignal::Kill,
        }
    }
}

/// A running child in its own process group, killed on drop.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    child: Child,
    status: Option<ExitStatus>,
    /// The last signal sent: asking a service twice to stop means "at once".
    last_signal: Option<Signal>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When the program or its log file cannot be opened.
    pub fn start(spec: ProcessSpec) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("opening {}", spec.log.display()))?;
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .envs(&spec.env)
            .env(watchdog::OWNER_VARIABLE, watchdog::owner_id()?)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .process_group(0);
        if let Some((uid, gid)) = spec.user {
            command.uid(uid).gid(gid);
        }
        if let Some(dir) = &spec.dir {
            command.current_dir(dir);
        }
        let child = command
            .spawn()
            .with_context(|| format!("starting {} ({})", spec.name, spec.program.display()))?;
        watchdog::register(child.id(), spec.stop_signal)?;
        Ok(Self {
            spec,
            child,
            status: None,
            last_signal: None,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The specification that the process was started with.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    /// The exit status, when it has ended.
    ///
    /// # Errors
    /// When the status cannot be read.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            self.status = Some(status);
            watchdog::deregister(self.child.id())?;
        }
        Ok(self.status)
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!("{} ended with {status}:\n{}", self.spec.name, self.tail());
        }
        Ok(())
    }

    /// Sends a signal; no effect after the process has ended.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        self.last_signal = Some(signal);
        kill_process(self.id()?, signal).with_context(|| format!("signalling {}", self.spec.name))
    }

    /// Limits the size of files that the process may write; `None` removes the limit.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<()> {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(self.id()?), Resource::Fsize, limit)
            .with_context(|| format!("limiting the files of {}", self.spec.name))?;
        Ok(())
    }

    fn id(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("the process id is out of range")
    }

    /// Sends `signal`, unless it was the last one sent, and waits for the end; after `timeout` it
    /// is killed, which is an error.
    ///
    /// # Errors
    /// When it does not end by itself.
    pub fn stop(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        if self.last_signal != Some(signal) {
            self.signal(signal)?;
        }
        let start = Instant::now();
        while start.elapsed() < timeout {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            std::thread::sleep(crate::wait::POLL);
        }
        self.kill()?;
        bail!(
            "{} did not stop within {} s and was killed:\n{}",
            self.spec.name,
            timeout.as_secs(),
            self.tail()
        )
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.exit_status()? {
            return Ok(status);
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        self.status = Some(status);
        watchdog::deregister(self.child.id())?;
        Ok(status)
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        tail(&self.spec.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = match self.spec.stop_signal {
            StopSignal::Kill => self.kill(),
            StopSignal::Quit => self.stop(Signal::QUIT, Duration::from_secs(10)),
        };
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
        if std::thread::panicking() {
            eprintln!("--- end of the log of {}:\n{}", self.spec.name, self.tail());
        }
    }
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(no log at {}: {error})", path.display()))
}
