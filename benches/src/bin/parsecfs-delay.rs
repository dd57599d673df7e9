//! A line with a delay: everything that goes through arrives later, in both directions, and as fast as it came.
//!
//! In the place of `tc netem` on kernels that have none.

use std::{future::Future, time::Duration};

use anyhow::Result;
use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::channel,
    time::{Instant, sleep_until},
};

/// Bytes taken at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on the line at once in one direction: what a long fat line holds.
const PIECES_MAX: usize = 1024;

/// A line with a delay.
#[derive(Parser)]
struct Arguments {
    /// Port to listen on.
    port: u16,
    /// Port to go on to.
    to: u16,
    /// Delay in each direction, in ms.
    delay_ms: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { port, to, delay_ms } = Arguments::parse();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (near, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A side that is gone ends its line.
            let _ = join(near, to, Duration::from_millis(delay_ms)).await;
        });
    }
}

async fn join(near: TcpStream, to: u16, delay: Duration) -> Result<()> {
    let far = TcpStream::connect(("127.0.0.1", to)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (one, other) = tokio::join!(carry(near_in, far_out, delay), carry(far_in, near_out, delay));
    one.and(other)
}

fn carry(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Duration,
) -> impl Future<Output = Result<()>> {
    let (put, mut take) = channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            if from.read_buf(&mut piece).await? == 0 || put.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = take.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await?;
        Ok(())
    };
    async move { tokio::try_join!(reading, writing).map(drop) }
}
