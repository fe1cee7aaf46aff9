//! What the programs that play a whole control plane have in common: exit codes, Ctrl-C, options.
//!
//! Exit codes: 0 everything holds, 1 something does not, 2 wrong options, 130 interrupted.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::printer::Printer;

/// As shells report a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs a program until it ends or is interrupted; `work` says whether everything holds. Dropping it
/// must stop all that it started; the watchdog does so when even that is not reached.
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
    printer.line("interrupted: stopping everything");
    ExitCode::from(EXIT_INTERRUPTED)
}

/// The number of hosts in an option.
///
/// # Errors
/// Says why it is none, or that it is too small.
pub fn hosts_at_least(min: usize, text: &str) -> Result<usize, String> {
    let hosts: usize = text.parse().map_err(|error| format!("{error}"))?;
    if hosts < min {
        return Err(format!(
            "at least {min} hosts fill every wave of every channel"
        ));
    }
    Ok(hosts)
}
