//! Writing to standard output; unlike `println!` a closed pipe is an error and no panic.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use crate::command_error::CommandError;

/// Writes text and ends the line.
pub fn line(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .context("writing to standard output")
        .map_err(CommandError::input)
}

/// Writes one JSON value on one line.
pub fn json(value: &impl Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string(value)
        .context("writing JSON")
        .map_err(CommandError::input)?;
    line(&text)
}
