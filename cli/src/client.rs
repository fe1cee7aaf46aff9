//! Requests to console, over mutual TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use nixfleet_proto::wire::{ErrorBody, PROTOCOL_HEADER, PROTOCOL_VERSION};
use reqwest::{Certificate, Identity, Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::atomic_files;
use crate::command_error::{CommandError, InputContext};
use crate::contexts::{Context, Contexts};

/// A server that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer to a question; pages are bounded by the server.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest push: a release of a million hosts is some hundred megabytes.
const PUSH_TIMEOUT: Duration = Duration::from_secs(600);
/// Most faults that are printed one by one.
const FAULTS_SHOWN: usize = 100;

/// Address of console and the certificate of its user; what is not given comes from the context.
#[derive(Debug, Clone, Default, Args)]
pub struct Connection {
    /// Base URL of console, for example https://console.example.org:8444
    #[arg(long, env = "NIXFLEET_URL")]
    pub url: Option<String>,
    /// Certificate authority of the server, PEM
    #[arg(long, value_name = "FILE", env = "NIXFLEET_CA")]
    pub ca: Option<PathBuf>,
    /// Your certificate, PEM
    #[arg(long, value_name = "FILE", env = "NIXFLEET_CERT")]
    pub cert: Option<PathBuf>,
    /// The key of your certificate, PEM
    #[arg(long, value_name = "FILE", env = "NIXFLEET_KEY")]
    pub key: Option<PathBuf>,
    /// Another context than the current one, see `nixfleet context`
    #[arg(long, value_name = "NAME", env = "NIXFLEET_CONTEXT")]
    pub context: Option<String>,
}

impl Connection {
    /// Adds what the context has.
    ///
    /// # Errors
    /// Exit code 2: something is in neither, or the context does not exist.
    fn resolve(&self) -> Result<Context, CommandError> {
        let given = (&self.url, &self.ca, &self.cert, &self.key);
        if let (Some(url), Some(ca), Some(cert), Some(key)) = given {
            let (url, ca) = (url.clone(), ca.clone());
            let (cert, key) = (cert.clone(), key.clone());
            return Ok(Context { url, ca, cert, key });
        }
        let contexts = Contexts::read()?;
        let context = contexts.choose(self.context.as_deref())?;
        let file = |given: &Option<PathBuf>, of: fn(&Context) -> &PathBuf, name| {
            let found = given.clone().or_else(|| Some(of(context?).clone()));
            found.ok_or_else(|| missing(name))
        };
        let url = self.url.clone().or_else(|| Some(context?.url.clone()));
        Ok(Context {
            url: url.ok_or_else(|| missing("url"))?,
            ca: file(&self.ca, |context| &context.ca, "ca")?,
            cert: file(&self.cert, |context| &context.cert, "cert")?,
            key: file(&self.key, |context| &context.key, "key")?,
        })
    }
}

fn missing(name: &str) -> CommandError {
    let variable = name.to_uppercase();
    CommandError::input(anyhow!(
        "--{name} is missing: give it, set NIXFLEET_{variable}, or keep it in a context with `nixfleet context set`"
    ))
}

/// The address of a console.
///
/// # Errors
/// Exit code 2.
pub fn base_url(text: &str) -> Result<Url, CommandError> {
    let base: Url = text
        .parse()
        .or_input_error(|| format!("{text:?} is not a URL"))?;
    if base.scheme() != "https" || base.cannot_be_a_base() {
        return Err(CommandError::input(anyhow!(
            "the URL must begin with https://"
        )));
    }
    Ok(base)
}

/// A connection to console; its methods block.
pub struct Client {
    base: Url,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A path below the base, its segments still unescaped, with a query.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// Segments of the path.
    pub path: &'a [&'a str],
    pub query: Vec<(&'static str, String)>,
}

impl<'a> Request<'a> {
    /// A path without a query.
    pub fn path(path: &'a [&'a str]) -> Self {
        Self {
            path,
            query: Vec::new(),
        }
    }
}

impl Client {
    /// Reads the files and prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// Exit code 2: a file, the URL or the context is at fault.
    pub fn new(connection: &Connection) -> Result<Self, CommandError> {
        let connection = connection.resolve()?;
        let base = base_url(&connection.url)?;
        // Two providers may be linked in; without a choice rustls panics. A second call in one
        // process finds the choice made.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            rustls::crypto::ring::default_provider()
                .install_default()
                .map_err(|_| CommandError::input(anyhow!("no TLS provider can be installed")))?;
        }
        let ca = atomic_files::read(&connection.ca)?;
        let authorities = Certificate::from_pem_bundle(&ca)
            .or_input_error(|| format!("{} has no certificates", connection.ca.display()))?;
        let identity = identity(&connection.cert, &connection.key)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(authorities)
            .identity(identity)
            .connect_timeout(CONNECT_TIMEOUT)
            .https_only(true)
            // The proxy of the environment could not present our certificate.
            .no_proxy()
            .build()
            .or_input_error(|| "cannot set up TLS with these certificates".to_owned())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .or_input_error(|| "cannot start".to_owned())?;
        Ok(Self {
            base,
            http,
            runtime,
        })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Exit code 1 when it is refused, 3 when there is no answer.
    pub fn get(&self, request: &Request<'_>) -> Result<Value, CommandError> {
        self.send(Method::GET, request, None::<&()>, READ_TIMEOUT)
    }

    pub fn command(
        &self,
        method: Method,
        request: &Request<'_>,
        body: Option<&impl Serialize>,
    ) -> Result<Value, CommandError> {
        self.send(method, request, body, READ_TIMEOUT)
    }

    pub fn push(
        &self,
        request: &Request<'_>,
        body: &impl Serialize,
    ) -> Result<Value, CommandError> {
        self.send(Method::PUT, request, Some(body), PUSH_TIMEOUT)
    }

    pub fn pause(&self, duration: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(duration).await });
    }

    fn send(
        &self,
        method: Method,
        request: &Request<'_>,
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<Value, CommandError> {
        let url = self.url(request);
        let mut builder = self
            .http
            .request(method, url.clone())
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .query(&request.query)
            .timeout(timeout);
        if let Some(body) = body {
            builder = builder.json(body);
        }
        self.runtime.block_on(async {
            let response = builder.send().await.map_err(|error| lost(&url, error))?;
            answer(&url, response).await
        })
    }

    fn url(&self, request: &Request<'_>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(request.path);
        }
        url
    }
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, CommandError> {
    let mut pem = atomic_files::read(cert)?;
    pem.push(b'\n');
    pem.extend(atomic_files::read(key)?);
    Identity::from_pem(&pem).or_input_error(|| {
        format!(
            "{} and {} are not a certificate with its key",
            cert.display(),
            key.display()
        )
    })
}

fn lost(url: &Url, error: reqwest::Error) -> CommandError {
    CommandError::unreachable(
        anyhow::Error::new(error.without_url()).context(format!("no answer from {url}")),
    )
}

async fn answer(url: &Url, response: Response) -> Result<Value, CommandError> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| lost(url, error))?;
    if status.is_success() {
        return serde_json::from_slice(&bytes)
            .with_context(|| format!("{url} answered with something else than JSON"))
            .map_err(CommandError::unreachable);
    }
    let message = refusal(status, &bytes);
    if status.is_server_error() {
        Err(CommandError::unreachable(anyhow!(message)))
    } else {
        Err(CommandError::refused(anyhow!(message)))
    }
}

/// Text of an error response, with the faults of a release.
fn refusal(status: StatusCode, bytes: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(bytes) else {
        return format!("the server answered {status}");
    };
    let mut message = format!("{} ({}, {status})", body.message, body.code);
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let faults = document["faults"].as_array().map_or(&[][..], Vec::as_slice);
    for fault in faults.iter().take(FAULTS_SHOWN) {
        let text = fault["message"].as_str().or(fault.as_str()).unwrap_or("?");
        message.push_str("\n  ");
        message.push_str(text);
    }
    if faults.len() > FAULTS_SHOWN {
        message.push_str(&format!("\n  and {} more", faults.len() - FAULTS_SHOWN));
    }
    message
}

/// Reads the part of an answer that a table needs.
///
/// # Errors
/// Exit code 3: a server of another version.
pub fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, CommandError> {
    T::deserialize(answer)
        .context("the answer has another shape than this program knows, use --json")
        .map_err(CommandError::unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_lists_the_faults() {
        let body = br#"{"code":"release-refused","message":"no","retryable":false,
            "faults":[{"code":"cycle","message":"edges: a cycle"},"plain"]}"#;
        assert_eq!(
            refusal(StatusCode::UNPROCESSABLE_ENTITY, body),
            "no (release-refused, 422 Unprocessable Entity)\n  edges: a cycle\n  plain"
        );
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b"<html>"),
            "the server answered 502 Bad Gateway"
        );
    }
}
