//! Free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};

/// A port nobody listens on at the moment, on the loopback address.
///
/// Somebody may take it before the server does: whoever starts a server on it checks that the one
/// answering is its own, and tries again with another port.
///
/// # Errors
/// When the machine has no free port.
pub fn free() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The loopback address with this port.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
