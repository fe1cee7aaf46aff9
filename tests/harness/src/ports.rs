//! Free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below what Linux gives to outgoing connections: those would take a port between its choice and the
/// start of its server.
const RANGE: Range<u32> = 10_000..32_768;
/// Processes begin far apart from each other.
const STRIDE: u32 = 1_009;

/// Ports given out by this process so far, tried ones included.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A free port on the loopback address, which no other call of this process returns soon.
///
/// Another process may take the port before the server binds it: callers check that the server that answers
/// is theirs, and try again with another port.
///
/// # Errors
/// When the machine has no free port.
pub fn free() -> Result<u16> {
    let size = RANGE.end - RANGE.start;
    let first = std::process::id().wrapping_mul(STRIDE);
    for _ in RANGE {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(RANGE.start + first.wrapping_add(taken) % size)?;
        if TcpListener::bind(local(port)).is_ok() {
            return Ok(port);
        }
    }
    bail!(
        "every port of the loopback address from {} to {} is taken",
        RANGE.start,
        RANGE.end
    )
}

/// The loopback address with this port.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
