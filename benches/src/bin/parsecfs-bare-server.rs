//! What a Parsec server takes and gives when nothing but requests is made: the measure for a mount on it.
//!
//! Makes an organization of its own, then puts blocks, gets them, and creates vlobs, each in a bare loop of concurrent
//! requests. Prints one JSON object: MiB/s up and down, vlobs/s, small
//! blocks/s.
#![allow(clippy::print_stdout, reason = "a program that prints its answer")]

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures::{StreamExt, stream};
use parsecfs_backends::{
    conformance::World,
    parsec::{Limits, Options, ParsecStorage, administration, command::Request},
};
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    name::OrganizationId,
    storage::CertificateStore as _,
    time::Timestamp,
    url::{Action, ServerAddr},
};
use parsecfs_crypto::random_bytes;

/// Sealed size of the block that other clients make.
const BLOCK_BYTES: usize = (512 << 10) + 40;
/// Sealed size of the block of a small file.
const SMALL_BYTES: usize = (4 << 10) + 40;
/// Sealed size of the manifest of a small file, about.
const VLOB_BYTES: usize = 400;

/// Bare loops of requests to a Parsec server.
#[derive(Parser)]
struct Arguments {
    /// parsec3://HOST:PORT?no_ssl=true
    server: String,
    /// Administration token.
    token: String,
    /// MiB in blocks.
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Vlobs.
    #[arg(long, default_value_t = 1000)]
    vlobs: usize,
    /// Requests at once.
    #[arg(long, default_value_t = 4)]
    at_once: usize,
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).ok().and_then(Timestamp::from_micros).unwrap_or(Timestamp::MAX)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (storage, realm) = organization(&arguments).await?;
    let blocks: Vec<_> = (0..arguments.mib * 2).map(|_| BlockId::from_bytes(random_bytes())).collect();
    let content: Vec<u8> = random_bytes::<64>().into_iter().cycle().take(BLOCK_BYTES).collect();
    let mib = (blocks.len() * BLOCK_BYTES) as f64 / f64::from(1 << 20);
    let up = all(&storage, arguments.at_once, blocks.iter().map(|id| put(id, realm, &content)));
    let up = mib / up.await?;
    let small: Vec<_> = (0..arguments.vlobs).map(|_| BlockId::from_bytes(random_bytes())).collect();
    let small_blocks = all(&storage, arguments.at_once, small.iter().map(|id| put(id, realm, &content[..SMALL_BYTES])));
    let small_blocks = arguments.vlobs as f64 / small_blocks.await?;
    let reads = blocks.iter().map(|id| Request::new("block_read").with("block_id", id).with("realm_id", &realm));
    let down = mib / all(&storage, arguments.at_once, reads).await?;
    let vlobs = (0..arguments.vlobs).map(|_| {
        Request::new("vlob_create")
            .with("realm_id", &realm)
            .with("vlob_id", &VlobId::from_bytes(random_bytes()))
            .with("key_index", &1_u64)
            .with("timestamp", &now())
            .with_bytes("blob", &content[..VLOB_BYTES])
    });
    let created = arguments.vlobs as f64 / all(&storage, arguments.at_once, vlobs).await?;
    println!(
        "{}",
        serde_json::json!({"up_mib_s": up, "down_mib_s": down, "vlobs_s": created, "small_blocks_s": small_blocks})
    );
    Ok(())
}

fn put(id: &BlockId, realm: RealmId, content: &[u8]) -> Request {
    Request::new("block_create")
        .with("block_id", id)
        .with("realm_id", &realm)
        .with("key_index", &1_u64)
        .with_bytes("block", content)
}

/// Seconds that these requests take.
async fn all(storage: &ParsecStorage, at_once: usize, requests: impl Iterator<Item = Request>) -> Result<f64> {
    let began = Instant::now();
    let mut replies = stream::iter(requests).map(|request| storage.call(request)).buffer_unordered(at_once);
    while let Some(reply) = replies.next().await {
        reply?.ok()?;
    }
    Ok(began.elapsed().as_secs_f64())
}

async fn organization(arguments: &Arguments) -> Result<(Arc<ParsecStorage>, RealmId)> {
    let server = ServerAddr::parse(&arguments.server).context("not the address of a server")?;
    let name = format!("Bare{}", u32::from_le_bytes(random_bytes()));
    let organization = OrganizationId::new(&name)?;
    let limits = Limits::default();
    let address = administration::create_organization(&server, &arguments.token, &organization, limits).await?;
    let Action::Bootstrap { token: bootstrap_token } = address.action else { anyhow::bail!("no token") };
    let founder = World::founder();
    let storage = ParsecStorage::open(Options {
        server,
        organization,
        root: *founder.root.verify_key().as_bytes(),
        bootstrap_token,
        signer: Arc::new(founder.copy()),
        clock: Arc::new(now),
        limits,
    })?;
    let (world, realm) = (World::at(now()), RealmId::from_bytes(random_bytes()));
    for statement in [world.bootstrap(&founder), world.create_realm(&founder, realm), world.rotate(&founder, realm, 0)]
    {
        storage.append(statement).await?;
    }
    ensure!(storage.keys_bundle(realm, 1).await?.key_index == 1, "a key");
    Ok((storage, realm))
}
