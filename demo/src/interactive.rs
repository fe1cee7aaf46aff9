//! A running fleet without a release: a person publishes and operates with `nixfleet`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nixfleet_harness::binaries;
use nixfleet_harness::progress_printer::Printer;
use serde_json::{Map, Value};

use crate::fleet;
use crate::scenario::TICK;
use crate::testbed::Testbed;

/// Runs the hosts of a fleet source until Ctrl-C ends the program.
pub async fn run(
    testbed: &mut Testbed,
    source: &Path,
    env_file: &Path,
    printer: &Printer,
) -> Result<bool> {
    let hostnames = hostnames(source)?;
    let hosts = hostnames.len();
    testbed.start_swarm(hostnames, fleet::predictable_profile()?)?;
    std::fs::write(env_file, environment(testbed)?)
        .with_context(|| format!("writing {}", env_file.display()))?;
    printer.line(&format!(
        "\n{hosts} hosts run until Ctrl-C. In another terminal: source {}",
        env_file.display()
    ));
    loop {
        testbed.supervise(printer)?;
        tokio::time::sleep(TICK).await;
    }
}

fn hostnames(source: &Path) -> Result<Vec<String>> {
    let reading = || format!("reading the hosts of {}", source.display());
    let bytes = std::fs::read(source).with_context(reading)?;
    let mut source: Value = serde_json::from_slice(&bytes).with_context(reading)?;
    let hosts: Map<String, Value> =
        serde_json::from_value(source["hosts"].take()).with_context(reading)?;
    ensure!(!hosts.is_empty(), "{}: there are none", reading());
    Ok(hosts.into_iter().map(|(hostname, _)| hostname).collect())
}

/// Shell text that puts `nixfleet` into `PATH` and lets it act as the operator.
fn environment(testbed: &Testbed) -> Result<String> {
    let nixfleet = binaries::workspace_binary("nixfleet")?;
    let programs = nixfleet.parent().context("a program is in a folder")?;
    let mut text = format!("export PATH={}:\"$PATH\"\n", quoted(programs));
    for (name, value) in testbed.operator_env()? {
        text.push_str(&format!("export {name}={}\n", quoted(value.as_ref())));
    }
    let release_key = testbed.write_release_key()?;
    text.push_str(&format!(
        "export NIXFLEET_RELEASE_KEY={}\n",
        quoted(&release_key)
    ));
    Ok(text)
}

/// One word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
