//! `nixfleet debug`: the pure cores on standard input.
//!
//! Source: docs/debug-commands.md.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use nixfleet_core::json_lines::{rollout_line, step_line};
use nixfleet_plan::json_case::plan_line;
use nixfleet_trust::canonicalize;

use crate::command_error::{CommandError, InputContext};

/// Runs a pure core on standard input
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: everything was answered, a rejection is an answer. Exit code 2: the input is not valid;\n\
standard error names the line.")]
pub struct Arguments {
    #[command(subcommand)]
    core: Core,
}

#[derive(Debug, Subcommand)]
enum Core {
    /// The host machine: one case per input line, one result per output line
    Step,
    /// The rollout machine, likewise
    Rollout,
    /// The planner, likewise
    Plan,
    /// The RFC 8785 form of one JSON document
    Canonicalize,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    match arguments.core {
        Core::Step => each_line(|line| Ok(step_line(line)?)),
        Core::Rollout => each_line(|line| Ok(rollout_line(line)?)),
        Core::Plan => each_line(|line| Ok(plan_line(line)?)),
        Core::Canonicalize => canonical(),
    }
}

/// Processes input line by line. Output is flushed before each blocking read, so that another program can
/// send requests and wait for each result.
fn each_line(answer: impl Fn(&str) -> anyhow::Result<String>) -> Result<(), CommandError> {
    let mut input = BufReader::new(std::io::stdin().lock());
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        let read = input
            .read_until(b'\n', &mut bytes)
            .or_input_error(|| "reading standard input".to_owned())?;
        if read == 0 {
            break;
        }
        let answered = std::str::from_utf8(&bytes)
            .context("not UTF-8")
            .and_then(|line| answer(line.trim_end_matches(['\n', '\r'])));
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                write_out(&mut output, b"", Flush::Yes)?;
                return Err(CommandError::input(error.context(format!("line {number}"))));
            }
        };
        let flush = if input.buffer().is_empty() {
            Flush::Yes
        } else {
            Flush::No
        };
        write_out(&mut output, format!("{answered}\n").as_bytes(), flush)?;
    }
    write_out(&mut output, b"", Flush::Yes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Yes,
    No,
}

fn write_out(output: &mut impl Write, bytes: &[u8], flush: Flush) -> Result<(), CommandError> {
    output
        .write_all(bytes)
        .and_then(|()| match flush {
            Flush::Yes => output.flush(),
            Flush::No => Ok(()),
        })
        .or_input_error(|| "writing to standard output".to_owned())
}

fn canonical() -> Result<(), CommandError> {
    // One more than is allowed, so that too much is refused as too large and not as truncated.
    let most = nixfleet_trust::ARTIFACT_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .or_input_error(|| "reading standard input".to_owned())?;
    let canonical =
        canonicalize(&bytes).map_err(|error| CommandError::input(anyhow!("refused: {error}")))?;
    write_out(&mut std::io::stdout().lock(), &canonical, Flush::Yes)
}
