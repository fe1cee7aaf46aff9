//! Connections to Postgres, and rows as Postgres itself writes them for a COPY.

use std::pin::pin;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, TryStreamExt as _};
use tokio_postgres::{Client, NoTls};

/// Bytes handed over at once: a row by itself would make the client the bottleneck.
const PIECE_BYTES: usize = 256 * 1024;

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connecting to Postgres")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("nixfleet-bench: a connection to Postgres failed: {error}");
        }
    });
    Ok(client)
}

/// Reads a table, or a query in parentheses, as COPY data.
pub async fn copy_out(client: &Client, rows: &str) -> Result<Vec<Bytes>> {
    let copy = format!("COPY {rows} TO STDOUT (FORMAT binary)");
    let stream = client.copy_out(copy.as_str()).await;
    let mut stream = pin!(stream.with_context(|| format!("reading {rows}"))?);
    let (mut pieces, mut piece) = (Vec::new(), BytesMut::new());
    while let Some(bytes) = stream.try_next().await? {
        piece.extend_from_slice(&bytes);
        if piece.len() >= PIECE_BYTES {
            pieces.push(piece.split().freeze());
        }
    }
    pieces.push(piece.freeze());
    Ok(pieces)
}

/// Writes COPY data into a table in one statement; returns the number of rows.
pub async fn copy_in(client: &Client, table: &str, pieces: &[Bytes]) -> Result<u64> {
    let copy = format!("COPY {table} FROM STDIN (FORMAT binary)");
    let mut sink = pin!(client.copy_in(copy.as_str()).await?);
    for bytes in pieces {
        sink.as_mut().feed(bytes.clone()).await?;
    }
    let rows = sink.as_mut().finish().await;
    rows.with_context(|| format!("writing {table}"))
}
