//! Runs every command of `docs/tutorial.md` against the fleet that the page starts, and compares outputs.

mod output_comparison;
mod page_parser;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::{binaries, scratch, wait_for};
use page_parser::{Step, steps};
use rustix::process::Signal;

/// Longest time until an output is reached: a rollout takes some seconds, a busy machine is slower.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Exit code of an interrupted program.
const INTERRUPTED: i32 = 130;

/// Commands that change nothing, which a reader repeats until the fleet is there.
const READS: [&str; 6] = [
    "status",
    "hosts",
    "rollouts",
    "deferrals",
    "explain",
    "events",
];

#[tokio::test]
async fn every_command_of_the_tutorial_prints_what_the_page_shows() {
    let page = std::fs::read_to_string(binaries::checkout().join("docs/tutorial.md")).unwrap();
    let mut reader = Reader::new().unwrap();
    for step in steps(&page).unwrap() {
        reader.follow(&step).await.unwrap();
    }
    assert!(
        reader.demo.is_none(),
        "the page starts a fleet and stops it"
    );
}

/// Somebody with two terminals in a folder that looks like the checkout.
struct Reader {
    dir: PathBuf,
    /// The first terminal, and how much of its output the page has shown.
    demo: Option<(Process, usize)>,
    /// The commands of the second terminal that later ones depend on.
    sourced: String,
}

impl Reader {
    fn new() -> Result<Self> {
        let dir = scratch::dir("tutorial")?;
        std::os::unix::fs::symlink(binaries::checkout().join("docs"), dir.join("docs"))?;
        std::fs::create_dir(dir.join(".dev"))?;
        Ok(Self {
            dir,
            demo: None,
            sourced: String::new(),
        })
    }

    async fn follow(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Demo { options, output } => self.start(options, output).await,
            Step::Interrupt { output } => self.interrupt(output).await,
            Step::Command { command, output } => self.run(command, output).await,
        }
        .with_context(|| format!("{step:?}"))
    }

    async fn start(&mut self, options: &[String], expected: &str) -> Result<()> {
        ensure!(self.demo.is_none(), "the demo runs already");
        let program = binaries::workspace_binary("nixfleet-demo")?;
        let mut spec = ProcessSpec::new("demo", program, self.log());
        spec.args = options.to_vec();
        spec.dir = Some(self.dir.clone());
        let mut demo = Process::start(spec)?;
        let shown = wait_for("the fleet runs", TIMEOUT, async || {
            demo.check_alive()?;
            let shown = std::fs::read_to_string(self.log())?;
            output_comparison::compare(expected, &shown)?;
            Ok(Some(shown.len()))
        });
        let shown = shown.await?;
        self.demo = Some((demo, shown));
        Ok(())
    }

    async fn interrupt(&mut self, expected: &str) -> Result<()> {
        let (mut demo, shown) = self.demo.take().context("nothing runs")?;
        demo.signal(Signal::INT)?;
        let ended = wait_for("the demo ends", TIMEOUT, async || demo.exit_status());
        ensure!(ended.await?.code() == Some(INTERRUPTED));
        output_comparison::compare(expected, &std::fs::read_to_string(self.log())?[shown..])
    }

    fn log(&self) -> PathBuf {
        self.dir.join("terminal.log")
    }

    async fn run(&mut self, command: &str, expected: &str) -> Result<()> {
        if command.starts_with("source ") {
            self.sourced.push_str(command);
            self.sourced.push('\n');
        }
        let mut words = command.split_whitespace();
        let is_read = words.next() == Some("nixfleet")
            && words.next().is_some_and(|word| READS.contains(&word));
        if !is_read {
            return output_comparison::compare(expected, &self.output(command).await?);
        }
        wait_for("the output of the page", TIMEOUT, async || {
            output_comparison::compare(expected, &self.output(command).await?).map(Some)
        })
        .await
    }

    async fn output(&self, command: &str) -> Result<String> {
        let done = tokio::process::Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c"])
            .arg(format!("{}{command}", self.sourced))
            .current_dir(&self.dir)
            .kill_on_drop(true)
            .output()
            .await?;
        let (out, err) = (
            String::from_utf8(done.stdout)?,
            String::from_utf8(done.stderr)?,
        );
        if !done.status.success() || !err.is_empty() {
            bail!("it ended with {}:\n{out}{err}", done.status);
        }
        Ok(out)
    }
}
