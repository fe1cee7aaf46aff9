use std::ffi::OsString;
use std::path::PathBuf;

use super::*;

const INFO: ServiceInfo = ServiceInfo {
    name: "test",
    version: "1.2.3",
    about: "Tests.",
};

#[track_caller]
fn arguments(args: &[&str]) -> Arguments {
    let args = std::iter::once("nixfleet-test").chain(args.iter().copied());
    Arguments::parse(&INFO, args.map(OsString::from)).unwrap()
}

#[test]
fn flags_choose_the_file_the_mode_and_single_keys() {
    let plain = arguments(&[]);
    assert_eq!(plain.mode, Mode::Run);
    assert_eq!(plain.sources.env_prefix, "NIXFLEET_TEST__");
    let full = arguments(&["--config", "/a.toml", "--set", "a.b=1", "--check-config"]);
    assert_eq!(full.mode, Mode::Check);
    assert_eq!(full.sources.file, Some(PathBuf::from("/a.toml")));
    assert_eq!(full.sources.set, ["a.b=1"]);
    assert_eq!(arguments(&["--print-config"]).mode, Mode::Print);
}

#[test]
fn unknown_flags_are_refused_with_the_configuration_exit_code() {
    let args = ["nixfleet-test", "--nonsense"].map(OsString::from);
    let error = Arguments::parse(&INFO, args).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_CONFIGURATION));
}

#[test]
fn every_start_has_its_own_instance_name() {
    let (first, second) = (unique_instance(Some("a")), unique_instance(Some("a")));
    assert!(first.starts_with("a-"));
    assert_ne!(first, second);
}

struct TestProcess {
    shutdown: CancellationToken,
    tasks: Tasks,
}

fn process() -> TestProcess {
    let shutdown = CancellationToken::new();
    TestProcess {
        tasks: Tasks::new(shutdown.clone()),
        shutdown,
    }
}

impl TestProcess {
    async fn end(&self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        run_and_drain(
            work,
            &self.tasks,
            &self.shutdown,
            Duration::from_millis(200),
        )
        .await
    }
}

#[tokio::test]
async fn work_that_ends_stops_the_tasks_and_is_clean() {
    let process = process();
    let shutdown = process.shutdown.clone();
    process.tasks.spawn("side", async move {
        shutdown.cancelled().await;
        Ok(())
    });
    process.end(async { Ok(()) }).await.unwrap();
}

#[tokio::test]
async fn a_failed_task_ends_the_work_with_its_failure() {
    let process = process();
    process
        .tasks
        .spawn("side", async { anyhow::bail!("no luck") });
    let shutdown = process.shutdown.clone();
    let work = async move {
        shutdown.cancelled().await;
        Ok(())
    };
    let error = process.end(work).await.unwrap_err();
    assert_eq!(error.to_string(), "task side: no luck");
}

#[tokio::test]
async fn a_drain_has_an_end_and_names_who_did_not_stop() {
    let process = process();
    process.tasks.spawn("stuck", std::future::pending());
    let error = process.end(async { Ok(()) }).await.unwrap_err();
    assert!(error.to_string().contains("stuck"), "{error}");
    process.shutdown.cancel();
    let error = process.end(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("work"), "{error}");
}
