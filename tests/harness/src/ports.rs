//! Free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the ephemeral ports of Linux: outgoing connections would occupy a port between its choice and the
/// start of its server.
const RANGE: Range<u32> = 10_000..32_768;
/// Distance between the first ports of two processes.
const STRIDE: u32 = 1_009;

/// Number of ports that this process has tried.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A free port on the loopback address, which no other call of this process returns soon.
///
/// Another process may bind the port before the server does: callers check that their own server responds,
/// and try again with another port.
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
