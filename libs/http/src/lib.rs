//! The parts that both gateways are made of: the TLS listener with client certificates, identities and
//! roles, limits, rates, bodies, error answers, and the verified releases that both of them read.
//!
//! Knows no route: `ingest` and `console` bring theirs. Start reading at `server.rs` (the listener), then
//! `access.rs` (the checks that every request passes).

mod access;
mod backends;
mod clock;
mod config;
mod connections;
mod problem;
mod releases;
mod request_body;
mod request_metrics;
mod server;
mod tls;

pub use access::identity::{ChannelLimit, Identity, IdentityError, PEOPLE, Role};
pub use access::rate_limit::{Rates, RatesConfig};
pub use access::revocations::RevocationList;
pub use access::route_roles::{READERS, Route, require_channel};
pub use access::{Access, RequestScope, check_access};
pub use backends::{Backends, EntryLog, not_appended};
pub use clock::now;
pub use config::{HttpConfig, LimitsConfig, TrustConfig};
pub use connections::peer::Peer;
pub use connections::{Gateway, RouterGateway};
pub use problem::{ApiError, Problem, check_text, out_of_bounds, unknown_path};
pub use releases::{
    Announced, Artifact, Artifacts, Current, LoadError, RELEASE_PART, Releases, RolloutArtifact,
    rollout_manifests::unknown_rollout,
};
pub use request_body::{
    BodyLimit, EXPLAINED_BYTES, JsonBody, culprit, explain, parse, parse_in_place, plain, read_json,
};
pub use request_metrics::RequestMetrics;
pub use server::{Listener, Reloads};
pub use tls::{TlsConfig, check_private};
