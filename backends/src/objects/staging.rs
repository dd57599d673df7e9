//! Blocks between their arrival and the commit that names them.
//!
//! From [`OBJECT_BYTES_MIN`] on each is an object of its own, stored at once. Smaller ones wait in memory for their commit,
//! which takes them into its entry or packs them: a crash before it loses them, and the commit that names them then says
//! `BlockGone`.

use std::collections::HashMap;

use parsecfs_core::{
    id::{BlockId, RealmId},
    storage::{Block, Error, ErrorKind, Result},
};

use super::{
    BLOCK_BYTES_MAX, Shared,
    entry::{Doomed, Payload},
    follow::{RealmLog, RealmState},
    key, lock, misuse,
    pack::{PACK_BYTES_MAX, PackDraft, write_block},
    random,
    realm::BlockPlace,
};

/// Smallest block that is an object of its own.
const OBJECT_BYTES_MIN: usize = 256 << 10;
/// Blocks that wait in memory for their commit; more are packed at once.
const STAGED_BYTES_MAX: usize = 16 << 20;

/// Blocks that were put and not yet named by a commit.
#[derive(Default)]
pub(super) struct Staging {
    waiting: HashMap<BlockId, Block>,
    waiting_bytes: usize,
    pub(super) placed: Placed,
}

impl Staging {
    fn add(&mut self, id: BlockId, block: Block) {
        self.waiting_bytes += block.bytes.len();
        if let Some(replaced) = self.waiting.insert(id, block) {
            self.waiting_bytes -= replaced.bytes.len();
        }
    }

    fn remove(&mut self, id: BlockId) -> Option<Block> {
        let block = self.waiting.remove(&id)?;
        self.waiting_bytes -= block.bytes.len();
        Some(block)
    }

    /// A block that waits for its commit.
    pub(super) fn waiting(&self, id: BlockId) -> Option<&Block> {
        self.waiting.get(&id)
    }

    fn knows(&self, id: BlockId) -> bool {
        self.waiting.contains_key(&id) || self.placed.contains_key(&id)
    }
}

/// Places of blocks that this connection stored and no commit named yet.
type Placed = HashMap<BlockId, BlockPlace>;

impl Shared {
    pub(super) async fn put_blocks(&self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> Result<()> {
        if blocks.iter().any(|(_, block)| block.bytes.len() as u64 > BLOCK_BYTES_MAX) {
            return Err(misuse("a block is too large"));
        }
        let log = self.realm(realm)?;
        let (large, small): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|(_, block)| block.bytes.len() >= OBJECT_BYTES_MIN);
        self.put_objects(&log, large).await?;
        let full = {
            let mut staging = lock(&log.staging);
            for (id, block) in small {
                staging.add(id, block);
            }
            staging.waiting_bytes > STAGED_BYTES_MAX
        };
        if full {
            let waiting: Vec<_> = lock(&log.staging).waiting.keys().copied().collect();
            self.pack(&log, &waiting).await?;
        }
        Ok(())
    }

    async fn put_objects(&self, log: &RealmLog, blocks: Vec<(BlockId, Block)>) -> Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let objects: Vec<_> =
            blocks.iter().map(|(id, block)| (key::block(log.realm, *id), write_block(block))).collect();
        let created = self.verbs.create(&objects).await?;
        for ((name, bytes), outcome) in objects.iter().zip(created.outcomes) {
            // A repeat is fine; other bytes may be what a power cut left of an earlier try.
            if outcome == super::verbs::Created::Exists && self.verbs.get(name).await?.bytes.as_ref() != Some(bytes) {
                return Err(Error::new(ErrorKind::VersionConflict, "another block has this id"));
            }
        }
        lock(&log.staging).placed.extend(blocks.iter().map(|(id, _)| (*id, BlockPlace::Object)));
        Ok(())
    }

    /// Uploads waiting blocks in packs.
    pub(super) async fn pack(&self, log: &RealmLog, ids: &[BlockId]) -> Result<()> {
        let mut rest = ids;
        while !rest.is_empty() {
            let (object, name, placed) = {
                let staging = lock(&log.staging);
                let name = random();
                let mut draft = PackDraft::new();
                let mut placed = Vec::new();
                while let Some((id, others)) = rest.split_first() {
                    if let Some(block) = staging.waiting(*id) {
                        if !draft.is_empty() && draft.len() + block.bytes.len() > PACK_BYTES_MAX {
                            break;
                        }
                        let span = draft.push(*id.as_bytes(), block.key_index, &block.bytes);
                        let payload = Payload::Pack(name, span);
                        placed.push((*id, BlockPlace::Part { key_index: block.key_index, seq: 0, payload }));
                    }
                    rest = others;
                }
                (draft.finish(), name, placed)
            };
            if placed.is_empty() {
                continue;
            }
            self.verbs.create(&[(key::pack(log.realm, &name), object)]).await?;
            let mut staging = lock(&log.staging);
            for (id, place) in placed {
                staging.remove(id);
                staging.placed.insert(id, place);
            }
        }
        Ok(())
    }

    pub(super) async fn has_block(&self, log: &RealmLog, state: &RealmState, id: BlockId) -> Result<bool> {
        if state.data.doomed.contains_key(&Doomed::Block(id)) {
            return Ok(false);
        }
        if state.data.places.has_block(&id) {
            return Ok(true);
        }
        if let Some(BlockPlace::Part { payload: Payload::Pack(name, _), .. }) = lock(&log.staging).placed.get(&id)
            && state.data.doomed.contains_key(&Doomed::Pack(*name))
        {
            return Ok(false);
        }
        if lock(&log.staging).knows(id) {
            return Ok(true);
        }
        // Put before a restart.
        Ok(self.verbs.get_range(&key::block(log.realm, id), 0, 1).await?.is_some())
    }
}

impl RealmLog {
    /// Forgets staged blocks that the log now holds.
    pub(super) fn drop_committed(&self, state: &RealmState) {
        let mut staging = lock(&self.staging);
        let done: Vec<_> = staging.waiting.keys().filter(|id| state.data.places.has_block(id)).copied().collect();
        for id in done {
            staging.remove(id);
        }
        staging.placed.retain(|id, _| !state.data.places.has_block(id));
    }
}
