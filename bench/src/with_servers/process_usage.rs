//! CPU time and peak memory of processes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Processor time of a process and of all its children, as of now; those that ended are not counted,
/// nor are ours: they are the servers.
pub fn cpu_time_of(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let stat = stat.with_context(|| format!("process {pid} has exited"))?;
    // The name, in parentheses, may contain spaces; user and system time are fields 12 and 13 after it.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || -> Option<u64> { fields.next()?.parse().ok() };
    let spent = ticks().zip(ticks()).map(|(user, system)| user + system);
    let spent = spent.context("reading the processor time of a process")?;
    let mut total =
        Duration::from_secs_f64(spent as f64 / rustix::param::clock_ticks_per_second() as f64);
    if pid == std::process::id() {
        return Ok(total);
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_whitespace() {
        // A child may exit between the two reads.
        total += child
            .parse()
            .ok()
            .and_then(|pid| cpu_time_of(pid).ok())
            .unwrap_or_default();
    }
    Ok(total)
}

/// CPU time of processes since a start time.
pub struct UsageMeter {
    started: Instant,
    processes: Vec<(&'static str, u32, Duration)>,
}

impl UsageMeter {
    /// Starts now; leaves out processes that do not run.
    pub fn start(processes: impl IntoIterator<Item = (&'static str, Option<u32>)>) -> Result<Self> {
        let running = processes
            .into_iter()
            .filter_map(|(name, pid)| Some((name, pid?)));
        let processes = running.map(|(name, pid)| Ok((name, pid, cpu_time_of(pid)?)));
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
            started: Instant::now(),
        })
    }

    /// Cores that each process used since the start, as text.
    pub fn cores(&self) -> Result<String> {
        let wall = self.started.elapsed().as_secs_f64();
        let mut text = Vec::new();
        for (name, pid, before) in &self.processes {
            let spent = cpu_time_of(*pid)?.saturating_sub(*before);
            text.push(format!("{name} {:.2}", spent.as_secs_f64() / wall));
        }
        Ok(format!("cores busy: {}", text.join(", ")))
    }

    /// Peak memory of each process without its children, as text.
    pub fn memory(&self) -> Result<String> {
        let mut text = Vec::new();
        for (name, pid, _) in &self.processes {
            let mebibytes = peak_kib(*pid)? / 1_024;
            text.push(format!("{name} {mebibytes}"));
        }
        Ok(format!("MiB at most: {}", text.join(", ")))
    }
}

fn peak_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.with_context(|| format!("process {pid} has exited"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
    peak.context("the process status has no VmHWM")?
        .parse()
        .context("reading the memory of a process")
}
