//! Blocks on a server: several on their way at once, each a request of its own.

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use parsecfs_core::{
    id::{BlockId, RealmId},
    storage::{Block, BlockStore, Error, ErrorKind, Result},
};

use super::{BLOCK_WRITES_MAX, ParsecStorage, command::Request};

/// A block came in a request of 1 MiB at most, and has a few fields around it.
const BLOCK_ANSWER_BYTES_MAX: usize = (1 << 20) + 4096;

impl BlockStore for ParsecStorage {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>> {
        async move {
            let puts = stream::iter(blocks).map(|(id, block)| self.put_one(realm, id, block));
            puts.buffer_unordered(BLOCK_WRITES_MAX).try_collect().await
        }
        .boxed()
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>> {
        async move {
            let _turn = self.block_reads.acquire().await.expect("the semaphore is never closed");
            let request = Request::new("block_read").with("block_id", &id).with("realm_id", &realm);
            let request = request.answered_within(BLOCK_ANSWER_BYTES_MAX);
            let mut reply = self.call(request).await?.ok()?;
            let bytes: Vec<u8> = reply.get("block")?;
            Ok(Block { key_index: reply.get("key_index")?, bytes: bytes.into() })
        }
        .boxed()
    }
}

impl ParsecStorage {
    async fn put_one(&self, realm: RealmId, id: BlockId, block: Block) -> Result<()> {
        let reply = {
            let _turn = self.block_writes.acquire().await.expect("the semaphore is never closed");
            let request = Request::new("block_create")
                .with("block_id", &id)
                .with("realm_id", &realm)
                .with("key_index", &block.key_index)
                .with_bytes("block", &block.bytes);
            self.call(request).await?
        };
        if reply.status() != "block_already_exists" {
            return reply.ok().map(drop);
        }
        // Ours, when its answer was lost.
        let there = self.get(realm, id).await?;
        if there.key_index == block.key_index && there.bytes == block.bytes {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::VersionConflict, format!("another block has the id {id}")))
        }
    }
}
