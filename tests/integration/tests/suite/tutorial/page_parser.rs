//! The steps of a page: the commands in its fenced blocks with their outputs.

use anyhow::{Context, Result, ensure};

/// What a reader does, and what the terminal shows then.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// `cargo xtask demo …` in the first terminal.
    Demo {
        options: Vec<String>,
        output: String,
    },
    /// A command in the second terminal.
    Command { command: String, output: String },
    /// Ctrl-C in the first terminal.
    Interrupt { output: String },
}

/// Reads all blocks in their order. A block of another form is an error: nobody would check it.
pub fn steps(page: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        ensure!(kind == "console", "a block of kind {kind:?}, not `console`");
        let mut block = lines.by_ref().take_while(|line| *line != "```").peekable();
        ensure!(block.peek().is_some(), "an empty block");
        while let Some(line) = block.next() {
            let typed = if line == "^C" {
                Some(line)
            } else {
                line.strip_prefix("$ ")
            };
            let mut typed = typed
                .with_context(|| format!("{line:?} begins a block and is no command"))?
                .to_owned();
            while let Some(start) = typed.strip_suffix('\\') {
                let rest = block.next().context("a command does not end")?;
                typed = format!("{start}{}", rest.trim_start());
            }
            let mut output = String::new();
            while let Some(line) = block.next_if(|line| !line.starts_with("$ ")) {
                output.push_str(line);
                output.push('\n');
            }
            steps.push(step(typed, output));
        }
    }
    Ok(steps)
}

fn step(typed: String, output: String) -> Step {
    match typed.strip_prefix("cargo xtask demo ") {
        Some(options) => Step::Demo {
            options: options.split_whitespace().map(str::to_owned).collect(),
            output,
        },
        None if typed == "^C" => Step::Interrupt { output },
        None => Step::Command {
            command: typed,
            output,
        },
    }
}

#[test]
fn commands_are_read_with_their_outputs() {
    let page = "text\n```console\n$ cargo xtask demo --a b\n…\nruns\n```\n\
                more\n```console\n$ one \\\n    two\n$ three\nx\n\ny\n```\n```console\n^C\nend\n```\n";
    let command = |command: &str, output: &str| Step::Command {
        command: command.to_owned(),
        output: output.to_owned(),
    };
    let expected = [
        Step::Demo {
            options: vec!["--a".to_owned(), "b".to_owned()],
            output: "…\nruns\n".to_owned(),
        },
        command("one two", ""),
        command("three", "x\n\ny\n"),
        Step::Interrupt {
            output: "end\n".to_owned(),
        },
    ];
    assert_eq!(steps(page).unwrap(), expected);
}

#[test]
fn other_blocks_are_errors() {
    for page in [
        "```\n$ command\n```",
        "```json\n{}\n```",
        "```console\noutput\n```",
        "```console\n```",
        "```console\n$ command \\\n```",
    ] {
        assert!(steps(page).is_err(), "{page}");
    }
}
