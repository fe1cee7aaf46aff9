//! A process of a service.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Process, ProcessSpec, tail};
use crate::service::Service;
use crate::{binaries, monitoring, ports};

/// Services drain for at most 25 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A process of a service; it keeps its ports over restarts.
#[derive(Debug)]
pub struct Instance {
    service: Service,
    number: usize,
    admin_port: u16,
    https_port: Option<u16>,
    spec: ProcessSpec,
    process: Option<Process>,
}

impl Instance {
    /// Starts it; the environment is completed with its listeners.
    ///
    /// # Errors
    /// When the program is missing.
    pub(super) fn start(
        service: Service,
        number: usize,
        dir: &Path,
        mut environment: BTreeMap<String, String>,
    ) -> Result<Self> {
        let admin_port = ports::free()?;
        let listen = |port| ports::local(port).to_string();
        environment.insert(service.variable("admin.listen"), listen(admin_port));
        let https_port = match service.is_gateway() {
            true => {
                let port = ports::free()?;
                environment.insert(service.variable("http.listen"), listen(port));
                Some(port)
            }
            false => None,
        };
        let name = format!("{service}-{number}");
        let log = dir.join(format!("{name}.log"));
        let mut spec = ProcessSpec::new(name, binaries::workspace_binary(&service.program())?, log);
        spec.env = environment;
        let mut instance = Self {
            service,
            number,
            admin_port,
            https_port,
            spec,
            process: None,
        };
        instance.restart()?;
        Ok(instance)
    }

    /// The service.
    pub fn service(&self) -> Service {
        self.service
    }

    /// Number of this process among those of its service, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// `<service>-<number>`.
    pub fn name(&self) -> String {
        self.spec.name.clone()
    }

    /// Port of health and metrics.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// `https://…` of a gateway.
    pub fn url(&self) -> Option<String> {
        self.https_port
            .map(|port| format!("https://127.0.0.1:{port}"))
    }

    /// Process id, while the process runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Starts it unless it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        self.process = Some(Process::start(self.spec.clone())?);
        Ok(())
    }

    /// True while the process runs.
    ///
    /// # Errors
    /// When the status cannot be read.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.exit_status()?.is_none()),
            None => Ok(false),
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Freezes the process (SIGSTOP): it keeps its connections and sends nothing.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues a frozen process (SIGCONT).
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        match &mut self.process {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }

    /// Exit status of the process, once it has ended.
    ///
    /// # Errors
    /// When the status cannot be read.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => process.exit_status(),
            None => Ok(None),
        }
    }

    /// Sends SIGTERM without waiting.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn request_stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// When it has to be killed, or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(Signal::TERM, STOP_TIMEOUT)?;
            ensure!(
                status.success(),
                "{} ended with {status}:\n{}",
                self.spec.name,
                process.tail()
            );
        }
        Ok(())
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        tail(&self.spec.log)
    }

    /// `/metrics`, as text.
    ///
    /// # Errors
    /// When it does not respond.
    pub fn metrics(&self) -> Result<String> {
        Ok(monitoring::get(self.admin_port, "/metrics")?.body)
    }

    /// True when the process is ready except for its first release.
    pub fn is_ready(&mut self) -> bool {
        matches!(self.ready_except_release(), Ok(Some(())))
    }

    /// `Some` once all conditions except the first release hold; a gateway is not ready without one.
    pub(super) fn ready_except_release(&mut self) -> Result<Option<()>> {
        if let Some(process) = &mut self.process {
            process.check_alive()?;
        }
        let answer = monitoring::get(self.admin_port, "/readyz")?;
        if answer.status == 200 {
            return Ok(Some(()));
        }
        let ready: Value = serde_json::from_str(&answer.body).context("reading /readyz")?;
        let waiting: Vec<&String> = ready["components"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, component)| component["ready"] != true)
            .map(|(name, _)| name)
            .collect();
        ensure!(
            self.service.is_gateway() && waiting == ["release"],
            "{} is not ready: {}",
            self.spec.name,
            answer.body
        );
        Ok(Some(()))
    }
}
