//! Who is at the other end of a connection.

use std::sync::Arc;

use super::client_limits::Client;
use crate::access::identity::{Identity, IdentityError};

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// No certificate was presented.
    Anonymous,
    /// A verified certificate that names nobody.
    Unusable(IdentityError),
    /// A verified certificate, and the bounds that the connections of its owner share.
    Known(Arc<Identity>, Arc<Client>),
}
