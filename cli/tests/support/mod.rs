//! Running the binary.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit status and output of the binary.
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `nixfleet` with this standard input, without the variables that could point it elsewhere.
pub fn nixfleet(arguments: &[&str], input: &[u8]) -> Run {
    nixfleet_with(Path::new("/nonexistent/contexts.json"), arguments, input)
}

/// Runs `nixfleet` with a file of contexts.
pub fn nixfleet_with(contexts: &Path, arguments: &[&str], input: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nixfleet"))
        .args(arguments)
        .env_remove("NIXFLEET_URL")
        .env_remove("NIXFLEET_CA")
        .env_remove("NIXFLEET_CERT")
        .env_remove("NIXFLEET_KEY")
        .env_remove("NIXFLEET_CONTEXT")
        .env("NIXFLEET_CONTEXTS", contexts)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A pipe has a small buffer: writing all input before reading output would block.
    let writer = std::thread::spawn(move || {
        // The binary may exit before it has read all input; its exit code is checked.
        stdin.write_all(&input).is_ok()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
