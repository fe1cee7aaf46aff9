//! Common parts of the programs that run a whole control plane: exit codes, signals, options.
//!
//! Exit codes: 0 every check holds, 1 a check or the run itself failed, 2 wrong options, 130 interrupted.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::progress_printer::Printer;

/// The exit code with which shells report SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs `work` until it ends or SIGINT or SIGTERM arrives; its value says whether every check holds.
///
/// Dropping `work` must stop every process that it started. The watchdog stops them when this program is killed.
pub fn run(name: &str, printer: Printer, work: impl Future<Output = Result<bool>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(interruptible(printer, work)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{name}: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interruptible(
    printer: Printer,
    work: impl Future<Output = Result<bool>>,
) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        holds = work => Ok(if holds? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        _ = interrupt.recv() => Ok(interrupted(printer)),
        _ = terminate.recv() => Ok(interrupted(printer)),
    }
}

fn interrupted(printer: Printer) -> ExitCode {
    printer.line("interrupted: stopping all processes");
    ExitCode::from(EXIT_INTERRUPTED)
}

/// Options that programs with a result and a testbed share.
#[derive(Debug, Clone, clap::Args)]
pub struct RunOptions {
    /// Print the result as JSON on standard output, and all other output on standard error.
    #[arg(long)]
    pub json: bool,
    /// Keep the testbed running at the end, print its addresses, and wait for Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

impl RunOptions {
    /// With `--keep`, waits until Ctrl-C ends the program.
    pub async fn keep_running(&self, printer: Printer) {
        if self.keep {
            printer.line("all processes keep running until Ctrl-C");
            std::future::pending::<()>().await;
        }
    }
}

/// Parses a number of hosts that is at least `MIN`.
///
/// # Errors
/// When the text is not a number, or the number is too small.
pub fn parse_hosts<const MIN: usize>(text: &str) -> Result<usize, String> {
    let hosts: usize = text.parse().map_err(|error| format!("{error}"))?;
    if hosts < MIN {
        return Err(format!(
            "at least {MIN} hosts fill every wave of every channel"
        ));
    }
    Ok(hosts)
}
